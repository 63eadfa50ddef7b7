"""The raw side of a connection: break it, hold it, write what no HTTP library would."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus

from aiohttp import web

__all__ = ["Gone", "Line"]

_BUFFERED = 1024 * 1024
_LOOK_AGAIN = 0.02
"""Seconds between two looks at whether the peer is still there: aiohttp does not tell a handler."""


class Gone(Exception):  # noqa: N818 - not an error: a reason to stop
    """There will be no answer (any more) on this connection."""


class Line:
    """One request's connection."""

    def __init__(self, request: web.Request, closing: asyncio.Event) -> None:
        self._request = request
        self._closing = closing

    @property
    def is_open(self) -> bool:
        """Whether the peer is there, and the sandbox is not closing."""
        transport = self._request.transport
        return not (self._closing.is_set() or transport is None or transport.is_closing())

    async def pause(self, seconds: float) -> None:
        """Wait, unless the sandbox closes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
            raise Gone

    async def hold(self) -> None:
        """Do nothing until the peer leaves or the sandbox closes, then reset."""
        while self.is_open:
            await self.pause(_LOOK_AGAIN)
        self.reset()

    def reset(self) -> None:
        """Break the connection: the peer sees a reset."""
        transport = self._request.transport
        if transport is None:
            return
        sock = transport.get_extra_info("socket")
        if sock is not None:
            with suppress(OSError):  # the peer may be gone
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    def close(self) -> None:
        """Send what is written, then close."""
        if self._request.transport is not None:
            self._request.transport.close()

    def write_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Write a status line and headers exactly as given."""
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._write("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))

    async def write_all(self, pieces: Iterable[bytes], pause: float = 0.0) -> None:
        """Write the pieces, no faster than the peer takes them."""
        for piece in pieces:
            self._write(piece)
            await self.flush(_BUFFERED)
            if pause:
                await self.pause(pause)

    def _write(self, data: bytes) -> None:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise Gone
        transport.write(data)

    async def flush(self, left: int = 0) -> None:
        """Wait until no more than `left` bytes are still to be sent."""
        transport = self._request.transport
        while transport is not None and transport.get_write_buffer_size() > left:
            if not self.is_open:
                raise Gone
            await asyncio.sleep(_LOOK_AGAIN / 10)
