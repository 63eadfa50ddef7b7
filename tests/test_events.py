"""Events: what is told, in which order, and that telling harms nobody."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from af10_async import (
    AF10Error,
    CallbackServer,
    ConfigurationError,
    ConnectFailedError,
    DownloadRefusedError,
    JobState,
    NetworkError,
    NotFoundError,
    ServerError,
    StartTimeoutError,
)
from af10_async.events import (
    CallbackReceived,
    CallBegan,
    CallEnded,
    CallRetried,
    DownloadBegan,
    DownloadEnded,
    Event,
    JobEnded,
    JobEvent,
    StartBegan,
    StartEnded,
    TokenRenewed,
)
from af10_async.sandbox import Fault, Sandbox

from .conftest import ClientMaker, Tls
from .ports import free_port


class Told:
    """A handler that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def of(self, *kinds: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]


@pytest.fixture
def told() -> Told:
    return Told()


async def test_a_job_is_told_from_its_start_to_its_file(
    make_client: ClientMaker, told: Told, tmp_path: Path
) -> None:
    async with make_client(on_event=told, name="amsterdam") as af10:
        await af10.authenticate()
        told.events.clear()
        job = af10.backup_owner()
        await job.start()
        await (await job).save(tmp_path)
    names = [type(event).__name__ for event in told.events]
    steps = [event.state for event in told.of(JobEvent)]
    assert names[0] == "StartBegan"
    assert steps[0] is JobState.REGISTERED
    assert steps[-2:] == [JobState.CALLED_BACK, JobState.READY]
    assert names.index("CallBegan") > names.index("JobEvent"), "registered, then sent"
    assert names.index("CallbackReceived") < names.index("JobEnded") < names.index("DownloadBegan")
    assert names[-1] == "DownloadEnded"
    (ended,) = told.of(JobEnded)
    assert (ended.key, ended.state, ended.path) == (job.key, JobState.READY, "/backup/owner")
    assert ended.seconds >= 0
    (start,) = told.of(StartEnded)
    assert (start.sent, start.error) == (True, None)
    (download,) = told.of(DownloadEnded)
    assert (download.size, download.attempts, download.error) == (64 * 1024, 1, None)
    of_jobs = told.of(StartBegan, JobEvent, JobEnded, DownloadBegan, CallBegan)
    assert {event.account for event in of_jobs} == {"amsterdam"}
    assert {event.key for event in told.of(JobEvent, CallbackReceived, DownloadBegan)} == {job.key}


async def test_what_begins_ends_with_the_same_id(make_client: ClientMaker, told: Told) -> None:
    async with make_client(on_event=told) as af10:
        await asyncio.gather(*(af10.get(f"/vehicle/{number}") for number in range(1, 30)))
        await (await af10.backup_owner()).read()
    for began, ended in (
        (CallBegan, CallEnded),
        (StartBegan, StartEnded),
        (DownloadBegan, DownloadEnded),
    ):
        ids = [event.id for event in told.of(began)]
        assert len(ids) == len(set(ids)) > 0
        assert sorted(ids) == sorted(event.id for event in told.of(ended))


async def test_repetitions_are_told_with_what_they_are_for(
    make_client: ClientMaker, sandbox: Sandbox, told: Told
) -> None:
    sandbox.faults.add(Fault.status(500, on="vehicle"), Fault.reset_before(on="vehicle"))
    async with make_client(on_event=told) as af10:
        await af10.authenticate()
        told.events.clear()
        await af10.get("/vehicle/1")
    assert [event.attempt for event in told.of(CallBegan)] == [1, 2, 3]
    assert [event.status for event in told.of(CallEnded)] == [500, None, 200]
    first, second = told.of(CallRetried)
    assert (first.attempt, type(first.error)) == (1, ServerError)
    assert (second.attempt, second.error.method, second.error.path) == (2, "GET", "/vehicle/1")
    assert first.pause > 0


async def test_a_token_that_is_renewed_is_told(
    make_client: ClientMaker, sandbox: Sandbox, told: Told
) -> None:
    async with make_client(on_event=told) as af10:
        await af10.get("/vehicle/1")
        await af10.get("/vehicle/1")
        assert len(told.of(TokenRenewed)) == 1
        sandbox.expire_tokens()
        await af10.get("/vehicle/1")
    assert len(told.of(TokenRenewed)) == 2


async def test_a_job_that_af10_refuses_ends_once(
    make_client: ClientMaker, sandbox: Sandbox, told: Told
) -> None:
    sandbox.faults.add(Fault.status(400, {"errorCode": 400, "errorMessage": "No"}, on="start"))
    async with make_client(on_event=told) as af10:
        with pytest.raises(AF10Error):
            await af10.backup_owner()
    (ended,) = told.of(JobEnded)
    assert ended.state is JobState.FAILED
    (start,) = told.of(StartEnded)
    assert start.error.status == 400


async def test_a_start_whose_outcome_is_not_known_says_so(
    make_client: ClientMaker, sandbox: Sandbox, told: Told
) -> None:
    sandbox.faults.add(Fault.reset_after(on="start"), Fault.never())
    async with make_client(on_event=told) as af10:
        await af10.authenticate()
        with pytest.raises(StartTimeoutError):
            await af10.backup_owner(start_timeout=0.5).start()
    (start,) = told.of(StartEnded)
    assert start.sent is not False
    assert isinstance(start.error, NetworkError)


async def test_a_download_that_fails_is_told_with_its_error(
    make_client: ClientMaker, sandbox: Sandbox, told: Told, tmp_path: Path
) -> None:
    sandbox.faults.add(Fault.status(404, on="file", times=None))
    async with make_client(on_event=told) as af10:
        file = await af10.backup_owner()
        with pytest.raises(DownloadRefusedError):
            await file.save(tmp_path)
        with pytest.raises(DownloadRefusedError):
            await file.read()
    first, second = told.of(DownloadEnded)
    assert {type(first.error), type(second.error)} == {DownloadRefusedError}
    assert (first.size, second.size) == (None, None)


async def test_whoever_leaves_a_download_early_has_neither_size_nor_error(
    make_client: ClientMaker, told: Told
) -> None:
    async with make_client(on_event=told) as af10:
        chunks = aiter(await af10.backup_owner())
        await anext(chunks)
        await chunks.aclose()
    (ended,) = told.of(DownloadEnded)
    assert (ended.size, ended.error) == (None, None)


async def test_no_answer_at_all_is_told_as_the_error(make_client: ClientMaker, told: Told) -> None:
    url = f"http://127.0.0.1:{free_port()}/v2"
    async with make_client(base_url=url, on_event=told, retries=0) as af10:
        with pytest.raises(ConnectFailedError):
            await af10.authenticate()
    (ended,) = told.of(CallEnded)
    assert (ended.status, ended.path) == (None, "/authenticate")
    assert isinstance(ended.error, ConnectFailedError)
    assert ended.host == url.removeprefix("http://").removesuffix("/v2")


async def test_a_handler_that_fails_is_logged_and_harms_nobody(
    make_client: ClientMaker, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: Event) -> None:
        raise ZeroDivisionError

    async with make_client(on_event=[broken, told]) as af10:
        assert len(await (await af10.backup_owner()).read()) == 64 * 1024
    assert told.of(JobEnded)
    assert "on_event failed for a JobEnded" in caplog.text
    assert all(each.levelno == logging.ERROR for each in caplog.records if "on_event" in each.msg)


async def test_a_tracer_that_fails_is_logged_and_the_job_has_no_trace(
    make_client: ClientMaker, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def __call__(self, event: Event) -> None:
            pass

        def trace_of(self, start: StartBegan) -> str | None:
            raise ZeroDivisionError

    async with make_client(on_event=[Broken(), told]) as af10:
        await af10.backup_owner()
    assert {event.trace for event in told.of(JobEvent)} == {None}
    assert "on_event gave no trace" in caplog.text


async def test_the_trace_of_a_tracer_goes_with_the_job_wherever_it_is_taken_up(
    make_client: ClientMaker, told: Told, tmp_path: Path
) -> None:
    class Tracer(Told):
        def trace_of(self, start: StartBegan) -> str | None:
            return f"trace of {start.key}"

    tracer = Tracer()
    store = {"store": f"sqlite:{tmp_path / 'jobs.db'}", "callback_secret": "the same in both"}
    async with make_client(on_event=tracer, **store) as af10:
        job = af10.backup_owner()
        await job
    async with make_client(on_event=told, **store) as af10:
        await (await af10.job(job.key)).read()
    trace = f"trace of {job.key}"
    assert {event.trace for event in tracer.of(JobEvent, CallbackReceived, JobEnded)} == {trace}
    calls = [event for event in tracer.of(CallBegan) if event.path == "/webhook"]
    assert {event.trace for event in calls} == {trace}
    assert {event.trace for event in told.of(JobEvent, DownloadBegan)} == {trace}
    assert not told.of(JobEnded), "another has told it"


async def test_a_shared_server_tells_of_callbacks_to_its_own_handler(
    make_client: ClientMaker, tls: Tls, told: Told
) -> None:
    async with CallbackServer(tls_cert=tls.cert, tls_key=tls.key, on_event=told) as server:
        shared = {"callback_server": server, "tls_cert": None, "tls_key": None}
        async with make_client(**shared) as af10:
            job = af10.backup_owner()
            await job
    (event,) = told.events
    assert isinstance(event, CallbackReceived)
    assert (event.key, event.is_orphan) == (job.key, False)


async def test_no_event_holds_anything_secret(
    make_client: ClientMaker, sandbox: Sandbox, told: Told, tmp_path: Path
) -> None:
    sandbox.faults.add(Fault.echo(on="vehicle"), Fault.forged_first(), Fault.truncated(10))
    async with make_client(on_event=told) as af10:
        with pytest.raises(AF10Error):
            await af10.get("/vehicle/1", params={"search": "canary"})
        with pytest.raises(NotFoundError):
            await af10.vehicle(10**9)
        await (await af10.backup_owner()).save(tmp_path)
    text = repr(told.events)
    secrets = [sandbox.api_key, sandbox.password, sandbox.username, "canary", "/files/"]
    secrets += [job.secret for job in sandbox.jobs]
    secrets += [each.headers["token"] for each in sandbox.requests if "token" in each.headers]
    assert not [secret for secret in secrets if secret in text]


async def test_a_handler_that_would_have_to_be_awaited_is_refused(
    make_client: ClientMaker,
) -> None:
    async def handler(event: Event) -> None:
        pass

    class Handler:
        async def __call__(self, event: Event) -> None:
            pass

    for each in (handler, Handler()):
        with pytest.raises(ConfigurationError, match="on_event must be a plain function"):
            make_client(on_event=each)


async def test_a_download_that_is_given_up_tells_how_often_it_was_tried(
    make_client: ClientMaker, sandbox: Sandbox, told: Told, tmp_path: Path
) -> None:
    sandbox.faults.add(Fault.status(503, on="file", times=None))
    async with make_client(on_event=told) as af10:
        file = await af10.backup_owner()
        for fetch in (file.save(tmp_path), file.read()):
            with pytest.raises(DownloadRefusedError):
                await fetch
    assert [event.attempts for event in told.of(DownloadEnded)] == [4, 4]
