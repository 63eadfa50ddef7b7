"""Everybody who waits, so that each wait ends: by a result, a deadline, a cancel, or the close."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .errors import ClosedError


class WaitEnded(Exception):  # noqa: N818 - not an error by itself: the waiter makes one of it
    """A wait is over without what was waited for."""


class OutOfTime(WaitEnded):
    """Its time ran out."""


class Interrupted(WaitEnded):
    """What was waited with is closing."""


class Waits:
    """The waits of one client, all in one event loop, that end when something of it closes."""

    def __init__(self) -> None:
        self._scopes: set[asyncio.Timeout] = set()
        self._drained = asyncio.Event()
        self._is_closed = False
        self._loop = asyncio.get_running_loop()

    @property
    def is_closed(self) -> bool:
        """Whether every wait is interrupted, and no new one can begin."""
        return self._is_closed

    @asynccontextmanager
    async def limit(self, seconds: float) -> AsyncIterator[asyncio.Timeout]:
        """Let the block take so many seconds (`math.inf`: for ever).

        Raises `OutOfTime` when it takes longer, `Interrupted` when `interrupt` is called, and
        `ClosedError` in another loop.
        """
        if self._loop is not asyncio.get_running_loop():
            raise ClosedError("the client belongs to the event loop that entered it", sent=False)
        if self._is_closed:
            raise Interrupted
        scope = asyncio.timeout(None if seconds == math.inf else max(0.0, seconds))
        try:
            async with scope:
                self._scopes.add(scope)
                try:
                    yield scope
                finally:
                    self._leave(scope)
        except TimeoutError as error:
            # A TimeoutError of the block's own is somebody else's.
            if error.__class__ is not TimeoutError or not scope.expired():
                raise
            raise (Interrupted if self.is_closed else OutOfTime) from None

    def interrupt(self) -> None:
        """End every wait, and let no new one begin."""
        self._is_closed = True
        for scope in self._scopes:
            if not scope.expired():
                scope.reschedule(0.0)

    async def close(self) -> None:
        """Interrupt, and wait until everybody has left."""
        self.interrupt()
        if self._scopes:
            await self._drained.wait()

    def _leave(self, scope: asyncio.Timeout) -> None:
        self._scopes.discard(scope)
        if not self._scopes and self._is_closed:
            self._drained.set()
