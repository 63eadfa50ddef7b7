"""Work that blocks, in a thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

import anyio.to_thread

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread and wait for its end, also when cancelled.

    anyio's own shield does not hold against asyncio's cancellation, and what follows it here
    (closing a file, say) must not happen while the thread still works with it.
    """
    task = asyncio.create_task(anyio.to_thread.run_sync(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # the cancellation goes first
        raise
