"""The aiohttp side of receiving callbacks: a server of its own, and an application to mount."""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from aiohttp import http_parser, web

from .acceptor import Acceptor, Connection
from .protocol.answers import Answer, answer
from .protocol.callbacks import MAX_TARGET_LENGTH
from .receiving import Handle, Receives
from .runtime import Runtime
from .shelter import all_ended, to_its_end

if TYPE_CHECKING:
    from multidict import CIMultiDict

logger = logging.getLogger("af10_async.callback_server")

_SHUTDOWN_SECONDS = 5.0
"""For the requests under way, when the server closes."""
_TURNS = 3
"""Turns of the loop after which what has arrived is read, and begins to be handled."""
_SERVER = "af10_async"


class AiohttpRequest:
    """A request of aiohttp, as the receiver wants to see it."""

    __slots__ = ("_request", "method", "target")

    def __init__(self, request: web.BaseRequest, target: str) -> None:
        self.method = request.method
        self.target = target
        self._request = request

    def peer(self) -> str | None:
        """The address at the other end of the connection."""
        transport = self._request.transport
        name = transport.get_extra_info("peername") if transport is not None else None
        return name[0] if isinstance(name, tuple) else None

    def header(self, name: str) -> Sequence[str]:
        """All values of a header, in order."""
        return self._request.headers.getall(name, ())


# -- inside an aiohttp app -------------------------------------------------------------------------


def application(receiver: Receives) -> web.Application:
    """An application that answers whatever is below where it is mounted."""
    app = web.Application()

    async def respond(request: web.Request) -> web.Response:
        found = await receiver.handle(AiohttpRequest(request, _below_mount(request)))
        # A body would be odd, but is no reason to lose the callback: it is just not read.
        return _response(found, close=request.body_exists)

    async def lifetime(app: web.Application) -> AsyncIterator[None]:
        if receiver.is_running:
            yield
            return
        async with receiver:
            yield

    app.router.add_route("*", _EVERYTHING, respond, expect_handler=_expect_nothing)
    app.cleanup_ctx.append(lifetime)
    return app


_EVERYTHING = "/{rest:.*}"


def _below_mount(request: web.Request) -> str:
    """Path below the mount and query, as they were sent.

    Where the path to the mount was sent in other letters than it has (`%77ebhooks`), all of it: the
    receiver knows the path of its public address, too.
    """
    resource = request.match_info.route.resource
    assert resource is not None  # every route has one, but those of aiohttp's own errors
    return request.raw_path.removeprefix(resource.canonical.removesuffix("/{rest}"))


async def _expect_nothing(request: web.Request) -> None:
    """Else the handler of aiohttp asks for the body, or turns the request away."""


# -- a server of its own ---------------------------------------------------------------------------


class Listening:
    """A server that gives each request the answer that `handle` gives for it.

    Args:
        handle: Says what to answer to a request.
        keep_alive: Seconds that a connection may have no request under way.
        most: Most connections at a time.
        on_death: Called when it cannot listen any more.
        runtime: Time and sleep.

    """

    def __init__(
        self,
        handle: Handle,
        *,
        keep_alive: float,
        most: int,
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
            self._server.protocol, most=most, on_death=on_death, runtime=runtime
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

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        task = asyncio.current_task()
        assert task is not None  # aiohttp makes one for each request
        connection = self._server.connection_of(request)
        self._answering.add(task)
        self._acceptor.is_busy(connection)
        try:
            found = await self._handle(AiohttpRequest(request, request.raw_path))
        finally:
            self._answering.discard(task)
            self._acceptor.is_idle(connection)
        # A body would be odd, but is no reason to lose the callback: it is just not read.
        return _response(found, close=request.body_exists)


class _AiohttpLog(logging.LoggerAdapter[logging.Logger]):
    """aiohttp logs a traceback, with the request in it, for each malformed request: not here."""

    def log(self, level: int, msg: object, *args: object, **kwargs: object) -> None:
        logger.debug("a malformed request was turned away")


class _Protocol(web.RequestHandler):
    """One connection, with two habits of aiohttp's taken away.

    Its own answer to a malformed request repeats it, and names versions. And it waits for ever for
    a peer that does not take its answers: here that ends after `keep_alive`, too.
    """

    __slots__ = ("_untaken", "connection")

    connection: Connection
    _untaken: asyncio.TimerHandle | None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is told at once of answers that the peer does not take."""
        self._untaken = None
        self.connection.is_made(transport)
        cast(asyncio.Transport, transport).set_write_buffer_limits(high=1)
        super().connection_made(transport)

    def pause_writing(self) -> None:
        """There is an answer that the peer has not taken."""
        super().pause_writing()
        self._untaken = self._loop.call_later(self.keepalive_timeout, self.connection.drop)

    def resume_writing(self) -> None:
        """Now it has."""
        super().resume_writing()
        self._forget_untaken()

    def connection_lost(self, exc: BaseException | None) -> None:
        """There is no peer any more."""
        self._forget_untaken()
        super().connection_lost(exc)

    def _forget_untaken(self) -> None:
        if self._untaken is not None:
            self._untaken.cancel()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is answered when there is no request to handle, or when handling it failed."""
        if status < 500:
            self.logger.debug("a malformed request was turned away")
            return _response(answer(400))
        logger.error("a request could not be handled: %s", type(exc).__name__)
        return _response(answer(503))


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
        made.connection = connection
        return made

    def connection_of(self, request: web.BaseRequest) -> Connection:
        """Which one a request came by."""
        protocol = request.protocol
        assert isinstance(protocol, _Protocol)  # no other is made
        return protocol.connection

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
        self.acceptor.is_gone(handler.connection)
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


@functools.lru_cache(maxsize=16)
def _headers(headers: tuple[tuple[str, str], ...]) -> CIMultiDict[str]:
    """Made once: what is in them never depends on what was asked."""
    plain = ("Content-Type", "text/plain; charset=utf-8")
    return web.Response(headers=(("Server", _SERVER), plain, *headers)).headers


def _response(found: Answer, *, close: bool = False) -> web.Response:
    headers = _headers(found.headers).copy()
    response = web.Response(status=found.status, body=found.text.encode(), headers=headers)
    if close or found.status >= 400:
        response.force_close()
    return response
