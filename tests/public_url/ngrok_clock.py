"""Time that passes when a test says so."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from af10_async.runtime import Runtime


class Clock:
    """Each pause lasts until it is ended by its length; what ends at once may be named."""

    def __init__(self, *at_once: float) -> None:
        self.at_once = set(at_once)
        self._pauses: defaultdict[float, list[asyncio.Event]] = defaultdict(list)
        self._change = asyncio.Event()
        self.runtime = Runtime(sleep=self.sleep, random_bytes=self._random_bytes)
        self._made = 0

    def _random_bytes(self, length: int) -> bytes:
        self._made += 1
        return self._made.to_bytes(length, "big")

    async def sleep(self, seconds: float) -> None:
        if seconds in self.at_once:
            await asyncio.sleep(0)
            return
        over = asyncio.Event()
        self._pauses[seconds].append(over)
        self._change.set()
        try:
            await over.wait()
        finally:
            self._pauses[seconds].remove(over)

    async def pausing(self, seconds: float) -> None:
        """Wait until somebody pauses so long."""
        while not self._pauses[seconds]:
            self._change.clear()
            await self._change.wait()

    async def end(self, seconds: float) -> None:
        """Let those go on who pause so long."""
        await self.pausing(seconds)
        for over in self._pauses[seconds]:
            over.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def round(self, seconds: float) -> None:
        """Let somebody go on who pauses so long, and wait until they pause again."""
        await self.end(seconds)
        await self.pausing(seconds)
