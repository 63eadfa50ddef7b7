"""Every wait ends: by a result, a deadline, a cancel, or the close."""

from __future__ import annotations

import asyncio
import math

import pytest

from af10_async.errors import RequestTimeoutError
from af10_async.waits import Interrupted, OutOfTime, Waits

NEVER = asyncio.Event


async def forever(waits: Waits, seconds: float = math.inf) -> None:
    async with waits.limit(seconds):
        await NEVER().wait()


async def test_a_block_that_is_quick_enough_is_left_alone() -> None:
    waits = Waits()
    for seconds in (math.inf, 60.0):
        async with waits.limit(seconds):
            await asyncio.sleep(0)
    await waits.close()


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.01])
async def test_a_block_that_takes_too_long_is_out_of_time(seconds: float) -> None:
    with pytest.raises(OutOfTime):
        await forever(Waits(), seconds)


async def test_interrupting_ends_every_wait_and_lets_no_new_one_begin() -> None:
    waits = Waits()
    tasks = [asyncio.create_task(forever(waits, seconds)) for seconds in (math.inf, 60.0, 60.0)]
    await asyncio.sleep(0)
    assert not waits.is_closed

    waits.interrupt()
    found = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(each) for each in found] == [Interrupted] * 3
    assert waits.is_closed
    with pytest.raises(Interrupted):
        await forever(waits)


async def test_interrupting_twice_is_no_different() -> None:
    waits = Waits()
    task = asyncio.create_task(forever(waits))
    await asyncio.sleep(0)
    waits.interrupt()
    waits.interrupt()
    await waits.close()
    with pytest.raises(Interrupted):
        await task


async def test_a_timeout_error_of_the_blocks_own_passes_as_it_is() -> None:
    for error in (TimeoutError("theirs"), RequestTimeoutError("AF10's")):
        with pytest.raises(TimeoutError) as caught:
            async with Waits().limit(60.0):
                raise error
        assert caught.value is error


async def test_a_timeout_of_the_block_inside_is_not_taken_for_ours() -> None:
    with pytest.raises(TimeoutError):
        async with Waits().limit(60.0), asyncio.timeout(0):
            await NEVER().wait()


async def test_a_named_timeout_error_passes_even_when_the_time_is_over() -> None:
    with pytest.raises(RequestTimeoutError):
        async with Waits().limit(0.0):
            try:
                await NEVER().wait()
            except asyncio.CancelledError:
                raise RequestTimeoutError("on the way out") from None


async def test_a_timeout_around_the_wait_is_the_callers_own() -> None:
    waits = Waits()
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0):
            await forever(waits, 60.0)
    assert not isinstance(caught.value, OutOfTime)
    await waits.close()


async def test_other_errors_and_results_pass() -> None:
    with pytest.raises(LookupError):
        async with Waits().limit(60.0):
            raise LookupError


async def test_cancelling_one_waiter_does_not_hurt_the_others() -> None:
    waits = Waits()
    first, second = (asyncio.create_task(forever(waits)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert not second.done()
    await waits.close()
    with pytest.raises(Interrupted):
        await second


async def test_a_block_that_ends_in_the_tick_of_the_interruption_keeps_its_result() -> None:
    waits = Waits()
    async with waits.limit(60.0):
        waits.interrupt()


async def test_close_waits_until_all_have_left() -> None:
    waits = Waits()
    may_leave = asyncio.Event()

    async def slow_to_leave() -> None:
        async with waits.limit(math.inf):
            try:
                await NEVER().wait()
            finally:
                await may_leave.wait()

    tasks = [asyncio.create_task(slow_to_leave()), asyncio.create_task(forever(waits))]
    await asyncio.sleep(0)
    closing = asyncio.create_task(waits.close())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not closing.done()
    may_leave.set()
    await closing
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in found] == [Interrupted] * 2


async def test_two_may_close_at_the_same_time_and_one_of_them_may_give_up() -> None:
    waits = Waits()
    may_leave = asyncio.Event()

    async def slow_to_leave() -> None:
        async with waits.limit(math.inf):
            try:
                await NEVER().wait()
            finally:
                await may_leave.wait()

    task = asyncio.create_task(slow_to_leave())
    await asyncio.sleep(0)
    one, two, three = (asyncio.create_task(waits.close()) for _ in range(3))
    await asyncio.sleep(0)
    two.cancel()
    await asyncio.wait([two])
    may_leave.set()
    async with asyncio.timeout(1):
        await asyncio.gather(one, three)
    assert two.cancelled()
    with pytest.raises(Interrupted):
        await task


async def test_closing_when_nobody_waits_returns_at_once() -> None:
    waits = Waits()
    await waits.close()
    await waits.close()
