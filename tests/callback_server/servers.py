"""A receiver of callbacks under every kind of server, each on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from fastapi import FastAPI
from litestar import Litestar, asgi
from starlette.applications import Starlette
from starlette.routing import Mount

from af10_async.callback_receiver import CallbackReceiver
from af10_async.callback_server import CallbackServer
from tests.conftest import Tls

MOUNTED_AT = "/webhooks"


@dataclass(frozen=True)
class Kind:
    """What serves the requests."""

    name: str
    host: str
    """Who decides what reaches the receiver at all: `ours`, `aiohttp`, `h11` or `httptools`."""

    def __str__(self) -> str:
        return self.name


ALONE = Kind("alone", "ours")
AIOHTTP = Kind("aiohttp", "aiohttp")
ASGI = Kind("asgi", "h11")
STARLETTE = Kind("starlette", "httptools")
FASTAPI = Kind("fastapi", "h11")
LITESTAR = Kind("litestar", "httptools")

KINDS = (ALONE, AIOHTTP, ASGI, STARLETTE, FASTAPI, LITESTAR)
ON_UVICORN = (ASGI, STARLETTE, FASTAPI, LITESTAR)


class Mounted(CallbackReceiver):
    """A receiver that knows where it is served, as a stand-alone server does."""

    port: int


Served = CallbackServer | Mounted


@asynccontextmanager
async def mounted(kind: Kind, **options: Any) -> AsyncIterator[Mounted]:
    """A receiver inside a server of that kind, and entered by it or with it."""
    receiver = Mounted(**options)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        receiver.port = listening.getsockname()[1]
        server: AbstractAsyncContextManager[object]
        if kind is AIOHTTP:
            server = under_aiohttp(aiohttp_app(receiver), listening)
        else:
            app = asgi_app(kind, receiver)
            server = under_uvicorn(app, listening, http=kind.host, is_quick=True)
        async with server:
            yield receiver


# -- apps ------------------------------------------------------------------------------------------

Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]


def entering(*contexts: AbstractAsyncContextManager[object]) -> Lifespan:
    """A lifespan with these in it."""

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for each in contexts:
                await stack.enter_async_context(each)
            yield

    return lifespan


def aiohttp_app(receiver: CallbackReceiver, *within: AbstractAsyncContextManager[object]) -> Any:
    """An app with the receiver mounted, which enters what is within it itself."""
    app = web.Application()
    app.add_subapp(MOUNTED_AT, receiver.aiohttp_app())
    if within:
        lifespan = entering(receiver, *within)

        async def context(app: web.Application) -> AsyncIterator[None]:
            async with lifespan(app):
                yield

        app.cleanup_ctx.append(context)
    return app


def asgi_app(
    kind: Kind,
    receiver: CallbackReceiver,
    *within: AbstractAsyncContextManager[object],
    at: str = MOUNTED_AT,
) -> Any:
    """The same for ASGI; the receiver's own application enters it by itself."""
    mounted, lifespan = receiver.asgi_app(), entering(receiver, *within)
    if kind is STARLETTE:
        return Starlette(routes=[Mount(at, mounted)], lifespan=lifespan)
    if kind is FASTAPI:
        app = FastAPI(lifespan=lifespan)
        app.mount(at, mounted)
        return app
    if kind is LITESTAR:
        webhooks = asgi(at, is_mount=True, copy_scope=False)(mounted)
        # Its own logging would replace that of the test.
        return Litestar([webhooks], lifespan=[lifespan], openapi_config=None, logging_config=None)
    return mounted


# -- servers ---------------------------------------------------------------------------------------


class PathsOnly(AbstractAccessLogger):
    """An access log without what may be the id of a callback."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        path = re.split("[?&%]", request.raw_path, maxsplit=1)[0]
        self.logger.info("%s %s %s", request.method, path, response.status)


@asynccontextmanager
async def under_aiohttp(
    app: web.Application, listening: socket.socket, tls: Tls | None = None
) -> AsyncIterator[None]:
    """aiohttp's own server, which only reads no body for ten seconds after it has answered."""
    runner = web.AppRunner(app, access_log_class=PathsOnly, lingering_time=0.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listening, ssl_context=_context(tls)).start()
        yield
    finally:
        await runner.cleanup()


def _context(tls: Tls | None) -> ssl.SSLContext | None:
    if tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.cert, tls.key)
    return context


class _Quick(uvicorn.Server):
    """Stops in the order of uvicorn's own `shutdown`, without its pauses."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while self.server_state.connections or self.server_state.tasks:
            await asyncio.sleep(0)
        await self.lifespan.shutdown()


@asynccontextmanager
async def under_uvicorn(
    app: Any, listening: socket.socket, *, is_quick: bool = False, **options: Any
) -> AsyncIterator[uvicorn.Server]:
    """uvicorn's own server in this loop, with its access log."""
    usual = {"lifespan": "on", "log_config": None, "ws": "none", "timeout_keep_alive": 15}
    config = uvicorn.Config(app, **{**usual, **options})
    config.load()
    server = (_Quick if is_quick else uvicorn.Server)(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup([listening])
    try:
        await server.on_tick(0)
        yield server
    finally:
        await server.shutdown([listening])
        for each in server.servers:
            with contextlib.suppress(OSError):
                await each.wait_closed()
