"""Streaming: one download whose bytes go on in order, to whoever wants them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from .download_source import Limits, Opened, Retries, Source
from .errors import AF10Error, ChecksumMismatchError, IncompleteDownloadError
from .progress import Meter
from .protocol.files import FileHead
from .protocol.ranges import Beyond, Mismatch, Part, Wanted


class Hash(Protocol):
    """What hashlib makes."""

    def update(self, data: bytes, /) -> None:
        """Take in more."""

    def hexdigest(self) -> str:
        """The result so far."""
        ...


class _NoHash:
    """Hashes nothing, where nobody would look at the result."""

    def update(self, data: bytes, /) -> None:
        pass

    def hexdigest(self) -> str:
        return ""


class _StuckError(Exception):
    """It cannot be gone on with where it broke; what broke it is the cause."""

    def __init__(self, error: AF10Error) -> None:
        super().__init__(str(error))
        self.error = error


class Streaming:
    """The bytes of one file in order. A broken connection is gone on with, if that is possible.

    `limit` is the most bytes that it may have, and `option` what the caller calls that.
    """

    def __init__(
        self,
        source: Source,
        limits: Limits,
        meter: Meter | None = None,
        limit: int | None = None,
        option: str = "",
    ) -> None:
        self._source = source
        self._limits = limits
        self._meter = meter
        self._limit = limit
        self._option = option
        self._retries = Retries(source.fetcher)
        self._forget()

    @property
    def attempts(self) -> int:
        """How often it was tried."""
        return self._retries.attempts

    async def read(self) -> bytes:
        """All of it; begins anew when it cannot be gone on with."""
        while True:
            found = bytearray()
            try:
                async with aclosing(self._run(eager=False)) as chunks:
                    async for chunk in chunks:
                        found += chunk
                return bytes(found)
            except _StuckError as stuck:
                await self._retries.pause_or_give_up(stuck.error, self.received)
                self._forget()

    async def chunks(self, *, eager: bool = False) -> AsyncGenerator[bytes, None]:
        """One after the other; an `eager` reader gets small ones, but at once."""
        try:
            async with aclosing(self._run(eager=eager)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except _StuckError as stuck:
            raise stuck.error from None

    async def checked_chunks(
        self, digest: Hash, expected: str | None
    ) -> AsyncGenerator[bytes, None]:
        """The same; at its end it raises an error unless the checksums are the expected ones."""
        if self._meter is not None:
            self._meter.tell(0)
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                digest.update(chunk)
                yield chunk
        _check(expected, digest.hexdigest())
        if self._meter is not None:
            self._meter.tell(self.received)

    def _forget(self) -> None:
        self.received = 0
        self.head: FileHead | None = None
        self._total: int | None = None
        self._expected: str | None = None
        self._digest: Hash = _NoHash()

    async def _run(self, *, eager: bool) -> AsyncGenerator[bytes, None]:
        while True:
            try:
                async with self._source.open(self._wanted(), self._limits) as opened:
                    again = self._received_again(opened)
                    blocks = self._source.blocks(opened, self._limits, eager=eager)
                    async with aclosing(blocks):
                        async for block in blocks:
                            chunk = bytes(block.data[again:])
                            again = max(0, again - len(block.data))
                            block.free()
                            self._count(len(chunk))
                            if chunk:
                                self._digest.update(chunk)
                                yield chunk
                if self._total is None or self.received == self._total:
                    _check(self._expected, self._digest.hexdigest())
                    return
            except AF10Error as error:
                if self.received and not self._can_resume:
                    raise _StuckError(error) from None
                await self._retries.pause_or_give_up(error, self.received)

    @property
    def _can_resume(self) -> bool:
        return self.head is not None and self.head.has_ranges

    def _wanted(self) -> Wanted | None:
        if not self.received or self.head is None:
            return None
        # One byte again: a file that is here to its end could not be asked for "the rest".
        return Wanted(self.head.version, self.received - (self._total is None), None)

    def _received_again(self, opened: Opened) -> int:
        """How many bytes of this answer are here already."""
        match opened.found:
            case FileHead() as head if not self.received:
                self.head, self._total = head, head.length
                if head.sha256 is not None:
                    self._expected, self._digest = head.sha256, hashlib.sha256()
                if self._meter is not None:
                    self._meter.total = head.length
                self._count(0, head.length or 0)
                return 0
            case Part(start=start, total=total):
                self._total = total
                return self.received - start
            case FileHead() | Beyond() | Mismatch():
                pass
        error = IncompleteDownloadError(
            f"the file broke off after {self.received:,} bytes, and could not be gone on with: it"
            " has changed, or its server sends no parts",
            sent=True,
            retryable=True,
        )
        raise _StuckError(error)

    def _count(self, size: int, promised: int = 0) -> None:
        self.received += size
        if self._limit is not None and max(self.received, promised) > self._limit:
            raise self._source.too_large(self._limit, self._option)
        if self._meter is not None:
            self._meter.see(self.received, 0)


def _check(expected: str | None, found: str) -> None:
    if expected is not None and expected != found:
        raise ChecksumMismatchError(
            f"the file is not the expected one: its SHA-256 should be {expected}, and is {found}",
            sent=True,
        )
