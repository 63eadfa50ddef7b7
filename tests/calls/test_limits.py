"""How many requests are under way: never more than allowed, in turns, and every slot comes back."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter, deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from af10_async import AF10Client, ConfigurationError
from af10_async.limits import TOTAL, ConcurrencyLimit
from af10_async.sandbox import Account as SandboxAccount
from af10_async.sandbox import Sandbox, Seen

from ..conftest import ClientMaker, Tls

ACCOUNTS = ("a", "b", "c")
ROOM = TOTAL - TOTAL // 4
"""Slots of those who have something under way: the rest is for those who have nothing."""


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def is_as_new(limit: ConcurrencyLimit, total: int) -> bool:
    """Whether all slots can be had at once, and not one more."""
    for number in range(total):
        await asyncio.wait_for(limit.acquire(f"new {number}", 1), 1)
    extra = asyncio.create_task(limit.acquire("extra", 1))
    await turns()
    is_full = not extra.done()
    extra.cancel()
    await asyncio.wait([extra])
    for number in range(total):
        limit.release(f"new {number}", 1)
    return is_full


class Users:
    """Accounts that take slots, and give them back when they are told to."""

    def __init__(self, limit: ConcurrencyLimit, total: int, most: dict[str, int]) -> None:
        self.limit = limit
        self.total = total
        self.most = most
        self.used: Counter[str] = Counter()
        self.order: list[str] = []
        self.waiting: deque[tuple[str, asyncio.Task[None]]] = deque()
        self._leave: dict[asyncio.Task[None], asyncio.Event] = {}

    def come(self, account: str) -> asyncio.Task[None]:
        """Somebody asks for a slot."""
        leave = asyncio.Event()
        task = asyncio.create_task(self._use(account, leave))
        self._leave[task] = leave
        self.waiting.append((account, task))
        return task

    async def _use(self, account: str, leave: asyncio.Event) -> None:
        await self.limit.acquire(account, self.most[account])
        self.used[account] += 1
        self.order.append(account)
        assert self.used.total() <= self.total
        assert self.used[account] <= self.most[account]
        try:
            await leave.wait()
        finally:
            self.used[account] -= 1
            self.limit.release(account, self.most[account])

    def act(self, what: str, which: int) -> None:
        tasks = [task for task in self._leave if not task.done()]
        if what in ACCOUNTS:
            self.come(what)
        elif tasks and what == "leave":
            self._leave[tasks[which % len(tasks)]].set()
        elif tasks and what == "cancel":
            tasks[which % len(tasks)].cancel()

    def stuck(self) -> list[str]:
        """Accounts of which one waits although there is a slot for it."""
        waiting: Counter[str] = Counter()
        waiting.update(account for account, task in self.waiting if not task.done())
        waiting.subtract(self.used)
        free = self.total - self.used.total()
        return [
            account
            for account, count in waiting.items()
            # A quarter is for those who have nothing.
            if count > 0
            and free > (self.total // 4 if self.used[account] else 0)
            and self.used[account] < self.most[account]
        ]

    async def all_leave(self) -> None:
        for leave in self._leave.values():
            leave.set()
        if self._leave:
            done, pending = await asyncio.wait(self._leave, timeout=5)
            assert not pending, "somebody starves"
            for task in done:
                if not task.cancelled():
                    task.result()


LONGEST = 64
"""Turns: each of the steps may be somebody who leaves at once, and so lets the next one in."""
steps = st.lists(
    st.tuples(
        st.sampled_from([*ACCOUNTS, *ACCOUNTS, "leave", "cancel", "turn"]), st.integers(0, 9)
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=300)
@given(
    total=st.integers(1, 9),
    most=st.fixed_dictionaries({account: st.integers(1, 5) for account in ACCOUNTS}),
    schedule=steps,
)
def test_in_whatever_order_they_come_give_up_and_leave(
    total: int, most: dict[str, int], schedule: list[tuple[str, int]]
) -> None:
    """Never more than the total, never more than each may have, none starves, all comes back."""

    async def run() -> None:
        limit = ConcurrencyLimit(total)
        users = Users(limit, total, most)
        for what, which in schedule:
            if what == "turn":
                await turns(LONGEST)
                assert users.stuck() == []
            else:
                users.act(what, which)
        await turns(LONGEST)
        assert users.stuck() == []
        await users.all_leave()
        assert users.used.total() == 0
        assert await is_as_new(limit, total)

    asyncio.run(run())


async def test_nothing_is_kept_of_accounts_that_are_gone() -> None:
    """Neither of those that had a slot nor of those that gave up, even while all are taken."""
    limit = ConcurrencyLimit(2)
    await limit.acquire("holder")
    await come_and_go(limit, 100)
    before = blocks()
    limit.release("holder")
    await come_and_go(limit, 5000)
    assert blocks() - before < 1000


async def come_and_go(limit: ConcurrencyLimit, count: int) -> None:
    for number in range(count):
        await limit.acquire(f"served {number}")
        limit.release(f"served {number}")
    await limit.acquire("holder")
    for number in range(count):
        waiter = asyncio.create_task(limit.acquire(f"gone {number}"))
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.wait([waiter])


def blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


# -- fairness --------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [1, 3])
async def test_an_account_with_1000_waiting_delays_another_by_one_turn_at_most(total: int) -> None:
    limit = ConcurrencyLimit(total)
    users = Users(limit, total, {"many": 1000, "one": 1, "holder": total})
    for _ in range(total):
        users.come("holder")
    await turns()
    for _ in range(1000):
        users.come("many")
    users.come("one")
    await turns()
    await users.all_leave()
    assert users.order[total : total + 2] == ["many", "one"]


async def test_accounts_that_all_wait_take_turns() -> None:
    limit = ConcurrencyLimit(1)
    users = Users(limit, 1, dict.fromkeys(ACCOUNTS, 9))
    for account in ("a", *"aaa", *"bbb", *"cc"):
        users.come(account)
    await turns()
    await users.all_leave()
    assert users.order == list("abcabcaba")


async def test_giving_up_again_and_again_earns_no_turns() -> None:
    """Whoever asked a thousand times, and left, has one turn like everybody else."""
    limit = ConcurrencyLimit(1)
    users = Users(limit, 1, {"holder": 1, "hasty": 9, "one": 9})
    users.come("holder")
    await turns()
    for _ in range(1000):
        hasty = users.come("hasty")
        await asyncio.sleep(0)
        hasty.cancel()
        await asyncio.wait([hasty])
    users.come("one")
    await turns()
    for _ in range(5):
        users.come("hasty")
    await turns()
    await users.all_leave()
    assert users.order[:3] == ["holder", "one", "hasty"]


async def test_a_few_accounts_that_hang_do_not_stop_the_rest() -> None:
    """A quarter of the slots is for those who have none, one for each."""
    limit = ConcurrencyLimit(8)
    users = Users(limit, 8, dict.fromkeys("abc", 8))
    for account in ("a",) * 20 + ("b",) * 20:
        users.come(account)
    await turns()
    assert users.used == Counter(a=6, b=1)
    for _ in range(20):
        users.come("c")
    await turns()
    assert users.used == Counter(a=6, b=1, c=1)
    await users.all_leave()


async def test_within_an_account_it_is_first_come_first_served() -> None:
    limit, order = ConcurrencyLimit(1), []

    async def use(number: int) -> None:
        await limit.acquire("a")
        order.append(number)
        limit.release("a")

    await limit.acquire("a")
    waiters = [asyncio.create_task(use(number)) for number in range(20)]
    await turns()
    waiters[3].cancel()
    await turns()
    limit.release("a")
    await asyncio.wait(waiters)
    assert order == [number for number in range(20) if number != 3]


async def test_a_slot_that_comes_together_with_the_cancellation_is_passed_on() -> None:
    limit = ConcurrencyLimit(1)
    await limit.acquire("a")
    first, second = (asyncio.create_task(limit.acquire("a")) for _ in range(2))
    await turns()
    limit.release("a")
    first.cancel()
    await asyncio.wait([first, second], timeout=1)
    assert first.cancelled()
    assert second.done()
    limit.release("a")
    assert await is_as_new(limit, 1)


# -- clients ---------------------------------------------------------------------------------------

NAMES = ("dealer-1", "dealer-2", "dealer-3")


@pytest.fixture
async def busy(tls: Tls) -> Any:
    """A sandbox of three accounts whose `/busy` answers when as many as can be are under way."""
    accounts = [SandboxAccount(username=name) for name in NAMES]
    async with Sandbox(accounts=accounts) as sandbox:
        yield Busy(sandbox)


class Busy:
    """Answers only when nothing more has come for a few turns of the loop."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.held = 0
        self.most = 0
        self._go = asyncio.Event()
        sandbox.answers("GET", "/busy", self._answer)

    async def _answer(self, seen: Seen) -> Any:
        self.held += 1
        self.most = max(self.most, self.held)
        await self._go.wait()
        self.held -= 1
        return {}

    async def until(self, held: int) -> None:
        """Let so many come, and then a while for one too many; then all are answered."""
        async with asyncio.timeout(20):
            while self.held < held:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        self._go.set()

    def client(self, name: str, **arguments: Any) -> AF10Client:
        account = next(each for each in self.sandbox.accounts if each.username == name)
        return AF10Client(
            base_url=self.sandbox.base_url,
            api_key=account.api_key,
            username=name,
            password=account.password,
            **arguments,
        )


async def test_a_client_has_at_most_so_many_requests_under_way(busy: Busy) -> None:
    async with busy.client("dealer-1", max_concurrency=7) as client:
        calls = [asyncio.create_task(client.get("/busy")) for _ in range(40)]
        await busy.until(7)
        await asyncio.gather(*calls)
    assert busy.sandbox.most_concurrent("dealer-1") == 7


async def test_all_clients_of_a_loop_share_the_total_and_a_quarter_is_for_newcomers(
    busy: Busy,
) -> None:
    async with (
        busy.client(NAMES[0]) as first,
        busy.client(NAMES[1]) as second,
        busy.client(NAMES[2]) as third,
    ):
        clients = (first, second, third)
        for client in clients:
            await client.authenticate()
        calls = [asyncio.create_task(client.get("/busy")) for client in clients for _ in range(120)]
        await busy.until(ROOM)
        await asyncio.gather(*calls)
    assert ROOM <= busy.sandbox.most_concurrent() <= ROOM + len(clients)
    assert max(busy.sandbox.most_concurrent(name) for name in NAMES) == 100


async def test_every_loop_has_a_limit_of_its_own() -> None:
    async def limit() -> ConcurrencyLimit:
        assert ConcurrencyLimit.of_this_loop() is ConcurrencyLimit.of_this_loop()
        return ConcurrencyLimit.of_this_loop()

    other = await asyncio.to_thread(lambda: asyncio.run(limit()))
    assert other is not ConcurrencyLimit.of_this_loop()


@pytest.mark.parametrize("most", [0, -1])
def test_nothing_at_a_time_makes_no_sense(most: int) -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        ConcurrencyLimit(most)
    with pytest.raises(ConfigurationError, match="max_concurrency"):
        AF10Client(
            base_url="https://api.example.com",
            api_key="k",
            username="u",
            password="p",
            max_concurrency=most,
        )


async def test_a_client_that_is_busy_is_no_obstacle_for_others(
    make_caller: ClientMaker, sandbox: Sandbox
) -> None:
    """The slots of one account are its own: another need not wait for them."""
    go = asyncio.Event()

    async def hold(seen: Seen) -> Any:
        await go.wait()
        return {}

    sandbox.answers("GET", "/hold", hold)
    sandbox.answers("GET", "/thing", {"data": 1})
    async with make_caller(max_concurrency=2) as busy, make_caller(organization_name="x") as other:
        calls = [asyncio.create_task(busy.get("/hold")) for _ in range(50)]
        await turns()
        assert await asyncio.wait_for(other.get("/thing"), 10) == {"data": 1}
        go.set()
        await asyncio.gather(*calls)
