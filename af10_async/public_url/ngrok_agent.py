"""A public address by an ngrok agent that is running already."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from ..errors import ConfigurationError, PublicURLError
from ..protocol.ngrok import (
    Target,
    addresses_to,
    advice,
    chosen,
    definition,
    error_code,
    public_address,
    refusal,
)
from ..runtime import Runtime
from ..shelter import ended, to_its_end
from .base import LocalServer, PublicURL, Tell
from .deadlines import within

if TYPE_CHECKING:
    import aiohttp

__all__ = ["NgrokAgent"]

logger = logging.getLogger("af10_async.public_url")

API_URL = "http://127.0.0.1:4040"
"""Where an agent offers its API, unless its configuration says otherwise (`web_addr`)."""
POLL_SECONDS = 15.0
MAX_SECONDS = 5.0
"""Time of one request to the agent."""
MAX_SIZE = 1024 * 1024
"""Largest answer that is read, in bytes."""


class NgrokAgent(PublicURL):
    """An ngrok agent that runs on this machine, found through its local API.

    An https tunnel that leads to the callback server is used as it is, and left alone afterwards.
    When there is none, the agent is asked for one, and it is removed at the end. (Should this
    process be killed, it stays, and the next one uses it.) From time to time it is looked for
    again, since agents get other addresses, restart, and go away.

    Args:
        api_url: Where the agent offers its API.
        poll_seconds: Time between two looks.
        runtime: Where time and chance come from.

    Raises:
        ConfigurationError: when one of them is malformed.

    """

    def __init__(
        self,
        *,
        api_url: str = API_URL,
        poll_seconds: float = POLL_SECONDS,
        runtime: Runtime | None = None,
    ) -> None:
        self._api_url = _checked(api_url)
        if not poll_seconds > 0:
            raise ConfigurationError("poll_seconds must be more than 0")
        self._poll_seconds = poll_seconds
        self._runtime = runtime or Runtime()

    def __repr__(self) -> str:
        return f"NgrokAgent(api_url={self._api_url!r}, poll_seconds={self._poll_seconds!r})"

    def open(self, local: LocalServer, tell: Tell) -> AbstractAsyncContextManager[str]:
        """Find the agent's tunnel, or ask for one; see `PublicURL.open`."""
        return self._open(local, tell)

    @asynccontextmanager
    async def _open(self, local: LocalServer, tell: Tell) -> AsyncGenerator[str]:
        async with _open_session() as session:
            api = _Api(session, self._api_url, local, self._runtime)
            way = _Way(api, local, tell, self._poll_seconds, self._runtime)
            try:
                yield await way.open()
            finally:
                await to_its_end(way.close())


def _checked(api_url: str) -> str:
    """The API's address without a slash at its end; raises `ConfigurationError`."""
    try:
        parts = urlsplit(api_url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError(
            f"the address of the ngrok agent's API is malformed: give one such as {API_URL}"
        )
    return api_url.rstrip("/").removesuffix("/api")


def _open_session() -> aiohttp.ClientSession:
    """A client for one small answer now and then."""
    import aiohttp  # only now: it costs more to import than all of this package

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),  # ours is around it
        auto_decompress=False,
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        trust_env=False,
    )


class _Api:
    """The agent's API; whatever goes wrong with it is a `PublicURLError`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        api_url: str,
        local: LocalServer,
        runtime: Runtime,
    ) -> None:
        self._session = session
        self._url = api_url
        self._local = local
        self._runtime = runtime

    async def addresses(self, target: Target) -> tuple[str, ...]:
        """The public addresses of the tunnels that lead to `target`."""
        status, body = await self._call("GET", "/api/tunnels")
        found = addresses_to(body, target) if status == 200 else None
        if found is None:
            raise self._refused(body)
        return found

    async def ask(self, name: str) -> str:
        """Have a tunnel to the local server made, and give its public address."""
        wanted = definition(name, self._local.url)
        status, body = await self._call("POST", "/api/tunnels", wanted)
        address = public_address(body) if status in (200, 201) else None
        if address is None:
            raise self._refused(body)
        return address

    async def remove(self, name: str) -> None:
        """End a tunnel; nothing happens when there is none of that name."""
        status, body = await self._call("DELETE", f"/api/tunnels/{quote(name, safe='')}")
        if status >= 400 and status != 404:
            raise self._refused(body)

    def _refused(self, body: object) -> PublicURLError:
        """What an answer means that is not the one which was asked for."""
        why = refusal(body)
        if why is None:
            return self._stranger("its answer is none of an agent's")
        what = f"the ngrok agent at {self._url} gives no tunnel ({why})"
        if error_code(why) is None:
            return PublicURLError(f"{what}: see its log, or start one with `{self._command}`")
        return PublicURLError(f"{what}: {advice(why)}")

    async def _call(
        self, method: str, path: str, body: dict[str, object] | None = None
    ) -> tuple[int, Any]:
        """One exchange: the status, and the JSON of the answer (None when it is not JSON)."""
        import aiohttp

        try:
            exchange = self._exchange(method, path, body)
            status, content = await within(MAX_SECONDS, exchange, self._runtime)
        except TimeoutError:
            raise self._stranger(f"no answer within {MAX_SECONDS:g} seconds") from None
        except aiohttp.ClientConnectorError:
            raise self._absent() from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._stranger(type(error).__name__) from None
        return status, _decoded(content)

    async def _exchange(
        self, method: str, path: str, body: dict[str, object] | None
    ) -> tuple[int, bytes]:
        url = self._url + path
        async with self._session.request(method, url, json=body, allow_redirects=False) as reply:
            content = bytearray()
            async for block in reply.content.iter_any():
                content += block
                if len(content) > MAX_SIZE:
                    raise self._stranger(f"an answer of more than {MAX_SIZE // 1024} KiB")
            return reply.status, bytes(content)

    @property
    def _command(self) -> str:
        local = self._local
        is_plain = not local.is_tls and local.host in ("127.0.0.1", "localhost")
        return f"ngrok http {local.port if is_plain else local.url}"

    def _absent(self) -> PublicURLError:
        return PublicURLError(
            f"no ngrok agent answers at {self._url}: start one with `{self._command}`, or give"
            " the address of its API (its log calls it web_addr) as api_url",
            retryable=True,
        )

    def _stranger(self, why: str) -> PublicURLError:
        return PublicURLError(
            f"what listens at {self._url} does not behave like an ngrok agent ({why}): give the"
            " address of the agent's API (its log calls it web_addr) as api_url, or start an agent"
            f" with `{self._command}`",
            retryable=True,
        )


def _decoded(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


class _Way:
    """One server's way through the agent: found or asked for, watched, and removed if ours."""

    def __init__(
        self, api: _Api, local: LocalServer, tell: Tell, poll_seconds: float, runtime: Runtime
    ) -> None:
        self._api = api
        self._target = Target(local.host, local.port, local.is_tls)
        self._tell = tell
        self._poll_seconds = poll_seconds
        self._runtime = runtime
        self._name = f"af10-{local.port}-{runtime.random_bytes(4).hex()}"
        self._has_asked = False
        self._address: str | None = None
        self._is_up = False
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> str:
        """Find a tunnel or ask for one; from then on it is watched."""
        found = await self._found() or await self._asked_for()
        self._address, self._is_up = found, True
        self._watching = asyncio.create_task(self._watch(), name="af10_async ngrok agent")
        return found

    async def close(self) -> None:
        """Watch no longer, and leave nothing of ours at the agent."""
        if self._watching is not None:
            await ended(self._watching)
        if self._has_asked:
            try:
                await self._api.remove(self._name)
            except PublicURLError as error:
                logger.debug("the ngrok tunnel %s was not removed: %s", self._name, error)

    async def _found(self) -> str | None:
        return chosen(await self._api.addresses(self._target), self._address)

    async def _asked_for(self) -> str:
        """A tunnel that was made for us. Cancellation waits for the answer, which ends soon.

        Else the agent might make it after we have taken it back.
        """
        self._has_asked = True
        return await to_its_end(self._api.ask(self._name))

    async def _watch(self) -> None:
        while True:
            await self._runtime.sleep(self._poll_seconds)
            try:
                found = await self._found()
                if found is None and self._has_asked:
                    found = await self._asked_for()
            except Exception as error:
                is_known = isinstance(error, PublicURLError)
                self._lose(str(error) if is_known else type(error).__name__)
            else:
                self._take(found)

    def _take(self, found: str | None) -> None:
        if found is None:
            self._lose(f"the agent has no https tunnel to port {self._target.port} any more")
        elif not self._is_up or found != self._address:
            logger.info("ngrok leads to port %d again or by another address", self._target.port)
            self._address, self._is_up = found, True
            self._tell(found)

    def _lose(self, why: str) -> None:
        if self._is_up:
            logger.warning("there is no public address for now: %s", why)
            self._is_up = False
            self._tell(None)
