"""HTTP: send, stream, and translate errors once. This module alone knows httpx.

The client may be ours or the user's, httpx or httpx2: both are used by structure, so nothing here
depends on the classes of either (their exceptions are told apart by name).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import httpx

from .connections import AsyncioBackend, AsyncioStream
from .errors import (
    AF10Error,
    BadResponseError,
    ConfigurationError,
    ConnectFailedError,
    RequestTimeoutError,
    UnsafeURLError,
)
from .file_reply import FileReply, lower_names, raw_body
from .http_errors import is_bad_url, raise_translated
from .limits import PER_ACCOUNT, ConcurrencyLimit
from .network import PoolTransport, proxy_mounts, public_addresses_only
from .protocol.wire import Call, Reply
from .runtime import Runtime
from .shelter import to_its_end

E = TypeVar("E", bound=AF10Error)

logger = logging.getLogger("af10_async.transport")

CONNECT_TIMEOUT = 10.0
"""Seconds to make a connection."""
READ_TIMEOUT = 30.0
"""Seconds without a single byte."""
CREDENTIALS = ("authorization", "proxy-authorization", "cookie", "token", "apikey", "x-api-key")
"""Headers that a file's server never gets, though a client that was handed in adds them."""
_DOWNLOAD = "the download"
MAX_KEEPALIVE = 20
"""Most idle connections that are kept for the next request."""


class HTTPClient(Protocol):
    """What is used of a client that a user hands in: `httpx.AsyncClient` and httpx2's have it."""

    def build_request(self, *arguments: Any, **options: Any) -> Any:
        """Make a request (of this method and URL, with these options)."""

    async def send(
        self, request: Any, *, stream: bool, follow_redirects: bool, auth: Any = ...
    ) -> Any:
        """Send it; `auth=None` is given for files, to whose hosts no credentials go."""


# -- silence -----------------------------------------------------------------------------------

_ours: ContextVar[bool] = ContextVar("af10_async_request", default=False)


class _NotOurs(logging.Filter):
    """Drops what the HTTP libraries log about our requests.

    httpx logs whole URLs at INFO (api_key, password and secret are in ours), httpcore and hpack
    log headers at DEBUG. What they log about other people's requests is left alone.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return not _ours.get()


_NOISY = (
    *("httpx", "httpx2", "hpack.hpack", "hpack.table"),
    *(
        f"{library}.{part}"
        for library in ("httpcore", "httpcore2")
        for part in ("connection", "http11", "http2", "proxy", "socks")
    ),
)
for _name in _NOISY:
    logging.getLogger(_name).addFilter(_NotOurs())


# -- did it leave? -----------------------------------------------------------------------------


@dataclass(slots=True)
class Departure:
    """Whether a request has left this machine, also when its sender was cancelled."""

    sent: bool | None = False
    """False: certainly not. True: its first byte was given to the network. None: nobody knows."""

    async def trace(self, event: str, _info: object) -> None:
        """Listens to what httpcore says of its progress (the `trace` request extension)."""
        if event.startswith("connection."):
            self.sent = False
        elif event.endswith("send_request_headers.started"):
            self.sent = True


# -- the transport -----------------------------------------------------------------------------


class Transport:
    """Sends requests over one HTTP client, ours or the user's.

    At most so many requests are under way at a time as `limit` allows, which others may share.
    """

    def __init__(
        self,
        http_client: HTTPClient | None = None,
        *,
        ca_file: Path | None = None,
        runtime: Runtime | None = None,
        limit: ConcurrencyLimit | None = None,
    ) -> None:
        self._handed_in = http_client is not None
        self._ca_file = ca_file
        self._client: Any = http_client if self._handed_in else self._make_client(AsyncioBackend())
        self._file_clients: dict[bool, Any] = {}
        self._limit = limit or ConcurrencyLimit.of_this_loop()
        self._runtime = runtime or Runtime()

    async def close(self) -> None:
        """Close what is ours; a client that was handed in stays open."""
        async with AsyncExitStack() as stack:
            for client in self._file_clients.values():
                stack.push_async_callback(client.aclose)
            if not self._handed_in:
                stack.push_async_callback(self._client.aclose)

    async def send(
        self,
        call: Call,
        base_url: str,
        headers: Mapping[str, str],
        *,
        timeout: float,
        departure: Departure | None = None,
        account: str = "",
        most_at_once: int = PER_ACCOUNT,
    ) -> Reply:
        """Send one call and read its whole answer; `timeout` is for all of it, in seconds.

        Waiting for a slot does not count. Of `account`, at most so many are under way.

        Raises `NetworkError` (its `sent` is False only when nothing can have arrived) and
        `BadResponseError`. Who must know whether the call left, even when cancelled, brings a
        `departure`.
        """
        departure = departure or Departure()
        await self._limit.acquire(account, most_at_once)
        started = self._runtime.monotonic()
        try:
            async with asyncio.timeout(timeout):
                # Our own client tells of its progress when asked to; another one may not.
                departure.sent = None if self._handed_in or not _is_traced(call) else False
                reply = await self._exchange(call, base_url, headers, departure)
        except AF10Error as error:
            _labelled(error, call)
            if isinstance(error, ConnectFailedError):
                host = urlsplit(base_url).netloc
                error.args = (f"{error.message} ({host})",)
            raise
        except TimeoutError:
            raise _labelled(_timeout_error(call, timeout, departure), call) from None
        finally:
            self._limit.release(account, most_at_once)
        if logger.isEnabledFor(logging.DEBUG):
            seconds = self._runtime.monotonic() - started
            what = f"{call.method} {call.path}"
            logger.debug("%s: HTTP %d in %.3f s", what, reply.status, seconds)
        return reply

    async def _exchange(
        self, call: Call, base_url: str, headers: Mapping[str, str], departure: Departure
    ) -> Reply:
        what = f"{call.method} {call.path}"
        options: dict[str, Any] = {"params": dict(call.params)} if call.params else {}
        if call.json is not None:
            options["json"] = call.json
        if _is_traced(call):
            options["extensions"] = {"trace": departure.trace}
        url = base_url + call.path
        response = await self._open(
            self._client, call.method, url, headers, what, departure, **options
        )
        marker, is_consumed = _ours.set(True), False
        try:
            found = lower_names(response.headers)
            body = await _read_capped(response, found, call, response.status_code)
            is_consumed = True
        except BadResponseError:
            raise
        except Exception as error:
            raise_translated(error, what, sent=True)
        finally:
            _ours.reset(marker)
            await _close(response, is_consumed=is_consumed)
        now = self._runtime.now()
        return Reply(call.method, call.path, response.status_code, found, body, now)

    @asynccontextmanager
    async def stream(
        self,
        url: str,
        *,
        trusted: bool,
        headers: Mapping[str, str] | None = None,
        stall_timeout: float = READ_TIMEOUT,
        account: str = "",
        most_at_once: int = PER_ACCOUNT,
    ) -> AsyncIterator[FileReply]:
        """GET a file, with no credentials at all; leaving the block closes the connection.

        `trusted` allows addresses of private networks; `stall_timeout` is the longest silence, in
        seconds, before the head of the answer and within its body.
        """
        client = self._client if self._handed_in else self._for_files(trusted)
        seconds = {"connect": CONNECT_TIMEOUT, "read": stall_timeout, "write": READ_TIMEOUT}
        options = {
            "extensions": {"timeout": {**seconds, "pool": None}},
            "headers": {"accept-encoding": "identity", **(headers or {})},
        }
        await self._limit.acquire(account, most_at_once)
        try:
            # For all of the head: a timeout of a read begins anew with each byte of it.
            async with asyncio.timeout(CONNECT_TIMEOUT + stall_timeout):
                response = await self._open_file(client, url, **options)
        except TimeoutError as error:
            if isinstance(error, RequestTimeoutError):
                raise
            raise RequestTimeoutError(
                f"{_DOWNLOAD}: no answer in time", sent=None, retryable=True
            ) from None
        finally:
            self._limit.release(account, most_at_once)
        reply = FileReply(response, _DOWNLOAD)
        try:
            yield reply
        finally:
            try:
                await reply.close()
            finally:
                await _close(response, is_consumed=reply.is_consumed)

    async def _open(
        self,
        client: Any,
        method: str,
        url: str,
        headers: Mapping[str, str],
        what: str,
        departure: Departure,
        **options: Any,
    ) -> Any:
        marker = _ours.set(True)
        try:
            wanted = {"accept-encoding": "identity", **headers}
            request = client.build_request(method, url, headers=wanted, **options)
            # A jar would carry one account's cookies over to another's requests.
            request.headers.pop("cookie", None)
            return await client.send(request, stream=True, follow_redirects=False)
        except UnsafeURLError:
            raise
        except Exception as error:
            raise_translated(error, what, departure.sent)
        finally:
            _ours.reset(marker)

    async def _open_file(self, client: Any, url: str, **options: Any) -> Any:
        """The same for a file, to whose host nothing goes that the client adds by itself."""
        marker = _ours.set(True)
        try:
            request = client.build_request("GET", url, **options)
            if str(request.url) != str(type(request.url)(url)):
                request.url = type(request.url)(url)  # without the client's usual parameters
            for name in CREDENTIALS:
                request.headers.pop(name, None)
            return await client.send(request, stream=True, follow_redirects=False, auth=None)
        except UnsafeURLError:
            raise
        except Exception as error:
            if is_bad_url(error):
                raise UnsafeURLError(
                    "the address of the file, or the one that it redirects to, is malformed",
                    sent=None,
                ) from None
            raise_translated(error, _DOWNLOAD, None)
        finally:
            _ours.reset(marker)

    def _make_client(self, backend: AsyncioBackend) -> httpx.AsyncClient:
        context = ssl_context(self._ca_file)
        return httpx.AsyncClient(
            timeout=httpx.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT, pool=None),
            headers={"user-agent": "af10_async", "accept": "*/*"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            # Each request looks at every idle connection: keeping many costs more than it saves.
            transport=PoolTransport(context, backend, max_keepalive=MAX_KEEPALIVE),
            mounts=proxy_mounts(context, MAX_KEEPALIVE),
        )

    def _for_files(self, trusted: bool) -> Any:
        if trusted not in self._file_clients:
            check = None if trusted else public_addresses_only
            backend = AsyncioBackend(splits_heads=True, check=check)
            self._file_clients[trusted] = self._make_client(backend)
        return self._file_clients[trusted]


def _timeout_error(call: Call, timeout: float, departure: Departure) -> RequestTimeoutError:
    return RequestTimeoutError(
        f"{call.method} {call.path}: no answer within {timeout:g} s",
        sent=departure.sent,
        retryable=True,
    )


def _labelled(error: E, call: Call) -> E:
    """The error, with the call that it is about."""
    error.method, error.path = call.method, call.path
    return error


async def _close(response: Any, *, is_consumed: bool) -> None:
    try:
        await to_its_end(response.aclose())
    finally:
        stream = response.extensions.get("network_stream")
        if not is_consumed and isinstance(stream, AsyncioStream):
            stream.abort()  # httpcore may have been cancelled while it did that


def _is_traced(call: Call) -> bool:
    """Whether we listen to how far a call has come: it matters for a POST, and costs a little."""
    return call.method != "GET"


def ssl_context(ca_file: str | os.PathLike[str] | None) -> ssl.SSLContext:
    """What is trusted: the usual authorities, and those of `ca_file` (PEM)."""
    if ca_file is None:
        return _usual_ssl_context()
    context = httpx.create_ssl_context()
    try:
        context.load_verify_locations(cafile=ca_file)
    except (OSError, ssl.SSLError):
        raise ConfigurationError(
            f"ca_file (AF10_CA_FILE) {str(ca_file)!r} holds no PEM certificate"
        ) from None
    return context


@functools.cache
def _usual_ssl_context() -> ssl.SSLContext:
    """Made once for all clients: reading the certificates takes longer than a request."""
    return httpx.create_ssl_context()


async def _read_capped(response: Any, headers: Mapping[str, str], call: Call, status: int) -> bytes:
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise _bad(call, status, "is encoded, although that was not asked for")
    chunks, size = [], 0
    # Closed here, in this task: what is left to the garbage collector closes in another one, beside
    # the response that it belongs to.
    async with aclosing(raw_body(response)) as body:
        async for chunk in body:
            size += len(chunk)
            if size > call.most_bytes:
                raise _bad(call, status, f"is larger than {call.most_bytes // 2**20} MiB")
            chunks.append(chunk)
    return b"".join(chunks)


def _bad(call: Call, status: int, what: str) -> BadResponseError:
    return BadResponseError(
        f"the answer to {call.method} {call.path} (HTTP {status}) {what}; it was not read further",
        status=status,
        method=call.method,
        path=call.path,
    )
