"""What is written beside a partial file, so that another process can go on with it. No I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .files import FALLBACK_NAME, Version, safe_name
from .pieces import Span

_FORMAT = 1
_MAX_SPANS = 10_000
_MOST_BYTES = 2**63 - 1


@dataclass(frozen=True, slots=True)
class ResumeState:
    """What is here of which version of a file. It names no address and no secret."""

    version: Version
    name: str
    """What the server calls it."""
    expected: str | None
    """The SHA-256 that the server says it has."""
    done: tuple[Span, ...]
    """The bytes that are on disk."""
    hashed: int
    """Up to where they were hashed ..."""
    sha256: str
    """... and the result, by which a later reader sees whether they are still the same."""

    @property
    def size(self) -> int:
        """The least size of the partial file."""
        return max((stop for _, stop in self.done), default=0)


def encode_state(state: ResumeState) -> bytes:
    """As JSON."""
    version = state.version
    return json.dumps(
        {
            "format": _FORMAT,
            "etag": version.etag,
            "last_modified": version.last_modified,
            "length": version.length,
            "name": state.name,
            "expected": state.expected,
            "done": state.done,
            "hashed": state.hashed,
            "sha256": state.sha256,
        }
    ).encode()


def decode_state(text: bytes) -> ResumeState | None:
    """What `encode_state` wrote; None for anything else, half-written ones included."""
    try:
        value = json.loads(text)
        state = _read(value) if value["format"] == _FORMAT else None
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return state if state is not None and _is_sound(state) else None


def _read(value: dict[str, Any]) -> ResumeState:
    etag, changed, length = value["etag"], value["last_modified"], value["length"]
    expected = value["expected"]
    if not all(isinstance(each, str | None) for each in (etag, changed, expected)):
        raise TypeError
    return ResumeState(
        version=Version(etag, changed, None if length is None else int(length)),
        name=safe_name(str(value["name"])) or FALLBACK_NAME,
        expected=expected,
        done=tuple((int(start), int(stop)) for start, stop in value["done"]),
        hashed=int(value["hashed"]),
        sha256=str(value["sha256"]),
    )


def _is_sound(state: ResumeState) -> bool:
    bounds = [each for span in state.done for each in span]
    is_ordered = all(one <= two for one, two in pairwise(bounds))
    front = state.done[0][1] if state.done and state.done[0][0] == 0 else 0
    return (
        state.version.is_known
        and 0 < len(state.done) <= _MAX_SPANS
        and is_ordered
        and bounds[0] >= 0
        and 0 <= state.hashed <= front
        and state.size <= (_MOST_BYTES if state.version.length is None else state.version.length)
        and (state.version.length or 0) <= _MOST_BYTES
    )
