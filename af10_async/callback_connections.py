"""Connections that callbacks may come by, and whose turn it is among them."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any, cast


class Connection:
    """One connection, from when it was accepted."""

    __slots__ = ("_task", "_transport", "among", "needs", "origin", "owns_socket", "socket")

    def __init__(self, accepted: socket.socket, origin: str) -> None:
        self.socket = accepted
        """Ours until there is a transport."""
        self.origin = origin
        """Where it comes from; see `origin_of`."""
        self.among: ByOrigin | None = None
        """What it is counted with."""
        self.needs = 1
        """Bytes that must have arrived before it is looked at again."""
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self.owns_socket = False
        """Whether there is a transport, which closes the socket."""

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
        if self._transport is not None:
            self._transport.abort()
        elif self._task is not None:
            self._task.cancel()
        elif not self.owns_socket:
            self.socket.close()


class ByOrigin:
    """Connections in the order in which they came, by where they come from.

    Each origin has its turn, however few connections it has; and those of whoever has most go
    first. So a flood waits for itself and displaces its own, and not those of others, who may be
    far away and slow.
    """

    def __init__(self) -> None:
        self._by_origin: dict[str, dict[Connection, None]] = {}
        """The origin whose turn it is comes first."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, connection: Connection) -> None:
        """Take it in; it is among no others any more."""
        if connection.among is not None:
            connection.among.discard(connection)
        connection.among = self
        self._by_origin.setdefault(connection.origin, {})[connection] = None
        self._count += 1

    def discard(self, connection: Connection) -> None:
        """Forget it, if it is here."""
        if connection.among is not self:
            return
        connection.among = None
        self._count -= 1
        group = self._by_origin[connection.origin]
        del group[connection]
        if not group:
            del self._by_origin[connection.origin]

    def pop_next(self) -> Connection:
        """The oldest of the origin whose turn it is; there must be one."""
        origin = next(iter(self._by_origin))
        group = self._by_origin.pop(origin)
        self._by_origin[origin] = group
        found = next(iter(group))
        self.discard(found)
        return found

    def all(self) -> list[Connection]:
        """Every one."""
        return [each for group in self._by_origin.values() for each in group]

    @property
    def largest(self) -> int:
        """How many the origin has that has most."""
        return max(map(len, self._by_origin.values()), default=0)

    def oldest(self) -> Connection | None:
        """Of the origin that has most; None when there is none at all."""
        largest = max(self._by_origin.values(), key=len, default=None)
        return next(iter(largest)) if largest else None


def origin_of(address: Any) -> str:
    """Where a peer comes from: its IPv4 address; of IPv6, the /64, which one customer has whole."""
    host = str(address[0])
    if ":" not in host:
        return host
    found = ipaddress.IPv6Address(host.partition("%")[0])
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return found.packed[:8].hex(":", 2)
