"""Servers of every kind at the public address of a receiver, each on a real socket."""

from __future__ import annotations

import asyncio
import base64
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from af10_async.callback_server import CallbackServer
from af10_async.errors import UnreachableError
from af10_async.runtime import Runtime

SECRET = "the-callback-secret-of-these-tests"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Dice:
    """Real chance that remembers what it gave: none of it may be seen anywhere."""

    def __init__(self) -> None:
        self._given: list[bytes] = []
        self.runtime = Runtime(random_bytes=self._give)

    def _give(self, size: int) -> bytes:
        self._given.append(secrets.token_bytes(size))
        return self._given[-1]

    def seen_in(self, text: str) -> list[str]:
        """The nonces, the keys and the callback secret that stand in a text."""
        spellings = [SECRET]
        for each in self._given:
            spellings += [each.hex(), base64.urlsafe_b64encode(each).decode()]
        return [each for each in spellings if each in text]


# -- certificates ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Authority:
    """An authority, and the file that makes it trusted."""

    ca: trustme.CA
    file: Path

    def context(self, *names: str, days: tuple[float, float] = (-1, 30)) -> ssl.SSLContext:
        """What a server shows that has a certificate for these names, valid on these days."""
        now = datetime.now(UTC)
        begin, end = (now + timedelta(days=each) for each in days)
        leaf = self.ca.issue_cert(*(names or ("127.0.0.1",)), not_before=begin, not_after=end)
        return shown_with(leaf)

    def with_incomplete_chain(self) -> ssl.SSLContext:
        """What a server shows that was given its own certificate only."""
        leaf = self.ca.create_child_ca().issue_cert("127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with leaf.private_key_pem.tempfile() as key, leaf.cert_chain_pems[0].tempfile() as cert:
            context.load_cert_chain(cert, key)
        return context


def shown_with(leaf: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return context


def self_signed(folder: Path) -> ssl.SSLContext:
    """What a server shows that somebody has set up with one line of openssl."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.example.com")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    both = folder / "self-signed.pem"
    both.touch(mode=0o600)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    both.write_bytes(pem + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context


def without_a_certificate_for_any_name(context: ssl.SSLContext) -> ssl.SSLContext:
    """Its server ends each handshake with an alert, as one of many names does for others."""
    context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    return context


# -- servers ---------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(
    talk: Talk, tls: ssl.SSLContext | None = None, *, port: int = 0
) -> AsyncIterator[int]:
    """A server that does that on each connection; gives its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                await talk(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # what was aborted is closed in the next turn


@asynccontextmanager
async def greeting(tls: ssl.SSLContext) -> AsyncIterator[int]:
    """A server that does TLS in a thread of its own, and then closes; gives its port.

    One of asyncio's would hang up without the alert that others send.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepting = asyncio.create_task(asyncio.to_thread(_greet, listening, tls))
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            await accepting


def _greet(listening: socket.socket, tls: ssl.SSLContext) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        connection.settimeout(10)
        with connection, suppress(OSError), tls.wrap_socket(connection, server_side=True) as line:
            line.recv(1)


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads, and that is all."""
    while await reader.read(4096):
        pass


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads the beginning of what is sent, and closes."""
    await reader.read(1)


async def says_goodbye(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads the request, and closes in good order."""
    await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()


def answering(*parts: bytes) -> Talk:
    """Reads the request and sends an answer, in so many pieces."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    return talk


def response(status: str, body: bytes = b"", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


async def says_for_ever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An answer without an end."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


@dataclass
class Proxy:
    """A reverse proxy in front of a receiver, which may change what it passes on."""

    url: str
    behind: int = 0
    """The port of the receiver."""
    change: Callable[[str], str] = lambda target: target
    """What becomes of path and query."""
    headers: tuple[str, ...] = ()
    """What it adds to each request."""
    piece: int = 65536
    """So many bytes of the answer go out at a time."""
    passed: list[str] = field(default_factory=list)
    """The targets that it was asked for."""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, _, rest = head.partition("\r\n")
        method, target, version = line.split(" ")
        self.passed.append(target)
        added = "".join(f"{each}\r\n" for each in ("Connection: close", *self.headers))
        answers, onward = await asyncio.open_connection("127.0.0.1", self.behind)
        try:
            onward.write(f"{method} {self.change(target)} {version}\r\n{added}{rest}".encode())
            answer = await answers.read()
        finally:
            onward.transport.abort()
        for start in range(0, len(answer), self.piece):
            writer.write(answer[start : start + self.piece])
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def proxying(tls: ssl.SSLContext, path: str = "", **options: Any) -> AsyncIterator[Proxy]:
    """A proxy that ends TLS."""
    proxy = Proxy("", **options)
    async with serving(proxy.talk, tls) as port:
        proxy.url = f"https://127.0.0.1:{port}{path}"
        yield proxy


@asynccontextmanager
async def behind(proxy: Proxy, **options: Any) -> AsyncIterator[CallbackServer]:
    """A receiver that this proxy leads to."""
    given = {"public_url": proxy.url, "callback_secret": SECRET, **options}
    async with CallbackServer(**given) as server:
        proxy.behind = server.port
        yield server


# -- what is said ----------------------------------------------------------------------------------


def is_of_help(error: UnreachableError, url: str) -> None:
    """It names the address, says what is wrong with it and what to do, and that is all."""
    text = str(error)
    assert error.url == url
    assert url in text
    what, colon, advice = text.replace(url, "").partition(": ")
    assert what.strip()
    assert colon
    assert len(advice) > 20
    assert "\n" not in text
    assert "Traceback" not in text
    assert error.__cause__ is None
