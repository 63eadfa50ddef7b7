"""Runs a program that must not outlive whoever started it.

`python -I -S guard.py PROGRAM ARGUMENT...`: the program gets no input, and writes where this would.
Standard input is the lifeline: whoever starts this holds the other end. When that closes, however
its holder died, the program is ended. Any byte that comes kills the program at once. SIGTERM and
SIGINT are passed on. The exit status is the program's; 128 and the signal's number when a signal
ended it; 127 when it could not be started.

It is a script, so that a crash of the package it belongs to is no concern of it, and it imports
nothing of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

GRACE = 5.0
"""Seconds between asking the program to end and killing it, when nobody is there any more."""
NOT_STARTED = 127
_IS_POSIX = os.name == "posix"
_DIES_WITH_PARENT = 1
"""`PR_SET_PDEATHSIG` of Linux."""


class Guard:
    """The program, and who may end it."""

    def __init__(self) -> None:
        self._program: subprocess.Popen[bytes] | None = None
        self._is_unwanted = False

    def run(self, command: Sequence[str]) -> int:
        """Run the program to its end."""
        # Before it starts: a signal that comes between must not end us alone.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: self._send(number))
        try:
            self._program = _start(command)
        except OSError as error:
            sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
            return NOT_STARTED
        if self._is_unwanted:
            self._send(signal.SIGTERM)
        threading.Thread(target=self._hold_lifeline, daemon=True).start()
        status = self._program.wait()
        self._kill()  # what it started, and left behind
        return status if status >= 0 else 128 - status

    def _hold_lifeline(self) -> None:
        if not os.read(0, 1):
            self._send(signal.SIGTERM)
            assert self._program is not None  # it was started before
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._program.wait(GRACE)
        self._kill()

    def _kill(self) -> None:
        self._send(signal.SIGKILL if _IS_POSIX else signal.SIGTERM)

    def _send(self, number: int) -> None:
        """Signal the program and what it started; on Windows, end it."""
        if self._program is None:
            self._is_unwanted = True
            return
        with contextlib.suppress(OSError):  # it has just ended
            if _IS_POSIX:
                os.killpg(self._program.pid, number)
            else:
                self._program.terminate()


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start it in a process group of its own, so that nothing it starts is missed."""
    if not _IS_POSIX:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - as configured
    return subprocess.Popen(  # noqa: S603 - as configured
        command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=_tie_to(os.getpid())
    )


def _tie_to(parent: int) -> Callable[[], None] | None:
    """Where the system can do so: let the program die with us, even if we are killed first."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None:
        return None

    def tie() -> None:
        prctl(_DIES_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(NOT_STARTED)

    return tie


if __name__ == "__main__":
    sys.exit(Guard().run(sys.argv[1:]))
