"""A fleet: many accounts over shared resources, and what one does is its own affair."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from af10_async import (
    Account,
    AF10Client,
    AF10Error,
    AuthenticationError,
    CallbackServer,
    CallbackTimeoutError,
    ClosedError,
    ConfigurationError,
    Fleet,
    JobNotFoundError,
    RemoteFile,
    RetryPolicy,
    SavedFile,
)
from af10_async.accounts import FromEnv
from af10_async.events import CallbackReceived, Event, JobEvent
from af10_async.retention import LIST
from af10_async.sandbox import Account as SandboxAccount
from af10_async.sandbox import Fault, Sandbox

from .conftest import Tls

NAMES = [f"dealer-{number}" for number in range(1, 9)]
FleetMaker = Callable[..., Fleet]


@pytest.fixture
async def sandbox(tls: Tls) -> AsyncIterator[Sandbox]:
    accounts = [SandboxAccount(username=name) for name in NAMES]
    async with Sandbox(callback_ca=tls.ca, accounts=accounts) as running:
        yield running


def account(sandbox: Sandbox, name: str, **other: Any) -> Account:
    known = next(each for each in sandbox.accounts if each.username == name)
    values: dict[str, Any] = {
        "base_url": sandbox.base_url,
        "api_key": known.api_key,
        "username": known.username,
        "password": known.password,
    }
    return Account(name, **(values | other))


@pytest.fixture
def make_fleet(sandbox: Sandbox, tls: Tls, quick: RetryPolicy) -> FleetMaker:
    """Makes a fleet of the sandbox's accounts, some of them with other values."""

    def make(changes: dict[str, dict[str, Any]] | None = None, **arguments: Any) -> Fleet:
        accounts = [account(sandbox, name, **(changes or {}).get(name, {})) for name in NAMES]
        usual: dict[str, Any] = {"tls_cert": tls.cert, "tls_key": tls.key, "retries": quick}
        return Fleet(accounts, **(usual | {"callback_timeout": 20} | arguments))

    return make


async def test_each_account_has_its_own_backup(
    make_fleet: FleetMaker, sandbox: Sandbox, tmp_path: Path
) -> None:
    async with make_fleet() as fleet:
        outcomes = [each async for each in fleet.backup_owner(save_to=tmp_path)]
    assert sorted(each.account for each in outcomes) == NAMES
    for outcome in outcomes:
        saved = outcome.result
        assert isinstance(saved, SavedFile)
        assert saved.path.parent == tmp_path / outcome.account
        job = next(job for job in sandbox.jobs if job.account == outcome.account)
        assert saved.sha256 == sandbox.archive_sha256(job)


async def test_they_share_one_callback_server(make_fleet: FleetMaker, sandbox: Sandbox) -> None:
    async with make_fleet() as fleet:
        async for outcome in fleet.backup_owner():
            assert isinstance(outcome.result, RemoteFile)
        url = fleet.callback_url
    assert len(sandbox.jobs) == len(NAMES)
    assert all(job.webhook_url.startswith(f"{url}/af10/") for job in sandbox.jobs)


async def test_what_one_account_does_neither_delays_nor_breaks_another(
    make_fleet: FleetMaker, sandbox: Sandbox
) -> None:
    """A wrong password, a callback that never comes, a secret that is missing, a sick server."""
    changes = {
        "dealer-1": {"password": "wrong"},
        "dealer-3": {"password": FromEnv("AF10_NO_SUCH")},
        "dealer-4": {"base_url": "not a url"},
    }
    sandbox.faults.add(
        Fault.never(account="dealer-2", times=None),
        Fault.status(500, on="start", account="dealer-5", times=None),
    )
    ended: list[str] = []
    async with make_fleet(changes, callback_timeout=1.0) as fleet:
        found: dict[str, Exception | None] = {}
        async for outcome in fleet.backup_owner(concurrency=8):
            ended.append(outcome.account)
            found[outcome.account] = outcome.error
    assert {name for name, error in found.items() if error is None} == set(NAMES[5:])
    assert isinstance(found["dealer-1"], AuthenticationError)
    assert isinstance(found["dealer-2"], CallbackTimeoutError)
    assert "account dealer-3: password: the environment variable" in str(found["dealer-3"])
    assert "account dealer-4: base_url is malformed" in str(found["dealer-4"])
    assert isinstance(found["dealer-5"], AF10Error)
    assert set(ended[-2:]) == {"dealer-2", "dealer-5"}, "nobody waited for those that hang"


async def test_so_many_are_worked_on_at_a_time(make_fleet: FleetMaker) -> None:
    now, most = 0, 0

    async def work(client: AF10Client) -> str | None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await client.authenticate()
        now -= 1
        return client.name

    async with make_fleet() as fleet:
        found = [each.result async for each in fleet.each(work, concurrency=3)]
    assert sorted(filter(None, found)) == NAMES
    assert most == 3


async def test_those_that_hang_do_not_keep_the_others_from_their_turn(
    make_fleet: FleetMaker,
) -> None:
    """Two at a time, and two of them wait for what only the others bring."""
    others = asyncio.Event()
    done = Counter[str]()

    async def work(client: AF10Client) -> None:
        if client.name in ("dealer-1", "dealer-2"):
            await others.wait()
        done[client.name or ""] += 1
        if len(done) == len(NAMES) - 2:
            others.set()

    async with make_fleet() as fleet:
        async for outcome in fleet.each(work, concurrency=2, patience=0.01):
            assert outcome.ok
    assert set(done) == set(NAMES)


async def test_whatever_is_raised_is_the_accounts_outcome(make_fleet: FleetMaker) -> None:
    async def work(client: AF10Client) -> str | None:
        if client.name == "dealer-1":
            raise ZeroDivisionError
        if client.name == "dealer-2":
            raise asyncio.CancelledError
        return client.name

    async with make_fleet() as fleet:
        found = {each.account: each async for each in fleet.each(work)}
    assert isinstance(found["dealer-1"].error, ZeroDivisionError)
    assert "cancelled from within" in str(found["dealer-2"].error)
    with pytest.raises(ZeroDivisionError):
        _ = found["dealer-1"].result
    assert [found[name].result for name in NAMES[2:]] == NAMES[2:]


async def test_leaving_early_cancels_what_is_under_way(make_fleet: FleetMaker) -> None:
    cancelled: list[str | None] = []

    async def work(client: AF10Client) -> None:
        if client.name == "dealer-1":
            return
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.append(client.name)

    async with (
        make_fleet() as fleet,
        contextlib.aclosing(fleet.each(work, concurrency=4)) as outcomes,
    ):
        outcome = await anext(outcomes)
        assert outcome.account == "dealer-1"
        await asyncio.sleep(0)
    # The slot of the first one may have gone to a fifth by then.
    assert set(NAMES[1:4]) <= set(cancelled) <= set(NAMES[1:5])


async def test_only_those_that_are_named(make_fleet: FleetMaker, sandbox: Sandbox) -> None:
    async with make_fleet() as fleet:
        found = [each.account async for each in fleet.backup_owner(accounts=["dealer-2"])]
        with pytest.raises(KeyError, match="nobody"):
            await anext(fleet.backup_owner(accounts=["nobody"]))
    assert found == ["dealer-2"]
    assert len(sandbox.jobs) == 1


async def test_the_newest_backups_stay(make_fleet: FleetMaker, tmp_path: Path) -> None:
    async with make_fleet() as fleet:
        for _ in range(3):
            backups = fleet.backup_owner(accounts=["dealer-1"], save_to=tmp_path, keep=2)
            assert [each.ok async for each in backups] == [True]
        for wrong in (0, -1):
            with pytest.raises(ConfigurationError, match="keep must be at least 1"):
                fleet.backup_owner(save_to=tmp_path, keep=wrong)
    found = {path.name for path in (tmp_path / "dealer-1").iterdir()}
    assert found == {"backup-dealer-1-2.zip", "backup-dealer-1-3.zip", LIST}


async def test_an_older_backup_stays_when_the_new_one_fails(
    make_fleet: FleetMaker, sandbox: Sandbox, tmp_path: Path
) -> None:
    async with make_fleet() as fleet:
        one: dict[str, Any] = {"accounts": ["dealer-1"], "save_to": tmp_path, "keep": 1}
        assert [each.ok async for each in fleet.backup_owner(**one)] == [True]
        sandbox.faults.add(Fault.status(500, on="file", times=None))
        assert [each.ok async for each in fleet.backup_owner(**one)] == [False]
    assert (tmp_path / "dealer-1" / "backup-dealer-1-1.zip").exists()


async def test_events_say_whose_they_are(make_fleet: FleetMaker) -> None:
    events: list[Event] = []
    async with make_fleet(on_event=events.append) as fleet:
        async for outcome in fleet.backup_owner():
            assert outcome.ok
    steps = Counter(event.account for event in events if isinstance(event, JobEvent))
    assert set(steps) == set(NAMES)
    assert sum(isinstance(event, CallbackReceived) for event in events) == len(NAMES)


async def test_requests_of_all_accounts_and_of_each_are_limited(
    make_fleet: FleetMaker, sandbox: Sandbox
) -> None:
    async def work(client: AF10Client) -> None:
        await asyncio.gather(*(client.get(f"/vehicle/{n}") for n in range(1, 6)))

    sandbox.faults.add(Fault.slow(0.02, on="vehicle", times=None))
    async with make_fleet(max_requests=5, max_requests_each=2) as fleet:
        assert all([each.ok async for each in fleet.each(work)])
        assert sandbox.most_concurrent() == 5
        assert [each.ok async for each in fleet.each(work, accounts=["dealer-1"])] == [True]
    assert sandbox.most_concurrent("dealer-1") == 2


async def test_an_account_has_a_client_of_its_own(make_fleet: FleetMaker) -> None:
    fleet = make_fleet({"dealer-1": {"password": FromEnv("AF10_NO_SUCH")}})
    with pytest.raises(ClosedError, match="enter the fleet first"):
        _ = fleet["dealer-2"]
    async with fleet:
        assert (await fleet["dealer-2"].vehicle(1)).vehicle_id == 1
        assert repr(fleet["dealer-2"]).startswith("<AF10Client dealer-2 of http")
        with pytest.raises(ConfigurationError, match="dealer-1: password"):
            _ = fleet["dealer-1"]
        with pytest.raises(KeyError):
            _ = fleet["nobody"]
        assert (len(fleet), list(fleet)) == (len(NAMES), NAMES)
    with pytest.raises(ClosedError, match="closed"):
        await fleet["dealer-2"].authenticate()
    with pytest.raises(ClosedError, match="entered before"):
        await fleet.__aenter__()


async def test_unfinished_jobs_are_found_with_their_accounts(
    make_fleet: FleetMaker, sandbox: Sandbox, tmp_path: Path
) -> None:
    store = f"sqlite:{tmp_path / 'jobs.db'}"
    secret = "the same in both processes"
    async with make_fleet(store=store, callback_secret=secret) as fleet:
        jobs = {name: await fleet[name].backup_owner().start() for name in NAMES[:3]}
        await sandbox.settled()
        tickets = {name: job.ticket for name, job in jobs.items()}
        keys = {name: job.key for name, job in jobs.items()}
        del jobs
    async with make_fleet(store=store, callback_secret=secret) as fleet:
        for names in (tickets, keys):
            for name, key in names.items():
                assert (await fleet.owner_of(key)).name == name
        with pytest.raises(JobNotFoundError):
            await fleet.owner_of("x" * 48)
        some = [name async for name, _ in fleet.unfinished(accounts=[NAMES[1], "nobody"])]
        assert some == [NAMES[1]]
        found = {name: job async for name, job in fleet.unfinished()}
        assert {name: job.key for name, job in found.items()} == keys
        for name, job in found.items():
            await (await job).save(tmp_path / name)


async def test_without_anything_that_receives_callbacks_it_is_said_once(
    make_fleet: FleetMaker,
) -> None:
    async with make_fleet(tls_cert=None, tls_key=None) as fleet:
        with pytest.raises(ConfigurationError, match="AF10_PUBLIC_URL"):
            fleet.backup_owner()
        assert (await fleet["dealer-1"].vehicle(1)).vehicle_id == 1


async def test_a_server_and_an_http_client_of_the_users_are_left_open(
    make_fleet: FleetMaker, tls: Tls
) -> None:
    async with (
        CallbackServer(tls_cert=tls.cert, tls_key=tls.key) as server,
        httpx.AsyncClient() as http_client,
    ):
        shared = {"callback_server": server, "http_client": http_client}
        async with make_fleet(tls_cert=None, tls_key=None, **shared) as fleet:
            assert all([each.ok async for each in fleet.backup_owner()])
        assert server.is_running
        assert not http_client.is_closed


def test_a_fleet_of_nobody_or_of_twins_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(ConfigurationError, match="there is no account"):
        Fleet([])
    with pytest.raises(ConfigurationError, match="2 accounts are called dealer-1"):
        Fleet([account(sandbox, "dealer-1")] * 2)
    with pytest.raises(TypeError, match="no_such"):
        AF10Client(base_url="https://a.example", api_key="k", username="u", password="p", no_such=1)  # type: ignore[call-arg]


async def test_common_settings_come_from_the_environment(
    sandbox: Sandbox, tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sandbox.accounts[0]
    path = tmp_path / "accounts.toml"
    path.write_text(
        f'base_url = "{sandbox.base_url}"\n[accounts.one]\napi_key = "{first.api_key}"\n'
        f'username = "{first.username}"\npassword = "{first.password}"\n'
    )
    path.chmod(0o600)
    monkeypatch.setenv("AF10_TLS_CERT", str(tls.cert))
    monkeypatch.setenv("AF10_TLS_KEY", str(tls.key))
    monkeypatch.setenv("AF10_API_KEY", "of somebody else")
    async with Fleet.from_env(path, callback_timeout=20) as fleet:
        assert [each.account async for each in fleet.backup_owner()] == ["one"]


class Odd(FromEnv):
    """Where a value is that raises what nobody expects."""

    def look_up(self, username: str | None) -> str:
        raise RuntimeError("canary")


async def test_whatever_an_accounts_settings_raise_is_its_own_outcome(
    make_fleet: FleetMaker,
) -> None:
    changes = {"dealer-1": {"password": Odd("x")}, "dealer-2": {"username": "\udcff"}}
    async with make_fleet(changes) as fleet:
        found = {each.account: each.error async for each in fleet.backup_owner()}
    assert "account dealer-1: its settings cannot be used (RuntimeError)" in str(found["dealer-1"])
    assert "canary" not in str(found["dealer-1"])
    assert isinstance(found["dealer-2"], AF10Error)
    assert [name for name in NAMES[2:] if found[name] is not None] == []


async def test_one_login_twice_is_refused_because_a_store_could_not_tell_them_apart(
    sandbox: Sandbox, tls: Tls
) -> None:
    one = account(sandbox, "dealer-1")
    other = Account(
        "dev",
        base_url="https://dev.example/v2",
        api_key=one.api_key,
        username=one.username,
        password=one.password,
    )
    async with Fleet([one, other], tls_cert=tls.cert, tls_key=tls.key) as fleet:
        assert (await fleet["dealer-1"].vehicle(1)).vehicle_id == 1
        with pytest.raises(ConfigurationError, match="credentials of dealer-1"):
            _ = fleet["dev"]


@pytest.mark.parametrize(
    "options", [{"timeout": -1}, {"max_requests_each": 0}, {"retries": -2}, {"max_requests": 0}]
)
def test_an_option_that_makes_no_sense_for_any_is_said_at_once(
    make_fleet: FleetMaker, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError):
        make_fleet(**options)


def test_a_misspelt_option_is_a_type_error_at_once(make_fleet: FleetMaker) -> None:
    with pytest.raises(TypeError, match="callback_timout"):
        make_fleet(callback_timout=3)


async def test_work_that_cancels_its_own_task_has_an_outcome(make_fleet: FleetMaker) -> None:
    async def work(client: AF10Client) -> None:
        task = asyncio.current_task()
        assert task is not None
        if client.name == "dealer-1":
            task.cancel()
        await asyncio.sleep(0)

    async with make_fleet() as fleet:
        found = {each.account: each.error async for each in fleet.each(work)}
    assert "cancelled" in str(found.pop("dealer-1"))
    assert set(found.values()) == {None}


async def test_a_fleet_that_is_not_entered_says_so(make_fleet: FleetMaker) -> None:
    fleet = make_fleet()
    with pytest.raises(ClosedError, match="enter the fleet first"):
        await anext(fleet.unfinished())
    with pytest.raises(ClosedError, match="enter the fleet first"):
        await fleet.owner_of("x" * 48)
    with pytest.raises(ClosedError, match="enter the fleet first"):
        _ = fleet.callback_url


async def test_accounts_whose_requests_hang_leave_room_for_the_others(
    make_fleet: FleetMaker, sandbox: Sandbox
) -> None:
    """Six of them take as many slots as they can get, and never let go."""
    hanging = NAMES[:6]
    sandbox.faults.add(*(Fault.hang(on="vehicle", account=name, times=None) for name in hanging))

    async def work(client: AF10Client) -> None:
        many = 20 if client.name in hanging else 3
        await asyncio.gather(*(client.get(f"/vehicle/{n}") for n in range(1, many + 1)))

    async with make_fleet(max_requests=20, max_requests_each=10, timeout=60) as fleet:
        outcomes = fleet.each(work)
        async with contextlib.aclosing(outcomes):
            found = {(await anext(outcomes)).account for _ in range(2)}
    assert found == set(NAMES[6:])
