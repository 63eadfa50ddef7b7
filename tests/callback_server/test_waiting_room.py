"""Connections that have not said enough to be served wait as bare sockets, and in fair turns.

Every test in here that has a server also runs on uvloop (see `test_section_b`).
"""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from af10_async.admission import Admission
from af10_async.callback_connections import ByOrigin, Connection, origin_of
from af10_async.callback_log import Seldom
from af10_async.protocol.openings import head_needs
from af10_async.runtime import Runtime
from af10_async.waiting_room import WaitingRoom

from .conftest import Certificate, key_of, known, running
from .peers import (
    Peers,
    as_many_sockets_as_before,
    is_open,
    open_sockets,
    reset,
    to_the_end,
    until,
)
from .test_connections import OTHER, callback, client_hello, how_many, is_served, kept_alive


async def turns(count: int = 10) -> None:
    """Of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)


def protocols() -> int:
    """Connections that cost more than a socket."""
    return how_many("_Protocol") + how_many("SSLProtocol")


@asynccontextmanager
async def costing_a_socket(each: int) -> AsyncIterator[None]:
    """So many connections are taken in, and none costs more than a socket at either end."""
    gc.collect()
    before, sockets = protocols(), open_sockets()
    yield
    await until(lambda: open_sockets() == sockets + 2 * each)
    await turns()
    assert protocols() == before


# -- what waits ------------------------------------------------------------------------------------


async def test_who_says_nothing_or_half_a_head_costs_a_socket_and_no_more() -> None:
    async with running() as server:
        with Peers(server.port) as peers:
            async with costing_a_socket(3):
                for said in (b"", b"G", callback(OTHER)[:-1]):
                    peers.connect(said)


async def test_who_says_nothing_or_half_a_hello_costs_a_socket_and_no_more(
    certificate: Certificate,
) -> None:
    async with running(tls_cert=certificate.cert, tls_key=certificate.key) as server:
        with Peers(server.port) as peers:
            async with costing_a_socket(6):
                for length in (0, 1, 4, 5, 6, len(client_hello()) - 1):
                    peers.connect(client_hello()[:length])


async def test_a_callback_that_comes_byte_by_byte_is_answered() -> None:
    async with running() as server:
        with Peers(server.port) as peers:
            peer = peers.connect()
            for each in callback(OTHER):
                peer.send(bytes([each]))
                await turns(3)
            assert (await to_the_end(peer)).startswith(b"HTTP/1.1 200")
        assert await known(server.store, OTHER) != ()


async def test_a_handshake_that_comes_byte_by_byte_succeeds(certificate: Certificate) -> None:
    async with running(tls_cert=certificate.cert, tls_key=certificate.key) as server:
        with Peers(server.port) as peers:
            peer = peers.connect()
            came, went = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = certificate.client.wrap_bio(came, went, server_hostname="127.0.0.1")
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            for each in went.read():
                peer.send(bytes([each]))
                await turns(3)
            came.write(await asyncio.get_running_loop().sock_recv(peer, 65536))
            client.do_handshake()
            peer.send(went.read())
            client.write(callback(OTHER))
            peer.send(went.read())
            got = bytearray()
            while not got.startswith(b"HTTP/1.1 200"):
                came.write(await asyncio.get_running_loop().sock_recv(peer, 65536))
                try:
                    got += client.read()
                except ssl.SSLWantReadError:
                    continue


async def test_two_requests_at_once_after_half_a_head_are_both_answered() -> None:
    """What has waited with the system is read from its beginning."""
    async with running() as server:
        with Peers(server.port) as peers:
            both = kept_alive(key_of(5)) + callback(OTHER)
            peer = peers.connect(both[:20])
            await turns()
            peer.send(both[20:])
            assert (await to_the_end(peer)).count(b"HTTP/1.1 200") == 2


async def test_who_leaves_in_the_middle_of_a_head_is_gone_at_once() -> None:
    """With a goodbye and without; long before patience ends."""
    async with running(keep_alive=3600) as server, as_many_sockets_as_before():
        for said in (b"", b"GET /af10/"):
            with Peers(server.port) as peers:
                leaving, resetting = peers.connect(said), peers.connect(said)
                await turns()
                leaving.shutdown(socket.SHUT_WR)
                reset(resetting)
                assert await to_the_end(leaving) == b""
        assert await is_served(server)


async def test_patience_ends_for_each_in_its_time() -> None:
    async with running(keep_alive=0.05) as server, as_many_sockets_as_before():
        with Peers(server.port) as peers:
            early = peers.connect(b"GET /")
            assert await to_the_end(early) == b""
            late = [peers.connect(b"GET /") for _ in range(3)]
            for each in late:
                assert await to_the_end(each) == b""


async def test_a_byte_now_and_then_does_not_renew_patience() -> None:
    async with running(keep_alive=0.1) as server:
        with Peers(server.port) as peers:
            peer = peers.connect(b"GET /")
            dripped = 0
            while is_open(peer):
                try:
                    peer.send(b"a")
                except ConnectionError:
                    break
                dripped += 1
                await asyncio.sleep(0.01)
            assert dripped > 1


async def test_a_head_that_is_whole_when_it_closes_is_answered_and_half_of_one_is_not() -> None:
    """Although nobody has looked at either before."""
    async with running() as server:
        with Peers(server.port) as peers:
            half, whole = peers.connect(b"GET /"), peers.connect(b"GET /")
            await turns()
            whole.send(callback(OTHER).removeprefix(b"GET /"))
            await server.__aexit__(None, None, None)
            assert (await to_the_end(whole)).startswith(b"HTTP/1.1 200")
            assert await to_the_end(half) == b""
        await server.__aenter__()


# -- turns -----------------------------------------------------------------------------------------


async def test_with_tls_fewer_are_served_than_may_wait(certificate: Certificate) -> None:
    """As many as wait here could not have their handshake at a time."""
    async with running(tls_cert=certificate.cert, tls_key=certificate.key) as server:
        with Peers(server.port) as peers:
            crowd = [peers.connect(client_hello()[:50]) for _ in range(300)]
            assert await is_served(server, certificate.client)
            assert all(map(is_open, crowd))


async def test_who_comes_from_elsewhere_does_not_wait_for_a_crowd_of_handshakes(
    certificate: Certificate,
) -> None:
    """All of the crowd is there before, and is still waiting for its turn afterwards."""
    async with running(tls_cert=certificate.cert, tls_key=certificate.key) as server:
        with Peers(server.port) as peers:
            hello = client_hello()
            crowd = [peers.connect(hello, origin="127.0.0.2") for _ in range(150)]
            genuine = peers.connect(hello)
            await until(lambda: not is_open(genuine))  # it has its answer
            assert sum(map(is_open, crowd)) > 100


# -- the room itself -------------------------------------------------------------------------------


class Room:
    """A waiting room, one end of a connection in it, and who was let in."""

    def __init__(self, needs: Callable[[bytes], int] = head_needs, patience: float = 60.0) -> None:
        self.admitted: list[Connection] = []
        self.looks: list[bytes] = []
        self._needs = needs
        self.room = WaitingRoom(self._seen, patience=patience, on_enough=self.admitted.append)

    def _seen(self, data: bytes) -> int:
        self.looks.append(data)
        return self._needs(data)


@contextmanager
def tcp() -> Iterator[tuple[socket.socket, Connection]]:
    """A peer, and our end."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as peer,
    ):
        ours, _ = server.accept()
        with ours:
            ours.setblocking(False)
            yield peer, Connection(ours, "here")


async def test_the_system_wakes_us_for_what_is_needed_and_not_for_each_byte() -> None:
    """So one that drips into a long wait costs nothing."""
    here = Room(needs=lambda data: 10)
    with tcp() as (peer, connection):
        here.room.take(connection)
        for _ in range(9):
            peer.send(b"x")
            await turns()
            assert here.looks == [b"x"]
            assert here.room.waiting.all() == [connection]
        peer.send(b"x")
        await until(lambda: here.admitted == [connection])
        assert connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
        assert connection.socket.recv(100) == b"x" * 10


async def test_where_the_system_wakes_us_for_each_byte_who_serves_it_waits() -> None:
    """Sockets of that family do not know how many bytes one waits for."""
    ours, peer = socket.socketpair(socket.AF_UNIX)
    with ours, peer:
        ours.setblocking(False)
        here = Room()
        connection = Connection(ours, "here")
        here.room.take(connection)
        peer.send(b"GET /")
        await until(lambda: here.admitted == [connection])
        assert len(here.room.waiting) == 0


async def test_where_sockets_cannot_be_watched_who_serves_them_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on Windows, with the loop that asyncio has there; then it also accepts by itself."""

    def cannot(*about: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", cannot)
    async with running() as server, as_many_sockets_as_before():
        with Peers(server.port) as peers:
            peer = peers.connect()
            assert await is_served(server)
            peer.send(callback(key_of(3)))
            assert (await to_the_end(peer)).startswith(b"HTTP/1.1 200")


async def test_who_has_left_is_not_let_in() -> None:
    here = Room()
    with tcp() as (peer, connection):
        peer.close()
        here.room.take(connection)
        assert here.admitted == []
        assert connection.socket.fileno() == -1


async def test_who_is_ready_waits_while_all_are_busy_and_displaces_the_first_that_is_not() -> None:
    """And is led on as soon as there is room, whoever made it."""

    class Plain(asyncio.Protocol):
        def __init__(self, connection: Connection) -> None:
            self.connection = connection

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.connection.is_made(transport)

        def connection_lost(self, exc: BaseException | None) -> None:
            admission.is_gone(self.connection)

    admission = Admission(Plain, most=1, tls=None, handshake_seconds=10.0, seldom=Seldom(Runtime()))
    with tcp() as (_, first), tcp() as (_, second), tcp() as (_, third):
        admission.add(first)
        await until(lambda: not first.is_half_way)
        admission.is_busy(first)
        admission.add(second)
        admission.add(third)
        await turns()
        assert admission.ready.all() == [second, third]

        admission.is_idle(first)
        await until(lambda: len(admission.ready) == 0)
        assert admission.idle.all() == [third]
        await admission.finish()
        assert not third.is_half_way
        third.drop()
        await until(lambda: len(admission) == 0)


# -- by origin -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        (("192.0.2.7", 80), "192.0.2.7"),
        (("::ffff:192.0.2.7", 80, 0, 0), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 80, 0, 0), "2001:0db8:0001:0002"),
        (("2001:db8:1:2::1", 80, 0, 0), "2001:0db8:0001:0002"),
        (("fe80::1%eth0", 80, 0, 2), "fe80:0000:0000:0000"),
    ],
)
def test_an_origin_is_an_ipv4_address_or_a_network_of_ipv6(address: Any, origin: str) -> None:
    assert origin_of(address) == origin


@given(st.lists(st.tuples(st.sampled_from(["add", "discard", "next"]), st.integers(0, 11))))
def test_whose_turn_it_is_and_who_goes_first(steps: list[tuple[str, int]]) -> None:
    """The same as with plain lists: each origin in its turn, and of it the one that came first."""
    everyone = [Connection(None, f"origin {number % 4}") for number in range(12)]  # type: ignore[arg-type]
    here = ByOrigin()
    queues: dict[str, list[Connection]] = {}
    for what, number in steps:
        one = everyone[number]
        queue = queues.get(one.origin, [])
        if what == "add" and one not in queue:
            here.add(one)
            queues.setdefault(one.origin, []).append(one)
        elif what == "discard":
            here.discard(one)
            if one in queue:
                queue.remove(one)
        elif what == "next" and queues:
            origin = next(iter(queues))
            queues[origin] = queue = queues.pop(origin)
            assert here.pop_next() is queue.pop(0)
        queues = {origin: queue for origin, queue in queues.items() if queue}
        assert here.all() == [each for queue in queues.values() for each in queue]
        assert len(here) == sum(map(len, queues.values()))
        assert here.largest == max(map(len, queues.values()), default=0)
        oldest = here.oldest()
        assert (oldest is None) is (not queues)
        if oldest is not None:
            assert len(queues[oldest.origin]) == here.largest
            assert queues[oldest.origin][0] is oldest


def test_a_connection_is_among_one_kind_only() -> None:
    first, second = ByOrigin(), ByOrigin()
    one = Connection(None, "here")  # type: ignore[arg-type]
    first.add(one)
    second.add(one)
    first.discard(one)
    assert (first.all(), second.all()) == ([], [one])
