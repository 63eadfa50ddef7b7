"""The store for many processes on many machines: a Valkey or Redis server."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Literal

from ..errors import StoreError
from ..protocol.lifecycle import CalledBack, Effect, Event, JobRecord, Transition, advance
from ..protocol.records import encode
from . import valkey_layout as layout
from .base import RECHECK_SECONDS
from .valkey_address import read_address
from .valkey_client import Client, check_installed
from .valkey_layout import Stored
from .valkey_leases import Leases
from .valkey_watch import Watch
from .waiters import Waiters

logger = logging.getLogger("af10_async.stores")

_REMEMBERED = 4096
"""Most records that are remembered, so that their next change needs no look first."""
_REMEMBERED_SIZE = 4096
"""Most characters of a record that is remembered."""
_PAGE = 200
_INDEX_MARGIN = 3_600_000
"""Milliseconds by which an index outlives its last record."""


class ValkeyStore:
    """Keeps job records in a Valkey or Redis server (6.2 or later), or a cluster of them.

    Args:
        url: `valkey://user:password@host:6379/0`, `valkeys://` with TLS, or `unix:///path`. Of its
            parameters, `prefix` (`af10`) begins all names in the server and `cluster=true` says
            that it is a cluster; the others are those of redis-py.
        now: The time, in Unix seconds.
        recheck: Seconds between two looks at a record that is waited for, in case its message was
            lost; longer when there are thousands.

    """

    is_shared = True
    is_immediate = False

    def __init__(
        self,
        url: str,
        *,
        now: Callable[[], float] = time.time,
        recheck: float = RECHECK_SECONDS,
    ) -> None:
        check_installed()
        self._address = read_address(url)
        self._prefix = self._address.prefix
        self._channel = f"{self._prefix}:changed"
        self._now = now
        self._recheck = recheck
        self._waiters = Waiters()
        self._remembered: OrderedDict[str, Stored] = OrderedDict()
        self._unsure: OrderedDict[str, str] = OrderedDict()
        """Heads of added records of which nobody knows whether they were kept."""
        self._secret: bytes | None = None
        self._is_open = False
        self._turn = asyncio.Lock()
        self._make()

    def __repr__(self) -> str:
        return f"<ValkeyStore {self._address.shown} prefix={self._prefix}>"

    async def open(self) -> None:
        """Connect; a second call does nothing. Raises `StoreError` when that cannot be done."""
        async with self._turn:
            if self._is_open:
                return
            self._make()
            try:
                self._client.start()
                await self._leases.start()
                await self._warn_of_eviction()
            except BaseException:
                await self._end()
                raise
            self._is_open = True

    async def close(self) -> None:
        """Let go of connections, tasks and leases. Who still waits gets a `StoreError`."""
        async with self._turn:
            if self._is_open:
                self._is_open = False
                await self._end()

    async def callback_secret(self, candidate: bytes) -> bytes:
        """The callback secret kept with the jobs; `candidate` becomes it when there is none."""
        name = f"{self._prefix}:secret"
        while True:
            await self._client.run("SET", name, candidate, "NX")
            found: bytes | None = await self._client.run("GET", name)
            if found is not None:
                self._secret = found
                return found

    async def add(self, record: JobRecord) -> None:
        """Keep a new record, leased to this store; `KeyError` when there is one under its key."""
        key = record.key
        # Who asks again after a lost answer must know the record that is there as its own.
        head = self._unsure.pop(key, None) or layout.head_of(record)
        is_reserved = self._leases.reserve(key)
        is_kept = False
        try:
            await self._enlist(record)  # an entry without a record does no harm, unlike the reverse
            is_kept = await self._create(record, head, self._leases.session)
        except BaseException:
            self._note_unsure(key, head)
            raise
        finally:
            if is_reserved and not is_kept:
                self._leases.release(key)
        if not is_kept:
            raise KeyError("there is a job under this key already")

    async def get(self, key: str) -> JobRecord | None:
        """The record under `key`, or None."""
        found = await self._read(key)
        return found.record if found else None

    async def apply(self, key: str, event: Event) -> Transition | None:
        """Let an event happen to the record under `key`, and wake whoever waits for it."""
        found = self._remembered.get(key)
        is_sure = found is None or self._is_over(found.record)
        if is_sure:
            found = await self._read(key)
        while found is not None and not self._is_over(found.record):
            transition = advance(found.record, event)
            if transition.effect is Effect.CHANGED:
                outcome = await self._change(found, transition.record)
                if outcome is True:
                    return transition
                found, is_sure = outcome, True
            elif is_sure:
                return transition
            else:  # what is remembered may be out of date
                found, is_sure = await self._read(key), True
        return None

    async def add_orphan(self, record: JobRecord) -> Transition:
        """Keep the record of an orphan, or add its secret to the record that came in between."""
        while True:
            event = CalledBack(record.created_at, record.secrets[0])
            there = await self.apply(record.key, event)
            if there is not None:
                return there
            if await self._create(record, layout.head_of(record), ""):
                return Transition(record, Effect.CHANGED)

    async def remove(self, key: str, version: int) -> bool:
        """Forget the record under `key` if it is still at `version`; whether it was."""
        name = layout.job(self._prefix, key)
        values = (version, self._channel, key)
        removed = await self._client.run_script(layout.REMOVE, name, *values)
        if removed is None:
            return False
        self._forget(key)
        self._leases.forget(key)
        record = layout.read(removed).record
        self._strike(record)
        self._waiters.wake(key)
        return not self._is_over(record)

    async def changed(self, key: str, version: int) -> JobRecord | None:
        """Wait until the record under `key` is no longer at `version`, and return it.

        Goes on waiting while the server is away.
        """
        self._watch.start()
        while True:
            woken = self._waiters.add(key)  # before the look: a change after it is not missed
            try:
                found = await self._read(key, is_remembered=False)
                if found is None or found.record.version != version:
                    return found.record if found else None
                del found  # thousands wait here
                await woken
            except StoreError as error:
                if not error.retryable:
                    raise
                await woken  # everybody is woken when the server is back
            finally:
                self._waiters.discard(key, woken)

    async def unfinished(self, account: str) -> AsyncIterator[JobRecord]:
        """The account's records in which something is left to do."""
        name = layout.index(self._prefix, account)
        async for key, found in self._pages(self._index_keys(name)):
            if found is None:
                self._client.submit_script(layout.MISS, name, key)
            elif not found.record.is_unfinished:
                self._strike(found.record)
            elif found.record.account == account and not self._is_over(found.record):
                yield found.record

    async def records(self) -> AsyncIterator[JobRecord]:
        """Every record."""
        names = self._client.scan(layout.job(self._prefix, "*"))
        keys = (layout.key_of(self._prefix, name) async for name in names)
        async for _, found in self._pages(keys):
            if found is not None and not self._is_over(found.record):
                yield found.record

    async def lease(self, key: str) -> bool:
        """Lease the job under `key`; False when it is leased already, here or elsewhere."""
        if not await self._leases.lease(key):
            return False
        found = await self._read(key)  # after it was leased: nobody finishes it from now on
        if found is None or not found.record.is_unfinished:
            self._leases.release(key)
            return False
        return True

    def release(self, key: str) -> None:
        """End the lease on the job under `key`, if there is one, soon. From any thread."""
        self._leases.release(key)

    # -- open and closed ---------------------------------------------------------------------------

    def _make(self) -> None:
        self._client = Client(self._address, on_return=self._returned)
        self._leases = Leases(self._client, self._prefix)
        self._watch = Watch(self._client, self._channel, self._waiters, self._recheck)

    def _returned(self) -> None:
        """The server was away, and may have lost its newest writes, or everything."""
        self._leases.returned()
        if self._secret is not None:
            self._client.submit("SET", f"{self._prefix}:secret", self._secret, "NX")
        self._waiters.wake_all()

    async def _end(self) -> None:
        await self._watch.close()
        await self._leases.close()
        await self._client.close()
        self._remembered.clear()
        self._waiters.wake_all()

    async def _warn_of_eviction(self) -> None:
        memory = await self._client.memory()
        policy = memory.get("maxmemory_policy", "noeviction")
        if memory.get("maxmemory", 0) and policy != "noeviction":
            logger.warning(
                "%s throws jobs away when its memory is full (maxmemory-policy %s): set it to "
                "noeviction",
                self._address.shown,
                policy,
            )

    # -- one record --------------------------------------------------------------------------------

    async def _read(self, key: str, *, is_remembered: bool = True) -> Stored | None:
        value = await self._client.run("GET", layout.job(self._prefix, key))
        found = layout.read(value) if value is not None else None
        if found is None or self._is_over(found.record):
            self._forget(key)
            self._waiters.wake(key)
            return None
        if is_remembered:
            self._remember(found, len(value))
        return found

    async def _create(self, record: JobRecord, head: str, owner: str) -> bool:
        """Write a new record, unless there is one whose time is not over."""
        expected = ""
        while True:
            found = await self._write(record, expected, head, owner)
            if found is True:
                return True
            if found is not None and not self._is_over(found.record):
                return False
            expected = found.head if found else ""

    async def _change(self, found: Stored, record: JobRecord) -> Stored | Literal[True] | None:
        before = found.record
        is_longer = record.expires_at > before.expires_at
        is_new = record.account != before.account or not before.is_unfinished
        if record.is_unfinished and (is_new or is_longer):
            await self._enlist(record)
        outcome = await self._write(record, found.head, layout.head_of(record), layout.KEEP_OWNER)
        if outcome is True and before.is_unfinished and not record.is_unfinished:
            self._strike(record)
            self._leases.forget(record.key)
        return outcome

    async def _write(
        self, record: JobRecord, expected: str, head: str, owner: str
    ) -> Stored | Literal[True] | None:
        """Write where the head is as expected: True, or what is there instead."""
        key, text = record.key, encode(record)
        values = (expected, head, text, self._life(record), owner, self._channel, key)
        name = layout.job(self._prefix, key)
        answer = await self._client.run_script(layout.WRITE, name, *values)
        if answer is None:
            self._forget(key)
            return None
        if answer != 1:
            found = layout.read(answer)
            if found.head != head:  # else it is what was written before the answer got lost
                self._remember(found, len(answer))
                return found
        self._remember(Stored(head, record), len(text))
        self._waiters.wake(key)
        return True

    def _life(self, record: JobRecord) -> int:
        """Milliseconds: the clocks of machines differ, so the server gets no point in time."""
        return max(1, math.ceil((record.expires_at - self._now()) * 1000))

    def _is_over(self, record: JobRecord) -> bool:
        return record.expires_at <= self._now()

    # -- what is remembered ------------------------------------------------------------------------

    def _remember(self, found: Stored, size: int) -> None:
        self._forget(found.record.key)
        if size <= _REMEMBERED_SIZE:
            self._remembered[found.record.key] = found
            if len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)

    def _forget(self, key: str) -> None:
        self._remembered.pop(key, None)

    def _note_unsure(self, key: str, head: str) -> None:
        self._unsure[key] = head
        if len(self._unsure) > _REMEMBERED:
            self._unsure.popitem(last=False)

    # -- the index of unfinished jobs --------------------------------------------------------------

    async def _enlist(self, record: JobRecord) -> None:
        if record.account is not None:
            name = layout.index(self._prefix, record.account)
            values = (record.key, record.version, self._life(record) + _INDEX_MARGIN)
            await self._client.run_script(layout.ENLIST, name, *values)

    def _strike(self, record: JobRecord) -> None:
        """Not awaited: an entry too many does no harm."""
        if record.account is not None:
            name = layout.index(self._prefix, record.account)
            self._client.submit_script(layout.STRIKE, name, record.key, record.version)

    async def _index_keys(self, name: str) -> AsyncIterator[str]:
        cursor = 0
        while True:
            cursor, entries = await self._client.run("ZSCAN", name, cursor, "COUNT", _PAGE)
            for key, _ in entries:
                yield key.decode()
            if not cursor:
                return

    async def _pages(self, keys: AsyncIterator[str]) -> AsyncIterator[tuple[str, Stored | None]]:
        """Each of the keys once, with its record; read many at a time."""
        seen: set[str] = set()
        page: list[str] = []
        async for key in keys:
            if key not in seen:  # a server may name one twice
                seen.add(key)
                page.append(key)
            if len(page) == _PAGE:
                for found in await self._read_page(page):
                    yield found
                page = []
        for found in await self._read_page(page):
            yield found

    async def _read_page(self, keys: list[str]) -> list[tuple[str, Stored | None]]:
        asked = [self._client.submit("GET", layout.job(self._prefix, key)) for key in keys]
        found: list[tuple[str, Stored | None]] = []
        for key, answer in zip(keys, asked, strict=True):
            value = self._client.answer(await answer)
            try:
                found.append((key, layout.read(value) if value is not None else None))
            except StoreError as error:
                # One that a newer release wrote must not hide the others.
                logger.warning("job %s is left out: %s", key, error)
        return found
