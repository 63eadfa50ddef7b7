"""Takes connections in, so many at a time, and lets go of those that do nothing.

The number of connections is bounded from the moment they are accepted: those that have not even
finished their TLS handshake count, too. When there are too many, the one that has been idle for
longest goes; those with a request under way stay. So whoever opens thousands of connections and
says nothing displaces its own, and hardly one that brings a callback, which is there for some
milliseconds.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from .runtime import Runtime

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

logger = logging.getLogger("af10_async.callback_server")

_QUEUE = 4096
"""Connections that the system keeps for us until they are accepted; it may allow fewer."""
_AT_ONCE = 64
"""Connections that are accepted before others get their turn."""
_HANDSHAKE_SECONDS = 10.0
_GOODBYE_SECONDS = 0.5
"""Seconds that a peer has to answer the end of its TLS connection."""
_FULL_PAUSE = 0.05
"""Seconds before it is tried again to accept, when the system has no room."""
_WARNING_SECONDS = 60.0
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_REOPEN_PAUSES = (0.1, 0.3, 1.0, 2.0)
"""Seconds between attempts to listen again when the listening socket broke."""


class Connection:
    """One connection, from when it was accepted."""

    __slots__ = ("_task", "_transport")

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.BaseTransport | None = None

    def begins(self, task: asyncio.Task[None]) -> None:
        """The task leads it through its handshake."""
        self._task = task

    def is_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done."""
        self._transport = transport

    def drop(self) -> None:
        """End it now."""
        if isinstance(self._transport, asyncio.Transport):
            self._transport.abort()
        elif self._task is not None:
            self._task.cancel()


class Acceptor:
    """Listens, and hands each connection to a protocol.

    Args:
        make_protocol: Makes the protocol of one connection.
        most: Most connections at a time.
        on_death: Called when it cannot listen any more.
        runtime: Time and sleep.

    """

    def __init__(
        self,
        make_protocol: Callable[[Connection], asyncio.Protocol],
        *,
        most: int,
        on_death: Callable[[], None],
        runtime: Runtime,
    ) -> None:
        self._make_protocol = make_protocol
        self._most = most
        self._on_death = on_death
        self._runtime = runtime
        self._tls: ssl.SSLContext | None = None
        self._idle: dict[Connection, None] = {}
        """In the order of what they did last."""
        self._busy: set[Connection] = set()
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._next_warning = runtime.monotonic()

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        """Listen; raises `OSError`, with nothing left half-started."""
        self._tls = tls
        self._sockets = await _listening(host, port)
        self._accepting = [
            asyncio.create_task(self._accept_all(each), name="af10_async accept")
            for each in self._sockets
        ]

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Take no more in; those that are in stay, unless their handshake is not done."""
        tasks = [*self._accepting, *self._handshakes]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in self._sockets:
            each.close()

    # -- what a connection does --------------------------------------------------------------------

    def is_busy(self, connection: Connection) -> None:
        """It has a request under way."""
        if connection in self._idle:
            del self._idle[connection]
            self._busy.add(connection)

    def is_idle(self, connection: Connection) -> None:
        """It has none any more."""
        if connection in self._busy:
            self._busy.remove(connection)
            self._idle[connection] = None

    def is_gone(self, connection: Connection) -> None:
        """It has ended."""
        self._idle.pop(connection, None)
        self._busy.discard(connection)

    def _make_room(self) -> bool:
        if len(self._idle) + len(self._busy) < self._most:
            return True
        self._warn("there are more than %d connections: idle ones are let go", self._most)
        return self._drop_oldest()

    def _drop_oldest(self) -> bool:
        oldest = next(iter(self._idle), None)
        if oldest is None:
            return False
        self.is_gone(oldest)
        oldest.drop()
        return True

    # -- taking them in ----------------------------------------------------------------------------

    async def _accept_all(self, listening: socket.socket) -> None:
        address = listening.getsockname()
        while True:
            try:
                await self._accept_from(listening)
            except OSError as error:
                logger.error("the callback server's socket broke: %s", error.strerror)
            again = await self._open_again(listening, address)
            if again is None:
                return self._on_death()
            listening = again

    async def _open_again(self, broken: socket.socket, address: Any) -> socket.socket | None:
        broken.close()
        for pause in _REOPEN_PAUSES:
            with suppress(OSError):
                again = _bound(broken.family, address)
                self._sockets[self._sockets.index(broken)] = again
                logger.warning("the callback server listens again on port %d", address[1])
                return again
            await self._runtime.sleep(pause)
        logger.error("the callback server cannot listen any more on port %d", address[1])
        return None

    async def _accept_from(self, listening: socket.socket) -> None:
        """Until the socket breaks, which raises `OSError`."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
                self._take(accepted)
                for _ in range(_AT_ONCE):
                    accepted, _ = listening.accept()
                    accepted.setblocking(False)
                    self._take(accepted)
            except (BlockingIOError, InterruptedError, ConnectionError):
                pass  # there is none any more, or it left before it was taken in
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                await self._room_in_system(error)
            await asyncio.sleep(0)

    async def _room_in_system(self, error: OSError) -> None:
        self._warn("no connection can be taken in (%s): idle ones are let go", error.strerror)
        for _ in range(max(1, len(self._idle) // 10)):
            self._drop_oldest()
        await self._runtime.sleep(_FULL_PAUSE)

    def _warn(self, text: str, *about: object) -> None:
        now = self._runtime.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + _WARNING_SECONDS
            logger.warning(text, *about)

    def _take(self, accepted: socket.socket) -> None:
        if not self._make_room():
            accepted.close()
            return
        connection = Connection()
        self._idle[connection] = None
        task = asyncio.create_task(self._lead(accepted, connection), name="af10_async handshake")
        connection.begins(task)
        self._handshakes.add(task)
        task.add_done_callback(functools.partial(self._is_led, accepted, connection))

    async def _lead(self, accepted: socket.socket, connection: Connection) -> None:
        """Through the TLS handshake, if there is to be one."""
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
            lambda: self._make_protocol(connection),
            accepted,
            ssl=self._tls,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS if self._tls else None,
            ssl_shutdown_timeout=_GOODBYE_SECONDS if self._tls else None,
        )
        connection.is_made(transport)

    def _is_led(
        self, accepted: socket.socket, connection: Connection, task: asyncio.Task[None]
    ) -> None:
        self._handshakes.discard(task)
        # A task that is cancelled early has not even begun, so this is not done by itself.
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            self.is_gone(connection)
            accepted.close()
        if error is not None:
            logger.debug("a connection ended before it began: %s", _reason(error))


def most_connections() -> int:
    """How many there may be: half of the files that this process may have open, at most 1,000."""
    if resource is None:
        return 500
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1000 if files == resource.RLIM_INFINITY else max(16, min(1000, files // 2))


async def _listening(host: str, port: int) -> list[socket.socket]:
    """Sockets for each address that the host has, all with the same port."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    addresses = dict.fromkeys((family, address) for family, _, _, _, address in found)
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, address in addresses:
            try:
                sockets.append(_bound(family, _with_port(address, sockets)))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error  # a machine without IPv6, whose localhost has such an address
    except BaseException:
        for each in sockets:
            each.close()
        raise
    if not sockets:
        raise missing or OSError(errno.EADDRNOTAVAIL, "the host has no address")
    return sockets


def _with_port(address: Sequence[object], sockets: Sequence[socket.socket]) -> tuple[object, ...]:
    port = sockets[0].getsockname()[1] if sockets else address[1]
    return (address[0], port, *address[2:])


def _bound(family: int, address: Sequence[object]) -> socket.socket:
    made = socket.create_server(tuple(address), family=family, backlog=_QUEUE)
    made.setblocking(False)
    return made


def _reason(error: BaseException) -> str:
    """In OpenSSL's words, or the system's."""
    for name in ("reason", "strerror"):
        if text := getattr(error, name, None):
            return str(text)
    return type(error).__name__
