"""Who waits in this process for a change of which record."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class Waiters:
    """Futures by key. A wake-up says only that it is worth while to look again."""

    def __init__(self) -> None:
        # Mostly one waits for a job, and a list would be as large as its future.
        self._futures: dict[str, asyncio.Future[None] | list[asyncio.Future[None]]] = {}

    def __bool__(self) -> bool:
        return bool(self._futures)

    def __contains__(self, key: str) -> bool:
        return key in self._futures

    @property
    def keys(self) -> list[str]:
        """What is waited for."""
        return list(self._futures)

    def add(self, key: str) -> asyncio.Future[None]:
        """A future that the next change of `key` resolves; `discard` it afterwards."""
        future = asyncio.get_running_loop().create_future()
        there = self._futures.get(key)
        if there is None:
            self._futures[key] = future
        elif isinstance(there, list):
            there.append(future)
        else:
            self._futures[key] = [there, future]
        return future

    def discard(self, key: str, future: asyncio.Future[None]) -> None:
        """Forget a future, woken or not."""
        there = self._futures.get(key)
        if isinstance(there, list) and future in there:
            there.remove(future)
        if there == [] or there is future:
            del self._futures[key]

    def wake(self, key: str) -> None:
        """Let everybody who waits for `key` look again."""
        there = self._futures.pop(key, [])
        for future in there if isinstance(there, list) else [there]:
            if not future.done():
                future.set_result(None)

    def wake_all(self, keys: Iterable[str] | None = None) -> None:
        """Let everybody look again, or everybody who waits for one of `keys`."""
        for key in self.keys if keys is None else keys:
            self.wake(key)
