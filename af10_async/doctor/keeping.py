"""The store: opened before anything listens, and examined afterwards."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from ..errors import AF10Error, ConfigurationError, StoreError
from ..protocol.keys import RANDOM_BYTES, make_key
from ..protocol.lifecycle import JobRecord
from ..runtime import Runtime
from ..stores import Store
from .configuration import Configuration
from .findings import Finding, because_of, failed, failed_with, passed
from .looking import looking_store

COUNTING_TIME = 2.0
"""Seconds that counting the unfinished jobs may take: nobody needs to know it that well."""
_LIFETIME = 60.0
"""Seconds after which the record of this examination ends by itself, if it is not taken out."""
_SQLITE = "sqlite:"


class Keeping:
    """The store of the configuration.

    A file that is not there yet is not made: whoever examines may be another user than the one who
    is to have it. A file beside it, of which nothing stays, stands for it.

    Args:
        configuration: What the environment says.
        stack: Closes the store.
        timeout: Seconds that it may take to open.
        runtime: Time and chance.

    """

    def __init__(
        self, configuration: Configuration, stack: AsyncExitStack, timeout: float, runtime: Runtime
    ) -> None:
        self._url = configuration.store
        self._secret = configuration.values.get("callback_secret")
        self._stack = stack
        self._timeout = timeout
        self._runtime = runtime
        self._error: AF10Error | None = None
        self.is_missing = False
        """Whether it is a file that will be made by whoever uses it first."""
        self.store: Store | None = None
        """Open; None when there is none to be had."""
        self._place: str | None = None
        """The URL at which it is open; may hold a password."""

    async def prepare(self) -> None:
        """Open it; the check tells what came of that."""
        if self._url is None:
            return
        try:
            async with asyncio.timeout(self._timeout):
                place = self._placed(self._url)
                store = looking_store(place, now=self._runtime.now)
                await store.open()
        except TimeoutError:
            self._error = StoreError(f"{self.shown} does not open within {self._timeout:g} s")
        except (OSError, RuntimeError) as error:  # RuntimeError: `~nobody` has no home
            reason = getattr(error, "strerror", None) or "no such place"
            self._error = StoreError(f"{self.shown} cannot be made ({reason})")
        except AF10Error as error:
            self._error = error
        else:
            self._stack.push_async_callback(store.close)
            self.store, self._place = store, place

    def _placed(self, url: str) -> str:
        path = Path(url.removeprefix(_SQLITE)).expanduser() if url.startswith(_SQLITE) else None
        if path is None or path.exists():
            return url
        folder = next((each for each in path.absolute().parents if each.exists()), path.parent)
        self.is_missing = True
        stand_in = tempfile.TemporaryDirectory(prefix=".af10-doctor-", dir=folder)
        self._stack.callback(stand_in.cleanup)
        return f"{_SQLITE}{stand_in.name}/jobs.db"

    def another_handle(self) -> Store | None:
        """The store once more, for who opens and closes it; None when there is none to be had."""
        return None if self._place is None else looking_store(self._place, now=self._runtime.now)

    async def callback_secret(self) -> bytes:
        """What keys are signed with: as configured, or as kept; else at random, and kept nowhere.

        Raises:
            StoreError: the store does not say.

        """
        if self._secret is not None:
            given: str = self._secret.get_secret_value()
            return given.encode()
        made = self._runtime.random_bytes(32)
        return made if self.store is None else await self.store.callback_secret(made)

    @property
    def shown(self) -> str:
        """The store, for the eyes of people."""
        url = self._url or ""
        if url == "memory:" or url.startswith(_SQLITE):
            return url
        from ..stores.valkey_address import read_address

        try:
            return read_address(url).shown
        except ConfigurationError:
            return f"{url.partition(':')[0]}:..."

    async def check(self) -> Finding:
        """Write a record, read it and take it out again; count what is left to do."""
        if self._url is None:
            return because_of("configuration", "AF10_STORE makes no sense")
        if self.store is None:
            return self._unusable(self._error or StoreError("it is closed"))
        if not self.store.is_shared:
            return passed(
                "in memory: jobs do not survive a restart",
                "set AF10_STORE=sqlite:PATH to keep them",
                store=self.shown,
                is_shared=False,
            )
        try:
            return await self._tried(self.store)
        except AF10Error as error:
            return self._unusable(error)

    def _unusable(self, error: AF10Error) -> Finding:
        return failed_with(error, "see that it runs and can be reached, or correct AF10_STORE")

    async def _tried(self, store: Store) -> Finding:
        await self._written_and_read(store)
        if self.is_missing:
            return passed(
                f"{self.shown} is not there yet, and can be made", store=self.shown, is_shared=True
            )
        if await self._has_another_secret(store):
            return failed(
                f"AF10_CALLBACK_SECRET is not what the other processes over {self.shown} sign with",
                "give all of them the same, or none",
                store=self.shown,
            )
        count = await _unfinished(store)
        shown = "too many jobs to count" if count is None else f"{count} unfinished job(s)"
        return passed(
            f"{self.shown} can be written and read; {shown}",
            store=self.shown,
            is_shared=True,
            unfinished=count,
        )

    async def _written_and_read(self, store: Store) -> None:
        record = self._record()
        await store.add(record)
        try:
            if await store.get(record.key) != record:
                raise StoreError(f"{self.shown} does not give back what was written to it")
        finally:
            await store.remove(record.key, record.version)
            store.release(record.key)

    def _record(self) -> JobRecord:
        # Of no account and of no receiver, so that nobody takes it up.
        chance, now = self._runtime.random_bytes, self._runtime.now()
        key = make_key(chance(RANDOM_BYTES), chance(32))
        return JobRecord(key, "af10 doctor", "GET", "/", False, now, now + _LIFETIME)

    async def _has_another_secret(self, store: Store) -> bool:
        if self._secret is None:
            return False
        given = await self.callback_secret()
        return await store.callback_secret(given) != given


async def _unfinished(store: Store) -> int | None:
    try:
        async with asyncio.timeout(COUNTING_TIME):
            return sum([record.is_unfinished async for record in store.records()])
    except TimeoutError:
        return None
