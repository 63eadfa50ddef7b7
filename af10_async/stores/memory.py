"""The store for one process that may forget its jobs when it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from ..protocol.lifecycle import CalledBack, Effect, Event, JobRecord, Transition, advance

_SWEEP_EVERY = 60.0
"""Seconds between two looks for records whose time is over."""


class MemoryStore:
    """Keeps job records in a dictionary.

    Its methods never really wait (but `changed`), so the event loop itself makes each one atomic.
    """

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._records: dict[str, JobRecord] = {}
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._secret: bytes | None = None
        self._swept_at = now()

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close: a store that is opened again still has its records."""

    async def callback_secret(self, candidate: bytes) -> bytes:
        """The callback secret kept with the jobs; `candidate` becomes it when there is none."""
        if self._secret is None:
            self._secret = candidate
        return self._secret

    async def add(self, record: JobRecord) -> None:
        """Keep a new record; `KeyError` when there is one under its key."""
        self._sweep()
        if record.key in self._records:
            raise KeyError("there is a job under this key already")
        self._put(record)

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
        del self._records[key]
        self._wake(key)
        return True

    async def changed(self, key: str, version: int) -> JobRecord | None:
        """Wait until the record under `key` is no longer at `version`, and return it."""
        while True:
            record = self._records.get(key)
            if record is None or record.version != version:
                return record
            await self._next_change(key)

    async def unfinished(self, account: str) -> AsyncIterator[JobRecord]:
        """The account's records that are neither ready nor failed nor expired."""
        self._sweep()
        for record in list(self._records.values()):
            if record.account == account and not record.is_done:
                yield record

    async def _next_change(self, key: str) -> None:
        waiter = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(key, [])
        waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters and self._waiters.get(key) is waiters:
                del self._waiters[key]

    def _put(self, record: JobRecord) -> None:
        self._records[record.key] = record
        self._wake(record.key)

    def _wake(self, key: str) -> None:
        for waiter in self._waiters.pop(key, []):
            if not waiter.done():
                waiter.set_result(None)

    def _sweep(self) -> None:
        now = self._now()
        if now - self._swept_at < _SWEEP_EVERY:
            return
        self._swept_at = now
        for key in [key for key, record in self._records.items() if record.expires_at <= now]:
            del self._records[key]
            self._wake(key)
