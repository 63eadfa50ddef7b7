"""One run of a coroutine for however many ask for what it gives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .errors import AF10Error, ClosedError

T = TypeVar("T")

_PATIENCE = 1.0
"""Seconds that a run has to end before it is cancelled once more."""


@dataclass(slots=True, eq=False)
class _Run(Generic[T]):
    task: asyncio.Task[T]
    passengers: int = 0
    is_ending: bool = False


class SingleFlight(Generic[T]):
    """Runs `run` once at a time, in a task of its own, and shares its outcome.

    The cancellation of one caller does not hurt the others. When the last caller has left, the run
    is cancelled and its end awaited, so that nothing goes on that nobody waits for.
    """

    def __init__(self, run: Callable[[], Coroutine[Any, Any, T]], name: str) -> None:
        self._start = run
        self._name = name
        self._run: _Run[T] | None = None

    async def join(self) -> T:
        """The outcome of the run under way, or of a new one."""
        while self._run is not None and self._run.is_ending:
            await asyncio.wait([self._run.task])
        run = self._run or self._take_off()
        run.passengers += 1
        try:
            await asyncio.wait([run.task])
        finally:
            run.passengers -= 1
            if not run.passengers and not run.task.done():
                await _end(run)
        return _outcome(run.task)

    async def abort(self) -> None:
        """End the run; whoever waits for it gets a `ClosedError`."""
        if self._run is not None:
            await _end(self._run)

    def _take_off(self) -> _Run[T]:
        task = asyncio.create_task(self._start(), name=self._name)
        task.add_done_callback(self._landed)
        self._run = _Run(task)
        return self._run

    def _landed(self, task: asyncio.Task[T]) -> None:
        self._run = None
        if not task.cancelled():
            task.exception()  # asyncio would complain of it when every caller left at this moment


async def _end(run: _Run[Any]) -> None:
    run.is_ending = True
    while not run.task.done():
        # More than once if need be: a library below may lose a cancellation, or wait while it
        # cleans up, and nobody must hang for that.
        run.task.cancel()
        await asyncio.wait([run.task], timeout=_PATIENCE)


def _outcome(task: asyncio.Task[T]) -> T:
    if task.cancelled():
        raise ClosedError("the client was closed meanwhile")
    error = task.exception()
    if isinstance(error, AF10Error):
        raise error.fresh() from error.__cause__
    return task.result()
