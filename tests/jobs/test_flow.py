"""The main job, as a user runs it."""

from __future__ import annotations

import asyncio
import gc
import zipfile
from pathlib import Path

import pytest

from af10_async import AF10Client, Job, JobEvent, JobState, RemoteFile
from af10_async.sandbox import Fault, Sandbox

POST = ("POST", "/backup/owner")


async def test_a_backup_is_a_whole_zip_on_disk(
    af10: AF10Client, sandbox: Sandbox, tmp_path: Path
) -> None:
    backup = await af10.backup_owner()
    saved = await backup.save(tmp_path)
    assert saved.path.parent == tmp_path
    assert saved.path.read_bytes() == sandbox.archive(sandbox.jobs[0])
    assert saved.sha256 == sandbox.archive_sha256(sandbox.jobs[0])
    assert saved.size == saved.path.stat().st_size
    assert zipfile.ZipFile(saved).testzip() is None
    assert [path.name for path in tmp_path.iterdir()] == [saved.path.name]


async def test_nothing_is_sent_before_the_job_is_awaited(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    job = af10.backup_owner()
    states = [job.state]
    await asyncio.sleep(0)
    assert sandbox.requests == []
    await job
    assert [*states, job.state] == [JobState.NEW, JobState.READY]


async def test_a_job_that_was_never_awaited_says_so(af10: AF10Client) -> None:
    job = af10.backup_owner()
    with pytest.warns(RuntimeWarning, match=r"POST /backup/owner.* was never awaited"):
        del job
    gc.collect()


async def test_many_may_await_one_job_and_get_the_same_file(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    job = af10.backup_owner()

    async def wait() -> RemoteFile:
        return await job

    files = await asyncio.gather(*(wait() for _ in range(20)), job)
    assert len(set(map(id, files))) == 1
    assert await job is files[0]
    assert sandbox.count(*POST) == 1
    assert sandbox.count("GET", "/webhook") == 1


async def test_start_returns_once_af10_has_accepted(af10: AF10Client, sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault.never())
    job = af10.backup_owner()
    assert await job.start() is job
    assert job.state is JobState.ACCEPTED
    await job.start()
    assert sandbox.count(*POST) == 1


async def test_a_started_job_sees_its_callback_although_nobody_waits(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    job = await af10.backup_owner().start()
    await sandbox.settled()
    assert job.state is JobState.CALLED_BACK
    await job


async def test_events_tell_each_step_once_and_drive_the_job(af10: AF10Client) -> None:
    job = af10.backup_owner()
    events = [event async for event in job.events()]
    assert [event.state for event in events] == [
        JobState.REGISTERED,
        JobState.ACCEPTED,
        JobState.CALLED_BACK,
        JobState.READY,
    ]
    assert {event.key for event in events} == {job.key}
    assert [event async for event in job.events()] == events


async def test_events_beside_a_waiter_tell_the_same(af10: AF10Client, sandbox: Sandbox) -> None:
    job = af10.backup_owner()

    async def listen() -> list[JobEvent]:
        return [event async for event in job.events()]

    async with asyncio.TaskGroup() as group:
        listeners = [group.create_task(listen()) for _ in range(3)]
        file = group.create_task(job)
    assert len({tuple(each.result()) for each in listeners}) == 1
    assert isinstance(file.result(), RemoteFile)
    assert sandbox.count(*POST) == 1


async def test_leaving_the_events_early_leaves_nothing_behind(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.never())
    job = af10.backup_owner()
    events = job.events()
    first = await anext(events)
    assert first.state is JobState.REGISTERED
    await events.aclose()


async def test_a_key_picks_the_job_up_again(af10: AF10Client, sandbox: Sandbox) -> None:
    job = await af10.backup_owner().start()
    again: Job[RemoteFile] = af10.job(job.key)
    assert await again is await job
    assert sandbox.count(*POST) == 1


@pytest.mark.parametrize("how", ["gather", "wait_for", "timeout", "TaskGroup", "create_task"])
async def test_a_job_goes_wherever_a_coroutine_goes(af10: AF10Client, how: str) -> None:
    job = af10.backup_owner()
    match how:
        case "gather":
            (file,) = await asyncio.gather(job)
        case "wait_for":
            file = await asyncio.wait_for(job, 10)
        case "timeout":
            async with asyncio.timeout(10):
                file = await job
        case "TaskGroup":
            async with asyncio.TaskGroup() as group:
                task = group.create_task(job)
            file = task.result()
        case _:
            file = await asyncio.create_task(job)
    assert isinstance(file, RemoteFile)


async def test_two_tasks_of_one_job_are_two_waits(af10: AF10Client, sandbox: Sandbox) -> None:
    job = af10.backup_owner()
    first, second = asyncio.create_task(job), asyncio.create_task(job)
    assert await first is await second
    assert sandbox.count(*POST) == 1


async def test_a_direct_answer_needs_no_callback(
    af10: AF10Client, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.faults.add(Fault.direct())
    saved = await (await af10.backup_owner()).save(tmp_path)
    assert zipfile.ZipFile(saved).testzip() is None
    assert sandbox.count("GET", "/webhook") == 0


async def test_many_jobs_at_once_all_complete(af10: AF10Client, sandbox: Sandbox) -> None:
    files = await asyncio.gather(*(af10.backup_owner() for _ in range(150)))
    assert len({file.url for file in files}) == 150
    assert sandbox.count(*POST) == 150
    assert sandbox.count("GET", "/authenticate") == 1
