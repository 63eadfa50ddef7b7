"""HTTP: send, stream, and translate errors once."""

from __future__ import annotations

import asyncio
import gc
import gzip
import logging
import socket
import ssl
import struct
import tracemalloc
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
import respx
import trustme

from af10_async import transport as room
from af10_async.errors import (
    AF10Error,
    BadResponseError,
    ClosedError,
    ConfigurationError,
    ConnectFailedError,
    NetworkError,
    RequestTimeoutError,
    TLSError,
    UnsafeURLError,
)
from af10_async.file_reply import FileReply
from af10_async.limits import ConcurrencyLimit
from af10_async.protocol.wire import MAX_JSON_BYTES, Call
from af10_async.transport import Departure, Transport

SECRET = "the-secret-of-the-query"
GET = Call("GET", "/thing", {"id": SECRET})
POST = Call("POST", "/thing", json={"webhook_url": f"https://x.example/{SECRET}"})
BASE = "https://api.autoflex10.example/v2"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no"):
        for spelling in (name, name.upper()):
            monkeypatch.delenv(f"{spelling}_proxy", raising=False)
            monkeypatch.delenv(f"{spelling}_PROXY", raising=False)


@asynccontextmanager
async def stub(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that does what `handler` says with each connection; its port."""
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls, backlog=500)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def answering(data: bytes, seen: list[bytes] | None = None) -> Handler:
    """Answers every request of a connection with the same bytes."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if seen is not None:
                seen.append(head)
            writer.write(data)
            await writer.drain()

    return handler


def response(body: bytes = b"{}", *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Clock:
    """The loop's clock, which jumps over an hour when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self._time, self._jumped = loop.time, 0.0
        monkeypatch.setattr(loop, "time", lambda: self._time() + self._jumped)

    async def silent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Reads something, and never answers: whoever waits runs out of time."""
        await reader.read(1)
        self._jumped += 3600.0
        await asyncio.Event().wait()


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads the head and breaks the connection off."""
    await reader.readuntil(b"\r\n\r\n")
    break_off(writer)


def break_off(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    found = Transport()
    yield found
    await found.close()


async def failure(
    transport: Transport, url: str, call: Call = GET, timeout: float = 5.0
) -> AF10Error:
    """What sending fails with; its text holds no secret."""
    departure = Departure()
    with pytest.raises(AF10Error) as caught:
        await transport.send(call, url, {}, timeout=timeout, departure=departure)
    error = caught.value
    assert f"{call.method} /thing" in str(error)
    assert SECRET not in str(error) + repr(error)
    return error


# -- one exchange ----------------------------------------------------------------------------------


@respx.mock
async def test_an_exchange_gives_status_headers_and_body(transport: Transport) -> None:
    route = respx.get(f"{BASE}/thing", params={"id": SECRET}).respond(
        201, json={"a": 1}, headers={"X-Thing": "Y"}
    )
    reply = await transport.send(GET, BASE, {"token": "t"}, timeout=5)
    assert (reply.method, reply.path, reply.status) == ("GET", "/thing", 201)
    assert reply.body == b'{"a":1}'
    assert reply.headers["x-thing"] == "Y"
    assert SECRET not in repr(reply) + repr(GET)
    request = route.calls.last.request
    assert request.headers["token"] == "t"
    assert request.headers["accept-encoding"] == "identity"


@respx.mock
async def test_a_post_carries_its_json(transport: Transport) -> None:
    route = respx.post(f"{BASE}/thing").respond(202)
    await transport.send(POST, BASE, {}, timeout=5)
    assert SECRET.encode() in route.calls.last.request.content


@respx.mock
async def test_a_redirect_is_an_answer_and_not_followed(transport: Transport) -> None:
    respx.get(f"{BASE}/thing").respond(302, headers={"Location": "https://evil.example/"})
    evil = respx.get("https://evil.example/").respond(200)
    follower = httpx.AsyncClient(follow_redirects=True)
    for each in (transport, Transport(follower)):
        assert (await each.send(GET, BASE, {}, timeout=5)).status == 302
    await follower.aclose()
    assert not evil.called


# -- errors, translated once -----------------------------------------------------------------------


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@pytest.mark.parametrize("call", [GET, POST])
async def test_a_refused_connection_sent_nothing(transport: Transport, call: Call) -> None:
    error = await failure(transport, f"http://127.0.0.1:{closed_port()}", call)
    assert isinstance(error, ConnectFailedError)
    assert (error.sent, error.retryable) == (False, True)


async def test_a_name_that_is_not_found_sent_nothing(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    error = await failure(transport, BASE, POST)
    assert isinstance(error, ConnectFailedError)
    assert (error.sent, error.retryable) == (False, True)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path / "ca.pem"


def server_tls(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


async def test_a_certificate_of_an_unknown_authority_is_refused_before_anything_is_sent(
    transport: Transport, authority: trustme.CA
) -> None:
    seen: list[bytes] = []
    async with stub(answering(response(), seen), server_tls(authority)) as port:
        error = await failure(transport, f"https://127.0.0.1:{port}", POST)
    assert isinstance(error, TLSError)
    assert (error.sent, error.retryable) == (False, False)
    assert "ca_file" in str(error)
    assert seen == []


async def test_a_certificate_of_another_name_is_refused(
    authority: trustme.CA, ca_file: Path
) -> None:
    transport = Transport(ca_file=ca_file)
    async with stub(answering(response()), server_tls(authority, "other.example")) as port:
        error = await failure(transport, f"https://127.0.0.1:{port}")
    await transport.close()
    assert isinstance(error, TLSError)
    assert "mismatch" in str(error)


async def test_a_ca_file_is_trusted_beside_the_usual_ones(
    authority: trustme.CA, ca_file: Path
) -> None:
    transport = Transport(ca_file=ca_file)
    async with stub(answering(response()), server_tls(authority)) as port:
        reply = await transport.send(GET, f"https://127.0.0.1:{port}", {}, timeout=5)
        await transport.close()
    assert reply.status == 200


async def test_a_server_that_speaks_no_tls_is_a_tls_error(transport: Transport) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with stub(plain) as port:
        error = await failure(transport, f"https://127.0.0.1:{port}", POST)
    assert isinstance(error, TLSError)
    assert error.sent is False


@pytest.mark.parametrize("content", ["", "no PEM", None])
def test_a_ca_file_without_certificates_is_a_configuration_error(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match="holds no PEM certificate"):
        Transport(ca_file=path)


@pytest.mark.parametrize(("call", "sent"), [(GET, None), (POST, True)])
async def test_no_answer_in_time_says_whether_the_request_left(
    transport: Transport, clock: Clock, call: Call, sent: bool | None
) -> None:
    async with stub(clock.silent) as port:
        error = await failure(transport, f"http://127.0.0.1:{port}", call)
    assert isinstance(error, RequestTimeoutError)
    assert isinstance(error, TimeoutError)
    assert (error.sent, error.retryable) == (sent, True)


async def test_no_answer_in_httpxs_own_time_is_the_same_error(clock: Clock) -> None:
    client = httpx.AsyncClient(timeout=30)
    async with stub(clock.silent) as port:
        url = f"http://127.0.0.1:{port}"
        error = await failure(Transport(client), url, POST, timeout=1e6)
        await client.aclose()
    assert isinstance(error, RequestTimeoutError)
    assert error.sent is True


async def test_a_handshake_that_does_not_end_sent_nothing(
    transport: Transport, clock: Clock
) -> None:
    async with stub(clock.silent) as port:
        error = await failure(transport, f"https://127.0.0.1:{port}", POST)
    assert isinstance(error, RequestTimeoutError)
    assert error.sent is False
    # httpcore leaves the socket of a handshake that was cancelled to the garbage collector.
    del error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.parametrize(("call", "sent"), [(GET, None), (POST, True)])
async def test_a_connection_reset_after_the_head_may_have_arrived(
    transport: Transport, call: Call, sent: bool | None
) -> None:
    async with stub(reset) as port:
        error = await failure(transport, f"http://127.0.0.1:{port}", call)
    assert type(error) is NetworkError
    assert (error.sent, error.retryable) == (sent, True)


async def test_an_answer_that_is_cut_or_is_no_http_was_sent_for(transport: Transport) -> None:
    for data in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal",
        b"HTTP/1.1 200 OK\r\nConten",
        b"\x15\x03\x01 " + SECRET.encode() + b"\r\n\r\n",
        b"",
    ):

        async def once(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes = data
        ) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(data)
            await writer.drain()

        async with stub(once) as port:
            error = await failure(transport, f"http://127.0.0.1:{port}", POST)
        assert type(error) is NetworkError
        assert error.sent is True
        assert error.__cause__ is None


async def test_a_closed_client_is_a_closed_error(transport: Transport) -> None:
    await transport.close()
    error = await failure(transport, BASE)
    assert isinstance(error, ClosedError)
    assert error.sent is False


async def test_departure_follows_what_httpcore_says() -> None:
    departure = Departure()
    assert departure.sent is False
    departure.sent = None
    for event, sent in [
        ("connection.connect_tcp.started", False),
        ("connection.start_tls.complete", False),
        ("http11.send_request_headers.started", True),
        ("http11.receive_response_headers.started", True),
        ("http2.send_request_headers.started", True),
    ]:
        await departure.trace(event, {})
        assert departure.sent is sent


async def test_a_sender_that_is_cancelled_knows_that_its_request_left(
    transport: Transport,
) -> None:
    arrived = asyncio.Event()

    async def arrive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await asyncio.Event().wait()

    departure = Departure()
    async with stub(arrive) as port:
        url = f"http://127.0.0.1:{port}"
        task = asyncio.create_task(transport.send(POST, url, {}, timeout=60, departure=departure))
        await arrived.wait()
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    assert departure.sent is True


# -- how much --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_answer_of_more_than_1_mib_is_cut_while_it_streams(
    transport: Transport, chunked: bool
) -> None:
    given = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal given
        await reader.readuntil(b"\r\n\r\n")
        how = "Transfer-Encoding: chunked" if chunked else "Content-Length: 100000000000"
        writer.write(f"HTTP/1.1 200 OK\r\n{how}\r\n\r\n".encode())
        block = bytes(65536)
        while given < 100 * MAX_JSON_BYTES:
            writer.write(b"10000\r\n" + block + b"\r\n" if chunked else block)
            await writer.drain()
            given += len(block)

    async with stub(endless) as port:
        error = await failure(transport, f"http://127.0.0.1:{port}")
    assert isinstance(error, BadResponseError)
    assert "larger than 1 MiB" in str(error)
    assert (error.status, error.sent) == (200, True)
    assert given < 32 * MAX_JSON_BYTES


async def test_an_answer_of_exactly_1_mib_is_read(transport: Transport) -> None:
    async with stub(answering(response(bytes(MAX_JSON_BYTES)))) as port:
        reply = await transport.send(GET, f"http://127.0.0.1:{port}", {}, timeout=5)
        await transport.close()
    assert len(reply.body) == MAX_JSON_BYTES


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", "br", "deflate", "x"])
async def test_an_encoded_answer_is_refused_and_never_unpacked(
    transport: Transport, encoding: str
) -> None:
    data = response(
        gzip.compress(gzip.compress(bytes(30_000_000), 1)), f"Content-Encoding: {encoding}"
    )
    async with stub(answering(data)) as port:
        tracemalloc.start()
        try:
            error = await failure(transport, f"http://127.0.0.1:{port}")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert isinstance(error, BadResponseError)
    assert "encoded" in str(error)
    assert peak < 5_000_000


async def test_only_so_many_requests_are_under_way_and_the_others_wait_their_turn() -> None:
    """Twenty slots, of which a quarter is for accounts that have nothing under way."""
    transport = Transport(limit=ConcurrencyLimit(20))
    under_way = most = 0
    full, go = asyncio.Event(), asyncio.Event()

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal under_way, most
        while True:
            await reader.readuntil(b"\r\n\r\n")
            under_way += 1
            most = max(most, under_way)
            if under_way == 15:
                full.set()
            await go.wait()
            under_way -= 1
            writer.write(response())
            await writer.drain()

    async with stub(count) as port:
        url = f"http://127.0.0.1:{port}"
        tasks = [asyncio.create_task(transport.send(GET, url, {}, timeout=30)) for _ in range(50)]
        await full.wait()
        departure = Departure()
        with pytest.raises(
            TimeoutError
        ):  # the caller's own: the queue does not count as the answer's
            async with asyncio.timeout(0.02):
                await transport.send(POST, url, {}, timeout=0.01, departure=departure)
        go.set()
        replies = await asyncio.gather(*tasks)
        await transport.close()
    assert most == 15
    assert {reply.status for reply in replies} == {200}
    assert departure.sent is False


# -- cookies, logs ---------------------------------------------------------------------------------


async def test_cookies_are_never_sent_back(transport: Transport) -> None:
    seen: list[bytes] = []
    client = httpx.AsyncClient(cookies={"mine": "1"})
    async with stub(answering(response(b"{}", "Set-Cookie: a=b; Path=/"), seen)) as port:
        url = f"http://127.0.0.1:{port}"
        for each in (transport, transport, Transport(client), Transport(client)):
            await each.send(GET, url, {}, timeout=5)
        await transport.close()
        await client.aclose()
    assert len(seen) == 4
    assert not [head for head in seen if b"cookie" in head.lower()]


async def test_what_the_libraries_log_of_our_requests_is_dropped_and_of_others_is_kept(
    transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    headers = {"token": "the-token"}
    async with stub(answering(response(b"{}", f"X-Echo: {SECRET}"))) as port:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient() as theirs, asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(transport.send(GET, url, headers, timeout=5))
                group.create_task(_get(theirs, f"{url}/theirs"))
        async with transport.stream(f"{url}/file?{SECRET}", trusted=True) as file:
            assert await everything(file) == b"{}"
        await transport.close()

    of_httpx = [each.getMessage() for each in caplog.records if each.name == "httpx"]
    assert len(of_httpx) == 3
    assert all("/theirs" in text for text in of_httpx)
    ours = [each.getMessage() for each in caplog.records if each.name == "af10_async.transport"]
    assert len(ours) == 3
    for record in caplog.records:
        if "X-Echo" in record.getMessage():  # httpcore's, of the other people's answers
            continue
        assert SECRET not in record.getMessage()
        assert "the-token" not in record.getMessage()
    echoes = [each for each in caplog.records if "X-Echo" in each.getMessage()]
    assert len(echoes) == 3


async def _get(client: httpx.AsyncClient, url: str) -> None:
    await client.get(url)


# -- a client of the user's ------------------------------------------------------------------------


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_a_client_that_is_handed_in_is_used_and_left_open(library: Any) -> None:
    seen: list[bytes] = []
    client = library.AsyncClient(headers={"X-Mine": "yes"})
    transport = Transport(client)
    async with stub(answering(response(b'{"a": 1}'), seen)) as port:
        url = f"http://127.0.0.1:{port}"
        reply = await transport.send(GET, url, {}, timeout=5)
        async with transport.stream(f"{url}/file", trusted=False) as file:
            assert (file.status, file.headers["content-length"]) == (200, "8")
            assert await everything(file) == b'{"a": 1}'
        await transport.close()
        assert not client.is_closed
        await client.aclose()
    assert reply.body == b'{"a": 1}'
    assert all(b"x-mine: yes" in head.lower() for head in seen)
    assert len(seen) == 2


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_errors_are_the_same_with_either_library(library: Any, clock: Clock) -> None:
    client = library.AsyncClient()
    transport = Transport(client)
    refused = await failure(transport, f"http://127.0.0.1:{closed_port()}", POST)
    async with stub(reset) as port:
        broken = await failure(transport, f"http://127.0.0.1:{port}", POST)
    async with stub(clock.silent) as port:
        late = await failure(transport, f"http://127.0.0.1:{port}", POST)
    await client.aclose()
    closed = await failure(transport, BASE)
    found = [(type(each), each.sent) for each in (refused, broken, late, closed)]
    assert found == [
        (ConnectFailedError, False),
        (NetworkError, True),
        (RequestTimeoutError, True),
        (ClosedError, False),
    ]


async def test_a_bug_in_a_client_that_is_handed_in_is_not_disguised() -> None:
    class Odd:
        def build_request(self, *arguments: Any, **options: Any) -> Any:
            raise LookupError("a bug")

        async def send(
            self, request: Any, *, stream: bool, follow_redirects: bool, auth: Any = None
        ) -> Any:
            raise AssertionError("nothing was built, so nothing is sent")

    with pytest.raises(LookupError):
        await Transport(Odd()).send(GET, BASE, {}, timeout=5)


# -- files -----------------------------------------------------------------------------------------


async def test_leaving_a_stream_early_closes_its_connection(transport: Transport) -> None:
    gone = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
        try:
            while True:
                writer.write(bytes(65536))
                await writer.drain()
        finally:
            gone.set()

    async with stub(endless) as port:
        async with (
            transport.stream(f"http://127.0.0.1:{port}/", trusted=True) as file,
            aclosing(file.blocks(10**11, stall_timeout=5)) as blocks,
        ):
            assert (await anext(blocks)).data
        await asyncio.wait_for(gone.wait(), 5)
        await transport.close()


async def test_a_file_that_breaks_off_is_a_network_error(transport: Transport) -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()

    async with (
        stub(cut) as port,
        transport.stream(f"http://127.0.0.1:{port}/", trusted=True) as file,
    ):
        with pytest.raises(NetworkError, match="the download"):
            await everything(file)


# -- public addresses only -------------------------------------------------------------------------

PUBLIC, PUBLIC_6 = "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"


class Network:
    """A stub resolver, and a world in which one public address is a server on this machine."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.connected: list[str] = []
        self.port = 0
        self.loop = asyncio.get_running_loop()
        self._connect = self.loop.sock_connect

    async def getaddrinfo(self, host: Any, port: Any, **_: object) -> list[Any]:
        self.asked.append(str(host))
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        families = [socket.AF_INET6 if ":" in each else socket.AF_INET for each in found]
        return [
            (family, socket.SOCK_STREAM, 6, "", (address, port))
            for family, address in zip(families, found, strict=True)
        ]

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        self.connected.append(address[0])
        if address[0] != PUBLIC or not self.port:
            raise ConnectionRefusedError
        await self._connect(sock, ("127.0.0.1", self.port))


@pytest.fixture
async def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    found = Network([PUBLIC])
    monkeypatch.setattr(found.loop, "getaddrinfo", found.getaddrinfo)
    monkeypatch.setattr(found.loop, "sock_connect", found.sock_connect)
    return found


async def everything(file: FileReply) -> bytes:
    blocks = file.blocks(None, stall_timeout=5)
    return b"".join([bytes(block.data) async for block in blocks])


async def fetch(transport: Transport, url: str) -> bytes:
    async with transport.stream(url, trusted=False) as file:
        return await everything(file)


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.1.2.3"],
        ["192.168.0.1"],
        ["169.254.169.254"],
        ["100.64.0.1"],
        ["0.0.0.0"],
        ["224.0.0.1"],
        ["::1"],
        ["fe80::1"],
        ["fc00::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["2002:7f00:1::"],
        [PUBLIC, "127.0.0.1"],
        ["127.0.0.1", PUBLIC],
    ],
    ids=str,
)
async def test_a_name_that_leads_inside_is_refused_before_any_packet(
    transport: Transport, network: Network, addresses: list[str]
) -> None:
    network.answers = [addresses]
    with pytest.raises(UnsafeURLError, match="private network") as caught:
        await fetch(transport, f"https://files.example/x?{SECRET}")
    assert caught.value.sent is False
    assert SECRET not in str(caught.value)
    assert network.connected == []


async def test_the_address_that_was_checked_is_the_one_connected_to(
    network: Network, authority: trustme.CA, ca_file: Path
) -> None:
    """The resolver answers the second time with a private address (DNS rebinding)."""
    network.answers = [[PUBLIC], ["169.254.169.254"]]
    transport = Transport(ca_file=ca_file)
    tls = server_tls(authority, "files.example")
    closing = response(b"file", "Connection: close")
    async with stub(answering(closing), tls) as network.port:
        assert await fetch(transport, "https://files.example/x") == b"file"
        assert network.asked == ["files.example"]
        assert network.connected == [PUBLIC]
        with pytest.raises(UnsafeURLError):
            await fetch(transport, "https://files.example/x")
        await transport.close()
    assert network.connected == [PUBLIC]


async def test_the_certificate_is_checked_against_the_name_also_on_a_connection_in_the_pool(
    network: Network, authority: trustme.CA, ca_file: Path
) -> None:
    transport = Transport(ca_file=ca_file)
    async with stub(answering(response()), server_tls(authority, "files.example")) as network.port:
        assert await fetch(transport, "https://files.example/x") == b"{}"
        with pytest.raises(TLSError, match="mismatch"):
            await fetch(transport, "https://other.example/x")
        await transport.close()


async def test_the_next_address_is_tried_when_the_first_does_not_answer(
    network: Network, authority: trustme.CA, ca_file: Path
) -> None:
    network.answers = [[PUBLIC_6, PUBLIC]]
    transport = Transport(ca_file=ca_file)
    async with stub(answering(response()), server_tls(authority, "files.example")) as network.port:
        assert await fetch(transport, "https://files.example/x") == b"{}"
        await transport.close()
    assert network.connected == [PUBLIC_6, PUBLIC]


@pytest.mark.parametrize("addresses", [[], [PUBLIC], [PUBLIC, PUBLIC_6]], ids=str)
async def test_when_no_address_answers_no_connection_was_made(
    transport: Transport, network: Network, addresses: list[str]
) -> None:
    network.answers = [addresses]
    with pytest.raises(ConnectFailedError) as caught:
        await fetch(transport, "https://files.example/x")
    assert (caught.value.sent, network.connected) == (False, addresses)


async def test_a_file_name_that_is_not_found_is_no_connection(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    for host in ("files.example", "a" * 70 + ".example"):
        with pytest.raises(ConnectFailedError):
            await fetch(transport, f"https://{host}/x")


async def test_a_resolver_that_hangs_is_given_up_like_a_connection(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def getaddrinfo(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(room, "CONNECT_TIMEOUT", 0.02)
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    hasty = Transport()
    with pytest.raises(RequestTimeoutError) as caught:
        async with asyncio.timeout(1):
            await fetch(hasty, "https://files.example/x")
    await hasty.close()
    assert caught.value.sent is False


async def test_an_address_instead_of_a_name_is_checked_too(
    transport: Transport, network: Network
) -> None:
    network.answers = [["127.0.0.1"]]
    with pytest.raises(UnsafeURLError):
        await fetch(transport, "https://127.0.0.1/x")


async def test_a_trusted_file_may_come_from_this_machine(transport: Transport) -> None:
    async with stub(answering(response(b"file"))) as port:
        async with transport.stream(f"http://127.0.0.1:{port}/x", trusted=True) as file:
            assert await everything(file) == b"file"
        await transport.close()
