"""What every store promises, tested on each of them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from af10_async.protocol.lifecycle import (
    CALLBACK_STEP,
    MAX_SECRETS,
    ORPHAN_VERSION,
    Accepted,
    Adopted,
    CalledBack,
    Collected,
    Effect,
    Event,
    FileComplete,
    FileOnDisk,
    JobRecord,
    JobState,
    LifeEnded,
    PayloadReceived,
    Refused,
    SecretRefused,
    Transition,
    advance,
    orphan,
)
from af10_async.stores import MemoryStore, Store, open_store

from .places import KINDS, SHARED, Clock, Kind

T = TypeVar("T")


KEY, OTHER_KEY = "a" * 48, "b" * 48
ACCOUNT, OTHER_ACCOUNT = "1" * 32, "2" * 32


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=sorted(KINDS))
async def store(
    request: pytest.FixtureRequest, clock: Clock, tmp_path: Path
) -> AsyncIterator[Store]:
    made = KINDS[request.param].place(tmp_path)(clock)
    await made.open()
    yield made
    await made.close()


@pytest.fixture(params=SHARED)
async def pair(
    request: pytest.FixtureRequest, clock: Clock, tmp_path: Path
) -> AsyncIterator[tuple[Store, Store]]:
    """Two stores over the same records, as two processes have them."""
    make = KINDS[request.param].place(tmp_path)
    first, second = make(clock), make(clock)
    await first.open()
    await second.open()
    yield first, second
    await first.close()
    await second.close()


def record_of(key: str = KEY, account: str = ACCOUNT, life: float = 3600.0) -> JobRecord:
    now = Clock().now
    return JobRecord(key, account, "POST", "/backup/owner", True, now, now + life)


async def keys_of(store: Store, account: str) -> set[str]:
    return {record.key async for record in store.unfinished(account)}


async def turns() -> None:
    """Let everything that can go on go on."""
    for _ in range(5):
        await asyncio.sleep(0)


async def settled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait until all are done; a store that asks another process may take its time."""
    found = list(tasks)
    if found:
        _, pending = await asyncio.wait(found, timeout=20)
        assert not pending, "not woken"


# -- one call after another ------------------------------------------------------------------------


async def test_a_record_comes_back_as_it_was_added(store: Store) -> None:
    record = replace(
        record_of(),
        state=JobState.READY,
        start_certain=True,
        secrets=("one", "two"),
        refused=("three",),
        payload='{"url": "https://files.example/\\u00e9"}',
        failure=None,
        uncollected=True,
        file=FileOnDisk("/backups/\u00e9.zip", 5, "00ff"),
        version=7,
    )
    await store.add(record)
    assert await store.get(KEY) == record
    assert await store.get(OTHER_KEY) is None


async def test_a_second_record_under_a_key_is_refused_and_the_first_stays(store: Store) -> None:
    await store.add(record_of())
    with pytest.raises(KeyError):
        await store.add(record_of(account=OTHER_ACCOUNT))
    assert await store.get(KEY) == record_of()


async def test_an_event_does_what_the_lifecycle_says_and_is_kept(store: Store) -> None:
    await store.add(record_of())
    expected = record_of()
    for event in (
        Accepted(1.0),
        CalledBack(2.0, "forged"),
        CalledBack(2.0, "genuine"),
        CalledBack(2.0, "genuine"),
        SecretRefused(3.0, "forged"),
        PayloadReceived(Clock().now, "{}", "genuine"),  # it lives for a while from then on
        CalledBack(5.0, "late"),
    ):
        transition = advance(expected, event)
        assert await store.apply(KEY, event) == transition
        expected = transition.record
        assert await store.get(KEY) == expected


async def test_an_event_for_a_key_without_a_record_is_none_and_makes_no_record(
    store: Store,
) -> None:
    assert await store.apply(KEY, CalledBack(1.0, "secret")) is None
    assert await store.get(KEY) is None


async def test_a_secret_for_which_there_is_no_room_leaves_the_record_as_it_is(
    store: Store,
) -> None:
    await store.add(record_of())
    for number in range(MAX_SECRETS):
        await store.apply(KEY, CalledBack(1.0, f"secret {number}"))
    before = await store.get(KEY)
    transition = await store.apply(KEY, CalledBack(1.0, "one more"))
    assert transition is not None
    assert transition.effect is Effect.FULL
    assert await store.get(KEY) == before


async def test_an_orphan_is_kept_and_its_repetition_changes_nothing(store: Store) -> None:
    found = orphan(KEY, "secret", Clock().now, 60.0)
    assert await store.add_orphan(found) == Transition(found, Effect.CHANGED)
    assert await store.get(KEY) == found
    assert (await store.add_orphan(found)).effect is Effect.UNCHANGED
    assert await store.get(KEY) == found


async def test_an_orphan_whose_record_came_in_between_gives_it_its_secret(store: Store) -> None:
    await store.add(record_of())
    transition = await store.add_orphan(orphan(KEY, "secret", Clock().now, 60.0))
    assert transition.effect is Effect.CHANGED
    kept = await store.get(KEY)
    assert kept == transition.record
    assert (kept.account, kept.secrets, kept.version) == (ACCOUNT, ("secret",), CALLBACK_STEP)


async def test_a_removed_record_is_gone_and_removing_it_again_does_nothing(store: Store) -> None:
    await store.add(record_of())
    assert await store.remove(KEY, 0)
    assert not await store.remove(KEY, 0)
    assert await store.get(KEY) is None
    await store.add(record_of())  # its key is free again


async def test_a_record_that_has_changed_meanwhile_is_not_removed(store: Store) -> None:
    """Else a callback that came in between would be lost."""
    await store.add(record_of())
    await store.apply(KEY, CalledBack(1.0, "secret"))
    assert not await store.remove(KEY, 0)
    kept = await store.get(KEY)
    assert kept is not None
    assert kept.secrets == ("secret",)


async def test_unfinished_lists_one_accounts_jobs_that_something_can_still_come_of(
    store: Store,
) -> None:
    events: dict[str, Event | None] = {
        "registered": None,
        "accepted": Accepted(1.0),
        "called back": CalledBack(1.0, "secret"),
        "to be saved": PayloadReceived(Clock().now, "{}", is_file=True),
        "ready": PayloadReceived(Clock().now, "{}"),
        "failed": Refused(Clock().now, "no"),
        "expired": LifeEnded(Clock().now),
    }
    for key, event in events.items():
        await store.add(record_of(key))
        if event is not None:
            await store.apply(key, event)
    await store.add(record_of("another's", OTHER_ACCOUNT))
    await store.add_orphan(orphan("orphan", "secret", Clock().now, 60.0))

    left = {"registered", "accepted", "called back", "to be saved"}
    assert await keys_of(store, ACCOUNT) == left
    every = {record.key async for record in store.records()}
    assert every == {*events, "another's", "orphan"}

    await store.apply("to be saved", Collected(Clock().now))
    left.remove("to be saved")
    assert await keys_of(store, ACCOUNT) == left
    assert await keys_of(store, OTHER_ACCOUNT) == {"another's"}
    assert await keys_of(store, "nobody") == set()


async def test_unfinished_may_be_left_early_and_changed_meanwhile(store: Store) -> None:
    for number in range(5):
        await store.add(record_of(f"{number}"))
    async for record in store.unfinished(ACCOUNT):
        await store.remove(record.key, record.version)
    assert await keys_of(store, ACCOUNT) == set()


async def test_the_first_callback_secret_is_kept(store: Store) -> None:
    assert await store.callback_secret(b"first") == b"first"
    assert await store.callback_secret(b"second") == b"first"


async def test_opening_and_closing_twice_does_nothing_and_the_records_stay(store: Store) -> None:
    await store.open()
    await store.add(record_of())
    await store.callback_secret(b"secret")
    await store.close()
    await store.close()
    await store.open()
    assert await store.get(KEY) == record_of()
    assert await store.callback_secret(b"other") == b"secret"


async def test_records_whose_time_is_over_are_swept(store: Store, clock: Clock) -> None:
    await store.add(record_of("short", life=60.0))
    await store.add(record_of("long", life=7200.0))
    waiter = asyncio.create_task(store.changed("short", 0))
    await turns()

    clock.now += 3600.0

    assert await store.get("long") is not None  # a look gives the store a chance to sweep
    assert await store.get("short") is None
    assert await store.get("long") is not None
    assert await keys_of(store, ACCOUNT) == {"long"}
    assert await waiter is None
    await store.add(record_of("short"))  # its key is free again


# -- at the same time ------------------------------------------------------------------------------


async def test_of_many_that_record_the_same_secret_at_once_one_changes_the_record(
    store: Store,
) -> None:
    await store.add(record_of())
    found = await asyncio.gather(*(store.apply(KEY, CalledBack(1.0, "it")) for _ in range(20)))
    effects = [transition.effect for transition in found if transition is not None]
    assert sorted(effects) == [Effect.CHANGED] + [Effect.UNCHANGED] * 19


async def test_of_many_orphans_under_one_key_one_makes_the_record_and_all_are_kept(
    store: Store,
) -> None:
    secrets = [f"secret {number}" for number in range(MAX_SECRETS)]
    found = [orphan(KEY, secret, Clock().now, 60.0) for secret in secrets]
    await asyncio.gather(*(store.add_orphan(each) for each in found))
    record = await store.get(KEY)
    assert record is not None
    assert sorted(record.secrets) == secrets
    assert record.version == ORPHAN_VERSION + (MAX_SECRETS - 1) * CALLBACK_STEP


async def test_changed_returns_at_once_when_the_version_is_another_or_there_is_no_record(
    store: Store,
) -> None:
    assert await store.changed(KEY, 0) is None
    await store.add(record_of())
    assert await store.changed(KEY, 5) == record_of()


async def test_every_waiter_is_woken_by_a_change_and_by_nothing_else(store: Store) -> None:
    await store.add(record_of())
    await store.add(record_of(OTHER_KEY))
    waiters = [asyncio.create_task(store.changed(KEY, 0)) for _ in range(3)]
    other = asyncio.create_task(store.changed(OTHER_KEY, 0))
    await turns()
    await store.apply(OTHER_KEY, SecretRefused(1.0, "unknown"))  # changes nothing
    await turns()
    assert not any(task.done() for task in [*waiters, other])

    transition = await store.apply(KEY, CalledBack(1.0, "secret"))
    assert transition is not None
    assert await asyncio.gather(*waiters) == [transition.record] * 3
    assert not other.done()

    assert await store.remove(OTHER_KEY, 0)
    assert await other is None


# -- leases ----------------------------------------------------------------------------------------


async def test_a_new_job_is_leased_until_it_is_released(store: Store) -> None:
    await store.add(record_of())
    assert not await store.lease(KEY)
    store.release(KEY)
    assert await store.lease(KEY)
    assert not await store.lease(KEY)


async def test_of_many_who_ask_for_a_lease_at_once_one_gets_it(store: Store) -> None:
    await store.add_orphan(orphan(KEY, "secret", Clock().now, 60.0))
    found = await asyncio.gather(*(store.lease(KEY) for _ in range(20)))
    assert sorted(found) == [False] * 19 + [True]


async def test_there_is_no_lease_of_what_is_not_there(store: Store) -> None:
    assert not await store.lease(KEY)
    store.release(KEY)
    await store.add(record_of())
    await store.remove(KEY, 0)
    assert not await store.lease(KEY)


async def test_closing_a_store_ends_its_leases(store: Store) -> None:
    await store.add(record_of())
    await store.close()
    await store.open()
    assert await store.lease(KEY)


async def test_a_lease_changes_nothing_about_the_record_and_wakes_nobody(store: Store) -> None:
    await store.add(record_of())
    waiter = asyncio.create_task(store.changed(KEY, 0))
    store.release(KEY)
    assert await store.lease(KEY)
    assert await store.get(KEY) == record_of()
    await turns()
    assert not waiter.done()
    waiter.cancel()
    await asyncio.wait([waiter])


async def test_a_lease_outlives_the_changes_of_its_record(store: Store) -> None:
    await store.add(record_of())
    await store.apply(KEY, Accepted(1.0))
    assert not await store.lease(KEY)


async def test_a_cancelled_waiter_does_not_disturb_the_others(store: Store) -> None:
    await store.add(record_of())
    first, second = (asyncio.create_task(store.changed(KEY, 0)) for _ in range(2))
    await turns()
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    assert first.cancelled()
    assert not second.done()
    await store.apply(KEY, Accepted(1.0))
    assert await second is not None


async def test_a_change_that_comes_together_with_a_cancel_is_in_the_store(store: Store) -> None:
    await store.add(record_of())
    waiter = asyncio.create_task(store.changed(KEY, 0))
    await turns()
    await store.apply(KEY, CalledBack(1.0, "secret"))
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    record = await store.changed(KEY, 0)
    assert record is not None
    assert record.secrets == ("secret",)


async def test_changes_in_quick_succession_are_seen_as_the_latest(store: Store) -> None:
    await store.add(record_of())
    waiter = asyncio.create_task(store.changed(KEY, 0))
    await turns()
    for secret in ("one", "two", "three"):
        await store.apply(KEY, CalledBack(1.0, secret))
    record = await waiter
    while (
        record is not None and len(record.secrets) < 3
    ):  # a waiter may be quicker than its changer
        record = await store.changed(KEY, record.version)
    assert record is not None
    assert record.secrets == ("one", "two", "three")


async def test_a_store_forgets_its_waiters(store: Store) -> None:
    waiters: Any = store
    await store.add(record_of())
    tasks = [asyncio.create_task(store.changed(KEY, 0)) for _ in range(100)]
    for _ in range(200):
        await asyncio.sleep(0.005)
        if KEY in waiters._waiters:
            break
    for task in tasks[1:]:
        task.cancel()
    for _ in range(200):  # one that looks again just now is in no list for a turn
        await asyncio.sleep(0.005)
        if waiters._waiters.keys == [KEY]:
            break
    else:
        pytest.fail("the last waiter is not known")
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not waiters._waiters


# -- two stores over the same records --------------------------------------------------------------


async def test_what_one_store_keeps_the_other_has(pair: tuple[Store, Store]) -> None:
    first, second = pair
    await first.add(record_of())
    assert await second.get(KEY) == record_of()
    with pytest.raises(KeyError):
        await second.add(record_of())
    assert await first.callback_secret(b"first") == b"first"
    assert await second.callback_secret(b"second") == b"first"
    assert await second.remove(KEY, 0)
    assert await first.get(KEY) is None


async def test_of_two_stores_that_record_the_same_secret_at_once_one_changes_the_record(
    pair: tuple[Store, Store],
) -> None:
    await pair[0].add(record_of())
    calls = [store.apply(KEY, CalledBack(1.0, "it")) for store in pair for _ in range(10)]
    found = await asyncio.gather(*calls)
    effects = [transition.effect for transition in found if transition is not None]
    assert sorted(effects) == [Effect.CHANGED] + [Effect.UNCHANGED] * 19


async def test_a_waiter_at_one_store_is_woken_by_a_change_at_the_other(
    pair: tuple[Store, Store],
) -> None:
    first, second = pair
    await first.add(record_of())
    await first.add(record_of(OTHER_KEY))
    waiter = asyncio.create_task(first.changed(KEY, 0))
    other = asyncio.create_task(first.changed(OTHER_KEY, 0))
    await asyncio.sleep(0.05)
    assert not waiter.done()
    transition = await second.apply(KEY, CalledBack(1.0, "secret"))
    assert transition is not None
    assert await waiter == transition.record
    assert not other.done()
    assert await second.remove(OTHER_KEY, 0)
    assert await other is None


async def test_of_two_stores_one_gets_the_lease_and_closing_gives_it_to_the_other(
    pair: tuple[Store, Store],
) -> None:
    first, second = pair
    await first.add(record_of())
    assert not await second.lease(KEY)
    await first.close()
    assert await second.lease(KEY)
    await first.open()
    assert not await first.lease(KEY)
    second.release(KEY)
    for _ in range(200):  # a release is not awaited
        if await first.lease(KEY):
            break
        await asyncio.sleep(0.01)
    else:
        pytest.fail("never released")
    assert not await second.lease(KEY)


def test_a_store_is_opened_by_its_url() -> None:
    assert isinstance(open_store("memory:"), MemoryStore)
    for url in ("", "memory", "ftp://x"):
        with pytest.raises(ValueError, match="the store must be"):
            open_store(url)


# -- any order at all ------------------------------------------------------------------------------

KEYS = st.sampled_from(["k1", "k2", "k3"])
ACCOUNTS = st.sampled_from([ACCOUNT, OTHER_ACCOUNT])
SECRETS = st.sampled_from([f"secret {number}" for number in range(MAX_SECRETS + 2)])


class StoreMachine(RuleBasedStateMachine):
    """A store beside a dictionary that `advance` alone changes: they never differ."""

    kind: Kind

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.folder = tempfile.TemporaryDirectory()
        self.model: dict[str, JobRecord] = {}
        self.waiters: list[tuple[str, int, asyncio.Task[JobRecord | None]]] = []
        self.runner = asyncio.Runner()
        self.store = type(self).kind.place(Path(self.folder.name))(self.clock)
        self.run(self.store.open())

    def run(self, step: Awaitable[T]) -> T:
        async def run() -> T:
            result = await step
            await turns()
            return result

        return self.runner.run(run())

    @rule(key=KEYS, account=ACCOUNTS, life=st.sampled_from([100.0, 1e6]))
    def add(self, key: str, account: str, life: float) -> None:
        now = self.clock.now
        record = JobRecord(key, account, "POST", "/x", False, now, now + life)
        if key in self.model:
            with pytest.raises(KeyError):
                self.run(self.store.add(record))
        else:
            self.run(self.store.add(record))
            self.model[key] = record

    def happen(self, key: str, event: Event) -> None:
        found = self.run(self.store.apply(key, event))
        if key not in self.model:
            assert found is None
            return
        expected = advance(self.model[key], event)
        assert found == expected
        self.model[key] = expected.record

    @rule(key=KEYS)
    def accepted(self, key: str) -> None:
        self.happen(key, Accepted(self.clock.now))

    @rule(key=KEYS, secret=SECRETS)
    def called_back(self, key: str, secret: str) -> None:
        self.happen(key, CalledBack(self.clock.now, secret))

    @rule(key=KEYS, secret=SECRETS)
    def secret_refused(self, key: str, secret: str) -> None:
        self.happen(key, SecretRefused(self.clock.now, secret))

    @rule(key=KEYS, secret=st.none() | SECRETS, payload=st.sampled_from(["1", "2"]))
    def payload_received(self, key: str, secret: str | None, payload: str) -> None:
        self.happen(key, PayloadReceived(self.clock.now, payload, secret, is_file=payload == "2"))

    @rule(key=KEYS, collected=st.booleans())
    def saved(self, key: str, collected: bool) -> None:
        now = self.clock.now
        file = FileOnDisk("/backup.zip", 1, "00")
        self.happen(key, Collected(now) if collected else FileComplete(now, file))

    @rule(key=KEYS, account=ACCOUNTS)
    def adopted(self, key: str, account: str) -> None:
        self.happen(key, Adopted(self.clock.now, account, "POST", "/y", expects_file=True))

    @rule(key=KEYS, refused=st.booleans())
    def ended(self, key: str, refused: bool) -> None:
        now = self.clock.now
        self.happen(key, Refused(now, "no") if refused else LifeEnded(now))

    @rule(key=KEYS, secret=SECRETS)
    def orphaned(self, key: str, secret: str) -> None:
        found = orphan(key, secret, self.clock.now, 100.0)
        expected = Transition(found, Effect.CHANGED)
        if key in self.model:
            expected = advance(self.model[key], CalledBack(self.clock.now, secret))
        assert self.run(self.store.add_orphan(found)) == expected
        self.model[key] = expected.record

    @rule(key=KEYS, behind=st.sampled_from([0, 0, 1]))
    def remove(self, key: str, behind: int) -> None:
        known = self.model.get(key)
        version = known.version - behind if known else 0
        is_there = known is not None and behind == 0
        assert self.run(self.store.remove(key, version)) is is_there
        if is_there:
            del self.model[key]

    @rule(key=KEYS, behind=st.sampled_from([0, 0, 0, 1]))
    def wait(self, key: str, behind: int) -> None:
        version = self.model[key].version - behind if key in self.model else 0

        async def start() -> asyncio.Task[JobRecord | None]:
            return asyncio.create_task(self.store.changed(key, version))

        self.waiters.append((key, version, self.run(start())))

    @precondition(lambda self: self.waiters)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.waiters) - 1))
        _, _, task = self.waiters.pop(number)
        task.cancel()
        self.run(asyncio.wait([task]))
        assert task.cancelled()

    @rule(seconds=st.sampled_from([61.0, 90_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        assert self.run(self.store.get("nobody")) is None  # a look gives the store a chance
        now = self.clock.now
        self.model = {key: each for key, each in self.model.items() if each.expires_at > now}

    @invariant()
    def the_records_are_the_same(self) -> None:
        async def check() -> None:
            for key in ("k1", "k2", "k3"):
                assert await self.store.get(key) == self.model.get(key)
            for account in (ACCOUNT, OTHER_ACCOUNT):
                of_account = [each for each in self.model.values() if each.account == account]
                unfinished = {each.key for each in of_account if each.is_unfinished}
                assert await keys_of(self.store, account) == unfinished

        self.runner.run(check())

    @invariant()
    def exactly_those_are_woken_whose_record_changed(self) -> None:
        waiting: list[tuple[str, int, asyncio.Task[JobRecord | None]]] = []
        woken: list[tuple[str, int, asyncio.Task[JobRecord | None]]] = []
        for key, version, task in self.waiters:
            record = self.model.get(key)
            is_same = record is not None and record.version == version
            (waiting if is_same else woken).append((key, version, task))
        self.runner.run(settled(task for _, _, task in woken))
        for key, _, task in woken:
            result = task.result()
            assert result is None or result.key == key
        assert not any(task.done() for _, _, task in waiting)
        self.waiters = waiting

    def teardown(self) -> None:
        for _, _, task in self.waiters:
            task.cancel()
        self.run(self.store.close())
        waiters: Any = self.store
        assert not waiters._waiters
        self.runner.close()
        self.folder.cleanup()


def _test_case(name: str) -> Any:
    machine: Any = type(f"Machine_{name}", (StoreMachine,), {"kind": KINDS[name]})
    case = machine.TestCase
    case.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
    return case


TestMemoryStore = _test_case("memory")
TestSqliteStore = _test_case("sqlite")
TestValkeyStore = _test_case("valkey")
