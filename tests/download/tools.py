"""What tests of downloads share: time that does not pass, and what is to be seen in a folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from af10_async import Downloader, RetryPolicy
from af10_async.runtime import Runtime

from .file_server import DATE, Request, make_body

MIB = 1024 * 1024
NAME = "backup.zip"
BODY = make_body(10_000, seed=0)
OTHER = make_body(10_000, seed=1)
LARGE = make_body(3 * MIB + 17, seed=2)
"""Large enough to be taken straight off the socket, and for several blocks of it."""

QUICK = RetryPolicy(first_pause=0.001, longest_pause=0.002)


@dataclass
class Time:
    """A clock that only pauses move; nobody really waits for them."""

    seconds: float = 0.0
    pauses: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.seconds += seconds
        await asyncio.sleep(0)

    def runtime(self) -> Runtime:
        return Runtime(
            now=lambda: DATE + self.seconds,
            monotonic=lambda: self.seconds,
            sleep=self.sleep,
            chance=lambda: 1.0,
        )


def downloads(time: Time | None = None, **options: Any) -> Downloader:
    """A downloader that does not wait between its attempts."""
    return Downloader(**{"runtime": (time or Time()).runtime(), **options})


def real_downloads(**options: Any) -> Downloader:
    """A downloader that tells its progress as time really passes; its pauses are short."""
    return Downloader(**{"retries": QUICK, **options})


def names(folder: Path) -> list[str]:
    """All that is in it."""
    return sorted(each.name for each in folder.iterdir())


def part_of(folder: Path) -> Path:
    """The only partial file in it."""
    (found,) = folder.glob(".af10-*.part")
    return found


def state_of(folder: Path) -> Path:
    """The only resume state in it."""
    (found,) = folder.glob(".af10-*.json")
    return found


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that nobody tells us of."""
    while not holds():
        await asyncio.sleep(0.002)


def has_received(folder: Path, size: int) -> Callable[[], bool]:
    """Whether so many bytes are in the only partial file of the folder."""
    return lambda: any(each.stat().st_size >= size for each in folder.glob(".af10-*.part"))


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel it, and see that this is how it ends."""
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


def ranges(requests: list[Request]) -> list[str | None]:
    """What was asked for, in order."""
    return [each.range for each in requests]
