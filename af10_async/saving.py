"""Saving: one download to disk, by one connection or several, that goes on where one stopped."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never

from .body import BLOCK_SIZE
from .crew import Crew
from .download_source import Limits, Opened, Retries, Source
from .errors import (
    AF10Error,
    ChecksumMismatchError,
    DownloadError,
    DownloadRefusedError,
    DownloadTimeoutError,
    FileChangedError,
    FileTooLargeError,
    IncompleteDownloadError,
    NetworkError,
    SaveError,
    UnsafeURLError,
)
from .file_writer import FileWriter, PartialFileChanged
from .partial_file import PartialFile
from .progress import Meter
from .protocol.files import FALLBACK_NAME, FileHead, Version
from .protocol.lifecycle import FileOnDisk
from .protocol.pieces import MIN_PIECE, Piece, Pieces
from .protocol.ranges import Beyond, Mismatch, Part, Wanted
from .protocol.resume import ResumeState

logger = logging.getLogger("af10_async.download")

MAX_SEGMENTS = 8
"""Most connections that "auto" uses."""
MIN_BLOCK_SIZE = 128 * 1024
MAX_RESTARTS = 3
"""How often a file may turn out to be another one before that is an error."""
_NOTE_EVERY = 0.25
"""Seconds after which the progress is noted on disk, for the case that this process dies ..."""
_FLUSH_EVERY = 2.0
"""... and when that takes a flush."""
_GROW_EVERY = 0.5
"""Seconds over which "auto" measures."""
_GROWTH = 1.2
"""How much faster it must have become for "auto" to use more connections."""

Segments = int | Literal["auto"]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the caller wants of a saved file."""

    segments: Segments = 1
    sha256: str | None = None
    md5: str | None = None
    max_size: int | None = None


class _StartOver(Exception):  # noqa: N818 - a message to ourselves
    """What is here cannot be gone on with."""

    def __init__(self, reason: str, failure: type[DownloadError] | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.failure = failure
        """What it is when it happens again and again; None: that is counted elsewhere."""


class Saving:
    """One file on its way to disk, from whatever is here of it to its final name."""

    def __init__(
        self, source: Source, partial: PartialFile, wishes: Wishes, limits: Limits, meter: Meter
    ) -> None:
        self._source = source
        self._partial = partial
        self._wishes = wishes
        self._limits = limits
        self._meter = meter
        self._writer = FileWriter(partial, with_md5=wishes.md5 is not None)
        self._retries = Retries(source.fetcher)
        self._clock = source.fetcher.runtime.monotonic
        self._noted_at = self._clock()
        self._segments = 1 if wishes.segments == "auto" else wishes.segments
        self._crew: Crew | None = None
        self._grower: asyncio.Task[None] | None = None
        self._workers = self._working = 0
        self._restarts = 0
        self._sends_no_parts = False
        self._may_doubt = True
        self.size, self.sha256 = 0, ""
        self._forget()

    @property
    def attempts(self) -> int:
        """How often it was tried."""
        return self._retries.attempts

    async def run(self) -> Path:
        """Fetch it, and give it its name: the path.

        When that fails, what is here is kept, if somebody could go on with it.
        """
        try:
            state = await self._writer.run(self._partial.open)
            if state is not None:
                await self._adopt(state)
            await self._fetch_all()
            return await self._finish()
        except BaseException as error:
            self._leave(error)
            raise
        finally:
            await self._writer.close()

    # -- what is here ------------------------------------------------------------------------------

    def _forget(self) -> None:
        """Nothing is here, and nothing is known."""
        self._version = Version()
        self._name = FALLBACK_NAME
        self._expected: str | None = None
        self._pieces = Pieces()
        self._has_ranges = False
        self._is_pieced = False
        self._brought: dict[int, int] = {}

    async def _adopt(self, state: ResumeState) -> None:
        """Go on with what a former writer left, if it is still what it was."""
        done = list(state.done)
        if state.size == state.version.length and state.size:
            # Perhaps all is here: asking for the last byte tells whether it is still that file.
            done[-1] = (done[-1][0], state.size - 1)
        self._version, self._name, self._expected = state.version, state.name, state.expected
        self._pieces = Pieces(state.version.length, done)
        self._has_ranges = self._is_pieced = True
        self._meter.total = self._pieces.total
        self._meter.resumed_from = self._pieces.received
        check = (state.hashed, state.sha256)
        await self._writer.run(functools.partial(self._writer.restart, check, self._pieces.front))
        logger.info("going on with the %d bytes that are here", self._pieces.received)
        self._meter.tell(self._pieces.received)
        self._check_size(state.version.length or 0)

    async def _start_over(self, reason: str, failure: type[DownloadError] | None) -> None:
        self._restarts += failure is not None
        self._forget()
        self._meter.resumed_from = 0
        if failure is not None and self._restarts > MAX_RESTARTS:
            raise failure(
                f"the file was begun anew {MAX_RESTARTS} times, and still {reason}",
                sent=True,
                retryable=True,
            )
        logger.info("the download starts over: %s", reason)

        def forget() -> None:
            self._writer.restart()
            self._partial.restart()

        await self._writer.run(forget)

    def _leave(self, error: BaseException) -> None:
        """Keep what is here for whoever goes on with it, or leave nothing."""
        if self._can_resume and self._pieces.received and not _is_final(error):
            self._writer.post_end(self._noting())
        else:
            self._writer.post_end(lambda: False)

    @property
    def _block_size(self) -> int:
        """Smaller for many connections, so that all of them together need no more memory."""
        several = MAX_SEGMENTS if self._wishes.segments == "auto" else self._segments
        return max(BLOCK_SIZE // several, MIN_BLOCK_SIZE)

    @property
    def _can_resume(self) -> bool:
        return self._has_ranges and self._version.is_known

    def _noting(self) -> Callable[[], bool]:
        """What writes down how far it has come, when everything up to now is written."""
        done, front = tuple(self._pieces.done), self._pieces.front
        version, name, expected = self._version, self._name, self._expected

        def note() -> bool:
            hashed, sha256 = self._writer.digest.proof
            assert hashed <= front  # what is hashed was written
            state = ResumeState(version, name, expected, done, hashed, sha256)
            return self._partial.keep(state)

        return note

    # -- fetching ----------------------------------------------------------------------------------

    async def _fetch_all(self) -> None:
        while True:
            try:
                await self._fetch()
                if not self._pieces.is_complete:
                    continue  # a segment gave up its piece when nobody was left to take it
                await self._writer.digest_all()
                self._check_sums()
            except _StartOver as why:
                await self._start_over(why.reason, why.failure)
            except PartialFileChanged:
                await self._start_over("the partial file was changed", SaveError)
            else:
                return

    async def _fetch(self) -> None:
        if self._wishes.segments == 1:
            await self._work(0)
            return
        self._crew, self._workers, self._working = Crew(_weight), 0, 0
        try:
            self._add_worker()
            if self._pieces.total is not None:
                self._add_workers()
            await self._crew.finish()
        finally:
            self._crew = self._grower = None

    def _add_workers(self) -> None:
        """The length is known: where parts may be asked for, others take some."""
        if self._crew is None or not self._has_ranges:
            return
        if self._wishes.segments == "auto" and self._grower is None:
            self._grower = self._crew.start(self._grow())
        while self._workers < self._segments:
            self._add_worker()

    def _add_worker(self) -> None:
        assert self._crew is not None  # there is one as long as there are segments
        segment = self._workers
        self._workers += 1
        self._working += 1
        self._meter.segments = max(self._working, 1)
        self._crew.start(self._worker(segment))

    async def _worker(self, segment: int) -> None:
        try:
            await self._work(segment)
        finally:
            self._working -= 1
            self._meter.segments = max(self._working, 1)
            if not self._working and self._grower is not None:
                self._grower.cancel()

    async def _grow(self) -> None:
        """Double the connections as long as that makes it faster."""
        former = 0.0
        while self._segments < MAX_SEGMENTS:
            before, since = self._pieces.received, self._clock()
            await self._source.fetcher.runtime.sleep(_GROW_EVERY)
            rate = (self._pieces.received - before) / max(self._clock() - since, 1e-6)
            if self._pieces.is_complete or not self._has_ranges or rate <= former * _GROWTH:
                return
            former = rate
            self._segments *= 2
            while self._workers < self._segments:
                self._add_worker()

    async def _work(self, segment: int) -> None:
        """Fetch one piece after the other, until none is left."""
        while not segment or self._has_ranges:
            pieces = self._pieces
            piece = pieces.claim(self._segments)
            if piece is None:
                return
            try:
                try:
                    await self._fetch_piece(piece, segment)
                finally:
                    pieces.release(piece)
            except AF10Error as error:
                if not await self._goes_on(error, segment):
                    return
                if not self._can_resume and self._pieces.received:
                    raise _StartOver("parts cannot be asked for", None) from None
                self._is_pieced = self._pieces.received > 0

    async def _goes_on(self, error: AF10Error, segment: int) -> bool:
        """Whether this segment tries again, after a pause; if not, others do what it leaves."""
        reached = self._brought.get(segment, 0) if self._can_resume else self._pieces.received
        try:
            await self._retries.pause_or_give_up(error, reached, segment)
        except AF10Error:
            if self._working > 1 and isinstance(error, _OF_ONE_CONNECTION):
                logger.info("one connection less: %s", error)
                return False
            raise
        return True

    async def _fetch_piece(self, piece: Piece, segment: int) -> None:
        wanted = None
        if self._can_resume:
            wanted = Wanted(self._version, piece.position, piece.stop)
        elif piece.position or self._pieces.received:
            # The whole of it will come, which cannot be put beside what is here.
            raise _StartOver("the server sends no parts of it", None)
        async with self._source.open(wanted, self._limits) as opened:
            match opened.found:
                case FileHead() as head if wanted is None:
                    await self._receive_whole(head, piece, opened)
                case FileHead() as head:
                    await self._begin_anew(head, opened)
                case Part(stop=stop, total=total):
                    if self._pieces.total is None:
                        self._pieces.learn_total(total, piece)
                    await self._receive(piece, opened, stop, segment)
                case Beyond():
                    reason = "it ends before its promised end"
                    raise _StartOver(reason, IncompleteDownloadError)
                case Mismatch(reason=reason):
                    raise _StartOver(reason, FileChangedError)
                case _:
                    assert_never(opened.found)

    async def _receive_whole(self, head: FileHead, piece: Piece, opened: Opened) -> None:
        """Take the whole file, or, when others help, the beginning of it."""
        self._check_size(head.length or 0)
        self._version, self._name, self._expected = head.version, head.name, head.sha256
        self._has_ranges = head.has_ranges and not self._sends_no_parts
        self._meter.total = head.length
        self._meter.tell(0)
        if head.length is not None:
            await self._plan(head.length, piece)
        await self._receive(piece, opened, head.length, 0)

    async def _plan(self, length: int, piece: Piece) -> None:
        self._pieces.learn_total(length, piece, self._segments if self._has_ranges else 1)
        is_divided = piece.stop != length
        await self._writer.run(
            functools.partial(self._partial.reserve, length, here=0, whole=is_divided)
        )
        if length >= 2 * MIN_PIECE:
            self._is_pieced = is_divided
            self._add_workers()

    async def _begin_anew(self, head: FileHead, opened: Opened) -> None:
        """The whole file came where a part was asked for: take it, instead of what is here."""
        has_changed = head.version != self._version
        if not has_changed:
            self._has_ranges, self._sends_no_parts = False, True
        if self._pieces.is_shared and not has_changed:
            return  # whoever began at the beginning goes on to the end
        reason = "the file has changed" if has_changed else "the server sends no parts of it"
        failure = FileChangedError if has_changed else None
        if self._working > 1 or (has_changed and self._restarts >= MAX_RESTARTS):
            raise _StartOver(reason, failure)  # for the others, too, or too often
        await self._start_over(reason, failure)
        pieces = self._pieces
        piece = pieces.claim()
        assert piece is not None  # nothing is here
        try:
            await self._receive_whole(head, piece, opened)
        finally:
            pieces.release(piece)

    async def _receive(self, piece: Piece, opened: Opened, end: int | None, segment: int) -> None:
        """Take the body, which goes up to `end`, as far as nobody else fetches it."""
        try:
            await self._take_blocks(piece, opened, end, segment)
        except IncompleteDownloadError:
            if not opened.reply.is_too_long:
                raise
            reason = "more came than was promised"
            raise _StartOver(reason, IncompleteDownloadError) from None

    async def _take_blocks(
        self, piece: Piece, opened: Opened, end: int | None, segment: int
    ) -> None:
        blocks = self._source.blocks(opened, self._limits, block_size=self._block_size)
        async with aclosing(blocks):
            async for block in blocks:
                offset = piece.position
                taken = self._pieces.take(piece, len(block.data), end)
                self._brought[segment] = self._brought.get(segment, 0) + taken
                self._check_size(self._pieces.received)
                await self._writer.write(block.data[:taken], offset, self._pieces.front, block.free)
                self._meter.see(self._pieces.received, segment)
                self._note_now_and_then()
                is_others = end is not None and piece.position == piece.stop != end
                if taken < len(block.data) or is_others:
                    return
        if end is None:
            self._pieces.learn_total(piece.position, piece)

    def _check_size(self, size: int) -> None:
        limit = self._wishes.max_size
        if limit is not None and size > limit:
            raise self._source.too_large(limit, "max_size")

    def _note_now_and_then(self) -> None:
        now = self._clock()
        every = _NOTE_EVERY if self._pieces.is_gapless else _FLUSH_EVERY
        if now - self._noted_at >= every and self._can_resume:
            self._noted_at = now
            self._writer.post(self._noting())

    # -- the end -----------------------------------------------------------------------------------

    def _check_sums(self) -> None:
        """When a file that was put together is not the expected one, it is fetched once more."""
        digest = self._writer.digest
        for expected, found, kind in (
            (self._wishes.sha256, digest.sha256, "SHA-256"),
            (self._wishes.md5, digest.md5, "MD5"),
            (self._expected, digest.sha256, "SHA-256 (as its server says)"),
        ):
            if expected is None or expected == found:
                continue
            if self._is_pieced and self._may_doubt:
                self._may_doubt = False
                raise _StartOver("its checksum was wrong", None)
            raise ChecksumMismatchError(
                f"the file is not the expected one: its {kind} should be"
                f" {expected}, and is {found}; nothing was left behind",
                sent=True,
            )

    async def _finish(self) -> Path:
        """Flush it, and give it its name; the job's record knows which before it is there."""
        digest = self._writer.digest
        self.size, self.sha256 = digest.position, digest.sha256
        if self.size != self._pieces.total:
            raise IncompleteDownloadError(
                f"{self.size:,} bytes were hashed of a file of {self._pieces.total}", sent=True
            )
        self._meter.tell(self.size)  # before the name is taken: the handler may raise
        await self._writer.run(functools.partial(self._partial.flush, self.size))
        while True:
            path = await self._writer.run(functools.partial(self._partial.free_path, self._name))
            if self._source.owner is not None:
                file = FileOnDisk(str(path.absolute()), self.size, self.sha256)
                await self._source.owner.file_complete(file)
            if await self._writer.run(functools.partial(self._partial.take, path)):
                return path


_OF_ONE_CONNECTION = (
    NetworkError,
    DownloadRefusedError,
    DownloadTimeoutError,
    IncompleteDownloadError,
)
"""Errors that say nothing about other connections: a server may take only so many."""
_FINAL = (
    SaveError,
    ChecksumMismatchError,
    FileChangedError,
    FileTooLargeError,
    UnsafeURLError,
)
"""Errors after which nobody should go on with what is here."""


def _is_final(error: BaseException) -> bool:
    if isinstance(error, AF10Error):
        return isinstance(error, _FINAL)
    return isinstance(error, Exception)  # a handler's, or a mistake of ours


def _weight(error: BaseException) -> int:
    """Which of several errors at the same time is told: one that is nobody else's fault."""
    return isinstance(error, SaveError)
