"""RemoteFile: a file that AF10 has for us; iterate over it, read it, or save it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar, assert_never
from urllib.parse import urljoin, urlsplit

import anyio.to_thread

from .errors import (
    AF10Error,
    ClosedError,
    DownloadError,
    DownloadRefusedError,
    DownloadTimeoutError,
    FileTooLargeError,
    IncompleteDownloadError,
    NetworkError,
    RequestTimeoutError,
    UnsafeURLError,
)
from .partial_file import PartialFile
from .protocol.addresses import check_file_url, is_private_host
from .protocol.files import (
    MAX_ERROR_BYTES,
    MAX_REDIRECTS,
    Busy,
    FileHead,
    Moved,
    NotAFile,
    Stale,
    read_file_error,
    read_file_head,
)
from .protocol.lifecycle import FileOnDisk
from .protocol.retry import RetryPolicy, parse_retry_after
from .runtime import Runtime
from .transport import FileReply, Transport
from .waits import Interrupted, OutOfTime, Waits

__all__ = ["Progress", "RemoteFile", "SavedFile"]

logger = logging.getLogger("af10_async.download")

BLOCK_SIZE = 1024 * 1024
"""Bytes gathered before a thread writes them."""
READ_LIMIT = 64 * 1024 * 1024
"""Most bytes that `read` takes into memory unless told otherwise."""
_PROGRESS_EVERY = 0.1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download has come."""

    received: int
    """Bytes so far."""
    total: int | None
    """Bytes in all; None when the server does not say."""
    seconds: float
    """Since its start."""

    @property
    def rate(self) -> float:
        """Bytes per second on the average."""
        return self.received / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Time left at this rate; None when nobody can tell."""
        if self.total is None or not self.rate:
            return None
        return (self.total - self.received) / self.rate


ProgressHandler = Callable[[Progress], object]


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

    def __fspath__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class Fetcher:
    """What the downloads of one client work with."""

    transport: Transport
    waits: Waits
    policy: RetryPolicy
    runtime: Runtime


class Owner(Protocol):
    """The job that a file belongs to."""

    @property
    def key(self) -> str:
        """Its name."""
        ...

    @property
    def ticket(self) -> str | None:
        """What restores it anywhere, if enough is known."""
        ...

    @property
    def saved_file(self) -> FileOnDisk | None:
        """The file as somebody saved it, or nearly so, and perhaps did not live to say so."""
        ...

    async def fresh_url(self) -> str | None:
        """The address of the file, asked for again; None when that is not possible."""
        ...

    async def lease(self) -> None:
        """Keep others from doing the same, if that is possible."""

    def release(self) -> None:
        """Leave it to others."""

    async def file_complete(self, file: FileOnDisk) -> None:
        """The file is whole and flushed to disk, and gets its name now."""

    async def collected(self) -> None:
        """The file is safe with whoever asked for it."""


@dataclass(slots=True)
class _Route:
    """Where one attempt stands."""

    url: str
    is_trusted: bool
    redirects: int = 0
    refreshes: int = 0


@dataclass(frozen=True, slots=True)
class _Open:
    head: FileHead
    reply: FileReply = field(repr=False)


class RemoteFile:
    """A file at an address; nothing is fetched until it is iterated over, read or saved.

    `download_timeout` (seconds, `math.inf` for none) is for the whole of it; 30 seconds without a
    single byte end it as well. No credentials of AF10 are ever sent along, redirects are followed
    at most five times and never from https to http, and the address must be a public one unless
    AF10 itself is at a private address (the sandbox) or the caller gave it.

    Raises, whichever way it is fetched:
        UnsafeURLError: the address, or one it redirects to, is one that must not be fetched.
        DownloadRefusedError: the server said no, or sent something that is not the file.
        IncompleteDownloadError: cut, or longer or shorter than promised.
        DownloadTimeoutError: not here in time.
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
        self._url = url
        self._is_trusted = is_trusted
        self._timeout = download_timeout
        self._owner = owner
        self._key = owner.key if owner is not None else None

    @property
    def url(self) -> str:
        """Its address. Whoever knows it can fetch the file: treat it as a secret."""
        return self._url

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
    ) -> SavedFile:
        """Stream it to disk with constant memory; it appears whole or not at all.

        The file of a job is saved once: when it was saved there before, by whichever process, and
        is still as it was, that is the result and nothing is fetched.

        Args:
            target: A folder (one that exists, or a path that ends in a slash) or the path of the
                file. Missing folders are made. In a folder it gets the name that the server gives
                it, reduced to one safe component, with a number when that name is taken.
            overwrite: Replace a file that has this name.
            progress: Called with a `Progress` at the start, about ten times a second, and at the
                end.

        Raises:
            TargetExistsError: something is at the path already.
            DiskFullError, SaveError: it could not be written; nothing was left behind.

        """
        started = self._fetcher.runtime.monotonic()
        partial = PartialFile(target, overwrite=overwrite, name=self._key)
        async with self._owned(), self._limited():
            saved = await self._find(partial)
            if saved is None:
                try:
                    await _in_thread(partial.open)
                    path = await self._fill(partial, progress, started)
                except BaseException:
                    await _in_thread(partial.discard)
                    raise
                saved = SavedFile(path, partial.size, partial.sha256, self._since(started))
                logger.info("saved %s: %d bytes in %.1f s", path, saved.size, saved.seconds)
        # Not under the limit: the file is here, whatever the store takes to hear of it.
        await self._collected()
        return saved

    async def read(self, *, limit: int = READ_LIMIT) -> bytes:
        """The whole of it in memory.

        Raises:
            FileTooLargeError: it is larger than `limit` bytes.

        """
        async with self._owned(), self._limited():
            attempt = 0
            while True:
                try:
                    found = await self._read_once(limit)
                    break
                except AF10Error as error:
                    attempt += 1
                    await self._pause_or_give_up(error, attempt)
        await self._collected()
        return found

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """Its bytes as they come. A cut raises, so what came before it is not the whole file."""
        clock = asyncio.get_running_loop().time
        until = clock() + self._timeout
        chunks = self._chunks()
        try:
            while True:
                # Not around the loop: what the caller does between two chunks is not ours to end.
                async with self._labelled(), self._limited(until - clock()):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                yield chunk
        finally:
            await chunks.aclose()
        await self._collected()

    # -- fetching ----------------------------------------------------------------------------------

    async def _find(self, partial: PartialFile) -> SavedFile | None:
        """The file, when it was saved there already, perhaps by somebody who then died."""
        file = self._owner.saved_file if self._owner is not None else None
        if file is None or not await _in_thread(lambda: partial.has(file)):
            return None
        logger.info("job %s: its file was saved before", self._key)
        return SavedFile(Path(file.path), file.size, file.sha256, 0.0)

    def _since(self, started: float) -> float:
        return self._fetcher.runtime.monotonic() - started

    async def _collected(self) -> None:
        if self._owner is not None:
            await self._owner.collected()

    async def _fill(
        self, partial: PartialFile, progress: ProgressHandler | None, started: float
    ) -> Path:
        attempt = 0
        while True:
            try:
                return await self._fill_once(partial, progress, started)
            except AF10Error as error:
                attempt += 1
                await self._pause_or_give_up(error, attempt)
                await _in_thread(partial.restart)

    async def _fill_once(
        self, partial: PartialFile, progress: ProgressHandler | None, started: float
    ) -> Path:
        meter = _Meter(progress, self._fetcher.runtime.monotonic, started)
        blocks: list[bytes] = []
        gathered = 0
        async with self._opened() as opened, aclosing(self._body(opened)) as body:
            meter.begin(opened.head.length)
            async for chunk in body:
                blocks.append(chunk)
                gathered += len(chunk)
                meter.add(len(chunk))
                if gathered >= BLOCK_SIZE:
                    full, blocks, gathered = blocks, [], 0
                    await _in_thread(functools.partial(partial.write, full))
            name = opened.head.name
        meter.tell()  # before the name is taken: the handler may raise
        path = await _in_thread(lambda: partial.flush(blocks, name))
        while not await self._takes(partial, path):
            path = await _in_thread(lambda: partial.free_path(name))
        return path

    async def _takes(self, partial: PartialFile, path: Path) -> bool:
        """Give the file its name; the job's record knows which before it is there."""
        if self._owner is not None:
            await self._owner.file_complete(partial.as_saved_to(path))
        return await _in_thread(functools.partial(partial.take, path))

    async def _read_once(self, limit: int) -> bytes:
        received = bytearray()
        async with self._opened() as opened, aclosing(self._body(opened)) as body:
            if (opened.head.length or 0) > limit:
                raise self._too_large(limit)
            async for chunk in body:
                received += chunk
                if len(received) > limit:
                    raise self._too_large(limit)
        return bytes(received)

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        async with self._opened() as opened, aclosing(self._body(opened)) as body:
            async for chunk in body:
                yield chunk

    async def _body(self, opened: _Open) -> AsyncGenerator[bytes, None]:
        received, length = 0, opened.head.length
        try:
            async with aclosing(opened.reply.chunks()) as chunks:
                async for chunk in chunks:
                    received += len(chunk)
                    yield chunk
        except RequestTimeoutError:
            raise DownloadTimeoutError(
                f"the file server fell silent after {received:,} bytes",
                key=self._key,
                step="download",
                sent=True,
                retryable=True,
            ) from None
        except NetworkError:
            raise self._incomplete(f"cut after {received:,} bytes") from None
        if length is not None and received != length:
            raise self._incomplete(f"{received:,} bytes instead of the promised {length:,}")

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[_Open]:
        """The file's own answer, after redirects and a fresh address if need be."""
        route = _Route(self._url, self._is_trusted)
        while True:
            self._check(route)
            stream = self._fetcher.transport.stream(route.url, trusted=route.is_trusted)
            async with self._labelled(), stream as reply:
                found = await self._read_head(route, reply)
                match found:
                    case FileHead(ends_clearly=True):
                        yield _Open(found, reply)
                        return
                    case FileHead():
                        raise self._refused(reply, "it does not say where the file ends")
                    case Busy():
                        raise self._refused(reply, "try again later", retryable=True)
                    case NotAFile(reason=reason):
                        raise self._refused(reply, reason)
                    case Moved() | Stale():
                        pass
                    case _:
                        assert_never(found)
            await self._reroute(route, found, reply)

    async def _read_head(
        self, route: _Route, reply: FileReply
    ) -> FileHead | Moved | Stale | Busy | NotAFile:
        found = read_file_head(reply.status, reply.headers, route.url)
        if isinstance(found, FileHead) and found.may_be_error and found.ends_clearly:
            start = await reply.peek(MAX_ERROR_BYTES)
            if len(start) < MAX_ERROR_BYTES:
                return read_file_error(start) or found
        return found

    async def _reroute(self, route: _Route, found: Moved | Stale, reply: FileReply) -> None:
        if isinstance(found, Moved):
            self._follow(route, found.location)
            return
        fresh = None
        if self._owner is not None and not route.refreshes:
            fresh = await self._owner.fresh_url()
        if fresh is None:
            raise self._refused(reply, "the address is not, or no longer, good")
        logger.info("the address of the file had gone stale; AF10 gave a fresh one")
        self._url = route.url = fresh
        route.is_trusted, route.redirects = self._is_trusted, 0
        route.refreshes += 1

    def _follow(self, route: _Route, location: str) -> None:
        route.redirects += 1
        before = urlsplit(route.url)
        try:
            route.url = urljoin(route.url, location)
            after = urlsplit(route.url)
        except ValueError:
            raise self._unsafe("it redirects to a malformed address") from None
        if route.redirects > MAX_REDIRECTS:
            raise self._unsafe("it redirects too often")
        if before.scheme == "https" and after.scheme != "https":
            raise self._unsafe("it redirects from https to something else")
        # A public server must not send us inside the network, whoever gave us its address.
        is_near = after.hostname == before.hostname or is_private_host(before.hostname or "")
        route.is_trusted = route.is_trusted and is_near

    def _check(self, route: _Route) -> None:
        problem = check_file_url(route.url, trusted=route.is_trusted)
        if problem is not None:
            raise self._unsafe(problem)

    async def _pause_or_give_up(self, error: AF10Error, attempt: int) -> None:
        chance = self._fetcher.runtime.chance()
        asked = error.retry_after if isinstance(error, DownloadRefusedError) else None
        pause = self._fetcher.policy.pause(attempt, chance, asked)
        if not error.retryable or pause is None:
            raise error
        logger.info("download failed, again in %.1f s: %s", pause, error)
        await self._fetcher.runtime.sleep(pause)

    # -- limits and errors -------------------------------------------------------------------------

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
        async with self._labelled():
            if self._owner is None:
                yield
                return
            await self._owner.lease()
            try:
                yield
            except BaseException:
                self._owner.release()
                raise

    @asynccontextmanager
    async def _labelled(self) -> AsyncIterator[None]:
        try:
            yield
        except AF10Error as error:
            error.key, error.step = error.key or self._key, error.step or "download"
            if self._owner is not None:
                error.ticket = self._owner.ticket
            raise

    def _refused(self, reply: FileReply, reason: str, *, retryable: bool = False) -> DownloadError:
        return DownloadRefusedError(
            f"the file server's answer (HTTP {reply.status}) is not the file: {reason}",
            status=reply.status,
            retry_after=parse_retry_after(
                reply.headers.get("retry-after"), self._fetcher.runtime.now()
            ),
            key=self._key,
            step="download",
            retryable=retryable,
        )

    def _unsafe(self, problem: str) -> UnsafeURLError:
        return UnsafeURLError(
            f"the address of the file is not safe to fetch: {problem}; nothing was sent to it",
            key=self._key,
            step="download",
            sent=False,
        )

    def _incomplete(self, what: str) -> IncompleteDownloadError:
        return IncompleteDownloadError(
            f"the file did not arrive whole: {what}",
            key=self._key,
            step="download",
            sent=True,
            retryable=True,
        )

    def _too_large(self, limit: int) -> FileTooLargeError:
        return FileTooLargeError(
            f"the file is larger than the limit of {limit:,} bytes; save it instead, or raise the"
            " limit",
            key=self._key,
            step="download",
            sent=True,
        )


class _Meter:
    """Calls a progress handler, but not for every chunk."""

    def __init__(
        self, handler: ProgressHandler | None, clock: Callable[[], float], started: float
    ) -> None:
        self.total: int | None = None
        self._handler = handler
        self._clock = clock
        self._started = started
        self._told_at = started
        self._received = 0

    def begin(self, total: int | None) -> None:
        self.total = total
        self.tell()

    def add(self, size: int) -> None:
        self._received += size
        if self._handler is not None and self._clock() - self._told_at >= _PROGRESS_EVERY:
            self.tell()

    def tell(self) -> None:
        if self._handler is not None:
            self._told_at = self._clock()
            self._handler(Progress(self._received, self.total, self._told_at - self._started))


async def _in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread and wait for its end, also when cancelled.

    anyio's own shield does not hold against asyncio's cancellation, and what follows it here
    (closing the file) must not happen while the thread still writes.
    """
    task = asyncio.create_task(anyio.to_thread.run_sync(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # the cancellation goes first
        raise
