"""Where the stores under test keep their records: one line for each kind of store."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from af10_async.stores import MemoryStore, Store
from af10_async.stores.sqlite import SqliteStore
from af10_async.stores.valkey import ValkeyStore

from . import valkey_server


class Clock:
    """Unix seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


Open = Callable[[Clock], Store]
"""Makes a store, still to be opened, over the records of one place; each call makes another."""


@dataclass(frozen=True)
class Kind:
    """One kind of store."""

    place: Callable[[Path], Open]
    """A new empty place; the folder is for its files."""
    is_shared: bool
    """Whether several stores, also of several processes, can be open over one place."""


def _memory(folder: Path) -> Open:
    return lambda clock: MemoryStore(now=clock)


def _sqlite(folder: Path) -> Open:
    return lambda clock: SqliteStore(folder / "jobs.db", now=clock, poll=0.005)


def _valkey(folder: Path) -> Open:
    url = f"{valkey_server.shared().url}?prefix=t{next(NUMBERS)}"
    return lambda clock: ValkeyStore(url, now=clock, recheck=0.05)


NUMBERS = itertools.count()
KINDS: dict[str, Kind] = {
    "memory": Kind(_memory, is_shared=False),
    "sqlite": Kind(_sqlite, is_shared=True),
    "valkey": Kind(_valkey, is_shared=True),
}
SHARED = sorted(name for name, kind in KINDS.items() if kind.is_shared)
