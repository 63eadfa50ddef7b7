"""Where job records live until redeemed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from .base import Store
from .memory import MemoryStore

__all__ = ["MemoryStore", "Store", "is_store_url", "open_store"]

_SERVER = re.compile(r"(redis|valkey)(s|\+unix)?://.+|unix://.+")


def is_store_url(url: str) -> bool:
    """Whether `open_store` understands it."""
    return bool(url == "memory:" or re.fullmatch(r"sqlite:.+", url) or _SERVER.fullmatch(url))


def open_store(url: str, *, now: Callable[[], float] = time.time) -> Store:
    """The store that a URL names, still to be opened.

    `memory:`, `sqlite:PATH`, `redis://…`, `valkey://…` (with TLS: `rediss://…`, `valkeys://…`).

    Raises:
        ValueError: the URL is of another kind.
        MissingExtraError: what this store needs is not installed.

    """
    if not is_store_url(url):
        raise ValueError("the store must be memory:, sqlite:PATH, redis://… or valkey://…")
    if url == "memory:":
        return MemoryStore(now=now)
    # Each is imported by who uses it only: both cost time, and one needs an extra.
    if url.startswith("sqlite:"):
        from .sqlite import SqliteStore

        return SqliteStore(url.removeprefix("sqlite:"), now=now)
    from .valkey import ValkeyStore

    return ValkeyStore(url, now=now)
