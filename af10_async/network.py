"""The httpx transport that our requests go through, over connections of our own."""

from __future__ import annotations

import ipaddress
import ssl
import urllib.request
from collections.abc import AsyncIterable, AsyncIterator, Sequence

import httpcore
import httpx

from .connections import AsyncioBackend, AsyncioStream, opened_streams
from .errors import UnsafeURLError
from .protocol.addresses import is_public_address
from .shelter import in_scope


def public_addresses_only(addresses: Sequence[str]) -> None:
    """Refuse addresses of this machine and of private networks."""
    if not all(map(is_public_address, addresses)):
        raise UnsafeURLError(
            "the file's host points inside a private network; nothing was sent to it",
            step="download",
            sent=False,
        )


def proxy_mounts(
    ssl_context: ssl.SSLContext, max_keepalive: int
) -> dict[str, httpx.AsyncBaseTransport | None]:
    """What httpx is to do with the proxies that the environment names.

    A proxy resolves names itself, so there are no addresses to look at. Requests that go through
    none, for their scheme or by NO_PROXY, stay with our own transport (None).
    """
    proxies = urllib.request.getproxies()
    excepted = [each.strip() for each in proxies.get("no", "").split(",") if each.strip()]
    if "*" in excepted:
        return {}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=max_keepalive)
    mounts: dict[str, httpx.AsyncBaseTransport | None] = {}
    for scheme in ("http", "https", "all"):
        if proxy := proxies.get(scheme):
            url = proxy if "://" in proxy else f"http://{proxy}"
            mounts[f"{scheme}://"] = httpx.AsyncHTTPTransport(
                verify=ssl_context, proxy=url, limits=limits
            )
    if mounts:
        mounts |= dict.fromkeys(map(_pattern, excepted))
    return mounts


def _pattern(host: str) -> str:
    """The hosts that a part of NO_PROXY means, as httpx writes them."""
    if "://" in host:
        return host
    bare = host.strip("[]")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        is_one = host.lower() == "localhost"
        return f"all://{host}" if is_one else f"all://*{host}"
    return f"all://[{bare}]" if address.version == 6 else f"all://{bare}"


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
        ours = httpcore.Request(
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
        streams: list[AsyncioStream] = []
        marker = opened_streams.set(streams)
        try:
            # Cancelled in any other way, the pool keeps connections that nobody uses ...
            response = await in_scope(self._pool.handle_async_request(ours), _drop)
        except BaseException:
            for stream in streams:
                if not stream.is_used:
                    stream.abort()  # ... and even so those that it has only just made
            raise
        finally:
            opened_streams.reset(marker)
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


async def _drop(response: httpcore.Response) -> None:
    await response.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._response.aiter_stream():
            yield part

    async def aclose(self) -> None:
        await self._response.aclose()
