"""Callbacks as AF10 sends them: at a steady pace, each for a job of its own, and timed."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from .keys import key_of, request_of

PATIENCE = 10.0
"""Seconds after which a callback is given up."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a callback reaches the receiver."""

    port: int
    tls: ssl.SSLContext | None
    is_kept: bool
    """Whether by a connection that other callbacks use, too."""


@dataclass(slots=True)
class Record:
    """What became of them."""

    answered: list[int] = field(default_factory=list)
    """The numbers of those that got a 200."""
    seconds: list[float] = field(default_factory=list)
    """From when each was sent to its answer, its connection included; all that got one."""
    failures: Counter[str] = field(default_factory=Counter)
    renewed: int = 0
    """Kept connections that had ended when they were to be used again, as they may."""

    def percentile(self, part: float) -> float:
        """Seconds within which this part of them was answered."""
        ordered = sorted(self.seconds) or [float("nan")]
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


class _Line:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def opened(cls, way: Way) -> _Line:
        name = "127.0.0.1" if way.tls else None
        return cls(
            *await asyncio.open_connection("127.0.0.1", way.port, ssl=way.tls, server_hostname=name)
        )

    async def ask(self, request: bytes) -> int | None:
        """The status; None when the connection ended without a byte."""
        try:
            self._writer.write(request)
            await self._writer.drain()
            head = await self._reader.readuntil(b"\r\n\r\n")
        except ConnectionError:
            return None
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return None
        await self._reader.readexactly(_length_in(head))
        return int(head[9:12])

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError, ssl.SSLError):
            await self._writer.wait_closed()


def _length_in(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0])


class Callers:
    """Sends callbacks to one receiver.

    Args:
        ways: Taken in turn.

    """

    def __init__(self, ways: Sequence[Way]) -> None:
        self._ways = itertools.cycle(ways)
        self._numbers = itertools.count()
        self._kept: dict[Way, list[_Line]] = {way: [] for way in ways if way.is_kept}
        self.record = Record()

    def renew(self) -> Record:
        """Begin a new record; the one so far."""
        record, self.record = self.record, Record()
        return record

    async def close(self) -> None:
        """Let go of the kept connections."""
        for lines in self._kept.values():
            while lines:
                await lines.pop().close()

    async def steadily(self, pace: float, seconds: float) -> None:
        """So many a second, whether or not those before were answered."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        async with asyncio.TaskGroup() as group:
            for number in range(round(pace * seconds)):
                await asyncio.sleep(max(0.0, begin + number / pace - loop.time()))
                group.create_task(self.one())

    async def one(self) -> None:
        """One callback."""
        way, number = next(self._ways), next(self._numbers)
        record = self.record
        started = time.perf_counter()
        try:
            async with asyncio.timeout(PATIENCE):
                line, status = await self._answered(way, request_of(key_of(number)))
        except (OSError, EOFError, ValueError) as error:
            record.failures[type(error).__name__] += 1
            return
        record.seconds.append(time.perf_counter() - started)
        if status == 200:
            record.answered.append(number)
        else:
            record.failures[str(status or "cut off")] += 1
        await self._done_with(line, way, status)

    async def _answered(self, way: Way, request: bytes) -> tuple[_Line, int | None]:
        while lines := self._kept.get(way):
            line = lines.pop()
            status = await _asked(line, request)
            if status is not None:
                return line, status
            await line.close()
            self.record.renewed += 1  # as every HTTP client does
        line = await _Line.opened(way)
        return line, await _asked(line, request)

    async def _done_with(self, line: _Line, way: Way, status: int | None) -> None:
        if way.is_kept and status == 200:
            self._kept[way].append(line)
        else:
            await line.close()


async def _asked(line: _Line, request: bytes) -> int | None:
    """As `ask`, and nothing stays open when that fails."""
    try:
        return await line.ask(request)
    except BaseException:
        await line.close()
        raise
