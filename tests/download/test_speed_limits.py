"""Time: what stands still is given up, what is merely slow is not, and everything has an end."""

from __future__ import annotations

import asyncio
import math
import time as clock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from af10_async import (
    AF10Error,
    ConfigurationError,
    Downloader,
    DownloadTimeoutError,
    Progress,
    RequestTimeoutError,
)
from af10_async import transport as room
from af10_async.partial_file import PartialFile

from .fault_proxy import Close, FaultProxy, Script, Stall, Trickle
from .file_server import FileServer, Lie, Version, make_body
from .tools import BODY, LARGE, MIB, NAME, Time, downloads, names, ranges, real_downloads

SIZES = {"small": (BODY, 4000), "large": (LARGE, 2 * MIB + 4000)}


# -- silence ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
async def test_a_server_that_falls_silent_again_and_again_is_given_up(
    tmp_path: Path, size: str
) -> None:
    """And what is here is kept."""
    body, cut = SIZES[size]

    async with (
        FileServer(Version(body)) as server,
        FaultProxy("127.0.0.1", server.port, _stalls(cut)) as proxy,
        downloads(stall_timeout=0.05) as files,
    ):
        with pytest.raises(DownloadTimeoutError, match="fell silent") as caught:
            await files.file(proxy.url()).save(tmp_path)
        assert caught.value.retryable
        assert ranges(server.requests) == [None, *[f"bytes={cut}-{len(body) - 1}"] * 3]
        server.requests.clear()
        saved = await files.file(server.url()).save(tmp_path)
    assert saved.resumed_from == 0, "it is another address"


def _stalls(cut: int) -> Callable[[int], Stall]:
    return lambda number: Stall(cut if number == 1 else 0, in_body=True)


@pytest.mark.parametrize("way", ["save", "read"])
async def test_a_server_that_never_answers_is_given_up(tmp_path: Path, way: str) -> None:
    lie = Lie(drip=lambda: asyncio.sleep(60))
    async with FileServer(Version(BODY), lie) as server, downloads(stall_timeout=0.03) as files:
        file = files.file(server.url())
        with pytest.raises(RequestTimeoutError, match="no answer in time"):
            await (file.save(tmp_path) if way == "save" else file.read())
    assert len(server.requests) == 4
    assert names(tmp_path) == []


async def test_a_head_that_drips_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though no silence in it is long."""
    monkeypatch.setattr(room, "CONNECT_TIMEOUT", 0.05)
    lie = Lie(drip=lambda: asyncio.sleep(0.01))
    async with FileServer(Version(BODY), lie) as server, downloads(stall_timeout=0.05) as files:
        with pytest.raises(RequestTimeoutError) as caught:
            await files.file(server.url()).save(tmp_path)
    assert caught.value.retryable
    assert len(server.requests) == 4


async def test_a_head_that_comes_slowly_but_in_time_is_fine(tmp_path: Path) -> None:
    lie = Lie(drip=lambda: asyncio.sleep(0))
    async with FileServer(Version(BODY), lie) as server, downloads(stall_timeout=0.5) as files:
        assert (await files.file(server.url()).save(tmp_path)).attempts == 1


@pytest.mark.parametrize("size", SIZES)
async def test_a_silence_shorter_than_the_limit_is_fine(tmp_path: Path, size: str) -> None:
    """As on a line that is gone for a while."""
    body, cut = SIZES[size]
    go = asyncio.Event()
    async with (
        FileServer(Version(body)) as server,
        FaultProxy("127.0.0.1", server.port, [Stall(cut, in_body=True, until=go)]) as proxy,
        downloads(stall_timeout=5) as files,
    ):
        asyncio.get_running_loop().call_later(0.15, go.set)
        saved = await files.file(proxy.url()).save(tmp_path)
    assert (saved.attempts, saved.size) == (1, len(body))


async def test_each_call_may_have_limits_of_its_own(tmp_path: Path) -> None:
    async with (
        FileServer(Version(BODY)) as server,
        FaultProxy("127.0.0.1", server.port, [Stall(4000, in_body=True)]) as proxy,
        downloads() as files,
    ):
        saved = await files.file(proxy.url()).save(tmp_path, stall_timeout=0.03)
    assert saved.attempts == 2


# -- too slow --------------------------------------------------------------------------------------


def _slow(time: Time, seconds: float, size: int) -> Trickle:
    """Pieces of a body, each of which takes so long."""

    async def pause() -> None:
        time.seconds += seconds
        await asyncio.sleep(0.001)  # for whoever listens not to be far behind

    return Trickle(0, in_body=True, pause=pause, size=size)


@pytest.mark.parametrize(
    ("speed", "attempts"), [(0.0, 1), (50.0, 1), (200.0, 2)], ids=["none", "below", "above"]
)
async def test_a_drip_slower_than_min_speed_is_a_broken_connection(
    tmp_path: Path, speed: float, attempts: int
) -> None:
    """Of 100 bytes a second; the next connection goes on."""
    time = Time()
    async with (
        FileServer(Version(BODY)) as server,
        FaultProxy("127.0.0.1", server.port, [_slow(time, 1.0, 100)]) as proxy,
        downloads(time, min_speed=speed, stall_timeout=20) as files,
    ):
        saved = await files.file(proxy.url()).save(tmp_path)
    assert saved.path.read_bytes() == BODY
    assert saved.attempts == attempts
    assert len(server.requests) == attempts


async def test_a_drip_straight_off_the_socket_is_one_too(tmp_path: Path) -> None:
    time = Time()
    async with (
        FileServer(Version(LARGE)) as server,
        FaultProxy("127.0.0.1", server.port, [_slow(time, 10.0, 64 * 1024)]) as proxy,
        downloads(time, min_speed=10_000) as files,
    ):
        saved = await files.file(proxy.url()).save(tmp_path)
    assert saved.path.read_bytes() == LARGE
    assert saved.attempts == 2


# -- not the server's fault ------------------------------------------------------------------------


async def test_a_slow_progress_handler_is_not_the_servers_fault(tmp_path: Path) -> None:
    time = Time()

    def handler(progress: Progress) -> None:
        time.seconds += 100

    async with FileServer(Version(LARGE)) as server, downloads(time, min_speed=10**6) as files:
        saved = await files.file(server.url()).save(tmp_path, progress=handler)
    assert saved.attempts == 1
    assert time.seconds >= 300


@pytest.mark.parametrize(
    ("framing", "speed"),
    [
        pytest.param("length", 0, id="hangs for a while"),
        pytest.param("chunked", 0, id="hangs for a while, chunked"),
        pytest.param("length", 50 * MIB, id="is slow"),
        pytest.param("chunked", 50 * MIB, id="is slow, chunked"),
    ],
)
async def test_a_slow_disk_is_not_the_servers_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framing: Any, speed: int
) -> None:
    """Neither its silence nor its speed: it has to wait for us."""
    real = PartialFile.write

    def write(self: PartialFile, data: memoryview, offset: int) -> None:
        clock.sleep(0.04 * len(data) / MIB if speed else 0.6 * (offset == 0))
        real(self, data, offset)

    monkeypatch.setattr(PartialFile, "write", write)
    body = bytes(12 * MIB)
    async with (
        FileServer(Version(body), Lie(framing=framing)) as server,
        real_downloads(stall_timeout=0.25, min_speed=speed) as files,
    ):
        saved = await files.file(server.url()).save(tmp_path)
    assert (saved.attempts, saved.size) == (1, len(body))


@pytest.mark.parametrize("size", SIZES)
async def test_a_slow_reader_is_not_the_servers_fault(size: str) -> None:
    body, _ = SIZES[size]
    received = b""
    async with FileServer(Version(body)) as server, real_downloads(stall_timeout=0.1) as files:
        async for chunk in files.file(server.url()):
            if not received:
                await asyncio.sleep(0.4)
            received += chunk
    assert received == body
    assert len(server.requests) == 1


# -- all of it -------------------------------------------------------------------------------------


@pytest.mark.parametrize("segments", [1, 3])
async def test_a_download_has_its_time_and_what_is_here_then_is_kept(
    tmp_path: Path, segments: int
) -> None:
    body = make_body(6 * MIB, seed=8)
    plan = [Stall(MIB, in_body=True) for _ in range(segments)]
    async with (
        FileServer(Version(body)) as server,
        FaultProxy("127.0.0.1", server.port, plan) as proxy,
        real_downloads() as files,
    ):
        file = files.file(proxy.url(), download_timeout=0.5)
        with pytest.raises(DownloadTimeoutError, match=r"within 0\.5 s \(download_timeout\)") as e:
            await file.save(tmp_path, segments=segments)
        assert isinstance(e.value, TimeoutError)
        assert not (tmp_path / NAME).exists()
        saved = await files.file(proxy.url()).save(tmp_path)
    assert saved.path.read_bytes() == body
    assert saved.resumed_from == segments * MIB


async def test_the_time_covers_the_pauses_between_attempts(tmp_path: Path) -> None:
    lie = Lie(status=503, headers={"Retry-After": "30"})
    async with FileServer(Version(BODY), lie) as server, Downloader() as files:
        started = clock.monotonic()
        with pytest.raises(DownloadTimeoutError):
            await files.file(server.url(), download_timeout=0.1).save(tmp_path)
    assert clock.monotonic() - started < 10
    assert len(server.requests) == 1


async def test_no_limit_is_no_limit(tmp_path: Path) -> None:
    async with (
        FileServer(Version(BODY)) as server,
        downloads(download_timeout=math.inf, stall_timeout=math.inf) as files,
    ):
        assert (await files.file(server.url()).save(tmp_path)).size == 10_000


async def test_closing_ends_a_download_with_a_clear_error(tmp_path: Path) -> None:
    """And what is here is kept."""
    async with (
        FileServer(Version(BODY)) as server,
        FaultProxy("127.0.0.1", server.port, [Stall(4000, in_body=True)]) as proxy,
    ):
        async with downloads() as files:
            task = asyncio.create_task(files.file(proxy.url()).save(tmp_path))
            await proxy.until(lambda: bool(proxy.acted))
            await asyncio.sleep(0.02)
        with pytest.raises(AF10Error, match="closed before the file was here"):
            await task
        async with downloads() as files:
            assert (await files.file(proxy.url()).save(tmp_path)).resumed_from == 4000


@pytest.mark.parametrize(
    "options",
    [
        {"stall_timeout": 0},
        {"stall_timeout": -1},
        {"stall_timeout": math.nan},
        {"min_speed": -1},
        {"min_speed": math.inf},
        {"min_speed": math.nan},
    ],
    ids=str,
)
async def test_limits_that_make_no_sense_are_refused(
    tmp_path: Path, options: dict[str, float]
) -> None:
    """By the downloader, and by each call."""
    with pytest.raises(ConfigurationError):
        Downloader(**options)  # type: ignore[arg-type]
    async with FileServer(Version(BODY)) as server, downloads() as files:
        with pytest.raises(ConfigurationError):
            await files.file(server.url()).save(tmp_path, **options)  # type: ignore[arg-type]
    assert server.requests == []


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_a_download_timeout_is_a_positive_number(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="download_timeout"):
        Downloader(download_timeout=seconds)


async def test_an_early_end_counts_as_an_attempt_like_a_silence(tmp_path: Path) -> None:
    """All that breaks off has one budget."""
    plan: list[Script] = [
        Stall(1000, in_body=True),
        Close(0, in_body=True),
        Stall(0, in_body=True),
    ]
    async with (
        FileServer(Version(BODY), Lie(then="close")) as server,
        FaultProxy("127.0.0.1", server.port, plan) as proxy,
        downloads(stall_timeout=0.03) as files,
    ):
        assert (await files.file(proxy.url()).save(tmp_path)).attempts == 4
