"""The contract of what leads the world to a callback server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["LocalServer", "PublicURL", "Tell"]

Tell: TypeAlias = Callable[[str | None], None]
"""Called with the address that holds from now on; with None while there is none."""


@dataclass(frozen=True, slots=True)
class LocalServer:
    """Where a callback server listens, as a program on the same machine reaches it."""

    host: str
    """An address to connect to; never one that means all of them."""
    port: int
    is_tls: bool

    @property
    def url(self) -> str:
        """Its own address, such as `http://127.0.0.1:8443`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}"


class PublicURL(ABC):
    """One way for the world to reach a callback server.

    It holds what is configured and nothing that runs, so one may serve several servers, one after
    the other or at the same time.
    """

    may_change: bool = True
    """Whether the address can become another one while it is open."""

    @abstractmethod
    def open(self, local: LocalServer, tell: Tell) -> AbstractAsyncContextManager[str]:
        """Lead the world to `local` for as long as the context is entered, and give the address.

        The address is https, without a query and a slash at its end. When it changes meanwhile,
        `tell` is called, in the same event loop, with the new one, or with None while there is
        none. On leaving, whatever was started is ended and gone.

        Raises:
            PublicURLError: on entry, when there is no address to be had. Says why, and what to do.
            MissingExtraError: on entry, when an optional dependency is not installed.

        """
