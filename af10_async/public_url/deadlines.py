"""How long something may take, by the clock of a `Runtime`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from ..runtime import Runtime
from ..shelter import all_ended, ended

T = TypeVar("T")


async def within(seconds: float, work: Coroutine[Any, Any, T], runtime: Runtime) -> T:
    """The result of `work`; it is cancelled, and `TimeoutError` raised, when it takes longer."""
    task = asyncio.create_task(work)
    try:
        if not await done_within(task, seconds, runtime):
            raise TimeoutError
        return task.result()
    finally:
        await all_ended([task])


async def done_within(future: asyncio.Future[Any], seconds: float, runtime: Runtime) -> bool:
    """Wait for `future`, but no longer than that; it is not cancelled. Whether it is done."""
    clock = asyncio.create_task(_pass(seconds, runtime))
    try:
        await asyncio.wait([future, clock], return_when=asyncio.FIRST_COMPLETED)
    finally:
        await ended(clock)
    return future.done()


async def _pass(seconds: float, runtime: Runtime) -> None:
    await runtime.sleep(seconds)
