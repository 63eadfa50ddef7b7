"""Callbacks that the store could not keep when they came, held until it can."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from .callback_log import Troubles
from .errors import StoreError
from .protocol.callbacks import Callback
from .protocol.lifecycle import Effect, Transition
from .runtime import Runtime
from .shelter import ended, to_its_end

logger = logging.getLogger("af10_async.callback_server")

MOST = 10_000
"""Most callbacks that are held."""
MOST_OF_ONE = 8
"""Most of one job: whoever knows its webhook URL can make up ids, and must not take all places."""
PAUSE = 2.0
"""Seconds between two attempts to keep them."""


class Backlog:
    """Tries again to keep what was answered 503: whether AF10 comes back is not known.

    Args:
        record: Puts a callback into the store, in reasonable time, or raises.
        tell: Called with what came of one that is kept now, and of which nobody was told before.
        runtime: Where the pauses come from.

    """

    def __init__(
        self,
        record: Callable[[Callback], Awaitable[Transition]],
        tell: Callable[[Callback, Transition], None],
        runtime: Runtime,
    ) -> None:
        self._record = record
        self._tell = tell
        self._runtime = runtime
        self._held: dict[Callback, None] = {}
        self._counts: dict[str, int] = {}
        """How many of each job are held."""
        self._not_held = Troubles(
            "neither kept nor held for later, unless AF10 calls again", runtime
        )
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def open(self) -> None:
        """Begin anew."""
        self._is_closed = False
        self._begin()

    def hold(self, callback: Callback) -> None:
        """Keep it later."""
        if callback in self._held:
            return
        count = self._counts.get(callback.key, 0)
        if count >= MOST_OF_ONE:
            self._not_held.note(callback.key, f"{count} of this job are held already")
            return
        if len(self._held) >= MOST:
            self._not_held.note(callback.key, f"{MOST} are held already")
            return
        self._held[callback] = None
        self._counts[callback.key] = count + 1
        self._begin()

    def drop(self, callback: Callback) -> bool:
        """Hold it no longer; whether it was held."""
        if callback not in self._held:
            return False
        del self._held[callback]
        count = self._counts.pop(callback.key) - 1
        if count:
            self._counts[callback.key] = count
        return True

    def stop(self) -> None:
        """Begin no new attempt by itself."""
        self._is_closed = True

    async def close(self) -> None:
        """The last attempt; what cannot be kept now is lost, unless AF10 calls again."""
        self.stop()
        await to_its_end(self._end())

    async def _end(self) -> None:
        try:
            if self._task is not None:
                await ended(self._task)
            await self._keep()
        finally:
            for callback in self._held:
                logger.error("callback for job %s lost: the store could not keep it", callback.key)
            self._held.clear()
            self._counts.clear()

    def _begin(self) -> None:
        if self._held and self._task is None and not self._is_closed:
            self._task = asyncio.create_task(self._work_off(), name="af10_async backlog")

    async def _work_off(self) -> None:
        try:
            while self._held:
                await self._runtime.sleep(PAUSE)
                await self._keep()
        finally:
            self._task = None

    async def _keep(self) -> None:
        """Try to keep what is held; leave the rest when the store is still away."""
        for callback in list(self._held):
            try:
                transition = await self._record(callback)
            except Exception as error:
                name = type(error).__name__
                logger.debug("callback for job %s still held: %s", callback.key, name)
                if isinstance(error, StoreError) and not error.retryable:
                    continue  # it is this one's own trouble
                return
            if transition.effect is Effect.FULL:
                continue  # it stays until others were tried
            # One that is not held any more came again meanwhile, was kept then, and told.
            if self.drop(callback) or transition.effect is Effect.CHANGED:
                self._tell(callback, transition)
