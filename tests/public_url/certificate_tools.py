"""Certificates that tests make, the files they stand in, and real connections that see them."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from af10_async.runtime import Runtime

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
DAY = 24 * 3600.0
NOW = datetime(2026, 6, 1, tzinfo=UTC).timestamp()
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Leaf:
    """A certificate with its chain, and its key, as PEM."""

    chain: bytes
    key: bytes

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.chain)

    @property
    def serial(self) -> int:
        return self.certificate.serial_number


@dataclass(frozen=True)
class Files:
    """Where a server's certificate and key stand."""

    cert: Path
    key: Path

    def hold(self, leaf: Leaf) -> None:
        """Put both there as certbot does: new files take the places of the old."""
        self.hold_cert(leaf.chain)
        self.hold_key(leaf.key)

    def hold_cert(self, chain: bytes) -> None:
        _replace(self.cert, chain)

    def hold_key(self, key: bytes) -> None:
        _replace(self.key, key)


def _replace(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_bytes(content)
    new.replace(path)


class Clock:
    """Time that stands still, and lets the files be looked at once whenever a test says so."""

    def __init__(self) -> None:
        self.time = NOW
        self.asked: list[float] = []
        self._is_waiting = asyncio.Event()
        self._may_go = asyncio.Event()
        self.runtime = Runtime(now=self.now, sleep=self._sleep)

    def now(self) -> float:
        return self.time

    async def _sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        self._is_waiting.set()
        await self._may_go.wait()
        self._may_go.clear()

    async def look(self) -> None:
        """One look, from its beginning to its end."""
        await self._is_waiting.wait()
        self._is_waiting.clear()
        self._may_go.set()
        await self._is_waiting.wait()


CA = trustme.CA()
MIDDLE = CA.create_child_ca()


def issue(
    *names: str,
    by: trustme.CA = CA,
    begin: float = NOW - 30 * DAY,
    end: float = NOW + 365 * DAY,
    key_type: trustme.KeyType = trustme.KeyType.ECDSA,
) -> Leaf:
    found = by.issue_cert(
        *(names or ("localhost", "127.0.0.1")),
        not_before=datetime.fromtimestamp(begin, UTC),
        not_after=datetime.fromtimestamp(end, UTC),
        key_type=key_type,
    )
    chain = b"".join(each.bytes() for each in found.cert_chain_pems)
    return Leaf(chain, found.private_key_pem.bytes())


def hand_made(key: Key, *, usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH) -> Leaf:
    """A certificate that trustme would not make."""
    authority = load_pem_private_key(CA.private_key_pem.bytes(), None)
    assert isinstance(authority, ec.EllipticCurvePrivateKey)
    common = x509.NameAttribute(NameOID.COMMON_NAME, "only.example.com")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([common]))
        .issuer_name(x509.load_pem_x509_certificate(CA.cert_pem.bytes()).subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(NOW, UTC) - timedelta(days=30))
        .not_valid_after(datetime.fromtimestamp(NOW, UTC) + timedelta(days=30))
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .sign(authority, hashes.SHA256())
    )
    return Leaf(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def short_key() -> Leaf:
    return hand_made(rsa.generate_private_key(65537, 1024))


def signed_with_sha1() -> Leaf:
    """One that says so; its signature, which a server does not check, is not even right."""
    leaf = hand_made(ec.generate_private_key(ec.SECP256R1()))
    sha256, sha1 = bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06072a8648ce3d0401")
    der = leaf.certificate.public_bytes(Encoding.DER)
    assert der.count(sha256) == 2
    # The name of the algorithm is one byte shorter: so are the sequences that it stands in.
    der = der.replace(b"\x30\x0a" + sha256, b"\x30\x09" + sha1)
    tbs = int.from_bytes(der[6:8]) - 1
    assert der[:2] == b"\x30\x82"
    assert der[4:6] == b"\x30\x82"
    whole = int.from_bytes(der[2:4]) - 2
    der = der[:2] + whole.to_bytes(2) + der[4:6] + tbs.to_bytes(2) + der[8:]
    return Leaf(ssl.DER_cert_to_PEM_cert(der).encode(), leaf.key)


def with_passphrase(leaf: Leaf) -> bytes:
    key = load_pem_private_key(leaf.key, None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))


def client(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Trusts the authority of these tests, at any date."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= 0x200000  # the tests' certificates are of the tests' own time
    CA.configure_trust(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


@asynccontextmanager
async def echoing(context: ssl.SSLContext) -> AsyncIterator[int]:
    """A real server that sends back what it gets; gives its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while data := await reader.read(1024):
                writer.write(data)
                await writer.drain()
            writer.close()  # OpenSSL forgets sessions of connections that were not shut down
            await writer.wait_closed()
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*tasks, return_exceptions=True)


class Connection:
    """A client's connection to an echoing server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        peer = writer.get_extra_info("ssl_object").getpeercert()
        self.serial = int(peer["serialNumber"], 16)

    async def echo(self, data: bytes) -> None:
        self._writer.write(data)
        assert await self._reader.readexactly(len(data)) == data


@asynccontextmanager
async def connected(
    port: int, name: str = "localhost", version: ssl.TLSVersion | None = None
) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=client(version), server_hostname=name
    )
    try:
        yield Connection(reader, writer)
    finally:
        writer.transport.abort()


async def shown(port: int, name: str = "localhost", version: ssl.TLSVersion | None = None) -> int:
    """The serial number of the certificate that a new connection gets to see."""
    async with connected(port, name, version) as connection:
        await connection.echo(b"hello")
        return connection.serial


def told(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    """What was logged at this level or above, and forget it."""
    found = [each for each in caplog.records if each.levelno >= level]
    assert {each.name for each in found} <= {"af10_async.public_url"}
    assert not any(each.exc_info for each in found)
    texts = [each.getMessage() for each in found]
    caplog.clear()
    return texts


def talk(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[ssl.SSLSession | None, bool | None]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        line = context.wrap_socket(plain, server_hostname="localhost", session=session)
        with line:
            line.sendall(b"hello")
            assert line.recv(5) == b"hello"  # TLS 1.3 sends its tickets before this
            found = line.session, line.session_reused
            line.unwrap().close()
            return found


def loaded(files: Files) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    return context
