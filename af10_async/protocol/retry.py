"""Again? And after how long? Decisions only: the caller sleeps, and brings the dice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER = 3600.0
"""A server that asks for a longer wait than this many seconds is not waited for."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a failed request is sent again, and the pauses in between (seconds)."""

    attempts: int = 4
    """How many times it is sent at most."""
    first_pause: float = 0.5
    longest_pause: float = 30.0

    def pause(self, attempt: int, chance: float, asked: float | None = None) -> float | None:
        """Seconds to wait after failed attempt number `attempt` (from 1); None to give up.

        The pause doubles, and `chance` (from 0 to 1) spreads it over its upper half, so that many
        clients that failed together do not come back together. A wait that the server asked for
        is the least; one that is longer than an hour means giving up.
        """
        if attempt >= self.attempts or (asked is not None and asked > MAX_RETRY_AFTER):
            return None
        return max(self.backoff(attempt, chance), asked or 0.0)

    def backoff(self, attempt: int, chance: float) -> float:
        """The pause after attempt number `attempt`, however many there were before."""
        doubled = min(self.longest_pause, self.first_pause * 2.0 ** min(attempt - 1, 30))
        return doubled * (0.5 + chance / 2)


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
