"""What has to come to its end, whoever is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread and wait for its end, also when cancelled.

    anyio's own shield does not hold against asyncio's cancellation, and what follows it here
    (closing a file, say) must not happen while the thread still works with it. It is no task, so
    the end of `asyncio.run` does not cancel it either.
    """
    return await through(asyncio.get_running_loop().run_in_executor(None, work))


async def through(future: asyncio.Future[T]) -> T:
    """The result of `future`, which is not cancelled with us; our cancellation waits for it."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # the cancellation goes first
        raise


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Let `work`, which ends soon by itself, do so, also when we are cancelled."""
    return await through(asyncio.create_task(work))


async def ended(task: asyncio.Task[Any]) -> None:
    """Cancel a task, and wait for its end, also when we are cancelled; nobody wants its result."""
    await all_ended([task])


async def all_ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """The same for several, which end side by side."""
    for task in tasks:
        task.cancel()
    is_cancelled = False
    while left := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(left)
        except asyncio.CancelledError:
            is_cancelled = True
    for task in tasks:
        if not task.cancelled():
            task.exception()
    if is_cancelled:
        raise asyncio.CancelledError


async def in_scope(
    work: Coroutine[Any, Any, T], drop: Callable[[T], Coroutine[Any, Any, None]]
) -> T:
    """Run what shields its cleaning up by anyio's means, which only anyio's cancelling respects.

    When we are cancelled, it is cancelled in that way, and waited for. A result that nobody gets
    any more is given to `drop`.
    """
    scope = anyio.CancelScope()

    async def run() -> list[T]:
        with scope:
            return [await work]
        return []

    task = asyncio.create_task(run())
    try:
        (found,) = await asyncio.shield(task)
    except asyncio.CancelledError:
        scope.cancel()
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None and task.result():
            await to_its_end(drop(task.result()[0]))
        raise
    return found
