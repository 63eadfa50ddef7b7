"""Peers that do to a callback server whatever they like, by raw sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Self

import psutil  # type: ignore[import-untyped]

from af10_async.protocol.lifecycle import Event, Transition
from af10_async.stores import MemoryStore

from .conftest import GatedStore


class Peers(ExitStack):
    """Connections to a port, closed at the end."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    def connect(self, data: bytes = b"", *, room: int | None = None) -> socket.socket:
        """One more, which has sent `data`; the system takes it in before the server does.

        `room` makes the buffer small for what it has not read.
        """
        made = self.enter_context(socket.socket())
        if room is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        made.connect(("127.0.0.1", self._port))
        made.sendall(data)
        made.setblocking(False)
        return made

    def __enter__(self) -> Self:
        super().__enter__()
        return self


def is_open(peer: socket.socket) -> bool:
    """Whether the server has neither answered nor closed it."""
    try:
        peer.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    return False


async def to_the_end(peer: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    got = bytearray()
    async with asyncio.timeout(20):
        with suppress(ConnectionError):
            while part := await asyncio.get_running_loop().sock_recv(peer, 65536):
                got += part
    return bytes(got)


def reset(peer: socket.socket) -> None:
    """Leave without a goodbye."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens soon."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def open_sockets() -> int:
    """How many this process has. Other descriptors are the event loop's."""
    count = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists them is gone by now
            count += str(each.readlink()).startswith("socket:")
    return count


@asynccontextmanager
async def as_many_sockets_as_before() -> AsyncIterator[None]:
    """At its end, soon, there are as many sockets as at its beginning."""
    before = open_sockets()
    yield
    await until(lambda: open_sockets() <= before)


def listening_at(port: int) -> list[socket.socket]:
    """More handles of the sockets with which this process listens there."""
    found = psutil.Process().net_connections("tcp")
    listening = [
        each.fd for each in found if each.status == psutil.CONN_LISTEN and each.laddr.port == port
    ]
    return [socket.socket(fileno=os.dup(each)) for each in listening]


def break_listening(port: int) -> None:
    """As by a fault of the system: it listens no more, and whoever accepts is told so."""
    for each in listening_at(port):
        with each:
            each.shutdown(socket.SHUT_RDWR)


class GatedJob(MemoryStore):
    """Keeps nothing for one key before the gate is opened; for others, it does."""

    is_immediate = False

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = key
        self.gate = asyncio.Event()
        self.waiting = 0

    async def apply(self, key: str, event: Event) -> Transition | None:
        if key == self._key:
            self.waiting += 1
            await self.gate.wait()
        return await super().apply(key, event)


class LateStore(GatedStore):
    """Keeps nothing before somebody has given up, and everything from then on."""

    async def apply(self, key: str, event: Event) -> Transition | None:
        try:
            return await super().apply(key, event)
        except asyncio.CancelledError:
            self.gate.set()
            raise
