"""What is said in the log of things that strangers can make happen as often as they like."""

from __future__ import annotations

import logging

from .protocol.callbacks import Rejection
from .runtime import Runtime

logger = logging.getLogger("af10_async.callback_server")

SUMMARY_SECONDS = 60.0
"""Seconds between two lines in the log about the same kind of thing."""


class Seldom:
    """Says of each line of one kind whether it may come yet."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._next = runtime.monotonic()

    def may_come(self) -> bool:
        """Whether it may; the next one then may in a minute."""
        now = self._runtime.monotonic()
        if now < self._next:
            return False
        self._next = now + SUMMARY_SECONDS
        return True


class TurnedAway:
    """Counts what is turned away: one line a minute, however much it is."""

    def __init__(self, runtime: Runtime) -> None:
        self._counts: dict[str, int] = {}
        self._lines = Seldom(runtime)

    def note(self, rejection: Rejection) -> None:
        """Count one more, and say so when it is time."""
        self._counts[rejection.reason] = self._counts.get(rejection.reason, 0) + 1
        if not self._lines.may_come():
            return
        told = ", ".join(f"{reason} ({count})" for reason, count in self._counts.items())
        self._counts.clear()
        logger.info("turned away: %s", told)


class Troubles:
    """Counts callbacks to which the same happened: one line a minute, however many they are.

    Args:
        what: What happened to them, after `callback(s)`.
        runtime: Tells the time.

    """

    def __init__(self, what: str, runtime: Runtime) -> None:
        self._what = what
        self._count = 0
        self._lines = Seldom(runtime)

    def note(self, key: str, why: str) -> None:
        """Count one more, and say so when it is time."""
        self._count += 1
        if not self._lines.may_come():
            return
        logger.error(
            "%d callback(s) %s; the last was for job %s: %s", self._count, self._what, key, why
        )
        self._count = 0
