"""A tunnel whose address changes under way: which jobs that concerns, and what new ones do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from af10_async import Account, AF10Client, CallbackServer, ClosedError, Fleet, Job
from af10_async.errors import ConfigurationError, PublicURLError, StartTimeoutError, StoreError
from af10_async.protocol.keys import make_key
from af10_async.protocol.lifecycle import CalledBack, JobRecord
from af10_async.public_url import LocalServer, PublicURL, Tell
from af10_async.runtime import Runtime
from af10_async.sandbox import Fault, Sandbox, SandboxJob
from af10_async.stores import MemoryStore

from ..callback_server.conftest import request, talk
from ..conftest import ClientMaker, Tls

POST = ("POST", "/backup/owner")
CHANGED = "the public address has changed"


class Way(PublicURL):
    """Leads here by two addresses, and has the one or the other as the test says."""

    def __init__(self) -> None:
        self._tell: Tell | None = None
        self.port = 0

    @property
    def first(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def second(self) -> str:
        return f"https://localhost:{self.port}"

    @asynccontextmanager
    async def open(self, local: LocalServer, tell: Tell) -> AsyncIterator[str]:
        self._tell, self.port = tell, local.port
        yield self.first
        self._tell = None

    def tell(self, address: str | None) -> None:
        assert self._tell is not None
        self._tell(address)


@pytest.fixture
def way() -> Way:
    return Way()


@pytest.fixture
async def server(way: Way, tls: Tls) -> AsyncIterator[CallbackServer]:
    async with CallbackServer(public_url=way, tls_cert=tls.cert, tls_key=tls.key) as running:
        yield running


Make = Callable[..., AF10Client]


@pytest.fixture
def make(make_client: ClientMaker, server: CallbackServer) -> Make:
    """Makes a client of the server behind the tunnel."""

    def made(**options: Any) -> AF10Client:
        return make_client(callback_server=server, tls_cert=None, tls_key=None, **options)

    return made


@pytest.fixture
async def client(make: Make) -> AsyncIterator[AF10Client]:
    async with make() as entered:
        yield entered


async def waiting(af10: AF10Client, sandbox: Sandbox, count: int = 1) -> list[Job[Any]]:
    """Jobs that AF10 has accepted, and for which nobody calls back by itself."""
    sandbox.faults.add(Fault.never(times=count))
    jobs: list[Job[Any]] = [af10.backup_owner() for _ in range(count)]
    await asyncio.gather(*(job.start() for job in jobs))
    return jobs


async def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is said of addresses that have changed, once it has been said."""
    for _ in range(5):  # a store in memory knows at once
        await asyncio.sleep(0)
    found = [each for each in caplog.records if CHANGED in each.getMessage()]
    assert all(each.levelno == logging.WARNING for each in found)
    return [each.getMessage() for each in found]


def posted(sandbox: Sandbox, job: Job[Any]) -> SandboxJob:
    return next(each for each in sandbox.jobs if job.key in each.webhook_url)


async def test_jobs_of_the_old_address_are_named_and_new_ones_get_the_new_one(
    client: AF10Client, sandbox: Sandbox, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    (old,) = await waiting(client, sandbox)
    way.tell(way.second)
    (said,) = await warnings(caplog)
    assert f"from {way.first} to {way.second}" in said
    assert said.endswith(f"may not arrive: {old.key}")
    new = client.backup_owner()
    await new
    assert posted(sandbox, old).webhook_url.startswith(f"{way.first}/af10/")
    assert posted(sandbox, new).webhook_url.startswith(f"{way.second}/af10/")
    assert client.callback_url == way.second


async def test_a_job_of_the_old_address_ends_well_when_that_leads_here_all_the_same(
    client: AF10Client, sandbox: Sandbox, way: Way
) -> None:
    (old,) = await waiting(client, sandbox)
    way.tell(way.second)
    assert await sandbox.call_back(posted(sandbox, old)) == 200
    file = await old
    assert await file.read() == sandbox.archive(posted(sandbox, old))


async def test_each_change_names_the_jobs_of_the_address_before_it(
    client: AF10Client, sandbox: Sandbox, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    """There and back again: each job is named once."""
    (first,) = await waiting(client, sandbox)
    way.tell(way.second)
    assert [first.key in each for each in await warnings(caplog)] == [True]
    (second,) = await waiting(client, sandbox)
    way.tell(way.first)
    said = await warnings(caplog)
    assert f"from {way.second} to {way.first}" in said[1]
    assert said[1].endswith(f"may not arrive: {second.key}")
    way.tell(way.second)
    assert (await warnings(caplog))[2].endswith("may not arrive: none")


async def test_two_changes_at_once_name_a_job_once(
    client: AF10Client, sandbox: Sandbox, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    (job,) = await waiting(client, sandbox)
    way.tell(way.second)
    way.tell(way.first)
    assert [job.key in each for each in await warnings(caplog)] == [True, False]


async def test_the_same_address_again_is_no_change(
    client: AF10Client, sandbox: Sandbox, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    await waiting(client, sandbox)
    way.tell(way.first)
    way.tell(None)
    way.tell(way.first)
    assert await warnings(caplog) == []
    assert client.callback_url == way.first


async def test_a_new_address_after_a_time_without_any_names_the_jobs_of_the_old_one(
    client: AF10Client, sandbox: Sandbox, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    (old,) = await waiting(client, sandbox)
    way.tell(None)
    assert await warnings(caplog) == []
    way.tell(way.second)
    (said,) = await warnings(caplog)
    assert said.endswith(f": {old.key}")


async def test_of_thirty_jobs_twenty_are_named(
    client: AF10Client, sandbox: Sandbox, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = await waiting(client, sandbox, 30)
    way.tell(way.second)
    (said,) = await warnings(caplog)
    assert sum(job.key in said for job in jobs) == 20
    assert said.endswith(" and 10 more")


async def test_jobs_that_are_called_back_or_done_are_not_named(
    client: AF10Client, sandbox: Sandbox, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    await client.backup_owner()
    called_back, waits = await waiting(client, sandbox, 2)
    assert await sandbox.call_back(posted(sandbox, called_back)) == 200
    sandbox.faults.add(Fault.error_in_200(404, "no such endpoint", on="start"))
    with pytest.raises(Exception, match="no such endpoint"):
        await client.backup_owner()
    way.tell(way.second)
    (said,) = await warnings(caplog)
    assert said.endswith(f"may not arrive: {waits.key}")


async def test_a_job_that_was_called_back_elsewhere_is_not_named(
    client: AF10Client,
    server: CallbackServer,
    sandbox: Sandbox,
    way: Way,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Over a shared store only the record tells of it."""
    elsewhere, waits = await waiting(client, sandbox, 2)
    secret = posted(sandbox, elsewhere).secret
    assert await server.store.apply(elsewhere.key, CalledBack(Runtime().now(), secret))
    way.tell(way.second)
    (said,) = await warnings(caplog)
    assert said.endswith(f"may not arrive: {waits.key}")


async def test_without_jobs_it_is_said_that_none_is_concerned(
    server: CallbackServer, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    way.tell(way.second)
    (said,) = await warnings(caplog)
    assert said.endswith("may not arrive: none")
    assert server.public_url == way.second


# -- while it is down ------------------------------------------------------------------------------


async def test_while_the_tunnel_is_down_no_job_is_started(
    client: AF10Client, sandbox: Sandbox, way: Way
) -> None:
    way.tell(None)
    job = client.with_options(retries=0).backup_owner()
    with pytest.raises(PublicURLError) as caught:
        await job
    error = caught.value
    assert (error.sent, error.retryable) == (False, True)
    assert "the tunnel to the callback server is down for now" in str(error)
    assert sandbox.count(*POST) == 0
    for ask in (lambda: client.callback_url, client.check_reachable):
        with pytest.raises(PublicURLError):
            found = ask()
            assert not isinstance(found, str)
            assert found is not None
            await found
    way.tell(way.second)
    await job
    assert sandbox.count(*POST) == 1
    assert posted(sandbox, job).webhook_url.startswith(way.second)


async def test_a_start_waits_until_the_tunnel_is_back_however_often_it_has_to_look(
    make: Make, sandbox: Sandbox, way: Way
) -> None:
    """Nothing was sent, so that is harmless."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 20:
            way.tell(way.second)
        await asyncio.sleep(0)

    async with make(runtime=replace(Runtime(), sleep=sleep)) as af10:
        await af10.authenticate()
        way.tell(None)
        file = await af10.backup_owner()
        assert await file.read() == sandbox.archive(sandbox.jobs[0])
    assert len(pauses) == 20
    assert sandbox.count(*POST) == 1
    assert sandbox.jobs[0].webhook_url.startswith(way.second)


async def test_a_start_that_has_no_more_time_says_that_the_tunnel_is_down(
    make: Make, sandbox: Sandbox, way: Way
) -> None:
    async with make(start_timeout=0.02) as af10:
        await af10.authenticate()
        way.tell(None)
        with pytest.raises(StartTimeoutError, match="the last trouble was: the tunnel") as caught:
            await af10.backup_owner()
    assert (caught.value.sent, caught.value.retryable) == (False, True)
    assert isinstance(caught.value.__cause__, PublicURLError)
    assert sandbox.count(*POST) == 0


async def test_a_job_that_was_started_before_is_called_back_while_the_tunnel_counts_as_down(
    client: AF10Client, sandbox: Sandbox, way: Way
) -> None:
    """Who watches a tunnel may be wrong, or late."""
    (job,) = await waiting(client, sandbox)
    way.tell(None)
    assert await sandbox.call_back(posted(sandbox, job)) == 200
    await job


async def test_a_server_that_is_entered_again_begins_anew(way: Way, tls: Tls) -> None:
    server = CallbackServer(public_url=way, tls_cert=tls.cert, tls_key=tls.key)
    async with server:
        way.tell(None)
    async with server:
        assert server.public_url == way.first
        assert (await server.check_reachable(ca_file=tls.ca)).is_here
        way.tell(way.second)
        assert (await server.check_reachable(ca_file=tls.ca)).url == way.second


# -- what a way says -------------------------------------------------------------------------------

SECRET = "the-callback-secret-of-these-tests"
KEY = make_key(b"1" * 18, SECRET.encode())


class Says(PublicURL):
    """Leads nowhere, and says what the test wants."""

    def __init__(self, given: str, before: str | None = None) -> None:
        self._given = given
        self._before = before
        self.tell: Tell = lambda url: None

    @asynccontextmanager
    async def open(self, local: LocalServer, tell: Tell) -> AsyncIterator[str]:
        self.tell = tell
        if self._before is not None:
            tell(self._before)
        yield self._given


class AwayStore(MemoryStore):
    """Can be away when it is read."""

    is_away = False

    async def get(self, key: str) -> JobRecord | None:
        if self.is_away:
            raise StoreError("away", retryable=True)
        return await super().get(key)


@pytest.mark.parametrize("url", ["http://a.example.com", "https://a.example.com?x=1", "", "ngrok"])
async def test_an_address_that_af10_cannot_call_is_an_error_that_names_who_gave_it(
    url: str,
) -> None:
    with pytest.raises(PublicURLError, match="Says gives an address that AF10 cannot call"):
        async with CallbackServer(public_url=Says(url)):
            pytest.fail("entered")
    says = Says("https://a.example.com")
    async with CallbackServer(public_url=says) as server:
        with pytest.raises(PublicURLError, match="Says"):
            says.tell(url)
        with pytest.raises(PublicURLError, match="down for now"):
            _ = server.public_url


async def test_a_slash_at_the_end_of_an_address_is_not_doubled() -> None:
    async with CallbackServer(public_url=Says("https://a.example.com/")) as server:
        assert server.webhook_url("KEY") == "https://a.example.com/af10/KEY"


async def test_what_is_told_before_the_address_is_given_holds() -> None:
    says = Says("https://old.example.com", before="https://new.example.com")
    async with CallbackServer(public_url=says) as server:
        assert server.public_url == "https://new.example.com"


async def test_what_is_told_after_the_end_changes_nothing() -> None:
    says = Says("https://a.example.com")
    server = CallbackServer(public_url=says)
    async with server:
        pass
    says.tell("https://b.example.com")
    with pytest.raises(ClosedError):
        _ = server.public_url


async def test_a_callback_to_the_path_of_the_address_before_still_arrives() -> None:
    says = Says("https://a.example.com/one")
    async with CallbackServer(public_url=says, callback_secret=SECRET) as server:
        says.tell("https://a.example.com/two")
        for path in ("one/af10", "two/af10", "af10"):
            answer = await talk(server.port, request(f"/{path}/{KEY}?id=abc"))
            assert answer.status == 200, path


async def test_when_the_store_is_away_all_jobs_of_the_old_address_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, says = AwayStore(), Says("https://a.example.com")
    async with CallbackServer(public_url=says, store=store) as server:
        server.webhook_url("one")
        server.webhook_url("two")
        store.is_away = True
        says.tell("https://b.example.com")
        says.tell("https://c.example.com")
        first, second = await warnings(caplog)
    assert "from https://a.example.com to https://b.example.com" in first
    assert first.endswith("may not arrive: one, two")
    assert "from https://b.example.com to https://c.example.com" in second


async def test_a_probe_is_not_remembered_as_a_job(way: Way, tls: Tls) -> None:
    async with CallbackServer(public_url=way, tls_cert=tls.cert, tls_key=tls.key) as server:
        await server.check_reachable(ca_file=tls.ca)
        assert not server._addressed


# -- clients that are given a way of one's own -----------------------------------------------------


async def test_a_client_takes_a_way_of_ones_own_as_its_public_url(
    make_client: ClientMaker, way: Way, sandbox: Sandbox
) -> None:
    async with make_client(public_url=way) as af10:
        await af10.backup_owner()
        assert sandbox.jobs[0].webhook_url.startswith(way.first)


async def test_a_fleet_takes_a_way_of_ones_own_as_its_public_url(
    way: Way, sandbox: Sandbox, tls: Tls
) -> None:
    account = Account(
        "one",
        base_url=sandbox.base_url,
        api_key=sandbox.api_key,
        username=sandbox.username,
        password=sandbox.password,
    )
    async with Fleet([account], public_url=way, tls_cert=tls.cert, tls_key=tls.key) as fleet:
        await fleet["one"].backup_owner()
        assert sandbox.jobs[0].webhook_url.startswith(way.first)


async def test_what_is_neither_an_address_nor_a_way_is_refused(make_client: ClientMaker) -> None:
    with pytest.raises(ConfigurationError, match="public_url is malformed: it must be an https"):
        make_client(public_url=object())
