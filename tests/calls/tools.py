"""What the tests of calls have in common: a clock that only sleeping moves."""

from __future__ import annotations

import asyncio
import heapq
import itertools

from af10_async.runtime import Runtime


class FakeTime:
    """Time that passes only while somebody sleeps, and then at once."""

    def __init__(self) -> None:
        self.clock = 1000.0
        self.chance = 1.0
        self.pauses: list[float] = []
        self.runtime = Runtime(
            now=self.time, monotonic=self.time, sleep=self.sleep, chance=lambda: self.chance
        )

    def time(self) -> float:
        return self.clock

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock += seconds
        await asyncio.sleep(0)


class SharedTime:
    """Time that passes only when so many as there are have nothing to do but sleep."""

    def __init__(self) -> None:
        self.clock = 0.0
        self._sleeping: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._change = asyncio.Event()
        self.runtime = Runtime(
            now=self.time, monotonic=self.time, sleep=self.sleep, chance=lambda: 1.0
        )

    def time(self) -> float:
        return self.clock

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        until = self.clock + seconds
        heapq.heappush(self._sleeping, (until, next(self._numbers), woken))
        self._change.set()
        await woken

    async def pass_for(self, tasks: list[asyncio.Task[object]]) -> None:
        """Let time pass until all of these are done; each of them sleeps once at a time."""
        for task in tasks:
            task.add_done_callback(lambda _: self._change.set())
        while alive := sum(not task.done() for task in tasks):
            if len(self._sleeping) < alive:
                self._change.clear()
                await self._change.wait()
                continue
            self.clock, _, woken = heapq.heappop(self._sleeping)
            woken.set_result(None)
