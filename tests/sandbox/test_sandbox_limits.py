"""How much an account may send, and how much it did."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from af10_async.sandbox import Account, Answer, Fault, Sandbox, Seen
from af10_async.sandbox.traffic import Quota

from .conftest import Wire, wired


class Held:
    """An endpoint that answers when it is let go."""

    def __init__(self) -> None:
        self.arrived = asyncio.Semaphore(0)
        self.go = asyncio.Event()

    async def __call__(self, seen: Seen) -> Answer:
        self.arrived.release()
        await self.go.wait()
        return Answer()

    async def arrivals(self, number: int) -> None:
        for _ in range(number):
            await self.arrived.acquire()


# -- the quota -------------------------------------------------------------------------------------


def test_a_quota_is_of_any_stretch_of_time() -> None:
    """Each request has its place until it is old enough; what is refused takes none."""
    now = 100.0
    quota = Quota(2, 10.0, lambda: now)
    assert quota.take("jan") == 0
    now = 104.0
    assert quota.take("jan") == 0
    assert [quota.take("jan"), quota.take("jan")] == [6.0, 6.0]
    assert quota.take("piet") == 0
    now = 110.0
    assert quota.take("jan") == 0
    assert quota.take("jan") == 4.0


async def test_what_is_over_the_quota_is_told_when_to_come_back() -> None:
    """In whole seconds by the header, in milliseconds by the body, and both are true."""
    async with wired(quota=3, quota_seconds=60) as wire:  # it has logged in: that is one
        statuses = [(await wire.get("/vehicle/1")).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        answer = await wire.get("/nonsense")
        assert (answer.status_code, answer.json()["errorCode"]) == (429, 429)
        assert 50_000 < answer.json()["retry"] <= 60_000
        seconds = int(answer.headers["retry-after"])
        assert 0 <= seconds * 1000 - answer.json()["retry"] < 1000
        assert wire.sandbox.requests[-1].status == 429


async def test_the_header_is_at_least_one_second() -> None:
    """Even when less would do; after that time there is room again."""
    async with wired(quota=1, quota_seconds=0.05) as wire:
        answer = await wire.authenticate()
        while answer.status_code != 429:  # on a slow machine the first is too old by now
            answer = await wire.authenticate()
        assert answer.headers["retry-after"] == "1"
        await asyncio.sleep(answer.json()["retry"] / 1000)
        assert (await wire.authenticate()).status_code == 200


async def test_logging_in_counts_and_each_account_has_its_own_quota() -> None:
    """By the username, whether the password is right or not; files are not AF10's."""
    accounts = [Account(username="one"), Account(username="two")]
    async with wired(accounts=accounts, quota=4) as wire:
        url = await wire.redeem(await wire.start())
        wrong = await wire.authenticate(changes={"password": "wrong"})
        assert wrong.status_code == 401
        assert (await wire.authenticate()).status_code == 429
        assert (await wire.http.get(url)).status_code == 200
        assert (await wire.authenticate(accounts[1])).status_code == 200


async def test_what_is_refused_meets_no_fault_and_has_no_effect() -> None:
    """The fault waits for a request that gets so far."""
    async with wired(quota=1) as wire:
        wire.sandbox.faults.add(Fault.status(500, on="vehicle"))
        assert (await wire.send("POST", "/vehicle", {})).status_code == 429
        assert len(wire.sandbox.faults.pending) == 1
        assert len(wire.sandbox.vehicles()) == 250


async def test_there_are_no_limits_when_not_given(wire: Wire) -> None:
    """However much is sent at once."""
    answers = await asyncio.gather(*(wire.get("/vehicle/1") for _ in range(60)))
    assert {answer.status_code for answer in answers} == {200}


# -- at the same time ------------------------------------------------------------------------------


async def test_the_most_under_way_is_known_of_each_account_and_of_all() -> None:
    """At the same time, and not one after the other."""
    accounts = [Account(username=name) for name in ("one", "two", "idle")]
    async with wired(accounts=accounts) as wire:
        held = Held()
        wire.sandbox.answers("GET", "/held", held)
        assert wire.sandbox.most_concurrent() == 1  # logging in
        calls = [asyncio.create_task(wire.get("/held")) for _ in range(3)]
        await held.arrivals(3)
        await wire.log_in(accounts[1])
        calls += [asyncio.create_task(wire.get("/held")) for _ in range(2)]
        await held.arrivals(2)
        held.go.set()
        await asyncio.gather(*calls)
        for _ in range(4):
            await wire.get("/held")
        most = [wire.sandbox.most_concurrent(name) for name in ("one", "two", "idle", None)]
        assert most == [3, 2, 0, 5]


async def test_one_too_many_at_the_same_time_is_refused() -> None:
    """At once, for that account only, and until another one is done."""
    accounts = [Account(username="one"), Account(username="two")]
    async with wired(accounts=accounts, max_concurrent=2) as wire:
        held = Held()
        wire.sandbox.answers("GET", "/held", held)
        calls = [asyncio.create_task(wire.get("/held")) for _ in range(2)]
        await held.arrivals(2)
        for _ in range(2):
            refused = await wire.get("/vehicle/1")
            assert (refused.status_code, refused.json()["errorCode"]) == (429, 429)
            assert "retry-after" not in refused.headers
        assert (await wire.authenticate(accounts[1])).status_code == 200
        held.go.set()
        await asyncio.gather(*calls)
        assert (await wire.get("/vehicle/1")).status_code == 200
        assert wire.sandbox.most_concurrent("one") == 3


async def test_a_request_whose_client_has_left_is_not_under_way() -> None:
    """A client that gives up and tries again keeps to its limit of one."""
    async with wired(max_concurrent=1) as wire:
        held = Held()
        wire.sandbox.answers("GET", "/held", held)
        for _ in range(3):
            left = asyncio.create_task(wire.get("/held"))
            await held.arrivals(1)
            left.cancel()
            await asyncio.gather(left, return_exceptions=True)
        assert (await wire.get("/vehicle/1")).status_code == 200
        assert wire.sandbox.most_concurrent() == 1
        held.go.set()


async def test_files_are_not_counted() -> None:
    """They come from another host, which has limits of its own."""
    async with wired(file_size=4 * 2**20) as wire:
        url = await wire.redeem(await wire.start())
        wire.sandbox.faults.add(Fault.stall(on="file", times=2))
        calls = [asyncio.create_task(wire.http.get(url)) for _ in range(2)]
        while len([seen for seen in wire.sandbox.requests if seen.where == "file"]) < 2:
            await asyncio.sleep(0)
        await wire.get("/vehicle/1")
        assert wire.sandbox.most_concurrent() == 1
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


def test_a_name_that_nobody_has_is_a_mistake() -> None:
    """A test that counts nothing would pass for ever."""
    with pytest.raises(ValueError, match="no account of this sandbox"):
        Sandbox().most_concurrent("nobody")


@pytest.mark.parametrize(
    "options", [{"quota": 0}, {"quota": 1, "quota_seconds": 0}, {"max_concurrent": 0}]
)
def test_limits_that_let_nothing_pass_are_refused(options: dict[str, int]) -> None:
    """When the sandbox is made."""
    with pytest.raises(ValueError, match=r"must be"):
        Sandbox(**options)  # type: ignore[arg-type]


async def test_five_hundred_accounts_have_numbers_and_keys_of_their_own() -> None:
    """And are found by these."""
    accounts = [Account(username=f"dealer-{number}") for number in range(1, 501)]
    async with Sandbox(accounts=accounts) as sandbox, httpx.AsyncClient() as http:
        for number in (1, 250, 500):
            account = accounts[number - 1]
            headers = {"apikey": account.api_key}
            address = sandbox.base_url + "/util/environment"
            assert (await http.get(address, headers=headers)).status_code == 200
            assert sandbox.requests[-1].account == account.username
            params = {
                "api_key": account.api_key,
                "username": account.username,
                "password": account.password,
            }
            answer = await http.get(sandbox.base_url + "/authenticate", params=params)
            assert answer.json()["user_id"] == number
