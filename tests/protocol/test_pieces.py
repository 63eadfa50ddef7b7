"""Pieces: every byte is fetched, and none by two at the same time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from af10_async.protocol.pieces import MAX_PIECE, MIN_PIECE, Piece, Pieces, Span

MIB = 1024 * 1024
SIZES = st.integers(0, 20 * MIB) | st.sampled_from(
    [0, 1, MIN_PIECE - 1, MIN_PIECE, 2 * MIN_PIECE - 1, 2 * MIN_PIECE, 2 * MIN_PIECE + 1]
)


@dataclass
class Connection:
    """Somebody who fetches one piece."""

    piece: Piece
    end: int | None
    """Up to where its server sends bytes, if that is known."""


class Download:
    """A download of `total` bytes that several take part in, and that fails now and then."""

    def __init__(self, draw: random.Random, total: int, segments: int, *, is_told: bool) -> None:
        self.draw = draw
        self.total = total
        self.segments = segments
        self.is_told = is_told
        self.pieces = Pieces()
        self.connections: list[Connection] = []
        self.taken: list[Span] = []
        """Each span that some piece took."""

    def connect(self) -> bool:
        """One more begins, if anything is left for it."""
        active = [each.piece for each in self.connections]
        before = [(each.left or 0) for each in active]
        piece = self.pieces.claim(self.segments)
        if piece is None:
            return False
        if piece.start in {each.stop for each in active if each.left is not None}:
            cut = [b for b, each in zip(before, active, strict=True) if b != (each.left or 0)]
            assert all(left >= 2 * MIN_PIECE for left in cut), "split, though it was small"
            assert not cut or (piece.left or 0) >= MIN_PIECE
        self.connections.append(Connection(piece, piece.stop))
        if self.pieces.total is None and self.is_told:
            self.pieces.learn_total(self.total, piece, self.segments)
            self.connections[-1].end = self.total  # the answer is the whole file
        return True

    def receive(self, connection: Connection, size: int) -> None:
        """Some bytes come, as many as there are."""
        piece, start = connection.piece, connection.piece.position
        end = self.total if connection.end is None else connection.end
        size = min(size, end - start)
        taken = self.pieces.take(piece, size, connection.end)
        assert 0 <= taken <= size
        assert piece.position == start + taken
        if taken:
            self.taken.append((start, start + taken))
        if taken < size or piece.position == end:
            if self.pieces.total is None and piece.position == self.total:
                self.pieces.learn_total(self.total, piece)
            self.end(connection)

    def end(self, connection: Connection) -> None:
        """It is done, or it has failed."""
        self.connections.remove(connection)
        self.pieces.release(connection.piece)

    def check(self) -> None:
        """What holds at every moment."""
        pieces = self.pieces
        here: set[Span] = {*pieces.done}
        assert pieces.received == sum(stop - start for start, stop in pieces.done)
        assert pieces.received == _size(self.taken)
        assert all(one[1] < two[0] for one, two in pairwise(pieces.done))
        assert pieces.front == next((stop for start, stop in here if start == 0), 0)
        assert pieces.is_gapless is (pieces.front == pieces.received)
        ahead = sorted(
            (each.piece.position, each.piece.stop or self.total) for each in self.connections
        )
        for (_, stop), (start, _) in pairwise(ahead):
            assert stop <= start, "two fetch the same byte"
        for start, stop in ahead:
            assert all(stop <= here[0] or here[1] <= start for here in pieces.done)


def _size(spans: list[Span]) -> int:
    total = position = 0
    for start, stop in sorted(spans):
        total += max(0, stop - max(start, position))
        position = max(position, stop)
    return total


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    total=SIZES,
    segments=st.integers(1, 8),
    is_told=st.booleans(),
    failures=st.sampled_from([0.0, 0.1, 0.4]),
)
def test_every_byte_is_fetched_and_none_by_two_at_a_time(
    seed: int, total: int, segments: int, is_told: bool, failures: float
) -> None:
    """Whoever takes part, in whatever order their bytes come and connections break."""
    draw = random.Random(seed)
    download = Download(draw, total, segments, is_told=is_told)
    sizes = (1, 1000, 64 * 1024, MIB, 3 * MIB)
    for _ in range(100_000):
        if download.pieces.is_complete and not download.connections:
            break
        if len(download.connections) < segments and draw.random() < 0.5:
            download.connect()
        if download.connections:
            connection = draw.choice(download.connections)
            if draw.random() < failures * 0.5:
                download.end(connection)
            else:
                download.receive(connection, draw.choice(sizes))
        download.check()
    assert download.pieces.is_complete
    assert download.pieces.done == ([(0, total)] if total else [])
    assert download.pieces.front == download.pieces.received == total
    if is_told:
        assert sum(stop - start for start, stop in download.taken) == total, "fetched twice"
    assert not download.connect()


@given(spans=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12))
def test_spans_that_touch_or_overlap_become_one(spans: list[Span]) -> None:
    pieces = Pieces(60, spans)
    here = {place for start, stop in spans for place in range(start, stop)}
    assert {place for start, stop in pieces.done for place in range(start, stop)} == here
    assert all(one[1] < two[0] for one, two in pairwise(pieces.done))
    assert pieces.received == len(here)
    assert pieces.is_complete is (len(here) == 60)
    claimed = []
    while (piece := pieces.claim()) is not None:
        claimed.append((piece.start, piece.stop))
    missing = {place for start, stop in claimed for place in range(start, stop or 0)}
    assert missing == set(range(60)) - here


@pytest.mark.parametrize(
    ("total", "segments", "expected"),
    [
        (0, 4, []),
        (1, 4, [(0, 1)]),
        (2 * MIN_PIECE - 1, 4, [(0, 2 * MIN_PIECE - 1)]),
        (2 * MIN_PIECE, 4, [(0, MIN_PIECE), (MIN_PIECE, 2 * MIN_PIECE)]),
        (8 * MIB, 1, [(0, 8 * MIB)]),
        (8 * MIB, 2, [(0, 4 * MIB), (4 * MIB, 8 * MIB)]),
        # What would be left is less than a piece: the last one takes it.
        (4 * MIB + 1, 4, [(0, MIB + 1), (MIB + 1, 2 * MIB + 2), (2 * MIB + 2, 4 * MIB + 1)]),
    ],
)
def test_a_file_is_divided_into_as_many_pieces_as_are_worth_it(
    total: int, segments: int, expected: list[Span]
) -> None:
    pieces = Pieces()
    first = pieces.claim(segments)
    assert first is not None
    pieces.learn_total(total, first, segments)
    found = [(first.start, first.stop)]
    while len(found) < segments and (piece := pieces.claim(segments)) is not None:
        found.append((piece.start, piece.stop))
    assert found == expected or (not total and found == [(0, 0)])


def test_pieces_of_a_huge_file_lie_near_each_other() -> None:
    """So that it grows from its beginning."""
    pieces = Pieces()
    first = pieces.claim(2)
    assert first is not None
    pieces.learn_total(100 * MAX_PIECE, first, 2)
    second = pieces.claim(2)
    assert second is not None
    assert (first.stop, second.start, second.stop) == (MAX_PIECE, MAX_PIECE, 2 * MAX_PIECE)


def test_the_larger_half_of_what_is_left_of_a_slow_piece_goes_to_whoever_is_free() -> None:
    pieces = Pieces()
    slow = pieces.claim(2)
    assert slow is not None
    pieces.learn_total(8 * MIB, slow, 1)
    pieces.take(slow, 2 * MIB, 8 * MIB)
    helper = pieces.claim(2)
    assert helper is not None
    assert (slow.stop, helper.start, helper.stop) == (5 * MIB, 5 * MIB, 8 * MIB)
    assert pieces.is_shared


@pytest.mark.parametrize(("left", "is_split"), [(2 * MIN_PIECE, True), (2 * MIN_PIECE - 1, False)])
def test_a_piece_is_split_only_where_both_halves_are_worth_it(left: int, is_split: bool) -> None:
    pieces = Pieces(left)
    assert pieces.claim() is not None
    assert (pieces.claim(2) is not None) is is_split
    assert pieces.claim(1) is None


def test_one_connection_goes_on_over_its_stop_where_nobody_else_is() -> None:
    pieces = Pieces(10, [(6, 8)])
    piece = pieces.claim()
    assert piece is not None
    piece.stop = 3
    assert pieces.take(piece, 9, 10) == 6, "up to what is here already"
    assert pieces.take(piece, 1, 10) == 0


def test_of_a_file_of_unknown_length_the_last_byte_is_fetched_again() -> None:
    """The rest of a file that is here to its end could not be asked for."""
    pieces = Pieces(None, [(0, 5)])
    piece = pieces.claim(3)
    assert piece is not None
    assert (piece.start, piece.stop) == (4, None)
    assert pieces.claim(3) is None
    pieces.take(piece, 3, None)
    assert (pieces.received, pieces.front) == (7, 7)
    pieces.release(piece)
    assert pieces.done == [(0, 7)]
