"""The store in a file: its records survive crashes and power failures, and may be shared.

For the processes of one machine; not for a file on a network share, whose locks cannot be relied
on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, TypeVar

from ..errors import StoreError
from ..protocol.lifecycle import CalledBack, Effect, Event, JobRecord, Transition, advance
from ..protocol.records import RecordError, decode
from .base import RECHECK_SECONDS
from .sessions import identity
from .sqlite_file import Version, absolute
from .sqlite_thread import Request, StoreThread, Timing
from .sqlite_transaction import Session, Transaction
from .waiters import Waiters

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PAGE = 500
"""Records that are read at once by those who list them."""


class _Same:
    """Says that a record is still at the version that was asked for."""


class SqliteStore:
    """Keeps job records in an SQLite file, which is made when it is opened first.

    Every write is on the disk before its method returns. One thread has the file; the event loop is
    never held up.

    Args:
        path: The file; `~` is understood, and missing folders are made.
        now: The time, in Unix seconds.
        recheck: Seconds between two looks for changes that do not rely on any sign of them.
        poll: Seconds between two looks for signs of changes by other processes, while a record is
            waited for.
        patience: Seconds that a lock of another process is waited for; less than the time that a
            callback may take.
        sqlite_version: What the journal mode depends on.

    """

    is_shared = True
    is_immediate = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        now: Callable[[], float] = time.time,
        recheck: float = RECHECK_SECONDS,
        poll: float = 0.02,
        patience: float = 4.0,
        sqlite_version: Version = sqlite3.sqlite_version_info,
    ) -> None:
        self._path = path
        self._now = now
        self._timing = Timing(patience, poll, recheck)
        self._version = sqlite_version
        self._waiters = Waiters()
        self._thread: StoreThread | None = None

    async def open(self) -> None:
        """Open the file, or make it; a second call does nothing."""
        if self._thread is None:
            self._thread = StoreThread(
                absolute(self._path),
                self._version,
                Session(secrets.token_hex(8), identity()),
                self._waiters,
                self._now,
                self._timing,
            )
            self._thread.start()
        thread = self._thread
        try:
            await self._ask(lambda transaction: None)
        except BaseException:
            if self._thread is thread:
                self._thread = None
            thread.stop()
            raise

    async def close(self) -> None:
        """Finish what was asked for, end the leases and let go of the file."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        thread.stop()
        if thread.loop is asyncio.get_running_loop():
            await asyncio.shield(thread.ended)
        thread.join()  # it has nothing left to do

    async def callback_secret(self, candidate: bytes) -> bytes:
        """The callback secret kept with the jobs; `candidate` becomes it when there is none."""

        def step(transaction: Transaction) -> bytes:
            name = "callback secret"
            transaction.connection.execute(
                "INSERT OR IGNORE INTO meta (name, value) VALUES (?, ?)", (name, candidate)
            )
            found = transaction.connection.execute("SELECT value FROM meta WHERE name = ?", (name,))
            return bytes(found.fetchone()[0])

        return await self._ask(step, writes=True)

    async def add(self, record: JobRecord) -> None:
        """Keep a new record, leased to this store; `KeyError` when there is one under its key."""

        def step(transaction: Transaction) -> None:
            if transaction.find(record.key) is not None:
                raise KeyError("there is a job under this key already")
            transaction.add(record, leased=True)

        asked: asyncio.Future[None] = self._ask(step, record.key, writes=True)
        try:
            await asyncio.shield(asked)
        except asyncio.CancelledError:
            asked.add_done_callback(lambda done: self._return_lease(record.key, done))
            raise

    async def get(self, key: str) -> JobRecord | None:
        """The record under `key`, or None."""

        def step(transaction: Transaction) -> JobRecord | None:
            row = transaction.find(key)
            return row.read() if row else None

        return await self._ask(step, key)

    async def apply(self, key: str, event: Event) -> Transition | None:
        """Let an event happen to the record under `key`, and wake whoever waits for it."""
        return await self._ask(
            lambda transaction: _apply(transaction, key, event), key, writes=True
        )

    async def add_orphan(self, record: JobRecord) -> Transition:
        """Keep the record of an orphan, or add its secret to the record that came in between."""

        def step(transaction: Transaction) -> Transition:
            event = CalledBack(record.created_at, record.secrets[0])
            there = _apply(transaction, record.key, event)
            if there is not None:
                return there
            transaction.add(record)
            return Transition(record, Effect.CHANGED)

        return await self._ask(step, record.key, writes=True)

    async def remove(self, key: str, version: int) -> bool:
        """Forget the record under `key` if it is still at `version`; whether it was."""

        def step(transaction: Transaction) -> bool:
            row = transaction.find(key)
            if row is None or row.read().version != version:
                return False
            transaction.forget(key)
            return True

        return await self._ask(step, key, writes=True)

    async def changed(self, key: str, version: int) -> JobRecord | None:
        """Wait until the record under `key` is no longer at `version`, and return it."""
        while True:
            # Noted before the look: what changes after the look wakes it.
            woken = self._waiters.add(key)
            try:
                found = await self._ask(partial(_other, key, version), key)
                if not isinstance(found, _Same):
                    return found
                await woken
            finally:
                self._waiters.discard(key, woken)

    def unfinished(self, account: str) -> AsyncIterator[JobRecord]:
        """The account's records in which something is left to do."""
        return self._listed("account = ? AND unfinished AND", account)

    def records(self) -> AsyncIterator[JobRecord]:
        """Every record."""
        return self._listed("")

    async def lease(self, key: str) -> bool:
        """Lease the job under `key`; False when it is leased already, here or elsewhere."""

        def step(transaction: Transaction) -> bool:
            row = transaction.find(key)
            return row is not None and transaction.lease(row)

        asked: asyncio.Future[bool] = self._ask(step, key, writes=True)
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            asked.add_done_callback(lambda done: self._return_lease(key, done))
            raise

    def release(self, key: str) -> None:
        """End the lease of this store on the job under `key`, if there is one, soon."""

        def step(transaction: Transaction) -> None:
            row = transaction.find(key)
            if row is not None:
                transaction.release(row)

        thread = self._thread
        if thread is not None:
            thread.ask(Request(step, True, key, None))

    # ----------------------------------------------------------------------------------------------

    def _ask(
        self, step: Callable[[Transaction], T], key: str | None = None, *, writes: bool = False
    ) -> asyncio.Future[T]:
        """A future of what an operation gives."""
        thread, loop = self._thread, asyncio.get_running_loop()
        if thread is None or thread.loop is not loop:
            raise StoreError("the store is not open in this event loop: open it first")
        future: asyncio.Future[T] = loop.create_future()
        thread.ask(Request(step, writes, key, future))
        return future

    async def _listed(self, condition: str, *arguments: str) -> AsyncIterator[JobRecord]:
        """Records by pages, so that neither the memory nor the file is taken up for long."""
        after = 0
        while True:
            page = await self._ask(
                lambda transaction, after=after: transaction.page(  # type: ignore[misc]
                    condition, arguments, after, _PAGE
                )
            )
            for number, text in page:
                after = number
                record = _readable(text)
                if record is not None:
                    yield record
            if len(page) < _PAGE:
                return

    def _return_lease(self, key: str, asked: asyncio.Future[Any]) -> None:
        """Nobody has heard that it was leased."""
        if not asked.cancelled() and asked.exception() is None and asked.result() is not False:
            self.release(key)


def _apply(transaction: Transaction, key: str, event: Event) -> Transition | None:
    row = transaction.find(key)
    if row is None:
        return None
    transition = advance(row.read(), event)
    if transition.effect is Effect.CHANGED:
        transaction.change(row, transition.record)
    return transition


def _other(key: str, version: int, transaction: Transaction) -> JobRecord | _Same | None:
    row = transaction.find(key)
    record = row.read() if row else None
    return _Same() if record is not None and record.version == version else record


def _readable(text: str) -> JobRecord | None:
    try:
        return decode(text)
    except RecordError as error:
        logger.warning("a job is left out: %s", error)
        return None
