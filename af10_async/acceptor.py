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
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from .listening_sockets import bound, listening_sockets, readable
from .runtime import Runtime
from .shelter import all_ended, to_its_end

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

logger = logging.getLogger("af10_async.callback_server")

_MOST_AT_ONCE = 16
"""Connections accepted before others get their turn; with TLS, each takes 300 KB at once."""
_SHARE_AT_ONCE = 16
"""And the share of all that there may be: who comes must not be displaced before it has spoken."""
_HANDSHAKE_SECONDS = 10.0
_GOODBYE_SECONDS = 0.5
"""Seconds that a peer has to answer the end of its TLS connection."""
_FULL_PAUSE = 0.05
"""Seconds before it is tried again to accept, when the system has no room."""
_WARNING_SECONDS = 60.0
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_BROKEN = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP)
"""What is the listening socket's own trouble; anything else is that of one connection."""
_REOPEN_PAUSES = (0.0, 0.1, 0.3, 1.0, 2.0)
"""Seconds before attempts to listen again when the listening socket broke."""
_STEADY_SECONDS = 60.0
"""A socket that worked for so long has all these attempts again."""


class Connection:
    """One connection, from when it was accepted."""

    __slots__ = ("_task", "_transport", "origin", "owns_socket")

    def __init__(self, origin: str) -> None:
        self.origin = origin
        """The address that it comes from."""
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self.owns_socket = False
        """Whether there is a transport, which closes the socket."""

    def begins(self, task: asyncio.Task[None]) -> None:
        """The task leads it through its handshake."""
        self._task = task

    def is_led(self) -> None:
        """The task is done. It may hold its error, and that much memory: see `forget_traceback`."""
        self._task = None

    def is_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    @property
    def is_half_way(self) -> bool:
        """Whether its handshake is not done."""
        return self._transport is None

    def drop(self) -> None:
        """End it now."""
        if self._transport is not None:
            self._transport.abort()
        elif self._task is not None:
            self._task.cancel()


class _Idle:
    """Connections that do nothing, in the order of what they did last, by where they come from.

    Those of whoever has most go first: a flood displaces its own, and not those of others, who may
    be far away and slow.
    """

    def __init__(self) -> None:
        self._by_origin: dict[str, dict[Connection, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, connection: Connection) -> None:
        self._by_origin.setdefault(connection.origin, {})[connection] = None
        self._count += 1

    def discard(self, connection: Connection) -> bool:
        """Whether it was there."""
        group = self._by_origin.get(connection.origin, {})
        if connection not in group:
            return False
        del group[connection]
        if not group:
            del self._by_origin[connection.origin]
        self._count -= 1
        return True

    def oldest(self) -> Connection | None:
        """Of the origin that has most; None when there is none at all."""
        largest = max(self._by_origin.values(), key=len, default=None)
        return next(iter(largest)) if largest else None


class Acceptor:
    """Listens, and hands each connection to a protocol.

    Args:
        make_protocol: Makes the protocol of one connection, which calls `Connection.is_made` once
            it is connected, and `is_gone` when it is not any more.
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
        self._at_once = max(1, min(_MOST_AT_ONCE, most // _SHARE_AT_ONCE))
        self._on_death = on_death
        self._runtime = runtime
        self._tls: ssl.SSLContext | None = None
        self._idle = _Idle()
        self._busy: set[Connection] = set()
        self.port = 0
        """Where it listens, or did until its socket broke for good."""
        self._sockets: set[socket.socket] = set()
        self._accepting: list[asyncio.Task[None]] = []
        self._addresses = 0
        """At how many it listens, or tries to."""
        self._handshakes: dict[asyncio.Task[None], Connection] = {}
        self._next_warning = runtime.monotonic()

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        """Listen; raises `OSError`, with nothing left half-started."""
        self._tls = tls
        sockets = await listening_sockets(host, port)
        self.port = int(sockets[0].getsockname()[1])
        self._sockets = set(sockets)
        self._addresses = len(sockets)
        self._accepting = [
            asyncio.create_task(self._accept_all(each), name="af10_async accept")
            for each in sockets
        ]

    async def stop(self) -> None:
        """Take no more in; those that are in stay, unless their handshake is not done."""
        try:
            await to_its_end(self._stop())
        finally:
            for each in self._sockets:
                each.close()

    async def _stop(self) -> None:
        await all_ended(self._accepting)
        if self._tls is not None:
            half_way = [task for task, each in self._handshakes.items() if each.is_half_way]
            await all_ended(half_way)
        if self._handshakes:  # without TLS, that is a matter of a turn or two
            await asyncio.wait(list(self._handshakes))

    # -- what a connection does --------------------------------------------------------------------

    def is_busy(self, connection: Connection) -> None:
        """It has a request under way."""
        if self._idle.discard(connection):
            self._busy.add(connection)

    def is_idle(self, connection: Connection) -> None:
        """It has none any more."""
        if connection in self._busy:
            self._busy.remove(connection)
            self._idle.add(connection)

    def is_gone(self, connection: Connection) -> None:
        """It has ended."""
        self._idle.discard(connection)
        self._busy.discard(connection)

    def _make_room(self) -> bool:
        if len(self._idle) + len(self._busy) < self._most:
            return True
        self._warn("there are more than %d connections: idle ones are let go", self._most)
        return self._drop_oldest()

    def _drop_oldest(self) -> bool:
        oldest = self._idle.oldest()
        if oldest is None:
            return False
        self.is_gone(oldest)
        oldest.drop()
        return True

    # -- listening ---------------------------------------------------------------------------------

    async def _accept_all(self, listening: socket.socket) -> None:
        """From one address, until it cannot listen there any more."""
        family, address = listening.family, listening.getsockname()
        again: socket.socket | None = listening
        pauses = list(_REOPEN_PAUSES)
        while again is not None:
            since = self._runtime.monotonic()
            await self._accept_until_broken(again)
            if self._runtime.monotonic() - since >= _STEADY_SECONDS:
                pauses = list(_REOPEN_PAUSES)
            again = await self._open_again(family, address, pauses)
        logger.error("the callback server cannot listen any more on port %d", self.port)
        self._addresses -= 1
        if self._addresses == 0:
            self._on_death()

    async def _accept_until_broken(self, listening: socket.socket) -> None:
        try:
            await self._accept_from(listening)
        except Exception as error:
            logger.error("the callback server's socket broke: %s", _reason(error))
        finally:
            self._sockets.discard(listening)
            listening.close()

    async def _open_again(
        self, family: int, address: Any, pauses: list[float]
    ) -> socket.socket | None:
        """After one pause or several, which are used up; None when there are no more."""
        while pauses:
            await self._runtime.sleep(pauses.pop(0))
            with suppress(OSError):
                again = bound(family, address)
                self._sockets.add(again)
                logger.warning("the callback server listens again on port %d", self.port)
                return again
        return None

    # -- taking them in ----------------------------------------------------------------------------

    async def _accept_from(self, listening: socket.socket) -> None:
        """Until the socket breaks, which raises `OSError`."""
        while True:
            try:
                self._accept_some(listening)
            except BlockingIOError:
                await readable(listening)
                continue
            except (InterruptedError, ConnectionError):
                pass  # it left before it was taken in
            except OSError as error:
                if error.errno in _BROKEN:
                    raise
                await self._wait_for_room(error)
            await asyncio.sleep(0)

    def _accept_some(self, listening: socket.socket) -> None:
        for _ in range(self._at_once):
            accepted, address = listening.accept()
            accepted.setblocking(False)
            self._take(accepted, str(address[0]))

    async def _wait_for_room(self, error: OSError) -> None:
        if error.errno in _NO_ROOM:
            for _ in range(max(1, len(self._idle) // 10)):
                self._drop_oldest()
        self._warn("no connection can be taken in (%s): idle ones are let go", error.strerror)
        await self._runtime.sleep(_FULL_PAUSE)

    def _warn(self, text: str, *about: object) -> None:
        now = self._runtime.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + _WARNING_SECONDS
            logger.warning(text, *about)

    def _take(self, accepted: socket.socket, origin: str) -> None:
        if not self._make_room():
            accepted.close()
            return
        connection = Connection(origin)
        self._idle.add(connection)
        task = asyncio.create_task(self._lead(accepted, connection), name="af10_async handshake")
        connection.begins(task)
        self._handshakes[task] = connection
        task.add_done_callback(functools.partial(self._is_led, accepted, connection))

    async def _lead(self, accepted: socket.socket, connection: Connection) -> None:
        """Through the TLS handshake, if there is to be one."""

        def make() -> asyncio.Protocol:
            made = self._make_protocol(connection)
            connection.owns_socket = True
            return made

        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                make,
                accepted,
                ssl=self._tls,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS if self._tls else None,
                ssl_shutdown_timeout=_GOODBYE_SECONDS if self._tls else None,
            )
        except Exception as error:
            logger.debug("a connection ended before it began: %s", _reason(error))
            forget_traceback(error)  # with asyncio's buffers for TLS, in a cycle

    def _is_led(
        self, accepted: socket.socket, connection: Connection, task: asyncio.Task[None]
    ) -> None:
        del self._handshakes[task]
        connection.is_led()
        if connection.is_half_way:
            self.is_gone(connection)
            if not connection.owns_socket:  # a task that is cancelled early has not even begun
                accepted.close()


def most_connections(*, has_tls: bool) -> int:
    """How many there may be: half of the files that this process may have open, at most 1,000.

    With TLS, at most 200: each takes a third of a megabyte.
    """
    most = 200 if has_tls else 1000
    if resource is None:
        return min(most, 500)
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if files == resource.RLIM_INFINITY else max(16, min(most, files // 2))


def forget_traceback(error: BaseException | None) -> None:
    """Let go of the memory behind an error that a peer can cause as often as it likes.

    Frames that hold the error are held by its traceback: the garbage collector would find them, but
    it counts objects and not their size, so that it comes after hundreds of megabytes.
    """
    if error is not None:
        error.__traceback__ = None


def _reason(error: BaseException) -> str:
    """In OpenSSL's words, or the system's."""
    for name in ("reason", "strerror"):
        if text := getattr(error, name, None):
            return str(text)
    return type(error).__name__
