"""Takes connections in, so many at a time, and lets go of those that do nothing.

The number of connections is bounded from the moment they are accepted. When there are too many, the
one that has been idle for longest goes, of whoever has most; those with a request under way stay.
Accepting one costs little, and each waits for its turn apart from the others: so who opens
thousands of them displaces its own, and hardly delays those that bring callbacks.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .admission import Admission, reason, say_too_many
from .callback_connections import Connection, origin_of
from .callback_log import Seldom
from .crowd import Crowd
from .listening_sockets import bound, listening_sockets, readable
from .protocol.openings import hello_needs
from .runtime import Runtime
from .shelter import all_ended, to_its_end
from .waiting_room import WaitingRoom

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

logger = logging.getLogger("af10_async.callback_server")

_MOST_AT_ONCE = 64
"""Connections accepted before others get their turn."""
_PARTS = 16
"""And that part of all that there may be: who comes must not be displaced before it has spoken."""
_HANDSHAKE_SECONDS = 10.0
"""For the first word of a TLS handshake, and for the rest."""
_FULL_PAUSE = 0.05
"""Seconds before it is tried again to accept, when the system has no room."""
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_BROKEN = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP)
"""What is the listening socket's own trouble; anything else is that of one connection."""
_LEFT = 64
"""Windows' word for a peer that left before it was taken in; it has none of errno's."""
_REOPEN_PAUSES = (0.0, 0.1, 0.3, 1.0, 2.0)
"""Seconds before attempts to listen again when the listening socket broke."""
_STEADY_SECONDS = 60.0
"""A socket that worked for so long has all these attempts again."""
_MOST = 1000
_MOST_SERVED_BY_TLS = 200
"""Each takes a third of a megabyte."""


class Acceptor:
    """Listens, and hands each connection that has said enough to a protocol.

    Args:
        make_protocol: Makes the protocol of one connection, which calls `Connection.is_made` once
            it is connected, and tells `admission` what becomes of it.
        needs: How many bytes there must be for that, by those that there are; with TLS, that is
            the acceptor's own affair.
        patience: Seconds that a connection has to say them, without TLS.
        most: Most connections at a time; when not given, 1,000 or half of the files that this
            process may have, and with TLS, 200 of them are served at a time.
        on_death: Called when it cannot listen any more.
        runtime: Time and sleep.

    """

    def __init__(
        self,
        make_protocol: Callable[[Connection], asyncio.Protocol],
        *,
        needs: Callable[[bytes], int],
        patience: float,
        most: int | None,
        on_death: Callable[[], None],
        runtime: Runtime,
    ) -> None:
        self._make_protocol = make_protocol
        self._needs = needs
        self._patience = patience
        self._most = most or _most_connections()
        self._most_served_by_tls = most or min(self._most, _MOST_SERVED_BY_TLS)
        self._at_once = max(1, min(_MOST_AT_ONCE, self._most // _PARTS))
        self._on_death = on_death
        self._runtime = runtime
        self._crowd: Crowd
        self._room: WaitingRoom
        self.admission: Admission
        """Since it listens."""
        self.port = 0
        """Where it listens, or did until its socket broke for good."""
        self._sockets: set[socket.socket] = set()
        self._accepting: list[asyncio.Task[None]] = []
        self._addresses = 0
        """At how many it listens, or tries to."""
        self._seldom = Seldom(runtime)

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        """Listen; raises `OSError`, with nothing left half-started."""
        self._crowd = Crowd(
            share=self._most // _PARTS,
            ready_may_go=tls is not None,
            clock=asyncio.get_running_loop().time,
        )
        self.admission = Admission(
            self._crowd,
            self._make_protocol,
            most=self._most if tls is None else self._most_served_by_tls,
            tls=tls,
            handshake_seconds=_HANDSHAKE_SECONDS,
            seldom=self._seldom,
        )
        self._room = WaitingRoom(
            self._crowd,
            self._needs if tls is None else hello_needs,
            patience=self._patience if tls is None else _HANDSHAKE_SECONDS,
            on_enough=self.admission.add,
        )
        sockets = await listening_sockets(host, port)
        self.port = int(sockets[0].getsockname()[1])
        self._sockets = set(sockets)
        self._addresses = len(sockets)
        self._accepting = [
            asyncio.create_task(self._accept_all(each), name="af10_async accept")
            for each in sockets
        ]

    async def stop(self) -> None:
        """Take no more in; those that are in stay, unless they have not said enough to be served.

        With TLS, that is a whole handshake.
        """
        try:
            await to_its_end(self._stop())
        finally:
            for each in self._sockets:
                each.close()

    async def _stop(self) -> None:
        await all_ended(self._accepting)
        self._room.close()
        await self.admission.finish()

    # -- more than there may be --------------------------------------------------------------------

    def _is_full(self) -> bool:
        return len(self._crowd) >= self._most

    def _spared(self) -> Connection | None:
        """Who goes when one more is taken in; None when nobody has to, or can."""
        return self._crowd.to_let_go() if self._is_full() else None

    def _let_go(self, connection: Connection) -> None:
        if not self._room.has_left(connection):
            self.admission.is_gone(connection)
        connection.drop()

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
            logger.error("the callback server's socket broke: %s", reason(error))
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
        is_empty = False
        while True:
            try:
                if is_empty:
                    await self._next_from(listening)
                    is_empty = False
                await self._accept_some(listening)
            except BlockingIOError:
                is_empty = True
                continue
            except (InterruptedError, ConnectionError):
                pass  # it left before it was taken in
            except OSError as error:
                if error.errno in _BROKEN and getattr(error, "winerror", None) != _LEFT:
                    raise
                await self._wait_for_room(error)
            await asyncio.sleep(0)

    async def _next_from(self, listening: socket.socket) -> None:
        """Wait until there is one."""
        try:
            await readable(listening)
        except NotImplementedError:  # on Windows, the loop accepts it by itself
            accepted = await asyncio.get_running_loop().sock_accept(listening)
            self._take(*accepted, self._spared())

    async def _accept_some(self, listening: socket.socket) -> None:
        for _ in range(self._at_once):
            spared = self._spared()
            while spared is None and self._is_full():
                await self._crowd.progress()  # meanwhile, the system keeps those that come
                spared = self._spared()
            self._take(*listening.accept(), spared)

    def _take(
        self, accepted: socket.socket, address: Any, spared: Connection | None = None
    ) -> None:
        accepted.setblocking(False)
        if spared is not None:
            say_too_many(self._seldom, self._most)
            self._let_go(spared)
        self._room.take(Connection(accepted, origin_of(address)))

    async def _wait_for_room(self, error: OSError) -> None:
        if error.errno in _NO_ROOM:
            for _ in range(max(1, len(self._crowd) // 10)):
                if (spared := self._crowd.to_let_go()) is not None:
                    self._let_go(spared)
        if self._seldom.may_come():
            logger.warning(
                "no connection can be taken in (%s): idle ones are let go", error.strerror
            )
        await self._runtime.sleep(_FULL_PAUSE)


def _most_connections() -> int:
    """How many there may be: half of the files that this process may have open, at most 1,000."""
    if resource is None:
        return _MOST // 2
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if files == resource.RLIM_INFINITY else max(16, min(_MOST, files // 2))
