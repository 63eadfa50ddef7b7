"""Object storage: an object appears whole or not at all, and nothing unfinished stays behind."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import hashlib
import json
import logging
import secrets
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil  # type: ignore[import-untyped]
import pytest

from af10_async import object_store, storage
from af10_async.errors import (
    ConfigurationError,
    DownloadError,
    MissingExtraError,
    StorageError,
    TargetExistsError,
)
from af10_async.protocol.storage_urls import is_storage_url, read_storage_url
from af10_async.storage import check_storage_url, put_object

from ..ports import free_port

MIB = 1024 * 1024
CHUNK = bytes(range(256)) * 1024  # 256 KiB
SECRET = "hunter2/very+secret"
QUICK: dict[str, Any] = {
    "max_retries": 1,
    "retry_timeout": timedelta(seconds=2),
    "backoff": {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(seconds=1)},
}


class S3:
    """The server, and what a test wants to know of it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.address = f"http://127.0.0.1:{port}"
        self.options: dict[str, Any] = {
            "endpoint": self.address,
            "allow_http": True,
            "region": "us-east-1",
            "access_key_id": "somebody",
            "secret_access_key": SECRET,
            "retry_config": QUICK,
        }

    def obey(self, *rules: tuple[str, str, int]) -> None:
        """Follow these rules, with a bucket that is new."""
        self.bucket = f"bucket-{secrets.token_hex(8)}"
        self._ask("PUT", f"/_rules?bucket={self.bucket}", json.dumps(rules))

    def url(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._ask("GET", "/_state"))
        return found

    async def saw(self, method: str, query: str) -> None:
        """Returns once such a request has come."""
        path = f"/_wait?{urlencode({'method': method, 'query': query})}"
        await asyncio.to_thread(self._ask, "GET", path)

    def _ask(self, method: str, path: str, body: str = "") -> bytes:
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=30)) as connection:
            connection.request(method, path, body)
            return connection.getresponse().read()

    @property
    def objects(self) -> dict[str, str]:
        """The SHA-256 of what is at each key."""
        found: dict[str, str] = self.state()["objects"]
        return found

    @property
    def requests(self) -> list[str]:
        return [each["method"] for each in self.state()["requests"]]

    def assert_nothing_left(self) -> None:
        state = self.state()
        assert (state["objects"], state["uploads"]) == ({}, [])


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    command = [sys.executable, "-m", "tests.download.s3_server"]
    folder = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield S3(int(process.stdout.readline()))
        finally:
            process.kill()


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP", "HTTP_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    server.obey()
    return server


async def mebibytes(
    count: int, *, fails: Exception | None = None, waits: asyncio.Event | None = None
) -> AsyncIterator[bytes]:
    """So many; then an error, or a pause before one more chunk."""
    for _ in range(count * 4):
        yield CHUNK
    if fails is not None:
        raise fails
    if waits is not None:
        await waits.wait()
        yield CHUNK


async def chunks(*given: bytes) -> AsyncIterator[bytes]:
    for chunk in given:
        yield chunk


def digest(count: int) -> str:
    return hashlib.sha256(CHUNK * 4 * count).hexdigest()


# -- it is stored ----------------------------------------------------------------------------------


async def test_a_large_object_goes_in_parts_and_arrives_as_it_was(s3: S3) -> None:
    stored = await put_object(s3.url("a/b c.zip"), mebibytes(21), options=s3.options)
    assert (stored.size, stored.sha256) == (21 * MIB, digest(21))
    assert stored.url == s3.url("a/b%20c.zip")
    assert stored.e_tag is not None
    assert s3.objects == {"a/b c.zip": stored.sha256}
    assert s3.state()["uploads"] == []
    assert s3.requests.count("PUT") == 3


@pytest.mark.parametrize("given", [(b"one", b"", b"two"), (b"",), ()], ids=["small", "empty", "no"])
async def test_a_small_object_goes_in_one_request(s3: S3, given: tuple[bytes, ...]) -> None:
    stored = await put_object(s3.url("small"), chunks(*given), options=s3.options)
    whole = b"".join(given)
    assert (stored.size, stored.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert s3.objects == {"small": stored.sha256}
    assert s3.requests == ["PUT"]


async def test_an_object_of_just_one_part_arrives(s3: S3) -> None:
    stored = await put_object(s3.url("eight"), mebibytes(8), options=s3.options)
    assert s3.objects == {"eight": digest(8)} == {"eight": stored.sha256}


async def test_a_folder_gets_the_name_that_is_given(s3: S3) -> None:
    for url in (s3.url("in/"), s3.url("").rstrip("/")):
        await put_object(url, chunks(b"x"), name="n.zip", options=s3.options)
    assert sorted(s3.objects) == ["in/n.zip", "n.zip"]


async def test_credentials_and_endpoint_may_come_from_the_environment(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.address)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    await put_object(s3.url("k"), chunks(b"x"))
    assert "k" in s3.objects


# -- nothing is left behind ------------------------------------------------------------------------


async def test_an_error_of_the_source_goes_through_and_leaves_nothing(s3: S3) -> None:
    error = RuntimeError("cut")
    with pytest.raises(RuntimeError) as caught:
        await put_object(s3.url("k"), mebibytes(18, fails=error), options=s3.options)
    assert caught.value is error
    assert "POST" in s3.requests
    s3.assert_nothing_left()


async def test_cancelled_while_the_source_pauses_leaves_nothing(s3: S3) -> None:
    source = mebibytes(18, waits=asyncio.Event())
    task = asyncio.create_task(put_object(s3.url("k"), source, options=s3.options))
    await s3.saw("PUT", "partNumber=2")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    s3.assert_nothing_left()


@pytest.mark.parametrize("query", ["partNumber=2", "partNumber=3"], ids=["middle", "last"])
async def test_cancelled_while_a_part_is_under_way_leaves_nothing(s3: S3, query: str) -> None:
    s3.obey(("PUT", "partNumber=2", 0))
    source = mebibytes(40, waits=asyncio.Event())
    task = asyncio.create_task(put_object(s3.url("k"), source, options=s3.options))
    await s3.saw("PUT", query)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    s3.assert_nothing_left()


async def test_cancelled_while_the_store_is_silent_ends_soon_and_says_what_may_be_left(
    s3: S3, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage, "_GRACE", 0.3)
    s3.obey(("DELETE", "uploadId", 0))
    source = mebibytes(18, waits=asyncio.Event())
    task = asyncio.create_task(put_object(s3.url("k"), source, options=s3.options))
    await s3.saw("PUT", "partNumber=1")
    task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()  # a second time does not cut the cleaning short
    await asyncio.sleep(0)
    assert not task.done()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "may be left" in caplog.text
    assert "DELETE" in s3.requests
    s3.obey()  # lets the request that is held go


@pytest.mark.parametrize(
    ("method", "query"),
    [("POST", "uploads"), ("PUT", "partNumber=1"), ("PUT", "partNumber=3"), ("POST", "uploadId")],
    ids=["begin", "first part", "last part", "end"],
)
@pytest.mark.parametrize(("status", "retryable"), [(503, True), (403, False)])
async def test_a_store_that_refuses_at_any_step_has_nothing_left(
    s3: S3, method: str, query: str, status: int, retryable: bool
) -> None:
    s3.obey((method, query, status))
    with pytest.raises(StorageError) as caught:
        await put_object(s3.url("k"), mebibytes(18), options=s3.options)
    error = caught.value
    assert (error.status, error.code, error.retryable) == (status, "Broken", retryable)
    assert s3.url("k") in str(error)
    assert "could not be taken back" not in str(error)
    assert_harmless(error, s3)
    s3.assert_nothing_left()


async def test_credentials_that_expire_for_good_are_said_to_leave_parts(s3: S3) -> None:
    s3.obey(("PUT|DELETE", "partNumber=2|^uploadId", 403))
    with pytest.raises(StorageError, match="could not be taken back") as caught:
        await put_object(s3.url("k"), mebibytes(18), options=s3.options)
    assert not caught.value.retryable
    assert_harmless(caught.value, s3)
    assert s3.objects == {}


# -- the store refuses or is not there -------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 9], ids=["small", "large"])
async def test_a_bucket_that_does_not_exist_is_named(s3: S3, size: int) -> None:
    with pytest.raises(StorageError, match="no such bucket") as caught:
        await put_object("s3://elsewhere/k", mebibytes(size), options=s3.options)
    assert (caught.value.status, caught.value.code) == (404, "NoSuchBucket")
    assert not caught.value.retryable
    assert isinstance(caught.value, DownloadError)


async def test_a_storm_of_503_ends_after_the_retries_of_obstore(s3: S3) -> None:
    s3.obey((".*", "", 503))
    with pytest.raises(StorageError, match="try again later") as caught:
        await put_object(s3.url("k"), chunks(b"x"), options=s3.options)
    assert caught.value.retryable
    assert s3.requests == ["PUT", "PUT"]


@pytest.mark.parametrize(
    ("status", "advice"), [(400, "check the region"), (501, "overwrite=True"), (429, "try again")]
)
async def test_each_refusal_says_what_to_do(s3: S3, status: int, advice: str) -> None:
    s3.obey(("PUT", "", status))
    with pytest.raises(StorageError, match=advice) as caught:
        await put_object(s3.url("k"), chunks(b"x"), options=s3.options)
    assert caught.value.status == status


async def test_an_endpoint_where_nobody_listens_is_an_error_worth_retrying() -> None:
    options = S3(free_port()).options
    with pytest.raises(StorageError, match="could not be reached") as caught:
        await put_object("s3://bucket/k", chunks(b"x"), options=options)
    assert (caught.value.status, caught.value.retryable) == (0, True)


async def test_an_endpoint_that_never_answers_ends_at_its_timeout() -> None:
    handlers: set[asyncio.Task[Any] | None] = set()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        with contextlib.suppress(OSError):
            while await reader.read(65536):
                pass
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with silent:
        options = S3(silent.sockets[0].getsockname()[1]).options | {"timeout": "50ms"}
        with pytest.raises(StorageError, match="did not answer in time") as caught:
            await put_object("s3://bucket/k", chunks(b"x"), options=options)
        await asyncio.gather(*(task for task in handlers if task is not None))
    assert caught.value.retryable
    assert handlers


async def test_no_credentials_at_all_are_said_to_be_missing() -> None:
    error = RuntimeError("Error performing PUT http://169.254.169.254/latest/api/token: no")
    found = object_store.store_error(error, read_storage_url("s3://bucket/k", ""))
    assert "no credentials" in str(found)
    assert not found.retryable


async def test_an_http_endpoint_must_be_allowed(s3: S3) -> None:
    options = s3.options | {"allow_http": False}
    with pytest.raises(StorageError, match="allow_http") as caught:
        await put_object(s3.url("k"), chunks(b"x"), options=options)
    assert not caught.value.retryable


# -- what is there stays ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 18], ids=["small", "large"])
async def test_what_is_there_already_is_replaced_only_on_demand(s3: S3, size: int) -> None:
    await put_object(s3.url("k"), chunks(b"mine"), options=s3.options)
    mine = s3.objects
    with pytest.raises(TargetExistsError, match=s3.url("k")):
        await put_object(s3.url("k"), mebibytes(size), options=s3.options)
    assert s3.objects == mine
    assert s3.state()["uploads"] == []
    await put_object(s3.url("k"), mebibytes(size), overwrite=True, options=s3.options)
    assert s3.objects == {"k": digest(size)}


async def test_what_somebody_makes_during_a_large_upload_stays(s3: S3) -> None:
    go_on = asyncio.Event()
    source = mebibytes(18, waits=go_on)
    task = asyncio.create_task(put_object(s3.url("k"), source, options=s3.options))
    await s3.saw("PUT", "partNumber=1")
    theirs = await put_object(s3.url("k"), chunks(b"theirs"), options=s3.options)
    go_on.set()
    with pytest.raises(TargetExistsError):
        await task
    assert s3.objects == {"k": theirs.sha256}
    assert s3.state()["uploads"] == []


async def test_without_the_right_to_look_a_large_object_is_not_stored(s3: S3) -> None:
    s3.obey(("HEAD", "", 403))
    with pytest.raises(StorageError, match="something is there already"):
        await put_object(s3.url("k"), mebibytes(9), options=s3.options)
    s3.assert_nothing_left()
    await put_object(s3.url("k"), mebibytes(9), overwrite=True, options=s3.options)
    assert "HEAD" not in s3.requests[1:]


# -- it costs little -------------------------------------------------------------------------------


async def test_memory_stays_flat(s3: S3) -> None:
    process = psutil.Process()
    await put_object(s3.url("first"), mebibytes(9), options=s3.options)
    before = process.memory_info().rss
    peak = before

    async def measured() -> AsyncIterator[bytes]:
        nonlocal peak
        async for chunk in mebibytes(96):
            yield chunk
            peak = max(peak, process.memory_info().rss)

    await put_object(s3.url("k"), measured(), options=s3.options)
    assert peak - before < 75 * MIB


async def test_joining_and_hashing_happen_in_a_thread_and_the_source_in_our_task(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()
    tasks: set[asyncio.Task[Any] | None] = set()
    add = storage._Total.add

    def noted(self: storage._Total, block: list[bytes]) -> bytes:
        threads.add(threading.get_ident())
        return add(self, block)

    async def source() -> AsyncIterator[bytes]:
        async for chunk in mebibytes(17):
            tasks.add(asyncio.current_task())
            yield chunk

    monkeypatch.setattr(storage._Total, "add", noted)
    await put_object(s3.url("k"), source(), options=s3.options)
    assert threads
    assert threading.get_ident() not in threads
    assert tasks == {asyncio.current_task()}


def test_parts_grow_with_the_size_that_is_expected() -> None:
    assert storage._part_size(None) == storage._part_size(10 * MIB) == 8 * MIB
    size = 500 * 1024 * MIB
    assert storage._part_size(size) * storage.MAX_PARTS >= size


# -- what is malformed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "ftp://bucket/k",
        "bucket/k",
        "s3://",
        "s3:///k",
        "s3://bucket",
        "s3://bucket/in/",
        "s3://bucket/a//b",
        "s3://bucket/a/../b",
        "s3://bucket/a/%2e%2e/b",
        "s3://bucket/a%0ab",
        "s3://bucket/%ff",
        f"s3://me:{SECRET}@bucket/k",
        "s3://me@bucket/k",
        f"s3://bucket/k?X-Amz-Signature={SECRET}",
        "s3://bucket/k#part",
        "s3://[bucket/k",
        "file://elsewhere/tmp/f",
        "file:tmp/f",
        "file:///tmp/../f",
        "file:///tmp/f?x",
        "file:///tmp/%ff",
    ],
)
async def test_a_malformed_url_is_refused_before_the_source_is_touched(url: str) -> None:
    source = mebibytes(1, fails=AssertionError("the source was touched"))
    with pytest.raises(ConfigurationError, match=r"s3://bucket/key.* but ") as caught:
        if url.startswith("file:"):
            check_storage_url(url)
        await put_object(url, source)
    assert SECRET not in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        *(("s3://b/k", True), ("GS://b/k", True), ("file:///f", True), ("abfss://c@a/k", True)),
        *(("/tmp/f", False), ("C:\\f", False), ("https://b/k", False), ("s3:k", False)),
    ],
)
def test_what_a_storage_url_is(url: str, is_one: bool) -> None:
    assert is_storage_url(url) is is_one


async def test_an_unknown_option_is_named() -> None:
    with pytest.raises(ConfigurationError, match="nonsense"):
        await put_object("s3://bucket/k", chunks(b"x"), options={"nonsense": "1"})


async def test_a_malformed_option_is_refused_without_its_value() -> None:
    options = {"timeout": SECRET, "access_key_id": "a", "secret_access_key": "b"}
    with pytest.raises(ConfigurationError) as caught:
        await put_object("s3://bucket/k", chunks(b"x"), options=options)
    assert SECRET not in str(caught.value)


async def test_azure_needs_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ConfigurationError, match="Account must be specified"):
        await put_object("az://container/k", chunks(b"x"))


@pytest.fixture
def unloaded() -> Iterator[None]:
    object_store.load.cache_clear()
    yield
    object_store.load.cache_clear()


@pytest.mark.usefixtures("unloaded")
async def test_without_obstore_the_pip_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("obstore", "obstore.store"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r'pip install "af10-async\[storage\]"'):
        await put_object("s3://bucket/k", chunks(b"x"))


@pytest.mark.usefixtures("unloaded")
def test_the_interpreter_pauses_at_its_end_once_obstore_was_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registered: list[object] = []
    monkeypatch.setattr(atexit, "register", lambda *call: registered.append(call))
    object_store.load()
    object_store.load()
    assert len(registered) == 1


# -- texts -----------------------------------------------------------------------------------------


def assert_harmless(error: StorageError, s3: S3) -> None:
    text = f"{error} {error!r} {error.__cause__!r}"
    for secret in (SECRET, "uploadId", s3.address, "somebody"):
        assert secret not in text
    assert error.__suppress_context__


@pytest.fixture(autouse=True)
def no_secret_in_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG, logger="af10_async")
    yield
    assert SECRET not in caplog.text
