"""What the sandbox has seen: every request, for assertions."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["RequestLog", "Seen", "Where"]

Where = Literal["bootstrap", "api", "file", "elsewhere"]


@dataclass(slots=True)
class Seen:
    """One request that arrived.

    Attributes:
        method: Such as `GET`.
        path: Without the query; relative to the bootstrap URL or the API's, such as
            `/backup/owner`, and whole for anything else, such as a file.
        where: Under which address it arrived.
        query: The parameters; of a repeated one the last.
        headers: Names in lower case; of a repeated one the last.
        body: The bytes of the body.
        account: The username it was for, as far as it could be told.
        status: What was answered; None when there was no whole answer (yet).

    """

    method: str
    path: str
    where: Where
    query: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    account: str | None = None
    status: int | None = None

    def json(self) -> Any:
        """The value in the body. Raises `ValueError` when it is no JSON."""
        return json.loads(self.body)


class RequestLog:
    """The latest requests, and how many there were of each kind since the beginning."""

    def __init__(self, limit: int) -> None:
        self._latest: deque[Seen] = deque(maxlen=limit)
        self._counts: Counter[tuple[str, str]] = Counter()

    @property
    def seen(self) -> list[Seen]:
        """The latest requests, oldest first."""
        return list(self._latest)

    def add(self, seen: Seen) -> None:
        """Remember one; the oldest makes room when there are too many."""
        self._latest.append(seen)
        if seen.where in ("bootstrap", "api"):
            # Paths of files are all different: counting them would grow without bound.
            self._counts[seen.method, seen.path] += 1

    def count(self, method: str, path: str) -> int:
        """How many arrived since the beginning (files: among the latest)."""
        counted = self._counts[method, path]
        return counted or sum((s.method, s.path) == (method, path) for s in self._latest)
