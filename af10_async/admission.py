"""Where connections go on that have said enough: through their handshake, to who serves them."""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
from collections.abc import Callable

from .callback_connections import Connection, Doing
from .callback_log import Seldom
from .crowd import LOOK, TIME_TO_SPEAK, Crowd
from .shelter import all_ended

logger = logging.getLogger("af10_async.callback_server")

_AT_ONCE = 16
"""Connections that begin to be served before others get their turn."""
_HANDSHAKES_AT_ONCE = 4
"""The same with TLS, where each takes half a millisecond."""
_GOODBYE_SECONDS = 0.5
"""Seconds that a peer has to answer the end of its TLS connection."""


class Admission:
    """Admits connections, each origin in its turn, and knows what they do.

    Args:
        crowd: All connections.
        make_protocol: Makes the protocol of one connection, which calls `Connection.is_made` once
            it is connected.
        most: Most connections that are served at a time; above, idle ones go.
        tls: What TLS is spoken with, if it is.
        handshake_seconds: What a handshake may take.
        seldom: Whether it may be said that there are too many.

    """

    def __init__(
        self,
        crowd: Crowd,
        make_protocol: Callable[[Connection], asyncio.Protocol],
        *,
        most: int,
        tls: ssl.SSLContext | None,
        handshake_seconds: float,
        seldom: Seldom,
    ) -> None:
        self._crowd = crowd
        self._ready = crowd[Doing.READY]
        self._make_protocol = make_protocol
        self._most = most
        self._tls = tls
        self._handshake_seconds = handshake_seconds
        self._seldom = seldom
        self._loop = asyncio.get_running_loop()
        self._handshakes: dict[asyncio.Task[None], Connection] = {}
        self._is_due = False
        self._later: asyncio.TimerHandle | None = None

    def add(self, connection: Connection) -> None:
        """One more that has said enough."""
        self._crowd.now(connection, Doing.READY)
        self._go_on()

    async def finish(self) -> None:
        """Admit those that are ready, and wait until all are; with TLS, they end instead."""
        for each in list(self._ready):
            if self._tls is None:
                self._admit(each)
            else:
                self.is_gone(each)
                each.drop()
        if self._later is not None:
            self._later.cancel()
        if self._tls is not None:
            half_way = [task for task, each in self._handshakes.items() if each.is_half_way]
            await all_ended(half_way)
        if self._handshakes:  # without TLS, that is a matter of a turn or two
            await asyncio.wait(list(self._handshakes))

    # -- what a connection does --------------------------------------------------------------------

    def is_busy(self, connection: Connection) -> None:
        """It has a request under way."""
        if connection.doing is not None:
            self._crowd.now(connection, Doing.BUSY)

    def is_idle(self, connection: Connection) -> None:
        """It has none any more."""
        if connection.doing is Doing.BUSY:
            self._crowd.now(connection, Doing.IDLE)
            self._go_on()

    def is_gone(self, connection: Connection) -> None:
        """It has ended."""
        self._crowd.now(connection, None)
        self._go_on()

    # -- taking turns ------------------------------------------------------------------------------

    def _go_on(self) -> None:
        if self._ready and not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._admit_some)

    def _admit_some(self) -> None:
        self._is_due = False
        for _ in range(_AT_ONCE if self._tls is None else _HANDSHAKES_AT_ONCE):
            if not self._has_admitted_one():
                return
        self._go_on()

    def _has_admitted_one(self) -> bool:
        origin, displaced = self._turn()
        connection = self._ready.first(origin) if origin is not None else None
        if origin is None or connection is None:
            return False
        if displaced is not None:
            say_too_many(self._seldom, self._most)
            self._crowd.now(displaced, None)
            displaced.drop()
        self._ready.had_its_turn(origin)
        self._admit(connection)
        return True

    def _turn(self) -> tuple[str | None, Connection | None]:
        """The origin whose turn it is, if there is room, and whom it displaces for that.

        That is one of the origin that has most of those that are served and do nothing. One that
        has been answered may go at once; another for an origin that has fewer of these: those of
        the same had better come to their request first, if they are not late.
        """
        origins = self._ready.origins()
        idle, led = self._crowd[Doing.IDLE], self._crowd[Doing.LED]
        if len(idle) + len(led) + len(self._crowd[Doing.BUSY]) < self._most:
            return next(origins, None), None

        def count(origin: str) -> int:
            return idle.count_of(origin) + led.count_of(origin)

        largest = max((*idle.origins(), *led.origins()), key=count, default=None)
        if largest is None:
            return None, None  # all are busy; whoever is done makes it go on
        oldest = idle.first(largest) or led.first(largest)
        assert oldest is not None  # it has one or the other
        is_late = self._crowd.time() - oldest.since >= TIME_TO_SPEAK
        if is_late or oldest.doing is Doing.IDLE:
            return next(origins, None), oldest
        self._look_again()
        most = count(largest)
        return next((each for each in origins if count(each) < most), None), oldest

    def _look_again(self) -> None:
        if self._later is not None:
            self._later.cancel()
        self._later = self._loop.call_later(LOOK, self._go_on)

    def _admit(self, connection: Connection) -> None:
        self._crowd.now(connection, Doing.LED)
        task = asyncio.create_task(self._lead(connection), name="af10_async handshake")
        connection.begins(task)
        self._handshakes[task] = connection
        task.add_done_callback(functools.partial(self._is_led, connection))

    async def _lead(self, connection: Connection) -> None:
        """Through the TLS handshake, if there is to be one."""

        def make() -> asyncio.Protocol:
            made = self._make_protocol(connection)
            connection.owns_socket = True
            return made

        try:
            await self._loop.connect_accepted_socket(
                make,
                connection.socket,
                ssl=self._tls,
                ssl_handshake_timeout=self._handshake_seconds if self._tls else None,
                ssl_shutdown_timeout=_GOODBYE_SECONDS if self._tls else None,
            )
        except Exception as error:
            logger.debug("a connection ended before it began: %s", reason(error))
            forget_traceback(error)  # with asyncio's buffers for TLS, in a cycle

    def _is_led(self, connection: Connection, task: asyncio.Task[None]) -> None:
        del self._handshakes[task]
        connection.is_led()
        if connection.is_half_way:
            self.is_gone(connection)
            connection.drop()  # a task that is cancelled early has not even begun


def say_too_many(seldom: Seldom, most: int) -> None:
    """At most once a minute."""
    if seldom.may_come():
        logger.warning("there are more than %d connections: idle ones are let go", most)


def forget_traceback(error: BaseException | None) -> None:
    """Let go of the memory behind an error that a peer can cause as often as it likes.

    Frames that hold the error are held by its traceback: the garbage collector would find them, but
    it counts objects and not their size, so that it comes after hundreds of megabytes.
    """
    if error is not None:
        error.__traceback__ = None


def reason(error: BaseException) -> str:
    """In OpenSSL's words, or the system's."""
    for name in ("reason", "strerror"):
        if text := getattr(error, name, None):
            return str(text)
    return type(error).__name__
