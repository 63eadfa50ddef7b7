"""The httpx transport that our requests go through, over connections of our own."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, AsyncIterator, Sequence

import httpcore
import httpx

from .connections import AsyncioBackend
from .errors import UnsafeURLError
from .protocol.addresses import is_public_address


def public_addresses_only(addresses: Sequence[str]) -> None:
    """Refuse addresses of this machine and of private networks."""
    if not all(map(is_public_address, addresses)):
        raise UnsafeURLError(
            "the file's host points inside a private network; nothing was sent to it",
            step="download",
            sent=False,
        )


class PoolTransport(httpx.AsyncBaseTransport):
    """An httpx transport over httpcore's pool with a network backend of ours."""

    def __init__(
        self,
        ssl_context: ssl.SSLContext,
        backend: AsyncioBackend,
        *,
        max_keepalive: int,
    ) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context,
            network_backend=backend,
            max_connections=None,  # our own limit keeps the queue outside
            max_keepalive_connections=max_keepalive,
            keepalive_expiry=5.0,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; errors are httpcore's own."""
        assert isinstance(request.stream, AsyncIterable)  # an async client makes no other
        response = await self._pool.handle_async_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._response.aiter_stream():
            yield part

    async def aclose(self) -> None:
        await self._response.aclose()
