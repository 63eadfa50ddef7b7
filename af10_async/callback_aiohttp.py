"""Receiving callbacks inside an aiohttp app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from aiohttp import web

from .protocol.answers import Answer
from .receiving import Receives


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


def _response(found: Answer, *, close: bool) -> web.Response:
    response = web.Response(status=found.status, text=found.text, headers=found.headers)
    response.headers["Server"] = "af10_async"  # not the versions that aiohttp would name
    if close or found.status >= 400:
        response.force_close()
    return response
