"""The way of the bytes: from the socket into the file, however they come and whoever is slow."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import httpx
import httpx2
import pytest

from af10_async import (
    AF10Client,
    Downloader,
    IncompleteDownloadError,
    RemoteFile,
    RetryPolicy,
    TLSError,
)
from af10_async import file_reply as reply_room
from af10_async.body import BLOCK_SIZE, BLOCKS
from af10_async.connections import AsyncioStream
from af10_async.file_reply import DIRECT_FROM
from af10_async.partial_file import PartialFile
from af10_async.sandbox import Sandbox

from ..conftest import Tls
from .fault_proxy import Close, FaultProxy, Reset, Stall
from .file_server import FileServer, Lie, Lies, Version, make_body
from .tools import BODY, LARGE, MIB, NAME, Time, downloads, names, ranges, until

EDGES = [DIRECT_FROM - 1, DIRECT_FROM, DIRECT_FROM + 1]
SIZES = [*EDGES, 2 * BLOCK_SIZE - 1, 2 * BLOCK_SIZE]
WAYS = ["save", "read", "iterate"]


async def fetched(file: RemoteFile, way: str, folder: Path) -> bytes:
    match way:
        case "save":
            return (await file.save(folder)).path.read_bytes()
        case "read":
            return await file.read()
        case _:
            return b"".join([chunk async for chunk in file])


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the bodies that were taken straight off the socket."""
    found: list[int] = []
    real = AsyncioStream.take_body

    def take_body(self: AsyncioStream, length: int, *others: Any) -> Any:
        body = real(self, length, *others)
        if body is not None:
            found.append(length)
        return body

    monkeypatch.setattr(AsyncioStream, "take_body", take_body)
    return found


@pytest.fixture
def all_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small bodies are taken off the socket too, so that many can be tried."""
    monkeypatch.setattr(reply_room, "DIRECT_FROM", 1)


# -- how an answer comes ---------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("in_one", [False, True])
async def test_a_body_of_any_size_arrives_whole(
    tmp_path: Path, taken: list[int], way: str, size: int, in_one: bool
) -> None:
    """Also when it comes together with its head."""
    body = make_body(size, seed=0)
    async with FileServer(Version(body), Lie(in_one=in_one)) as server, downloads() as files:
        assert await fetched(files.file(server.url()), way, tmp_path) == body
    assert len(server.requests) == 1
    assert taken == ([size] if size >= DIRECT_FROM else [])


@contextlib.asynccontextmanager
async def pieces(make: Callable[[int], list[bytes]]) -> AsyncIterator[str]:
    """A server whose nth answer comes in these pieces, each in a packet of its own."""
    number = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await reader.readuntil(b"\r\n\r\n")
            number += 1
            for piece in make(number - 1):
                writer.write(piece)
                await writer.drain()
                for _ in range(3):  # for the other side to read it
                    await asyncio.sleep(0)
            await reader.read()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/files/{NAME}"


def answer(body: bytes, *headers: str) -> bytes:
    lines = [f"Content-Length: {len(body)}", "Content-Type: application/zip", *headers]
    return ("\r\n".join(["HTTP/1.1 200 OK", *lines]) + "\r\n\r\n").encode() + body


@pytest.mark.usefixtures("all_direct")
@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"])
async def test_a_head_may_be_split_at_every_byte(taken: list[int], interim: bytes) -> None:
    body = make_body(60, seed=0)
    whole = interim + answer(body)

    def split(number: int) -> list[bytes]:
        return [whole[:number], whole[number:]]

    async with pieces(split) as url, downloads() as files:
        for _ in range(len(whole)):
            assert await files.file(url).read() == body
    assert len(taken) == len(whole)


@pytest.mark.usefixtures("all_direct")
async def test_an_answer_may_come_byte_by_byte(taken: list[int]) -> None:
    body = make_body(60, seed=0)
    whole = answer(body)

    def split(number: int) -> list[bytes]:
        return [whole[at : at + 1] for at in range(len(whole))]

    async with pieces(split) as url, downloads() as files:
        assert await files.file(url).read() == body
    assert taken == [60]


@pytest.mark.parametrize("way", WAYS)
async def test_what_comes_before_the_head_is_passed_over(
    tmp_path: Path, taken: list[int], way: str
) -> None:
    interim = [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", b"HTTP/1.1 102 P\r\n\r\n"]
    lie = Lie(interim=interim, in_one=True)
    async with FileServer(Version(LARGE), lie) as server, downloads() as files:
        assert await fetched(files.file(server.url()), way, tmp_path) == LARGE
    assert taken == [len(LARGE)]


@pytest.mark.usefixtures("all_direct")
async def test_a_head_may_end_its_lines_with_bare_line_feeds(taken: list[int]) -> None:
    body = make_body(60, seed=0) + b"\n\n\r\n\r\n"
    head, end, rest = answer(body).partition(b"\r\n\r\n")
    loose = head.replace(b"\r\n", b"\n") + b"\n\n" + rest
    assert end
    async with pieces(lambda number: [loose]) as url, downloads() as files:
        assert await files.file(url).read() == body
    assert len(taken) <= 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_chunked_body_is_left_to_http(tmp_path: Path, taken: list[int], way: str) -> None:
    """Also as the answer to a range."""
    lies = {1: Lie(framing="chunked", cut=2 * MIB), 2: Lie(framing="chunked")}
    async with FileServer(Version(LARGE), lies) as server, downloads() as files:
        assert await fetched(files.file(server.url()), way, tmp_path) == LARGE
    assert [each.status for each in server.requests] == [200, 206]
    assert taken == []


async def test_a_part_is_taken_off_the_socket_too(tmp_path: Path, taken: list[int]) -> None:
    async with FileServer(Version(LARGE), {1: Lie(cut=MIB)}) as server, downloads() as files:
        assert (await files.file(server.url()).save(tmp_path)).path.read_bytes() == LARGE
    assert taken == [len(LARGE), len(LARGE) - MIB]


@pytest.mark.parametrize("more", [("Content-Length", "5"), ("Transfer-Encoding", "chunked")])
async def test_a_body_of_two_lengths_is_never_taken(
    tmp_path: Path, taken: list[int], more: tuple[str, str]
) -> None:
    async with FileServer(Version(LARGE), Lie(more_headers=[more])) as server, downloads() as files:
        with pytest.raises(Exception, match=r"broke|not the file|whole"):
            await files.file(server.url()).save(tmp_path)
    assert taken == []
    assert not (tmp_path / NAME).exists()


# -- one byte too many, or too few -----------------------------------------------------------------


@pytest.mark.parametrize("then", ["close", "hold"])
@pytest.mark.parametrize("size", SIZES)
async def test_one_byte_too_many_is_noticed(size: int, then: Any) -> None:
    lie = Lie(extra=b"x", then=then, in_one=True)
    async with (
        FileServer(Version(make_body(size, 0)), lie) as server,
        downloads(stall_timeout=0.3) as files,
    ):
        with pytest.raises(IncompleteDownloadError):
            await files.file(server.url()).read()


@pytest.mark.parametrize("body", [BODY, LARGE], ids=["small", "large"])
async def test_a_connection_on_which_too_much_came_is_not_used_again(body: bytes) -> None:
    """Else the rest is taken for the answer to the next request."""
    wrong = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: application/zip\r\n\r\nwrong"
    lies = {1: Lie(extra=wrong, then="keep", in_one=True)}
    once = RetryPolicy(attempts=1)
    async with FileServer(Version(body), lies) as server, downloads(retries=once) as files:
        with pytest.raises(IncompleteDownloadError):
            await files.file(server.url()).read()
        assert await files.file(server.url("/another.zip")).read() == body


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", SIZES)
async def test_one_byte_too_few_is_fetched_alone(tmp_path: Path, way: str, size: int) -> None:
    body = make_body(size, 0)
    async with FileServer(Version(body), {1: Lie(cut=-1)}) as server, downloads() as files:
        assert await fetched(files.file(server.url()), way, tmp_path) == body
    asked = (server.requests[1].range or "").removeprefix("bytes=").partition("-")[0]
    assert (len(server.requests), asked) == (2, str(size - 1))


@pytest.mark.parametrize("size", EDGES)
@pytest.mark.parametrize("kind", [Reset, Close])
async def test_a_connection_that_breaks_after_the_last_byte_does_no_harm(
    tmp_path: Path, kind: type[Reset | Close], size: int
) -> None:
    body = make_body(size, 0)
    async with (
        FileServer(Version(body)) as server,
        FaultProxy("127.0.0.1", server.port, [kind(size, in_body=True)]) as proxy,
        downloads() as files,
    ):
        saved = await files.file(proxy.url()).save(tmp_path)
    assert saved.path.read_bytes() == body
    assert (saved.attempts, len(server.requests)) == (1, 1)


# -- who is slow -----------------------------------------------------------------------------------


ROOM = (BLOCKS + 2) * BLOCK_SIZE + 24 * MIB
"""What may be under way: the blocks, and what two sockets of the system hold."""


async def test_a_server_has_to_wait_for_a_slow_reader() -> None:
    """So memory stays flat, however large the file is."""
    body = bytes(96 * MIB)
    async with (
        FileServer(Version(body)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        downloads() as files,
    ):
        chunks = aiter(files.file(proxy.url()))
        received = len(await anext(chunks))
        await stands_still(proxy)
        assert proxy.sent - received < ROOM
        async for chunk in chunks:
            received += len(chunk)
    assert received == len(body)


async def test_a_server_has_to_wait_for_a_slow_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    real = PartialFile.write

    def write(self: PartialFile, data: memoryview, offset: int) -> None:
        go.wait(30)
        real(self, data, offset)

    monkeypatch.setattr(PartialFile, "write", write)
    body = bytes(96 * MIB)
    async with (
        FileServer(Version(body)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        downloads() as files,
    ):
        task = asyncio.create_task(files.file(proxy.url()).save(tmp_path))
        await until(lambda: proxy.sent > MIB)
        await stands_still(proxy)
        assert proxy.sent < ROOM
        go.set()
        saved = await task
    assert (saved.size, saved.attempts) == (len(body), 1)


async def stands_still(proxy: FaultProxy) -> None:
    """Wait until nothing more is sent for a while."""
    sent = -1
    while sent != proxy.sent:
        sent = proxy.sent
        await asyncio.sleep(0.15)


@pytest.mark.parametrize("way", WAYS)
async def test_a_large_download_can_be_cancelled_at_every_turn_of_the_loop(
    tmp_path: Path, way: str
) -> None:
    """It leaves nothing open, and the next save goes on from there."""
    async with FileServer(Version(LARGE)) as server, downloads() as files:
        for turns in range(0, 60, 4):
            folder = tmp_path / str(turns)
            folder.mkdir()
            task = asyncio.ensure_future(fetched(files.file(server.url()), way, folder))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or task.result() == LARGE
        saved = await files.file(server.url()).save(folder / NAME, overwrite=True)
    assert saved.path.read_bytes() == LARGE
    assert names(folder) == [NAME]


async def test_an_iteration_left_in_the_middle_of_a_large_body_closes_its_connection() -> None:
    async with (
        FileServer(Version(LARGE)) as server,
        FaultProxy("127.0.0.1", server.port, [Stall(2 * MIB, in_body=True)]) as proxy,
        downloads() as files,
    ):
        chunks = aiter(files.file(proxy.url()))
        assert await anext(chunks)
        (connection,) = server._tasks
        await chunks.aclose()
        await asyncio.wait([connection], timeout=5)
        assert connection.done()


# -- whose connection ------------------------------------------------------------------------------


class OtherServer(FileServer):
    """A file server at another address, or with TLS."""

    def __init__(
        self,
        version: Version,
        lies: Lies = Lie(),  # noqa: B008 - it is immutable
        *,
        host: str = "127.0.0.1",
        tls: Tls | None = None,
    ) -> None:
        super().__init__(version, lies)
        self._host, self._tls = host, tls

    async def __aenter__(self) -> Self:
        context = None
        if self._tls is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(self._tls.cert, self._tls.key)
        self._server = await asyncio.start_server(self._connected, self._host, 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def url(self, path: str = "/files/backup.zip") -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http{'s' if self._tls else ''}://{host}:{self.port}{path}"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("body", [BODY, LARGE], ids=["small", "large"])
async def test_a_download_over_tls_arrives_whole_and_is_gone_on_with(
    tmp_path: Path, tls: Tls, taken: list[int], way: str, body: bytes
) -> None:
    cut = len(body) // 3
    async with (
        OtherServer(Version(body), {1: Lie(cut=cut)}, tls=tls) as server,
        downloads(ca_file=tls.ca) as files,
    ):
        assert await fetched(files.file(server.url()), way, tmp_path) == body
    assert len(server.requests) == 2
    assert taken == ([len(body), len(body) - cut] if body == LARGE else [])


async def test_segments_over_tls_arrive_whole(tmp_path: Path, tls: Tls) -> None:
    body = make_body(6 * MIB, 0)
    async with OtherServer(Version(body), tls=tls) as server, downloads(ca_file=tls.ca) as files:
        saved = await files.file(server.url()).save(tmp_path, segments=3)
    assert saved.path.read_bytes() == body
    assert len(server.requests) >= 3


async def test_a_certificate_of_nobody_we_trust_is_refused_at_once(
    tmp_path: Path, tls: Tls
) -> None:
    """It is not tried again, and there is no way around it."""
    time = Time()
    async with OtherServer(Version(BODY), tls=tls) as server, downloads(time) as files:
        with pytest.raises(TLSError, match="ca_file"):
            await files.file(server.url()).save(tmp_path)
    assert (server.requests, time.pauses) == ([], [])


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as found:
        found.bind(("::1", 0))
        return True
    return False


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
async def test_a_server_with_an_ipv6_address_is_one_like_others(tmp_path: Path) -> None:
    lies = {1: Lie(cut=MIB)}
    async with OtherServer(Version(LARGE), lies, host="::1") as server, downloads() as files:
        saved = await files.file(server.url()).save(tmp_path)
    assert saved.path.read_bytes() == LARGE
    assert server.requests[0].headers["host"] == f"[::1]:{server.port}"


async def test_a_name_with_an_address_that_is_dead_is_reached_at_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in dual-stack networks whose IPv6 leads nowhere."""
    loop = asyncio.get_running_loop()
    async with FileServer(Version(BODY)) as server:
        port = server.port

        async def resolve(host: object, *_: object, **__: object) -> list[Any]:
            addresses = [("::1", port, 0, 0), ("127.0.0.1", port)]
            families = [socket.AF_INET6, socket.AF_INET]
            return [
                (family, socket.SOCK_STREAM, 6, "", address)
                for family, address in zip(families, addresses, strict=True)
            ]

        monkeypatch.setattr(loop, "getaddrinfo", resolve)
        async with downloads() as files:
            saved = await files.file(f"http://files.test:{port}/{NAME}").save(tmp_path)
    assert saved.path.read_bytes() == BODY


async def test_small_files_share_a_connection_and_a_large_one_has_its_own(tmp_path: Path) -> None:
    async with (
        FileServer(Version(BODY)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        downloads() as files,
    ):
        for _ in range(3):
            assert await files.file(proxy.url()).read() == BODY
        assert proxy.connections == 1
        server.versions = [Version(LARGE)]
        for number in (1, 2, 3):
            assert await files.file(proxy.url()).read() == LARGE
            assert proxy.connections == number


async def test_a_kept_connection_that_was_closed_meanwhile_is_not_used(tmp_path: Path) -> None:
    lies = {1: Lie(then="close"), 2: Lie(then="close")}
    time = Time()
    async with FileServer(Version(BODY), lies) as server, downloads(time) as files:
        for _ in range(3):
            assert await files.file(server.url()).read() == BODY
            await asyncio.sleep(0.01)
    assert (len(server.requests), time.pauses) == (3, [])


async def test_calls_to_af10_go_over_connections_of_the_same_kind(
    af10: AF10Client, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bool] = []
    real = AsyncioStream.__init__

    def init(self: AsyncioStream, line: Any, *, splits_heads: bool) -> None:
        made.append(splits_heads)
        real(self, line, splits_heads=splits_heads)

    monkeypatch.setattr(AsyncioStream, "__init__", init)
    file = await af10.backup_owner()
    assert await file.read() == sandbox.archive(sandbox.jobs[0])
    assert {*made} == {False, True}
    assert made[0] is False


# -- other people's transports ---------------------------------------------------------------------


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Names a proxy in the environment."""
    for name in ("http", "https", "all", "no"):
        for spelling in (f"{name}_proxy", f"{name}_PROXY", f"{name.upper()}_PROXY"):
            monkeypatch.delenv(spelling, raising=False)
    return monkeypatch.setenv


@pytest.mark.parametrize("body", [BODY, LARGE], ids=["small", "large"])
async def test_a_proxy_in_the_environment_is_used_and_downloads_are_gone_on_with(
    tmp_path: Path, proxied: Callable[[str, str], None], taken: list[int], body: bytes
) -> None:
    cut = len(body) // 3
    async with FileServer(Version(body), {1: Lie(cut=cut)}) as server:
        proxied("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
        async with downloads() as files:
            saved = await files.file(f"http://files.test/{NAME}").save(tmp_path)
    assert saved.path.read_bytes() == body
    assert ranges(server.requests) == [None, f"bytes={cut}-{len(body) - 1}"]
    assert {each.target for each in server.requests} == {f"http://files.test/{NAME}"}
    assert taken == []


async def test_an_https_proxy_is_asked_for_a_tunnel(
    tmp_path: Path, proxied: Callable[[str, str], None], tls: Tls
) -> None:
    """And the certificate is checked inside of it."""
    asked: list[bytes] = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        there, back = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            await asyncio.gather(_pump(reader, back), _pump(there, writer))

    async with OtherServer(Version(LARGE), tls=tls) as server:
        proxy = await asyncio.start_server(tunnel, "127.0.0.1", 0)
        async with proxy:
            port = proxy.sockets[0].getsockname()[1]
            proxied("HTTPS_PROXY", f"http://127.0.0.1:{port}")
            async with downloads(ca_file=tls.ca) as files:
                saved = await files.file(f"https://localhost:{server.port}/{NAME}").save(tmp_path)
            for _ in range(5):
                await asyncio.sleep(0.01)
    assert saved.path.read_bytes() == LARGE
    assert asked[0].startswith(f"CONNECT localhost:{server.port} ".encode())


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def test_netrc_is_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxied: Callable[[str, str], None]
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    netrc.rename(tmp_path / ".netrc")
    async with FileServer(Version(BODY)) as server, downloads() as files:
        await files.file(server.url()).read()
    assert server.requests[0].credentials == set()


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize("body", [BODY, LARGE], ids=["small", "large"])
async def test_a_client_that_is_handed_in_is_used_as_it_is(
    tmp_path: Path, taken: list[int], library: Any, body: bytes
) -> None:
    """Its downloads are gone on with as well, in segments too, and it stays open."""
    cut = len(body) // 3
    cookies = {"session": "secret"}
    async with (
        FileServer(Version(body), {1: Lie(cut=cut)}) as server,
        library.AsyncClient(cookies=cookies) as client,
    ):
        async with downloads(http_client=client) as files:
            saved = await files.file(server.url()).save(tmp_path)
            assert saved.path.read_bytes() == body
            assert ranges(server.requests) == [None, f"bytes={cut}-{len(body) - 1}"]
            again = await files.file(server.url()).save(tmp_path / "two", segments=2)
            assert again.sha256 == hashlib.sha256(body).hexdigest()
            assert await files.file(server.url()).read() == body
        assert not client.is_closed
        assert (await client.get(server.url())).content == body
    assert taken == []
    for each in server.requests[:-1]:
        assert each.credentials == set()
        assert each.headers["accept-encoding"] == "identity"


async def test_a_download_outside_its_block_is_a_clear_error() -> None:
    files = Downloader()
    with pytest.raises(Exception, match="not entered"):
        files.file("http://127.0.0.1/x")
    async with files:
        file = files.file("http://127.0.0.1/x")
        with pytest.raises(Exception, match="entered already"):
            await files.__aenter__()
    waiting: Awaitable[bytes] = file.read()
    with pytest.raises(Exception, match="closed"):
        await waiting
