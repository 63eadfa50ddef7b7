"""What a receiver of callbacks answers, whoever serves it.

The status is all that an answer says, and it says the same for every key that is not ours: 404. A
key that is ours gets 200 when the id is kept, whether or not a job of that name is known (its
callback is kept as an orphan otherwise), and 400 when there is no id that could be one; 503 means
that the store could not keep it, and to come back. 405 is for anything but GET.
"""

from __future__ import annotations

from dataclasses import dataclass

_TEXTS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}
_COME_BACK_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """A status with a short text, and headers that never depend on what was asked."""

    status: int
    text: str
    headers: tuple[tuple[str, str], ...]


def _headers(status: int) -> tuple[tuple[str, str], ...]:
    more = {405: ("Allow", "GET"), 503: ("Retry-After", str(_COME_BACK_SECONDS))}
    found = more.get(status)
    return (("Cache-Control", "no-store"), *((found,) if found else ()))


_ANSWERS = {
    status: Answer(status, _TEXTS.get(status, "Service Unavailable"), _headers(status))
    for status in (*_TEXTS, 503)
}


def answer(status: int) -> Answer:
    """The answer with this status."""
    return _ANSWERS.get(status, _ANSWERS[503])


def proof(text: str) -> Answer:
    """The answer to a probe, which only one of us can give."""
    return Answer(200, text, _headers(200))
