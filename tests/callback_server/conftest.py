"""A callback server on a real socket, and raw ways to talk to it."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from af10_async import callback_receiver as room
from af10_async.callback_server import CallbackServer
from af10_async.protocol.keys import make_key
from af10_async.protocol.lifecycle import Event, JobRecord, Transition
from af10_async.stores import MemoryStore, Store

from .servers import ALONE, KINDS, MOUNTED_AT, Kind, Served, mounted

CALLBACK_SECRET = "the-callback-secret-of-these-tests"
ID = "0ca11bac-0000-4000-8000-00000000000a"
OTHER_ID = "0ca11bac-0000-4000-8000-00000000000b"
PUBLIC_URL = f"https://hooks.example.com{MOUNTED_AT}"
LONG = 1e12
"""An expiry that no test lives to see."""


def key_of(number: int = 1) -> str:
    """A genuine key."""
    return make_key(number.to_bytes(18), CALLBACK_SECRET.encode())


def record_of(key: str) -> JobRecord:
    """A job that has just been registered."""
    return JobRecord(key, "an account", "POST", "/backup/owner", True, 0.0, LONG)


def request(target: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    """A request with `Connection: close`, as it goes over the wire."""
    lines = [f"{method} {target} HTTP/1.1", "Host: hooks.example.com", "Connection: close"]
    return "\r\n".join([*lines, *headers, "", ""]).encode("utf-8", "surrogateescape") + body


@dataclass(frozen=True)
class Answer:
    """What came back until the connection closed."""

    raw: bytes
    statuses: list[int] = field(init=False)

    def __post_init__(self) -> None:
        found = re.findall(rb"HTTP/1\.[01] (\d{3})", self.raw)
        object.__setattr__(self, "statuses", [int(each) for each in found])

    @property
    def status(self) -> int:
        """The only answer's."""
        (status,) = self.statuses
        return status

    @property
    def head(self) -> str:
        return self.raw.partition(b"\r\n\r\n")[0].decode().lower()

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]


async def talk(port: int, data: bytes, tls: ssl.SSLContext | None = None) -> Answer:
    """Send `data` and read until the server closes the connection."""
    name = "127.0.0.1" if tls else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    got = bytearray()
    try:
        async with asyncio.timeout(5):
            with suppress(ConnectionError):
                writer.write(data)
                await writer.drain()
                while part := await reader.read(65536):
                    got += part
    finally:
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
    return Answer(bytes(got))


class GatedStore(MemoryStore):
    """Keeps nothing before its gate is opened."""

    is_immediate = False

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.reached = asyncio.Event()

    async def apply(self, key: str, event: Event) -> Transition | None:
        self.reached.set()
        await self.gate.wait()
        return await super().apply(key, event)


class BrokenStore(MemoryStore):
    """Fails, with a text that nobody should see."""

    def __init__(self, *, orphans_only: bool = False) -> None:
        super().__init__()
        self._orphans_only = orphans_only

    async def apply(self, key: str, event: Event) -> Transition | None:
        if self._orphans_only:
            return None
        raise OSError(f"the disk is gone while keeping {event!r} {ID}")

    async def add_orphan(self, record: JobRecord) -> Transition:
        raise RuntimeError(f"no room for {record.secrets}")


class CountingStore(MemoryStore):
    """Counts how often it is opened and closed."""

    opened = closed = 0

    async def open(self) -> None:
        self.opened += 1

    async def close(self) -> None:
        self.closed += 1


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[CallbackServer]:
    """A server that is listening."""
    given = {"public_url": PUBLIC_URL, "callback_secret": CALLBACK_SECRET, **options}
    async with CallbackServer(**given) as server:
        yield server


Run = Callable[..., AbstractAsyncContextManager[Served]]


def running_under(kind: Kind) -> Run:
    """What `running` is for a receiver that is served by that kind of server."""

    def run(**options: Any) -> AbstractAsyncContextManager[Served]:
        given = {"public_url": PUBLIC_URL, "callback_secret": CALLBACK_SECRET, **options}
        return running(**given) if kind is ALONE else mounted(kind, **given)

    return run


async def nothing() -> None:
    """What a client does when its server closes, if it does nothing."""


async def known(store: Store, key: str) -> tuple[str, ...]:
    """The secrets kept under a key; none when there is no record."""
    record = await store.get(key)
    return record.secrets if record else ()


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    """What serves the requests: each test that asks for it runs on all kinds."""
    found = request.param
    assert isinstance(found, Kind)
    return found


@pytest.fixture
def run(kind: Kind) -> Run:
    """Makes a receiver, under each kind of server, to be entered with `async with`."""
    return running_under(kind)


@pytest.fixture
async def server(run: Run) -> AsyncIterator[Served]:
    """A receiver with one registered job, under `key_of(1)`."""
    async with run() as found:
        await found.store.add(record_of(key_of()))
        yield found


@pytest.fixture
def quick_store_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "STORE_TIMEOUT", 0.02)


@pytest.fixture
def quick_keep_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("af10_async.callback_server.KEEP_ALIVE", 0.04)


@dataclass(frozen=True)
class Certificate:
    """What a server with TLS needs, and what its callers do."""

    cert: Path
    key: Path
    client: ssl.SSLContext


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> Certificate:
    """A certificate for 127.0.0.1, and a client context that trusts it."""
    leaf = authority.issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    leaf.cert_chain_pems[0].write_to_path(cert)
    leaf.private_key_pem.write_to_path(key)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Certificate(cert, key, client)
