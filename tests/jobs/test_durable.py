"""Nothing is lost: jobs outlive waits, clients, processes and, with a ticket, even their store."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from af10_async import (
    AF10Client,
    CallbackServer,
    CallbackTimeoutError,
    ConfigurationError,
    DownloadError,
    DownloadTimeoutError,
    Job,
    JobError,
    JobExpiredError,
    JobInterruptedError,
    JobNotFoundError,
    JobState,
    Orphan,
    RemoteFile,
    StartTimeoutError,
    StoreError,
)
from af10_async.protocol.lifecycle import Collected, Event, FileOnDisk, JobRecord, Transition
from af10_async.runtime import Runtime
from af10_async.sandbox import Account, Fault, Sandbox
from af10_async.stores import MemoryStore, Store

from ..conftest import ClientMaker, Tls
from ..ports import free_port
from ..stores.urls import SHARED_URLS

POST = ("POST", "/backup/owner")
SECRET = "the same on every replica"


@pytest.fixture(params=sorted(SHARED_URLS))
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store that processes can share."""
    return SHARED_URLS[request.param](tmp_path)


@pytest.fixture
def port() -> int:
    """One that client after client can listen on, as a service does that restarts."""
    return free_port()


async def keys_of(client: AF10Client) -> set[str]:
    return {job.key async for job in client.unfinished()}


async def some(jobs: AsyncIterator[Job[Any]]) -> list[Job[Any]]:
    return [job async for job in jobs]


# -- by its key, over a store that outlives the client ---------------------------------------------


async def test_a_job_is_taken_up_by_its_key_after_its_client_has_gone(
    make_client: ClientMaker, sandbox: Sandbox, store_url: str, port: int
) -> None:
    sandbox.faults.add(Fault.never())
    async with make_client(store=store_url, listen_port=port) as before:
        job = before.backup_owner(callback_timeout=0.05)
        with pytest.raises(CallbackTimeoutError):
            await job
    async with make_client(store=store_url, listen_port=port) as after:
        again = after.job(job.key)
        waiter = asyncio.create_task(again)
        assert await sandbox.call_back(sandbox.jobs[0]) == 200
        file = await waiter
        assert await file.read() == sandbox.archive(sandbox.jobs[0])
        assert again.state is JobState.READY
    assert sandbox.count(*POST) == 1


async def test_a_callback_that_comes_while_nobody_lives_is_there_when_somebody_does(
    make_client: ClientMaker, sandbox: Sandbox, store_url: str, port: int
) -> None:
    sandbox.faults.add(Fault.never())
    async with make_client(store=store_url, listen_port=port) as before:
        job = await before.backup_owner().start()
    async with make_client(store=store_url, listen_port=port):
        assert await sandbox.call_back(sandbox.jobs[0]) == 200
    async with make_client(store=store_url, listen_port=port) as after:
        file = await after.job(job.key)
        assert await file.read() == sandbox.archive(sandbox.jobs[0])


async def test_a_job_whose_start_is_uncertain_is_settled_by_its_callback_after_a_restart(
    make_client: ClientMaker, sandbox: Sandbox, store_url: str, port: int
) -> None:
    """And never posted again; without a callback the error says that nobody knows."""
    sandbox.faults.add(Fault.hang(on="start"), Fault.never())
    async with make_client(store=store_url, listen_port=port) as before:
        await before.authenticate()
        job = before.backup_owner(start_timeout=0.5)
        with pytest.raises(StartTimeoutError) as caught:
            await job.start()
        assert caught.value.sent is True
    async with make_client(store=store_url, listen_port=port) as after:
        with pytest.raises(CallbackTimeoutError, match="started is uncertain") as late:
            await after.job(job.key, callback_timeout=0.05)
        assert late.value.start_certain is False
        waiter = asyncio.create_task(after.job(job.key))
        assert await sandbox.call_back(sandbox.jobs[0]) == 200
        assert isinstance(await waiter, RemoteFile)
    assert sandbox.count(*POST) == 1


async def test_the_callback_lands_at_one_replica_and_wakes_the_waiter_at_another(
    make_client: ClientMaker, sandbox: Sandbox, store_url: str
) -> None:
    sandbox.faults.add(Fault.never())
    async with make_client(store=store_url) as here, make_client(store=store_url) as there:
        job = here.backup_owner()
        waiter = asyncio.create_task(job)
        while not sandbox.jobs:
            await asyncio.sleep(0.005)
        sandbox.jobs[0].webhook_url = f"{there.callback_url}/af10/{job.key}"
        assert await sandbox.call_back(sandbox.jobs[0]) == 200
        assert isinstance(await waiter, RemoteFile)


async def test_a_job_that_many_clients_await_gives_each_its_result(
    make_client: ClientMaker, sandbox: Sandbox, store_url: str
) -> None:
    async with make_client(store=store_url) as here, make_client(store=store_url) as there:
        job = await here.backup_owner().start()
        files = await asyncio.gather(job, there.job(job.key), there.job(job.key))
        assert all(isinstance(file, RemoteFile) for file in files)


async def test_a_job_knows_its_account_and_refuses_the_client_of_another(
    make_client: ClientMaker, tls: Tls, store_url: str
) -> None:
    accounts = (Account("key-1", "one", "secret-1"), Account("key-2", "two", "secret-2"))
    async with Sandbox(accounts=accounts, callback_ca=tls.ca) as sandbox:
        of = [
            {
                "base_url": sandbox.base_url,
                "api_key": each.api_key,
                "username": each.username,
                "password": each.password,
                "store": store_url,
            }
            for each in accounts
        ]
        async with make_client(**of[0]) as one, make_client(**of[1]) as two:
            job = await one.backup_owner().start()
            for name in (job.key, job.ticket):
                with pytest.raises(JobNotFoundError):
                    await two.job(name)
            await job
            assert await keys_of(two) == set()


# -- what is unfinished ----------------------------------------------------------------------------


async def test_unfinished_gives_each_job_that_nobody_works_on_to_one_that_asks(
    make_client: ClientMaker, sandbox: Sandbox, store_url: str, port: int
) -> None:
    sandbox.faults.add(Fault.never(times=None))
    async with make_client(store=store_url, listen_port=port) as before:
        jobs = [await before.backup_owner().start() for _ in range(6)]
        assert await keys_of(before) == set()  # all of them are worked on
    async with (
        make_client(store=store_url, listen_port=port) as one,
        make_client(store=store_url) as two,
    ):
        found = await asyncio.gather(*(some(client.unfinished()) for client in (one, two)))
        keys = [job.key for jobs in found for job in jobs]
        assert sorted(keys) == sorted(job.key for job in jobs)
        assert await keys_of(one) == await keys_of(two) == set()

        waiters = [asyncio.create_task(job) for jobs in found for job in jobs]
        for each in sandbox.jobs:
            assert await sandbox.call_back(each) == 200
        for file in await asyncio.gather(*waiters):
            await file.read()
        assert await keys_of(one) == await keys_of(two) == set()


async def test_a_job_that_is_waited_for_no_longer_is_given_to_who_asks(
    make_client: ClientMaker, sandbox: Sandbox, store_url: str
) -> None:
    sandbox.faults.add(Fault.never())
    async with make_client(store=store_url) as here, make_client(store=store_url) as there:
        job = here.backup_owner()
        waiter = asyncio.create_task(job)
        while job.state is not JobState.ACCEPTED:
            await asyncio.sleep(0.005)
        assert await keys_of(there) == set()
        waiter.cancel()
        with suppress(asyncio.CancelledError):
            await waiter
        assert await eventually(there) == {job.key}


async def test_a_file_is_unfinished_business_until_it_is_saved(
    make_client: ClientMaker, sandbox: Sandbox, store_url: str, tmp_path: Path
) -> None:
    async with make_client(store=store_url) as before:
        await before.backup_owner()
    async with make_client(store=store_url) as after:
        (job,) = await some(after.unfinished())
        saved = await (await job).save(tmp_path / "backups/")
        assert saved.path.read_bytes() == sandbox.archive(sandbox.jobs[0])
        del job
        assert await keys_of(after) == set()
    async with make_client(store=store_url) as later:
        assert await keys_of(later) == set()


async def read(file: RemoteFile, folder: Path) -> None:
    await file.read()


async def iterate(file: RemoteFile, folder: Path) -> None:
    async for _ in file:
        pass


async def save(file: RemoteFile, folder: Path) -> None:
    await file.save(folder)


@pytest.mark.parametrize("way", [read, iterate, save])
async def test_a_file_is_collected_in_whichever_way_it_is_fetched_whole(
    make_client: ClientMaker, way: Callable[[RemoteFile, Path], Any], tmp_path: Path
) -> None:
    async with make_client() as af10:
        job = af10.backup_owner()
        file = await job
        assert job._work.live.known.uncollected
        await way(file, tmp_path)
        assert not job._work.live.known.uncollected


async def test_a_file_that_was_cut_is_not_collected(
    make_client: ClientMaker, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.faults.add(Fault.truncated(times=None))
    async with make_client() as af10:
        job = af10.backup_owner()
        file = await job
        with pytest.raises(Exception, match="did not arrive whole"):
            await file.save(tmp_path)
        assert job._work.live.known.uncollected


async def eventually(client: AF10Client) -> set[str]:
    """What is unfinished, when that is something: leases end without being waited for."""
    for _ in range(200):
        found = await keys_of(client)
        if found:
            return found
        await asyncio.sleep(0.01)
    return set()


async def test_a_job_is_given_away_once_also_to_those_who_list_slowly(
    make_client: ClientMaker, sandbox: Sandbox, store_url: str, tmp_path: Path
) -> None:
    """A page that was read early names jobs that others have finished meanwhile."""
    async with make_client(store=store_url) as before:
        await asyncio.gather(*(before.backup_owner() for _ in range(4)))

    async def work(client: AF10Client) -> int:
        count = 0
        async for job in client.unfinished():
            await (await job).save(f"{tmp_path}/out/")
            count += 1
        return count

    async with make_client(store=store_url) as one, make_client(store=store_url) as two:
        counts = await asyncio.gather(work(one), work(two))
    assert sum(counts) == 4
    assert len(list((tmp_path / "out").iterdir())) == 4


async def test_a_job_that_is_waited_for_once_more_is_leased_once_more(
    make_client: ClientMaker, sandbox: Sandbox, store_url: str
) -> None:
    sandbox.faults.add(Fault.never())
    async with make_client(store=store_url) as here, make_client(store=store_url) as there:
        job = here.backup_owner(callback_timeout=0.05)
        with pytest.raises(CallbackTimeoutError):
            await job
        waiter = asyncio.create_task(here.job(job.key))
        await asyncio.sleep(0.1)
        assert await keys_of(there) == await keys_of(here) == set()
        assert await sandbox.call_back(sandbox.jobs[0]) == 200
        await waiter


async def test_an_unfinished_job_says_what_the_store_knows_of_it(
    make_client: ClientMaker, sandbox: Sandbox, store_url: str
) -> None:
    sandbox.faults.add(Fault.never())
    async with make_client(store=store_url) as before:
        ticket = (await before.backup_owner().start()).ticket
    async with make_client(store=store_url) as after:
        (job,) = await some(after.unfinished())
        assert (job.state, job.ticket) == (JobState.ACCEPTED, ticket)
        with pytest.raises(JobError, match="only the key"):
            after.job("a" * 48).ticket  # noqa: B018 - it raises


async def test_a_save_that_failed_leaves_the_job_to_others(
    make_client: ClientMaker, sandbox: Sandbox, store_url: str, tmp_path: Path
) -> None:
    sandbox.faults.add(Fault.status(503, on="file", times=8))
    async with make_client(store=store_url) as here, make_client(store=store_url) as there:
        job = here.backup_owner()
        file = await job
        with pytest.raises(DownloadError) as caught:
            await file.save(tmp_path)
        assert await eventually(there) == {job.key}
        assert caught.value.key == job.key  # though everything that failed is still there


@pytest.mark.parametrize("kind", ["memory", *sorted(SHARED_URLS)])
async def test_closing_tells_those_who_wait_and_only_then_closes_the_store(
    make_client: ClientMaker, sandbox: Sandbox, tmp_path: Path, kind: str
) -> None:
    sandbox.faults.add(Fault.never(times=None))
    url = "memory:" if kind == "memory" else SHARED_URLS[kind](tmp_path)
    async with make_client(store=url) as af10:
        waiters = [asyncio.create_task(af10.backup_owner()) for _ in range(5)]
        while len(sandbox.jobs) < 5:
            await asyncio.sleep(0.005)
    for outcome in await asyncio.gather(*waiters, return_exceptions=True):
        assert isinstance(outcome, JobInterruptedError)


# -- a file that was saved by somebody who died before it was noted --------------------------------


async def test_a_file_that_is_there_already_is_not_saved_twice(
    make_client: ClientMaker, sandbox: Sandbox, store_url: str, tmp_path: Path
) -> None:
    async with make_client(store=store_url) as before:
        server = receiver_of(before)
        server.store = Forgetful(server.store, Collected)
        rebuilt = replace(before.open_parts().services, store=server.store)
        before._parts = replace(before.open_parts(), services=rebuilt)
        first = await (await before.backup_owner()).save(tmp_path)
    count = len([each for each in sandbox.requests if each.path.startswith("/files/")])
    async with make_client(store=store_url) as after:
        (job,) = await some(after.unfinished())
        second = await (await job).save(tmp_path)
        assert (second.path, second.sha256) == (first.path, first.sha256)
        assert await keys_of(after) == set()
    assert [each.name for each in tmp_path.iterdir() if each.suffix == ".zip"] == [first.path.name]
    again = len([each for each in sandbox.requests if each.path.startswith("/files/")])
    assert again == count


@pytest.mark.parametrize("change", ["gone", "changed", "elsewhere"])
async def test_a_file_that_is_not_there_any_more_is_fetched_again(
    make_client: ClientMaker, sandbox: Sandbox, tmp_path: Path, change: str
) -> None:
    async with make_client() as af10:
        job = af10.backup_owner()
        file = await job
        (tmp_path / "old").mkdir()
        there = tmp_path / "old" / "backup.zip"
        there.write_bytes(b"half")
        if change == "gone":
            there.unlink()
        noted = FileOnDisk(str(there), 4 if change == "elsewhere" else 5, "0" * 64)
        await job._work.file_complete(noted)
        saved = await file.save(tmp_path / ("new" if change == "elsewhere" else "old") / "x.zip")
        assert saved.path.read_bytes() == sandbox.archive(sandbox.jobs[0])


class Forgetful:
    """A store that drops some events, as if its process had died before they were sent."""

    def __init__(self, store: Store, *kinds: type[Event]) -> None:
        self._store = store
        self._kinds = kinds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def apply(self, key: str, event: Event) -> Transition | None:
        if isinstance(event, self._kinds):
            return None
        return await self._store.apply(key, event)


def receiver_of(client: AF10Client) -> CallbackServer:
    receiver = client.open_parts().services.receiver
    assert isinstance(receiver, CallbackServer)
    return receiver


async def test_a_job_whose_time_is_over_expires_also_where_the_store_has_forgotten_it(
    make_client: ClientMaker, sandbox: Sandbox, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Valkey forgets a record at the end of its time; nobody may put it back for ever."""
    monkeypatch.setattr("af10_async.job_start.JOB_LIFETIME", 0.3)
    sandbox.faults.add(Fault.never())
    async with make_client(store=store_url, callback_timeout=math.inf) as af10:
        job = af10.backup_owner()
        with pytest.raises(JobExpiredError, match="life ended before AF10 called back"):
            await job
        assert job.state is JobState.EXPIRED


# -- by its ticket, where the store does not know it -----------------------------------------------


@pytest.mark.parametrize("order", ["ticket first", "callback first"])
async def test_a_ticket_restores_a_job_that_the_store_has_forgotten(
    make_client: ClientMaker, sandbox: Sandbox, port: int, order: str
) -> None:
    """A memory store restarted: the genuine callback waits as an orphan for its ticket."""
    sandbox.faults.add(Fault.never())
    orphans: list[Orphan] = []
    async with make_client(listen_port=port, callback_secret=SECRET) as before:
        job = await before.backup_owner().start()
        ticket = job.ticket
    arguments = {"listen_port": port, "callback_secret": SECRET, "on_orphan": orphans.append}
    async with make_client(**arguments) as after:
        if order == "callback first":
            assert await sandbox.call_back(sandbox.jobs[0]) == 200
            await asyncio.sleep(0)
            assert orphans == [Orphan(job.key, None)]
        waiter = asyncio.create_task(after.job(ticket))
        if order == "ticket first":
            while not await keys_in_store(after):
                await asyncio.sleep(0.001)
            assert await sandbox.call_back(sandbox.jobs[0]) == 200
        file = await waiter
        assert await file.read() == sandbox.archive(sandbox.jobs[0])
        assert after.job(job.key).state is JobState.READY
    assert sandbox.count(*POST) == 1


async def keys_in_store(client: AF10Client) -> set[str]:
    store = client.open_parts().services.store
    return {record.key async for record in store.records()}


async def test_a_ticket_leads_to_what_the_store_knows_when_it_knows_the_job(
    make_client: ClientMaker, sandbox: Sandbox, store_url: str
) -> None:
    async with make_client(store=store_url) as before:
        job = before.backup_owner()
        early = job.ticket
        await job
    async with make_client(store=store_url) as after:
        for ticket in (early, job.ticket):
            assert isinstance(await after.job(ticket), RemoteFile)


async def test_a_ticket_without_any_hope_says_why(
    make_client: ClientMaker, sandbox: Sandbox, port: int
) -> None:
    sandbox.faults.add(Fault.never())
    async with make_client(listen_port=port, callback_secret=SECRET) as before:
        job = await before.backup_owner().start()
        ticket = job.ticket
    async with make_client(listen_port=port, callback_secret="another secret here") as after:
        with pytest.raises(JobNotFoundError, match="AF10_CALLBACK_SECRET"):
            await after.job(ticket)
        assert await keys_in_store(after) == set()
    async with make_client(tls_cert=None, tls_key=None) as deaf:
        with pytest.raises(JobNotFoundError, match="nothing here receives"):
            await deaf.job(ticket)
        head, key, account, flags, _, *rest = ticket.split(".")
        old = ".".join((head, key, account, flags, "1", *rest))
        with pytest.raises(JobExpiredError, match="too old"):
            await deaf.job(old)


async def test_a_ticket_of_a_newer_release_is_refused_with_a_clear_error(
    af10: AF10Client,
) -> None:
    with pytest.raises(ConfigurationError, match=r"version 2.*upgrade"):
        af10.job("af10-2.a field.that this release does not know")
    with pytest.raises(ConfigurationError, match="damaged"):
        af10.job("af10-1.half of it")


async def test_every_timeout_and_interruption_carries_the_ticket(
    make_client: ClientMaker, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.faults.add(Fault.never(times=2), Fault.hang(on="start", skip=1), Fault.hang(on="file"))
    async with make_client() as af10:
        await af10.authenticate()
        waiting = af10.backup_owner(callback_timeout=0.05)
        with pytest.raises(CallbackTimeoutError) as no_callback:
            await waiting
        starting = af10.backup_owner(start_timeout=0.1)
        with pytest.raises(StartTimeoutError) as no_start:
            await starting.start()
        loading = af10.backup_owner(download_timeout=0.1)
        file = await loading
        with pytest.raises(DownloadTimeoutError) as no_file:
            await file.save(tmp_path)
        left = asyncio.create_task(af10.job(waiting.key))
        await asyncio.sleep(0.01)
    with pytest.raises(JobInterruptedError) as interrupted:
        await left
    for job, caught in (
        (waiting, no_callback),
        (starting, no_start),
        (loading, no_file),
        (waiting, interrupted),
    ):
        assert caught.value.ticket is not None
        assert caught.value.ticket.startswith(f"af10-1.{job.key}.")
        for secret in (sandbox.api_key, sandbox.username, sandbox.password):
            assert secret not in caught.value.ticket


# -- receiver here, worker there -------------------------------------------------------------------


@asynccontextmanager
async def receiving(tls: Tls, store_url: str) -> AsyncIterator[CallbackServer]:
    async with CallbackServer(tls_cert=tls.cert, tls_key=tls.key, store=store_url) as server:
        yield server


async def test_a_worker_waits_for_what_a_receiver_elsewhere_is_told(
    make_client: ClientMaker, sandbox: Sandbox, tls: Tls, store_url: str, tmp_path: Path
) -> None:
    async with receiving(tls, store_url) as receiver:
        worker = make_client(
            tls_cert=None, tls_key=None, public_url=receiver.public_url, store=store_url
        )
        async with worker as af10:
            assert af10.callback_url == receiver.public_url
            saved = await (await af10.backup_owner()).save(tmp_path)
            assert saved.path.read_bytes() == sandbox.archive(sandbox.jobs[0])
    assert [call.status for call in sandbox.jobs[0].callbacks] == [200]


async def test_a_worker_without_a_receiver_is_told_what_may_be_missing(
    make_client: ClientMaker, sandbox: Sandbox, store_url: str
) -> None:
    sandbox.faults.add(Fault.never())
    url = "https://127.0.0.1:9"
    async with make_client(tls_cert=None, tls_key=None, public_url=url, store=store_url) as af10:
        with pytest.raises(CallbackTimeoutError, match="is `af10 receive` running"):
            await af10.backup_owner(callback_timeout=0.05)


# -- a store that fails ----------------------------------------------------------------------------


class Failing(MemoryStore):
    """Cannot be reached as long as a test says so; says so for calls of one kind, or of all."""

    def __init__(self) -> None:
        super().__init__()
        self.is_down = False
        self.only: set[str] = set()
        self.failures = 0
        self.never = ""
        """The key of a record that cannot be read."""

    def _check(self, name: str) -> None:
        if self.is_down and (not self.only or name in self.only):
            self.failures += 1
            raise StoreError("the store cannot be reached", retryable=True)

    async def add(self, record: JobRecord) -> None:
        self._check("add")
        await super().add(record)

    async def get(self, key: str) -> JobRecord | None:
        self._check("get")
        return await super().get(key)

    async def apply(self, key: str, event: Event) -> Transition | None:
        self._check("apply")
        if key == self.never:
            raise StoreError("a job was stored by a newer release")
        return await super().apply(key, event)

    async def add_orphan(self, record: JobRecord) -> Transition:
        self._check("add_orphan")
        return await super().add_orphan(record)

    async def changed(self, key: str, version: int) -> JobRecord | None:
        self._check("changed")
        return await super().changed(key, version)


@pytest.fixture
async def failing(make_client: ClientMaker, tls: Tls) -> AsyncIterator[tuple[Failing, AF10Client]]:
    store = Failing()
    async with CallbackServer(tls_cert=tls.cert, tls_key=tls.key, store=store) as server:
        client = make_client(tls_cert=None, tls_key=None, callback_server=server)
        async with client as af10:
            yield store, af10


async def test_nothing_is_sent_when_the_job_cannot_be_registered(
    failing: tuple[Failing, AF10Client], sandbox: Sandbox
) -> None:
    store, af10 = failing
    store.is_down = True
    job = af10.backup_owner()
    with pytest.raises(StoreError, match="cannot be reached") as caught:
        await job
    assert caught.value.sent is False
    assert caught.value.retryable
    assert sandbox.count(*POST) == 0
    assert store.failures > 1  # it was asked again
    store.is_down = False
    assert isinstance(await job, RemoteFile)  # and can simply be awaited again
    assert sandbox.count(*POST) == 1


@pytest.mark.parametrize("only", ["apply", "changed", "get", "all"])
async def test_a_waiter_outlasts_a_store_that_is_away_for_a_while(
    failing: tuple[Failing, AF10Client], sandbox: Sandbox, only: str
) -> None:
    store, af10 = failing
    sandbox.faults.add(Fault.never())
    job = await af10.backup_owner().start()
    store.only = set() if only == "all" else {only}
    store.is_down = True
    waiter = asyncio.create_task(af10.job(job.key))
    called = asyncio.create_task(sandbox.call_back(sandbox.jobs[0]))
    await asyncio.sleep(0.05)
    store.is_down = False
    await called
    if called.result() != 200:  # as AF10 may, or may not, do
        assert await sandbox.call_back(sandbox.jobs[0]) == 200
    assert isinstance(await waiter, RemoteFile)


async def test_a_callback_that_the_store_cannot_keep_is_answered_503_and_kept_later(
    failing: tuple[Failing, AF10Client], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AF10 probably calls once, so it is not left to AF10 to come back."""
    monkeypatch.setattr("af10_async.callback_backlog.PAUSE", 0.02)
    store, af10 = failing
    sandbox.faults.add(Fault.never())
    job = await af10.backup_owner().start()
    waiter = asyncio.create_task(job)
    store.only, store.is_down = {"apply"}, True
    assert await sandbox.call_back(sandbox.jobs[0]) == 503
    await asyncio.sleep(0.05)
    assert not waiter.done()
    store.is_down = False
    assert isinstance(await waiter, RemoteFile)


async def test_a_callback_that_is_held_is_kept_at_the_latest_when_the_server_closes(
    make_client: ClientMaker, sandbox: Sandbox, tls: Tls
) -> None:
    store = Failing()
    sandbox.faults.add(Fault.never())
    server = CallbackServer(tls_cert=tls.cert, tls_key=tls.key, store=store)
    client = make_client(tls_cert=None, tls_key=None, callback_server=server)
    async with server, client as af10:
        job = await af10.backup_owner().start()
        store.is_down = True
        assert await sandbox.call_back(sandbox.jobs[0]) == 503
        store.is_down = False
    record = await store.get(job.key)
    assert record is not None
    assert record.secrets == (sandbox.jobs[0].secret,)


async def test_a_callback_that_can_never_be_kept_does_not_hold_up_the_others(
    failing: tuple[Failing, AF10Client], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("af10_async.callback_backlog.PAUSE", 0.02)
    store, af10 = failing
    sandbox.faults.add(Fault.never(times=2))
    odd, good = [await af10.backup_owner().start() for _ in range(2)]
    store.only, store.is_down = {"apply"}, True
    for job in sandbox.jobs:
        assert await sandbox.call_back(job) == 503
    store.never = odd.key
    store.is_down = False
    assert isinstance(await good, RemoteFile)
    store.never = ""
    assert isinstance(await odd, RemoteFile)


# -- a store that forgets --------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["everything", "the newest"])
async def test_what_the_store_loses_during_a_wait_is_put_back(
    make_client: ClientMaker, sandbox: Sandbox, what: str
) -> None:
    sandbox.faults.add(Fault.never())
    async with make_client() as af10:
        job = await af10.backup_owner().start()
        waiter = asyncio.create_task(job)
        await asyncio.sleep(0)
        store = receiver_of(af10).store
        assert isinstance(store, MemoryStore)
        record = store._records.pop(job.key)
        if what == "the newest":
            store._records[job.key] = replace(
                record, version=0, state=JobState.REGISTERED, start_certain=False
            )
        store._waiters.wake(job.key)
        await asyncio.sleep(0.01)
        assert job.key in store._records
        assert await sandbox.call_back(sandbox.jobs[0]) == 200
        assert isinstance(await waiter, RemoteFile)
    assert sandbox.count(*POST) == 1


async def test_a_secret_that_the_store_lost_is_put_back_by_who_knows_it(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.never(), Fault.status(503, on="redeem", times=3))
    async with make_client() as af10:
        job = await af10.backup_owner().start()
        store = receiver_of(af10).store
        assert isinstance(store, MemoryStore)
        before = store._records[job.key]
        waiter = asyncio.create_task(job)
        await asyncio.sleep(0)
        assert await sandbox.call_back(sandbox.jobs[0]) == 200
        store._records[job.key] = before
        store._waiters.wake(job.key)
        assert isinstance(await waiter, RemoteFile)


async def test_an_orphan_in_the_place_of_a_lost_job_becomes_the_job_again(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.never())
    async with make_client() as af10:
        job = await af10.backup_owner().start()
        waiter = asyncio.create_task(job)
        await asyncio.sleep(0)
        store = receiver_of(af10).store
        assert isinstance(store, MemoryStore)
        del store._records[job.key]  # and nobody is told
        assert await sandbox.call_back(sandbox.jobs[0]) == 200
        assert isinstance(await waiter, RemoteFile)
        assert store._records[job.key].account is not None


async def test_what_a_waiter_knows_goes_with_the_job_when_an_orphan_is_adopted(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    """The store came back empty, and the first to call was a forger."""
    sandbox.faults.add(Fault.never(), Fault.status(503, on="redeem", times=2))
    async with make_client() as af10:
        job = await af10.backup_owner().start()
        waiter = asyncio.create_task(job)
        await asyncio.sleep(0)
        store = receiver_of(af10).store
        assert isinstance(store, MemoryStore)
        assert await sandbox.call_back(sandbox.jobs[0]) == 200
        del store._records[job.key]
        assert await sandbox.call_back(sandbox.jobs[0], secret="forged") == 200
        file = await waiter
        assert await file.read() == sandbox.archive(sandbox.jobs[0])


async def test_a_job_whose_time_is_over_is_redeemed_all_the_same_when_its_secret_is_in_hand(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    """And AF10 is not asked in a hot loop meanwhile."""
    now = [1_000_000.0]
    sandbox.faults.add(Fault.never(), Fault.status(503, on="redeem", times=4))
    async with make_client(runtime=Runtime(now=lambda: now[0])) as af10:
        job = await af10.backup_owner().start()
        waiter = asyncio.create_task(job)
        await asyncio.sleep(0)
        assert await sandbox.call_back(sandbox.jobs[0]) == 200
        now[0] += 30 * 86_400.0  # the clock was set, or the machine slept
        store = receiver_of(af10).store
        assert await store.get(job.key) is None
        assert isinstance(await waiter, RemoteFile)
    assert sandbox.count("GET", "/webhook") <= 6
