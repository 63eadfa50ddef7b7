"""A server of callbacks: connections that were accepted, with aiohttp's HTTP on them."""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from typing import cast

from aiohttp import HttpVersion11, http_parser, web
from aiohttp.abc import AbstractStreamWriter

from .acceptor import Acceptor
from .admission import forget_traceback
from .callback_aiohttp import AiohttpRequest
from .callback_connections import Connection
from .protocol.answers import Answer, answer
from .protocol.callbacks import MAX_TARGET_LENGTH
from .protocol.openings import head_needs
from .receiving import Handle
from .runtime import Runtime
from .shelter import all_ended, to_its_end

logger = logging.getLogger("af10_async.callback_server")

_SHUTDOWN_SECONDS = 5.0
"""For the requests under way, when the server closes."""
_TURNS = 3
"""Turns of the loop after which what has arrived is read, and begins to be handled."""
_SERVER = "af10_async"
_BLOCK = 16 * 1024
"""Bytes that are read at a time."""


class Listening:
    """A server that gives each request the answer that `handle` gives for it.

    Args:
        handle: Says what to answer to a request.
        keep_alive: Seconds that a connection may have no request under way.
        most: Most connections at a time; see `Acceptor`.
        on_death: Called when it cannot listen any more.
        runtime: Time and sleep.

    """

    def __init__(
        self,
        handle: Handle,
        *,
        keep_alive: float,
        most: int | None,
        on_death: Callable[[], None],
        runtime: Runtime,
    ) -> None:
        if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
            logger.warning(
                "aiohttp runs without its C extensions here: its parser in Python is slower, and"
                " less strict; install a wheel of aiohttp, and unset AIOHTTP_NO_EXTENSIONS"
            )
        self._handle = handle
        self._answering: set[asyncio.Task[object]] = set()
        self._server = _Server(self._answer, keep_alive)
        self._acceptor = Acceptor(
            self._server.protocol,
            needs=head_needs,
            patience=keep_alive,
            most=most,
            on_death=on_death,
            runtime=runtime,
        )
        self._server.acceptor = self._acceptor

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        """Listen; raises `OSError`, with nothing left half-started."""
        await self._acceptor.start(host, port, tls)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._acceptor.port

    async def close(self) -> None:
        """Finish the requests under way, within some seconds, and leave no connection."""
        try:
            await self._acceptor.stop()
            with suppress(TimeoutError):
                async with asyncio.timeout(_SHUTDOWN_SECONDS):
                    await self._server.finish()
        finally:
            await to_its_end(self._abandon())

    async def _abandon(self) -> None:
        """End what is left, at once."""
        self._server.drop_all()
        if self._answering:
            logger.warning(
                "the callback server closes before %d requests are answered", len(self._answering)
            )
            await all_ended(list(self._answering))
        await self._server.gone()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None  # aiohttp makes one for each request
        protocol = self._server.protocol_of(request)
        self._answering.add(task)
        try:
            found = await self._handle(AiohttpRequest(request, request.raw_path))
        finally:
            self._answering.discard(task)
        # A body would be odd, but is no reason to lose the callback: it is just not read.
        return _Response(found, close=request.body_exists, on_sent=protocol.has_answered)


class _AiohttpLog(logging.LoggerAdapter[logging.Logger]):
    """aiohttp logs a traceback, with the request in it, for each malformed request: not here."""

    def log(self, level: int, msg: object, *args: object, **kwargs: object) -> None:
        logger.debug("a malformed request was turned away")


class _Protocol(web.RequestHandler):
    """One connection, with two habits of aiohttp's taken away.

    Its own answer to a malformed request repeats it, and names versions. And it waits for ever for
    a peer that does not take its answers: here that ends after `keep_alive`, too.
    """

    __slots__ = ("_untaken", "acceptor", "connection")

    acceptor: Acceptor
    connection: Connection
    _untaken: asyncio.TimerHandle | None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is told at once of answers that the peer does not take."""
        self._untaken = None
        if self.connection.is_dropped:  # while there was none to end yet
            cast(asyncio.Transport, transport).abort()
            return
        self.connection.is_made(transport)
        cast(asyncio.Transport, transport).set_write_buffer_limits(high=1)
        if hasattr(transport, "max_size"):
            # Asyncio reads a quarter of a megabyte at a time, which an endless head would hold.
            transport.max_size = _BLOCK
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Who has a request here is busy, before it is its turn."""
        super().data_received(data)
        if self._messages and self._untaken is None:
            self.acceptor.admission.is_busy(self.connection)

    def has_answered(self) -> None:
        """The answer is sent; what came behind the request may be here already."""
        admission = self.acceptor.admission
        (admission.is_busy if self._messages else admission.is_idle)(self.connection)

    def pause_writing(self) -> None:
        """There is an answer that the peer has not taken: that is no request under way."""
        super().pause_writing()
        self.acceptor.admission.is_idle(self.connection)
        self._untaken = self._loop.call_later(self.keepalive_timeout, self.connection.drop)

    def resume_writing(self) -> None:
        """Now it has."""
        super().resume_writing()
        self._forget_untaken()

    def connection_lost(self, exc: BaseException | None) -> None:
        """There is no peer any more, nor an answer to what it sent in vain."""
        self._forget_untaken()
        super().connection_lost(exc)
        for message, _ in self._messages:  # those that were not handled any more
            forget_traceback(getattr(message, "exc", None))

    def _forget_untaken(self) -> None:
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is answered when there is no request to handle, or when handling it failed."""
        forget_traceback(exc)  # with all that was received, in a cycle
        if status < 500:
            self.logger.debug("a malformed request was turned away")
            return _Response(answer(400), close=True)
        logger.error("a request could not be handled: %s", type(exc).__name__)
        return _Response(answer(503), close=True)


class _Server(web.Server):
    """The low-level server: every request, whatever its target, goes to one handler."""

    acceptor: Acceptor

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        keep_alive: float,
    ) -> None:
        super().__init__(handler)
        self._keep_alive = keep_alive
        self._open: set[_Protocol] = set()
        self._all_gone = asyncio.Event()

    def protocol(self, connection: Connection) -> web.RequestHandler:
        """What speaks HTTP on one connection."""
        made = _Protocol(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # documented so; it would print the query
            logger=_LOG,  # type: ignore[arg-type] # it has the methods of a Logger
            keepalive_timeout=self._keep_alive,
            lingering_time=0.0,
            max_line_size=MAX_TARGET_LENGTH + 64,
            max_field_size=4096,
            max_headers=64,
            auto_decompress=False,
        )
        made.acceptor, made.connection = self.acceptor, connection
        return made

    def protocol_of(self, request: web.BaseRequest) -> _Protocol:
        """By which one a request came."""
        protocol = request.protocol
        assert isinstance(protocol, _Protocol)  # no other is made
        return protocol

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Remember it: aiohttp forgets a connection before its TLS has ended."""
        super().connection_made(handler, transport)
        assert isinstance(handler, _Protocol)
        self._open.add(handler)
        self._all_gone.clear()

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        """Forget it."""
        super().connection_lost(handler, exc)
        assert isinstance(handler, _Protocol)
        self.acceptor.admission.is_gone(handler.connection)
        self._open.discard(handler)
        if not self._open:
            self._all_gone.set()

    async def finish(self) -> None:
        """Answer what has arrived, and wait until no connection is left."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        self.pre_shutdown()
        await self.shutdown(None)
        await self.gone()

    def drop_all(self) -> None:
        """End every connection now."""
        for handler in self._open:
            handler.connection.drop()

    async def gone(self) -> None:
        """Wait until no connection is left."""
        if self._open:
            await self._all_gone.wait()


_LOG = _AiohttpLog(logger)


class _Response(web.StreamResponse):
    """An answer whose bytes are known beforehand, but for the date."""

    def __init__(
        self, found: Answer, *, close: bool, on_sent: Callable[[], None] | None = None
    ) -> None:
        # All that aiohttp's own would set up is about headers and bodies that are still to be made.
        self._found = found
        self._on_sent = on_sent
        self._close = close or found.status >= 400
        self._request: web.BaseRequest | None = None

    @property
    def keep_alive(self) -> bool:
        """Whether the connection goes on afterwards."""
        return not self._close

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """It is sent at its end."""
        self._request = request
        self._close = self._close or not request.keep_alive
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Send it, and wait while the peer does not take what was sent."""
        assert self._request is not None  # it was prepared
        start, rest = _message(
            self._found,
            is_old=self._request.version < HttpVersion11,
            closes=self._close,
            has_body=self._request.method != "HEAD",
        )
        await self._request.writer.write_eof(start + _date(int(time.time())) + rest)
        if self._on_sent is not None:
            self._on_sent()


@functools.lru_cache(maxsize=64)
def _message(found: Answer, *, is_old: bool, closes: bool, has_body: bool) -> tuple[bytes, bytes]:
    """What stands before and after the date."""
    line = f"HTTP/1.{0 if is_old else 1} {found.status} {HTTPStatus(found.status).phrase}"
    lines = [line, f"Server: {_SERVER}", "Content-Type: text/plain; charset=utf-8"]
    lines += [f"{name}: {value}" for name, value in found.headers]
    lines += [f"Content-Length: {len(found.text)}"]
    if closes:
        lines.append("Connection: close")
    elif is_old:
        lines.append("Connection: keep-alive")
    start = "\r\n".join([*lines, "Date: "])
    return start.encode(), f"\r\n\r\n{found.text if has_body else ''}".encode()


@functools.lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()
