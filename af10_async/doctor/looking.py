"""Stores as one opens them who must leave them as they are.

The first callback secret that a store is shown stays in it for ever, and whoever signs with another
one is warned. So an examination, of which a mistyped one may be the subject, only looks.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..stores import Store, open_store
from ..stores.sqlite import SqliteStore
from ..stores.sqlite_transaction import Transaction
from ..stores.valkey import ValkeyStore

_SQLITE = "sqlite:"


class _SqliteStore(SqliteStore):
    async def callback_secret(self, candidate: bytes) -> bytes:
        """The callback secret kept with the jobs, or else `candidate`, which is not kept."""

        def step(transaction: Transaction) -> bytes:
            select = "SELECT value FROM meta WHERE name = 'callback secret'"
            found = transaction.connection.execute(select).fetchone()
            return candidate if found is None else bytes(found[0])

        return await self._ask(step)


class _ValkeyStore(ValkeyStore):
    async def callback_secret(self, candidate: bytes) -> bytes:
        """The callback secret kept with the jobs, or else `candidate`, which is not kept."""
        found: bytes | None = await self._client.run("GET", f"{self._prefix}:secret")
        return candidate if found is None else found


def looking_store(url: str, *, now: Callable[[], float] = time.time) -> Store:
    """The store that a URL names, still to be opened; it takes no callback secret.

    Raises:
        ValueError: the URL is of another kind.
        MissingExtraError: what this store needs is not installed.

    """
    if url.startswith(_SQLITE):
        return _SqliteStore(url.removeprefix(_SQLITE), now=now)
    # What is in memory ends with the examination.
    return open_store(url, now=now) if url == "memory:" else _ValkeyStore(url, now=now)
