"""An interrupted download goes on where it stopped, or starts over; the file is never a mixture.

Where the rows 43 to 79 of the catalogue of faults are proven (a name without a folder is in here):

| row | what | where |
|---|---|---|
| 43 | not ready yet | jobs/test_rules: `a_secret_that_is_not_known_yet_is_tried_again` |
| 44 | the backup failed | jobs/test_rules: `the_reason_why_a_backup_failed_is_told` |
| 45 | odd payload URLs | test_download: `a_payload_url_never...`; protocol/test_addresses |
| 46, 47 | DNS rebinding, names in the pool | test_transport: `the_address_that_was_checked...` |
| 48 | redirects | test_addresses; test_download: `a_redirect_never_falls...` |
| 49 | credentials | `identity_is_asked_for...`; test_engine: `...handed_in...` |
| 50 | proxies, netrc | test_engine: `a_proxy_in_the_environment...`, `netrc_is_never_read` |
| 51 | certificates | test_engine: `a_certificate_of_nobody...`; test_transport |
| 52 | a signed URL expires | `an_address_that_goes_stale_in_the_middle_is_asked_for_again` |
| 53 | short body | `what_breaks_off_is_gone_on_with_at_the_very_byte` |
| 54 | no length, early FIN | test_download: `what_is_not_the_whole_file...` |
| 55 | longer body, odd lengths | `a_body_longer_than_promised...`; test_engine: `one_byte...` |
| 56 | cuts anywhere, tries | `a_cut_at_any_byte...`, `attempts_without_progress...`; cuts/ |
| 57 | same version, 206 | `what_breaks_off...`, `last_modified_tells_versions_apart...` |
| 58 | changed, 200 | `a_200_is_taken_whole...`, `what_changed_meanwhile_is_fetched_anew` |
| 59 | 206 that does not fit | `an_answer_that_does_not_fit...`, `without_a_strong_validator...` |
| 60 | 416 | `an_answer_that_does_not_fit...`, `a_file_that_lacks_its_name_only...` |
| 61 | 206 unasked, web pages | test_download: `what_is_not_the_whole_file_is_an_error...` |
| 62 | encoded | test_download (the same); `a_part_that_is_encoded_is_refused...` |
| 63 | endless, too large | `a_file_that_turns_out_to_be_too_large...`, `a_disk_without_room...` |
| 64 | drips and stalls | test_speed_limits |
| 65, 66 | slow and silent lines | test_speed_limits: `a_silence_shorter...`, `...falls_silent...` |
| 67 | memory, the loop | test_engine: `a_server_has_to_wait_for...`; the rest: benchmarks |
| 68 | checksums | `a_file_other_than_its_server_says...`, `another_file_than_the_expected...` |
| 69 | disk full | `a_disk_that_fills_up_on_the_way...`; test_partial_file |
| 70 | flush fails | `a_flush_that_fails_is_an_error...`; test_partial_file |
| 71 | kill -9 | `a_download_goes_on_after_kill_9`; crash/; cuts/ |
| 72 | order of system calls | test_partial_file: `the_file_is_flushed_before...` |
| 73 | hostile names | protocol/test_files; test_download: `the_servers_name_is_reduced...` |
| 74 | odd targets | test_partial_file: `an_odd_target...`, `a_folder_swapped_for_a_link...` |
| 75 | two processes, one target | `two_processes_with_one_target_never_share_a_partial_file` |
| 76 | other file systems | not possible: the partial file is in the target's folder |
| 77 | modes | test_partial_file: `only_the_owner_can_read...` |
| 78 | object stores | test_storage |
| 79 | the old one is kept | `an_older_file_is_replaced_when_the_new_one_is_whole...` |
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import hashlib
import os
import signal
import sys
import threading
import time as clock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from af10_async import (
    AF10Client,
    AF10Error,
    ChecksumMismatchError,
    ConfigurationError,
    DiskFullError,
    DownloadRefusedError,
    FileChangedError,
    FileTooLargeError,
    IncompleteDownloadError,
    Progress,
    RemoteFile,
    RetryPolicy,
    TargetExistsError,
)
from af10_async.partial_file import PartialFile
from af10_async.sandbox import Fault, Sandbox

from ..cuts import life
from ..test_partial_file import Mount, mount
from .fault_proxy import Close, Corrupt, FaultProxy, Refuse, Reset, Script, Stall
from .file_server import DATE, FileServer, Lie, Version, http_date, make_body
from .tools import (
    BODY,
    LARGE,
    MIB,
    NAME,
    OTHER,
    Time,
    cancelled,
    downloads,
    has_received,
    names,
    part_of,
    ranges,
    state_of,
    until,
)

__all__ = ["mount"]

TAG = Version(BODY).tag()
CHANGED = http_date(DATE - 86_400)
BY_DATE = Version(BODY, etag=None)
HELD = Lie(cut=4000, then="hold")
CUT = Lie(cut=4000)


async def left_by(server: FileServer, folder: Path, size: int = 4000, **options: Any) -> Path:
    """Save until so many bytes are here, cancel, and leave the partial file behind."""
    async with downloads() as files:
        task = asyncio.create_task(files.file(server.url()).save(folder, **options))
        await until(has_received(folder, size))
        await cancelled(task)
    assert len(names(folder)) == 2
    return part_of(folder)


# -- within one save -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [len(BODY), len(LARGE)], ids=["small", "large"])
@pytest.mark.parametrize("kind", [Reset, Close, Stall])
async def test_what_breaks_off_is_gone_on_with_at_the_very_byte(
    tmp_path: Path, kind: type[Reset | Close | Stall], size: int
) -> None:
    """After a reset, an early end, and silence; a small file, and one off the socket."""
    body, cut = (BODY, 4000) if size == len(BODY) else (LARGE, 2 * MIB + 4000)
    async with (
        FileServer(Version(body)) as server,
        FaultProxy("127.0.0.1", server.port, [kind(cut, in_body=True)]) as proxy,
        downloads(stall_timeout=0.1) as files,
    ):
        saved = await files.file(proxy.url()).save(tmp_path)
    assert saved.path.read_bytes() == body
    assert saved.sha256 == hashlib.sha256(body).hexdigest()
    assert (saved.size, saved.attempts, saved.resumed_from) == (size, 2, 0)
    assert ranges(server.requests) == [None, f"bytes={cut}-{size - 1}"]
    assert [each.if_range for each in server.requests] == [None, Version(body).tag()]
    assert names(tmp_path) == [NAME]


@pytest.mark.parametrize("way", ["save", "read", "iterate"])
async def test_a_file_is_gone_on_with_in_whichever_way_it_is_fetched(
    tmp_path: Path, way: str
) -> None:
    async with FileServer(Version(BODY), {1: CUT}) as server, downloads() as files:
        assert await fetched(files.file(server.url()), way, tmp_path) == BODY
    assert server.requests[1].range in ("bytes=4000-9999", "bytes=4000-")
    assert server.requests[1].if_range == TAG


async def fetched(file: RemoteFile, way: str, folder: Path) -> bytes:
    match way:
        case "save":
            return (await file.save(folder)).path.read_bytes()
        case "read":
            return await file.read()
        case _:
            return b"".join([chunk async for chunk in file])


@pytest.mark.parametrize("kind", [Reset, Close])
async def test_a_cut_at_any_byte_of_the_answer_is_got_over(
    tmp_path: Path, kind: type[Reset | Close]
) -> None:
    """At the very first byte, in the head, in the body, and at its last byte."""
    body = make_body(50, seed=3)
    async with FileServer(Version(body)) as server, downloads() as files:
        head = 0
        for cut in range(0, 400, 7):
            folder = tmp_path / str(cut)
            async with FaultProxy("127.0.0.1", server.port, [kind(cut)]) as proxy:
                saved = await files.file(proxy.url()).save(folder / NAME)
            assert saved.path.read_bytes() == body
            assert names(folder) == [NAME]
            head = proxy.sent if not proxy.acted else head
        assert head, "all of the answer was passed at last"


async def test_last_modified_tells_versions_apart_where_there_is_no_etag(tmp_path: Path) -> None:
    async with FileServer(BY_DATE, {1: CUT}) as server, downloads() as files:
        saved = await files.file(server.url()).save(tmp_path)
    assert saved.path.read_bytes() == BODY
    assert ranges(server.requests) == [None, "bytes=4000-9999"]
    assert server.requests[1].if_range == CHANGED


@pytest.mark.parametrize(
    "etag",
    [
        '"caf\xe9"',
        '""',
        '"a,b"',
    ],
)
@pytest.mark.parametrize("way", ["save", "read"])
async def test_an_etag_of_any_characters_does_no_harm(tmp_path: Path, etag: str, way: str) -> None:
    """Whether or not it can be sent back."""
    async with FileServer(Version(BODY, etag), {1: CUT}) as server, downloads() as files:
        assert await fetched(files.file(server.url()), way, tmp_path) == BODY


NOT_RESUMABLE = {
    "weak": (Version(BODY, 'W/"x"', None), Lie()),
    "weak, with a date of this second": (Version(BODY, 'W/"x"', DATE), Lie()),
    "nothing": (Version(BODY, None, None), Lie()),
    "date of this second": (Version(BODY, None, DATE), Lie()),
    "date, no length": (Version(BODY, None), Lie(framing="chunked")),
    "ranges denied": (Version(BODY), Lie(headers={"Accept-Ranges": "none"})),
}


@pytest.mark.parametrize("case", NOT_RESUMABLE)
async def test_without_a_strong_validator_a_download_starts_over(tmp_path: Path, case: str) -> None:
    version, lie = NOT_RESUMABLE[case]
    cut = Lie(cut=4000, framing=lie.framing, headers=lie.headers)
    async with (
        FileServer(version, lambda request: cut if request.number == 1 else lie) as server,
        downloads() as files,
    ):
        saved = await files.file(server.url()).save(tmp_path)
    assert saved.path.read_bytes() == BODY
    assert ranges(server.requests) == [None, None]
    assert saved.attempts == 2


async def test_what_cannot_be_gone_on_with_is_not_kept(tmp_path: Path) -> None:
    async with FileServer(Version(BODY, None, None), CUT) as server, downloads() as files:
        with pytest.raises(IncompleteDownloadError):
            await files.file(server.url()).save(tmp_path)
        assert len(server.requests) == 4
        assert names(tmp_path) == []


@pytest.mark.parametrize("way", ["save", "read", "iterate"])
async def test_a_file_of_unknown_length_is_gone_on_with_too(tmp_path: Path, way: str) -> None:
    """Its last byte is fetched once more, and is there once."""
    lies = {1: Lie(framing="chunked", cut=4000)}
    async with FileServer(Version(BODY), lies) as server, downloads() as files:
        assert await fetched(files.file(server.url()), way, tmp_path) == BODY
    asked = server.requests[1].range or ""
    assert 0 < int(asked.removeprefix("bytes=").partition("-")[0]) < 4000


async def test_a_file_of_unknown_length_that_only_lacks_its_end_is_completed(
    tmp_path: Path,
) -> None:
    body = make_body(1000, seed=5)
    lies = {1: Lie(framing="chunked", cut=-5)}
    async with FileServer(Version(body), lies) as server, downloads() as files:
        saved = await files.file(server.url()).save(tmp_path)
    assert saved.path.read_bytes() == body
    assert ranges(server.requests) == [None, "bytes=999-"]


# -- what the answer is ----------------------------------------------------------------------------


STARTS_OVER = {
    "other start": Lie(served=lambda first, last: (first - 1, last)),
    "later start": Lie(served=lambda first, last: (first + 1, last)),
    "other bytes than claimed": Lie(claim=lambda first, last, size: f"bytes 0-{last}/{size}"),
    "end before start": Lie(claim=lambda first, last, size: f"bytes {last}-{first}/{size}"),
    "larger total": Lie(claim=lambda first, last, size: f"bytes {first}-{last}/{size + 1}"),
    "smaller total": Lie(claim=lambda first, last, size: f"bytes {first}-{last}/{size - 1}"),
    "total unknown": Lie(claim=lambda first, last, size: f"bytes {first}-{last}/*"),
    "no Content-Range": Lie(claim=lambda first, last, size: None),
    "garbage": Lie(claim=lambda first, last, size: "bytes of mine"),
    "other unit": Lie(claim=lambda first, last, size: f"lines {first}-{last}/{size}"),
    "wrong length": Lie(headers={"Content-Length": "5999"}),
    "several parts": Lie(multipart=True),
    "other ETag": Lie(headers={"ETag": '"other"'}),
    "weak ETag": Lie(headers={"ETag": f"W/{TAG}"}),
    "no ETag": Lie(headers={"ETag": None}),
    "another version, unconditionally": Lie(version=1, if_range=False),
    "another length, unconditionally": Lie(version=2, if_range=False),
    "416": Lie(status=416),
    "416 without a total": Lie(status=416, headers={"Content-Range": None}),
    "416 of another version": Lie(status=416, headers={"ETag": '"other"'}),
}


@pytest.mark.parametrize("case", STARTS_OVER)
async def test_an_answer_that_does_not_fit_starts_the_download_over(
    tmp_path: Path, case: str
) -> None:
    """With a request for the whole of it."""
    versions = [Version(BODY), Version(OTHER), Version(BODY[:9000], etag=TAG)]
    async with (
        FileServer(versions, {1: CUT, 2: STARTS_OVER[case]}) as server,
        downloads() as files,
    ):
        saved = await files.file(server.url()).save(tmp_path)
    assert saved.path.read_bytes() == BODY
    assert ranges(server.requests) == [None, "bytes=4000-9999", None]
    assert names(tmp_path) == [NAME]


async def test_a_date_that_has_changed_starts_the_download_over(tmp_path: Path) -> None:
    newer = Version(OTHER, None, DATE - 3600)
    lies = {1: CUT, 2: Lie(version=1, if_range=False)}
    async with FileServer([BY_DATE, newer], lies) as server, downloads() as files:
        saved = await files.file(server.url()).save(tmp_path)
    assert saved.path.read_bytes() == BODY
    assert ranges(server.requests) == [None, "bytes=4000-9999", None]


@pytest.mark.parametrize("case", ["same version", "another version", "another length"])
async def test_a_200_is_taken_whole_with_the_bytes_of_that_very_answer(
    tmp_path: Path, case: str
) -> None:
    """Nothing is asked for a third time."""
    versions = [Version(BODY), Version(OTHER), Version(LARGE)]
    version = ["same version", "another version", "another length"].index(case)
    lies = {1: CUT, 2: Lie(version=version, ranges=False)}
    async with FileServer(versions, lies) as server, downloads() as files:
        saved = await files.file(server.url()).save(tmp_path)
    assert saved.path.read_bytes() == versions[version].body
    assert saved.sha256 == hashlib.sha256(versions[version].body).hexdigest()
    assert ranges(server.requests) == [None, "bytes=4000-9999"]
    assert names(tmp_path) == [NAME]


async def test_a_200_that_is_cut_in_its_turn_is_gone_on_with(tmp_path: Path) -> None:
    async with FileServer([Version(BODY), Version(OTHER)], {1: CUT, 2: Lie(cut=6000)}) as server:
        server.lies = lambda request: Lie(
            version=min(request.number - 1, 1), cut=(4000, 6000, None)[request.number - 1]
        )
        async with downloads() as files:
            saved = await files.file(server.url()).save(tmp_path)
    assert saved.path.read_bytes() == OTHER
    assert ranges(server.requests) == [None, "bytes=4000-9999", "bytes=6000-9999"]


async def test_a_part_shorter_than_asked_for_is_followed_by_the_next(tmp_path: Path) -> None:
    shorter = Lie(served=lambda first, last: (first, min(last, first + 2999)))
    async with (
        FileServer(Version(BODY), {1: CUT, 2: shorter, 3: shorter}) as server,
        downloads() as files,
    ):
        assert (await files.file(server.url()).save(tmp_path)).path.read_bytes() == BODY
        assert ranges(server.requests) == [None, "bytes=4000-9999", "bytes=7000-9999"]
        server.requests.clear()
        assert await files.file(server.url()).read() == BODY
        assert ranges(server.requests) == [None, "bytes=4000-", "bytes=7000-"]


@pytest.mark.parametrize("headers", [{"Content-Encoding": "gzip"}, {"Content-Encoding": "br"}])
async def test_a_part_that_is_encoded_is_refused_and_what_is_here_is_kept(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    lies = {1: CUT, 2: Lie(headers=headers)}
    async with FileServer(Version(BODY), lies) as server, downloads() as files:
        with pytest.raises(DownloadRefusedError, match="encoded"):
            await files.file(server.url()).save(tmp_path)
        saved = await files.file(server.url()).save(tmp_path)
    assert saved.resumed_from == 4000
    assert saved.path.read_bytes() == BODY


async def test_a_file_that_is_another_one_each_time_is_an_error(tmp_path: Path) -> None:
    """After a few attempts, and with nothing left behind."""
    versions = [Version(make_body(10_000, seed)) for seed in range(40)]
    async with FileServer(versions) as server:
        server.lies = lambda request: Lie(
            version=request.number, if_range=False, cut=4000 if request.range is None else None
        )
        async with downloads(retries=RetryPolicy(attempts=20)) as files:
            with pytest.raises(FileChangedError, match="begun anew 3 times") as caught:
                await files.file(server.url()).save(tmp_path)
    assert caught.value.retryable
    assert len(server.requests) <= 9
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "lie",
    [
        Lie(ranges=False),
        Lie(status=416),
        Lie(claim=lambda first, last, size: None),
        Lie(version=1, if_range=False),
        Lie(version=1),
    ],
    ids=["200", "416", "nonsense", "another version", "another version, said so"],
)
async def test_an_iteration_that_cannot_be_gone_on_with_is_an_error(lie: Lie) -> None:
    """What the caller has already cannot be taken back; `read` begins anew."""
    lies = {1: CUT, 2: lie}
    async with FileServer([Version(BODY), Version(OTHER)], lies) as server, downloads() as files:
        heard = b""
        with pytest.raises(IncompleteDownloadError, match="4,000 bytes"):
            async for chunk in files.file(server.url()):
                heard += chunk
        assert heard == BODY[:4000]
        server.requests.clear()
        assert await files.file(server.url()).read() == BODY


@pytest.mark.parametrize("size", [len(BODY), len(LARGE)], ids=["small", "large"])
@pytest.mark.parametrize(
    "way",
    [
        "save",
        "read",
        "iterate",
    ],
)
async def test_a_body_longer_than_promised_is_an_error_and_not_a_file(
    tmp_path: Path, way: str, size: int
) -> None:
    body = BODY if size == len(BODY) else LARGE
    async with FileServer(Version(body), Lie(extra=b"x")) as server, downloads() as files:
        with pytest.raises(IncompleteDownloadError):
            await fetched(files.file(server.url()), way, tmp_path)
    assert names(tmp_path) == []


# -- the next save ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [Version(BODY), BY_DATE], ids=["etag", "date"])
async def test_the_next_save_goes_on_where_a_cancelled_one_stopped(
    tmp_path: Path, version: Version
) -> None:
    seen: list[Progress] = []
    async with FileServer(version, {1: HELD}) as server:
        await left_by(server, tmp_path)
        async with downloads() as files:
            saved = await files.file(server.url()).save(tmp_path, progress=seen.append)
    assert (saved.resumed_from, saved.attempts, saved.size) == (4000, 1, 10_000)
    assert saved.path.read_bytes() == BODY
    assert saved.sha256 == hashlib.sha256(BODY).hexdigest()
    assert ranges(server.requests) == [None, "bytes=4000-9999"]
    assert (seen[0].received, seen[0].total, seen[0].resumed_from) == (4000, 10_000, 4000)
    assert (seen[-1].received, seen[-1].resumed_from) == (10_000, 4000)
    assert names(tmp_path) == [NAME]


async def test_the_next_save_may_be_to_a_path_in_the_same_folder(tmp_path: Path) -> None:
    async with FileServer(Version(BODY), {1: HELD}) as server:
        await left_by(server, tmp_path)
        async with downloads() as files:
            saved = await files.file(server.url()).save(tmp_path / "mine.zip")
    assert (saved.resumed_from, saved.path.name) == (4000, "mine.zip")


async def test_another_address_or_folder_begins_at_the_beginning(tmp_path: Path) -> None:
    async with FileServer(Version(BODY), {1: HELD}) as server:
        await left_by(server, tmp_path)
        async with downloads() as files:
            other = await files.file(server.url("/another.zip")).save(tmp_path)
            elsewhere = await files.file(server.url()).save(f"{tmp_path}/elsewhere/")
    assert (other.resumed_from, elsewhere.resumed_from) == (0, 0)


async def test_what_an_error_interrupted_is_gone_on_with(tmp_path: Path) -> None:
    """When trying again had no hope any more."""
    async with FileServer(Version(BODY)) as server, downloads() as files:
        server.lies = lambda request: CUT if request.number == 1 else Lie(status=503)
        with pytest.raises(DownloadRefusedError) as caught:
            await files.file(server.url()).save(tmp_path)
        assert caught.value.retryable
        server.lies = Lie()
        saved = await files.file(server.url()).save(tmp_path)
    assert saved.resumed_from == 4000
    assert saved.path.read_bytes() == BODY


async def test_what_changed_meanwhile_is_fetched_anew(tmp_path: Path) -> None:
    seen: list[Progress] = []
    async with FileServer([Version(BODY), Version(OTHER)], {1: HELD}) as server:
        await left_by(server, tmp_path)
        server.switch(1)
        async with downloads() as files:
            saved = await files.file(server.url()).save(tmp_path, progress=seen.append)
    assert saved.path.read_bytes() == OTHER
    assert (saved.resumed_from, len(server.requests)) == (0, 2)
    assert [each.received for each in seen[:2]] == [4000, 0]
    assert seen[-1].resumed_from == 0


@pytest.mark.parametrize("has_changed", [False, True])
async def test_a_file_that_lacks_its_name_only_is_checked_with_its_last_byte(
    tmp_path: Path, has_changed: bool
) -> None:
    def handler(progress: Progress) -> None:
        if progress.received == progress.total:
            raise KeyboardInterrupt

    async with FileServer([Version(BODY), Version(OTHER)]) as server, downloads() as files:
        assert await _save(files.file(server.url()), tmp_path, handler) == "interrupted"
        server.switch(1 if has_changed else 0)
        saved = await files.file(server.url()).save(tmp_path)
    assert saved.path.read_bytes() == (OTHER if has_changed else BODY)
    assert ranges(server.requests) == [None, "bytes=9999-9999"]
    assert saved.resumed_from == (0 if has_changed else 9999)


async def _save(file: RemoteFile, folder: Path, handler: Callable[[Progress], object]) -> str:
    try:
        await file.save(folder, progress=handler)
    except KeyboardInterrupt:  # which asyncio would pass on to everybody
        return "interrupted"
    return "saved"


# -- other processes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def processes() -> None:
    """Others are forked quickly."""
    life.prepare()


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("segments", [1, 3])
async def test_a_download_goes_on_after_kill_9(tmp_path: Path, segments: int) -> None:
    """A real process, killed in the middle of a file; what it had noted is not fetched again."""
    plan: list[Script] = [Stall(MIB, in_body=True) for _ in range(segments)]
    options = {"segments": segments, "stall_timeout": 60}
    body = make_body(segments * 2 * MIB, seed=6)
    async with (
        FileServer(Version(body)) as server,
        FaultProxy("127.0.0.1", server.port, plan) as proxy,
        downloads() as files,
    ):
        process = life.Process(life.Order(proxy.url(), str(tmp_path / NAME), options))
        ended = asyncio.create_task(process.ended())
        await until(lambda: any(tmp_path.glob(".af10-*.json")))
        process.kill()
        assert await ended is None
        assert len(names(tmp_path)) in (2, 3)
        saved = await files.file(proxy.url()).save(tmp_path / NAME, segments=segments)
    assert saved.path.read_bytes() == body
    assert 0 < saved.resumed_from <= segments * MIB
    if segments == 1:
        assert saved.resumed_from == MIB
        assert ranges(server.requests) == [None, f"bytes={MIB}-{2 * MIB - 1}"]
    assert server.requests[segments].range is not None
    assert names(tmp_path) == [NAME]


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("is_folder", [True, False])
async def test_two_processes_with_one_target_never_share_a_partial_file(
    tmp_path: Path, is_folder: bool
) -> None:
    """In a folder each gets a name; a path has one winner, and the other one a clear error."""
    target = f"{tmp_path}/" if is_folder else str(tmp_path / NAME)
    go = asyncio.Event()
    plan = [Stall(2 * MIB, in_body=True, until=go)] * 2
    async with (
        FileServer(Version(LARGE)) as server,
        FaultProxy("127.0.0.1", server.port, plan) as proxy,
    ):
        both = [life.Process(life.Order(proxy.url(), target, {})) for _ in range(2)]
        ends = [asyncio.create_task(each.ended()) for each in both]
        await until(lambda: len(proxy.acted) == 2)
        assert len({*tmp_path.glob(".af10-*.part")}) == 2
        go.set()
        found = [end for end in await asyncio.gather(*ends) if end is not None]
    assert ranges(server.requests) == [None, None]
    errors = sorted(end.error for end in found)
    assert errors == (["", ""] if is_folder else ["", "TargetExistsError"])
    for path in tmp_path.glob("*.zip"):
        assert path.read_bytes() == LARGE
    assert names(tmp_path) == ["backup-2.zip", NAME] if is_folder else [NAME]


SCRIPT = """
import asyncio, sys
from af10_async import Downloader

async def main():
    async with Downloader() as files:
        await files.file(sys.argv[1]).save(sys.argv[2])

asyncio.run(main())
"""


async def test_a_download_goes_on_after_ctrl_c(tmp_path: Path) -> None:
    async with FileServer(Version(BODY), {1: HELD}) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SCRIPT, server.url(), str(tmp_path)),
            stderr=asyncio.subprocess.PIPE,
        )
        await until(has_received(tmp_path, 4000))
        process.send_signal(signal.SIGINT)
        _, said = await process.communicate()
        assert said.strip().endswith(b"KeyboardInterrupt")
        async with downloads() as files:
            saved = await files.file(server.url()).save(tmp_path)
    assert saved.resumed_from == 4000
    assert saved.path.read_bytes() == BODY


# -- partial files ---------------------------------------------------------------------------------


def _flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        old = file.read(1)
        file.seek(place)
        file.write(bytes([old[0] ^ 0xFF]))


def _make_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


TAMPERED: dict[str, Callable[[Path, Path], object]] = {
    "first byte": lambda part, state: _flip(part, 0),
    "last byte": lambda part, state: _flip(part, 3999),
    "cut short": lambda part, state: os.truncate(part, 3999),
    "emptied": lambda part, state: os.truncate(part, 0),
    "replaced": lambda part, state: part.write_bytes(OTHER[:4000]),
    "removed": lambda part, state: part.unlink(),
    "state removed": lambda part, state: state.unlink(),
    "state emptied": lambda part, state: state.write_bytes(b""),
    "state cut short": lambda part, state: state.write_bytes(state.read_bytes()[:-10]),
    "state garbage": lambda part, state: state.write_bytes(os.urandom(500)),
    "state of a huge size": lambda part, state: state.write_bytes(b"[" * 2 * MIB),
    "state a link": lambda part, state: _make_link(state),
}


@pytest.mark.parametrize("case", TAMPERED)
async def test_a_partial_file_that_is_not_what_was_left_is_started_over(
    tmp_path: Path, case: str
) -> None:
    async with FileServer(Version(BODY), {1: HELD}) as server:
        part = await left_by(server, tmp_path)
        TAMPERED[case](part, state_of(tmp_path))
        async with downloads() as files:
            saved = await files.file(server.url()).save(tmp_path / NAME)
    assert saved.path.read_bytes() == BODY
    assert saved.sha256 == hashlib.sha256(BODY).hexdigest()
    assert saved.resumed_from == 0
    assert ranges(server.requests)[-1] is None


async def test_what_was_tampered_with_is_not_believed_because_somebody_began_to_look_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save that is cancelled while it checks what is here must not vouch for it."""
    looking, go_on = threading.Event(), threading.Event()
    real = PartialFile.read

    def read(self: PartialFile, offset: int, size: int) -> bytes:
        if offset >= MIB:
            looking.set()
            go_on.wait(10)
        return real(self, offset, size)

    held = Lie(cut=2 * MIB, then="hold")
    async with FileServer(Version(LARGE), {1: held, 2: Lie(cut=0, then="hold")}) as server:
        _flip(await left_by(server, tmp_path, 2 * MIB), 100)
        async with downloads() as files:
            with monkeypatch.context() as patched:
                patched.setattr(PartialFile, "read", read)
                task = asyncio.create_task(files.file(server.url()).save(tmp_path))
                await until(lambda: looking.is_set() and len(server.requests) == 2)
                task.cancel()
                await asyncio.sleep(0)
                go_on.set()
                await asyncio.wait([task])
            saved = await files.file(server.url()).save(tmp_path)
    assert saved.path.read_bytes() == LARGE


async def test_two_downloads_to_one_folder_at_once_never_share(tmp_path: Path) -> None:
    lies = {1: Lie(cut=4000), 2: Lie(cut=5000)}
    async with FileServer(Version(BODY), lies) as server, downloads() as files:
        file = files.file(server.url())
        one, two = await asyncio.gather(file.save(tmp_path), file.save(tmp_path))
    assert {one.path.name, two.path.name} == {NAME, "backup-2.zip"}
    assert one.path.read_bytes() == two.path.read_bytes() == BODY
    assert ranges(server.requests).count(None) == 2
    assert names(tmp_path) == ["backup-2.zip", NAME]


async def test_of_two_downloads_to_one_path_the_second_is_refused(tmp_path: Path) -> None:
    async with FileServer(Version(BODY)) as server, downloads() as files:
        file = files.file(server.url())
        both = await asyncio.gather(
            *(file.save(tmp_path / NAME) for _ in range(2)), return_exceptions=True
        )
    assert sorted(type(each).__name__ for each in both) == ["SavedFile", "TargetExistsError"]
    assert (tmp_path / NAME).read_bytes() == BODY
    assert names(tmp_path) == [NAME]


async def test_a_second_download_beside_the_first_leaves_nothing_that_nobody_finds(
    tmp_path: Path,
) -> None:
    """Only one of them can leave what the next one goes on with."""
    async with FileServer(Version(BODY), HELD) as server, downloads() as files:
        both = [asyncio.create_task(files.file(server.url()).save(tmp_path)) for _ in range(2)]
        await until(lambda: len(names(tmp_path)) == 2)
        await until(lambda: all(each.stat().st_size == 4000 for each in tmp_path.iterdir()))
        for each in both:
            await cancelled(each)
        assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".json", ".part"]


@pytest.mark.parametrize("days", [6, 8])
async def test_what_nobody_came_back_for_within_a_week_is_removed(
    tmp_path: Path, days: int
) -> None:
    """Unless somebody still writes to it."""
    past = clock.time() - days * 24 * 3600
    locked = tmp_path / f".af10-{'0' * 16}.part"
    left = [tmp_path / f".af10-{'1' * 16}{suffix}" for suffix in (".part", ".json")]
    foreign = tmp_path / ".af10-notes.part"
    for path in (locked, foreign, *left):
        path.write_bytes(b"x")
        os.utime(path, (past, past))
    async with FileServer(Version(BODY)) as server, downloads() as files:
        with locked.open() as writer:
            fcntl.flock(writer, fcntl.LOCK_EX)
            await files.file(server.url()).save(tmp_path)
    kept = [] if days > 7 else [path.name for path in left]
    assert names(tmp_path) == sorted([locked.name, foreign.name, NAME, *kept])


async def test_ones_own_partial_file_is_gone_on_with_however_old_it_is(tmp_path: Path) -> None:
    async with FileServer(Version(BODY), {1: HELD}) as server:
        await left_by(server, tmp_path)
        past = clock.time() - 30 * 24 * 3600
        for path in tmp_path.iterdir():
            os.utime(path, (past, past))
        async with downloads() as files:
            saved = await files.file(server.url()).save(tmp_path)
    assert saved.resumed_from == 4000


async def test_a_resume_state_names_no_address_and_is_for_its_owner_only(tmp_path: Path) -> None:
    async with FileServer(Version(BODY), HELD) as server:
        await left_by(server, tmp_path)
        state = state_of(tmp_path)
    assert b"127.0.0.1" not in state.read_bytes()
    assert str(server.port).encode() not in state.read_bytes()
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600, 0o600]


async def test_an_older_file_is_replaced_when_the_new_one_is_whole_and_not_before(
    tmp_path: Path,
) -> None:
    """What a nightly run keeps: the old one, as long as there is no new one."""
    target = tmp_path / NAME
    target.write_bytes(b"old")
    async with FileServer(Version(BODY), {1: HELD}) as server, downloads() as files:
        task = asyncio.create_task(files.file(server.url()).save(target, overwrite=True))
        await until(has_received(tmp_path, 4000))
        assert target.read_bytes() == b"old"
        await cancelled(task)
        assert target.read_bytes() == b"old"
        with pytest.raises(ChecksumMismatchError):
            await files.file(server.url()).save(target, overwrite=True, sha256="0" * 64)
        assert target.read_bytes() == b"old"
        with pytest.raises(TargetExistsError):
            await files.file(server.url()).save(target)
        saved = await files.file(server.url()).save(target, overwrite=True)
    assert saved.path.read_bytes() == BODY
    assert names(tmp_path) == [NAME]


# -- a fresh address -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_an_address_that_goes_stale_in_the_middle_is_asked_for_again(
    af10: AF10Client, sandbox: Sandbox, tmp_path: Path, status: int
) -> None:
    """And the download goes on where it was."""
    sandbox.faults.add(Fault.truncated(1000), Fault.stale_file(status))
    saved = await (await af10.backup_owner()).save(tmp_path)
    assert saved.sha256 == sandbox.archive_sha256(sandbox.jobs[0])
    assert sandbox.count("GET", "/webhook") == 2
    asked = [each.headers.get("range") for each in sandbox.requests if "/files" in each.path]
    assert asked == [None, *[f"bytes=1000-{saved.size - 1}"] * 2]


async def test_an_address_that_stays_stale_is_an_error_and_what_is_here_is_kept(
    af10: AF10Client, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.faults.add(Fault.truncated(1000), Fault.stale_file(403, times=2))
    file = await af10.backup_owner()
    with pytest.raises(DownloadRefusedError, match="no longer, good") as caught:
        await file.save(tmp_path)
    assert (caught.value.status, caught.value.key) == (403, file.key)
    assert sandbox.count("GET", "/webhook") == 2
    saved = await file.save(tmp_path)
    assert saved.resumed_from == 1000
    assert saved.sha256 == sandbox.archive_sha256(sandbox.jobs[0])


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_an_address_of_no_job_that_goes_stale_is_an_error(
    tmp_path: Path, status: int
) -> None:
    lies = {1: CUT, 2: Lie(status=status)}
    async with FileServer(Version(BODY), lies) as server, downloads() as files:
        with pytest.raises(DownloadRefusedError):
            await files.file(server.url()).save(tmp_path)
        assert (await files.file(server.url()).save(tmp_path)).resumed_from == 4000


# -- how often -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retry_after", "pause"),
    # Half a second has passed then, after the cut.
    [("7", 7.0), (http_date(DATE + 9), 8.5), ("0", 1.0), ("soon", 1.0), (None, 1.0)],
)
async def test_a_server_that_is_busy_is_asked_again_when_it_says(
    tmp_path: Path, retry_after: str | None, pause: float
) -> None:
    time = Time()
    lies = {1: CUT, 2: Lie(status=503, headers={"Retry-After": retry_after})}
    async with FileServer(Version(BODY), lies) as server, downloads(time) as files:
        saved = await files.file(server.url()).save(tmp_path)
    assert time.pauses == [0.5, pause]
    assert saved.attempts == 3
    assert saved.seconds == sum(time.pauses)
    assert ranges(server.requests)[1:] == ["bytes=4000-9999"] * 2


async def test_an_absurd_wait_is_an_error_at_once(tmp_path: Path) -> None:
    time = Time()
    lie = Lie(status=429, headers={"Retry-After": "1000000000"})
    async with FileServer(Version(BODY), lie) as server, downloads(time) as files:
        with pytest.raises(DownloadRefusedError) as caught:
            await files.file(server.url()).save(tmp_path)
    assert (caught.value.status, caught.value.retry_after) == (429, 1e9)
    assert (len(server.requests), time.pauses) == (1, [])


@pytest.mark.parametrize("way", ["save", "read", "iterate"])
@pytest.mark.parametrize("cut", [0, 4000])
async def test_attempts_without_progress_are_bounded(tmp_path: Path, way: str, cut: int) -> None:
    async with FileServer(Version(BODY)) as server, downloads() as files:
        server.lies = lambda request: Lie(cut=cut if request.range is None else 0)
        with pytest.raises(IncompleteDownloadError) as caught:
            await fetched(files.file(server.url()), way, tmp_path)
    assert caught.value.retryable
    assert len(server.requests) == 4
    assert len(names(tmp_path)) == (2 if way == "save" and cut else 0)


@pytest.mark.parametrize("way", ["save", "read", "iterate"])
async def test_every_progress_gives_new_hope(tmp_path: Path, way: str) -> None:
    time = Time()
    async with FileServer(Version(BODY), Lie(cut=1000)) as server, downloads(time) as files:
        assert await fetched(files.file(server.url()), way, tmp_path) == BODY
    assert len(server.requests) == 10
    assert time.pauses == [0.5] * 9


async def test_a_server_that_is_gone_for_a_while_is_waited_for(tmp_path: Path) -> None:
    """A connection that is refused in the middle counts as an attempt, like any other failure."""
    plan: list[Script] = [Close(4000, in_body=True), Refuse(), Refuse()]
    async with (
        FileServer(Version(BODY)) as server,
        FaultProxy("127.0.0.1", server.port, plan) as proxy,
        downloads() as files,
    ):
        saved = await files.file(proxy.url()).save(tmp_path)
    assert (saved.attempts, saved.size) == (4, 10_000)
    assert ranges(server.requests) == [None, "bytes=4000-9999"]


# -- is it the right one? --------------------------------------------------------------------------


SHA256 = hashlib.sha256(BODY).hexdigest()
MD5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
CORRUPT: list[Corrupt | Close] = [Corrupt(100, in_body=True), Close(4000, in_body=True)]


@pytest.mark.parametrize(
    "wanted", [{"sha256": SHA256}, {"md5": MD5}, {"sha256": f" {SHA256.upper()} ", "md5": MD5}]
)
async def test_a_file_with_the_expected_checksums_is_saved(
    tmp_path: Path, wanted: dict[str, str]
) -> None:
    async with FileServer(Version(BODY), {1: CUT}) as server, downloads() as files:
        saved = await files.file(server.url()).save(tmp_path, **wanted)  # type: ignore[arg-type]
    assert saved.path.read_bytes() == BODY
    assert len(server.requests) == 2


@pytest.mark.parametrize("wanted", [{"sha256": "0" * 64}, {"md5": "0" * 32}])
async def test_another_file_than_the_expected_one_is_an_error_and_not_fetched_twice(
    tmp_path: Path, wanted: dict[str, str]
) -> None:
    async with FileServer(Version(BODY)) as server, downloads() as files:
        with pytest.raises(ChecksumMismatchError, match="00000") as caught:
            await files.file(server.url()).save(tmp_path, **wanted)  # type: ignore[arg-type]
    assert not caught.value.retryable
    assert len(server.requests) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize("wanted", [{"sha256": SHA256}, {"md5": MD5}])
async def test_a_file_put_together_wrongly_is_fetched_once_more(
    tmp_path: Path, wanted: dict[str, str]
) -> None:
    async with (
        FileServer(Version(BODY)) as server,
        FaultProxy("127.0.0.1", server.port, [CORRUPT]) as proxy,
        downloads() as files,
    ):
        saved = await files.file(proxy.url()).save(tmp_path, **wanted)  # type: ignore[arg-type]
    assert saved.path.read_bytes() == BODY
    assert ranges(server.requests) == [None, "bytes=4000-9999", None]


async def test_a_file_that_stays_wrong_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    async with (
        FileServer(Version(BODY), Lie(then="close")) as server,
        FaultProxy("127.0.0.1", server.port, lambda number: CORRUPT) as proxy,
        downloads() as files,
    ):
        with pytest.raises(ChecksumMismatchError):
            await files.file(proxy.url()).save(tmp_path, sha256=SHA256)
    assert ranges(server.requests) == [None, "bytes=4000-9999", "bytes=8000-9999"] * 2
    assert names(tmp_path) == []


def repr_digest(body: bytes) -> dict[str, str | None]:
    value = base64.b64encode(hashlib.sha256(body).digest()).decode()
    return {"Repr-Digest": f"sha-256=:{value}:"}


@pytest.mark.parametrize(
    "way",
    [
        "save",
        "read",
        "iterate",
    ],
)
async def test_a_file_other_than_its_server_says_is_an_error(tmp_path: Path, way: str) -> None:
    lie = Lie(headers=repr_digest(OTHER))
    async with FileServer(Version(BODY), lie) as server, downloads() as files:
        with pytest.raises(ChecksumMismatchError):
            await fetched(files.file(server.url()), way, tmp_path)
    assert names(tmp_path) == []


async def test_what_the_server_says_of_the_file_outlives_an_interruption(tmp_path: Path) -> None:
    headers = repr_digest(BODY)
    async with FileServer(Version(BODY)) as server:
        server.lies = {1: Lie(cut=4000, then="hold", headers=headers)}
        await left_by(server, tmp_path)
        bad = Lie(served=lambda first, last: (0, last - first), claim=_claims_to_be_the_rest)
        server.lies = {2: bad, 3: Lie(headers=headers)}
        async with downloads() as files:
            saved = await files.file(server.url()).save(tmp_path)
    assert saved.path.read_bytes() == BODY
    assert ranges(server.requests) == [None, "bytes=4000-9999", None]


def _claims_to_be_the_rest(first: int, last: int, size: int) -> str:
    return f"bytes 4000-9999/{size}"


@pytest.mark.parametrize(
    "wanted", [{"sha256": "0" * 63}, {"sha256": "g" * 64}, {"md5": "0" * 64}, {"md5": ""}]
)
async def test_a_malformed_checksum_is_refused_before_anything_is_sent(
    tmp_path: Path, wanted: dict[str, str]
) -> None:
    async with FileServer(Version(BODY)) as server, downloads() as files:
        with pytest.raises(ConfigurationError, match="hexadecimal"):
            await files.file(server.url()).save(tmp_path, **wanted)  # type: ignore[arg-type]
    assert server.requests == []


# -- how much --------------------------------------------------------------------------------------


async def test_a_file_that_says_to_be_too_large_is_refused_by_its_head(tmp_path: Path) -> None:
    lie = Lie(cut=0, then="hold")  # nothing of the body ever comes
    async with FileServer(Version(BODY), lie) as server, downloads() as files:
        with pytest.raises(FileTooLargeError, match=r"9,999 bytes \(max_size\)"):
            await files.file(server.url()).save(tmp_path, max_size=9999)
        assert names(tmp_path) == []
        server.lies = Lie()
        assert (await files.file(server.url()).save(tmp_path, max_size=10_000)).size == 10_000


async def test_a_file_that_turns_out_to_be_too_large_is_given_up_on_the_way(tmp_path: Path) -> None:
    endless = Lie(framing="chunked", cut=-100, then="hold")
    async with FileServer(Version(LARGE), endless) as server, downloads() as files:
        with pytest.raises(FileTooLargeError):
            await files.file(server.url()).save(tmp_path, max_size=MIB)
        with pytest.raises(FileTooLargeError):
            await files.file(server.url()).read(limit=MIB)
    assert names(tmp_path) == []


async def test_what_is_gone_on_with_may_not_be_too_large_either(tmp_path: Path) -> None:
    async with FileServer(Version(BODY), {1: HELD}) as server:
        await left_by(server, tmp_path)
        async with downloads() as files:
            with pytest.raises(FileTooLargeError):
                await files.file(server.url()).save(tmp_path, max_size=9999)
    assert names(tmp_path) == []


# -- the disk --------------------------------------------------------------------------------------


@pytest.mark.parametrize("segments", [1, 3])
async def test_a_disk_without_room_is_an_error_before_the_body_is_fetched(
    mount: Mount, segments: int
) -> None:
    folder = mount("size=4m")
    body = make_body(6 * MIB, seed=7)
    async with FileServer(Version(body)) as server, downloads() as files:
        with pytest.raises(DiskFullError, match="6,291,456 bytes needed"):
            await files.file(server.url()).save(folder, segments=segments)
        assert names(folder) == []
        assert len(server.requests) == 1
        saved = await files.file(server.url()).save(folder.parent, segments=segments)
    assert saved.path.read_bytes() == body


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_disk_that_fills_up_on_the_way_is_an_error_and_nothing_is_left(
    mount: Mount, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    """Its length may not be known, or somebody else takes the room meanwhile."""
    folder = mount("size=2m")
    monkeypatch.setattr(PartialFile, "_has_room", lambda self, size: True)
    lie = Lie() if is_known else Lie(framing="chunked")
    async with FileServer(Version(LARGE), lie) as server, downloads() as files:
        with pytest.raises(DiskFullError, match="nothing was left behind"):
            await files.file(server.url()).save(folder)
    assert names(folder) == []


async def test_a_file_in_segments_has_its_room_from_the_start(mount: Mount) -> None:
    """What others write meanwhile cannot take it away."""
    folder = mount("size=8m")
    body = make_body(6 * MIB, seed=7)
    go = asyncio.Event()
    async with (
        FileServer(Version(body)) as server,
        FaultProxy("127.0.0.1", server.port, [Stall(100, in_body=True, until=go)] * 2) as proxy,
        downloads() as files,
    ):
        task = asyncio.create_task(files.file(proxy.url()).save(folder, segments=2))
        await until(has_received(folder, 6 * MIB))
        with pytest.raises(OSError, match="No space left"):
            (folder / "other").write_bytes(bytes(3 * MIB))
        go.set()
        saved = await task
    assert saved.path.read_bytes() == body


@pytest.fixture
def failing_flush(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    flushed: list[int] = []

    def fsync(file: int) -> None:
        flushed.append(file)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    return flushed


async def test_a_flush_that_fails_is_an_error_and_is_not_tried_again(
    tmp_path: Path, failing_flush: list[int]
) -> None:
    async with FileServer(Version(BODY)) as server, downloads() as files:
        with pytest.raises(AF10Error, match="Input/output error"):
            await files.file(server.url()).save(tmp_path)
    assert len(failing_flush) == 1
    assert len(server.requests) == 1
    assert names(tmp_path) == []


# -- what is seen ----------------------------------------------------------------------------------


async def test_progress_goes_on_over_interruptions_and_never_back(tmp_path: Path) -> None:
    seen: list[Progress] = []
    lies: dict[int, Lie] = {1: Lie(cut=MIB), 2: Lie(cut=MIB)}
    async with FileServer(Version(LARGE), lies) as server, downloads() as files:
        saved = await files.file(server.url()).save(tmp_path, progress=seen.append)
    assert [each.received for each in seen] == sorted(each.received for each in seen)
    assert (seen[0].received, seen[-1].received) == (0, saved.size)
    assert {each.total for each in seen} == {saved.size}
    assert {each.segment for each in seen} == {0}
    assert seen[-1].seconds <= saved.seconds
    assert saved.attempts == 3


async def test_identity_is_asked_for_and_no_credentials_are_sent_however_often(
    af10: AF10Client, tmp_path: Path
) -> None:
    await af10.authenticate()
    cookie = {"Set-Cookie": "session=x"}
    lies = {
        1: Lie(cut=4000, headers=cookie),
        2: Lie(status=302, headers={"Location": "/elsewhere", **cookie}),
        3: Lie(cut=9, headers=cookie),
        5: Lie(cut=4000, headers=cookie),
    }
    async with FileServer(Version(BODY), lies) as server:
        assert (await af10.file(server.url()).save(tmp_path)).path.read_bytes() == BODY
        assert await af10.file(server.url()).read() == BODY
    assert len(server.requests) == 6
    for each in server.requests:
        assert each.headers["accept-encoding"] == "identity"
        assert each.credentials == set()
