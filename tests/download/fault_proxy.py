"""A TCP proxy that cuts, stalls, corrupts and slows, connection by connection, as a test says.

    async with FaultProxy("127.0.0.1", port, [Reset(1000), Stall(0, in_body=True)]) as proxy:
        ...  # the first connection is reset after 1,000 bytes, the second stalls after its head,
        ...  # all others pass

Bytes are those of the response, towards the client. What a fault says happens after exactly that
many have reached the client, and not before the server has begun to answer.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self, TypeAlias

CHUNK = 256 * 1024
BLANK_LINE = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class _At:
    after: int = 0
    """So many bytes have passed."""
    in_body: bool = False
    """Whether they are counted from the first blank line on, and not from the very start."""


class Close(_At):
    """No more bytes, and a FIN: the response is truncated, politely."""


class Reset(_At):
    """No more bytes, and an RST."""


class Refuse(_At):
    """An RST as soon as the connection is there (if it comes first); the server hears nothing."""


@dataclass(frozen=True, slots=True)
class Stall(_At):
    """Silence, until the event is set if there is one; else until client or proxy close."""

    until: asyncio.Event | None = None


@dataclass(frozen=True, slots=True)
class Corrupt(_At):
    """The next bytes are these instead, or as many as `count` have all their bits flipped."""

    data: bytes = b""
    count: int = 1


@dataclass(frozen=True, slots=True)
class Trickle(_At):
    """The rest comes in pieces of `size` bytes, each after another `pause`."""

    pause: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0)
    size: int = 1


Fault: TypeAlias = Close | Reset | Refuse | Stall | Corrupt | Trickle
Script: TypeAlias = Fault | Sequence[Fault] | None
"""What happens to one connection, in this order; None: nothing."""
Plan: TypeAlias = Iterable[Script] | Callable[[int], Script]
"""A script for each connection in turn, after which all pass; or for each number from 1."""


class FaultProxy:
    """Stands before a server, at 127.0.0.1 and a port of its own."""

    def __init__(self, host: str, port: int, plan: Plan = ()) -> None:
        self._target = (host, port)
        self._scripts = _scripts(plan)
        self._listener = socket.socket()
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._defects: list[BaseException] = []
        self.port = 0
        self.connections = 0
        """How many there were."""
        self.sent = 0
        """Bytes towards clients."""
        self.received = 0
        """Bytes from clients."""
        self.acted: list[tuple[int, Fault]] = []
        """Each fault that came about, with the number of its connection (from 1)."""

    async def __aenter__(self) -> Self:
        self._listener.setblocking(False)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self.port = self._listener.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        return self

    async def __aexit__(self, *exc: object) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._defects and exc[0] is None:
            raise self._defects[0]

    def url(self, path: str = "/files/backup.zip") -> str:
        """The address of a file behind it."""
        return f"http://127.0.0.1:{self.port}{path}"

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something that depends on the counts, such as `lambda: proxy.sent > 1000`."""
        while not holds():
            self._news.clear()
            await self._news.wait()

    def _accept(self) -> None:
        with suppress(BlockingIOError, ConnectionAbortedError):
            client, _ = self._listener.accept()
            self.connections += 1
            task = asyncio.create_task(self._serve(self.connections, client))
            self._tasks.add(task)
            task.add_done_callback(lambda task: self._ended(task, client))
            self._news.set()

    def _ended(self, task: asyncio.Task[None], client: socket.socket) -> None:
        client.close()
        self._tasks.discard(task)
        if not task.cancelled() and (defect := task.exception()):
            self._defects.append(defect)

    async def _serve(self, number: int, client: socket.socket) -> None:
        script = next(self._scripts)
        with suppress(OSError), socket.socket() as server:
            for each in (client, server):
                each.setblocking(False)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # An RST when it is closed; after a FIN that was answered, that makes no difference.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if script and isinstance(script[0], Refuse):
                self._tell(number, script[0])
                return
            await asyncio.get_running_loop().sock_connect(server, self._target)
            request = asyncio.create_task(self._pass_request(client, server))
            answer = asyncio.create_task(self._pass_answer(number, script, server, client))
            both: set[asyncio.Task[bool]] = {request, answer}
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if answer.done() and answer.result():
                    await request
            finally:
                for task in both:
                    task.cancel()
                await asyncio.gather(*both, return_exceptions=True)

    async def _pass_request(self, client: socket.socket, server: socket.socket) -> bool:
        """Until the client closes; what the server still has to say then interests nobody."""
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(client, CHUNK):
            self.received += len(data)
            await loop.sock_sendall(server, data)
        return True

    async def _pass_answer(
        self, number: int, script: Sequence[Fault], server: socket.socket, client: socket.socket
    ) -> bool:
        """Whether a FIN ended it, so that the client is to close now."""
        answer = _Answer(server, client, self._count)
        for fault in script:
            if not await answer.pass_until(fault):
                break
            self._tell(number, fault)
            match fault:
                case Close():
                    break
                case Reset() | Refuse():
                    await _wait_for_delivery(client)
                    return False
                case Stall():
                    await (fault.until or asyncio.Event()).wait()
                case Corrupt():
                    await answer.corrupt(fault)
                case Trickle():
                    await answer.trickle(fault)
        else:
            await answer.pass_all()
        client.shutdown(socket.SHUT_WR)
        return True

    def _count(self, size: int) -> None:
        self.sent += size
        self._news.set()

    def _tell(self, number: int, fault: Fault) -> None:
        self.acted.append((number, fault))
        self._news.set()


class _Answer:
    """The bytes of one connection on their way to the client."""

    def __init__(
        self, server: socket.socket, client: socket.socket, count: Callable[[int], None]
    ) -> None:
        self._server, self._client, self._count = server, client, count
        self._position = 0
        self._head = b""
        """All so far, until a blank line ends it."""
        self._held = b""
        """Received, but not sent."""

    async def pass_until(self, at: _At) -> bool:
        """Pass bytes on up to there; False when there are not so many."""
        while at.in_body and not self._head.endswith(BLANK_LINE):
            if not await self._pass(1):
                return False
        goal = at.after + (len(self._head) if at.in_body else 0)
        if not goal:
            self._held = await self._more(1)
            return bool(self._held)
        while self._position < goal:
            if not await self._pass(goal - self._position):
                return False
        return True

    async def pass_all(self) -> None:
        while await self._pass(CHUNK):
            pass

    async def corrupt(self, fault: Corrupt) -> None:
        for index in range(len(fault.data) or fault.count):
            right = await self._more(1)
            if not right:
                break
            await self._send(fault.data[index : index + 1] or bytes([right[0] ^ 0xFF]))

    async def trickle(self, fault: Trickle) -> None:
        while piece := await self._more(fault.size):
            await fault.pause()
            await self._send(piece)

    async def _pass(self, most: int) -> bool:
        data = await self._more(min(most, CHUNK))
        await self._send(data)
        return bool(data)

    async def _more(self, most: int) -> bytes:
        if self._held:
            data, self._held = self._held[:most], self._held[most:]
            return data
        return await asyncio.get_running_loop().sock_recv(self._server, most)

    async def _send(self, data: bytes) -> None:
        if not self._head.endswith(BLANK_LINE) and len(self._head) < CHUNK:
            head, end, _ = (self._head + data).partition(BLANK_LINE)
            self._head = head + end
        await asyncio.get_running_loop().sock_sendall(self._client, data)
        self._position += len(data)
        self._count(len(data))


def _scripts(plan: Plan) -> Iterator[Sequence[Fault]]:
    number, given = 0, None if callable(plan) else iter(plan)
    while True:
        number += 1
        script = plan(number) if callable(plan) else next(given or iter(()), None)
        yield () if script is None else (script,) if isinstance(script, _At) else script


async def _wait_for_delivery(client: socket.socket) -> None:
    """An RST drops what is still on its way; nothing is, once all was acknowledged."""
    while struct.unpack("i", fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)))[0]:
        await asyncio.sleep(0.001)
