"""Segments: several connections fetch one file, and it is right, or it is not there."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from af10_async import (
    ChecksumMismatchError,
    ConfigurationError,
    DownloadRefusedError,
    Progress,
    SavedFile,
)
from af10_async.sandbox import Fault, Sandbox
from af10_async.saving import MAX_SEGMENTS

from ..conftest import ClientMaker, Tls
from .fault_proxy import Close, FaultProxy, Plan, Reset, Script, Stall, Trickle
from .file_server import FileServer, Lie, Request, Version, make_body
from .tools import (
    MIB,
    NAME,
    Time,
    cancelled,
    downloads,
    has_received,
    names,
    ranges,
    real_downloads,
    until,
)

FILE = make_body(6 * MIB, seed=0)
OTHER = make_body(6 * MIB, seed=1)
LARGE = make_body(8 * MIB + 5, seed=2)
PIECE = 8 * 1024
ACCOUNT = ("base_url", "api_key", "username", "password")


def start_of(request: Request) -> int:
    """The first byte that was asked for."""
    return int((request.range or "bytes=0-").removeprefix("bytes=").partition("-")[0])


@asynccontextmanager
async def lined(
    body: bytes = FILE, plan: Plan = (), lies: Any = None
) -> AsyncIterator[tuple[FileServer, FaultProxy]]:
    """A server, and the line to it."""
    server = FileServer([Version(body), Version(OTHER)], lies or Lie())
    async with server, FaultProxy("127.0.0.1", server.port, plan) as proxy:
        yield server, proxy


def check(saved: SavedFile, folder: Path, body: bytes = FILE) -> None:
    """It is right, and alone."""
    assert saved.path.read_bytes() == body
    assert (saved.size, saved.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert names(folder) == [NAME]


# -- at the same time ------------------------------------------------------------------------------


@pytest.mark.parametrize("segments", [2, 3, 6])
async def test_so_many_connections_are_open_at_the_same_time(tmp_path: Path, segments: int) -> None:
    """None of them has its part before all have asked for theirs."""
    go = asyncio.Event()
    plan: list[Script] = [Stall(10, in_body=True, until=go) for _ in range(segments)]
    seen: list[Progress] = []
    async with lined(plan=plan) as (server, proxy), downloads() as files:
        task = asyncio.create_task(
            files.file(proxy.url()).save(tmp_path, segments=segments, progress=seen.append)
        )
        await proxy.until(lambda: len(proxy.acted) == segments)
        size = len(FILE) // segments
        assert sorted(map(start_of, server.requests)) == [size * n for n in range(segments)]
        assert ranges(server.requests)[0] is None, "the first one asks for the file"
        assert proxy.connections == segments
        go.set()
        saved = await task
    check(saved, tmp_path)
    assert {each.if_range for each in server.requests[1:]} == {Version(FILE).tag()}
    assert saved.attempts == 1
    assert proxy.connections == segments
    received = [each.received for each in seen]
    assert received == sorted(received)
    assert (received[0], received[-1]) == (0, len(FILE))


async def test_progress_says_which_connection_brought_it(tmp_path: Path) -> None:
    seen: list[Progress] = []
    ticks = count()
    runtime = replace(Time().runtime(), monotonic=lambda: float(next(ticks)))
    async with lined() as (_, proxy), downloads(runtime=runtime, min_speed=0) as files:
        await files.file(proxy.url()).save(tmp_path, segments=3, progress=seen.append)
    assert {each.segment for each in seen} == {0, 1, 2}


async def test_bytes_are_where_they_belong_in_whichever_order_they_come(tmp_path: Path) -> None:
    """The last part first, the first one last; all of it is hashed all the same."""
    events = [asyncio.Event() for _ in range(3)]
    plan: list[Script] = [Stall(0, in_body=True, until=event) for event in events]
    async with lined(plan=plan) as (server, proxy), downloads() as files:
        task = asyncio.create_task(files.file(proxy.url()).save(tmp_path, segments=3))
        await proxy.until(lambda: len(proxy.acted) == 3)
        for event in reversed(events):
            event.set()
            await asyncio.sleep(0.03)
        check(await task, tmp_path)
    assert len(server.requests) <= 5


@pytest.mark.parametrize("size", [0, 1, 1000, MIB, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1])
async def test_a_small_file_has_as_many_connections_as_are_worth_it(
    tmp_path: Path, size: int
) -> None:
    body = make_body(size, seed=4)
    async with FileServer(Version(body)) as server, downloads() as files:
        check(await files.file(server.url()).save(tmp_path, segments=8), tmp_path, body)
    assert len(server.requests) == 1 if size < 2 * MIB else len(server.requests) >= 2


@pytest.mark.parametrize("segments", [0, -1, 65, 1.5, "8", "many", None, [2]])
async def test_a_number_of_segments_that_makes_no_sense_is_refused(
    tmp_path: Path, segments: Any
) -> None:
    async with FileServer(Version(FILE)) as server, downloads() as files:
        with pytest.raises(ConfigurationError, match="segments must be"):
            await files.file(server.url()).save(tmp_path, segments=segments)
    assert server.requests == []
    assert names(tmp_path) == []


# -- where parts cannot be asked for ---------------------------------------------------------------


@pytest.mark.parametrize("segments", [4, "auto"])
@pytest.mark.parametrize(
    ("lie", "most"),
    [
        (Lie(headers={"Accept-Ranges": "none"}), 1),
        (Lie(headers={"ETag": None, "Last-Modified": None}), 1),
        (Lie(headers={"ETag": 'W/"x"', "Last-Modified": None}), 1),
        (Lie(framing="chunked"), 1),
        (Lie(ranges=False), 5),
        (Lie(ranges=False, headers={"Accept-Ranges": None}), 5),
    ],
    ids=["denied", "no validator", "weak", "no length", "200", "200, not announced"],
)
async def test_a_server_without_ranges_gives_the_file_to_one_connection(
    tmp_path: Path, lie: Lie, most: int, segments: Any
) -> None:
    """Silently: it is no failure."""
    async with FileServer(Version(FILE), lie) as server, downloads() as files:
        saved = await files.file(server.url()).save(tmp_path, segments=segments)
    check(saved, tmp_path)
    assert len(server.requests) <= most
    assert saved.attempts == 1


async def test_ranges_that_are_not_announced_are_used_where_they_work(tmp_path: Path) -> None:
    lie = Lie(headers={"Accept-Ranges": None})
    async with FileServer(Version(FILE), lie) as server, downloads() as files:
        check(await files.file(server.url()).save(tmp_path, segments=3), tmp_path)
    assert len(server.requests) >= 3


@pytest.mark.parametrize(
    "lie",
    [
        Lie(status=416),
        Lie(multipart=True),
        Lie(claim=lambda first, last, size: None),
        Lie(claim=lambda first, last, size: f"bytes {first}-{last}/{size + 1}"),
        Lie(served=lambda first, last: (first + 1, last)),
        Lie(headers={"ETag": '"other"'}),
        Lie(version=1, if_range=False),
    ],
)
async def test_a_part_that_does_not_fit_starts_the_file_over(tmp_path: Path, lie: Lie) -> None:
    """Once; the second time its server is right."""
    struck = False

    def lies(request: Request) -> Lie | None:
        nonlocal struck
        if request.range is None or struck:
            return None
        struck = True
        return lie

    async with lined(lies=lies) as (server, proxy), downloads() as files:
        check(await files.file(proxy.url()).save(tmp_path, segments=3), tmp_path)
    assert ranges(server.requests).count(None) == 2


async def test_a_file_that_changes_while_its_parts_are_fetched_is_the_new_one(
    tmp_path: Path,
) -> None:
    def lies(request: Request) -> Lie:
        return Lie(version=min(1, request.number - 1))

    async with lined(lies=lies) as (_, proxy), downloads() as files:
        check(await files.file(proxy.url()).save(tmp_path, segments=3), tmp_path, OTHER)


async def test_a_server_that_stops_sending_parts_gives_no_file_with_a_hole(
    tmp_path: Path,
) -> None:
    """One has ended, one is cut and gets the whole file for its next part, one still fetches."""
    events = [asyncio.Event() for _ in range(3)]
    plan: list[Script] = [
        Stall(MIB, in_body=True, until=events[0]),
        [Stall(MIB, in_body=True, until=events[1]), Close(MIB, in_body=True)],
        Stall(MIB, in_body=True, until=events[2]),
    ]
    seen: list[int] = []
    async with (
        lined(plan=plan, lies={4: Lie(ranges=False)}) as (server, proxy),
        real_downloads() as files,
    ):
        task = asyncio.create_task(
            files.file(proxy.url()).save(
                tmp_path, segments=3, progress=lambda each: seen.append(each.received)
            )
        )
        await until(lambda: bool(seen) and seen[-1] == 3 * MIB)
        events[0].set()
        await until(lambda: seen[-1] == 4 * MIB)
        await asyncio.sleep(0.05)  # the first one finds nothing left to do
        events[1].set()
        await until(lambda: len(server.requests) == 4)
        await asyncio.sleep(0.05)  # and the second one hears of the whole file
        events[2].set()
        saved = await task
    check(saved, tmp_path)


# -- interrupted -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("kind", [Reset, Close, Stall])
async def test_each_segment_goes_on_where_it_was_cut_alone(
    tmp_path: Path, kind: type[Reset | Close | Stall], number: int
) -> None:
    """The others know nothing of it."""
    cut, go = MIB + 77, asyncio.Event()
    plan: list[Script] = [Stall(0, in_body=True, until=go) for _ in range(3)]
    plan[number - 1] = kind(cut, in_body=True)
    async with (
        lined(plan=plan) as (server, proxy),
        downloads(stall_timeout=1.0 if kind is not Stall else 0.2) as files,
    ):
        task = asyncio.create_task(files.file(proxy.url()).save(tmp_path, segments=3))
        await until(lambda: len(proxy.acted) == 3)
        first = sorted(map(start_of, server.requests))
        if kind is not Stall:
            await until(lambda: len(server.requests) == 4)
        go.set()
        saved = await task
    check(saved, tmp_path)
    assert first == [0, 2 * MIB, 4 * MIB]
    assert any(start_of(each) % (2 * MIB) == cut for each in server.requests[3:])
    assert server.requests[3].if_range == Version(FILE).tag()
    assert saved.attempts >= 2


async def test_what_every_segment_had_is_gone_on_with_by_the_next_save(tmp_path: Path) -> None:
    """With another number of them, and with what was cancelled in the middle of each."""
    plan: list[Script] = [Stall(MIB, in_body=True) for _ in range(3)]
    seen: list[Progress] = []
    async with lined(plan=plan) as (server, proxy), real_downloads() as files:
        received: list[int] = []
        task = asyncio.create_task(
            files.file(proxy.url()).save(
                tmp_path, segments=3, progress=lambda each: received.append(each.received)
            )
        )
        await until(lambda: bool(received) and received[-1] == 3 * MIB)
        await cancelled(task)
        assert len(names(tmp_path)) == 2
        saved = await files.file(proxy.url()).save(tmp_path, segments=2, progress=seen.append)
    check(saved, tmp_path)
    assert saved.resumed_from == 3 * MIB
    asked = sorted(start_of(each) for each in server.requests[3:])
    assert asked == [MIB, 3 * MIB, 5 * MIB]
    assert (seen[0].received, seen[0].total) == (3 * MIB, 6 * MIB)


@pytest.mark.parametrize("segments", [1, 4])
async def test_what_one_left_is_gone_on_with_by_several_and_the_other_way_round(
    tmp_path: Path, segments: int
) -> None:
    other = 5 - segments
    plan: list[Script] = [Stall(MIB, in_body=True) for _ in range(segments)]
    async with lined(LARGE, plan) as (_, proxy), downloads() as files:
        task = asyncio.create_task(files.file(proxy.url()).save(tmp_path, segments=segments))
        await proxy.until(lambda: len(proxy.acted) == segments)
        await until(has_received(tmp_path, MIB))
        await asyncio.sleep(0.15)  # what is in a block is handed on
        await cancelled(task)
        saved = await files.file(proxy.url()).save(tmp_path, segments=other)
    check(saved, tmp_path, LARGE)
    assert saved.resumed_from == segments * MIB


async def test_cancelling_closes_every_connection(tmp_path: Path) -> None:
    plan: list[Script] = [Stall(100, in_body=True) for _ in range(4)]
    ended: list[bool] = []
    async with lined(LARGE, plan) as (server, proxy), downloads() as files:
        task = asyncio.create_task(files.file(proxy.url()).save(tmp_path, segments=4))
        await proxy.until(lambda: len(proxy.acted) == 4)
        tasks = {*server._tasks}
        assert len(tasks) == 4
        await cancelled(task)
        await asyncio.wait(tasks, timeout=5)
        ended += [each.done() for each in tasks]
    assert ended == [True] * 4


async def test_a_save_in_segments_can_be_cancelled_at_every_turn_of_the_loop(
    tmp_path: Path,
) -> None:
    """And the next one goes on from there."""
    async with FileServer(Version(FILE)) as server, downloads() as files:
        for turns in range(0, 240, 24):
            folder = tmp_path / str(turns)
            task = asyncio.create_task(files.file(server.url()).save(f"{folder}/", segments=3))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                check(task.result(), folder)
                break
            check(await files.file(server.url()).save(f"{folder}/", segments=2), folder)


async def test_a_segment_that_is_refused_leaves_its_part_to_the_others(tmp_path: Path) -> None:
    """A server may take only so many connections."""

    refused: list[int] = []

    def lies(request: Request) -> Lie | None:
        if start_of(request) < 4 * MIB or refused:
            return None
        refused.append(request.number)
        return Lie(status=403)

    async with lined(lies=lies) as (server, proxy), downloads() as files:
        check(await files.file(proxy.url()).save(tmp_path, segments=3), tmp_path)
    assert server.requests[refused[0] - 1].status == 403


async def test_when_every_segment_is_refused_what_is_here_is_kept(tmp_path: Path) -> None:
    def lies(request: Request) -> Lie | None:
        return Lie(status=403) if request.range else Lie(cut=MIB)

    async with lined(lies=lies) as (server, proxy), downloads() as files:
        with pytest.raises(DownloadRefusedError) as caught:
            await files.file(proxy.url()).save(tmp_path, segments=3)
        assert caught.value.status == 403
        server.lies = Lie()
        saved = await files.file(proxy.url()).save(tmp_path)
    check(saved, tmp_path)
    assert saved.resumed_from == MIB


async def test_attempts_without_progress_are_bounded_for_each_segment(
    tmp_path: Path,
) -> None:
    def lies(request: Request) -> Lie | None:
        return Lie(cut=0) if request.range else Lie(cut=MIB)

    async with lined(lies=lies) as (server, proxy), downloads() as files:
        with pytest.raises(Exception, match="did not arrive whole"):
            await files.file(proxy.url()).save(tmp_path, segments=3)
    assert len(server.requests) <= 1 + 3 * 4


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_file_in_segments_is_checked_as_a_whole(tmp_path: Path, wanted: bool) -> None:
    """A wrong one is fetched once more, since its parts may be the reason."""
    sha256 = hashlib.sha256(FILE if wanted else OTHER).hexdigest()
    async with lined() as (server, proxy), downloads() as files:
        file = files.file(proxy.url())
        if wanted:
            check(await file.save(tmp_path, segments=3, sha256=sha256), tmp_path)
            assert ranges(server.requests).count(None) == 1
            return
        with pytest.raises(ChecksumMismatchError):
            await file.save(tmp_path, segments=3, sha256=sha256)
    assert ranges(server.requests).count(None) == 2
    assert names(tmp_path) == []


async def test_a_stale_address_is_asked_for_again_once_for_all_segments(
    make_client: ClientMaker, tls: Tls, tmp_path: Path
) -> None:
    """However many connections find out at the same time."""
    async with Sandbox(callback_ca=tls.ca, file_size=6 * MIB) as sandbox:
        sandbox.faults.add(Fault.stale_file(403, skip=1))
        account = {name: getattr(sandbox, name) for name in ACCOUNT}
        async with make_client(**account) as af10:
            saved = await (await af10.backup_owner()).save(tmp_path, segments=3)
        assert saved.sha256 == sandbox.archive_sha256(sandbox.jobs[0])
        assert sandbox.count("GET", "/webhook") == 2


# -- who helps whom --------------------------------------------------------------------------------


async def test_a_slow_segment_is_helped_by_those_who_are_done(tmp_path: Path) -> None:
    """Its piece is split, as long as both halves are worth a connection."""
    go = asyncio.Event()
    plan: list[Script] = [None, Stall(1000, in_body=True, until=go)]
    async with lined(LARGE, plan) as (server, proxy), downloads() as files:
        task = asyncio.create_task(files.file(proxy.url()).save(tmp_path, segments=2))
        await until(lambda: len(server.requests) >= 4)
        go.set()
        saved = await task
    check(saved, tmp_path, LARGE)
    half = -(-len(LARGE) // 2)
    slow = next(each for each in server.requests if start_of(each) == half)
    helped = [start_of(each) for each in server.requests if start_of(each) > half]
    assert slow.range == f"bytes={half}-{len(LARGE) - 1}"
    assert helped[0] == (half + 1000 + len(LARGE)) // 2 or helped[0] == (half + len(LARGE)) // 2
    assert min(helped) >= half + MIB - 1000, "what is left is not worth another connection"
    assert saved.attempts == 1


class Valve:
    """Lets pieces of a body pass, so many at each measurement, whichever connection they are of."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many connections have something to send."""
        return len(self._waiting)

    async def wait(self) -> None:
        """What a connection does before each piece."""
        self._waiting.append(asyncio.get_running_loop().create_future())
        await self._waiting[-1]

    def turn(self) -> None:
        """Let one piece of each pass, but no more than so many of all."""
        for _ in range(min(self.waiting, self._most or self.waiting)):
            self._waiting.popleft().set_result(None)


@pytest.mark.parametrize(
    ("most", "numbers"),
    [(1, [1, 2]), (2, [1, 2, 4]), (4, [1, 2, 4, 8]), (None, [1, 2, 4, 8])],
)
async def test_auto_doubles_its_connections_as_long_as_that_makes_it_faster(
    tmp_path: Path, most: int | None, numbers: list[int]
) -> None:
    """The server sends pieces of no more than `most` connections at a time."""
    time, valve = Time(), Valve(most)
    received, found = [0], list[int]()

    async def measured(seconds: float) -> None:
        """The time in which some pieces of each connection come."""
        wanted = numbers[len(found)]
        await until(lambda: valve.waiting == wanted)
        start, before, sent = time.seconds, received[0], proxy.sent
        for _ in range(8):  # the first piece of a connection may be a short one
            valve.turn()
            await until(lambda: valve.waiting == wanted)
        while received[0] < before + proxy.sent - sent:
            time.seconds += 0.1  # for progress to be told
            await asyncio.sleep(0.01)
        time.seconds = start + 1e6
        found.append(wanted)

    runtime = replace(time.runtime(), sleep=measured)
    plan = [Trickle(0, in_body=True, pause=valve.wait, size=PIECE)] * 50
    body = make_body(16 * MIB, seed=5)
    async with lined(body, plan) as (_, proxy), downloads(runtime=runtime, min_speed=0) as files:
        task = asyncio.create_task(
            files.file(proxy.url()).save(
                tmp_path,
                segments="auto",
                progress=lambda each: received.__setitem__(0, each.received),
            )
        )
        await until(lambda: len(found) == len(numbers) - (numbers[-1] == MAX_SEGMENTS))
        await until(lambda: proxy.connections == numbers[-1])
        await asyncio.sleep(0.05)  # nor will there be more
        assert proxy.connections == numbers[-1]
        await cancelled(task)


async def test_auto_needs_one_connection_for_what_is_here_soon(tmp_path: Path) -> None:
    async with FileServer(Version(FILE)) as server, real_downloads() as files:
        check(await files.file(server.url()).save(tmp_path, segments="auto"), tmp_path)
    assert len(server.requests) == 1
