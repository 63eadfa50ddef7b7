"""One run of a coroutine for however many ask."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from af10_async.errors import ClosedError, ConnectFailedError
from af10_async.single_flight import SingleFlight


class Work:
    """A run that ends when it is told to, and knows what became of it."""

    def __init__(self) -> None:
        self.started = self.ended = self.cancelled = 0
        self.may_end = asyncio.Event()
        self.may_clean_up = asyncio.Event()
        self.may_clean_up.set()
        self.error: Exception | None = None
        self.flight = SingleFlight(self._run, "a test's run")

    async def _run(self) -> int:
        self.started += 1
        number = self.started
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            await self.may_clean_up.wait()
            self.cancelled += 1
            raise
        finally:
            self.ended += 1
        if self.error is not None:
            raise self.error
        return number

    def join(self, times: int) -> list[asyncio.Task[int]]:
        return [asyncio.create_task(self.flight.join()) for _ in range(times)]


@pytest.fixture
async def work() -> AsyncIterator[Work]:
    """Nothing of it is running at the end, and asyncio has nothing to complain of."""
    complaints: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    found = Work()
    yield found
    await turns()
    assert found.started == found.ended
    gc.collect()
    await turns()
    assert complaints == []


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def cancel(task: asyncio.Task[int]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_however_many_ask_there_is_one_run_and_its_result_is_everybodys(work: Work) -> None:
    tasks = work.join(1000)
    await turns()
    work.may_end.set()
    assert set(await asyncio.gather(*tasks)) == {1}
    assert work.started == 1


async def test_who_asks_when_it_is_over_gets_a_new_run(work: Work) -> None:
    work.may_end.set()
    assert [await work.flight.join() for _ in range(3)] == [1, 2, 3]


async def test_the_cancellation_of_one_does_not_hurt_the_others(work: Work) -> None:
    first, *others = work.join(3)
    await turns()
    await cancel(first)
    assert work.cancelled == 0
    work.may_end.set()
    assert await asyncio.gather(*others) == [1, 1]


async def test_a_timeout_around_one_caller_is_its_own_affair(work: Work) -> None:
    (other,) = work.join(1)
    await turns()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await work.flight.join()
    work.may_end.set()
    assert await other == 1


async def test_the_last_one_who_leaves_ends_the_run_and_awaits_its_end(work: Work) -> None:
    first, last = work.join(2)
    await turns()
    work.may_clean_up.clear()
    await cancel(first)
    last.cancel()
    await turns()
    assert not last.done()
    work.may_clean_up.set()
    with pytest.raises(asyncio.CancelledError):
        await last
    assert work.cancelled == 1


async def test_whoever_comes_while_a_run_is_ending_waits_for_a_new_one(work: Work) -> None:
    (first,) = work.join(1)
    await turns()
    work.may_clean_up.clear()
    first.cancel()
    await turns()
    late = work.join(2)
    await turns()
    assert work.started == 1
    work.may_end.set()
    work.may_clean_up.set()
    assert await asyncio.gather(*late) == [2, 2]
    assert work.started == 2
    assert first.cancelled()


async def test_aborting_gives_everybody_a_closed_error(work: Work) -> None:
    tasks = work.join(3)
    await turns()
    await work.flight.abort()
    assert work.cancelled == 1
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in found] == [ClosedError] * 3


async def test_aborting_when_nothing_runs_does_nothing(work: Work) -> None:
    await work.flight.abort()
    work.may_end.set()
    assert await work.flight.join() == 1
    await work.flight.abort()


async def test_a_failing_run_gives_each_caller_a_copy_of_its_error(work: Work) -> None:
    cause = OSError("refused")
    work.error = ConnectFailedError("no connection", sent=False, step="authenticate")
    work.error.__cause__ = cause
    work.may_end.set()
    found = await asyncio.gather(*work.join(3), return_exceptions=True)

    errors = [each for each in found if isinstance(each, ConnectFailedError)]
    assert len({id(each) for each in errors} | {id(work.error)}) == 4
    assert {each.step for each in errors} == {"authenticate"}
    assert {id(each.__cause__) for each in errors} == {id(cause)}


async def test_errors_of_others_pass_as_they_are(work: Work) -> None:
    work.error = ZeroDivisionError()
    work.may_end.set()
    for task in work.join(2):
        with pytest.raises(ZeroDivisionError):
            await task


async def test_after_a_failure_the_next_one_tries_again(work: Work) -> None:
    work.error = ConnectFailedError("no connection")
    work.may_end.set()
    with pytest.raises(ConnectFailedError):
        await work.flight.join()
    work.error = None
    assert await work.flight.join() == 2


async def test_a_failure_that_nobody_saw_is_not_complained_of(work: Work) -> None:
    """The only caller is cancelled in the very tick in which the run fails."""
    work.error = ConnectFailedError("no connection")
    (task,) = work.join(1)
    await turns()
    work.may_end.set()
    await asyncio.sleep(0)
    await cancel(task)
    del task


async def test_a_result_and_a_cancel_in_the_same_tick_leave_the_flight_usable(work: Work) -> None:
    for early in range(4):
        work.may_end.clear()
        (task,) = work.join(1)
        await turns()
        work.may_end.set()
        for _ in range(early):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert await work.flight.join() == work.started


async def test_a_caller_that_is_cancelled_twice_leaves_at_once_and_the_run_ends_by_itself(
    work: Work,
) -> None:
    (task,) = work.join(1)
    await turns()
    work.may_clean_up.clear()
    task.cancel()
    await turns()
    task.cancel()
    await turns()
    assert task.cancelled()
    assert work.ended == 0
    work.may_clean_up.set()
    work.may_end.set()
    assert await work.flight.join() == 2


async def test_a_run_that_loses_a_cancellation_is_cancelled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some library below may swallow one; the caller still leaves."""
    monkeypatch.setattr("af10_async.single_flight._PATIENCE", 0.01)
    lost = 0

    async def run() -> None:
        nonlocal lost
        while lost < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
        await asyncio.Event().wait()

    flight = SingleFlight(run, "stubborn")
    waiter = asyncio.create_task(flight.join())
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert lost == 2
