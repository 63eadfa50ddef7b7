"""A file goes to object storage or to a sink, whole or with an error."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from af10_async import (
    AF10Client,
    ChecksumMismatchError,
    ConfigurationError,
    FileTooLargeError,
    IncompleteDownloadError,
    Progress,
    TargetExistsError,
)
from af10_async.sandbox import Fault, Sandbox

from .file_server import FileServer, Lie, Version, make_body
from .test_storage import S3, s3, server
from .tools import BODY, MIB, OTHER, downloads, names, ranges

__all__ = ["s3", "server"]

LARGE = make_body(20 * MIB + 17, seed=3)


class Sink:
    """Keeps what it gets; `fails_after` bytes it no longer does."""

    def __init__(self, fails_after: int | None = None) -> None:
        self.data = bytearray()
        self._fails_after = fails_after

    async def write(self, data: bytes) -> None:
        await asyncio.sleep(0)
        self.data += data
        if self._fails_after is not None and len(self.data) > self._fails_after:
            raise BrokenPipeError("the sink is full")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -- sinks -----------------------------------------------------------------------------------------


async def test_a_sink_gets_all_bytes_in_order_over_a_broken_connection(tmp_path: Path) -> None:
    sink, seen = Sink(), list[Progress]()
    async with FileServer(Version(LARGE), {1: Lie(cut=5 * MIB)}) as server, downloads() as files:
        copied = await files.file(server.url()).copy_to(sink, progress=seen.append)
        assert ranges(server.requests) == [None, f"bytes={5 * MIB}-"]
    assert bytes(sink.data) == LARGE
    assert (copied.size, copied.sha256) == (len(LARGE), sha256(LARGE))
    assert (copied.attempts, copied.url, copied.e_tag) == (2, None, None)
    assert seen[0].received == 0
    assert seen[-1].received == seen[-1].total == len(LARGE)


async def test_an_error_of_the_sink_ends_it_and_goes_through() -> None:
    async with FileServer(Version(LARGE)) as server, downloads() as files:
        with pytest.raises(BrokenPipeError, match="the sink is full"):
            await files.file(server.url()).copy_to(Sink(fails_after=MIB))


async def test_what_cannot_be_gone_on_with_is_an_error_since_the_sink_has_a_part_of_it() -> None:
    lies = {1: Lie(cut=4000), 2: Lie(ranges=False)}
    async with FileServer(Version(BODY), lies) as server, downloads() as files:
        with pytest.raises(IncompleteDownloadError, match="could not be gone on with"):
            await files.file(server.url()).copy_to(Sink())


async def test_a_copy_is_checked_and_limited_too() -> None:
    async with FileServer(Version(BODY)) as server, downloads() as files:
        file = files.file(server.url())
        with pytest.raises(ChecksumMismatchError):
            await file.copy_to(Sink(), sha256=sha256(OTHER))
        with pytest.raises(FileTooLargeError):
            await file.copy_to(Sink(), max_size=len(BODY) - 1)
        with pytest.raises(ConfigurationError, match="64 hexadecimal digits"):
            await file.copy_to(Sink(), sha256="abc")
        copied = await file.copy_to(Sink(), sha256=sha256(BODY).upper(), max_size=len(BODY))
    assert copied.size == len(BODY)


async def test_an_empty_file_is_copied() -> None:
    async with FileServer(Version(b"")) as server, downloads() as files:
        assert (await files.file(server.url()).copy_to(Sink())).sha256 == sha256(b"")


async def test_a_jobs_file_that_was_copied_is_collected(af10: AF10Client, sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault.truncated(1000))
    job = af10.backup_owner()
    sink = Sink()
    await (await job).copy_to(sink)
    assert bytes(sink.data) == sandbox.archive(sandbox.jobs[0])
    assert [each.key async for each in af10.unfinished()] == []


# -- files and object storage ----------------------------------------------------------------------


async def test_a_file_url_is_saved_as_by_save(tmp_path: Path) -> None:
    async with FileServer(Version(BODY)) as server, downloads() as files:
        file = files.file(server.url())
        copied = await file.copy_to(f"{tmp_path.as_uri()}/")
        assert copied.url == (tmp_path / "backup.zip").as_uri()
        target = (tmp_path / "it.zip").as_uri()
        await file.copy_to(target)
        with pytest.raises(TargetExistsError):
            await file.copy_to(target)
        await file.copy_to(target, overwrite=True, sha256=sha256(BODY))
    assert names(tmp_path) == ["backup.zip", "it.zip"]


async def test_an_object_arrives_whole_over_a_broken_connection(s3: S3) -> None:
    async with FileServer(Version(LARGE), {1: Lie(cut=9 * MIB)}) as server, downloads() as files:
        file = files.file(server.url())
        copied = await file.copy_to(s3.url("backups/"), options=s3.options)
        assert copied.url == s3.url("backups/backup.zip")
        assert (copied.size, copied.sha256, copied.attempts) == (len(LARGE), sha256(LARGE), 2)
        assert s3.objects == {"backups/backup.zip": sha256(LARGE)}
        with pytest.raises(TargetExistsError):
            await file.copy_to(copied.url, options=s3.options)


@pytest.mark.parametrize("size", [MIB, 20 * MIB])
async def test_a_wrong_checksum_leaves_no_object_and_no_part_of_one(s3: S3, size: int) -> None:
    async with FileServer(Version(LARGE[:size])) as server, downloads() as files:
        with pytest.raises(ChecksumMismatchError):
            await files.file(server.url()).copy_to(
                s3.url("it"), options=s3.options, sha256=sha256(OTHER)
            )
    s3.assert_nothing_left()


async def test_a_bad_url_is_refused_before_anything_is_fetched() -> None:
    async with FileServer(Version(BODY)) as server, downloads() as files:
        for url in ("s3://bucket/../x", "ftp://bucket/x", "file:relative"):
            with pytest.raises(ConfigurationError):
                await files.file(server.url()).copy_to(url)
        assert server.requests == []
