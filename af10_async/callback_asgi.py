"""The ASGI side of receiving callbacks: an application to mount in one of yours."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeAlias
from urllib.parse import quote, unquote

from .errors import AF10Error
from .protocol.answers import Answer
from .receiving import Receives

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class ASGIApp:
    """Answers whatever is below where it is mounted; see `CallbackReceiver.asgi_app`.

    Args:
        receiver: Who answers.
        prefix: The path in front of the keys, below the mount: `af10`.

    """

    def __init__(self, receiver: Receives, prefix: str = "") -> None:
        self._receiver = receiver
        self._home = f"/{prefix}/" if prefix else "/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI 3 has it."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._respond(scope, send)
        elif scope["type"] == "websocket":
            _hide_id(scope)
            await send({"type": "websocket.close"})

    async def _respond(self, scope: Scope, send: Send) -> None:
        request = _ASGIRequest(scope, self._home)
        _hide_id(scope)
        found = await self._receiver.handle(request)
        headers = _headers(found, close=_wants_closing(scope, found))
        await send({"type": "http.response.start", "status": found.status, "headers": headers})
        # The body of the request is not read: there should be none.
        await send({"type": "http.response.body", "body": found.text.encode()})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Served as it is, it has a lifetime of its own."""
        await receive()
        async with AsyncExitStack() as stack:
            if not self._receiver.is_running:
                try:
                    await stack.enter_async_context(self._receiver)
                except AF10Error as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


class _ASGIRequest:
    """A request, as the receiver wants to see it."""

    __slots__ = ("_client", "_headers", "method", "target")

    def __init__(self, scope: Scope, home: str) -> None:
        self.method: str = scope["method"]
        self.target = _target(scope, home)
        self._client = scope.get("client")
        self._headers: Sequence[tuple[bytes, bytes]] = scope["headers"]

    def peer(self) -> str | None:
        """The address at the other end of the connection."""
        return str(self._client[0]) if self._client else None

    def header(self, name: str) -> Sequence[str]:
        """All values of a header, in order."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for each, value in self._headers if each == wanted]


def _target(scope: Scope, home: str) -> str:
    """Path below the mount and query, as they were sent."""
    query: bytes = scope["query_string"]
    # The path comes decoded; nothing that must be encoded can stand in a key or in front of one.
    target = quote(_path_below_mount(scope, home), safe="/:@!$&'()*+,;=~")
    return f"{target}?{query.decode('latin-1')}" if query else target


def _path_below_mount(scope: Scope, home: str) -> str:
    """Frameworks add where they mount to `root_path` (Starlette), or take it off `path` (Litestar).

    In the second case `root_path` is only what a proxy took off, and may by chance be what the rest
    of the path begins with. And Litestar takes off a slash too many in front, or puts one behind,
    where it would be taken for a part of the id.
    """
    path: str = scope["path"]
    sent = unquote((scope.get("raw_path") or b"").decode("latin-1")) or path
    if sent == path:
        return _below(path, scope.get("root_path", ""), home)
    path = path if path.startswith("/") else f"/{path}"
    return path if sent.endswith("/") else path.removesuffix("/")


def _below(path: str, root: str, home: str) -> str:
    """The path without the mount, which is the end of `root`.

    What a proxy has taken off is the beginning of `root`, and uvicorn puts it back in front of the
    path, as ASGI has it; hypercorn, granian, daphne and `FastAPI(root_path=...)` do not. So the
    longest end of `root` is taken off that the path begins with, but `home`, where the keys are, is
    not taken for the mount.
    """
    found = [*_without(path, root), path]
    return next((each for each in found if each.startswith(home)), found[0])


def _without(path: str, root: str) -> Iterator[str]:
    """The path without each end of `root` that it begins with, the longest first."""
    for start in [0, *(slash.start() for slash in re.finditer("/", root))]:
        end = root[start:]
        rest = path.removeprefix(end)
        if path.startswith(end) and (rest.startswith("/") or end.endswith("/")):
            yield rest if rest.startswith("/") else f"/{rest}"


def _hide_id(scope: Scope) -> None:
    """Take it out of what servers and frameworks log: they do so when it is answered."""
    scope["query_string"] = b""
    scope["path"] = re.split("[?&]", scope["path"], maxsplit=1)[0]


def _wants_closing(scope: Scope, found: Answer) -> bool:
    """Whether nothing more should come by this connection; HTTP/2 has no word for it."""
    if not scope["http_version"].startswith("1"):
        return False
    return found.status >= 400 or any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in scope["headers"]
    )


def _headers(found: Answer, *, close: bool) -> list[tuple[bytes, bytes]]:
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(found.text))),
        *found.headers,
    ]
    if close:
        headers.append(("Connection", "close"))
    return [(name.lower().encode(), value.encode()) for name, value in headers]
