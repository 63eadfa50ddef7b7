"""The fault proxy and the file server do what they are told, to the byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial

import httpx
import pytest

from .fault_proxy import (
    Close,
    Corrupt,
    Fault,
    FaultProxy,
    Plan,
    Refuse,
    Reset,
    Script,
    Stall,
    Trickle,
)
from .file_server import (
    BEFORE_LAST_CHUNK,
    CHUNK,
    DATE,
    IN_CHUNK,
    IN_TRAILER,
    FileServer,
    Lie,
    Request,
    Version,
    http_date,
    make_body,
)

BODY = make_body(10_000, seed=0)
OTHER = make_body(10_000, seed=1)


async def talk(port: int, *headers: str, method: str = "GET", close: bool = True) -> bytes:
    """All that a server says to one request, until it ends the connection in whatever way."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [*headers, *(["Connection: close"] if close else [])]
    head = "".join(f"{line}\r\n" for line in [f"{method} /x HTTP/1.1", "Host: x", *lines])
    writer.write(f"{head}\r\n".encode())
    heard = await everything(reader)
    await hang_up(writer)
    return heard


async def everything(reader: asyncio.StreamReader) -> bytes:
    heard = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := await reader.read(65536):
            heard += data
    return bytes(heard)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def parts(heard: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = heard.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines), body


async def told(server: FileServer, *headers: str) -> tuple[str, dict[str, str], bytes]:
    return parts(await talk(server.port, *headers))


# -- the bodies ------------------------------------------------------------------------------------


def test_bodies_of_seeds_in_a_row_differ_everywhere_and_are_their_own_prefixes() -> None:
    assert all(one != other for one, other in zip(BODY, OTHER, strict=True))
    for size in (0, 1, 3, 4, 9999):
        assert make_body(size, seed=0) == BODY[:size]
    assert make_body(1000, seed=300) != make_body(1000, seed=44)
    assert BODY[1:1001] not in (BODY[:1000], BODY[2:1002])


# -- the file server, honest -----------------------------------------------------------------------


async def test_an_honest_server_serves_the_whole_and_any_part() -> None:
    async with FileServer(Version(BODY)) as server, httpx.AsyncClient() as client:
        whole = await client.get(server.url())
        assert (whole.status_code, whole.content) == (200, BODY)
        assert whole.headers["accept-ranges"] == "bytes"
        assert whole.headers["date"] == http_date(DATE)
        for asked, first, last in [
            ("0-", 0, 9999),
            ("0-0", 0, 0),
            ("123-4567", 123, 4567),
            ("9999-", 9999, 9999),
            ("5000-99999", 5000, 9999),
            ("-10", 9990, 9999),
            ("-99999", 0, 9999),
        ]:
            part = await client.get(server.url(), headers={"Range": f"bytes={asked}"})
            assert part.status_code == 206
            assert part.headers["content-range"] == f"bytes {first}-{last}/10000"
            assert part.content == BODY[first : last + 1]
            assert part.headers["etag"] == whole.headers["etag"]
        for asked in ("10000-", "10000-10001", "-0"):
            none = await client.get(server.url(), headers={"Range": f"bytes={asked}"})
            assert (none.status_code, none.headers["content-range"]) == (416, "bytes */10000")
        for asked in ("bytes=5-4", "bytes=0-1,3-4", "lines=0-1", "bytes=-", "bytes=x-"):
            assert (await client.get(server.url(), headers={"Range": asked})).content == BODY
        head = await client.head(server.url())
        assert (head.headers["content-length"], head.content) == ("10000", b"")


async def test_if_range_holds_for_strong_validators_only() -> None:
    tag, date = '"one"', http_date(DATE - 86_400)
    for version, lie, if_range, status in [
        (Version(BODY, tag), Lie(), tag, 206),
        (Version(BODY, tag), Lie(), '"two"', 200),
        (Version(BODY, f"W/{tag}"), Lie(), f"W/{tag}", 200),
        (Version(BODY, f"W/{tag}"), Lie(), tag, 200),
        (Version(BODY, None), Lie(), date, 206),
        (Version(BODY, None), Lie(), http_date(DATE - 86_399), 200),
        (Version(BODY, None), Lie(headers={"Date": date}), date, 200),
        (Version(BODY, None, None), Lie(), date, 200),
        (Version(BODY, tag), Lie(if_range=False), '"two"', 206),
        (Version(BODY, tag), Lie(ranges=False), tag, 200),
    ]:
        async with FileServer(version, lie) as server:
            await talk(server.port, "Range: bytes=5-", f"If-Range: {if_range}")
            assert server.requests[0].status == status, (version, lie, if_range)


async def test_requests_are_recorded_with_what_must_not_be_in_them() -> None:
    async with FileServer(Version(BODY)) as server, httpx.AsyncClient() as client:
        await client.get(server.url(), headers={"Range": "bytes=1-", "If-Range": '"x"'})
        await client.get(server.url("/x?Token=t&y=1"), headers={"Authorization": "Basic x"})
        first, second = server.requests
        assert (first.number, first.method, first.target) == (1, "GET", "/files/backup.zip")
        assert (first.range, first.if_range, first.credentials) == ("bytes=1-", '"x"', set())
        assert second.credentials == {"token", "authorization"}
        assert server.sent == 20_000


# -- the file server, lying ------------------------------------------------------------------------


async def test_lies_about_validators_and_ranges_are_told_as_asked() -> None:
    async with FileServer([Version(BODY), Version(OTHER)]) as server:

        async def lied(lie: Lie, *headers: str) -> tuple[str, dict[str, str], bytes]:
            server.lies = lie
            return await told(server, *headers)

        asked = "Range: bytes=10-19"
        _, head, _ = await lied(Lie(headers={"Accept-Ranges": None, "ETag": 'W/"1"'}))
        assert "Accept-Ranges" not in head
        assert head["ETag"] == 'W/"1"'
        assert (await lied(Lie(ranges=False), asked))[2] == BODY
        assert (await lied(Lie(version=1), asked))[2] == OTHER[10:20]
        first, head, body = await lied(Lie(unasked=(3, 7)))
        assert (first[9:12], head["Content-Range"], body) == ("206", "bytes 3-7/10000", BODY[3:8])
        _, head, body = await lied(Lie(served=lambda first, last: (first + 1, last - 1)), asked)
        assert (head["Content-Range"], body) == ("bytes 11-18/10000", BODY[11:19])
        _, head, body = await lied(Lie(claim=lambda first, last, size: f"bytes {first}-x/*"), asked)
        assert (head["Content-Range"], body) == ("bytes 10-x/*", BODY[10:20])
        _, head, _ = await lied(Lie(claim=lambda *_: None), asked)
        assert "Content-Range" not in head
        _, head, body = await lied(Lie(multipart=True), asked)
        assert head["Content-Type"].startswith("multipart/byteranges")
        assert BODY[10:20] in body
        assert int(head["Content-Length"]) == len(body)
        first, head, _ = await lied(Lie(status=416), asked)
        assert (first[9:12], head["Content-Range"]) == ("416", "bytes */10000")
        _, head, _ = await lied(Lie(status=416, headers={"Content-Range": None}), asked)
        assert "Content-Range" not in head
        server.switch(1)
        assert (await lied(Lie()))[2] == OTHER


async def test_lies_can_depend_on_the_request() -> None:
    def lies(request: Request) -> Lie | None:
        return Lie(version=1) if request.number >= 2 else None

    async with FileServer([Version(BODY), Version(OTHER)], lies) as server:
        assert [(await told(server))[2] for _ in range(3)] == [BODY, OTHER, OTHER]
    async with FileServer(Version(BODY), {2: Lie(status=404)}) as server:
        await asyncio.gather(told(server), told(server), told(server))
        assert sorted(str(request.status) for request in server.requests) == ["200", "200", "404"]


async def test_statuses_and_redirects_come_with_their_headers() -> None:
    lie = Lie(status=503, headers={"Retry-After": http_date(DATE + 5)})
    async with FileServer(Version(BODY), {1: lie}) as server, httpx.AsyncClient() as client:
        busy = await client.get(server.url())
        assert (busy.status_code, busy.headers["retry-after"]) == (503, http_date(DATE + 5))
        server.lies = {2: Lie(status=302, headers={"Location": "/other"})}
        moved = await client.get(server.url(), follow_redirects=True)
        assert (moved.url.path, moved.content) == ("/other", BODY)


@pytest.mark.parametrize(
    ("lie", "body"),
    [
        (Lie(cut=-1), BODY[:-1]),
        (Lie(cut=0), b""),
        (Lie(extra=b"!"), BODY + b"!"),
        (Lie(framing="close"), BODY),
        (Lie(headers={"Content-Length": "9" * 20}), BODY),
        (Lie(body=b"<html>", headers={"Content-Type": "text/html"}), b"<html>"),
        (Lie(in_one=True), BODY),
    ],
)
async def test_lies_about_lengths_end_with_the_connection(lie: Lie, body: bytes) -> None:
    async with FileServer(Version(BODY), lie) as server:
        heard = parts(await talk(server.port, close=lie.in_one or lie.body is not None))
    assert heard[2] == body
    wanted = {"Content-Length": "6" if lie.body else "10000", **lie.headers}
    if lie.framing == "close":
        del wanted["Content-Length"]
    assert wanted.items() <= heard[1].items()
    assert ("Content-Length" in heard[1]) == ("Content-Length" in wanted)


async def test_a_short_body_can_leave_the_connection_open() -> None:
    async with FileServer(Version(BODY), Lie(cut=10, then="hold")) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(10) == BODY[:10]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.02)
        await hang_up(writer)


async def test_chunks_can_be_cut_anywhere() -> None:
    body = make_body(CHUNK + 1000, seed=0)
    whole = b"%x\r\n%b\r\n3e8\r\n%b\r\n0\r\nX-End: yes\r\n\r\n" % (
        CHUNK,
        body[:CHUNK],
        body[CHUNK:],
    )
    async with FileServer(Version(body)) as server, httpx.AsyncClient() as client:
        server.lies = Lie(framing="chunked")
        assert (await client.get(server.url())).content == body
        for cut, end in [
            (None, b"yes\r\n\r\n"),
            (IN_TRAILER, b"\r\nX-End:"),
            (BEFORE_LAST_CHUNK, body[-5:] + b"\r\n"),
            (IN_CHUNK, body[-5:-1]),
        ]:
            server.lies = Lie(framing="chunked", cut=cut)
            heard = parts(await talk(server.port))[2]
            assert heard == whole[:cut]
            assert heard.endswith(end), cut
            if cut is not None:
                with pytest.raises(httpx.RemoteProtocolError):
                    await client.get(server.url())


async def test_heads_can_be_odd() -> None:
    turns = 0

    async def drip() -> None:
        nonlocal turns
        turns += 1

    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    lie = Lie(interim=[interim], drip=drip, more_headers=[("Content-Length", "9")], then="close")
    async with FileServer(Version(BODY), lie) as server:
        heard = await talk(server.port)
        assert heard.startswith(interim + b"HTTP/1.1 200")
        assert heard.count(b"Content-Length") == 2
        assert turns == len(heard) - len(interim) - len(BODY)
        server.lies = Lie(interim=[interim] * 3)
        async with httpx.AsyncClient() as client:
            assert (await client.get(server.url())).content == BODY


# -- the proxy -------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def proxied(plan: Plan, body: bytes = BODY) -> AsyncIterator[FaultProxy]:
    async with (
        FileServer(Version(body)) as server,
        FaultProxy("127.0.0.1", server.port, plan) as proxy,
    ):
        yield proxy


async def test_without_a_plan_everything_passes_and_is_counted() -> None:
    async with proxied(()) as proxy, httpx.AsyncClient() as client:
        for _ in range(3):
            assert (await client.get(proxy.url())).content == BODY
        assert proxy.connections == 1
        assert proxy.acted == []
        whole = await talk(proxy.port)
        await proxy.until(lambda: proxy.sent > 3 * len(whole))
        assert proxy.connections == 2
        assert proxy.received > 100
        assert await asyncio.gather(*(talk(proxy.port) for _ in range(20))) == [whole] * 20


@pytest.mark.parametrize("kind", [Close, Reset])
async def test_a_cut_comes_after_exactly_so_many_bytes(kind: type[Close | Reset]) -> None:
    async with proxied(()) as proxy:
        whole = await talk(proxy.port)
    head = len(whole) - len(BODY)
    size = len(whole)
    plan: list[Fault] = [kind(after) for after in (0, 1, size - 1, size, size + 1)]
    plan += [kind(after, in_body=True) for after in (0, 1, 9999)]
    lengths = [0, 1, size - 1, size, size, head, head + 1, head + 9999]
    async with proxied(plan) as proxy:
        for length in lengths:
            assert await talk(proxy.port) == whole[:length]
        assert await talk(proxy.port) == whole
        assert [number for number, _ in proxy.acted] == [1, 2, 3, 4, 6, 7, 8]


async def test_a_large_body_is_cut_to_the_byte_too() -> None:
    body = make_body(3_000_000, seed=0)
    plan: list[Fault] = [Reset(2_345_678, in_body=True), Close(1_234_567, in_body=True)]
    async with proxied(plan, body) as proxy:
        for length in (2_345_678, 1_234_567):
            assert parts(await talk(proxy.port))[2] == body[:length]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Close(5000), httpx.RemoteProtocolError),
        (Reset(5000), httpx.ReadError),
        (Refuse(), httpx.ReadError),
        (Reset(0), httpx.ReadError),
        (Close(0), httpx.RemoteProtocolError),
    ],
)
async def test_fin_and_rst_are_what_they_say(fault: Fault, error: type[Exception]) -> None:
    async with proxied([fault]) as proxy:
        async with httpx.AsyncClient() as client:
            with pytest.raises(error):
                await client.get(proxy.url())
            assert proxy.acted == [(1, fault)]
            assert (await client.get(proxy.url())).content == BODY
        assert proxy.received > 0


async def test_a_refused_connection_never_reaches_the_server() -> None:
    async with FileServer(Version(BODY)) as server:
        async with FaultProxy("127.0.0.1", server.port, [Refuse()]) as proxy:
            assert await talk(proxy.port) == b""
        assert server.requests == []


async def test_a_stall_lasts_until_its_event_or_until_somebody_closes() -> None:
    go_on = asyncio.Event()
    async with proxied([Stall(100, until=go_on), Stall(100), Stall(100)]) as proxy:
        waiting = asyncio.create_task(talk(proxy.port))
        await proxy.until(lambda: len(proxy.acted) == 1)
        assert proxy.sent == 100
        go_on.set()
        assert (await waiting).endswith(BODY)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert len(await reader.readexactly(100)) == 100
        await hang_up(writer)
        left = asyncio.create_task(talk(proxy.port))
        await proxy.until(lambda: len(proxy.acted) == 3)
    assert len(await left) == 100


async def test_corrupted_bytes_are_other_bytes_and_all_the_rest_is_right() -> None:
    plan: Sequence[Script] = [
        Corrupt(50, in_body=True, count=3),
        Corrupt(50, in_body=True, data=BODY[:5]),
        (Corrupt(0, in_body=True), Corrupt(9999, in_body=True), Close(0)),
    ]
    flipped = bytes(byte ^ 0xFF for byte in BODY)
    async with proxied(plan) as proxy:
        bodies = [parts(await talk(proxy.port))[2] for _ in range(3)]
    assert bodies == [
        BODY[:50] + flipped[50:53] + BODY[53:],
        BODY[:50] + BODY[:5] + BODY[55:],
        flipped[:1] + BODY[1:-1] + flipped[-1:],
    ]


async def test_a_trickle_waits_before_each_piece() -> None:
    steps = asyncio.Semaphore(0)

    def arrived(count: int) -> bool:
        return proxy.sent == count

    async with proxied([Trickle(9990, in_body=True, pause=steps.acquire), Trickle()]) as proxy:
        waiting = asyncio.create_task(talk(proxy.port))
        await proxy.until(lambda: len(proxy.acted) == 1)
        before = proxy.sent
        for step in range(1, 11):
            steps.release()
            await proxy.until(partial(arrived, before + step))
        steps.release()  # not needed: nothing is left
        assert (await waiting).endswith(BODY)
        assert (await talk(proxy.port)).endswith(BODY)


async def test_a_plan_may_depend_on_the_number_of_the_connection() -> None:
    async with proxied(lambda number: Close(0) if number % 2 else None) as proxy:
        heard = [await talk(proxy.port) for _ in range(4)]
    assert [bool(each) for each in heard] == [False, True, False, True]


async def test_a_server_that_is_not_there_is_a_reset(unused_tcp_port: int) -> None:
    async with FaultProxy("127.0.0.1", unused_tcp_port) as proxy:
        assert await talk(proxy.port) == b""


async def test_what_ends_in_the_middle_leaves_nothing() -> None:
    """Checked by the fixtures that look for tasks and sockets."""
    body = make_body(20_000_000, seed=0)
    async with FileServer(Version(body)) as server:
        async with FaultProxy("127.0.0.1", server.port, [None, Stall(5)]) as proxy:
            connections = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(3)]
            for _, writer in connections[:2]:
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await proxy.until(lambda: len(proxy.acted) == 1 and proxy.sent > 100_000)
        direct = await asyncio.open_connection("127.0.0.1", server.port)
        direct[1].write(b"GET / HTTP/1.1\r\n\r\n")
        assert await direct[0].read(10)
    for _, writer in [*connections, direct]:
        await hang_up(writer)
