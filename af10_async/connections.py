"""Connections for httpcore, made of asyncio's own transports.

httpcore takes its connections from a network backend (a documented extension point). Its usual one
goes through anyio, which costs a good part of a request's time. Beside speed, these connections
offer one thing more: once the head of an answer has been read, the body can be taken straight off
the socket into large blocks (`AsyncioStream.take_body`), past httpcore and h11, for which every few
kilobytes are an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any

import aiohappyeyeballs
import httpcore

from .body import GONE, Body, wake

_HIGH_WATER = 256 * 1024
_LOW_WATER = 64 * 1024
_HEAD_END = re.compile(rb"\n\r?\n")
_INTERIM_HEAD = re.compile(rb"HTTP/1\.\d 1")
_EYEBALLS_DELAY = 0.25
"""Seconds after which the next address of a name is tried as well (RFC 8305)."""


class _Line(asyncio.Protocol):
    """One connection, as asyncio sees it, while httpcore reads it piece by piece."""

    def __init__(self) -> None:
        self.transport: Any = None
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._is_paused = False
        self._is_ended = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._may_write = True

    # -- asyncio calls these -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        is_too_much = self._size > _HIGH_WATER and not self._is_paused
        if is_too_much and self.transport is not None:  # TLS may be just beginning
            self._is_paused = True
            self.transport.pause_reading()
        wake(self._reader)

    def eof_received(self) -> None:
        self._is_ended = True
        wake(self._reader)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_ended = True
        self._error = exc
        wake(self._reader)
        wake(self._writer)

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        wake(self._writer)

    # -- the stream calls these --------------------------------------------------------------------

    @property
    def is_readable(self) -> bool:
        """Whether a read would not wait: for an idle connection, that it was closed."""
        return bool(self._chunks) or self._is_ended

    @property
    def has_unread(self) -> bool:
        return bool(self._chunks)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    async def read(self, max_bytes: int, timeout: float | None) -> bytes:
        while not self._chunks:
            if self._error is not None:
                raise httpcore.ReadError("the connection broke")
            if self._is_ended:
                return b""
            self._reader = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout):
                    await self._reader
            except TimeoutError:
                raise httpcore.ReadTimeout("nothing came in time") from None
            finally:
                self._reader = None
        chunk = self._chunks.popleft()
        if len(chunk) > max_bytes:
            self._chunks.appendleft(chunk[max_bytes:])
            chunk = chunk[:max_bytes]
        self._size -= len(chunk)
        if self._is_paused and self._size < _LOW_WATER:
            self._is_paused = False
            self.transport.resume_reading()
        return chunk

    def give_back(self, data: bytes) -> None:
        """Let what was read be read once more."""
        self._chunks.appendleft(data)
        self._size += len(data)

    async def write(self, buffer: bytes, timeout: float | None) -> None:
        if self._is_ended or self.transport.is_closing():
            raise httpcore.WriteError(GONE)
        self.transport.write(buffer)
        while not self._may_write:
            if self._is_ended:
                raise httpcore.WriteError(GONE)
            self._writer = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout):
                    await self._writer
            except TimeoutError:
                raise httpcore.WriteTimeout("nothing left in time") from None
            finally:
                self._writer = None

    def hand_over(self, body: Body) -> None:
        """Let `body` have everything that is still to come; nobody may be reading."""
        for chunk in self._chunks:
            body.feed(chunk)
        self._chunks.clear()
        if self._is_ended:
            body.connection_lost(self._error)
            return
        self.transport.set_protocol(body)
        if self._is_paused and not body.is_paused:
            self.transport.resume_reading()


class AsyncioStream(httpcore.AsyncNetworkStream):
    """One connection, as httpcore sees it.

    With `splits_heads`, what follows the head of an answer is never given out together with it, so
    that the body can be taken.
    """

    def __init__(self, line: _Line, *, splits_heads: bool) -> None:
        self._line = line
        self._splits_heads = splits_heads
        self._head = b""
        self._is_in_head = self._is_after_head = False
        self._body_size = 0
        self.is_used = False
        """Whether something was sent."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """At most so many bytes; none at the end."""
        data = await self._line.read(max_bytes, timeout)
        self._is_after_head = False
        if self._is_in_head:
            return self._up_to_head_end(data)
        self._body_size += len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send; waits when the other side does not take it."""
        self.is_used, self._is_in_head, self._head = True, self._splits_heads, b""
        if buffer:
            await self._line.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close, without waiting for anybody."""
        self._line.transport.abort()
        await asyncio.sleep(0)  # for the socket to be closed when this returns

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """The same connection, from now on with TLS."""
        line = _Line()
        try:
            async with asyncio.timeout(timeout):
                line.transport = await asyncio.get_running_loop().start_tls(
                    self._line.transport, line, ssl_context, server_hostname=server_hostname
                )
        except TimeoutError:
            self._line.abort()
            raise httpcore.ConnectTimeout("no TLS handshake in time") from None
        except OSError as error:  # ssl.SSLError is one
            self._line.abort()
            raise httpcore.ConnectError(str(error)) from error
        except BaseException:
            self._line.abort()
            raise
        return _opened(AsyncioStream(line, splits_heads=self._splits_heads))

    def abort(self) -> None:
        """Close at once."""
        self._line.abort()

    def get_extra_info(self, info: str) -> Any:
        """What httpcore asks about: its own names, and those of asyncio's transports."""
        if info == "is_readable":
            return self._line.is_readable
        name = {"client_addr": "sockname", "server_addr": "peername"}.get(info, info)
        return self._line.transport.get_extra_info(name)

    def take_body(self, length: int, block_size: int) -> Body | None:
        """Everything after the head that was just read, which is `length` bytes long.

        httpcore hears of none of it, so all that it can do with the connection afterwards is close
        it. None when more than the head was given out already.
        """
        if not self._is_after_head:
            return None
        self._is_after_head = False
        body = Body(self._line.transport, length, block_size)
        self._line.hand_over(body)
        return body

    def is_followed(self, length: int) -> bool:
        """Whether more than a body of `length` bytes came after the head, as far as it is here."""
        return self._body_size > length or self._line.has_unread

    def _up_to_head_end(self, data: bytes) -> bytes:
        start = len(self._head)
        self._head += data
        found = _HEAD_END.search(self._head, max(0, start - 2))
        if found is None:
            return data
        if _INTERIM_HEAD.match(self._head):
            self._head = b""  # another head follows it
        else:
            self._is_in_head, self._is_after_head = False, True
            self._body_size = 0
        end = found.end() - start
        if end < len(data):
            self._line.give_back(data[end:])
        return data[:end]


opened_streams: ContextVar[list[AsyncioStream] | None] = ContextVar("opened_streams", default=None)
"""Where whoever sends a request finds the connections that were made for it."""


def _opened(stream: AsyncioStream) -> AsyncioStream:
    if (streams := opened_streams.get()) is not None:
        streams.append(stream)
    return stream


AddressCheck = Callable[[Sequence[str]], None]
"""Raises when one of these addresses must not be connected to."""


class AsyncioBackend(httpcore.AsyncNetworkBackend):
    """Makes connections; see `AsyncioStream` for `splits_heads`.

    A name is resolved, all of its addresses are given to `check`, and what was checked is what is
    connected to: looking first and letting somebody else resolve again would leave a gap (DNS
    rebinding). The name stays the pool's key, and what the certificate is checked against.
    """

    def __init__(self, *, splits_heads: bool = False, check: AddressCheck | None = None) -> None:
        self._splits_heads = splits_heads
        self._check = check

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect; the addresses of a name are tried side by side (RFC 8305)."""
        try:
            async with asyncio.timeout(timeout):
                found = await _resolve(host, port)
                if self._check is not None:
                    self._check([str(each[4][0]) for each in found])
                local = await _resolve(local_address, 0) if local_address else None
                line = await _connect(found, local)
        except TimeoutError:
            raise httpcore.ConnectTimeout("no connection in time") from None
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from error
        with contextlib.suppress(OSError):  # options make it better, not possible
            for option in socket_options or ():
                line.transport.get_extra_info("socket").setsockopt(*option)
        return _opened(AsyncioStream(line, splits_heads=self._splits_heads))

    async def sleep(self, seconds: float) -> None:
        """Wait, as the pool asks between two attempts."""
        await asyncio.sleep(seconds)


async def _resolve(host: str, port: int) -> list[Any]:
    try:  # an address needs no thread that may block
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except OSError:
        loop = asyncio.get_running_loop()
        return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def _connect(found: list[Any], local: list[Any] | None) -> _Line:
    if not found:
        raise OSError("the name has no address")
    # asyncio can do the same, but forgets a socket when it is cancelled in the wrong moment.
    sock = await aiohappyeyeballs.start_connection(
        found, local_addr_infos=local, happy_eyeballs_delay=_EYEBALLS_DELAY
    )
    line = _Line()
    try:
        await asyncio.get_running_loop().create_connection(lambda: line, sock=sock)
    except BaseException:
        line.abort()
        sock.close()
        raise
    return line
