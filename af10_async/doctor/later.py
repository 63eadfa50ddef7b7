"""A public address that is not there yet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from ..public_url import LocalServer, PublicURL, Tell


class Later(PublicURL):
    """Opened when the server has listened for a while, so that one can be told from the other."""

    may_change = False

    def __init__(self) -> None:
        self.tell: Tell = lambda url: None

    @asynccontextmanager
    async def open(self, local: LocalServer, tell: Tell) -> AsyncIterator[str]:
        """There is no address yet."""
        self.tell = tell
        yield cast(str, None)
