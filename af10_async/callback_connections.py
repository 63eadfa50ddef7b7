"""A connection that callbacks may come by."""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import socket
from typing import Any, cast


class Doing(enum.IntEnum):  # whose members are keys that cost nothing
    """What a connection does."""

    WAITING = enum.auto()
    """It has not said enough to be served."""
    READY = enum.auto()
    """It has, and waits for its turn."""
    LED = enum.auto()
    """It had its turn, and no request of it has begun: it may be in its TLS handshake."""
    BUSY = enum.auto()
    """It has a request under way."""
    IDLE = enum.auto()
    """It has none any more."""


class Connection:
    """One connection, from when it was accepted."""

    __slots__ = (
        "_task",
        "_transport",
        "doing",
        "is_dropped",
        "needs",
        "origin",
        "owns_socket",
        "placed",
        "since",
        "socket",
    )

    def __init__(self, accepted: socket.socket, origin: str) -> None:
        self.socket = accepted
        """Ours until there is a transport."""
        self.origin = origin
        """Where it comes from; see `origin_of`."""
        self.doing: Doing | None = None
        """None before it does anything, and when it has ended; see `Crowd.now`."""
        self.placed: Doing | None = None
        """What it is counted with, which follows that."""
        self.since = 0.0
        """When it began to do that."""
        self.needs = 1
        """Bytes that must have arrived before it is looked at again."""
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self.owns_socket = False
        """Whether there is a transport, which closes the socket."""
        self.is_dropped = False
        """Whether it is to end, and a transport that is made for it all the same must be, too."""

    def begins(self, task: asyncio.Task[None]) -> None:
        """The task leads it through its handshake."""
        self._task = task

    def is_led(self) -> None:
        """The task is done. It may hold its error, and that much memory: see `forget_traceback`."""
        self._task = None

    def is_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    @property
    def is_half_way(self) -> bool:
        """Whether its handshake is not done."""
        return self._transport is None

    def drop(self) -> None:
        """End it now."""
        self.is_dropped = True
        if self._transport is not None:
            self._transport.abort()
        elif self._task is not None:
            self._task.cancel()
        elif not self.owns_socket:
            self.socket.close()


def origin_of(address: Any) -> str:
    """Where a peer comes from: its IPv4 address; of IPv6, the /64, which one customer has whole."""
    host = str(address[0]) if address else ""  # there are systems that do not say, if it has left
    if ":" not in host:
        return host
    found = ipaddress.IPv6Address(host.partition("%")[0])
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return found.packed[:8].hex(":", 2)
