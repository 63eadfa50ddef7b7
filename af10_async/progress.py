"""Progress: how far a download has come, told not for every block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_EVERY = 0.1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download has come."""

    received: int
    """Bytes that are here, those of earlier attempts and processes included. Falls back to 0 when
    it has to start over."""
    total: int | None
    """Bytes in all; None when the server does not say."""
    seconds: float
    """Since its start."""
    resumed_from: int = 0
    """Bytes that were here at its start."""
    segment: int = 0
    """Which of the connections brought the latest of them, from 0."""
    segments: int = 1
    """How many connections there are."""

    @property
    def rate(self) -> float:
        """Bytes per second on the average, since its start."""
        return self._fetched / self.seconds if self.seconds > 0 and self._fetched > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Time left at this rate; None when nobody can tell."""
        if self.total is None or not self.rate:
            return None
        return (self.total - self.received) / self.rate

    @property
    def _fetched(self) -> int:
        return self.received - self.resumed_from


ProgressHandler = Callable[[Progress], object]


class Meter:
    """Calls a progress handler: when asked to, and at most ten times a second in between."""

    def __init__(
        self, handler: ProgressHandler | None, clock: Callable[[], float], started: float
    ) -> None:
        self.total: int | None = None
        self.resumed_from = 0
        self.segments = 1
        self._handler = handler
        self._clock = clock
        self._started = started
        self._told_at = started

    def see(self, received: int, segment: int) -> None:
        """So many bytes are here."""
        if self._handler is not None and self._clock() - self._told_at >= _EVERY:
            self.tell(received, segment)

    def tell(self, received: int, segment: int = 0) -> None:
        """Call the handler now."""
        if self._handler is not None:
            self._told_at = self._clock()
            seconds = self._told_at - self._started
            self._handler(
                Progress(received, self.total, seconds, self.resumed_from, segment, self.segments)
            )
