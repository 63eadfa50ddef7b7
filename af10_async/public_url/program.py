"""One run of a program that must not outlive us, and what it prints."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

from ..protocol.cloudflared import LineSplitter
from ..runtime import Runtime
from . import guard
from .deadlines import done_within

GRACE = 5.0
"""Seconds between asking a program to end and killing it."""
BLOCK = 64 * 1024
"""Bytes that are read at a time."""


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
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[int] | None = None

    async def start(self) -> asyncio.Task[int]:
        """Begin. Must not be cancelled; what it gives ends with the exit status, and must not be.

        Raises:
            OSError: There can be no new process.

        """
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,  # Ctrl-C is for us; we end it when we are ready to
        )
        self._reading = asyncio.create_task(self._read(), name="af10_async program")
        return self._reading

    async def end(self) -> None:
        """Ask it to end, kill it if it does not, and wait until it is gone. Not to be cancelled."""
        process, reading = self._process, self._reading
        if process is None or reading is None:
            return
        assert process.stdin is not None  # it was asked for
        if not reading.done():
            self._ask(process)
            if not await done_within(reading, GRACE, self._runtime):
                process.stdin.write(b"!")
        process.stdin.close()
        await asyncio.wait([reading])
        with contextlib.suppress(OSError):  # whoever read there is gone
            await process.stdin.wait_closed()

    @staticmethod
    def _ask(process: asyncio.subprocess.Process) -> None:
        if os.name != "posix":
            assert process.stdin is not None  # it was asked for
            process.stdin.write(b"!")  # there is no asking
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)

    async def _read(self) -> int:
        assert self._process is not None  # we are started by who made it
        assert self._process.stdout is not None  # it was asked for
        lines = LineSplitter()
        is_open = True
        while is_open:
            data = await self._process.stdout.read(BLOCK)
            is_open = bool(data)
            for line in lines.feed(data):
                self._hear(line)
        return await self._process.wait()
