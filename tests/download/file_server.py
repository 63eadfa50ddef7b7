"""A file server over raw sockets that is right by default, and lies where a test tells it to.

versions = [Version(make_body(10_000, seed=0)), Version(make_body(9_000, seed=1))]
async with FileServer(versions, {2: Lie(status=503), 3: Lie(if_range=False)}) as server:
    ...  # server.url(); the second request is turned away, the third is lied to
    server.switch(1)  # from now on it has the other version
    assert server.requests[0].range is None
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from typing import Literal, Self, TypeAlias

DATE = 1_750_000_000.0
"""What the server's clock says (Unix seconds)."""

CHUNK = 64 * 1024
LAST_CHUNK = b"0\r\nX-End: yes\r\n\r\n"
# For `Lie.cut`, where a chunked body is cut.
IN_TRAILER = -len(b" yes\r\n\r\n")
BEFORE_LAST_CHUNK = -len(LAST_CHUNK)
IN_CHUNK = BEFORE_LAST_CHUNK - len(b"x\r\n")

_CREDENTIALS = {"authorization", "proxy-authorization", "cookie", "token", "apikey", "x-api-key"}


def make_body(size: int, seed: int) -> bytes:
    """Bytes that say where they are from: a mix of two bodies is never one of them by chance.

    Bodies of seeds in a row differ at every single position, and a body is the start of every
    longer one of its seed. Within one there is no pattern: moved, it is another one.
    """
    draw = random.Random(seed // 256)
    noise = draw.randbytes(-(-size // 4) * 4)[:size]
    return noise.translate(bytes((value + seed) % 256 for value in range(256)))


def http_date(seconds: float) -> str:
    """Unix seconds as a header has them."""
    return formatdate(seconds, usegmt=True)


@dataclass(frozen=True, slots=True)
class Version:
    """One content of the file."""

    body: bytes = field(repr=False)
    etag: str | None = ""
    """With its quotes; empty: a strong one made of the body; None: none."""
    modified: float | None = DATE - 86_400
    """None: no Last-Modified."""

    def tag(self) -> str | None:
        """Its ETag."""
        return self.etag if self.etag != "" else f'"{hashlib.sha256(self.body).hexdigest()[:16]}"'


@dataclass(slots=True)
class Request:
    """What a client asked."""

    number: int
    """From 1, over all connections."""
    method: str
    target: str
    headers: dict[str, str]
    """By names in lower case."""
    raw: bytes = field(repr=False)
    status: int | None = None
    """What it got."""

    @property
    def range(self) -> str | None:
        return self.headers.get("range")

    @property
    def if_range(self) -> str | None:
        return self.headers.get("if-range")

    @property
    def credentials(self) -> set[str]:
        """The names of headers and query parameters that must not be sent to a file server."""
        query = re.findall(r"[?&]([^=&]+)=", self.target)
        return _CREDENTIALS & {*self.headers, *(name.lower() for name in query)}


@dataclass(frozen=True, kw_only=True)
class Lie:
    """How the answer to one request differs from the right one; every field alone does something.

    A status that is not the file's (`Lie(status=503, headers={"Retry-After": "1"})`), a redirect
    (`Lie(status=302, headers={"Location": "/other"})`), a weak ETag
    (`Lie(headers={"ETag": 'W/"x"'})`), no ranges announced
    (`Lie(headers={"Accept-Ranges": None})`), a cut (`Lie(cut=100)`), ...
    """

    version: int | None = None
    """Another version than the one that the server has now."""
    status: int | None = None
    """An answer without the file. With 416 comes `Content-Range: bytes */size`."""
    headers: Mapping[str, str | None] = field(default_factory=dict)
    """These instead of, or beside, the right ones; None leaves one out."""
    more_headers: Sequence[tuple[str, str]] = ()
    """These too, whatever is there already."""
    ranges: bool = True
    """False: 200 and everything, whatever range is asked for."""
    if_range: bool = True
    """False: the range, whatever `If-Range` says."""
    unasked: tuple[int, int] | None = None
    """206 with these bytes (first, last) to a request that asked for no range."""
    served: Callable[[int, int], tuple[int, int]] | None = None
    """Other bytes (first, last) than those asked for; Content-Range names them rightly."""
    claim: Callable[[int, int, int], str | None] | None = None
    """What Content-Range says of the bytes (first, last, of how many) that are sent."""
    multipart: bool = False
    """A range as multipart/byteranges."""
    body: bytes | None = None
    """Something else than the file."""
    framing: Literal["length", "close", "chunked"] = "length"
    cut: int | None = None
    """So much of the framed body, or (negative) all but so much; the rest never comes."""
    extra: bytes = b""
    """Sent after the body."""
    interim: Sequence[bytes] = ()
    """Whole 1xx answers that come first."""
    drip: Callable[[], Awaitable[object]] | None = None
    """Awaited before each byte of the head."""
    in_one: bool = False
    """Head and body in one piece, as small ones come from most servers."""
    then: Literal["keep", "close", "hold"] | None = None
    """Serve on, close, or stay open and silent; if None, close after what breaks the connection."""


HONEST = Lie()
Lies: TypeAlias = Lie | Mapping[int, Lie] | Callable[[Request], Lie | None]
"""For every request, by number, or as the request is."""


@dataclass(slots=True)
class _Answer:
    status: int
    headers: dict[str, str | None]
    body: bytes


class FileServer:
    """Serves one file, in one of some versions, at every path."""

    def __init__(self, versions: Version | Sequence[Version], lies: Lies = HONEST) -> None:
        self.versions = [versions] if isinstance(versions, Version) else list(versions)
        self.lies = lies
        self.requests: list[Request] = []
        self.sent = 0
        """Bytes of bodies given to the network, for all requests."""
        self.port = 0
        self._current = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._defects: list[BaseException] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for _ in range(5):  # connections made just now get their tasks
            await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        await asyncio.sleep(0)  # aborted connections close their sockets
        if self._defects and exc[0] is None:
            raise self._defects[0]

    def url(self, path: str = "/files/backup.zip") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def switch(self, version: int) -> None:
        """Have this version from now on."""
        self._current = version

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._ended(task, writer))

    def _ended(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        self._tasks.discard(task)
        if not task.cancelled() and (defect := task.exception()):
            self._defects.append(defect)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while True:
                request = self._read(await reader.readuntil(b"\r\n\r\n"))
                self.requests.append(request)
                lie = self._lie(request)
                await self._send(writer, request, self._answer(request, lie), lie)
                match lie.then or _afterwards(request, lie):
                    case "hold":
                        await reader.read()
                        return
                    case "close":
                        writer.close()
                        await writer.wait_closed()
                        return

    def _read(self, raw: bytes) -> Request:
        first, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        headers = dict(line.split(":", 1) for line in lines)
        clean = {name.lower(): value.strip() for name, value in headers.items()}
        return Request(len(self.requests) + 1, method, target, clean, raw)

    def _lie(self, request: Request) -> Lie:
        if isinstance(self.lies, Lie):
            return self.lies
        if isinstance(self.lies, Mapping):
            return self.lies.get(request.number, HONEST)
        return self.lies(request) or HONEST

    # -- what is answered --------------------------------------------------------------------------

    def _answer(self, request: Request, lie: Lie) -> _Answer:
        version = self.versions[self._current if lie.version is None else lie.version]
        if lie.status is not None:
            headers = {"Content-Type": "text/plain"}
            if lie.status == 416:
                headers["Content-Range"] = f"bytes */{len(version.body)}"
            answer = _Answer(lie.status, {**headers}, f"this is a {lie.status}\n".encode())
        else:
            answer = self._file(request, lie, version)
        if lie.body is not None:
            answer.body = lie.body
        head: dict[str, str | None] = {"Date": http_date(DATE)}
        if lie.framing == "length":
            head["Content-Length"] = str(len(answer.body))
        elif lie.framing == "chunked":
            head["Transfer-Encoding"] = "chunked"
        answer.headers = head | answer.headers | dict(lie.headers)
        return answer

    def _file(self, request: Request, lie: Lie, version: Version) -> _Answer:
        size = len(version.body)
        headers: dict[str, str | None] = {
            "Content-Type": "application/zip",
            "Accept-Ranges": "bytes",
            "ETag": version.tag(),
            "Last-Modified": None if version.modified is None else http_date(version.modified),
        }
        span = lie.unasked
        if request.range is not None and lie.ranges and self._may_continue(request, lie, version):
            span = _span(request.range, size)
        if span is None:
            return _Answer(200, headers, version.body)
        if span[0] >= size:
            return _Answer(416, headers | {"Content-Range": f"bytes */{size}"}, b"")
        if lie.served is not None:
            span = lie.served(*span)
        first, last = span
        named = f"bytes {first}-{last}/{size}"
        headers["Content-Range"] = named if lie.claim is None else lie.claim(first, last, size)
        body = version.body[first : last + 1]
        if lie.multipart:
            headers["Content-Type"] = "multipart/byteranges; boundary=PART"
            part = f"--PART\r\nContent-Type: application/zip\r\nContent-Range: {named}\r\n\r\n"
            body = part.encode() + body + b"\r\n--PART--\r\n"
            headers["Content-Range"] = None
        return _Answer(206, headers, body)

    def _may_continue(self, request: Request, lie: Lie, version: Version) -> bool:
        """Whether `If-Range` holds (RFC 9110, 13.1.5): only strong validators do.

        It is the version that counts, not what a lie makes of its headers; but a Date counts.
        """
        wanted = request.if_range
        if wanted is None or not lie.if_range:
            return True
        if wanted.startswith(('"', "W/")):
            return wanted == version.tag() and not wanted.startswith("W/")
        if version.modified is None or wanted != http_date(version.modified):
            return False
        date = lie.headers.get("Date") or http_date(DATE)
        return parsedate_to_datetime(wanted) < parsedate_to_datetime(date)

    # -- how it is sent ----------------------------------------------------------------------------

    async def _send(
        self, writer: asyncio.StreamWriter, request: Request, answer: _Answer, lie: Lie
    ) -> None:
        request.status = answer.status
        headers = [(name, value) for name, value in answer.headers.items() if value is not None]
        lines = "".join(f"{name}: {value}\r\n" for name, value in [*headers, *lie.more_headers])
        head = f"HTTP/1.1 {answer.status} Status\r\n{lines}\r\n".encode("latin-1")
        body = _chunked(answer.body) if lie.framing == "chunked" else answer.body
        body = b"" if request.method == "HEAD" else body[: lie.cut] + lie.extra
        for interim in lie.interim:
            writer.write(interim)
        if lie.drip is not None:
            for byte in head:
                await lie.drip()
                writer.write(bytes([byte]))
                await writer.drain()
            head = b""
        pieces = [head + body] if lie.in_one else [head, body]
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        self.sent += len(body)


def _span(wanted: str, size: int) -> tuple[int, int] | None:
    """The bytes (first, last) of a single range; None for what may be, and is, ignored."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted)
    if found is None or found[0] == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        length = min(int(last), size)
        return (size - length, size - 1) if length else (size, size)
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last), size - 1) if last else size - 1


def _chunked(body: bytes) -> bytes:
    pieces = (body[start : start + CHUNK] for start in range(0, len(body), CHUNK))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + LAST_CHUNK


def _afterwards(request: Request, lie: Lie) -> Literal["keep", "close"]:
    headers = {*lie.headers, *dict(lie.more_headers)}
    is_broken = lie.framing == "close" or lie.cut is not None or "Content-Length" in headers
    wants_close = request.headers.get("connection", "").lower() == "close"
    return "close" if is_broken or lie.extra or wants_close else "keep"
