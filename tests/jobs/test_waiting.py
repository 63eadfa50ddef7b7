"""Waiting and living are two different times: cancelling, running out, closing."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import threading
import time
from typing import Any

import pytest

from af10_async import (
    AF10Client,
    AF10Error,
    CallbackServer,
    CallbackTimeoutError,
    ClosedError,
    Job,
    JobInterruptedError,
    JobState,
    RemoteFile,
    RetryPolicy,
    StartTimeoutError,
)
from af10_async.sandbox import Fault, Sandbox

from ..conftest import ClientMaker, Tls

POST = ("POST", "/backup/owner")


# -- cancelling ------------------------------------------------------------------------------------


def own_tasks() -> set[str]:
    names = {task.get_name() for task in asyncio.all_tasks() if "af10_async" in task.get_name()}
    return names - {f"af10_async {each}" for each in ("accept", "certificate files", "handshake")}


PHASES = {
    "authenticating": Fault.hang(on="authenticate"),
    "starting": Fault.hang(on="start"),
    "waiting": Fault.never(),
    "redeeming": Fault.hang(on="redeem"),
}


async def reached(phase: str, sandbox: Sandbox) -> None:
    path = {"authenticating": "/authenticate", "starting": "/backup/owner"}.get(phase)
    path = path or ("/webhook" if phase == "redeeming" else "/backup/owner")
    while not any(request.path == path for request in sandbox.requests):
        await asyncio.sleep(0.001)
    if phase == "waiting":
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("phase", PHASES)
async def test_a_cancelled_waiter_leaves_the_job_alive_and_nothing_else(
    af10: AF10Client, sandbox: Sandbox, phase: str
) -> None:
    # A callback that overtakes the answer would prove the start; here nothing does.
    sandbox.faults.add(PHASES[phase])
    if phase == "starting":
        sandbox.faults.add(Fault.never())
    job = af10.backup_owner()
    waiter = asyncio.create_task(job)
    await reached(phase, sandbox)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert own_tasks() == set()
    if phase in ("starting", "waiting"):
        assert await sandbox.call_back(sandbox.jobs[0]) == 200
    file = await job
    assert await file.read() == sandbox.archive(sandbox.jobs[0])
    assert sandbox.count(*POST) == 1


async def test_a_waiter_can_be_cancelled_at_every_turn_of_the_loop(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    """However far it had come, the job ends well when it is awaited once more."""
    async with make_client() as af10:
        await af10.authenticate()
        for turns in range(0, 120, 3):
            job = af10.backup_owner()
            waiter = asyncio.create_task(job)
            for _ in range(turns):
                await asyncio.sleep(0)
            waiter.cancel()
            await asyncio.wait([waiter])
            assert own_tasks() == set()
            has_arrived = any(job.key in each.webhook_url for each in sandbox.jobs)
            if job.state is JobState.NEW or has_arrived:
                await job
        urls = [each.webhook_url for each in sandbox.jobs]
        assert len(urls) == len(set(urls)) == sandbox.count(*POST)


async def test_the_cancellation_of_one_waiter_does_not_hurt_the_others(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.slow(0.05, on="start"))
    job = af10.backup_owner()
    first, second = asyncio.create_task(job), asyncio.create_task(job)
    await reached("starting", sandbox)
    first.cancel()
    assert isinstance(await second, RemoteFile)
    assert first.cancelled()
    assert sandbox.count(*POST) == 1


async def test_a_waiter_that_comes_while_the_last_one_leaves_sends_nothing_again(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    await af10.authenticate()
    sandbox.faults.add(Fault.hang(on="start", times=None), Fault.never(times=None))
    for turns in range(8):
        job = af10.backup_owner(start_timeout=0.2, callback_timeout=0.05)
        first = asyncio.create_task(job)
        while len(sandbox.jobs) == turns:
            await asyncio.sleep(0.001)
        first.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        with pytest.raises(CallbackTimeoutError):
            await job
        assert sandbox.count(*POST) == turns + 1


async def test_a_cancel_together_with_the_callback_loses_neither(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.never(times=None))
    for _ in range(20):
        job = af10.backup_owner()
        waiter = asyncio.create_task(job)
        await job.start()
        called = asyncio.create_task(sandbox.call_back(sandbox.jobs[-1]))
        while job.state is JobState.ACCEPTED:
            await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert await called == 200
        await job


@pytest.mark.parametrize("how", ["wait_for", "timeout", "group"])
async def test_the_callers_own_timeouts_and_groups_end_the_wait_only(
    af10: AF10Client, sandbox: Sandbox, how: str
) -> None:
    sandbox.faults.add(Fault.never())
    job = await af10.backup_owner().start()
    match how:
        case "wait_for":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(job, 0.01)
        case "timeout":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await job
        case _:
            with pytest.raises(ExceptionGroup) as caught:
                async with asyncio.TaskGroup() as group:
                    group.create_task(job)
                    group.create_task(fails())
            assert caught.group_contains(ZeroDivisionError)
    assert own_tasks() == set()
    await sandbox.call_back(sandbox.jobs[0])
    await job


async def fails() -> None:
    raise ZeroDivisionError


async def test_a_job_cancelled_before_its_first_step_was_not_sent(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    task = asyncio.create_task(af10.backup_owner())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sandbox.requests == []


# -- running out of time ---------------------------------------------------------------------------


async def test_start_timeout_before_anything_was_sent_says_so(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.hang(on="authenticate"))
    async with make_client(start_timeout=0.05) as af10:
        job = af10.backup_owner()
        with pytest.raises(StartTimeoutError) as caught:
            await job
        assert caught.value.key == job.key
        assert caught.value.sent is False
        assert caught.value.retryable
        assert not caught.value.start_certain
        assert job.state is JobState.NEW
    assert sandbox.count(*POST) == 0


async def test_start_says_when_it_is_not_certain(af10: AF10Client, sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault.hang(on="start"), Fault.never())
    await af10.authenticate()
    job = af10.backup_owner(start_timeout=0.3)
    with pytest.raises(StartTimeoutError, match="it may have started") as caught:
        await job.start()
    assert caught.value.sent is True
    assert not caught.value.start_certain
    assert not caught.value.retryable
    assert await sandbox.call_back(sandbox.jobs[0]) == 200
    await job
    assert sandbox.count(*POST) == 1


async def test_awaiting_outlives_a_start_that_is_not_certain(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.hang(on="start"), Fault.never())
    await af10.authenticate()
    job = af10.backup_owner(start_timeout=0.3)
    waiter = asyncio.create_task(job)
    while not sandbox.jobs:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.35)
    assert not waiter.done()
    await sandbox.call_back(sandbox.jobs[0])
    await waiter
    assert sandbox.count(*POST) == 1


async def test_callback_timeout_says_whether_the_start_was_certain(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.never(times=None), Fault.reset_after(on="start"))
    for is_certain in (False, True):
        job = af10.backup_owner(callback_timeout=0.05)
        with pytest.raises(CallbackTimeoutError) as caught:
            await job
        assert caught.value.start_certain is is_certain
        assert caught.value.key == job.key
        assert isinstance(caught.value, TimeoutError)


async def test_callback_timeout_covers_redeeming(af10: AF10Client, sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault.hang(on="redeem"))
    job = af10.backup_owner(callback_timeout=0.2)
    with pytest.raises(CallbackTimeoutError, match="could not be redeemed") as caught:
        await job
    assert caught.value.step == "redeem"
    await job


async def test_callback_timeout_tells_of_refused_ids(af10: AF10Client, sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault.refused_secret(410))
    with pytest.raises(CallbackTimeoutError, match=r"refused 1 id"):
        await af10.backup_owner(callback_timeout=0.2)


async def test_a_loop_that_was_blocked_does_not_cause_a_false_timeout(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    """The callback stood at the door while somebody else held the loop."""
    sandbox.faults.add(Fault.never())
    job = await af10.backup_owner(callback_timeout=0.2).start()
    waiter = asyncio.create_task(job)
    await asyncio.sleep(0.01)
    called = asyncio.create_task(sandbox.call_back(sandbox.jobs[0]))
    await asyncio.sleep(0)
    time.sleep(0.5)  # this is what the test is about
    await waiter
    assert await called == 200


async def test_a_job_whose_life_is_over_expires(
    make_client: ClientMaker, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("af10_async.job_start.JOB_LIFETIME", 0.3)
    sandbox.faults.add(Fault.never())
    async with make_client(callback_timeout=math.inf) as af10:
        job = af10.backup_owner()
        with pytest.raises(AF10Error, match="life ended before AF10 called back"):
            await job
        assert job.state is JobState.EXPIRED
        assert await sandbox.call_back(sandbox.jobs[0]) == 200  # and yet it is not lost
        await af10.job(job.key)


# -- closing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", PHASES)
async def test_closing_the_client_tells_each_waiter_the_key(
    make_client: ClientMaker, sandbox: Sandbox, phase: str
) -> None:
    sandbox.faults.add(PHASES[phase])
    async with make_client() as af10:
        jobs = [af10.backup_owner()]
        waiters = [asyncio.create_task(jobs[0]) for _ in range(3)]
        listener = asyncio.create_task(listen(jobs[0]))
        await reached(phase, sandbox)
    outcomes = await asyncio.gather(*waiters, listener, return_exceptions=True)
    for outcome in outcomes:
        assert isinstance(outcome, JobInterruptedError)
        assert outcome.key == jobs[0].key


async def listen(job: Job[Any]) -> None:
    async for _ in job.events():
        pass


async def test_closing_a_shared_server_tells_those_who_wait(tls: Tls) -> None:
    async with Sandbox(callback_ca=tls.ca) as sandbox:
        sandbox.faults.add(Fault.never(times=None))
        server = CallbackServer(tls_cert=tls.cert, tls_key=tls.key)
        async with server:
            client = AF10Client(
                base_url=sandbox.base_url,
                api_key=sandbox.api_key,
                username=sandbox.username,
                password=sandbox.password,
                callback_server=server,
            )
            async with client as af10:
                job = await af10.backup_owner().start()
                waiter = asyncio.create_task(job)
                await asyncio.sleep(0)
                await server.__aexit__(None, None, None)
                with pytest.raises(JobInterruptedError, match="closed") as caught:
                    await waiter
                assert caught.value.key == job.key
                with pytest.raises((ClosedError, JobInterruptedError)):
                    await af10.backup_owner()


async def test_a_client_says_when_it_is_used_at_the_wrong_time(
    make_client: ClientMaker,
) -> None:
    client = make_client()
    with pytest.raises(ClosedError, match="enter the client first"):
        client.backup_owner()
    async with client:
        with pytest.raises(ClosedError, match="was entered before"):
            await client.__aenter__()
    for use in (client.backup_owner, lambda: client.job("x"), lambda: client.file("http://x/")):
        with pytest.raises(ClosedError, match="the client is closed"):
            use()
    with pytest.raises(ClosedError):
        await client.authenticate()
    with pytest.raises(ClosedError):
        await client.__aenter__()


async def test_authenticate_ends_when_the_client_closes(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.hang(on="authenticate"))
    async with make_client() as af10:
        waiter = asyncio.create_task(af10.authenticate())
        await reached("authenticating", sandbox)
    with pytest.raises(ClosedError):
        await waiter


async def test_results_outlive_the_client_but_nothing_more_is_fetched(
    make_client: ClientMaker,
) -> None:
    async with make_client() as af10:
        job = af10.backup_owner()
        file = await job
    assert await job is file
    with pytest.raises(ClosedError):
        await file.read()


async def test_a_client_may_be_left_in_another_task(make_client: ClientMaker) -> None:
    client = make_client()
    await asyncio.create_task(client.__aenter__())
    await client.backup_owner()
    await asyncio.create_task(client.__aexit__(None, None, None))


async def test_another_loop_or_thread_gets_a_clear_error(af10: AF10Client) -> None:
    errors: list[Exception] = []

    def elsewhere() -> None:
        for use in (af10.backup_owner, in_a_loop_of_its_own):
            try:
                use()
            except ClosedError as error:
                errors.append(error)

    def in_a_loop_of_its_own() -> None:
        asyncio.run(af10.authenticate())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert [str(error) for error in errors] == [
        "the client belongs to the event loop that entered it"
    ] * 2


async def test_a_job_and_a_file_of_another_loop_get_a_clear_error(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    """Nothing is sent, and the client is as good as before."""
    file = await af10.backup_owner()
    job = af10.backup_owner()
    posts = sandbox.count(*POST)

    async def wait() -> None:
        await job

    async def start() -> None:
        await job.start()

    async def read() -> None:
        await file.read()

    for use in (wait, start, read):
        with pytest.raises(ClosedError, match="event loop that entered it"):
            await asyncio.to_thread(asyncio.run, use())
    assert sandbox.count(*POST) == posts
    await job


async def test_nothing_is_started_while_the_client_closes(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    """Its callback would find nobody."""
    sandbox.faults.add(Fault.slow(0.05, on="authenticate"))
    client = make_client()
    await client.__aenter__()
    job = client.backup_owner()
    starting = asyncio.create_task(job.start())
    await reached("authenticating", sandbox)
    await client.__aexit__(None, None, None)
    with pytest.raises((ClosedError, JobInterruptedError)):
        await starting
    with pytest.raises((ClosedError, JobInterruptedError)):
        await job
    assert sandbox.count(*POST) == 0


async def test_a_server_that_closes_starts_nothing_more(tls: Tls) -> None:
    async with Sandbox(callback_ca=tls.ca) as sandbox:
        server = CallbackServer(tls_cert=tls.cert, tls_key=tls.key)
        async with server:
            client = AF10Client(
                base_url=sandbox.base_url,
                api_key=sandbox.api_key,
                username=sandbox.username,
                password=sandbox.password,
                callback_server=server,
            )
            async with client as af10:
                await af10.authenticate()
                job = af10.backup_owner()
                closing = asyncio.create_task(server.__aexit__(None, None, None))
                await asyncio.sleep(0)  # it has begun to close, and has told nobody yet
                with pytest.raises((ClosedError, JobInterruptedError)):
                    await job.start()
                await closing
        assert sandbox.count(*POST) == 0


async def test_a_key_may_bring_a_download_timeout_of_its_own(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    job = af10.backup_owner()
    await job
    sandbox.faults.add(Fault.stall(1000))
    file = await af10.job(job.key, download_timeout=0.05)
    with pytest.raises(TimeoutError, match=r"0\.05 s"):
        await file.read()


async def test_closing_outside_a_loop_is_harmless(af10: AF10Client) -> None:
    job = af10.backup_owner()
    await asyncio.to_thread(job.close)
    await job


async def test_a_forked_process_gets_a_clear_error(
    af10: AF10Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(ClosedError, match="belongs to the process"):
        af10.backup_owner()


async def test_a_dropped_job_is_forgotten_by_the_server(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    """Nobody claims it any more, so its callback is told as an orphan."""
    orphans: list[object] = []
    sandbox.faults.add(Fault.never())
    async with make_client(on_orphan=orphans.append) as af10:
        job = await af10.backup_owner().start()
        del job
        gc.collect()
        await sandbox.call_back(sandbox.jobs[0])
        await asyncio.sleep(0)
        assert len(orphans) == 1


async def test_the_pauses_of_a_policy_are_slept_with_the_given_sleep(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    from af10_async.runtime import Runtime

    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    sandbox.faults.add(Fault.rate_limited("7", on="start"), Fault.rate_limited("1", on="start"))
    runtime = Runtime(sleep=sleep, chance=lambda: 0.0)
    async with make_client(runtime=runtime, retries=RetryPolicy(first_pause=2)) as af10:
        await af10.backup_owner()
    assert slept == [7.0, 2.0]
