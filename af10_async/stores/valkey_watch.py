"""Wakes who waits in this process when a record changes in another."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from typing import Any

from .valkey_client import COMMAND_SECONDS, Client, end
from .waiters import Waiters

logger = logging.getLogger("af10_async.stores")

_FEW = 1000
"""Up to so many keys, each is looked at again at every re-check."""
_PART = 50
_ROUND_SECONDS = 300.0
"""Above that, the longest time in which each is looked at once."""
_SILENT_SECONDS = 10.0
"""Without a message for so long, the connection is asked whether it is still there."""
_FIRST_PAUSE = 0.05


class Watch:
    """Listens to the channel of changes, and looks at what is waited for now and then.

    A message can be lost: the server does not keep it for who is not connected. So everybody looks
    again after each subscribing, and slowly behind that.
    """

    def __init__(self, client: Client, channel: str, waiters: Waiters, recheck: float) -> None:
        self._client = client
        self._channel = channel
        self._waiters = waiters
        self._recheck = recheck
        self._pause = _FIRST_PAUSE
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin, if it has not begun yet."""
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._listen(), name="af10_async valkey listener"),
                asyncio.create_task(self._look_again(), name="af10_async valkey re-check"),
            ]

    async def close(self) -> None:
        """End both tasks."""
        await end(*self._tasks)

    async def _listen(self) -> None:
        while True:
            try:
                await self._hear()
            except Exception as error:  # whatever it is, the re-check goes on without messages
                is_first = self._pause == _FIRST_PAUSE
                logger.log(
                    logging.WARNING if is_first else logging.DEBUG,
                    "no messages about changed jobs for now: %s",
                    self._client.error(error),
                )
            await asyncio.sleep(self._pause * random.uniform(0.5, 1))  # noqa: S311 - no secret
            self._pause = min(self._pause * 2, max(self._recheck, _FIRST_PAUSE))

    async def _hear(self) -> None:
        """Pass messages on until the connection fails."""
        subscriber = self._client.pubsub()
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                await subscriber.subscribe(self._channel)
            is_asked = False
            while True:
                message = await subscriber.get_message(timeout=_SILENT_SECONDS)
                if message is not None:
                    is_asked = False
                    self._take(message)
                elif is_asked:
                    raise TimeoutError
                else:
                    is_asked = True
                    async with asyncio.timeout(COMMAND_SECONDS):
                        await subscriber.ping()
        finally:
            with contextlib.suppress(Exception):  # the connection is given up, however it ends
                await subscriber.aclose()

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "message":
            self._waiters.wake(message["data"].decode("utf-8", "replace"))
        elif message["type"] == "subscribe":  # also after redis-py has reconnected by itself
            self._pause = _FIRST_PAUSE
            self._waiters.wake_all()

    async def _look_again(self) -> None:
        await asyncio.sleep(self._recheck)
        while True:
            keys = self._waiters.keys
            share = max(_FEW, round(len(keys) * self._recheck / _ROUND_SECONDS))
            if self._client.is_down:
                share = 1  # enough to notice that it is back
            # Who is woken and waits on goes to the end, so that everybody's turn comes. In small
            # parts, so that what happens meanwhile is not kept waiting.
            keys = keys[:share]
            parts = max(1, math.ceil(len(keys) / _PART))
            for number in range(parts):
                self._waiters.wake_all(keys[number * _PART : (number + 1) * _PART])
                await asyncio.sleep(self._recheck / parts)
