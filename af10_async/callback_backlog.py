"""Callbacks that the store could not keep when they came, held until it can."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from .errors import StoreError
from .protocol.callbacks import Callback
from .protocol.lifecycle import Effect, Transition
from .runtime import Runtime

logger = logging.getLogger("af10_async.callback_server")

MOST = 10_000
"""Most callbacks that are held."""
PAUSE = 2.0
"""Seconds between two attempts to keep them."""


class Backlog:
    """Tries again to keep what was answered 503: whether AF10 comes back is not known.

    Args:
        record: Puts a callback into the store, in reasonable time, or raises.
        tell: Called with what came of one that was kept.
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
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def open(self) -> None:
        """Begin anew."""
        self._is_closed = False

    def hold(self, callback: Callback) -> None:
        """Keep it later."""
        if len(self._held) >= MOST:
            return
        self._held[callback] = None
        if self._task is None and not self._is_closed:
            self._task = asyncio.create_task(self._work_off(), name="af10_async backlog")

    def stop(self) -> None:
        """Begin no new attempt by itself."""
        self._is_closed = True

    async def close(self) -> None:
        """The last attempt; what cannot be kept now is lost, unless AF10 calls again."""
        self.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._keep()
        for callback in self._held:
            logger.error("callback for job %s lost: the store could not keep it", callback.key)
        self._held.clear()

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
            self._held.pop(callback, None)
            self._tell(callback, transition)
