"""How long ngrok may take."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from ..runtime import Runtime
from ..shelter import all_ended

T = TypeVar("T")


async def within(seconds: float, work: Coroutine[Any, Any, T], runtime: Runtime) -> T:
    """The result of `work`; it is cancelled, and `TimeoutError` raised, when it takes longer."""

    async def time_out() -> None:
        await runtime.sleep(seconds)

    task, timer = asyncio.create_task(work), asyncio.create_task(time_out())
    try:
        await asyncio.wait([task, timer], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        await all_ended([task, timer])
