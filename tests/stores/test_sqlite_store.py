"""What is the SQLite store's own: its file, its journal, its thread."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sqlite3
import sys
import threading
from asyncio.subprocess import DEVNULL, create_subprocess_exec
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from af10_async.errors import StoreError
from af10_async.protocol.lifecycle import (
    Accepted,
    CalledBack,
    Effect,
    JobRecord,
    PayloadReceived,
    orphan,
)
from af10_async.protocol.records import decode, encode
from af10_async.stores import sqlite_file
from af10_async.stores.base import SESSION_SECONDS
from af10_async.stores.sqlite import SqliteStore
from af10_async.stores.sqlite_file import journal_mode

from .places import Clock
from .processes import workers
from .test_store_contract import turns
from .worker import record_of

OLD, FIXED = (3, 40, 1), (3, 51, 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(path, patience=0.05, poll=0.005)
    await made.open()
    yield made
    await made.close()


async def on(store: SqliteStore, statement: str) -> Any:
    """What a statement gives on the store's own connection."""
    asked = store._ask(lambda transaction: transaction.connection.execute(statement).fetchone())
    return (await asked)[0]


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def refused(path: Path, match: str, **arguments: Any) -> StoreError:
    """The error of opening it; nothing of the store is left, and what was there is as before."""
    before = path.read_bytes() if path.is_file() else None
    store = SqliteStore(path, patience=0.05, **arguments)
    with pytest.raises(StoreError, match=match) as caught:
        await store.open()
    if before is not None:
        assert path.read_bytes() == before
    assert str(path) in str(caught.value)
    await store.close()
    with pytest.raises(StoreError, match="not open"):
        await store.get("key")
    return caught.value


# -- the file --------------------------------------------------------------------------------------


async def test_the_file_its_folders_and_its_journal_are_their_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "one" / "two" / "jobs.db"
    store = SqliteStore(path)
    old_mask = os.umask(0)
    try:
        await store.open()
        await store.add(record_of("key"))
    finally:
        os.umask(old_mask)
    assert mode_of(path) == 0o600
    assert mode_of(path.parent) == mode_of(path.parent.parent) == 0o700
    assert {each.name: mode_of(each) for each in path.parent.iterdir()} == {
        "jobs.db": 0o600,
        "jobs.db-journal": 0o600,
    }
    await store.close()


async def test_the_log_of_a_file_in_wal_mode_is_its_owners_only(path: Path) -> None:
    store = SqliteStore(path, sqlite_version=FIXED)
    await store.open()
    await store.add(record_of("key"))
    names = {each.name: mode_of(each) for each in path.parent.iterdir()}
    assert names == {"jobs.db": 0o600, "jobs.db-wal": 0o600, "jobs.db-shm": 0o600}
    await store.close()
    assert [each.name for each in path.parent.iterdir()] == ["jobs.db"]


async def test_a_file_that_others_can_read_is_made_private_with_a_warning(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.close()
    path.chmod(0o644)
    await store.open()
    await store.close()
    assert mode_of(path) == 0o600
    [warning] = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert str(path) in warning.getMessage()


async def test_a_path_may_start_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store = SqliteStore("~/jobs?#%20é.db")
    await store.open()
    await store.close()
    assert [each.name for each in tmp_path.iterdir() if each.suffix == ".db"] == ["jobs?#%20é.db"]


async def test_of_many_processes_that_make_the_file_at_once_all_use_the_same(path: Path) -> None:
    async with workers(f"sqlite:{path}", 3) as running:
        answers = await asyncio.gather(*(each.tell("add", "the same") for each in running))
    assert sorted(answers) == [False] * 2 + [True]
    assert not [each.name for each in path.parent.iterdir() if each.name.endswith(".new")]


async def test_a_process_that_is_killed_while_it_makes_the_file_leaves_none(path: Path) -> None:
    """The file has its name only when it is whole."""
    script = (
        "import os, sys; from pathlib import Path; from af10_async.stores import sqlite_file as f\n"
        "f._flush = lambda file: os._exit(9)\n"
        f"f.connect(Path({str(path)!r}), (3, 40, 1), 1.0)"
    )
    process = await create_subprocess_exec(sys.executable, "-c", script, stdin=DEVNULL)
    assert await process.wait() == 9
    assert not path.exists()
    store = SqliteStore(path)
    await store.open()
    await store.close()


async def test_where_there_are_no_hard_links_the_file_is_made_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    store = SqliteStore(path)
    await store.open()
    await store.add(record_of("key"))
    await store.close()
    await store.open()
    assert await store.get("key") == record_of("key")
    await store.close()


def _foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")


def _newer(path: Path) -> None:
    sqlite_file.connect(path, OLD, 1.0).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def _damaged(path: Path) -> None:
    sqlite_file.connect(path, OLD, 1.0).close()
    content = bytearray(path.read_bytes())
    content[100:2000] = b"\xff" * 1900
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_foreign, "something else"),
        (_newer, "newer release"),
        (_damaged, "is damaged"),
        (lambda path: path.write_text("dear diary\n" * 500), "no store of ours"),
        (lambda path: path.touch(), "is empty"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.symlink_to(path), "leads nowhere|symbolic links"),
    ],
    ids=["foreign", "newer", "damaged", "text", "empty", "folder", "link to itself"],
)
async def test_what_is_no_store_of_ours_is_refused_and_left_as_it_is(
    path: Path, make: Callable[[Path], Any], says: str
) -> None:
    make(path)
    error = await refused(path, says)
    assert not error.retryable


async def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = await refused(tmp_path / "file" / "jobs.db", "cannot be opened")
    assert not error.retryable


async def test_damage_in_the_middle_is_an_error_and_no_crash(path: Path) -> None:
    store = SqliteStore(path, patience=0.05)
    await store.open()
    for number in range(50):
        await store.add(record_of(f"{number}"))
    await store.close()
    content = bytearray(path.read_bytes())
    content[4096 * 2 :] = b"\x55" * len(content[4096 * 2 :])
    path.write_bytes(content)
    await store.open()
    with pytest.raises(StoreError, match="is damaged") as caught:
        await store.get("7")
    assert not caught.value.retryable
    await store.close()


async def test_a_store_of_the_first_schema_is_brought_up_to_date_with_all_it_has(
    path: Path,
) -> None:
    known = record_of("key")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        sqlite_file.migrate(connection, path, steps=1)
        connection.execute(
            "INSERT INTO jobs (key, account, unfinished, expires_at, record)"
            " VALUES (?, ?, 1, ?, ?)",
            (known.key, known.account, known.expires_at, encode(known)),
        )
        connection.execute("INSERT INTO meta VALUES ('callback secret', ?)", (b"kept",))
    store = SqliteStore(path)
    await store.open()
    assert await store.get("key") == known
    assert [each async for each in store.unfinished(known.account or "")] == [known]
    assert await store.callback_secret(b"another") == b"kept"
    assert await store.lease("key")
    assert await on(store, "PRAGMA user_version") == len(sqlite_file._STEPS)
    await store.close()


async def test_a_record_of_a_newer_release_is_an_error_for_itself_only(
    store: SqliteStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for key in ("old", "new"):
        await store.add(record_of(key))
        store.release(key)
    await store.get("new")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE jobs SET record = '{\"1\":99}' WHERE key = 'new'")
    calls: list[Any] = [
        store.get("new"),
        store.apply("new", Accepted(1.0)),
        store.lease("new"),
        store.apply("old", Accepted(1.0)),
    ]
    found: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
    for each in found[:3]:
        assert isinstance(each, StoreError)
        assert "upgrade" in str(each)
        assert not each.retryable
    assert found[3].effect is Effect.CHANGED
    assert [each.key async for each in store.records()] == ["old"]
    assert any("left out" in each.getMessage() for each in caplog.records)


# -- the journal -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "mode"),
    [
        ((3, 31, 0), "TRUNCATE"),
        ((3, 40, 1), "TRUNCATE"),
        ((3, 44, 5), "TRUNCATE"),
        ((3, 44, 6), "WAL"),
        ((3, 45, 0), "TRUNCATE"),
        ((3, 50, 6), "TRUNCATE"),
        ((3, 50, 7), "WAL"),
        ((3, 51, 0), "TRUNCATE"),
        ((3, 51, 2), "TRUNCATE"),
        ((3, 51, 3), "WAL"),
        ((3, 52, 0), "WAL"),
        ((4, 0, 0), "WAL"),
    ],
)
def test_wal_is_for_those_versions_only_that_do_not_damage_it(
    version: tuple[int, int, int], mode: str
) -> None:
    assert journal_mode(version) == mode


@pytest.mark.parametrize("version", [OLD, FIXED])
async def test_a_commit_survives_a_power_failure(path: Path, version: Any) -> None:
    store = SqliteStore(path, sqlite_version=version)
    await store.open()
    assert await on(store, "PRAGMA synchronous") == 2  # FULL
    assert await on(store, "PRAGMA journal_mode") == journal_mode(version).lower()
    await store.close()


async def test_a_file_with_a_rollback_journal_keeps_it(path: Path) -> None:
    """Nobody can know that no process with an older SQLite has it open."""
    for version in (OLD, FIXED):
        store = SqliteStore(path, sqlite_version=version)
        await store.open()
        assert await on(store, "PRAGMA journal_mode") == "truncate"
        await store.close()


async def test_a_file_in_wal_mode_is_changed_by_an_older_sqlite_that_is_alone(path: Path) -> None:
    newer = SqliteStore(path, sqlite_version=FIXED)
    await newer.open()
    await newer.add(record_of("key"))
    await newer.close()
    older = SqliteStore(path, sqlite_version=OLD)
    await older.open()
    assert await on(older, "PRAGMA journal_mode") == "truncate"
    assert await older.get("key") == record_of("key")
    await older.close()


async def test_a_file_in_wal_mode_that_is_in_use_is_refused_by_an_older_sqlite(path: Path) -> None:
    newer = SqliteStore(path, sqlite_version=FIXED)
    await newer.open()
    await newer.add(record_of("key"))
    error = await refused(path, r"3\.40\.1.*stop that process", sqlite_version=OLD)
    assert not error.retryable
    assert await newer.get("key") == record_of("key")
    await newer.close()


# -- trouble that passes ---------------------------------------------------------------------------


async def test_a_locked_file_is_a_passing_trouble(store: SqliteStore, path: Path) -> None:
    await store.add(record_of("key"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        calls: list[Any] = [store.get("key"), store.apply("key", CalledBack(1.0, "secret"))]
        found = await asyncio.gather(*calls, return_exceptions=True)
        other.execute("COMMIT")
    for each in found:
        assert isinstance(each, StoreError)
        assert each.retryable
        assert "locked" in str(each)
    assert found[0] is not found[1]
    assert await store.get("key") == record_of("key")
    transition = await store.apply("key", CalledBack(1.0, "secret"))
    assert transition is not None
    assert transition.effect is Effect.CHANGED


async def test_a_short_lock_is_waited_for(path: Path) -> None:
    store = SqliteStore(path, patience=30)
    await store.open()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        adding = asyncio.create_task(store.add(record_of("key")))
        await asyncio.sleep(0.05)
        assert not adding.done()
        other.execute("COMMIT")
    await adding
    await store.close()


async def test_a_full_disk_is_a_passing_trouble_and_nothing_is_half_written(
    store: SqliteStore,
) -> None:
    await store.add(record_of("key"))
    await on(store, f"PRAGMA max_page_count = {await on(store, 'PRAGMA page_count')}")
    canary = "canary " * 20_000
    calls: list[Any] = [
        store.apply("key", PayloadReceived(1.0, canary)),
        store.add(record_of("other")),
    ]
    for each in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(each, StoreError)
        assert each.retryable
        assert "room" in str(each)
        assert "canary" not in str(each)
    assert await store.get("key") == record_of("key")
    assert await store.get("other") is None

    await on(store, "PRAGMA max_page_count = 1000000")
    transition = await store.apply("key", PayloadReceived(1.0, canary))
    assert transition is not None
    assert await store.get("key") == transition.record


async def test_a_deleted_file_is_an_error(store: SqliteStore, path: Path) -> None:
    path.unlink()
    with pytest.raises(StoreError, match="moved or deleted"):
        await store.add(record_of("key"))


# -- the thread ------------------------------------------------------------------------------------


async def test_what_comes_together_is_committed_together(store: SqliteStore) -> None:
    for number in range(200):
        await store.add_orphan(orphan(f"{number}", "secret", 1.0, 1e12))
    thread = store._thread
    assert thread is not None
    before = thread.commits
    calls = (store.apply(f"{number}", CalledBack(1.0, "next")) for number in range(200))
    found = await asyncio.gather(*calls)
    assert {each.effect for each in found if each} == {Effect.CHANGED}
    assert thread.commits - before < 50


async def test_what_fails_in_a_transaction_hurts_only_itself(store: SqliteStore) -> None:
    await store.add(record_of("there"))
    keys = ["one", "there", "two", "one"]
    calls = (store.add(record_of(key)) for key in keys)
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in found] == [type(None), KeyError, type(None), KeyError]
    assert {each.key async for each in store.records()} == {"one", "two", "there"}


async def test_in_one_transaction_each_sees_what_those_before_it_did(store: SqliteStore) -> None:
    calls: list[Any] = [
        store.add(record_of("key")),
        store.apply("key", CalledBack(1.0, "secret")),
        store.remove("key", 0),
        store.get("key"),
        store.lease("key"),
    ]
    found = await asyncio.gather(*calls)
    assert (found[2], found[4]) == (False, False)
    assert found[3].secrets == ("secret",)
    calls = [
        store.remove("key", found[3].version),
        store.lease("key"),
        store.add(record_of("key")),
        store.get("key"),
    ]
    assert await asyncio.gather(*calls) == [True, False, None, record_of("key")]
    assert await store.get("key") == record_of("key")


async def test_what_is_cancelled_is_done_all_the_same_and_harms_nobody(store: SqliteStore) -> None:
    tasks = [asyncio.create_task(store.add(record_of(f"{number}"))) for number in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [task.cancelled() for task in tasks] == [True, False] * 10
    assert len([each async for each in store.records()]) == 20


async def test_a_lease_that_nobody_heard_of_ends(store: SqliteStore) -> None:
    await store.add_orphan(orphan("key", "secret", 1.0, 1e12))
    task = asyncio.create_task(store.lease("key"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    for _ in range(500):
        if await store.lease("key"):
            return
        await asyncio.sleep(0.01)
    pytest.fail("never released")


async def test_closing_does_what_was_asked_before_and_leaves_no_thread(path: Path) -> None:
    before = threading.active_count()
    store = SqliteStore(path)
    await store.open()
    tasks = [asyncio.create_task(store.add(record_of(f"{number}"))) for number in range(50)]
    await asyncio.sleep(0)
    await store.close()
    assert await asyncio.gather(*tasks) == [None] * 50
    assert threading.active_count() == before
    with pytest.raises(StoreError, match="not open"):
        await store.get("1")
    store.release("1")


async def test_a_store_that_cannot_be_opened_can_be_later(path: Path) -> None:
    path.mkdir()
    store = SqliteStore(path)
    with pytest.raises(StoreError):
        await asyncio.gather(store.open(), store.open())
    path.rmdir()
    await store.open()
    await store.add(record_of("key"))
    await store.close()


async def test_a_waiter_at_a_store_that_closes_is_told(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.add(record_of("key"))
    waiter = asyncio.create_task(store.changed("key", 0))
    await asyncio.sleep(0.05)
    await store.close()
    with pytest.raises(StoreError):
        await waiter
    assert not store._waiters


def test_a_store_whose_loop_is_gone_ends_its_thread_and_opens_in_another(path: Path) -> None:
    store = SqliteStore(path, poll=0.001)

    async def use() -> None:
        await store.open()
        await store.add(record_of("key"))

    asyncio.run(use())
    thread = store._thread
    assert thread is not None
    store.release("key")  # as `__del__` of what is left does
    thread.join(10)
    assert not thread.is_alive()

    async def again() -> None:
        with pytest.raises(StoreError, match="this event loop"):
            await store.get("key")
        await store.close()
        await store.open()
        assert await store.get("key") == record_of("key")
        await store.close()

    asyncio.run(again())
    gc.collect()


# -- several over one file -------------------------------------------------------------------------


async def test_a_waiter_that_comes_late_to_the_list_of_changes_looks_again(
    store: SqliteStore, path: Path
) -> None:
    """It was cut meanwhile, because nobody keeps it for those who are suspended."""
    await store.add(record_of("key"))
    waiter = asyncio.create_task(store.changed("key", 0))
    await asyncio.sleep(0.05)
    with closing(sqlite3.connect(path)) as other, other:
        changed = encode(JobRecord("key", None, "", "", False, 1.0, 1e12, version=5))
        other.execute("UPDATE jobs SET record = ?", (changed,))
        other.execute("INSERT INTO changes VALUES (5000, '[]')")
    assert await waiter == decode(changed)


async def test_the_list_of_changes_stays_short(store: SqliteStore) -> None:
    await store.add(record_of("key"))
    with closing(sqlite3.connect(store._path)) as other, other:
        other.executemany("INSERT INTO changes VALUES (?, '[]')", ((n,) for n in range(2, 4000)))
    await store.apply("key", Accepted(1.0))
    assert await on(store, "SELECT count(*) FROM changes") == 2000


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be seen of other processes, as where each is in a container of its own."""
    monkeypatch.setattr("af10_async.stores.sqlite_transaction.is_gone", lambda identity: None)


async def test_a_clock_that_jumps_takes_no_lease_from_a_process_that_is_seen_alive(
    path: Path,
) -> None:
    clock = Clock()
    first, second = SqliteStore(path, now=Clock()), SqliteStore(path, now=clock)
    await first.open()
    await second.open()
    await first.add(record_of("key"))
    clock.now += 86_400
    assert not await second.lease("key")
    await first.close()
    assert await second.lease("key")
    await second.close()


@pytest.mark.usefixtures("elsewhere")
async def test_a_lease_ends_when_its_session_has_been_silent(path: Path) -> None:
    clocks = [Clock(), Clock()]
    silent, other = (SqliteStore(path, now=clock) for clock in clocks)
    await silent.open()
    await other.open()
    await silent.add(record_of("key"))
    clocks[1].now += SESSION_SECONDS - 1
    assert not await other.lease("key")
    clocks[1].now += 1
    assert await other.lease("key")
    assert not await silent.lease("key")
    silent.release("key")  # it is no longer its own
    await silent.get("key")
    assert not await silent.lease("key")
    await silent.close()
    await other.close()


async def test_a_session_that_gives_signs_of_life_keeps_its_leases(path: Path) -> None:
    clock = Clock()
    first, second = (SqliteStore(path, now=clock) for _ in range(2))
    await first.open()
    await second.open()
    await first.add(record_of("key"))
    for _ in range(6):
        clock.now += SESSION_SECONDS / 3
        await first.get("key")
        assert not await second.lease("key")
    await first.close()
    assert await second.lease("key")
    await second.close()


async def test_a_store_that_leases_nothing_leaves_no_trace_of_itself(store: SqliteStore) -> None:
    await store.add_orphan(orphan("key", "secret", 1.0, 1e12))
    await store.get("key")
    assert await on(store, "SELECT count(*) FROM sessions") == 0
    assert await store.lease("key")
    assert await on(store, "SELECT count(*) FROM sessions") == 1


async def test_very_many_records_are_swept_in_parts_and_listed_by_pages(path: Path) -> None:
    clock = Clock()
    store = SqliteStore(path, now=clock)
    await store.open()
    made = [orphan(f"{number}", "secret", clock.now, 60.0) for number in range(1201)]
    await asyncio.gather(*(store.add_orphan(each) for each in made))
    assert {each.key async for each in store.records()} == {each.key for each in made}
    clock.now += 100
    for _ in range(4):
        await store.get("nobody")
        await turns()
    assert [each async for each in store.records()] == []
    await store.close()
