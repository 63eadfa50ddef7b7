"""All connections, by what they do and where they come from: whose turn it is, and who goes.

A flood must wait for itself and displace its own, and not those of others, who may be far away and
slow. So each origin has its turn, however few connections it has, and whoever has most loses first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress

from .callback_connections import Connection, Doing

TIME_TO_SPEAK = 1.0
"""Seconds that a connection that had its turn has for its handshake and the head of a request. Who
takes longer is the next to go."""
LOOK = 0.1
"""Seconds between looks at who takes longer."""
_MOST_LED = 256
"""Of one origin. Whose request is whole is led for some five turns of the loop: those are fewer."""


_SILENT = (Doing.WAITING, Doing.IDLE)
_WAITING, _READY, _BUSY, _IDLE = Doing.WAITING, Doing.READY, Doing.BUSY, Doing.IDLE
"""Asked for with each request: an attribute of an enumeration takes its time."""


class Crowd:
    """Knows all connections.

    Args:
        share: What one origin may have before it is the first to lose some.
        ready_may_go: Whether what makes a connection ready is less than a whole request, so that no
            callback is lost with it.
        clock: Tells the time.

    """

    def __init__(self, *, share: int, ready_may_go: bool, clock: Callable[[], float]) -> None:
        self._share = share
        self._ready_may_go = ready_may_go
        self._clock = clock
        self._now = self._looked = clock()
        self._progress = asyncio.Event()
        self._by = {doing: ByOrigin() for doing in Doing}
        self._totals = _Totals()
        self._count = 0
        self._unsettled: dict[Connection, None] = {}
        """Those that became busy or idle, and are not among these yet, in this order."""

    def __getitem__(self, doing: Doing) -> ByOrigin:
        self._settle()
        return self._by[doing]

    def __len__(self) -> int:
        return self._count

    def now(self, connection: Connection, doing: Doing | None) -> None:
        """From now on, it does this; None: nothing any more."""
        before = connection.doing
        if before is doing:
            return
        connection.doing = doing
        if doing is not _BUSY:
            connection.since = self.time()
        if doing is not _WAITING and doing is not _READY:
            self._progress.set()
        self._unsettled.pop(connection, None)
        if (before is _BUSY and doing is _IDLE) or (before is _IDLE and doing is _BUSY):
            # That happens with each request, and matters only when it is asked for.
            self._unsettled[connection] = None
        else:
            self._place(connection)

    def _settle(self) -> None:
        for connection in self._unsettled:
            self._place(connection)
        self._unsettled.clear()

    def _place(self, connection: Connection) -> None:
        before, doing = connection.placed, connection.doing
        connection.placed = doing
        if before is not None:
            self._by[before].discard(connection)
        if doing is not None:
            self._by[doing].add(connection)
        self._count += (doing is not None) - (before is not None)
        change = _counts(doing) - _counts(before)
        if change:
            self._totals.change(connection.origin, change)

    def time(self) -> float:
        """What connections have had of it: while the loop stood still, none of them could go on."""
        now = self._clock()
        self._now += min(now - self._looked, LOOK)
        self._looked = now
        return self._now

    async def progress(self) -> None:
        """Wait until one has ended or gone on, or may be late: there may be one to let go then."""
        self._progress.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK):
                await self._progress.wait()

    def to_let_go(self) -> Connection | None:
        """The one that is missed least; None when none can be spared just now.

        Of the origin that has most: of those that are silent, the one goes that has been so for
        longest. When all of them have spoken, the last that is ready, if these may go. Or one that
        had its turn and does not come to its request; or, before others wait for an origin whose
        requests are fewer than another's silent ones, one of these. Where no origin has more than
        its share, one that is silent goes, whosever it is.
        """
        self._settle()
        origin, count = self._totals.largest()
        if origin is None:
            return None
        if count <= self._share and (silent := self._silent(None)) is not None:
            return silent
        return self._silent(origin) or self._spoken(origin)

    def _silent(self, origin: str | None) -> Connection | None:
        waiting, idle = (self._by[doing].first(origin) for doing in _SILENT)
        if waiting is None or idle is None:
            return waiting or idle
        return waiting if waiting.since <= idle.since else idle

    def _spoken(self, origin: str) -> Connection | None:
        ready, led = self._by[Doing.READY], self._by[Doing.LED]
        if self._ready_may_go:
            return ready.last(origin) or led.first(origin)
        if led.count_of(origin) > _MOST_LED:
            return led.first(origin)
        oldest = led.first()
        if oldest is not None and self.time() - oldest.since >= TIME_TO_SPEAK:
            return oldest
        most_silent = max((self._by[doing] for doing in _SILENT), key=ByOrigin.most)
        if most_silent.most() > ready.count_of(origin):
            return most_silent.first(most_silent.largest())
        return None


class ByOrigin:
    """Connections in the order in which they came, all together and by where they come from."""

    def __init__(self) -> None:
        self._all: dict[Connection, None] = {}
        self._of: dict[str, dict[Connection, None]] = {}
        """The origin whose turn it is comes first."""

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._all)

    def add(self, connection: Connection) -> None:
        """Take it in, as the last."""
        self._all[connection] = None
        self._of.setdefault(connection.origin, {})[connection] = None

    def discard(self, connection: Connection) -> None:
        """Forget it, if it is here."""
        if connection not in self._all:
            return
        del self._all[connection]
        group = self._of[connection.origin]
        del group[connection]
        if not group:
            del self._of[connection.origin]

    def first(self, origin: str | None = None) -> Connection | None:
        """The one that came first, of an origin or of all; None when there is none."""
        return next(iter(self._group(origin)), None)

    def last(self, origin: str) -> Connection | None:
        """The one that came last of an origin; None when there is none."""
        return next(reversed(self._group(origin)), None)

    def _group(self, origin: str | None) -> dict[Connection, None]:
        return self._all if origin is None else self._of.get(origin, {})

    def count_of(self, origin: str) -> int:
        """How many come from there."""
        return len(self._of.get(origin, ()))

    def largest(self) -> str | None:
        """The origin that has most; None when there is none."""
        return max(self._of, key=self.count_of, default=None)

    def most(self) -> int:
        """How many that one has."""
        return max(map(len, self._of.values()), default=0)

    def origins(self) -> Iterator[str]:
        """In the order of their turns."""
        return iter(self._of)

    def had_its_turn(self, origin: str) -> None:
        """The others come first now."""
        group = self._of.pop(origin, None)
        if group is not None:
            self._of[origin] = group


class _Totals:
    """How many each origin has, and which has most, however many origins there are."""

    def __init__(self) -> None:
        self._count: dict[str, int] = {}
        self._with: dict[int, dict[str, None]] = {0: {}}
        """The origins that have so many."""
        self._most = 0

    def change(self, origin: str, change: int) -> None:
        """It has one more, or one less."""
        before = self._count.pop(origin, 0)
        count = before + change
        if before:
            del self._with[before][origin]
        if count:
            self._count[origin] = count
            self._with.setdefault(count, {})[origin] = None
        if count > self._most or not self._with[self._most]:
            self._most = count  # one more or less: there is no other in between

    def largest(self) -> tuple[str | None, int]:
        """The origin that has most, and how many; None when there is none."""
        return next(iter(self._with[self._most]), None), self._most


def _counts(doing: Doing | None) -> bool:
    """Whether it is one of those that may be let go."""
    return doing is not None and doing is not _BUSY
