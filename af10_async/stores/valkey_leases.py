"""Which jobs this open store has leased, and whether those who leased the others are alive."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from typing import Any

from ..errors import StoreError
from ..protocol.lifecycle import JOB_LIFETIME
from . import valkey_layout as layout
from .base import SESSION_SECONDS
from .sessions import identity, is_gone
from .valkey_client import COMMAND_SECONDS, Client, end

logger = logging.getLogger("af10_async.stores")

_RETRY_SECONDS = 1.0
_DISTRUST_SECONDS = 5.0
"""Seconds after a server's return in which a missing sign of life proves nothing: every session
tries to give its own each second."""
_CLOSED = b"closed"


class Leases:
    """The leases of one open store.

    The owner of a lease stands beside the record. It is the id of a session, which must give a sign
    of life now and then: what a session without one has leased is free.
    """

    def __init__(self, client: Client, prefix: str) -> None:
        self.session = f"{identity()}/{secrets.token_urlsafe(8)}"
        self._client = client
        self._prefix = prefix
        self._held: set[str] = set()
        self._to_release: set[str] = set()
        self._is_wanted = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._distrust_until = 0.0

    async def start(self) -> None:
        """Give the first sign of life. Raises `StoreError`."""
        self._loop = asyncio.get_running_loop()
        await self._live()
        self._tasks = [
            asyncio.create_task(self._stay_alive(), name="af10_async valkey session"),
            asyncio.create_task(self._release_all(), name="af10_async valkey releases"),
        ]

    async def close(self) -> None:
        """End the session, and all leases with it."""
        await end(*self._tasks)
        if self._tasks:
            # Without a server it ends by itself, when its time is over.
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(COMMAND_SECONDS):
                    await self._say_goodbye()
        self._loop = None
        self._held.clear()

    def reserve(self, key: str) -> bool:
        """Count a job as leased here before it is; False when it counts already."""
        if key in self._held:
            return False
        self._held.add(key)
        self._to_release.discard(key)
        return True

    def forget(self, key: str) -> None:
        """The record is gone, and its lease with it."""
        self._held.discard(key)

    async def lease(self, key: str) -> bool:
        """Lease a job; False when somebody who is alive has it, or there is none."""
        if not self.reserve(key):
            return False
        try:
            is_ours = await self._take(layout.job(self._prefix, key))
        except BaseException:
            self.release(key)  # nobody knows whether it was given
            raise
        if not is_ours:
            self._held.discard(key)
        return is_ours

    def release(self, key: str) -> None:
        """End a lease soon. For any thread, and for after the end of the loop."""
        if key not in self._held:
            return
        self._held.discard(key)
        self._to_release.add(key)
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._is_wanted.set)

    async def _take(self, name: str) -> bool:
        replaced = ""
        while True:
            owner = await self._client.run_script(layout.OWN, name, replaced, self.session)
            if owner == 1:
                return True
            if owner is None:
                return False
            replaced = owner.decode()
            if replaced == self.session:
                return True  # an answer was lost, or it was about to be released
            if not await self._is_dead(replaced):
                return False

    def returned(self) -> None:
        """The server was away, and may have lost the signs of life of all."""
        self._distrust_until = time.monotonic() + _DISTRUST_SECONDS
        self._client.submit(*self._sign())

    async def _is_dead(self, owner: str) -> bool:
        gone = is_gone(owner.rpartition("/")[0])
        if gone:
            return True
        sign = await self._client.run("GET", layout.session(self._prefix, owner))
        if sign is not None:
            return bool(sign == _CLOSED)
        # One whose process can be seen has not ended, whatever became of its sign.
        return gone is None and time.monotonic() >= self._distrust_until

    def _sign(self) -> tuple[Any, ...]:
        name = layout.session(self._prefix, self.session)
        return ("SET", name, "1", "PX", round(SESSION_SECONDS * 1000))

    async def _live(self) -> None:
        await self._client.run(*self._sign())

    async def _say_goodbye(self) -> None:
        name = layout.session(self._prefix, self.session)
        if self._held or self._to_release:
            # Said outright, because the process may live on.
            await self._client.run("SET", name, _CLOSED, "PX", round(JOB_LIFETIME * 1000))
        else:
            await self._client.run("DEL", name)

    async def _stay_alive(self) -> None:
        pause = SESSION_SECONDS / 3
        while True:
            await asyncio.sleep(pause)
            try:
                await self._live()
                pause = SESSION_SECONDS / 3
            except StoreError as error:
                logger.debug("no sign of life could be given to the store: %s", error)
                pause = _RETRY_SECONDS

    async def _release_all(self) -> None:
        while True:
            await self._is_wanted.wait()
            self._is_wanted.clear()
            await asyncio.gather(*map(self._release, list(self._to_release)))
            if self._to_release:
                await asyncio.sleep(_RETRY_SECONDS)
                self._is_wanted.set()

    async def _release(self, key: str) -> None:
        # Left in the list while it is on its way. Who leases the key meanwhile takes it off, and
        # asks later than this over the same connection.
        name = layout.job(self._prefix, key)
        try:
            await self._client.run_script(layout.OWN, name, self.session, "")
        except StoreError as error:
            logger.debug("a lease could not be released yet: %s", error)
        else:
            self._to_release.discard(key)
