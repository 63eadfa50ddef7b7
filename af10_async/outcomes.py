"""Outcomes: the same work for many accounts, so many at a time, and what came of each."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, TypeVar

from .errors import AF10Error
from .shelter import all_ended

__all__ = ["Outcome", "Turns", "outcomes_of"]

T = TypeVar("T")

CONCURRENCY = 16
"""How many accounts are worked on at a time."""
PATIENCE = 300.0
"""Seconds after which an account that is still not done no longer keeps others waiting."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What came of one account: a result or an error."""

    account: str
    """Its name."""
    seconds: float
    """From its turn to its end."""
    error: Exception | None = None
    """Mostly an `AF10Error`; None when it went well."""
    _result: T | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """Whether it went well."""
        return self.error is None

    @property
    def result(self) -> T:
        """The result.

        Raises:
            Exception: the error, when it did not go well.

        """
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]  # without an error there is one


async def outcomes_of(
    names: Sequence[str],
    work: Callable[[str], Awaitable[T]],
    *,
    concurrency: int,
    patience: float,
) -> AsyncGenerator[Outcome[T], None]:
    """Do the work for each name; the outcomes as they come.

    Leaving the loop early cancels what is under way, and waits for its end.
    """
    turns = Turns(concurrency, patience)
    outcomes: asyncio.Queue[Outcome[T]] = asyncio.Queue()

    async def one(name: str) -> None:
        async with turns.turn():
            outcomes.put_nowait(await _outcome(name, work))

    tasks = [asyncio.create_task(one(name), name=f"af10_async {name}") for name in names]
    for name, task in zip(names, tasks, strict=True):
        task.add_done_callback(functools.partial(_tell_cancelled, outcomes, name))
    try:
        for _ in names:
            yield await outcomes.get()
    finally:
        await all_ended(tasks)


async def _outcome(name: str, work: Callable[[str], Awaitable[T]]) -> Outcome[T]:
    started = time.monotonic()
    try:
        result = await work(name)
    except Exception as error:  # whatever it is, the others go on
        return Outcome(name, time.monotonic() - started, error)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        inner = AF10Error("what was done for it was cancelled from within")
        return Outcome(name, time.monotonic() - started, inner)
    return Outcome(name, time.monotonic() - started, None, result)


def _tell_cancelled(
    outcomes: asyncio.Queue[Outcome[Any]], name: str, task: asyncio.Task[None]
) -> None:
    """One whose work cancelled its own task has an outcome, too."""
    if task.cancelled():
        outcomes.put_nowait(Outcome(name, 0.0, AF10Error("what was done for it was cancelled")))


class Turns:
    """So many at a time, except for those who take too long."""

    def __init__(self, many: int, patience: float) -> None:
        self._slots = asyncio.Semaphore(many)
        self._patience = patience

    def turn(self) -> _Turn:
        """A block of which so many may run at a time."""
        return _Turn(self._slots, self._patience)


class _Turn:
    def __init__(self, slots: asyncio.Semaphore, patience: float) -> None:
        self._slots = slots
        self._patience = patience
        self._timer: asyncio.TimerHandle | None = None
        self._is_held = False

    async def take(self) -> None:
        """Wait for it."""
        await self._slots.acquire()
        self._is_held = True
        if self._patience < float("inf"):
            self._timer = asyncio.get_running_loop().call_later(self._patience, self._release)

    def give_back(self, _: object = None) -> None:
        """Leave it to the next; also as what is called when a task is done."""
        if self._timer is not None:
            self._timer.cancel()
        self._release()

    def _release(self) -> None:
        if self._is_held:
            self._is_held = False
            self._slots.release()

    async def __aenter__(self) -> None:
        await self.take()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.give_back()
