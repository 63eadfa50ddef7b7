"""Which bytes of a file a request asks for (RFC 9110, section 14)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Span", "Unsatisfiable", "asked_span"]

_SINGLE = re.compile(r"bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes from `start` up to, not including, `stop`; `partial` when a range was asked."""

    start: int
    stop: int
    partial: bool = False


class Unsatisfiable(Exception):  # noqa: N818 - the name of the status, 416
    """The range lies beyond the file."""


def asked_span(headers: Mapping[str, str], size: int, etag: str, last_modified: str) -> Span:
    """What a request with these headers (names in lower case) asks for.

    A range that is malformed, one of several, or conditional on another version, is ignored.

    Raises:
        Unsatisfiable: when no byte of the range exists.

    """
    whole = Span(0, size)
    found = _SINGLE.fullmatch(headers.get("range", ""))
    condition = headers.get("if-range", "").strip()
    if found is None or (condition and condition not in (etag, last_modified)):
        return whole
    return _read(found[1], found[2], size) or whole


def _read(first: str, last: str, size: int) -> Span | None:
    if not first and not last:
        return None
    if not first:
        length = min(int(last), size)
        start, stop = size - length, size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= stop:
        raise Unsatisfiable
    return Span(start, stop, partial=True)
