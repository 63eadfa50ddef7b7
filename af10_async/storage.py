"""Copying bytes to object storage: an object appears under its key whole or not at all.

The work is done by obstore (the extra `storage`).

obstore takes back an unfinished upload when what it reads from fails, or when the store refuses a
part, but not when it is cancelled itself. So it never is, at first: a cancelled caller makes it
fail, and waits for the end of that.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import hashlib
import logging
import os
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from .errors import (
    ConfigurationError,
    DownloadError,
    MissingExtraError,
    StorageError,
    TargetExistsError,
)
from .protocol.redaction import redact
from .shelter import in_thread

__all__ = ["StoredObject", "check_storage_url", "file_path", "is_storage_url", "put_object"]

logger = logging.getLogger("af10_async.storage")

PART_SIZE = 8 * 1024 * 1024
MAX_PARTS = 10_000
"""Most parts that S3 takes for one object."""
_PARTS_AT_ONCE = 3
_BLOCK_SIZE = 1024 * 1024
"""Bytes gathered before a thread writes them to a file."""
_REQUEST_TIME = "120s"
"""Time of one request: a part must fit on a slow line, together with its neighbours."""
_RETRY_TIME = timedelta(seconds=60)
"""Time after which obstore begins no other attempt at a request."""
_GRACE = 10.0
"""Seconds that a cancelled upload gets to take back what it began."""
_EXIT_PAUSE = 0.05

_ENVIRONMENTS = {
    "s3": "AWS",
    "s3a": "AWS",
    "gs": "GOOGLE",
    "az": "AZURE",
    "azure": "AZURE",
    "abfs": "AZURE",
    "abfss": "AZURE",
}
"""How the environment variables of each kind of store begin."""
_FORMS = "s3://bucket/key, gs://bucket/key, az://container/key or file:///path"
_CLIENT_OPTIONS = (
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "default_content_type",
    "default_headers",
    "http1_only",
    "http2_keep_alive_interval",
    "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "randomize_addresses",
    "read_timeout",
    "root_certificate",
    "timeout",
    "user_agent",
)
"""Options about HTTP, which obstore wants to have apart from those about the store."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_LEFT = "performing DELETE"
"""What obstore says when it could not take parts back."""
_METADATA_SERVERS = ("169.254.169.254", "169.254.170.", "metadata.google.internal")
"""Where obstore looks for credentials when it was given none."""

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


@dataclass(frozen=True, slots=True)
class _Target:
    scheme: str
    root: str
    """The URL up to its bucket or container."""
    key: str

    @property
    def url(self) -> str:
        return f"{self.root}/{quote(self.key)}"


def is_storage_url(url: str) -> bool:
    """Whether the URL is of a kind that `put_object` understands; it may still be malformed."""
    scheme, mark, _ = url.partition("://")
    return bool(mark) and (scheme.lower() == "file" or scheme.lower() in _ENVIRONMENTS)


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
    target = _read_url(url, name)
    upload = _Upload(target, options or {}, overwrite=overwrite)
    return await upload.run(source, _part_size(size))


# -- objects ---------------------------------------------------------------------------------------


class _Upload:
    def __init__(self, target: _Target, options: Mapping[str, Any], *, overwrite: bool) -> None:
        self._target = target
        self._overwrite = overwrite
        self._obstore = _load()
        self._store = _open(self._obstore, target, options)
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
            raise _store_error(error, self._target, purpose) from None
        raise _exists(self._target)

    async def _result(self, upload: asyncio.Future[T]) -> T:
        try:
            return await asyncio.shield(upload)
        except Exception as error:
            raise _store_error(error, self._target) from None

    async def _end(self, upload: asyncio.Future[Any]) -> None:
        """Wait for the end of an upload, and cut it off when that does not come."""
        cancelled = await _wait_through(upload, _GRACE)
        if not upload.done():
            upload.cancel()
            self._warn()
        elif isinstance(error := upload.exception(), Exception) and _LEFT in str(error):
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


# -- obstore ---------------------------------------------------------------------------------------


@functools.cache
def _load() -> ModuleType:
    try:
        import obstore.store
    except ImportError:
        raise MissingExtraError(
            'object storage needs obstore: pip install "af10-async[storage]"'
        ) from None
    # Its threads let go of Python's objects a moment after the result is here. When the interpreter
    # ends within that moment, the process aborts.
    atexit.register(time.sleep, _EXIT_PAUSE)
    return obstore


def _open(obstore: ModuleType, target: _Target, options: Mapping[str, Any]) -> Any:
    given = dict(options)
    config = dict(given.pop("config", None) or {})
    client = _client_options(target.scheme) | dict(given.pop("client_options", None) or {})
    retries = {"retry_timeout": _RETRY_TIME} | dict(given.pop("retry_config", None) or {})
    credentials = given.pop("credential_provider", None)
    config |= given
    client |= {key: config.pop(key) for key in _CLIENT_OPTIONS if key in config}
    try:
        return obstore.store.from_url(
            target.root,
            config=config,
            client_options=client,
            retry_config=retries,
            credential_provider=credentials,
        )
    except Exception as error:
        reason = redact(str(error).partition("\n")[0], _values(target.scheme, config, client))
        raise ConfigurationError(
            f"the options or the environment do not fit {target.root}: {reason}; correct them"
        ) from None


def _client_options(scheme: str) -> dict[str, Any]:
    # obstore looks at none of these variables when it is given any such option.
    begin = _ENVIRONMENTS[scheme]
    names = {key: f"{begin}_{key.upper()}" for key in _CLIENT_OPTIONS}
    found = {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}
    return {"timeout": _REQUEST_TIME} | found


def _values(scheme: str, *settings: Mapping[str, Any]) -> list[str]:
    """Whatever may be a secret."""
    begin = f"{_ENVIRONMENTS[scheme]}_"
    found = [str(value) for each in settings for value in each.values()]
    return found + [value for name, value in os.environ.items() if name.startswith(begin)]


# -- URLs ------------------------------------------------------------------------------------------


def _read_url(url: str, name: str) -> _Target:
    try:
        parts = urlsplit(url)
        key = unquote(parts.path.removeprefix("/"), errors="strict")
    except ValueError:
        raise _bad_url("it is malformed") from None
    if parts.scheme not in _ENVIRONMENTS:
        raise _bad_url("it is of another kind")
    if "?" in url or "#" in url:
        raise _bad_url("it has a query or a fragment; in a key, ? is %3F and # is %23")
    if ":" in parts.netloc or ("@" in parts.netloc and not parts.scheme.startswith("abfs")):
        raise _bad_url("it holds credentials or a port; these belong in the options")
    if not parts.netloc:
        raise _bad_url("it names no bucket")
    if not key or key.endswith("/"):
        key += name
    _check_key(key)
    return _Target(parts.scheme, f"{parts.scheme}://{parts.netloc}", key)


def _check_key(key: str) -> None:
    if not key or key.endswith("/"):
        raise _bad_url("it names no key")
    if {"", ".", ".."} & set(key.split("/")):
        raise _bad_url("its key has a part that is empty, . or ..")
    if _CONTROL.search(key):
        raise _bad_url("its key has control characters")


def check_storage_url(url: str) -> None:
    """Make sure, before anything is fetched, that a file could be stored at this URL.

    Raises `ConfigurationError` when it is malformed, `MissingExtraError` when obstore is missing.
    """
    if url.partition(":")[0].lower() == "file":
        file_path(url)
        return
    _read_url(url, "name")
    _load()


def file_path(url: str) -> str:
    """The path that a `file:` URL means; a `ConfigurationError` when it is malformed."""
    try:
        parts = urlsplit(url)
        path = unquote(parts.path, errors="strict")
    except ValueError:
        raise _bad_url("it is malformed") from None
    if "?" in url or "#" in url:
        raise _bad_url("it has a query or a fragment; in a path, ? is %3F and # is %23")
    if parts.netloc not in {"", "localhost"} or not path.startswith("/"):
        raise _bad_url("it names another machine, or no absolute path")
    if ".." in path.split("/") or _CONTROL.search(path):
        raise _bad_url("its path has .. or control characters")
    if os.name == "nt":
        path = path.removeprefix("/")
    return path


def _bad_url(problem: str) -> ConfigurationError:
    return ConfigurationError(f"the target must be {_FORMS}, but {problem}")


# -- errors ----------------------------------------------------------------------------------------


def _store_error(error: Exception, target: _Target, purpose: str = "") -> DownloadError:
    """The error of ours for one of obstore's, whose own text holds addresses and upload ids."""
    text = str(error)
    status = int(found[1]) if (found := _STATUS.search(text)) else 0
    code = found[1] if (found := _CODE.search(text)) else ""
    if status == 412 or type(error).__name__ == "AlreadyExistsError":
        return _exists(target)
    reason, retryable = _reason(status, text)
    answer = f" (HTTP {status}{' ' if code else ''}{code})" if status else ""
    left = ""
    if _LEFT in text:
        left = (
            "; the parts that were sent could not be taken back: a lifecycle rule of the bucket for"
            " incomplete uploads removes them"
        )
    doing = f"store {target.url}" if not purpose else f"look at {target.url} {purpose}"
    return StorageError(
        f"cannot {doing}{answer}: {reason}{left}",
        status=status,
        code=code,
        step="save",
        retryable=retryable,
    )


def _reason(status: int, text: str) -> tuple[str, bool]:
    """What to do, and whether the same again may help."""
    if any(server in text for server in _METADATA_SERVERS):
        return "there are no credentials: set them in the environment or the options", False
    if status in {401, 403}:
        return (
            "the credentials are wrong or have expired, or do not allow it: renew them, or ask for"
            " the right to do so"
        ), False
    if status == 404:
        return "there is no such bucket: make it, or correct the URL", False
    if status == 501:
        return "it cannot put only where nothing is: pass overwrite=True", False
    if status >= 500 or status in {408, 409, 429}:
        return "the store failed or has too much to do: try again later", True
    if status:
        return "the store refuses the request: check the region and the options", False
    if "builder error" in text:
        return "its endpoint is not https: use https, or the option allow_http", False
    return (
        "the store could not be reached or did not answer in time: check the endpoint and the"
        " region, and try again"
    ), True


def _exists(target: _Target) -> TargetExistsError:
    return TargetExistsError(
        f"cannot store {target.url}: something is there already; choose another key, or pass"
        " overwrite=True to replace it",
        step="save",
    )


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
