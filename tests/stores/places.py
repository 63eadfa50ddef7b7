"""Where the stores under test keep their records: one line for each kind of store."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from af10_async.stores import MemoryStore, Store


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


NUMBERS = itertools.count()
KINDS: dict[str, Kind] = {"memory": Kind(_memory, is_shared=False)}
SHARED = sorted(name for name, kind in KINDS.items() if kind.is_shared)
