"""Again? And after how long? Decisions only: the caller sleeps, and brings the clock and the dice.

One policy for every kind of request: `RetryPolicy` says how often and after which pauses,
`may_repeat` which failures of which methods, `RetryBudget` how many repetitions a second all
together may be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from ..errors import AF10Error, ConfigurationError, RateLimitError, ServerError

MAX_RETRY_AFTER = 3600.0
"""A server that asks for a longer wait than this many seconds is not waited for."""
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""Methods of which once and twice come to the same (RFC 9110, 9.2.2)."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a failed request is sent again, and the pauses in between (seconds).

    A request is sent again only where that is harmless: when it cannot have arrived, when AF10 said
    that it is too busy for it (429, or 503 in words of its own), or when its method is one that
    may be repeated (GET, PUT, DELETE).

    Raises:
        ConfigurationError: a value makes no sense.

    """

    attempts: int = 4
    """How many times it is sent at most; 1 for never again."""
    first_pause: float = 0.5
    longest_pause: float = 30.0
    jitter: float = 0.5
    """The part of each pause, from 0 to 1, that is left to chance, so that many that failed
    together do not come back together."""
    longest_total: float = 300.0
    """A quick call is not sent again later than this after it was sent first; a server that asks
    for a wait beyond it is not waited for."""

    def __post_init__(self) -> None:
        if not self.attempts >= 1:
            raise ConfigurationError("attempts must be at least 1: the first one counts")
        for name in ("first_pause", "longest_pause", "longest_total"):
            if not getattr(self, name) >= 0:  # also turns NaN away
                raise ConfigurationError(f"{name} must be 0 or more seconds")
        if not 0 <= self.jitter <= 1:
            raise ConfigurationError("jitter must be a part, from 0 to 1")

    def pause(self, attempt: int, chance: float, asked: float | None = None) -> float | None:
        """Seconds to wait after failed attempt number `attempt` (from 1); None to give up.

        The pause doubles, and `chance` (from 0 to 1) spreads it. A wait that the server asked for
        is the least; one that is longer than an hour means giving up.
        """
        if attempt >= self.attempts or (asked is not None and asked > MAX_RETRY_AFTER):
            return None
        return max(self.backoff(attempt, chance), asked or 0.0)

    def backoff(self, attempt: int, chance: float) -> float:
        """The pause after attempt number `attempt`, however many there were before."""
        doubled = min(self.longest_pause, self.first_pause * 2.0 ** min(attempt - 1, 30))
        return doubled * (1 - self.jitter * (1 - chance))

    def pause_of_call(
        self, error: AF10Error, method: str, attempt: int, elapsed: float, chance: float
    ) -> float | None:
        """Seconds to wait before a quick call that failed is sent again; None to give up.

        `elapsed` is how long ago, in seconds, it was sent first.
        """
        if not may_repeat(error, method):
            return None
        pause = self.pause(attempt, chance, error.retry_after)
        is_too_long = pause is not None and elapsed + pause > self.longest_total
        return None if is_too_long else pause


def may_repeat(error: AF10Error, method: str) -> bool:
    """Whether a request that failed so may be sent again, with hope and without harm."""
    if not error.retryable:
        return False
    if error.sent is False or method.upper() in IDEMPOTENT:
        return True
    if isinstance(error, ServerError):
        # Only AF10's own word counts: a page of something in between says nothing of the request.
        is_busy = "503" in {str(error.status), str(error.error_code)}
        return is_busy and error.error_code is not None
    return isinstance(error, RateLimitError)


class RetryBudget:
    """How many requests may be repetitions: so many a second, and a few more at a time.

    However many callers fail together, a server that is sick is not stormed: those who come after
    the budget is spent wait until there is some again; those who would have to wait too long get
    none.
    """

    def __init__(self, rate: float, burst: float) -> None:
        if not (rate > 0 and burst >= 0):
            raise ConfigurationError("a retry budget must be more than 0 a second")
        self._seconds = 1 / rate
        self._burst = burst / rate
        self._spent_until = -math.inf

    def reserve(self, now: float, longest: float = math.inf) -> float | None:
        """Take one, and return after how many seconds it may be used; `now` never goes back.

        None, and nothing is taken, when that would be more than `longest`.
        """
        until = max(self._spent_until, now) + self._seconds
        wait = max(0.0, until - now - self._burst)
        if wait > longest:
            return None
        self._spent_until = until
        return wait

    def give_back(self) -> None:
        """Return one that was not used."""
        self._spent_until -= self._seconds


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds of a `Retry-After` header, given as seconds or as a date (RFC 9110, 10.2.3).

    None when there is none or it is nonsense; never negative.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text) if len(text) <= 15 else float("inf")
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    if moment.tzinfo is None:  # the old forms name no zone; every HTTP date is in UTC
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - now)
