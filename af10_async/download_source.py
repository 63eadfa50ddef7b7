"""Source: where the bytes of a file come from, with its redirects and its fresh addresses."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol, assert_never
from urllib.parse import urljoin, urlsplit

from .body import BLOCK_SIZE
from .errors import (
    AF10Error,
    ConfigurationError,
    DownloadError,
    DownloadRefusedError,
    DownloadTimeoutError,
    FileTooLargeError,
    IncompleteDownloadError,
    NetworkError,
    RequestTimeoutError,
    UnsafeURLError,
)
from .events import NOBODY, Events
from .file_reply import Block, FileReply
from .limits import PER_ACCOUNT
from .protocol.addresses import check_file_url, is_allowed_host, is_private_host
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
from .protocol.ranges import Beyond, Mismatch, Part, Wanted, range_headers, read_range_answer
from .protocol.retry import RetryPolicy, parse_retry_after
from .runtime import Runtime
from .transport import Transport
from .waits import Waits

logger = logging.getLogger("af10_async.download")

STALL_TIMEOUT = 30.0
"""Seconds without a byte of a file after which its connection counts as broken."""
MIN_SPEED = 1024.0
"""Bytes a second, on the average over the stall timeout, below which it does, too."""

Found = FileHead | Part | Beyond | Mismatch
Answer = Found | Moved | Stale | Busy | NotAFile


@dataclass(frozen=True, slots=True)
class Fetcher:
    """What the downloads of one client work with."""

    transport: Transport
    waits: Waits
    policy: RetryPolicy
    runtime: Runtime
    limits: Limits
    allowed_hosts: tuple[str, ...] | None = None
    events: Events = NOBODY
    account: str = ""
    """Whose turn it is when requests wait for a slot."""
    most_at_once: int = PER_ACCOUNT
    """How many of its requests are under way at a time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What counts as a download that stands still."""

    stall_timeout: float = STALL_TIMEOUT
    """Seconds without a byte."""
    min_speed: float = MIN_SPEED
    """Bytes a second, on the average over `stall_timeout`."""

    def checked(self) -> Limits:
        """The same, unless it makes no sense: then a `ConfigurationError`."""
        if not self.stall_timeout > 0:
            raise ConfigurationError("stall_timeout must be more than 0 seconds")
        if not 0 <= self.min_speed < math.inf:
            raise ConfigurationError("min_speed must be 0 or more bytes a second")
        return self


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
    def trace(self) -> str | None:
        """Where its trace goes on."""
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
    """Where one request stands."""

    origin: str = field(repr=False)
    url: str = field(repr=False)
    is_trusted: bool
    redirects: int = 0
    refreshes: int = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer whose body may be read."""

    found: Found
    reply: FileReply = field(repr=False)

    @property
    def length(self) -> int | None:
        """Bytes of the body, if it says so."""
        match self.found:
            case FileHead(length=length):
                return length
            case Part(start=start, stop=stop):
                return stop - start
            case _:
                return None


class Source:
    """The address of one file. Several connections may fetch from it at the same time."""

    def __init__(
        self, fetcher: Fetcher, url: str, *, is_trusted: bool, owner: Owner | None = None
    ) -> None:
        self.fetcher = fetcher
        self.url = url
        self.owner = owner
        self.key = owner.key if owner is not None else None
        self._is_trusted = is_trusted
        self._refreshing = asyncio.Lock()

    @asynccontextmanager
    async def open(self, wanted: Wanted | None, limits: Limits) -> AsyncIterator[Opened]:
        """The answer to a request for the file, or for `wanted` of it.

        Redirects are followed, and when the address has gone stale, AF10 is asked for another.
        """
        route = _Route(self.url, self.url, self._is_trusted)
        headers = range_headers(wanted) if wanted is not None else None
        while True:
            self._check(route)
            stream = self.fetcher.transport.stream(
                route.url,
                trusted=route.is_trusted,
                headers=headers,
                stall_timeout=limits.stall_timeout,
                account=self.fetcher.account,
                most_at_once=self.fetcher.most_at_once,
            )
            async with self.labelled(), stream as reply:
                found = await self._read_head(route, reply, wanted, limits)
                match found:
                    case FileHead(ends_clearly=False):
                        raise self._refused(reply, "it does not say where the file ends")
                    case FileHead() | Part() | Beyond() | Mismatch():
                        yield Opened(found, reply)
                        return
                    case Busy():
                        raise self._refused(reply, "try again later", retryable=True)
                    case NotAFile(reason=reason):
                        raise self._refused(reply, reason)
                    case Moved() | Stale():
                        pass
                    case _:
                        assert_never(found)
            await self._reroute(route, found, reply)

    async def blocks(
        self,
        opened: Opened,
        limits: Limits,
        *,
        eager: bool = False,
        block_size: int = BLOCK_SIZE,
    ) -> AsyncGenerator[Block, None]:
        """The body of an answer, to its promised end; see `FileReply.blocks`."""
        pace = _Pace(limits)
        received, length = 0, opened.length
        blocks = opened.reply.blocks(
            length,
            stall_timeout=limits.stall_timeout,
            eager=eager,
            block_size=block_size,
            clock=self.fetcher.runtime.monotonic,
        )
        try:
            async with aclosing(blocks):
                async for block in blocks:
                    received += len(block.data)
                    if pace.is_too_slow(len(block.data), block.seconds):
                        raise self._stalled(_too_slow(limits))
                    yield block
        except RequestTimeoutError:
            raise self._stalled(f"fell silent after {received:,} bytes") from None
        except NetworkError:
            raise self._incomplete(f"cut after {received:,} bytes") from None
        if length is not None and received != length:
            raise self._incomplete(f"{received:,} bytes instead of the promised {length:,}")
        if opened.reply.is_too_long:
            raise self._incomplete(f"more than the promised {received:,} bytes")

    @asynccontextmanager
    async def labelled(self) -> AsyncIterator[None]:
        """Errors say which job they belong to, and how to go on with it."""
        try:
            yield
        except AF10Error as error:
            error.key, error.step = error.key or self.key, error.step or "download"
            if self.owner is not None:
                error.ticket = self.owner.ticket
            raise

    # -- redirects and fresh addresses -------------------------------------------------------------

    async def _read_head(
        self, route: _Route, reply: FileReply, wanted: Wanted | None, limits: Limits
    ) -> Answer:
        status, headers, url = reply.status, reply.headers, route.url
        if wanted is not None:
            found: Answer = read_range_answer(status, headers, url, wanted)
        else:
            found = read_file_head(status, headers, url)
        if isinstance(found, FileHead) and found.may_be_error and found.ends_clearly:
            start = await self._peek(reply, limits)
            if len(start) < MAX_ERROR_BYTES:
                return read_file_error(start) or found
        return found

    async def _peek(self, reply: FileReply, limits: Limits) -> bytes:
        longest = MAX_ERROR_BYTES / limits.min_speed if limits.min_speed else math.inf
        try:
            async with asyncio.timeout(None if longest == math.inf else longest + 1):
                return await reply.peek(MAX_ERROR_BYTES)
        except RequestTimeoutError:
            raise self._stalled("fell silent") from None
        except TimeoutError:
            raise self._stalled(_too_slow(limits)) from None

    async def _reroute(self, route: _Route, found: Moved | Stale, reply: FileReply) -> None:
        if isinstance(found, Moved):
            self._follow(route, found.location)
            return
        async with self._refreshing:
            if route.origin == self.url:  # else another connection has asked already
                await self._refresh(route, reply)
        route.origin = route.url = self.url
        route.is_trusted, route.redirects = self._is_trusted, 0

    async def _refresh(self, route: _Route, reply: FileReply) -> None:
        fresh = None
        if self.owner is not None and not route.refreshes:
            fresh = await self.owner.fresh_url()
        if fresh is None:
            raise self._refused(reply, "the address is not, or no longer, good")
        logger.info("the address of the file had gone stale; AF10 gave a fresh one")
        self.url = fresh
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
        if problem is None and not is_allowed_host(route.url, self.fetcher.allowed_hosts):
            problem = "its host is not one of the allowed hosts"
        if problem is not None:
            raise self._unsafe(problem)

    # -- errors ------------------------------------------------------------------------------------

    def _refused(self, reply: FileReply, reason: str, *, retryable: bool = False) -> DownloadError:
        return DownloadRefusedError(
            f"the file server's answer (HTTP {reply.status}) is not the file: {reason}",
            status=reply.status,
            retry_after=parse_retry_after(
                reply.headers.get("retry-after"), self.fetcher.runtime.now()
            ),
            key=self.key,
            step="download",
            retryable=retryable,
        )

    def _unsafe(self, problem: str) -> UnsafeURLError:
        return UnsafeURLError(
            f"the address of the file is not safe to fetch: {problem}; nothing was sent to it",
            key=self.key,
            step="download",
            sent=False,
        )

    def _incomplete(self, what: str) -> IncompleteDownloadError:
        return IncompleteDownloadError(
            f"the file did not arrive whole: {what}",
            key=self.key,
            step="download",
            sent=True,
            retryable=True,
        )

    def _stalled(self, what: str) -> DownloadTimeoutError:
        return DownloadTimeoutError(
            f"the file server {what}",
            key=self.key,
            step="download",
            sent=True,
            retryable=True,
        )

    def too_large(self, limit: int, option: str) -> FileTooLargeError:
        """The error for a file that is larger than the caller allows."""
        return FileTooLargeError(
            f"the file is larger than the limit of {limit:,} bytes ({option})",
            key=self.key,
            step="download",
            sent=True,
        )


def _too_slow(limits: Limits) -> str:
    return f"sent less than {limits.min_speed:g} bytes a second (min_speed)"


class _Pace:
    """Whether a body comes too slowly; only the time spent waiting for it counts."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bytes = 0
        self._seconds = 0.0

    def is_too_slow(self, size: int, seconds: float) -> bool:
        self._bytes += size
        self._seconds += seconds
        if self._seconds < self._limits.stall_timeout:
            return False
        is_slow = self._bytes < self._limits.min_speed * self._seconds
        self._bytes, self._seconds = 0, 0.0
        return is_slow


class Retries:
    """How often each connection failed; what brings the file nearer gives it new hope."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._failures: Counter[int] = Counter()
        self._reached: Counter[int] = Counter()
        self.attempts = 1
        """How often it was tried so far."""

    async def pause_or_give_up(self, error: AF10Error, reached: int, segment: int = 0) -> None:
        """Wait before the next attempt, or raise `error`; `reached` bytes came, more or less."""
        if reached > self._reached[segment]:
            self._failures[segment], self._reached[segment] = 0, reached
        self._failures[segment] += 1
        runtime = self._fetcher.runtime
        asked = error.retry_after if isinstance(error, DownloadRefusedError) else None
        pause = self._fetcher.policy.pause(self._failures[segment], runtime.chance(), asked)
        if not error.retryable or pause is None:
            raise error
        self.attempts += 1
        logger.info("download failed, again in %.1f s: %s", pause, error)
        await runtime.sleep(pause)
