"""Opens connections by the thousand, and does with each what an attack says: epoll and no loop.

An attack is one core of one machine; what it costs must go to the receiver rather than into asyncio
on this side.
"""

from __future__ import annotations

import errno
import itertools
import re
import selectors
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

OPENING = 64
"""Connections that are being opened at a time: more would only wait for the system."""
SOURCES = tuple(f"127.0.0.{last}" for last in range(2, 10))
"""Where connections come from: one address has not ports enough for a minute of these."""
BLOCK = 65536
_RESET = struct.pack("ii", 1, 0)
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_NOT_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

Then = Literal["wait", "again", "close", "reset"]


@dataclass(frozen=True, slots=True)
class Attack:
    """What each of many connections does, until it is cut off; another takes its place then."""

    name: str
    does: str
    """In a few words."""
    payload: Callable[[int], bytes] | None = None
    """What is sent on the connection with this number; nothing when there is none."""
    requests: int = 0
    """How many requests a payload has."""
    then: Then = "wait"
    """What follows the payload: to wait for the end, the same again and again, or to hang up."""
    drip: bytes = b""
    """What is sent each second after the payload."""
    connections: int = 64
    port: Literal["plain", "tls"] = "plain"
    shakes_hands: bool = False
    """Whether TLS is spoken in earnest."""
    reads: bool = True
    """Whether it takes the answers in."""
    files: int | None = None
    """Descriptors that the receiver may have, when that is part of it."""


@dataclass(slots=True)
class Score:
    """What was really done."""

    connections: int = 0
    refused: int = 0
    """Connections that did not come about."""
    cut: int = 0
    """Connections that the receiver ended."""
    most_held: int = 0
    requests: int = 0
    sent: int = 0
    """Bytes."""
    statuses: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True, eq=False)
class _Peer:
    """One connection of the attacker."""

    socket: socket.socket
    number: int
    is_open: bool = False
    is_shaken: bool = False
    rest: memoryview = field(default_factory=lambda: memoryview(b""))
    has_sent: bool = False
    drips_at: float = 0.0


class Engine:
    """Carries an attack out.

    Args:
        attack: What to do.
        address: The receiver's host and port.
        tls: What TLS is spoken with, by an attack that does.

    """

    def __init__(
        self, attack: Attack, address: tuple[str, int], tls: ssl.SSLContext | None = None
    ) -> None:
        self.score = Score()
        self._attack = attack
        self._address = address
        self._tls = tls
        self._selector = selectors.DefaultSelector()
        self._numbers = itertools.count()
        self._peers: set[_Peer] = set()
        self._opening: set[_Peer] = set()
        self._full_until = 0.0
        self._next_drips = 0.0

    @property
    def has_begun(self) -> bool:
        """Whether it is under way: as many connections as there are to be, or have been."""
        enough = self._attack.connections
        return len(self._peers) >= enough or self.score.connections >= 2 * enough

    def turn(self) -> None:
        """Do what can be done now, or wait a little."""
        self._open_more()
        for key, events in self._selector.select(0.01):
            self._go_on(key.data, events)
        if self._attack.drip:
            self._drip()

    def close(self) -> None:
        """Let go of everything."""
        for peer in list(self._peers | self._opening):
            self._forget(peer)
        self._selector.close()

    # -- opening -----------------------------------------------------------------------------------

    def _open_more(self) -> None:
        if time.monotonic() < self._full_until:
            return
        missing = self._attack.connections - len(self._peers) - len(self._opening)
        for _ in range(min(missing, OPENING - len(self._opening))):
            try:
                self._open()
            except OSError:  # no port or no descriptor just now
                self._pause()
                return

    def _pause(self) -> None:
        self.score.refused += 1
        self._full_until = time.monotonic() + 0.05

    def _open(self) -> None:
        number = next(self._numbers)
        made = socket.socket()
        try:
            made.setblocking(False)
            if sys.platform == "linux":
                made.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
                made.bind((SOURCES[number % len(SOURCES)], 0))
            code = made.connect_ex(self._address)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, "connect")
        except OSError:
            made.close()
            raise
        peer = _Peer(made, number)
        self._opening.add(peer)
        self._selector.register(made, selectors.EVENT_WRITE, peer)

    def _is_open(self, peer: _Peer) -> bool:
        if peer.is_open:
            return True
        self._opening.discard(peer)
        if peer.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._forget(peer)
            self._pause()
            return False
        peer.is_open = True
        self._peers.add(peer)
        self.score.connections += 1
        self.score.most_held = max(self.score.most_held, len(self._peers))
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._load(peer)
        if self._attack.shakes_hands:
            self._wrap(peer)
        else:
            self._watch(peer, selectors.EVENT_READ | selectors.EVENT_WRITE)
        return True

    def _wrap(self, peer: _Peer) -> None:
        assert self._tls is not None
        self._selector.unregister(peer.socket)
        peer.socket = self._tls.wrap_socket(
            peer.socket, do_handshake_on_connect=False, server_hostname="127.0.0.1"
        )
        self._selector.register(peer.socket, selectors.EVENT_WRITE, peer)

    # -- speaking ----------------------------------------------------------------------------------

    def _load(self, peer: _Peer) -> None:
        payload = self._attack.payload
        peer.rest = memoryview(payload(peer.number) if payload else b"")

    def _go_on(self, peer: _Peer, events: int) -> None:
        try:
            if not self._is_open(peer) or not self._is_shaken(peer):
                return
            if events & selectors.EVENT_READ and not self._has_read(peer):
                self._is_cut(peer)
            elif events & selectors.EVENT_WRITE:
                self._write(peer)
        except _NOT_YET:
            pass
        except OSError:  # reset, or TLS is not going well
            self._is_cut(peer)

    def _is_shaken(self, peer: _Peer) -> bool:
        """Whether its handshake is done, if there is one."""
        if not self._attack.shakes_hands or peer.is_shaken:
            return True
        assert isinstance(peer.socket, ssl.SSLSocket)
        try:
            peer.socket.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(peer, selectors.EVENT_READ)
            return False
        peer.is_shaken = True
        self._watch(peer, selectors.EVENT_READ | selectors.EVENT_WRITE)
        return True

    def _has_read(self, peer: _Peer) -> bool:
        """False when there is no more to come."""
        got = peer.socket.recv(BLOCK)
        for status in _STATUS.findall(got):
            self.score.statuses[status.decode()] += 1
        return bool(got)

    def _write(self, peer: _Peer) -> None:
        while peer.rest:
            count = peer.socket.send(peer.rest)
            self.score.sent += count
            peer.rest = peer.rest[count:]
            if not peer.rest:
                self._has_sent(peer)
            if self._attack.then == "again":
                return  # the others have their turn
        if not peer.has_sent:
            self._has_sent(peer)

    def _has_sent(self, peer: _Peer) -> None:
        """All of its payload has left, if there was any."""
        peer.has_sent = True
        self.score.requests += self._attack.requests
        if self._attack.then == "again":
            self._load(peer)
        elif self._attack.then == "wait":
            self._watch(peer, selectors.EVENT_READ)
            peer.drips_at = time.monotonic() + 1.0
        else:
            self._hang_up(peer)

    def _hang_up(self, peer: _Peer) -> None:
        if self._attack.then == "reset":
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._forget(peer)

    def _drip(self) -> None:
        now = time.monotonic()
        if now < self._next_drips:
            return
        self._next_drips = now + 0.1
        for peer in [each for each in self._peers if each.has_sent and each.drips_at <= now]:
            peer.drips_at = now + 1.0
            try:
                self.score.sent += peer.socket.send(self._attack.drip)
            except _NOT_YET:
                pass
            except OSError:
                self._is_cut(peer)

    # -- ends --------------------------------------------------------------------------------------

    def _watch(self, peer: _Peer, events: int) -> None:
        if not self._attack.reads:
            events &= ~selectors.EVENT_READ
        if events:
            self._selector.modify(peer.socket, events, peer)
        else:
            self._selector.unregister(peer.socket)

    def _is_cut(self, peer: _Peer) -> None:
        self.score.cut += peer in self._peers
        self._forget(peer)

    def _forget(self, peer: _Peer) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(peer.socket)
        peer.socket.close()
        self._peers.discard(peer)
        self._opening.discard(peer)


def told(score: Score) -> dict[str, Any]:
    """As JSON has it."""
    found = {name: getattr(score, name) for name in Score.__slots__}
    return found | {"statuses": dict(sorted(score.statuses.items()))}
