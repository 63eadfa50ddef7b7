"""Crew: tasks that work side by side, and end together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Crew:
    """A few tasks of one caller; when one of them fails, the others are cancelled.

    asyncio.TaskGroup does nearly that. But its errors come as groups, it does not say that the
    caller was cancelled while the others were ending, and before Python 3.12 it miscounts
    cancellations, which misleads the timeouts around it.
    """

    def __init__(self, weigh: Callable[[BaseException], int]) -> None:
        self._weigh = weigh
        self._tasks: set[asyncio.Task[None]] = set()
        self._change = asyncio.Event()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let somebody begin, also while `finish` waits."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._change.set())
        return task

    async def finish(self) -> None:
        """Wait until all are done. Of several errors the one that weighs most is raised."""
        try:
            while self._tasks:
                self._change.clear()
                done = {task for task in self._tasks if task.done()}
                self._tasks -= done
                _raise_most_telling(done, self._weigh)
                if self._tasks and not done:
                    await self._change.wait()
        finally:
            await self._end()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        is_cancelled = False
        while left := [task for task in self._tasks if not task.done()]:
            try:
                await asyncio.wait(left)
            except asyncio.CancelledError:
                is_cancelled = True
        for task in self._tasks:
            if not task.cancelled():
                task.exception()  # what they say on their way out is no news
        self._tasks.clear()
        if is_cancelled:
            raise asyncio.CancelledError


def _raise_most_telling(
    done: set[asyncio.Task[None]], weigh: Callable[[BaseException], int]
) -> None:
    errors = [error for task in done if not task.cancelled() and (error := task.exception())]
    if errors:
        raise max(errors, key=weigh)
