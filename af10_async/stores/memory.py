"""The store for one process that may forget its jobs when it ends."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

from ..protocol.lifecycle import CalledBack, Effect, Event, JobRecord, Transition, advance
from .waiters import Waiters

_SWEEP_EVERY = 60.0
"""Seconds between two looks for records whose time is over."""


class MemoryStore:
    """Keeps job records in a dictionary.

    Its methods never really wait (but `changed`), so the event loop itself makes each one atomic.
    """

    is_shared = False
    is_immediate = True

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._records: dict[str, JobRecord] = {}
        self._leased: set[str] = set()
        self._waiters = Waiters()
        self._secret: bytes | None = None
        self._swept_at = now()

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Only the leases end: a store that is opened again still has its records."""
        self._leased.clear()

    async def callback_secret(self, candidate: bytes) -> bytes:
        """The callback secret kept with the jobs; `candidate` becomes it when there is none."""
        if self._secret is None:
            self._secret = candidate
        return self._secret

    async def add(self, record: JobRecord) -> None:
        """Keep a new record, leased; `KeyError` when there is one under its key."""
        self._sweep()
        if record.key in self._records:
            raise KeyError("there is a job under this key already")
        self._put(record)
        self._leased.add(record.key)

    async def get(self, key: str) -> JobRecord | None:
        """The record under `key`, or None."""
        self._sweep()
        return self._records.get(key)

    async def apply(self, key: str, event: Event) -> Transition | None:
        """Let an event happen to the record under `key`, and wake whoever waits for it."""
        record = self._records.get(key)
        if record is None:
            return None
        transition = advance(record, event)
        if transition.effect is Effect.CHANGED:
            self._put(transition.record)
        return transition

    async def add_orphan(self, record: JobRecord) -> Transition:
        """Keep the record of an orphan, or add its secret to the record that came in between."""
        self._sweep()
        there = await self.apply(record.key, CalledBack(record.created_at, record.secrets[0]))
        if there is not None:
            return there
        self._put(record)
        return Transition(record, Effect.CHANGED)

    async def remove(self, key: str, version: int) -> bool:
        """Forget the record under `key` if it is still at `version`; whether it was."""
        record = self._records.get(key)
        if record is None or record.version != version:
            return False
        self._forget(key)
        return True

    async def changed(self, key: str, version: int) -> JobRecord | None:
        """Wait until the record under `key` is no longer at `version`, and return it."""
        while True:
            record = self._records.get(key)
            if record is None or record.version != version:
                return record
            woken = self._waiters.add(key)
            try:
                await woken
            finally:
                self._waiters.discard(key, woken)

    async def unfinished(self, account: str) -> AsyncIterator[JobRecord]:
        """The account's records in which something is left to do."""
        async for record in self.records():
            if record.account == account and record.is_unfinished:
                yield record

    async def records(self) -> AsyncIterator[JobRecord]:
        """Every record."""
        self._sweep()
        for record in list(self._records.values()):
            yield record

    async def lease(self, key: str) -> bool:
        """Lease the job under `key`; False when it is leased already, or finished."""
        record = self._records.get(key)
        if record is None or not record.is_unfinished or key in self._leased:
            return False
        self._leased.add(key)
        return True

    def release(self, key: str) -> None:
        """End the lease on the job under `key`, if there is one."""
        self._leased.discard(key)

    def _put(self, record: JobRecord) -> None:
        self._records[record.key] = record
        self._waiters.wake(record.key)

    def _forget(self, key: str) -> None:
        del self._records[key]
        self._leased.discard(key)
        self._waiters.wake(key)

    def _sweep(self) -> None:
        now = self._now()
        if now - self._swept_at < _SWEEP_EVERY:
            return
        self._swept_at = now
        for key in [key for key, record in self._records.items() if record.expires_at <= now]:
            self._forget(key)
