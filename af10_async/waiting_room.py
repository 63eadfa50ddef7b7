"""Where connections wait that have not said enough to be served.

Such a one is a socket and nothing else: no task, no transport, no buffer of a quarter of a megabyte
for TLS. What it has said stays with the system until it is enough. So thousands of connections that
say nothing, or half of something, cost little, and are gone quickly when there are too many.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

from .callback_connections import Connection, Doing
from .crowd import Crowd
from .protocol.openings import MOST


class WaitingRoom:
    """Looks at what connections have said, whenever there is more of it.

    Args:
        crowd: All connections.
        needs: How many bytes there must be, by those that there are (see `protocol.openings`).
        patience: Seconds that a connection has to say them.
        on_enough: Called with each connection that has, and with each that ended in the middle.

    """

    def __init__(
        self,
        crowd: Crowd,
        needs: Callable[[bytes], int],
        *,
        patience: float,
        on_enough: Callable[[Connection], None],
    ) -> None:
        self._crowd = crowd
        self._needs = needs
        self._patience = patience
        self._on_enough = on_enough
        self._loop = asyncio.get_running_loop()
        self._until: dict[Connection, float] = {}
        """How long they may stay, those first that came first."""
        self._timer: asyncio.TimerHandle | None = None

    def take(self, connection: Connection) -> None:
        """Let it wait, unless it has said enough already."""
        try:
            is_enough = self._has_said_enough(connection)
        except OSError:
            connection.drop()
            return
        if is_enough or not self._watches(connection):
            self._on_enough(connection)
            return
        self._crowd.now(connection, Doing.WAITING)
        self._until[connection] = self._loop.time() + self._patience
        self._see_to_timer()

    def has_left(self, connection: Connection) -> bool:
        """Forget it, if it is here, and say whether it was; its socket stays open."""
        if self._until.pop(connection, None) is None:
            return False
        self._crowd.now(connection, None)
        self._loop.remove_reader(connection.socket.fileno())
        if connection.needs > 1:
            self._wakes_at(connection, 1)
        return True

    def close(self) -> None:
        """Let those in that have said enough by now; the others end."""
        for connection in list(self._until):
            with suppress(OSError):  # it has left, and ends here, too
                if self._has_said_enough(connection):
                    self.has_left(connection)
                    self._on_enough(connection)
                    continue
            self._end(connection)
        if self._timer is not None:
            self._timer.cancel()

    # -- looking -----------------------------------------------------------------------------------

    def _watches(self, connection: Connection) -> bool:
        """From now on, where that can be done."""
        try:
            # By number: asyncio's selector writes out the repr of a socket that it does not know.
            self._loop.add_reader(connection.socket.fileno(), self._look_again, connection)
        except NotImplementedError:  # on Windows, they wait where they are served
            return False
        return True

    def _look_again(self, connection: Connection) -> None:
        """There is as much as it needed; or it ended."""
        needed = connection.needs
        try:
            is_enough = self._has_said_enough(connection)
        except OSError:
            self._end(connection)
            return
        if not is_enough and connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._end(connection)  # uvloop would not say so again
            return
        # When it needs what it needed before, it ended in the middle; or this system wakes us for
        # each byte. Either way, who serves it does as if there were no waiting room.
        if is_enough or connection.needs == needed:
            self.has_left(connection)
            self._on_enough(connection)

    def _has_said_enough(self, connection: Connection) -> bool:
        """If not, the system tells us when there is as much as it needs. Raises `OSError`."""
        try:
            data = connection.socket.recv(MOST, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        if not data:
            raise ConnectionResetError
        needs = self._needs(data)
        if needs <= len(data):
            return True
        if needs != connection.needs:
            connection.needs = needs
            self._wakes_at(connection, needs)
        return False

    def _wakes_at(self, connection: Connection, count: int) -> None:
        with suppress(OSError):  # there are systems without it, which wake us for each byte
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    # -- patience ----------------------------------------------------------------------------------

    def _see_to_timer(self) -> None:
        if self._timer is None and self._until:
            first = next(iter(self._until.values()))
            self._timer = self._loop.call_at(first, self._lose_patience)

    def _lose_patience(self) -> None:
        self._timer = None
        now = self._loop.time()
        for connection, until in list(self._until.items()):
            if until > now:
                break
            self._end(connection)
        self._see_to_timer()

    def _end(self, connection: Connection) -> None:
        self.has_left(connection)
        connection.drop()
