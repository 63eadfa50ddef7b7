"""Copying bytes to object storage: an object appears under its key whole or not at all.

The work is done by obstore (the extra `storage`).

obstore takes back an unfinished upload when what it reads from fails, or when the store refuses a
part, but not when it is cancelled itself. So it never is, at first: a cancelled caller makes it
fail, and waits for the end of that.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from .object_store import LEFT_PARTS, exists, load, opened, store_error
from .protocol.storage_urls import StorageTarget, file_path, read_storage_url
from .shelter import in_thread

__all__ = ["StoredObject", "check_storage_url", "put_object"]

logger = logging.getLogger("af10_async.storage")

PART_SIZE = 8 * 1024 * 1024
MAX_PARTS = 10_000
"""Most parts that S3 takes for one object."""
_PARTS_AT_ONCE = 3
_GRACE = 10.0
"""Seconds that a cancelled upload gets to take back what it began."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What was stored, whole."""

    url: str
    """Where it is; without credentials."""
    size: int
    """Bytes."""
    sha256: str
    """In hexadecimal, of the bytes as they went through."""
    e_tag: str | None = None
    """What the store calls this content, if it says so."""
    version: str | None = None
    """The version of the object, if the store keeps several."""


async def put_object(
    url: str,
    source: AsyncIterator[bytes],
    *,
    name: str = "",
    size: int | None = None,
    overwrite: bool = False,
    options: Mapping[str, Any] | None = None,
) -> StoredObject:
    """Store what `source` gives, with constant memory; it appears whole or not at all.

    When the source fails, the caller is cancelled or the store refuses, nothing is to be seen under
    the key, and the parts that were sent are taken back. Two things can prevent that last: a store
    that refuses this too (with credentials that have expired, say), and one that does not answer
    within ten seconds of a cancellation. Then the parts stay, out of sight, until a lifecycle rule
    of the bucket removes them. A cancellation while the very last request is under way may find the
    object whole.

    What is at the key already stays as it is unless `overwrite` is given. Objects of less
    than 8 MiB are made only where nothing is, in one step. Larger ones go in parts, for which
    obstore cannot ask that of the store: it is looked before the first part and again after the
    last, so an object that somebody else makes there within that last moment is replaced. Looking
    needs the right to read.

    A store that does not answer ends in an error after four minutes at most, with these options.

    Args:
        url: `s3://bucket/key`, `gs://bucket/key`, `az://container/key` (or `abfs`, `abfss`), with
            special characters of the key percent-encoded.
        source: The bytes. It is not closed here.
        name: Appended when the key is empty or ends in a slash.
        size: About how many bytes there will be, if known. Above 78 GiB the parts must be larger.
        overwrite: Replace what is there.
        options: Those of obstore for this kind of store, such as `endpoint`, `region`,
            `access_key_id` or `account_name`, and for HTTP, such as `allow_http` or `timeout`;
            also `retry_config` and `credential_provider`. They go before the environment (`AWS_…`,
            `GOOGLE_…`, `AZURE_…`).

    Raises:
        ConfigurationError: the URL or an option is malformed; nothing was sent.
        MissingExtraError: obstore is not installed.
        TargetExistsError: something is there already.
        StorageError: the store refused, or could not be reached.

    What the source raises goes through as it is.

    """
    target = read_storage_url(url, name)
    upload = _Upload(target, options or {}, overwrite=overwrite)
    return await upload.run(source, _part_size(size))


def check_storage_url(url: str) -> None:
    """Make sure, before anything is fetched, that a file could be stored at this URL.

    Raises `ConfigurationError` when it is malformed, `MissingExtraError` when obstore is missing.
    """
    if url.partition(":")[0].lower() == "file":
        file_path(url)
        return
    read_storage_url(url, "name")
    load()


# -- objects ---------------------------------------------------------------------------------------


class _Upload:
    def __init__(
        self, target: StorageTarget, options: Mapping[str, Any], *, overwrite: bool
    ) -> None:
        self._target = target
        self._overwrite = overwrite
        self._obstore = load()
        self._store = opened(self._obstore, target, options)
        self._total = _Total()

    async def run(self, source: AsyncIterator[bytes], part_size: int) -> StoredObject:
        async with aclosing(_blocks(source, part_size)) as blocks:
            first = await self._part(await anext(blocks, []))
            if len(first) < part_size:
                stored = await self._put_at_once(first)
            else:
                stored = await self._put_in_parts(first, blocks, part_size)
        total = self._total
        logger.info("stored %s: %d bytes", self._target.url, total.size)
        return StoredObject(
            self._target.url,
            total.size,
            total.sha256,
            stored.get("e_tag"),
            stored.get("version"),
        )

    async def _put_at_once(self, content: bytes) -> Mapping[str, Any]:
        upload = asyncio.ensure_future(
            self._obstore.put_async(
                self._store,
                self._target.key,
                content,
                mode="overwrite" if self._overwrite else "create",
                use_multipart=False,
            )
        )
        try:
            return await self._result(upload)
        finally:
            await self._end(upload)

    async def _put_in_parts(
        self, first: bytes, blocks: AsyncIterator[list[bytes]], part_size: int
    ) -> Mapping[str, Any]:
        await self._refuse_taken()
        feed = _Feed()
        upload = asyncio.ensure_future(
            self._obstore.put_async(
                self._store,
                self._target.key,
                feed,
                chunk_size=part_size,
                max_concurrency=_PARTS_AT_ONCE,
            )
        )
        upload.add_done_callback(feed.close)
        try:
            await feed.give(first)
            async for block in blocks:
                await feed.give(await self._part(block))
                if upload.done():
                    break
            if not upload.done():
                await self._refuse_taken()
            await feed.give(None)
            return await self._result(upload)
        finally:
            feed.fail()
            await self._end(upload)

    async def _part(self, block: list[bytes]) -> bytes:
        return await in_thread(lambda: self._total.add(block))

    async def _refuse_taken(self) -> None:
        if self._overwrite:
            return
        try:
            await self._obstore.head_async(self._store, self._target.key)
        except FileNotFoundError:
            return
        except Exception as error:
            purpose = "to see whether something is there already"
            raise store_error(error, self._target, purpose) from None
        raise exists(self._target)

    async def _result(self, upload: asyncio.Future[T]) -> T:
        try:
            return await asyncio.shield(upload)
        except Exception as error:
            raise store_error(error, self._target) from None

    async def _end(self, upload: asyncio.Future[Any]) -> None:
        """Wait for the end of an upload, and cut it off when that does not come."""
        cancelled = await _wait_through(upload, _GRACE)
        if not upload.done():
            upload.cancel()
            self._warn()
        elif isinstance(error := upload.exception(), Exception) and LEFT_PARTS in str(error):
            self._warn()
        if cancelled:
            raise asyncio.CancelledError

    def _warn(self) -> None:
        logger.warning(
            "%s: parts of an upload that was given up may be left in the store, out of sight",
            self._target.url,
        )


class _Feed:
    """What obstore reads from: the parts as the caller's own task hands them over.

    obstore asks for each part in a task of its own. A source that keeps a timeout or a cancel scope
    open between two parts would not survive that.
    """

    def __init__(self) -> None:
        self._parts: asyncio.Queue[bytes | _StoppedError | None] = asyncio.Queue(1)
        self._is_closed = False

    def __aiter__(self) -> _Feed:
        return self

    async def __anext__(self) -> bytes:
        part = await self._parts.get()
        if part is None:
            raise StopAsyncIteration
        if isinstance(part, _StoppedError):
            raise part
        return part

    async def give(self, part: bytes | None) -> None:
        """Hand over a part, or the end, when there is room; not after `close`."""
        if not self._is_closed:
            await self._parts.put(part)

    def fail(self) -> None:
        """Let the next read fail."""
        self.close()
        self._parts.put_nowait(_StoppedError("the upload was given up"))

    def close(self, _: object = None) -> None:
        """Nobody reads any more: whoever waits for room need not."""
        self._is_closed = True
        while not self._parts.empty():
            self._parts.get_nowait()


class _Total:
    """What went through so far; adding takes a thread, for its time."""

    def __init__(self) -> None:
        self.size = 0
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def add(self, chunks: list[bytes]) -> bytes:
        """The chunks in one piece."""
        block = b"".join(chunks)
        self._hash.update(block)
        self.size += len(block)
        return block


class _StoppedError(Exception):
    """Makes obstore take back what it began."""


async def _blocks(source: AsyncIterator[bytes], size: int) -> AsyncGenerator[list[bytes], None]:
    """Chunks that together hold at least `size` bytes; the last ones may hold less."""
    chunks: list[bytes] = []
    gathered = 0
    async for chunk in source:
        chunks.append(chunk)
        gathered += len(chunk)
        if gathered >= size:
            full, chunks, gathered = chunks, [], 0
            yield full
    if chunks:
        yield chunks


def _part_size(size: int | None) -> int:
    return max(PART_SIZE, -(-(size or 0) // MAX_PARTS))


# -- waiting ---------------------------------------------------------------------------------------


async def _wait_through(work: asyncio.Future[Any], seconds: float | None = None) -> bool:
    """Wait, whoever cancels us; whether somebody did."""
    loop = asyncio.get_running_loop()
    until = None if seconds is None else loop.time() + seconds
    cancelled = False
    while not work.done():
        left = None if until is None else until - loop.time()
        if left is not None and left <= 0:
            break
        try:
            await asyncio.wait([work], timeout=left)
        except asyncio.CancelledError:
            cancelled = True
    return cancelled
