"""What one client process is told to do, and the places at which it may end itself."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from af10_async.protocol.lifecycle import Event, JobRecord, Transition
from af10_async.stores import Store

TakeUp = Literal["", "unfinished", "key", "ticket"]


@dataclass(frozen=True, slots=True)
class Life:
    """The orders for one process. It orders a backup, or takes up one, and saves it."""

    account: dict[str, str]
    """Where AF10 is, and the credentials."""
    tls_cert: str
    tls_key: str
    port: int
    store: str
    target: str
    overwrite: bool
    log: str
    """The file to which it writes what it does."""
    take_up: TakeUp = ""
    """How it finds the job of an earlier process; empty to order one."""
    key: str = ""
    ticket: str = ""
    may_be_done: bool = False
    """Whether to look first if there is anything left to do."""
    patience: float = 60.0
    """Seconds that it waits for the callback."""
    waits_on: bool = True
    """Whether it waits again when they are over, or orders another backup."""
    die_at: str = ""
    """Where it ends itself: see `Store` and `watch` below, and `received`."""
    has_links: bool = True
    """Whether the file system knows hard links."""

    def as_json(self) -> dict[str, Any]:
        """What `of` reads."""
        return asdict(self)

    @classmethod
    def of(cls, found: dict[str, Any]) -> Self:
        """The reverse of `as_json`."""
        return cls(**found)


def die() -> None:
    """End this process at once, and let nothing of it end in good order."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(slots=True)
class _DeadlyStore:
    """A store that ends the process before or after what `die_at` says."""

    store: Store
    die_at: str
    say: Callable[[str], None]
    _is_told: bool = field(default=False, init=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def add(self, record: JobRecord) -> None:
        self._pass("before add")
        await self.store.add(record)
        self._pass("after add")

    async def apply(self, key: str, event: Event) -> Transition | None:
        name = type(event).__name__
        self._pass(f"before {name}")
        transition = await self.store.apply(key, event)
        self._pass(f"after {name}")
        return transition

    async def changed(self, key: str, version: int) -> JobRecord | None:
        if self.die_at != "asleep":
            return await self.store.changed(key, version)
        if not self._is_told:
            self._is_told = True
            self.say("asleep")
        while True:  # whoever waits never hears of the callback
            record = await self.store.changed(key, version)
            if record is None or not record.secrets:
                return record
            version = record.version

    def _pass(self, place: str) -> None:
        if place == self.die_at:
            die()


def deadly(store: Store, die_at: str, say: Callable[[str], None]) -> Store:
    """The store, at which the process dies `before` or `after` `add` or an event by its name.

    With `asleep`, whoever waits for a callback is not woken by it.
    """
    found: Any = _DeadlyStore(store, die_at, say)
    return found  # type: ignore[no-any-return] # what it does not define is the store's own


def is_of_store(die_at: str) -> bool:
    """Whether `deadly` knows this place."""
    return die_at == "asleep" or die_at.startswith(("before ", "after "))


def watch(die_at: str) -> None:
    """Die just before the first `os.link`, `os.rename` or `os.remove` of a file.

    `die_at` is the audit event and the end of the name: `os.link .part`.
    """
    event, _, ending = die_at.partition(" ")

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if name == event and str(arguments[0]).endswith(ending):
            die()

    sys.addaudithook(hook)
