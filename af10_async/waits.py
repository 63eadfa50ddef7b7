"""Everybody who waits, so that each wait ends: by a result, a deadline, a cancel, or the close."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType

from .errors import ClosedError


class WaitEnded(Exception):  # noqa: N818 - not an error by itself: the waiter makes one of it
    """A wait is over without what was waited for."""


class OutOfTime(WaitEnded):
    """Its time ran out."""


class Interrupted(WaitEnded):
    """What was waited with is closing."""


class Limit:
    """An `async with` block that may take so many seconds; see `Waits.limit`.

    It does what `asyncio.timeout` does, in a third of the memory: there may be very many.
    """

    __slots__ = ("_cancelling", "_handle", "_is_expired", "_seconds", "_task", "_waits")

    def __init__(self, waits: Waits, seconds: float) -> None:
        self._waits = waits
        self._seconds = seconds
        self._task: asyncio.Task[object] | None = None
        self._handle: asyncio.Handle | None = None
        self._is_expired = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # this is a coroutine
        self._waits.enter(self)
        self._task = task
        self._cancelling = task.cancelling()
        if self._seconds <= 0:
            self.expire_soon()
        elif self._seconds < math.inf:
            loop = asyncio.get_running_loop()
            self._handle = loop.call_at(loop.time() + self._seconds, self._expire)

    def expire_soon(self) -> None:
        """End the block at the next turn of the loop."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = asyncio.get_running_loop().call_soon(self._expire)

    def _expire(self) -> None:
        assert self._task is not None  # nothing expires before it is entered
        if not self._is_expired:
            self._is_expired = True
            self._task.cancel()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if self._handle is not None:
            self._handle.cancel()
        self._waits.leave(self)
        assert task is not None  # it was entered
        # Somebody else's cancellation of the same task goes on, whatever became of ours.
        is_ours = self._is_expired and task.uncancel() <= self._cancelling
        if is_ours and exc_type is asyncio.CancelledError:
            raise (Interrupted if self._waits.is_closed else OutOfTime) from None


class Waits:
    """The waits of one client, all in one event loop, that end when something of it closes."""

    def __init__(self) -> None:
        self._limits: set[Limit] = set()
        self._drained = asyncio.Event()
        self._is_closed = False
        self._loop = asyncio.get_running_loop()

    @property
    def is_closed(self) -> bool:
        """Whether every wait is interrupted, and no new one can begin."""
        return self._is_closed

    def limit(self, seconds: float) -> Limit:
        """Let an `async with` block take so many seconds (`math.inf`: for ever).

        Raises `OutOfTime` when it takes longer, `Interrupted` when `interrupt` is called, and
        `ClosedError` in another loop.
        """
        return Limit(self, seconds)

    def interrupt(self) -> None:
        """End every wait, and let no new one begin."""
        self._is_closed = True
        for limit in self._limits:
            limit.expire_soon()

    async def close(self) -> None:
        """Interrupt, and wait until everybody has left."""
        self.interrupt()
        if self._limits:
            await self._drained.wait()

    def enter(self, limit: Limit) -> None:
        """Count one that begins."""
        if self._loop is not asyncio.get_running_loop():
            raise ClosedError("the client belongs to the event loop that entered it", sent=False)
        if self._is_closed:
            raise Interrupted
        self._limits.add(limit)

    def leave(self, limit: Limit) -> None:
        """Forget one that ends."""
        self._limits.discard(limit)
        if not self._limits and self._is_closed:
            self._drained.set()
