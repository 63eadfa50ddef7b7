"""The aiohttp side of the callback server: a method and a target in, a status out."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable

from aiohttp import web

from .protocol.callbacks import MAX_TARGET_LENGTH

logger = logging.getLogger("af10_async.callback_server")

_KEEP_ALIVE_SECONDS = 15.0
_SHUTDOWN_SECONDS = 5.0
_GOODBYE_SECONDS = 0.5
"""Seconds that a peer has to answer the end of its TLS connection."""
_BODIES = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}

Handle = Callable[[str, str], Awaitable[int]]


class Listening:
    """A server that answers each request with the status that `handle` gives for it.

    Args:
        handle: Takes the method and the raw target of a request.

    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._server = _Server(self._answer)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=_SHUTDOWN_SECONDS)

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        """Listen; raises `OSError`, with nothing left half-started."""
        await self._runner.setup()
        try:
            await _Site(self._runner, host, port, ssl_context=tls).start()
        except OSError:
            await self._runner.cleanup()
            raise

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Finish the requests under way, and wait until no connection is left."""
        await self._runner.cleanup()
        await self._server.gone()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        status = await self._handle(request.method, request.raw_path)
        # A body would be odd, but is no reason to lose the callback: it is just not read.
        return _answer(status, close=request.body_exists)


class _AiohttpLog(logging.LoggerAdapter[logging.Logger]):
    """aiohttp logs a traceback, with the request in it, for each malformed request: not here."""

    def log(self, level: int, msg: object, *args: object, **kwargs: object) -> None:
        logger.debug("a malformed request was turned away")


class _Connection(web.RequestHandler):
    """aiohttp's own answer to a malformed request repeats it and names versions: not here."""

    __slots__ = ()

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
            return _answer(status)
        logger.error("a request could not be handled: %s", type(exc).__name__)
        return _answer(503)


class _Server(web.Server):
    """The low-level server: every request, whatever its target, goes to one handler."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(handler)
        self._open: set[web.RequestHandler] = set()
        self._all_gone = asyncio.Event()

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
        self._open.discard(handler)
        if not self._open:
            self._all_gone.set()

    async def gone(self) -> None:
        """Wait until no connection is left. The TLS shutdown of each has a time limit."""
        if self._open:
            await self._all_gone.wait()

    def __call__(self) -> web.RequestHandler:
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # documented so; it would print the query
            logger=_AiohttpLog(logger),  # type: ignore[arg-type] # it has the methods of a Logger
            keepalive_timeout=_KEEP_ALIVE_SECONDS,
            lingering_time=0.0,
            max_line_size=MAX_TARGET_LENGTH + 64,
            max_field_size=4096,
            max_headers=64,
            auto_decompress=False,
        )


class _Site(web.TCPSite):
    async def start(self) -> None:
        """As TCPSite does, which cannot be told how long TLS may take to end (30 s)."""
        await web.BaseSite.start(self)
        assert self._runner.server is not None
        self._server = await asyncio.get_running_loop().create_server(
            self._runner.server,
            self._host,
            self._port,
            ssl=self._ssl_context,
            backlog=self._backlog,
            ssl_shutdown_timeout=_GOODBYE_SECONDS if self._ssl_context else None,
        )


def _answer(status: int, *, close: bool = False) -> web.Response:
    headers = {"Server": "af10_async", "Cache-Control": "no-store"}
    if status == 405:
        headers["Allow"] = "GET"
    if status == 503:
        headers["Retry-After"] = "5"
    response = web.Response(
        status=status, text=_BODIES.get(status, "Service Unavailable"), headers=headers
    )
    if close or status >= 400:
        response.force_close()
    return response
