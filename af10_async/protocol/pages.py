"""Lists in pages: what one says, and whether a server gives the same one again and again.

`GET /vehicle?page=1&fields=&filter=&search=&sort=` answers `{"data": [...], "nextpage": true}`;
pages count from 1, about 100 rows each (P).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_PAGES = 100_000
"""Ten million rows: a list that does not end by then does not end."""
MANY = 10
"""Rows of a page that can hardly come again by chance."""
MOST_EMPTY = 3
"""So many pages without a row in a row, each of which promises another, are no list."""

MOST_ALIKE = 1_000
"""So many pages in a row that are all alike are no list either, whatever stands in them."""


class PageError(ValueError):
    """What AF10 sent is no page, or no new one; the text says what it is, as in "it is empty"."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list."""

    rows: list[Any] = field(repr=False)
    is_last: bool


def read_page(value: Any) -> Page:
    """What an answer says. Raises `PageError` for what is no list."""
    rows = value.get("data") if isinstance(value, dict) else value
    if rows is None and isinstance(value, dict) and "data" in value:
        rows = []
    if not isinstance(rows, list):
        raise PageError("is no list of rows")
    more = value.get("nextpage") if isinstance(value, dict) else None
    return Page(rows, is_last=not _is_true(more))


def _is_true(flag: Any) -> bool:
    if isinstance(flag, str):
        return flag.strip().lower() not in ("", "0", "false", "no", "n", "null", "none")
    return bool(flag)


class RepetitionGuard:
    """Finds out that a server repeats itself, which would go on for ever.

    Pages that are equal prove it when they have many rows, and these differ among themselves, as
    they do when there is an id in them. Few rows, or rows that are alike (of one column, say),
    prove nothing until there are very many such pages, one after the other.
    """

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._pages = 0
        self._empty = 0
        self._alike = 0
        self._latest = b""

    def check(self, rows: Sequence[Any]) -> None:
        """Take note of a page that says there is another. Raises `PageError`."""
        self._pages += 1
        self._empty = 0 if rows else self._empty + 1
        if self._empty >= MOST_EMPTY:
            raise PageError("is empty again, and still promises another")
        if self._pages >= MOST_PAGES:
            raise PageError(f"is the {self._pages:,}th, and still promises another")
        text = repr(rows).encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(text, digest_size=16).digest()
        if digest in self._seen and _differ(rows):
            raise PageError("is one that came before, and promises another again")
        self._alike = self._alike + 1 if digest == self._latest else 0
        if self._alike >= MOST_ALIKE:
            raise PageError(f"is like the {self._alike:,} before it, and still promises another")
        self._latest = digest
        self._seen.add(digest)


def _differ(rows: Sequence[Any]) -> bool:
    """Whether there are many rows, each of which differs from all others."""
    return len(rows) >= MANY and len(set(map(repr, rows))) == len(rows)
