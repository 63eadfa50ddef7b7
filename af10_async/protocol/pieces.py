"""Pieces: which bytes of a file are here, and who fetches which of the others. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MIN_PIECE = 1024 * 1024
"""Bytes below which a piece is not worth a connection of its own."""
MAX_PIECE = 128 * 1024 * 1024
"""Bytes after which a segment takes its next piece near the others, so that the file grows from
its beginning and is hashed on the way."""

Span = tuple[int, int]
"""The bytes from the first number up to, not including, the second."""


@dataclass(slots=True, eq=False)
class Piece:
    """What one connection fetches: from `position`, which moves, up to, not including, `stop`."""

    start: int
    position: int
    stop: int | None
    """None: to the end, wherever that is."""

    @property
    def left(self) -> int | None:
        """Bytes still to come."""
        return None if self.stop is None else self.stop - self.position


class Pieces:
    """The bytes of one file of `total` bytes (None: nobody knows), of which `done` are here."""

    def __init__(self, total: int | None = None, done: Iterable[Span] = ()) -> None:
        self.total = total
        self._done = _merged(done)
        self._active: list[Piece] = []

    @property
    def done(self) -> list[Span]:
        """What is here, in order."""
        return _merged([*self._done, *((each.start, each.position) for each in self._active)])

    @property
    def received(self) -> int:
        """How many bytes are here."""
        return sum(stop - start for start, stop in self.done)

    @property
    def front(self) -> int:
        """Up to where the file is here without a gap."""
        first = next(iter(self.done), (0, 0))
        return first[1] if first[0] == 0 else 0

    @property
    def is_gapless(self) -> bool:
        """Whether what is here is the beginning of the file, and nothing else."""
        return self.received == self.front

    @property
    def is_complete(self) -> bool:
        """Whether all is here."""
        return self.total is not None and self.received == self.total

    @property
    def is_shared(self) -> bool:
        """Whether several pieces are being fetched."""
        return len(self._active) > 1

    def learn_total(self, total: int, piece: Piece, segments: int = 1) -> None:
        """The length is known now; `piece`, so far without a stop, leaves room for the others."""
        self.total = total
        is_worth_it = segments > 1 and total >= 2 * MIN_PIECE
        piece.stop = min(total, self._size(segments)) if is_worth_it else total

    def claim(self, segments: int = 1) -> Piece | None:
        """The next piece for somebody to fetch, when up to `segments` do so; None: nothing is left.

        It is the first gap, or the second half of the largest piece that somebody else fetches.
        """
        gap = next(iter(self._gaps()), None)
        if gap is None:
            return self._split() if segments > 1 else None
        start, stop = gap
        if segments > 1 and stop is not None and self.total is not None:
            size = self._size(segments)
            stop = min(stop, start + size) if stop - start >= size + MIN_PIECE else stop
        piece = Piece(start, start, stop)
        self._active.append(piece)
        return piece

    def take(self, piece: Piece, size: int, end: int | None) -> int:
        """How many of `size` bytes, which came at its position, the piece takes.

        It goes on over its stop, up to `end`, where nobody else is: one connection is better than
        two.
        """
        taken = 0
        while True:
            left = size - taken if piece.left is None else min(piece.left, size - taken)
            piece.position += left
            taken += left
            if piece.left != 0 or end is None or not self._extend(piece, end):
                return taken

    def release(self, piece: Piece) -> None:
        """Nobody fetches it any more; what it has not brought is a gap again."""
        self._active.remove(piece)
        self._done = _merged([*self._done, (piece.start, piece.position)])

    def _gaps(self) -> list[tuple[int, int | None]]:
        """What is neither here nor being fetched."""
        if self.total is None:
            # One byte again: a file that is here to its end could not be asked for "the rest".
            return [] if self._active else [(max(self.front - 1, 0), None)]
        taken = [*self._done, *((each.start, each.stop or self.total) for each in self._active)]
        found: list[tuple[int, int | None]] = []
        position = 0
        for start, stop in _merged(taken):
            if position < start:
                found.append((position, start))
            position = stop
        if position < self.total:
            found.append((position, self.total))
        return found

    def _extend(self, piece: Piece, limit: int) -> bool:
        for start, stop in self._gaps():
            if start == piece.stop and stop is not None and min(stop, limit) > start:
                piece.stop = min(stop, limit)
                return True
        return False

    def _size(self, segments: int) -> int:
        assert self.total is not None  # else there is nothing to divide
        return min(max(-(-self.total // segments), MIN_PIECE), MAX_PIECE)

    def _split(self) -> Piece | None:
        largest = max(self._active, key=lambda each: each.left or 0, default=None)
        if largest is None or (largest.left or 0) < 2 * MIN_PIECE:
            return None
        assert largest.stop is not None  # it has bytes left
        middle = (largest.position + largest.stop) // 2
        piece = Piece(middle, middle, largest.stop)
        largest.stop = middle
        self._active.append(piece)
        return piece


def _merged(spans: Iterable[Span]) -> list[Span]:
    found: list[Span] = []
    for start, stop in sorted(spans):
        if start >= stop:
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], stop))
        else:
            found.append((start, stop))
    return found
