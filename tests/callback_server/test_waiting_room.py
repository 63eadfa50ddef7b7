"""Connections that have not said enough to be served wait as bare sockets, and in fair turns.

Every test in here that has a server also runs on uvloop (see `test_section_b`).
"""

from __future__ import annotations

import asyncio
import errno
import gc
import itertools
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from af10_async.admission import Admission
from af10_async.callback_connections import Connection, Doing, origin_of
from af10_async.callback_log import Seldom
from af10_async.crowd import LOOK, TIME_TO_SPEAK, ByOrigin, Crowd
from af10_async.protocol.openings import head_needs
from af10_async.runtime import Runtime
from af10_async.waiting_room import WaitingRoom

from ..hello import client_hello
from .conftest import Certificate, GatedStore, key_of, known, running
from .peers import (
    Peers,
    as_many_sockets_as_before,
    is_open,
    open_sockets,
    reset,
    to_the_end,
    until,
)
from .test_connections import OTHER, Clock, callback, how_many, is_served, kept_alive


async def turns(count: int = 10) -> None:
    """Of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)


def protocols() -> int:
    """Connections that cost more than a socket."""
    return how_many("_Protocol") + how_many("SSLProtocol")


def living() -> int:
    """Connections that a server knows."""
    gc.collect()
    return sum(isinstance(each, Connection) for each in gc.get_objects())


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


async def answered(peers: Sequence[socket.socket]) -> int:
    """How many of them got their 200."""
    answers = await asyncio.gather(*map(to_the_end, peers))
    return sum(each.startswith(b"HTTP/1.1 200") for each in answers)


async def test_whole_callbacks_that_come_at_once_are_all_answered() -> None:
    """More of them than there may be connections, from one place, and before anybody looks."""
    async with running(max_connections=100) as server:
        with Peers(server.port) as peers:
            crowd = [peers.connect(callback(key_of(number))) for number in range(400)]
            assert await answered(crowd) == 400


async def test_requests_behind_others_are_answered_however_many_wait_for_a_place() -> None:
    """While one is on its way through the store, the next is here: that connection does not go."""
    store = GatedStore()
    async with running(store=store, max_connections=2) as server:
        with Peers(server.port) as peers:
            three = kept_alive(key_of(1)) + kept_alive(key_of(2)) + callback(key_of(3))
            crowd = [peers.connect(three) for _ in range(20)]
            await store.reached.wait()
            store.gate.set()
            answers = await asyncio.gather(*map(to_the_end, crowd))
            assert [each.count(b"HTTP/1.1 200") for each in answers] == [3] * 20


async def test_it_closes_after_a_crowd_that_was_too_large_for_it() -> None:
    """Whoever has to go in the very turn in which its connection is made is gone, too."""
    for most in (1, 2, 3, 5):
        async with as_many_sockets_as_before(), running(max_connections=most) as server:
            with Peers(server.port) as peers:
                await answered([peers.connect(callback(key_of(each))) for each in range(60)])


async def test_silent_peers_in_many_places_do_not_push_out_who_has_spoken() -> None:
    """Although each of them has fewer connections than whoever is honest."""
    async with running(max_connections=200) as server:
        with Peers(server.port) as peers:
            silent = [peers.connect(origin=f"127.1.0.{number}") for number in range(1, 201)]
            await until(lambda: living() == 200)
            mine = [peers.connect(callback(key_of(number))) for number in range(12)]
            for number in range(1, 101):
                peers.connect(origin=f"127.1.1.{number}")
            assert await answered(mine) == 12
            assert not all(map(is_open, silent))


@pytest.mark.parametrize("most", [2, 40])
async def test_whatever_peers_do_nothing_is_left_of_them(most: int) -> None:
    """They come in pieces, from several places, hang up by half or whole, or are reset."""
    chance = random.Random(2026 + most)
    async with running(max_connections=most, keep_alive=0.2) as server, as_many_sockets_as_before():
        for _ in range(20):
            with Peers(server.port) as peers:
                for number in range(20):
                    whole = callback(key_of(number))
                    cut = chance.randrange(len(whole) + 1)
                    origin = f"127.0.0.{chance.randrange(1, 5)}"
                    peer = peers.connect(whole[:cut], origin=origin)
                    await turns(chance.randrange(4))
                    with suppress(ConnectionError):
                        peer.sendall(whole[cut : chance.randrange(cut, len(whole) + 1)])
                        match chance.randrange(4):
                            case 0:
                                reset(peer)
                            case 1:
                                peer.shutdown(socket.SHUT_WR)
        assert await is_served(server)
        await until(lambda: living() == 0)


# -- the room itself -------------------------------------------------------------------------------


def crowd_here() -> Crowd:
    """Nobody yet."""
    return Crowd(share=0, ready_may_go=True, clock=asyncio.get_running_loop().time)


class Room:
    """A waiting room, one end of a connection in it, and who was let in."""

    def __init__(self, needs: Callable[[bytes], int] = head_needs, patience: float = 60.0) -> None:
        self.admitted: list[Connection] = []
        self.looks: list[bytes] = []
        self._needs = needs
        self.crowd = crowd_here()
        self.room = WaitingRoom(
            self.crowd, self._seen, patience=patience, on_enough=self.admitted.append
        )

    @property
    def waiting(self) -> list[Connection]:
        return list(self.crowd[Doing.WAITING])

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
            assert here.waiting == [connection]
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
        assert here.waiting == []


def watch_no_sockets(monkeypatch: pytest.MonkeyPatch) -> asyncio.AbstractEventLoop:
    """Make the loop one that cannot, like that of asyncio on Windows."""
    loop = asyncio.get_running_loop()

    def cannot(*about: Any) -> None:
        raise NotImplementedError  # what that loop raises there

    monkeypatch.setattr(loop, "add_reader", cannot)
    return loop


async def test_where_sockets_cannot_be_watched_who_serves_them_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then the loop also accepts by itself."""
    watch_no_sockets(monkeypatch)
    async with running() as server, as_many_sockets_as_before():
        with Peers(server.port) as peers:
            peer = peers.connect()
            assert await is_served(server)
            peer.send(callback(key_of(3)))
            assert (await to_the_end(peer)).startswith(b"HTTP/1.1 200")


async def test_whoever_leaves_before_the_loop_has_accepted_it_does_not_break_the_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on Windows, where that is an error of accepting."""
    loop = watch_no_sockets(monkeypatch)
    accept, errors = loop.sock_accept, [ConnectionResetError(), OSError(errno.EINVAL, "left")]
    errors[1].winerror = 64  # type: ignore[attr-defined] # which it has on Windows only

    async def accept_or_fail(listening: socket.socket) -> tuple[socket.socket, Any]:
        if errors:
            raise errors.pop()
        return await accept(listening)

    monkeypatch.setattr(loop, "sock_accept", accept_or_fail)
    async with running() as server:
        await until(lambda: errors == [])
        assert await is_served(server)
    assert "broke" not in caplog.text


async def test_who_is_reset_with_something_unread_does_not_wait_any_more() -> None:
    """The system says so once, and not again to every kind of loop."""
    async with running(keep_alive=3600) as server, as_many_sockets_as_before():
        with Peers(server.port) as peers:
            peer = peers.connect(b"GET /")
            await turns()
            peer.send(b"af10/")
            reset(peer)


async def test_who_has_left_is_not_let_in() -> None:
    here = Room()
    with tcp() as (peer, connection):
        peer.close()
        here.room.take(connection)
        assert here.admitted == []
        assert connection.socket.fileno() == -1


# -- turns, one by one -----------------------------------------------------------------------------


class Plain(asyncio.Protocol):
    """Serves nothing."""

    def __init__(self, crowd: Admitting, connection: Connection) -> None:
        self._crowd = crowd
        self.connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connection.is_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._crowd.admission.is_gone(self.connection)


class Admitting:
    """An admission with room for so many, and connections from where a test says."""

    def __init__(self, stack: ExitStack, most: int) -> None:
        self._stack = stack
        self.crowd = crowd_here()
        self.admission = Admission(
            self.crowd,
            lambda connection: Plain(self, connection),
            most=most,
            tls=None,
            handshake_seconds=10.0,
            seldom=Seldom(Runtime()),
        )

    def add(self, origin: str) -> Connection:
        _, connection = self._stack.enter_context(tcp())
        connection.origin = origin
        self.admission.add(connection)
        return connection

    def those(self, doing: Doing) -> list[Connection]:
        return list(self.crowd[doing])

    async def end(self) -> None:
        await self.admission.finish()
        for each in [*self.those(Doing.LED), *self.those(Doing.IDLE), *self.those(Doing.BUSY)]:
            each.drop()
        await until(lambda: len(self.crowd) == 0)


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


async def test_who_is_ready_waits_while_all_are_busy_and_displaces_one_that_was_served(
    sockets: ExitStack,
) -> None:
    here = Admitting(sockets, most=2)
    first, second = here.add("a"), here.add("b")
    await until(lambda: not first.is_half_way and not second.is_half_way)
    here.admission.is_busy(first)
    here.admission.is_busy(second)
    third = here.add("a")
    await turns()
    assert here.those(Doing.READY) == [third]

    here.admission.is_idle(second)
    await until(lambda: here.those(Doing.LED) == [third])
    assert here.those(Doing.BUSY) == [first]
    assert second.is_dropped
    await here.end()


async def test_a_handshake_displaces_those_of_who_has_more_of_them(sockets: ExitStack) -> None:
    """And not those of who has as few, nor its own."""
    here = Admitting(sockets, most=3)
    crowd = [here.add("crowd") for _ in range(2)]
    one = here.add("one")
    await until(lambda: len(here.those(Doing.LED)) == 3)
    more, other = here.add("crowd"), here.add("other")
    await until(lambda: other.doing is Doing.LED)
    assert set(here.those(Doing.LED)) == {crowd[1], one, other}
    assert here.those(Doing.READY) == [more]
    await here.end()


async def test_handshakes_do_not_displace_those_who_have_been_served_elsewhere(
    sockets: ExitStack,
) -> None:
    """While their own origin has more that come to nothing."""
    here = Admitting(sockets, most=4)
    served = here.add("served")
    crowd = [here.add("crowd") for _ in range(3)]
    await until(lambda: len(here.those(Doing.LED)) == 4)
    here.admission.is_busy(served)
    here.admission.is_idle(served)
    more, other = here.add("crowd"), here.add("other")
    await until(lambda: other.doing is Doing.LED)
    assert here.those(Doing.IDLE) == [served]
    assert here.those(Doing.READY) == [more]
    assert [each.is_dropped for each in crowd].count(True) == 1
    await here.end()


async def test_a_handshake_that_takes_long_is_displaced_by_whoever_comes(
    sockets: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once its time is over, without anything else happening; not before."""
    monkeypatch.setattr("af10_async.admission.TIME_TO_SPEAK", 3600.0)
    here = Admitting(sockets, most=1)
    first, second = here.add("a"), here.add("a")
    await until(lambda: not first.is_half_way)
    await turns()
    assert second.doing is Doing.READY

    monkeypatch.setattr("af10_async.admission.TIME_TO_SPEAK", 0.02)
    third = here.add("a")
    await until(lambda: third.doing is Doing.LED)
    assert first.is_dropped
    assert second.is_dropped
    await here.end()


# -- who goes --------------------------------------------------------------------------------------

SHARE = 2


class Someone(Connection):
    """A connection without a socket."""

    def __init__(self, number: int) -> None:
        super().__init__(None, f"origin {number % 4}")  # type: ignore[arg-type]


def counted(crowd: Crowd, origin: str) -> int:
    return sum(crowd[each].count_of(origin) for each in Doing if each is not Doing.BUSY)


@given(
    steps=st.lists(st.tuples(st.integers(0, 15), st.sampled_from([None, *Doing]), st.booleans())),
    ready_may_go=st.booleans(),
)
def test_the_one_that_goes_is_of_who_has_most_and_was_silent_for_longest(
    steps: list[tuple[int, Doing | None, bool]], ready_may_go: bool
) -> None:
    """Whatever happened before, asked for or not, and however those who have most spread.

    Where nobody has more than a share, it is the one that was silent for longest of all.
    """
    times = itertools.count(1)
    crowd = Crowd(share=SHARE, ready_may_go=ready_may_go, clock=lambda: float(next(times)))
    everyone = [Someone(number) for number in range(16)]
    for number, doing, is_asked_for in steps:
        crowd.now(everyone[number], doing)
        if not is_asked_for:
            continue
        silent = [each for each in everyone if each.doing in (Doing.WAITING, Doing.IDLE)]
        found = crowd.to_let_go()
        most = max(counted(crowd, each.origin) for each in everyone)
        largest = {each.origin for each in everyone if counted(crowd, each.origin) == most}
        have_spoken = not largest <= {each.origin for each in silent}
        if found is not None and found in silent:
            rivals = silent
            if most > SHARE and found.origin not in largest:  # rather than to wait for these
                assert have_spoken
                assert not ready_may_go
                continue
            if most > SHARE:
                assert counted(crowd, found.origin) == most
                rivals = [each for each in silent if each.origin == found.origin]
            assert found is min(rivals, key=lambda each: each.since)
            continue
        assert most > SHARE or not silent
        assert most == 0 or have_spoken
        if found is None:
            assert not (ready_may_go and crowd[Doing.READY])
        else:
            assert found.doing is Doing.LED or (ready_may_go and found.doing is Doing.READY)
    assert len(crowd) == sum(each.doing is not None for each in everyone)
    for doing in Doing:
        assert set(crowd[doing]) == {each for each in everyone if each.doing is doing}


def test_of_those_that_have_spoken_only_those_go_that_do_not_come_to_their_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are late, or more than could be on their way to it."""
    monkeypatch.setattr("af10_async.crowd._MOST_LED", 3)
    clock = Clock()
    crowd = Crowd(share=0, ready_may_go=False, clock=clock)
    ready, *led = (Someone(0) for _ in range(5))
    crowd.now(ready, Doing.READY)
    for each in led[:3]:
        crowd.now(each, Doing.LED)
    assert crowd.to_let_go() is None
    crowd.now(led[3], Doing.LED)
    assert crowd.to_let_go() is led[0]
    crowd.now(led[0], None)
    assert crowd.to_let_go() is None
    clock.now += 60
    assert crowd.to_let_go() is None  # the loop stood still
    for _ in range(round(TIME_TO_SPEAK / LOOK)):
        clock.now += LOOK
        last = crowd.to_let_go()
    assert last is led[1]


def led_by(crowd: Crowd, number: int, doing: Doing, count: int) -> list[Connection]:
    """So many of one origin that do this."""
    found: list[Connection] = [Someone(number) for _ in range(count)]
    for each in found:
        crowd.now(each, doing)
    return found


def test_nobody_waits_for_those_who_have_spoken_while_more_are_silent_elsewhere() -> None:
    """Although the silent ones have fewer connections; requests that are more are waited for."""
    crowd = Crowd(share=0, ready_may_go=False, clock=Clock())
    led_by(crowd, 0, Doing.LED, 5)
    silent = led_by(crowd, 1, Doing.WAITING, 4)
    ready = led_by(crowd, 0, Doing.READY, 4)
    assert crowd.to_let_go() is None
    crowd.now(ready[0], Doing.LED)
    assert crowd.to_let_go() is silent[0]


def test_who_is_late_goes_wherever_it_comes_from() -> None:
    clock = Clock()
    crowd = Crowd(share=0, ready_may_go=False, clock=clock)
    (late,) = led_by(crowd, 1, Doing.LED, 1)
    for _ in range(round(TIME_TO_SPEAK / LOOK) + 1):
        clock.now += LOOK
        assert crowd.time() > 0
    led_by(crowd, 0, Doing.LED, 5)
    assert crowd.to_let_go() is late


def test_who_is_ready_does_not_go_while_another_origin_has_most() -> None:
    """That one's handshake goes."""
    crowd = Crowd(share=0, ready_may_go=True, clock=Clock())
    led = led_by(crowd, 0, Doing.LED, 5)
    led_by(crowd, 1, Doing.READY, 1)
    assert crowd.to_let_go() is led[0]


def test_where_they_may_go_the_last_goes_that_is_ready() -> None:
    """Those that came first have waited, and their turn comes before."""
    crowd = Crowd(share=0, ready_may_go=True, clock=Clock())
    led, *ready = (Someone(0) for _ in range(4))
    crowd.now(led, Doing.LED)
    for each in ready:
        crowd.now(each, Doing.READY)
    assert crowd.to_let_go() is ready[-1]


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        (("192.0.2.7", 80), "192.0.2.7"),
        (("::ffff:192.0.2.7", 80, 0, 0), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 80, 0, 0), "2001:0db8:0001:0002"),
        (("2001:db8:1:2::1", 80, 0, 0), "2001:0db8:0001:0002"),
        (("fe80::1%eth0", 80, 0, 2), "fe80:0000:0000:0000"),
        ((), ""),
        (None, ""),
    ],
)
def test_an_origin_is_an_ipv4_address_or_a_network_of_ipv6(address: Any, origin: str) -> None:
    assert origin_of(address) == origin


@given(st.lists(st.tuples(st.sampled_from(["add", "discard", "next"]), st.integers(0, 11))))
def test_each_origin_has_its_turn_and_of_it_the_one_that_came_first(
    steps: list[tuple[str, int]],
) -> None:
    """The same as with plain lists."""
    everyone = [Someone(number) for number in range(12)]
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
            origin = next(here.origins())
            assert origin == next(iter(queues))
            queues[origin] = queues.pop(origin)
            here.had_its_turn(origin)
            found = here.first(origin)
            assert found is queues[origin].pop(0)
            here.discard(found)
        queues = {origin: queue for origin, queue in queues.items() if queue}
        assert list(here.origins()) == list(queues)
        assert len(here) == sum(map(len, queues.values()))
        largest = here.largest()
        most = max(map(len, queues.values()), default=0)
        assert (here.count_of(largest) if largest else 0) == most
        for origin, queue in queues.items():
            assert (here.first(origin), here.last(origin)) == (queue[0], queue[-1])
