"""Tasks that work side by side end together, and nobody's cancellation is lost."""

from __future__ import annotations

import asyncio
import time

import pytest

from af10_async.crew import Crew
from af10_async.shelter import in_scope, in_thread, to_its_end


def crew() -> Crew:
    return Crew(lambda error: isinstance(error, OSError))


async def fail(error: Exception) -> None:
    raise error


async def test_a_crew_is_done_when_all_are_those_who_came_later_too() -> None:
    done: list[str] = []
    found = crew()

    async def work(name: str) -> None:
        await asyncio.sleep(0)
        done.append(name)

    async def first() -> None:
        await work("first")
        found.start(work("second"))

    found.start(first())
    await found.finish()
    assert done == ["first", "second"]


async def test_one_who_fails_ends_the_others_and_the_weightiest_error_is_told() -> None:
    found = crew()
    other = found.start(asyncio.sleep(60))
    found.start(fail(ValueError()))
    found.start(fail(OSError()))
    with pytest.raises(OSError):
        await found.finish()
    assert other.cancelled()


async def test_a_cancellation_while_the_others_end_is_not_lost() -> None:
    """And the count of cancellations is right afterwards: timeouts rely on it."""
    found = crew()
    ending, may_end = asyncio.Event(), asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ending.set()
            await may_end.wait()

    async def caller() -> None:
        found.start(slow_to_end())
        await asyncio.sleep(0)
        found.start(fail(ValueError()))
        await found.finish()

    task = asyncio.create_task(caller())
    await ending.wait()
    task.cancel()
    await asyncio.sleep(0)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == 1


async def test_an_error_leaves_no_cancellation_behind() -> None:
    found = crew()
    found.start(asyncio.sleep(60))
    found.start(fail(ValueError()))
    with pytest.raises(ValueError):
        await found.finish()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_work_in_a_thread_is_waited_for_also_when_cancelled() -> None:
    done: list[int] = []

    def work() -> None:
        time.sleep(0.05)
        done.append(1)

    task = asyncio.create_task(in_thread(work))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [1]


async def test_what_ends_soon_does_so_although_its_caller_is_cancelled() -> None:
    may_end = asyncio.Event()
    done: list[int] = []

    async def work() -> None:
        await may_end.wait()
        done.append(1)

    task = asyncio.create_task(to_its_end(work()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [1]


async def test_a_result_that_nobody_gets_any_more_is_dropped_properly() -> None:
    dropped: list[str] = []

    async def work() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "a connection"
        return "never"

    async def drop(found: str) -> None:
        dropped.append(found)

    task = asyncio.create_task(in_scope(work(), drop))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert dropped == ["a connection"]
    assert await in_scope(asyncio.sleep(0, "result"), drop) == "result"
