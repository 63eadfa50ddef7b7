"""A callback server takes in so many connections, lets go of idle ones, and outlives its sockets.

Every test in here also runs on uvloop (see `test_section_b`).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from af10_async.callback_connections import Doing
from af10_async.callback_server import CallbackServer
from af10_async.errors import CallbackServerError, ClosedError, JobInterruptedError
from af10_async.runtime import Runtime
from af10_async.sandbox import Sandbox
from tests.conftest import ClientMaker

from ..hello import client_hello
from .conftest import (
    CALLBACK_SECRET,
    ID,
    PUBLIC_URL,
    Certificate,
    key_of,
    known,
    request,
    running,
    talk,
)
from .peers import (
    GatedJob,
    LateStore,
    Peers,
    as_many_sockets_as_before,
    break_listening,
    is_open,
    listening_at,
    open_sockets,
    reset,
    to_the_end,
    until,
)
from .servers import MOUNTED_AT

HERE = f"{MOUNTED_AT}/af10"
GATED, OTHER = key_of(1), key_of(2)


def callback(key: str) -> bytes:
    """A genuine one, on a connection that closes afterwards."""
    return request(f"{HERE}/{key}?id={ID}")


def kept_alive(key: str) -> bytes:
    """The same, on a connection that stays."""
    return f"GET {HERE}/{key}?id={ID} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def is_served(server: CallbackServer, tls: ssl.SSLContext | None = None) -> bool:
    """Whether a genuine callback gets through."""
    return (await talk(server.port, callback(OTHER), tls)).statuses == [200]


async def at_once(seconds: float) -> None:
    """A pause that is none."""
    await asyncio.sleep(0)


class Clock:
    """Stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_about(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    """What was logged with this in it."""
    return [each.getMessage() for each in caplog.records if text in each.getMessage()]


@pytest.fixture(autouse=True)
async def in_debug_mode() -> None:
    """asyncio looks closely at what is done with its loop."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 60


# -- more than there may be ------------------------------------------------------------------------


async def test_above_the_limit_idle_connections_go_oldest_first_and_busy_ones_stay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever has a request under way is not touched, and a genuine callback is served."""
    store = GatedJob(GATED)
    async with running(store=store, max_connections=4) as server:
        with Peers(server.port) as peers:
            busy = peers.connect(callback(GATED))
            await until(lambda: store.waiting == 1)
            first, second, third = (peers.connect() for _ in range(3))
            fourth = peers.connect()
            assert await to_the_end(first) == b""
            assert all(map(is_open, (busy, second, third, fourth)))

            assert await is_served(server)
            assert await to_the_end(second) == b""
            assert all(map(is_open, (busy, third, fourth)))

            store.gate.set()
            assert (await to_the_end(busy)).startswith(b"HTTP/1.1 200")
    assert len(lines_about(caplog, "more than 4 connections")) == 1


async def test_a_connection_that_has_just_been_used_goes_after_those_that_have_not() -> None:
    async with running(max_connections=2) as server:
        with Peers(server.port) as peers:
            used = peers.connect()
            unused = peers.connect()
            await asyncio.get_running_loop().sock_sendall(used, kept_alive(OTHER))
            await asyncio.get_running_loop().sock_recv(used, 65536)

            peers.connect()

            assert await to_the_end(unused) == b""
            assert is_open(used)


async def test_whoever_comes_from_one_place_displaces_its_own_and_not_those_of_others() -> None:
    """However long they have been there, and however many come."""
    async with running(max_connections=8) as server:
        with Peers(server.port) as peers:
            patient = peers.connect(origin="127.0.0.2")
            flood = [peers.connect() for _ in range(50)]
            for each in flood[:43]:
                assert await to_the_end(each) == b""
            assert all(map(is_open, flood[43:]))
            await asyncio.get_running_loop().sock_sendall(patient, callback(OTHER))
            assert (await to_the_end(patient)).startswith(b"HTTP/1.1 200")


async def test_when_all_are_busy_the_newcomer_waits_and_nobody_is_closed() -> None:
    store = GatedJob(GATED)
    async with running(store=store, max_connections=2) as server:
        with Peers(server.port) as peers:
            busy = [peers.connect(callback(GATED)) for _ in range(2)]
            await until(lambda: store.waiting == 2)

            newcomers = [peers.connect(callback(OTHER)) for _ in range(3)]
            for _ in range(20):
                await asyncio.sleep(0)
            assert all(map(is_open, [*busy, *newcomers]))

            store.gate.set()
            for each in [*busy, *newcomers]:
                assert (await to_the_end(each)).startswith(b"HTTP/1.1 200")


async def test_whoever_comes_in_a_crowd_has_its_turn_before_it_can_be_displaced() -> None:
    """The crowd is larger than the limit, and all of it is there at the same moment."""
    async with running(max_connections=16) as server:
        with Peers(server.port) as peers:
            for _ in range(100):
                peers.connect()
            genuine = peers.connect(callback(OTHER))
            for _ in range(100):
                peers.connect()
            assert (await to_the_end(genuine)).startswith(b"HTTP/1.1 200")


async def test_a_crowd_is_warned_of_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    async with running(max_connections=2, runtime=Runtime(monotonic=clock)) as server:
        for minute in range(3):
            clock.now = 60.0 * minute
            with Peers(server.port) as peers:
                crowd = [peers.connect() for _ in range(20)]
                await asyncio.gather(*map(to_the_end, crowd[:-2]))
    assert len(lines_about(caplog, "more than 2 connections")) == 3


async def test_handshakes_that_are_not_done_count_and_are_let_go(certificate: Certificate) -> None:
    tls = {"tls_cert": certificate.cert, "tls_key": certificate.key}
    async with running(max_connections=4, **tls) as server, as_many_sockets_as_before():
        with Peers(server.port) as peers:
            crowd = [peers.connect(client_hello()[: 40 * number]) for number in range(4)]
            for oldest in crowd:
                assert await is_served(server, certificate.client)
                assert await to_the_end(oldest) == b""
                peers.connect()


async def test_thousands_that_leave_at_once_leave_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With a goodbye and without, with a word and without; nobody is warned of them."""
    async with running() as server, as_many_sockets_as_before():
        for number in range(1000):
            with Peers(server.port) as peers:
                peer = peers.connect(b"GET /" if number % 3 == 0 else b"")
                if number % 2:
                    reset(peer)
            if number % 50 == 0:
                await asyncio.sleep(0)
        assert await is_served(server)
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


# -- TLS -------------------------------------------------------------------------------------------


async def test_a_handshake_that_stops_half_way_ends(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its first byte, in the middle of its greeting, and after it was answered."""
    monkeypatch.setattr("af10_async.acceptor._HANDSHAKE_SECONDS", 0.05)
    hello = client_hello()
    async with (
        running(tls_cert=certificate.cert, tls_key=certificate.key) as server,
        as_many_sockets_as_before(),
    ):
        with Peers(server.port) as peers:
            silent, half, answered = map(peers.connect, (b"", hello[:100], hello))
            assert await to_the_end(silent) == b""
            assert await to_the_end(half) == b""
            assert await to_the_end(answered)


async def test_a_handshake_that_comes_to_nothing_is_told_in_openssls_words(
    certificate: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    """Plain text, and a client that leaves; for those who look at DEBUG, without a traceback."""
    async with running(tls_cert=certificate.cert, tls_key=certificate.key) as server:
        caplog.clear()  # of what is said of the certificate
        with Peers(server.port) as peers:
            await to_the_end(peers.connect(callback(OTHER)))
            reset(peers.connect(client_hello()))
        assert await is_served(server, certificate.client)
    told = lines_about(caplog, "ended before it began")
    assert any("http request" in each.lower().replace("_", " ") for each in told)
    ours = [each for each in caplog.records if each.name == "af10_async.callback_server"]
    assert not [each for each in ours if each.levelno >= logging.WARNING or each.exc_info]


async def test_what_failed_handshakes_have_cost_is_free_at_once(certificate: Certificate) -> None:
    """asyncio has 256 KiB for each, and a garbage collector that does not know."""
    async with running(tls_cert=certificate.cert, tls_key=certificate.key) as server:
        assert await is_served(server, certificate.client)
        with no_garbage_collector():
            with Peers(server.port) as peers:
                for data in (b"", client_hello()[:100], client_hello(), b"GET / HTTP/1.1\r\n"):
                    peers.connect(data)
                assert await is_served(server, certificate.client)
            await until(lambda: how_many("SSLProtocol") <= 1)  # that of our own last connection


async def test_what_malformed_requests_have_cost_is_free_at_once() -> None:
    """Also of those that come when the connection is as good as closed."""
    async with running() as server:
        with no_garbage_collector():
            with Peers(server.port) as peers:
                for data in (b"malformed\r\n\r\n", b"GET /" + b"a" * 60_000, b"GET x\r\n\r\n" * 99):
                    await to_the_end(peers.connect(data))
            await until(lambda: how_many("_Protocol") == 0)


@contextmanager
def no_garbage_collector() -> Iterator[None]:
    """What is in a cycle stays."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def how_many(kind: str) -> int:
    """Objects of a class of that name that nobody has cleared away."""
    return sum(type(each).__name__ == kind for each in gc.get_objects())


# -- those who take nothing ------------------------------------------------------------------------


async def deaf(server: CallbackServer, peers: Peers) -> socket.socket:
    """A peer that asks and asks and takes no answer, until the server stops to listen to it."""
    for each in listening_at(server.port):
        with each:  # those that it accepts have buffers like it
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    peer = peers.connect(room=4096)
    asked, times_full = kept_alive(OTHER) * 50, 0
    while times_full < 50:
        try:
            peer.send(asked)
            times_full = 0
        except BlockingIOError:
            times_full += 1
        await asyncio.sleep(0)
    return peer


async def test_whoever_does_not_take_its_answers_is_cut_off() -> None:
    async with running(keep_alive=0.1) as server:
        with Peers(server.port) as peers:
            before = open_sockets()
            peer = await deaf(server, peers)
            await until(lambda: open_sockets() == before + 1)  # the peer's own end
            assert peer.fileno() >= 0
        assert await is_served(server)


async def test_whoever_does_not_take_its_answers_does_not_keep_others_out() -> None:
    """It counts as idle, although its requests are whole, and is let go when there is no room."""
    async with running(keep_alive=3600, max_connections=1) as server:
        assert server._listening is not None
        crowd = server._listening._acceptor._crowd
        with Peers(server.port) as peers:
            await deaf(server, peers)
            for _ in range(50):
                await asyncio.sleep(0)
            assert (len(crowd[Doing.IDLE]), len(crowd[Doing.BUSY])) == (1, 0)
            assert await is_served(server)


async def test_whoever_does_not_take_its_answers_does_not_keep_the_server_from_closing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("af10_async.callback_http._SHUTDOWN_SECONDS", 0.05)
    async with running(keep_alive=3600) as server, as_many_sockets_as_before():
        with Peers(server.port) as peers:
            await deaf(server, peers)
            await server.__aexit__(None, None, None)
        await server.__aenter__()


# -- when its socket breaks ------------------------------------------------------------------------


async def listens_again(caplog: pytest.LogCaptureFixture, times: int = 1) -> None:
    await until(lambda: len(lines_about(caplog, "listens again")) == times)


async def test_a_listening_socket_that_breaks_is_replaced_on_the_same_port(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as server:
        port = server.port
        break_listening(port)
        await listens_again(caplog)
        assert server.port == port
        assert server.is_running
        assert await is_served(server)
    assert lines_about(caplog, "socket broke: Invalid argument")


async def test_when_it_cannot_listen_any_more_those_who_wait_are_told_at_once(
    make_client: ClientMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody else took the port meanwhile; nothing more is started, and leaving works as ever."""
    async with Sandbox(job_seconds=3600) as sandbox:
        server = CallbackServer(public_url=PUBLIC_URL, runtime=Runtime(sleep=at_once))
        client = make_client(
            base_url=sandbox.base_url,
            api_key=sandbox.api_key,
            username=sandbox.username,
            password=sandbox.password,
            callback_server=server,
            tls_cert=None,
            tls_key=None,
        )
        async with server, client:
            job = client.backup_owner()
            await job.start()
            waiting = asyncio.ensure_future(job)
            await asyncio.sleep(0)
            break_listening(server.port)
            with socket.create_server(("127.0.0.1", server.port)):
                with pytest.raises(JobInterruptedError, match=job.key):
                    await waiting
                assert not server.is_running
                assert server.port > 0
                with pytest.raises((ClosedError, JobInterruptedError), match="closed"):
                    await client.backup_owner()
                assert len(sandbox.jobs) == 1
    assert lines_about(caplog, "cannot listen any more on port")


async def test_connections_that_are_there_are_served_although_it_listens_no_more() -> None:
    async with running(runtime=Runtime(sleep=at_once)) as server:
        with Peers(server.port) as peers:
            loop = asyncio.get_running_loop()
            peer = peers.connect(kept_alive(key_of(3)))
            assert (await loop.sock_recv(peer, 65536)).startswith(b"HTTP/1.1 200")
            break_listening(server.port)
            with socket.create_server(("127.0.0.1", server.port)):
                await until(lambda: not server.is_running)
                await loop.sock_sendall(peer, callback(OTHER))
                assert (await to_the_end(peer)).startswith(b"HTTP/1.1 200")
        assert await known(server.store, OTHER) == (ID,)


async def test_a_socket_that_breaks_again_and_again_is_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Unless it worked for a while: then it has all its attempts again."""
    clock = Clock()
    async with running(runtime=Runtime(sleep=at_once, monotonic=clock)) as server:
        for times in range(1, 6):
            break_listening(server.port)
            await listens_again(caplog, times)
        clock.now += 60
        for times in range(6, 11):
            break_listening(server.port)
            await listens_again(caplog, times)
        break_listening(server.port)
        await until(lambda: not server.is_running)


# -- closing, and starting -------------------------------------------------------------------------


async def test_closing_while_handshakes_are_under_way_leaves_nothing(
    certificate: Certificate,
) -> None:
    tls = {"tls_cert": certificate.cert, "tls_key": certificate.key}
    with Peers(0) as nobody:
        async with as_many_sockets_as_before():
            async with running(**tls) as server:
                peers = nobody.enter_context(Peers(server.port))
                crowd = [peers.connect(client_hello()[: 60 * number]) for number in range(5)]
                assert await is_served(server, certificate.client)
                crowd += [peers.connect() for _ in range(5)]
                for _ in range(2):
                    await asyncio.sleep(0)
            for each in crowd:
                assert await to_the_end(each) == b""
            peers.close()


async def test_what_has_arrived_before_it_closes_is_kept_and_answered() -> None:
    """On a connection that was taken in, read or not."""
    async with running() as server:
        with Peers(server.port) as peers:
            peer = peers.connect(kept_alive(key_of(3)))
            await asyncio.get_running_loop().sock_recv(peer, 65536)
            peer.send(kept_alive(OTHER))
            await server.__aexit__(None, None, None)
            assert (await to_the_end(peer)).startswith(b"HTTP/1.1 200")
        assert await known(server.store, OTHER) == (ID,)


async def test_a_request_that_never_ends_does_not_keep_it_from_closing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Soon its connection is closed; it is not acknowledged, but kept all the same if it can be."""
    monkeypatch.setattr("af10_async.callback_http._SHUTDOWN_SECONDS", 0.05)
    store = LateStore()
    async with running(store=store) as server:
        with Peers(server.port) as peers:
            peer = peers.connect(callback(OTHER))
            await store.reached.wait()
            await server.__aexit__(None, None, None)
            assert await to_the_end(peer) == b""
        assert await known(store, OTHER) == (ID,)
    assert lines_about(caplog, "closes before 1 requests are answered")


async def test_a_cancellation_while_it_closes_leaves_nothing() -> None:
    """At any turn of the loop; the request under way is given up, and not acknowledged."""
    async with as_many_sockets_as_before():
        for turn in range(8):
            store = LateStore()
            server = CallbackServer(
                public_url=PUBLIC_URL, store=store, callback_secret=CALLBACK_SECRET
            )
            await server.__aenter__()
            with Peers(server.port) as peers:
                peer, idle = peers.connect(callback(OTHER)), peers.connect()
                await store.reached.wait()
                closing = asyncio.create_task(server.__aexit__(None, None, None))
                for _ in range(turn):
                    await asyncio.sleep(0)
                closing.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await closing
                if turn:  # else it has not even begun
                    assert await to_the_end(peer) == await to_the_end(idle) == b""
                else:
                    store.gate.set()
                    await server.__aexit__(None, None, None)


async def test_a_cancellation_while_it_starts_leaves_nothing() -> None:
    async with as_many_sockets_as_before():
        for turn in range(12):
            server = CallbackServer(public_url=PUBLIC_URL, host="localhost")
            starting = asyncio.create_task(server.__aenter__())
            for _ in range(turn):
                await asyncio.sleep(0)
            starting.cancel()
            await asyncio.wait([starting])
            if not starting.cancelled():
                await server.__aexit__(None, None, None)
            assert not server.is_running


# -- where it listens ------------------------------------------------------------------------------

V4, V6 = (socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET6, ("::1", 0, 0, 0))
SECOND_V4 = (socket.AF_INET, ("127.0.0.2", 0))
DEAD_V6 = (socket.AF_INET6, ("2001:db8::1", 0, 0, 0))
Address = tuple[int, tuple[Any, ...]]


def resolves_to(monkeypatch: pytest.MonkeyPatch, *addresses: Address) -> None:
    """What every name leads to."""

    def getaddrinfo(host: object, port: int, *about: object, **more: object) -> list[Any]:
        return [
            (family, socket.SOCK_STREAM, 6, "", (address[0], port, *address[2:]))
            for family, address in addresses
        ]

    monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)


def has(address: Address) -> bool:
    try:
        socket.create_server(address[1], family=address[0]).close()
    except OSError:
        return False
    return True


async def is_served_at(address: Address, port: int) -> bool:
    with socket.socket(address[0]) as peer:
        peer.settimeout(5)
        peer.connect((address[1][0], port, *address[1][2:]))
        peer.sendall(callback(OTHER))
        peer.setblocking(False)
        return (await to_the_end(peer)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("second", [V6, SECOND_V4], ids=["IPv6", "IPv4"])
async def test_it_listens_on_every_address_of_its_host_with_the_same_port(
    monkeypatch: pytest.MonkeyPatch, second: Address
) -> None:
    if not has(second):
        pytest.skip(f"this machine has no address {second[1][0]}")
    resolves_to(monkeypatch, V4, V4, second)
    async with running(host="localhost") as server:
        assert await is_served_at(V4, server.port)
        assert await is_served_at(second, server.port)


async def test_an_address_that_this_machine_does_not_have_does_not_matter_beside_one_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolves_to(monkeypatch, DEAD_V6, V4)
    async with running(host="localhost") as server:
        assert await is_served_at(V4, server.port)
    resolves_to(monkeypatch, DEAD_V6)
    with pytest.raises(CallbackServerError, match="cannot listen on localhost port 0: Cannot"):
        await CallbackServer(public_url=PUBLIC_URL, host="localhost").__aenter__()


async def test_a_free_port_is_one_that_is_free_on_every_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that is taken on the second is not used, and not held either."""
    resolves_to(monkeypatch, V4, SECOND_V4)
    taken: list[socket.socket] = []
    create_server = socket.create_server

    def occupied_first(address: tuple[Any, ...], **options: Any) -> socket.socket:
        if address[0] == "127.0.0.2" and not taken:
            taken.append(create_server(address, **options))
        return create_server(address, **options)

    monkeypatch.setattr("socket.create_server", occupied_first)
    async with as_many_sockets_as_before():
        async with running(host="localhost") as server:
            assert server.port != taken[0].getsockname()[1]
            assert await is_served_at(SECOND_V4, server.port)
        taken.pop().close()


async def test_an_empty_host_is_every_address() -> None:
    async with running(host="") as server:
        assert await is_served_at(V4, server.port)
        assert await is_served_at(SECOND_V4, server.port)


async def test_it_lives_while_one_of_its_addresses_does(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    resolves_to(monkeypatch, V4, SECOND_V4)
    async with running(host="localhost", runtime=Runtime(sleep=at_once)) as server:
        first, second = sorted(listening_at(server.port), key=lambda each: str(each.getsockname()))
        with first, second:
            first.shutdown(socket.SHUT_RDWR)
            with socket.create_server(("127.0.0.1", server.port)):
                await until(lambda: bool(lines_about(caplog, "cannot listen any more")))
                assert await is_served_at(SECOND_V4, server.port)
                assert server.is_running
                second.shutdown(socket.SHUT_RDWR)
                with socket.create_server(("127.0.0.2", server.port)):
                    await until(lambda: not server.is_running)
