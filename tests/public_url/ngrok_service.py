"""A stand-in for ngrok's own service, as far as the real SDK needs one: muxado frames over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

_RST, _DATA, _WINDOW, _GO_AWAY = range(4)
_FIN, _SYN = 1, 2
_AUTH, _BIND, _UNBIND, _PROXY = range(4)
_HEARTBEAT = 0xFFFFFFFF


@dataclass
class NgrokService:
    """What it answers may be changed under way; what it was asked is kept."""

    port: int = 0
    url: str = "https://here.example.app"
    auth_error: str = ""
    bind_error: str = ""
    is_silent: bool = False
    """Take requests, and answer none."""
    requests: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    lines: set[Line] = field(default_factory=set)
    """Connections that are open."""

    def answer(self, kind: int, request: dict[str, Any]) -> dict[str, Any]:
        if kind == _AUTH:
            return {
                "Version": "2",
                "ClientId": "client",
                "Error": self.auth_error,
                "Extra": {"Version": "prod", "Region": "eu", "Cookie": "", "AccountName": ""},
            }
        if kind == _BIND:
            return {
                "ClientID": "listener",
                "Id": "listener",
                "URL": self.url,
                "Proto": "https",
                "Opts": request["Opts"],
                "BindOpts": request["Opts"],
                "Extra": {"Token": "bind-token"},
                "Error": self.bind_error,
            }
        return {"Error": "", "Extra": {}}

    @property
    def tokens(self) -> list[str]:
        """The authtokens of the sessions that were asked for."""
        return [body["Extra"]["AuthToken"] for kind, body in self.requests if kind == _AUTH]

    @property
    def binds(self) -> list[dict[str, Any]]:
        """The listeners that were asked for."""
        return [body for kind, body in self.requests if kind == _BIND]

    @property
    def unbound(self) -> int:
        """How often it was asked to end a listener."""
        return sum(kind == _UNBIND for kind, _ in self.requests)

    def cut(self) -> None:
        """Break all connections."""
        for line in list(self.lines):
            line.writer.transport.abort()


@dataclass(eq=False)
class Line:
    """One connection of an SDK."""

    service: NgrokService
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    streams: dict[int, bytearray] = field(default_factory=dict)
    _next: int = 2
    _answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self) -> None:
        while True:
            head = await self.reader.readexactly(8)
            first, stream = struct.unpack(">II", head)
            body = await self.reader.readexactly(first >> 8)
            kind, flags = first >> 4 & 15, first & 15
            if kind == _GO_AWAY:
                return
            if kind == _DATA:
                self._take(stream, flags, body)

    def send(self, kind: int, stream: int, body: bytes, flags: int = 0) -> None:
        self.writer.write(struct.pack(">II", len(body) << 8 | kind << 4 | flags, stream) + body)

    def _take(self, stream: int, flags: int, body: bytes) -> None:
        held = self.streams.setdefault(stream, bytearray())
        held += body
        self._answered.set()
        if len(held) < 4 or stream % 2 == 0:
            return
        kind = struct.unpack(">I", held[:4])[0]
        if kind == _HEARTBEAT:
            beats = bytes(held[4:])
            del held[4:]
            if beats:
                self.send(_DATA, stream, beats)
            return
        with contextlib.suppress(ValueError):  # not the whole of it yet
            request = json.loads(held[4:])
            held.clear()
            self.service.requests.append((kind, request))
            self.service.asked.set()
            if not self.service.is_silent:
                answer = json.dumps(self.service.answer(kind, request)).encode()
                self.send(_DATA, stream, answer, _FIN)

    async def forward(self, data: bytes, until: bytes) -> bytes:
        """What the SDK answers to what came from the public side, as soon as `until` is in it."""
        stream, self._next = self._next, self._next + 2
        head = {
            "Id": "listener",
            "ClientAddr": "203.0.113.1:4242",
            "Proto": "https",
            "EdgeType": "3",
            "PassthroughTLS": False,
        }
        header = json.dumps(head).encode()
        kind, size = struct.pack(">I", _PROXY), struct.pack("<q", len(header))
        self.send(_DATA, stream, kind + size + header + data, _SYN)
        while until not in (answer := self.streams.get(stream, b"")):
            self._answered.clear()
            await self._answered.wait()
        return bytes(answer)


@asynccontextmanager
async def ngrok_service(cert: str, key: str) -> AsyncIterator[NgrokService]:
    service = NgrokService()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(service, reader, writer)
        service.lines.add(line)
        try:
            await line.serve()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            service.lines.discard(line)
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    service.port = server.sockets[0].getsockname()[1]
    try:
        yield service
    finally:
        server.close()
        service.cut()
        while service.lines:
            await asyncio.sleep(0)
