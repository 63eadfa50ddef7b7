"""One run of a program that must not outlive us, and what it prints."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from ..protocol.cloudflared import LineSplitter
from ..runtime import Runtime
from . import guard
from .deadlines import done_within

GRACE = 5.0
"""Seconds between asking a program to end and killing it."""
LAST_WORDS = 0.5
"""Seconds for reading the rest of what it printed; what it left behind may hold its output open."""
_STDIN, _STDOUT = 0, 1


class ProgramRun:
    """From the start of a program until it is gone; `guard` sees to it when we are killed.

    Args:
        command: The program and its arguments.
        environment: All variables that it gets.
        hear: Called with each line that it prints. All of it is read: it stops when nobody does.
        runtime: What measures its time to end.

    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        hear: Callable[[str], None],
        runtime: Runtime,
    ) -> None:
        self._command = [sys.executable, "-I", "-S", guard.__file__, *command]
        self._environment = environment
        self._hear = hear
        self._runtime = runtime
        self._transport: asyncio.SubprocessTransport | None = None
        self._life: asyncio.Task[int] | None = None

    async def start(self) -> asyncio.Task[int]:
        """Begin. Must not be cancelled; what it gives ends with the exit status, and must not be.

        Raises:
            OSError: There can be no new process.

        """
        # By a protocol: on some Pythons, `Process.wait` waits for the end of the output, too.
        self._transport, heard = await asyncio.get_running_loop().subprocess_exec(
            lambda: _Hearing(self._hear),
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,  # Ctrl-C is for us; we end it when we are ready to
        )
        self._life = asyncio.create_task(
            self._until_gone(self._transport, heard), name="af10_async program"
        )
        return self._life

    async def end(self) -> None:
        """Ask it to end, kill it if it does not, and wait until it is gone. Not to be cancelled."""
        transport, life = self._transport, self._life
        if transport is None or life is None:
            return
        if not life.done():
            self._ask(transport)
            if not await done_within(life, GRACE, self._runtime):
                _kill(transport)
        await asyncio.wait([life])

    @staticmethod
    def _ask(transport: asyncio.SubprocessTransport) -> None:
        if os.name != "posix":
            _kill(transport)  # there is no asking
            return
        with contextlib.suppress(ProcessLookupError):
            transport.send_signal(signal.SIGTERM)

    async def _until_gone(self, transport: asyncio.SubprocessTransport, heard: _Hearing) -> int:
        await heard.exit
        await done_within(heard.last_word, LAST_WORDS, self._runtime)
        status = transport.get_returncode()
        transport.close()
        await heard.close
        return cast(int, status)  # it has ended


def _kill(transport: asyncio.SubprocessTransport) -> None:
    """Have the guard kill it."""
    lifeline = transport.get_pipe_transport(_STDIN)
    cast(asyncio.WriteTransport, lifeline).write(b"!")


class _Hearing(asyncio.SubprocessProtocol):
    """Hands on what a program prints, line by line, and notes its end."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        loop = asyncio.get_running_loop()
        self._hear = hear
        self._lines = LineSplitter()
        self.exit: asyncio.Future[None] = loop.create_future()
        """Done when the program is gone."""
        self.last_word: asyncio.Future[None] = loop.create_future()
        """Done when nobody has its output open any more, and all of it is read."""
        self.close: asyncio.Future[None] = loop.create_future()
        """Done when there is nothing left of it here."""

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """It has printed something."""
        for line in self._lines.feed(data):
            self._hear(line)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Its output has ended, or it does not see any more whether we live."""
        if fd == _STDOUT and not self.last_word.done():
            self.pipe_data_received(fd, b"")  # which completes the last line
            self.last_word.set_result(None)

    def process_exited(self) -> None:
        """It is gone, but perhaps not all that it printed is read."""
        self.exit.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more comes."""
        self.close.set_result(None)
