"""A proxy between a caller and a callback server, each on a real socket."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
import trustme

from af10_async.callback_server import CallbackServer
from af10_async.stores import MemoryStore
from tests.callback_server.conftest import ID, Answer, key_of, known, record_of, running, talk
from tests.ports import free_port

from .programs import PROXIES
from .proxy import PREFIX, PUBLIC_URL, Place, Proxy, skip_without

JOBS = 60
"""Jobs that are registered: `key_of(1)` and so on."""


@dataclass
class Setting:
    """A proxy, and the store of the callback servers that it passes callbacks on to."""

    proxy: Proxy
    store: MemoryStore
    ports: tuple[int, ...]
    trust: ssl.SSLContext

    def server(
        self, number: int = 0, **options: Any
    ) -> AbstractAsyncContextManager[CallbackServer]:
        """A callback server, still to be entered, where the proxy looks for one."""
        usual = {"public_url": PUBLIC_URL, "trusted_proxies": ["127.0.0.1"], "store": self.store}
        return running(port=self.ports[number], **(usual | options))

    async def call(self, number: int = 1) -> int:
        """A callback for this job, as AF10 makes it; the status that came back."""
        return (await self.ask(request(target(number)))).status

    async def ask(self, data: bytes) -> Answer:
        """Send `data` to the proxy over TLS, and read until it closes the connection."""
        return await talk(self.proxy.port, data, self.trust)

    def caller(
        self, version: str = "HTTP/1.1", local_address: str = "127.0.0.1"
    ) -> httpx.AsyncClient:
        """One that keeps its connections to the proxy."""
        url = f"https://127.0.0.1:{self.proxy.port}"
        headers = {"Host": "hooks.example.com"}
        transport = httpx.AsyncHTTPTransport(
            verify=self.trust, http2=version == "HTTP/2", local_address=local_address
        )
        return httpx.AsyncClient(base_url=url, headers=headers, transport=transport)

    async def kept(self) -> set[int]:
        """The jobs that a secret was recorded for, and only the right one."""
        found = {number: await known(self.store, key_of(number)) for number in range(1, JOBS + 1)}
        assert set(found.values()) <= {(), (ID,)}
        return {number for number, secrets in found.items() if secrets}

    def connections(self) -> set[int]:
        """The ports that the proxy is connected to the callback servers from."""
        return {
            each.raddr.port
            for each in psutil.Process().net_connections("tcp")
            if each.laddr.port in self.ports and each.status == psutil.CONN_ESTABLISHED
        }

    async def disconnected(self) -> None:
        """Wait until the proxy has no connection to the callback servers."""
        async with asyncio.timeout(5):
            while self.connections():
                await asyncio.sleep(0.005)


def target(number: int = 1, secret: str = f"?id={ID}") -> str:
    """The path and query that AF10 calls."""
    return f"{PREFIX}/af10/{key_of(number)}{secret}"


def request(target: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    """A request that has the connection closed after it."""
    lines = [f"{method} {target} HTTP/1.1", "Host: hooks.example.com", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


SettingMaker = Callable[..., Awaitable[Setting]]


@pytest.fixture(params=PROXIES, ids=lambda proxy: str(proxy.program))
def kind(request: pytest.FixtureRequest) -> type[Proxy]:
    """Which proxy."""
    found: type[Proxy] = request.param
    skip_without(found)
    return found


@pytest.fixture
async def make_setting(
    kind: type[Proxy], authority: trustme.CA, tmp_path: Path
) -> AsyncIterator[SettingMaker]:
    """Starts the proxy, without a callback server behind it."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    leaf = authority.issue_cert("hooks.example.com", "127.0.0.1")
    leaf.cert_chain_pems[0].write_to_path(cert)
    leaf.private_key_pem.write_to_path(key)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)

    async with AsyncExitStack() as stack:

        async def make(*, receivers: int = 1, **options: Any) -> Setting:
            store = MemoryStore()
            for number in range(1, JOBS + 1):
                await store.add(record_of(key_of(number)))
            ports = tuple(free_port() for _ in range(receivers))
            place = Place(tmp_path, free_port(), ports, cert, key, **options)
            proxy = kind(place)
            stack.push_async_callback(proxy.stop)
            await proxy.start()
            return Setting(proxy, store, ports, trust)

        yield make


@pytest.fixture
async def setting(make_setting: SettingMaker) -> Setting:
    """The proxy as documented, without a callback server behind it."""
    return await make_setting()


@pytest.fixture
async def open_setting(setting: Setting) -> AsyncIterator[Setting]:
    """The proxy as documented, and a callback server behind it."""
    async with setting.server():
        yield setting


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Who signs the proxies' certificates."""
    return trustme.CA()
