"""Whether the time of an answer tells what kind of key was asked for."""

from __future__ import annotations

import bisect
import random
import socket
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .keys import FIRST_UNKNOWN, key_of, request_of, wrong_kinds

_WARM_UP = 200


@dataclass(frozen=True, slots=True)
class Difference:
    """One kind of key beside another."""

    kind: str
    beside: str
    median: float
    """Seconds to its answer."""
    difference: float
    """Seconds by which that is longer than the other's."""
    told_apart: float
    """How likely one of this kind takes longer than one of the other: 0.5 says nothing."""
    noise: float
    """The same for the two halves of this kind."""

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {name: getattr(self, name) for name in Difference.__slots__}

    def line(self) -> str:
        """For people."""
        return (
            f"  {self.kind:<34} {self.median * 1e6:7.1f} µs  {self.difference * 1e6:+6.1f} µs"
            f"  told apart {self.told_apart:.3f}  noise {self.noise:.3f}"
            f"  beside: {self.beside}"
        )


async def differences(port: int, count: int) -> list[Difference]:
    """Ask for so many keys of each kind, mixed: wrong ones; genuine ones, known or not.

    The receiver needs `count` jobs that nobody has called back.
    """
    wrong = _times(port, {kind: [key] * count for kind, key in wrong_kinds().items()})
    genuine = _times(
        port,
        {
            "genuine, a job waits": [key_of(number) for number in range(count)],
            "genuine, no job known": [key_of(FIRST_UNKNOWN + number) for number in range(count)],
        },
    )
    return [*_compared(wrong), *_compared(genuine)]


def _times(port: int, keys: Mapping[str, Sequence[str]]) -> dict[str, list[float]]:
    """Seconds of each request; a connection for each, which is open already."""
    draw = random.Random(2026)
    mixed = [(kind, key) for kind, several in keys.items() for key in several]
    draw.shuffle(mixed)
    for _, key in [each for each in mixed if "genuine" not in each[0]][:_WARM_UP]:
        _seconds(port, request_of(key))
    found: dict[str, list[float]] = {kind: [] for kind in keys}
    for kind, key in mixed:
        found[kind].append(_seconds(port, request_of(key)))
    return found


def _seconds(port: int, request: bytes) -> float:
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        time.sleep(0.0005)  # until it is accepted, so that this is not measured
        started = time.perf_counter()
        line.sendall(request)
        line.recv(4096)
        return time.perf_counter() - started


def _compared(times: Mapping[str, Sequence[float]]) -> list[Difference]:
    beside, *_ = times
    return [
        Difference(
            kind=kind,
            beside=beside,
            median=statistics.median(mine),
            difference=statistics.median(mine) - statistics.median(times[beside]),
            told_apart=longer(mine, times[beside]),
            noise=longer(mine[::2], mine[1::2]),
        )
        for kind, mine in times.items()
    ]


def longer(some: Sequence[float], others: Sequence[float]) -> float:
    """How likely one of these is longer than one of those."""
    ordered = sorted(others)
    wins = (bisect.bisect_left(ordered, each) + bisect.bisect_right(ordered, each) for each in some)
    return sum(wins) / (2 * len(some) * len(ordered))
