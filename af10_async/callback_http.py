"""The aiohttp side of receiving callbacks: a server of its own, and an application to mount."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from aiohttp import http_parser, web

from .acceptor import Acceptor, Connection
from .protocol.answers import Answer, answer
from .protocol.callbacks import MAX_TARGET_LENGTH
from .receiving import Handle, Receives
from .runtime import Runtime

logger = logging.getLogger("af10_async.callback_server")

_SHUTDOWN_SECONDS = 5.0
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
        assert request.match_info.route.resource is not None  # the one below
        mounted_at = request.match_info.route.resource.canonical.removesuffix("/{rest}")
        # The parent may have rewritten nothing: what was sent begins with where this is mounted.
        found = await receiver.handle(
            AiohttpRequest(request, request.raw_path.removeprefix(mounted_at))
        )
        return _response(found, close=request.body_exists)

    async def lifetime(app: web.Application) -> AsyncIterator[None]:
        if receiver.is_running:
            yield
            return
        async with receiver:
            yield

    app.router.add_route("*", "/{rest:.*}", respond)
    app.cleanup_ctx.append(lifetime)
    return app


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
        """Finish the requests under way, and wait until no connection is left."""
        await self._acceptor.stop()
        await asyncio.sleep(0)  # what has arrived begins to be handled
        self._server.pre_shutdown()
        await self._server.shutdown(_SHUTDOWN_SECONDS)
        await self._server.gone()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        connection = self._server.connection_of(request)
        if connection is not None:
            self._acceptor.is_busy(connection)
        found = await self._handle(AiohttpRequest(request, request.raw_path))
        if connection is not None:
            self._acceptor.is_idle(connection)
        # A body would be odd, but is no reason to lose the callback: it is just not read.
        return _response(found, close=request.body_exists)


class _AiohttpLog(logging.LoggerAdapter[logging.Logger]):
    """aiohttp logs a traceback, with the request in it, for each malformed request: not here."""

    def log(self, level: int, msg: object, *args: object, **kwargs: object) -> None:
        logger.debug("a malformed request was turned away")


class _Protocol(web.RequestHandler):
    """aiohttp's own answer to a malformed request repeats it and names versions: not here."""

    __slots__ = ("connection",)

    connection: Connection

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
        self._open: set[web.RequestHandler] = set()
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

    def connection_of(self, request: web.BaseRequest) -> Connection | None:
        """Which one a request came by; None when that is over."""
        protocol = request.protocol
        return protocol.connection if isinstance(protocol, _Protocol) else None

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Remember it: aiohttp forgets a connection before its TLS has ended."""
        super().connection_made(handler, transport)
        self._open.add(handler)
        self._all_gone.clear()

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        """Forget it."""
        super().connection_lost(handler, exc)
        assert isinstance(handler, _Protocol)  # no other is made
        self.acceptor.is_gone(handler.connection)
        self._open.discard(handler)
        if not self._open:
            self._all_gone.set()

    async def gone(self) -> None:
        """Wait until no connection is left. The TLS shutdown of each has a time limit."""
        if self._open:
            await self._all_gone.wait()


_LOG = _AiohttpLog(logger)


def _response(found: Answer, *, close: bool = False) -> web.Response:
    response = web.Response(
        status=found.status, text=found.text, headers=(("Server", _SERVER), *found.headers)
    )
    if close or found.status >= 400:
        response.force_close()
    return response
