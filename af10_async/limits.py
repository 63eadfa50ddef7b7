"""How many requests are under way at a time: in all, and for each account; fair among accounts."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Self
from weakref import WeakKeyDictionary

from .errors import ConfigurationError

TOTAL = 200
"""Most requests to AF10 that all clients of one event loop have under way at a time."""
PER_ACCOUNT = 100
"""Most that one client has, unless told otherwise."""


@dataclass(slots=True, eq=False)
class _Line:
    """One account: what it has under way, and who waits for a slot."""

    used: int = 0
    waiters: deque[asyncio.Future[None]] = field(default_factory=deque)


class ConcurrencyLimit:
    """Slots for requests; whoever finds none waits.

    Waiting is cheap here, while httpx's own queue becomes slow when it is long. Accounts take
    turns, so one with a thousand requests in the line delays another by one request, not by a
    thousand. Those with nothing under way go first, and a quarter of the slots is theirs alone, so
    that a few accounts whose requests hang do not stop the rest.
    """

    def __init__(self, total: int = TOTAL) -> None:
        if total < 1:
            raise ConfigurationError("the number of requests at a time must be at least 1")
        self._free = total
        self._reserve = total // 4
        """Slots that only accounts with nothing under way may take."""
        self._lines: dict[str, _Line] = {}
        self._firsts: OrderedDict[str, int] = OrderedDict()
        """Who waits with nothing under way, in turn, and how many each of them may have."""
        self._others: OrderedDict[str, int] = OrderedDict()
        """Who waits for one more."""

    @classmethod
    def of_this_loop(cls) -> Self:
        """The one that clients share which have not been given another."""
        loop = asyncio.get_running_loop()
        if loop not in _of_loops:
            _of_loops[loop] = cls()
        found = _of_loops[loop]
        assert isinstance(found, cls)  # nothing else is put there
        return found

    async def acquire(self, account: str, most: int = PER_ACCOUNT) -> None:
        """Wait for a slot; `most` is how many this account may have."""
        line = self._lines.get(account)
        if line is None:
            line = self._lines[account] = _Line()
        if not line.waiters and line.used < most and self._has_room(line.used):
            self._free -= 1
            line.used += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.waiters.append(turn)
        self._line_up(account, line, most)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(account, most)  # it came together with the cancellation
            else:
                with contextlib.suppress(ValueError):  # when it was passed over already
                    line.waiters.remove(turn)
                self._tidy(account, line)
            raise

    def release(self, account: str, most: int = PER_ACCOUNT) -> None:
        """Give a slot back; it goes to the next in turn."""
        line = self._lines[account]
        self._free += 1
        line.used -= 1
        self._line_up(account, line, most)
        while self._firsts and self._has_room(0):
            self._grant(*self._firsts.popitem(last=False))
        while self._others and self._has_room(1):
            self._grant(*self._others.popitem(last=False))
        self._tidy(account, line)

    def _has_room(self, used: int) -> bool:
        """Whether there is a slot for an account that has so many."""
        return self._free > (self._reserve if used else 0)

    def _line_up(self, account: str, line: _Line, most: int) -> None:
        """Let an account have its turn, if it waits and may have more than it has."""
        if line.waiters and line.used < most:
            turns, other = self._firsts, self._others
            if line.used:
                turns, other = other, turns
            other.pop(account, None)
            turns.setdefault(account, most)

    def _grant(self, account: str, most: int) -> None:
        line = self._lines[account]
        while line.waiters and line.waiters[0].done():
            line.waiters.popleft()  # cancelled, and does not know it yet
        if line.waiters and line.used < most:
            self._free -= 1
            line.used += 1
            line.waiters.popleft().set_result(None)
            self._line_up(account, line, most)

    def _tidy(self, account: str, line: _Line) -> None:
        if not line.used and not line.waiters and self._lines.get(account) is line:
            del self._lines[account]
            self._firsts.pop(account, None)
            self._others.pop(account, None)


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, ConcurrencyLimit] = WeakKeyDictionary()
