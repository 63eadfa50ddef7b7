"""Who answers where AF10 or our own server should."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trustme

from ..conftest import Tls

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@asynccontextmanager
async def saying(answer: bytes | None, tls: Tls | None = None) -> AsyncIterator[int]:
    """The port of a server that says the same to everybody; None: nothing at all."""
    writers: list[asyncio.StreamWriter] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        if answer is None:
            return
        with suppress(OSError):
            await reader.read(65536)
            writer.write(answer)
            await writer.drain()
        writer.close()

    context = None
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls.cert, tls.key)
    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        for writer in writers:
            with suppress(OSError):
                await writer.wait_closed()


def http(status: str, *headers: str, body: str = "{}") -> bytes:
    """An answer as it goes over the wire."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", body]).encode()


@dataclass(frozen=True)
class Authority:
    """Signs certificates for a server at 127.0.0.1, and for others."""

    folder: Path

    def issue(
        self,
        name: str = "127.0.0.1",
        not_before: datetime.datetime = NOW - 60 * DAY,
        not_after: datetime.datetime = NOW + 60 * DAY,
    ) -> Tls:
        found = Tls(self.folder / "cert.pem", self.folder / "key.pem", self.folder / "ca.pem")
        ca = trustme.CA()
        leaf = ca.issue_cert(name, not_before=not_before, not_after=not_after)
        found.cert.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        found.key.touch(mode=0o600)
        found.key.write_bytes(leaf.private_key_pem.bytes())
        found.ca.write_bytes(ca.cert_pem.bytes())
        return found
