"""How many requests each account sends: counted always, limited where that is asked for."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from .calls import Call, json_answer
from .connection import Line

__all__ = ["Gate", "Quota", "Traffic"]


class Quota:
    """So many requests of each account in any stretch of time of one length.

    Args:
        requests: How many; None for any number.
        seconds: In which time.
        clock: Tells the time in seconds.

    Raises:
        ValueError: when nothing could ever be sent.

    """

    def __init__(
        self,
        requests: int | None,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if requests is not None and requests < 1:
            raise ValueError("quota must be at least 1, or None")
        if not seconds > 0:
            raise ValueError("quota_seconds must be more than 0")
        self._requests = requests
        self._seconds = seconds
        self._clock = clock
        self._sent: defaultdict[str, deque[float]] = defaultdict(deque)

    def take(self, account: str) -> float:
        """Count a request; or, when it is one too many, say after how many seconds it is not."""
        if self._requests is None:
            return 0.0
        sent, now = self._sent[account], self._clock()
        while sent and sent[0] + self._seconds <= now:
            sent.popleft()
        if len(sent) >= self._requests:
            return sent[0] + self._seconds - now
        sent.append(now)
        return 0.0


class Traffic:
    """Which requests are under way, and how many there were at most; `None` stands for all."""

    def __init__(self) -> None:
        self._lines: defaultdict[str | None, set[Line]] = defaultdict(set)
        self._most: Counter[str | None] = Counter()

    @contextmanager
    def under_way(self, account: str | None, line: Line) -> Iterator[None]:
        """Count a request for the length of a `with` block."""
        whose = {None, account}
        for each in whose:
            self._lines[each].add(line)
            self._most[each] = max(self._most[each], self.count(each, self._most[each]))
        try:
            yield
        finally:
            for each in whose:
                self._lines[each].discard(line)

    def count(self, account: str | None, enough: int = 0) -> int:
        """How many there are; looks closely only when there seem to be more than `enough`."""
        lines = self._lines[account]
        if len(lines) > enough:
            # Whoever has given up may have sent another one before the handler notices.
            lines.difference_update([line for line in lines if not line.is_open])
        return len(lines)

    def most(self, account: str | None) -> int:
        """How many there were at the same time, at most."""
        return self._most[account]


class Gate:
    """Turns away what is too much.

    Args:
        quota: How many requests in which time.
        traffic: Knows what is under way.
        max_concurrent: How many requests of an account may be under way; None for any number.

    Raises:
        ValueError: when nothing could ever be under way.

    """

    def __init__(self, quota: Quota, traffic: Traffic, max_concurrent: int | None) -> None:
        if max_concurrent is not None and max_concurrent < 1:
            raise ValueError("max_concurrent must be at least 1, or None")
        self._quota = quota
        self._traffic = traffic
        self._max_concurrent = max_concurrent

    def refusal(self, call: Call) -> web.Response | None:
        """A 429, when this request is too much; one that is refused is not counted as sent."""
        account, most = call.seen.account, self._max_concurrent
        if account is None:
            return None
        if most is not None and self._traffic.count(account, most) > most:
            return _too_many("Too many requests at the same time")
        seconds = self._quota.take(account)
        return _too_many("Too many requests", seconds) if seconds else None


def _too_many(message: str, seconds: float | None = None) -> web.Response:
    error = {"errorCode": 429, "errorMessage": message}
    if seconds is None:  # nobody knows when one of the others will be done
        return json_answer(error, 429)
    answer = json_answer({**error, "retry": math.ceil(seconds * 1000)}, 429)
    answer.headers["Retry-After"] = str(math.ceil(seconds))
    return answer
