"""The contract of a store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from ..protocol.lifecycle import Event, JobRecord, Transition


class Store(Protocol):
    """Keeps job records. Every method is one atomic step; errors mean that nothing was kept.

    `protocol.lifecycle.advance` decides what an event does, the store only makes it atomic.
    """

    async def open(self) -> None:
        """Make it usable; a second call does nothing."""

    async def close(self) -> None:
        """Let go of everything that `open` took."""

    async def callback_secret(self, candidate: bytes) -> bytes:
        """The callback secret kept with the jobs; `candidate` becomes it when there is none."""
        ...

    async def add(self, record: JobRecord) -> None:
        """Keep a new record; `KeyError` when there is one under its key."""

    async def get(self, key: str) -> JobRecord | None:
        """The record under `key`, or None."""
        ...

    async def apply(self, key: str, event: Event) -> Transition | None:
        """Let an event happen to the record under `key`, and wake whoever waits for it.

        None when there is no such record.
        """
        ...

    async def add_orphan(self, record: JobRecord) -> Transition:
        """Keep the record of an orphan, or add its secret to the record that came in between."""
        ...

    async def remove(self, key: str, version: int) -> bool:
        """Forget the record under `key` if it is still at `version`; whether it was."""
        ...

    async def changed(self, key: str, version: int) -> JobRecord | None:
        """Wait until the record under `key` is no longer at `version`, and return it.

        None when it is gone. Cancelling the wait leaves nothing behind.
        """
        ...

    def unfinished(self, account: str) -> AsyncIterator[JobRecord]:
        """The account's records that are neither ready nor failed nor expired."""
        ...
