"""Who waits for which callback, and what becomes of one that nobody waits for."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias

from .errors import StoreError
from .protocol.lifecycle import JobRecord
from .stores import Store

logger = logging.getLogger("af10_async.callback_server")


@dataclass(frozen=True, slots=True)
class Orphan:
    """A genuine callback that no living job of this process claims; `client.job(key)` adopts it."""

    key: str
    account: str | None
    """Whose job it is, as far as the store knows."""


OrphanHandler: TypeAlias = Callable[[Orphan], Awaitable[object] | object]
Listener: TypeAlias = Callable[[JobRecord], bool]
"""Is shown a changed record, and says whether somebody claims it."""


class Claims:
    """The claims on jobs by their keys, and those who want to know of orphans.

    Args:
        store: Says whether somebody else works on a job.
        do: Runs something beside what is going on.

    """

    def __init__(self, store: Store, do: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self.orphan_handlers: list[OrphanHandler] = []
        self._store = store
        self._do = do
        self._listeners: dict[str, tuple[Listener, ...]] = {}

    def add(self, key: str, listener: Listener) -> None:
        """Show each change by a callback to `listener`."""
        self._listeners[key] = (*self._listeners.get(key, ()), listener)

    def remove(self, key: str, listener: Listener) -> None:
        """Take a claim back, if there is one."""
        left = tuple(each for each in self._listeners.pop(key, ()) if each != listener)
        if left:
            self._listeners[key] = left

    def tell(self, record: JobRecord) -> None:
        """A callback has changed this record."""
        listeners = self._listeners.get(record.key)
        claimed = [listener(record) for listener in listeners] if listeners is not None else ()
        if any(claimed):
            return
        if self.orphan_handlers and not record.is_done:
            self._do(self._tell_of_orphan(record))

    async def _tell_of_orphan(self, record: JobRecord) -> None:
        # Over a shared store, whoever waits for it may be elsewhere, and then has the lease.
        try:
            if record.account is not None and not await self._store.lease(record.key):
                return
        except StoreError as error:
            logger.warning("whether job %s is an orphan is not known: %s", record.key, error)
            return
        self._store.release(record.key)
        logger.warning("nobody waits for job %s: its callback is kept as an orphan", record.key)
        orphan = Orphan(record.key, record.account)
        # One after the other, in this very task: a handler may close the server, which ends others.
        for handler in list(self.orphan_handlers):
            await _call(handler, orphan)


async def _call(handler: OrphanHandler, orphan: Orphan) -> None:
    try:
        result = handler(orphan)
        if inspect.isawaitable(result):
            await result
    except Exception:
        logger.exception("on_orphan failed for job %s", orphan.key)
