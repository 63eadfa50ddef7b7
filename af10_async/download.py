"""RemoteFile: a file that AF10 has for us; save it, copy it, iterate over it, or read it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from .download_source import Fetcher, Limits, Owner, Source
from .errors import AF10Error, ClosedError, ConfigurationError, DownloadTimeoutError
from .events import DownloadBegan, DownloadEnded
from .partial_file import PartialFile
from .progress import Meter, ProgressHandler
from .saving import Saving, Segments, Wishes
from .shelter import in_thread
from .streaming import Streaming
from .waits import Interrupted, OutOfTime

__all__ = ["CopiedFile", "RemoteFile", "SavedFile", "Sink"]

logger = logging.getLogger("af10_async.download")

READ_LIMIT = 64 * 1024 * 1024
"""Most bytes that `read` takes into memory unless told otherwise."""
MOST_SEGMENTS = 64
"""More connections than this to one server are an attack rather than a download."""


@dataclass(frozen=True, slots=True)
class SavedFile(os.PathLike[str]):
    """A file that is here: complete, checked against what was promised, and flushed to disk."""

    path: Path
    size: int
    """Bytes."""
    sha256: str
    """In hexadecimal."""
    seconds: float
    """What the download took."""
    resumed_from: int = 0
    """Bytes of it that an earlier download had left here."""
    attempts: int = 1
    """How often it was tried: 1 when nothing went wrong, 0 when the whole file was here already."""

    def __fspath__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class CopiedFile:
    """A file that was copied to where the caller wanted it, complete and checked."""

    size: int
    """Bytes."""
    sha256: str
    """In hexadecimal."""
    seconds: float
    """What it took."""
    attempts: int
    """How often it was tried."""
    url: str | None = None
    """Where it is now, in object storage; nothing secret is in it."""
    e_tag: str | None = None
    """What the store calls this content, if it does."""


class Sink(Protocol):
    """Where bytes can go: a stream, a queue, an encrypting writer, ..."""

    async def write(self, data: bytes, /) -> object:
        """Take them all."""


class RemoteFile:
    """A file at an address; nothing is fetched until it is saved, copied, iterated over or read.

    A download that is interrupted (the connection breaks, or stands still) goes on where it
    stopped, as far as the server tells one version of the file from another; what was saved so far
    outlives this process.

    `download_timeout` (seconds, `math.inf` for none) is for the whole of it. `stall_timeout`
    seconds without a byte, or with less than `min_speed` bytes a second on the average, count as a
    broken connection. No credentials of AF10 are ever sent along, redirects are followed at most
    five times and never from https to http, and the address must be a public one unless AF10
    itself is at a private address (the sandbox) or the caller gave it.

    Raises, whichever way it is fetched:
        UnsafeURLError: the address, or one it redirects to, is one that must not be fetched.
        DownloadRefusedError: the server said no, or sent something that is not the file.
        IncompleteDownloadError: cut, or longer or shorter than promised.
        DownloadTimeoutError: not here in time.
        FileTooLargeError: larger than the caller allows.
        ChecksumMismatchError: whole, but not the one that the caller, or its server, announced.
        FileChangedError: another version each time.
        NetworkError: the server could not be reached.
        ClosedError: the client was closed before or meanwhile.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        url: str,
        *,
        is_trusted: bool,
        download_timeout: float,
        owner: Owner | None = None,
    ) -> None:
        self._fetcher = fetcher
        self._source = Source(fetcher, url, is_trusted=is_trusted, owner=owner)
        self._timeout = download_timeout
        self._owner = owner
        self._key = owner.key if owner is not None else None

    @property
    def url(self) -> str:
        """Its address. Whoever knows it can fetch the file: treat it as a secret."""
        return self._source.url

    @property
    def key(self) -> str | None:
        """The job that it came from."""
        return self._key

    def __repr__(self) -> str:
        return f"<RemoteFile of job {self._key}>" if self._key else "<RemoteFile>"

    async def save(
        self,
        target: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: ProgressHandler | None = None,
        segments: Segments = 1,
        sha256: str | None = None,
        md5: str | None = None,
        max_size: int | None = None,
        stall_timeout: float | None = None,
        min_speed: float | None = None,
    ) -> SavedFile:
        """Stream it to disk with constant memory; it appears whole or not at all.

        The file of a job is saved once: when it was saved there before, by whichever process, and
        is still as it was, that is the result and nothing is fetched. What an interrupted download
        to the same folder left behind, in this process or another, is gone on with.

        Args:
            target: A folder (one that exists, or a path that ends in a slash) or the path of the
                file. Missing folders are made. In a folder it gets the name that the server gives
                it, reduced to one safe component, with a number when that name is taken.
            overwrite: Replace a file that has this name.
            progress: Called with a `Progress` at the start, about ten times a second, and at the
                end.
            segments: How many connections fetch parts of it at the same time, where the server
                allows that: it helps when each connection is slow. "auto" begins with one, and
                uses more as long as that makes it faster.
            sha256: What its SHA-256 must be, in hexadecimal.
            md5: What its MD5 must be, in hexadecimal.
            max_size: Most bytes that it may have.
            stall_timeout: Instead of the client's.
            min_speed: Instead of the client's.

        Raises:
            TargetExistsError: something is at the path already.
            DiskFullError, SaveError: it could not be written; nothing was left behind.

        """
        limits = self._limits(stall_timeout, min_speed)
        wishes = Wishes(
            _checked_segments(segments), _hex("sha256", sha256, 64), _hex("md5", md5, 32), max_size
        )
        clock = self._fetcher.runtime.monotonic
        started = clock()
        partial = PartialFile(target, overwrite=overwrite, name=self._key or self.url)
        async with self._told() as outcome, self._owned(), self._limited():
            saved = await self._find(partial, wishes)
            if saved is None:
                meter = Meter(progress, clock, started)
                saving = Saving(self._source, partial, wishes, limits, meter)
                outcome.tried = lambda: saving.attempts
                path = await saving.run()
                saved = SavedFile(
                    path=path,
                    size=saving.size,
                    sha256=saving.sha256,
                    seconds=clock() - started,
                    resumed_from=meter.resumed_from,
                    attempts=saving.attempts,
                )
                logger.info("saved %s: %d bytes in %.1f s", path, saved.size, saved.seconds)
            outcome.size = saved.size
        # Not under the limit: the file is here, whatever the store takes to hear of it.
        await self._collected()
        return saved

    async def copy_to(
        self,
        target: str | Sink,
        *,
        overwrite: bool = False,
        options: Mapping[str, Any] | None = None,
        progress: ProgressHandler | None = None,
        sha256: str | None = None,
        max_size: int | None = None,
        stall_timeout: float | None = None,
        min_speed: float | None = None,
    ) -> CopiedFile:
        """Copy it to object storage, or to anything that has an `async write(bytes)`.

        Memory stays constant, and a broken connection is gone on with. An object appears under its
        key whole or not at all, and a failure leaves no unfinished upload behind; a sink gets the
        bytes as they come, so what it has after an error is not the file.

        Args:
            target: `s3://bucket/key`, `gs://...`, `az://...` (these need the extra `storage`),
                `file:///path`, or a sink. A URL that ends in a slash gets the name that the server
                gives the file.
            overwrite: Replace an object that is there.
            options: For the store: region, endpoint, credentials, ... where they are not to come
                from its usual environment variables.
            progress: As for `save`.
            sha256: As for `save`.
            max_size: As for `save`.
            stall_timeout: As for `save`.
            min_speed: As for `save`.

        Raises:
            StorageError: the store refused it, or could not be reached.
            TargetExistsError: an object is there already.
            MissingExtraError: `pip install "af10-async[storage]"` is needed first.

        """
        from .protocol.storage_urls import file_path
        from .storage import check_storage_url

        if isinstance(target, str):
            check_storage_url(target)

        if isinstance(target, str) and target.lower().startswith("file:"):
            saved = await self.save(
                file_path(target),
                overwrite=overwrite,
                progress=progress,
                sha256=sha256,
                max_size=max_size,
                stall_timeout=stall_timeout,
                min_speed=min_speed,
            )
            return CopiedFile(
                saved.size, saved.sha256, saved.seconds, saved.attempts, saved.path.as_uri()
            )
        clock = self._fetcher.runtime.monotonic
        started = clock()
        meter = Meter(progress, clock, started)
        streaming = self._streaming(stall_timeout, min_speed, meter, max_size, "max_size")
        expected = _hex("sha256", sha256, 64)
        async with self._told(streaming) as outcome, self._owned(), self._limited():
            copied = await self._copy(streaming, target, overwrite, options, expected)
            outcome.size = copied.size
        await self._collected()
        return replace(copied, seconds=clock() - started, attempts=streaming.attempts)

    async def read(self, *, limit: int = READ_LIMIT) -> bytes:
        """The whole of it in memory.

        Raises:
            FileTooLargeError: it is larger than `limit` bytes; save it instead.

        """
        streaming = self._streaming(limit=limit, option="limit; save it instead, or raise that")
        async with self._told(streaming) as outcome, self._owned(), self._limited():
            found = await streaming.read()
            outcome.size = len(found)
        await self._collected()
        return found

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """Its bytes as they come. A cut raises, so what came before it is not the whole file."""
        clock = asyncio.get_running_loop().time
        until = clock() + self._timeout
        streaming = self._streaming()
        chunks = streaming.chunks(eager=True)
        async with self._told(streaming) as outcome:
            try:
                while True:
                    # Not around the loop: what the caller does between two is not ours to end.
                    async with self._source.labelled(), self._limited(until - clock()):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        break
                    yield chunk
                outcome.size = streaming.received
            finally:
                await chunks.aclose()
        await self._collected()

    # -- how ---------------------------------------------------------------------------------------

    def _streaming(
        self,
        stall_timeout: float | None = None,
        min_speed: float | None = None,
        meter: Meter | None = None,
        limit: int | None = None,
        option: str = "",
    ) -> Streaming:
        limits = self._limits(stall_timeout, min_speed)
        return Streaming(self._source, limits, meter, limit, option)

    async def _copy(
        self,
        streaming: Streaming,
        target: str | Sink,
        overwrite: bool,
        options: Mapping[str, Any] | None,
        expected: str | None,
    ) -> CopiedFile:
        digest = hashlib.sha256()
        async with aclosing(streaming.checked_chunks(digest, expected)) as chunks:
            if not isinstance(target, str):
                async for chunk in chunks:
                    await target.write(chunk)
                return CopiedFile(streaming.received, digest.hexdigest(), 0.0, 0)

            from .storage import put_object

            first = await anext(chunks, None)  # for the head: it names and measures the file
            head = streaming.head
            assert head is not None  # there is no body without one
            stored = await put_object(
                target,
                _again(first, chunks),
                name=head.name,
                size=head.length,
                overwrite=overwrite,
                options=options,
            )
            return CopiedFile(stored.size, stored.sha256, 0.0, 0, stored.url, stored.e_tag)

    def _limits(self, stall_timeout: float | None, min_speed: float | None) -> Limits:
        found = self._fetcher.limits
        if stall_timeout is not None:
            found = replace(found, stall_timeout=stall_timeout)
        if min_speed is not None:
            found = replace(found, min_speed=min_speed)
        return found.checked()

    async def _find(self, partial: PartialFile, wishes: Wishes) -> SavedFile | None:
        """The file, when it was saved there already, perhaps by somebody who then died."""
        file = self._owner.saved_file if self._owner is not None else None
        if file is None or wishes.sha256 not in (None, file.sha256) or wishes.md5 is not None:
            return None
        if not await in_thread(lambda: partial.has(file)):
            return None
        logger.info("job %s: its file was saved before", self._key)
        return SavedFile(Path(file.path), file.size, file.sha256, 0.0, file.size, 0)

    @asynccontextmanager
    async def _told(self, streaming: Streaming | None = None) -> AsyncIterator[_Outcome]:
        """Tell of the download, and of its end."""
        events, runtime, outcome = self._fetcher.events, self._fetcher.runtime, _Outcome()
        if streaming is not None:
            outcome.tried = lambda: streaming.attempts
        if not events.are_wanted:
            yield outcome
            return
        began = DownloadBegan(
            id=events.new_id(),
            account=events.account,
            key=self._key,
            at=runtime.now(),
            trace=self._owner.trace if self._owner is not None else None,
        )
        events.tell(began)
        started, failure = runtime.monotonic(), None
        try:
            yield outcome
        except AF10Error as error:
            failure = error
            raise
        finally:
            ended = DownloadEnded(
                id=began.id,
                account=began.account,
                key=began.key,
                at=runtime.now(),
                seconds=runtime.monotonic() - started,
                size=outcome.size,
                attempts=outcome.tried(),
                error=failure,
            )
            events.tell(ended)

    async def _collected(self) -> None:
        if self._owner is not None:
            await self._owner.collected()

    @asynccontextmanager
    async def _limited(self, seconds: float | None = None) -> AsyncIterator[None]:
        seconds = self._timeout if seconds is None else seconds
        try:
            async with self._fetcher.waits.limit(seconds):
                yield
        except OutOfTime:
            raise DownloadTimeoutError(
                f"the file was not here within {self._timeout:g} s (download_timeout)",
                key=self._key,
                step="download",
                sent=True,
                retryable=True,
            ) from None
        except Interrupted:
            raise ClosedError(
                "the client was closed before the file was here", key=self._key, step="download"
            ) from None

    @asynccontextmanager
    async def _owned(self) -> AsyncIterator[None]:
        """Work on the job; when that fails, others may."""
        async with self._source.labelled():
            if self._owner is None:
                yield
                return
            await self._owner.lease()
            try:
                yield
            except BaseException:
                self._owner.release()
                raise


@dataclass(slots=True)
class _Outcome:
    """What is to be told of a download."""

    size: int | None = None
    tried: Callable[[], int] = lambda: 0
    """How often it was tried."""


async def _again(first: bytes | None, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    if first is not None:
        yield first
    async for chunk in rest:
        yield chunk


def _checked_segments(value: Any) -> Segments:
    if value == "auto" or (isinstance(value, int) and 1 <= value <= MOST_SEGMENTS):
        found: Segments = value
        return found
    raise ConfigurationError(f'segments must be "auto" or from 1 to {MOST_SEGMENTS}, not {value!r}')


def _hex(name: str, value: str | None, digits: int) -> str | None:
    if value is None:
        return None
    if not re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", value.strip()):
        raise ConfigurationError(f"{name} must be {digits} hexadecimal digits")
    return value.strip().lower()
