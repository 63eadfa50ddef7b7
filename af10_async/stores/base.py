"""The contract of a store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from ..protocol.lifecycle import Event, JobRecord, Transition

SESSION_SECONDS = 30.0
"""Seconds without a sign of life after which what an open store has leased is free for others."""
RECHECK_SECONDS = 5.0
"""Seconds between two looks at a record that is waited for, in case its message was lost."""


class Store(Protocol):
    """Keeps job records, for one process or for many.

    Every method is one atomic step. `protocol.lifecycle.advance` decides what an event does, the
    store only makes it atomic and durable: when it returns, what it did survives whatever the store
    promises to survive.

    A job can be leased: from `add` or `lease` until `release`, `close` or the death of the process
    no other open store gets its lease. A lease says who works on a job, so that no two do; it
    guards nothing else.

    Raises, whichever method is called:
        StoreError: nothing is known to have been kept; `retryable` says whether it may pass. What
            was asked may still have happened, when the answer was lost: ask again.
    """

    is_shared: bool
    """Whether other processes can have the same records."""
    is_immediate: bool
    """Whether its methods never wait (but `changed`), so that no time needs to be kept."""

    async def open(self) -> None:
        """Make it usable; a second call does nothing."""

    async def close(self) -> None:
        """Let go of everything that `open` took, leases included."""

    async def callback_secret(self, candidate: bytes) -> bytes:
        """The callback secret kept with the jobs; `candidate` becomes it when there is none."""
        ...

    async def add(self, record: JobRecord) -> None:
        """Keep a new record, leased to this store; `KeyError` when there is one under its key."""

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
        """The account's records in which something is left to do (`JobRecord.is_unfinished`)."""
        ...

    def records(self) -> AsyncIterator[JobRecord]:
        """Every record, of whichever account, in no particular order."""
        ...

    async def lease(self, key: str) -> bool:
        """Lease the job under `key`, if something is left to do in it.

        False when it is leased already, here or elsewhere, or finished, or not there.
        """
        ...

    def release(self, key: str) -> None:
        """End the lease of this store on the job under `key`, if there is one, soon.

        Not awaited, because handles end leases while they are thrown away. Never fails.
        """
