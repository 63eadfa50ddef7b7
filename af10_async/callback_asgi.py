"""The ASGI side of receiving callbacks: an application to mount in one of yours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeAlias
from urllib.parse import quote

from .errors import AF10Error
from .protocol.answers import Answer
from .receiving import Receives

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class ASGIApp:
    """Answers whatever is below where it is mounted; see `CallbackReceiver.asgi_app`."""

    def __init__(self, receiver: Receives) -> None:
        self._receiver = receiver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI 3 has it."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._respond(scope, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})

    async def _respond(self, scope: Scope, send: Send) -> None:
        request = _ASGIRequest(scope)
        # Servers log the query with the answer, and with it the id.
        scope["query_string"] = b""
        found = await self._receiver.handle(request)
        body = found.text.encode()
        await send(
            {"type": "http.response.start", "status": found.status, "headers": _headers(found)}
        )
        # The body of the request is not read: there should be none.
        await send({"type": "http.response.body", "body": body})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Served as it is, it has a lifetime of its own."""
        async with AsyncExitStack() as stack:
            await receive()
            try:
                if not self._receiver.is_running:
                    await stack.enter_async_context(self._receiver)
            except AF10Error as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


class _ASGIRequest:
    """A request, as the receiver wants to see it."""

    __slots__ = ("_scope", "method", "target")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.method: str = scope["method"]
        self.target = _target(scope)

    def peer(self) -> str | None:
        """The address at the other end of the connection."""
        client = self._scope.get("client")
        return str(client[0]) if client else None

    def header(self, name: str) -> Sequence[str]:
        """All values of a header, in order."""
        wanted = name.lower().encode()
        found = (value for each, value in self._scope["headers"] if each == wanted)
        return [value.decode("latin-1") for value in found]


def _target(scope: Scope) -> str:
    """Path below the mount and query, as they were sent."""
    path, root = scope["path"], scope.get("root_path", "")
    if root and (path == root or path.startswith(f"{root.rstrip('/')}/")):
        path = path[len(root.rstrip("/")) :]
    query: bytes = scope["query_string"]
    # The path comes decoded; nothing that must be encoded can stand in a key or in front of one.
    target = quote(path, safe="/:@!$&'()*+,;=~")
    return f"{target}?{query.decode('latin-1')}" if query else target


def _headers(found: Answer) -> list[tuple[bytes, bytes]]:
    headers = (
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(found.text))),
        *found.headers,
        *((("Connection", "close"),) if found.status >= 400 else ()),
    )
    return [(name.lower().encode(), value.encode()) for name, value in headers]
