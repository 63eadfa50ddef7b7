"""What is particular to the Valkey store: its addresses, its server's failures, its names there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest

from af10_async.errors import ConfigurationError, MissingExtraError, StoreError
from af10_async.protocol.lifecycle import (
    Accepted,
    Adopted,
    CalledBack,
    Collected,
    Effect,
    Event,
    JobRecord,
    LifeEnded,
    PayloadReceived,
    Refused,
    SecretRefused,
    orphan,
)
from af10_async.stores import valkey_client, valkey_leases
from af10_async.stores.valkey import ValkeyStore

from ..conftest import Tls
from ..ports import free_port
from . import valkey_server
from .places import NUMBERS
from .valkey_server import ValkeyCluster, ValkeyServer, running

KEY, OTHER_KEY = "a" * 48, "b" * 48
ACCOUNT, OTHER_ACCOUNT = "1" * 32, "2" * 32
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


def record_of(key: str = KEY, account: str | None = ACCOUNT) -> JobRecord:
    now = time.time()
    return JobRecord(key, account, "POST", "/backup/owner", True, now, now + 3600)


@pytest.fixture
def server() -> ValkeyServer:
    return valkey_server.shared()


@pytest.fixture
def prefix() -> str:
    return f"v{next(NUMBERS)}"


@asynccontextmanager
async def opened(
    url: str, prefix: str = "af10", recheck: float = 60.0
) -> AsyncIterator[ValkeyStore]:
    """An open store; its re-check is too slow to help any test that does not ask for it."""
    store = ValkeyStore(f"{url}{'&' if '?' in url else '?'}prefix={prefix}", recheck=recheck)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(server: ValkeyServer, prefix: str) -> AsyncIterator[ValkeyStore]:
    async with opened(server.url, prefix) as made:
        yield made


async def eventually(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Ask again until it is so."""
    async with asyncio.timeout(30):
        while not await is_so():
            await asyncio.sleep(0.01)


async def is_listening(store: ValkeyStore, server: ValkeyServer) -> bool:
    channels = await asyncio.to_thread(server.ask, "PUBSUB", "NUMSUB", store._channel)
    return int(channels[0][1] if isinstance(channels[0], tuple) else channels[1]) > 0


async def persistently(step: Callable[[], Awaitable[object]]) -> int:
    """Ask as long as the store says that it may pass; how often it did not."""
    failures = 0
    async with asyncio.timeout(30):
        while True:
            try:
                await step()
                break
            except StoreError as error:
                if not error.retryable:
                    raise
                failures += 1
                await asyncio.sleep(0.01)
    return failures


class Proxy:
    """Between a store and its server: speaks TLS, or loses the connection instead of an answer."""

    def __init__(self, server: ValkeyServer, front: ssl.SSLContext | None = None) -> None:
        self.server = server
        self.front = front
        self.lose = b""
        """What stands in the command whose answer is lost."""
        self.lost = 0
        self.times = 1
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Its address."""
        listening = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.front)
        async with listening:
            port = listening.sockets[0].getsockname()[1]
            yield f"{'valkeys' if self.front else 'valkey'}://127.0.0.1:{port}"
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        back, forth = await asyncio.open_unix_connection(str(self.server.socket))
        is_losing = asyncio.Event()

        async def answer() -> None:
            while data := await back.read(65536):
                if is_losing.is_set():
                    break
                writer.write(data)
            writer.close()

        answering = asyncio.create_task(answer())
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.lose and self.lose in data and self.lost < self.times:
                    self.lost += 1
                    is_losing.set()
                forth.write(data)
        forth.close()
        await answering
        for each in (writer, forth):
            with contextlib.suppress(OSError):
                await each.wait_closed()


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("valkey://localhost", "valkey://localhost:6379"),
        ("redis://me:hush@[::1]:7000/3", "redis://::1:7000/3"),
        ("valkeys://:hush@host?ssl_ca_certs=ca.pem", "valkeys://host:6379"),
        ("valkey+unix:///run/valkey.sock?prefix=mine", "valkey+unix:///run/valkey.sock"),
    ],
)
def test_an_address_shows_where_the_server_is_and_no_password(url: str, shown: str) -> None:
    store = ValkeyStore(url)
    assert shown in repr(store)
    assert "hush" not in repr(store) + repr(store._address)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "valkey://me:hush@host:port",
        "valkey://me:hu#sh@host",
        "valkey://host/name",
        "valkey://host?prefix={x}",
        "valkey://host?prefix=",
        "valkey://host?cluster=maybe",
    ],
)
def test_a_malformed_address_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ValkeyStore(url)
    assert "hush" not in str(caught.value)
    assert "hu#sh" not in str(caught.value)


def test_without_redis_py_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(MissingExtraError, match=r'pip install "af10-async\[valkey\]"'):
        ValkeyStore("valkey://localhost")


async def test_a_unix_socket_is_an_address(server: ValkeyServer, prefix: str) -> None:
    async with opened(f"valkey+unix://{server.socket}", prefix) as store:
        await store.add(record_of())
        assert await store.get(KEY) is not None


async def test_databases_and_prefixes_are_worlds_of_their_own(
    server: ValkeyServer, prefix: str
) -> None:
    async with (
        opened(server.url, prefix) as first,
        opened(server.url, f"{prefix}x") as second,
        opened(f"{server.url}/1", prefix) as third,
    ):
        for number, store in enumerate((first, second, third)):
            await store.add(replace(record_of(), path=f"/{number}"))
            assert await store.callback_secret(b"%d" % number) == b"%d" % number
            await store.add(record_of(f"only {number}"))
        for number, store in enumerate((first, second, third)):
            assert {each.key async for each in store.records()} == {KEY, f"only {number}"}
            assert {each.key async for each in store.unfinished(ACCOUNT)} == {KEY, f"only {number}"}


async def test_tls_works_with_a_trusted_certificate_and_with_no_other(
    server: ValkeyServer, prefix: str, tls: Tls
) -> None:
    front = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    front.load_cert_chain(tls.cert, tls.key)
    async with Proxy(server, front).running() as url:
        async with opened(f"{url}?ssl_ca_certs={tls.ca}", prefix) as store:
            await store.add(record_of())
            waiter = asyncio.create_task(store.changed(KEY, 0))
            await eventually(lambda: is_listening(store, server))
            await store.apply(KEY, Accepted(1.0))
            assert await waiter is not None
        with pytest.raises(StoreError, match="ssl_ca_certs=") as caught:
            await ValkeyStore(url).open()
        assert not caught.value.retryable


async def test_a_user_needs_no_more_than_our_names(server: ValkeyServer, prefix: str) -> None:
    rights = (f"~{prefix}:*", f"&{prefix}:*", "+@all", "-@dangerous")
    server.ask("ACL", "SETUSER", prefix, "on", ">hush@me", *rights)
    url = server.url.replace("://", f"://{prefix}:hush%40me@")
    async with opened(url, prefix, recheck=0.01) as store:
        await store.add(record_of())
        waiter = asyncio.create_task(store.changed(KEY, 0))
        await eventually(lambda: is_listening(store, server))
        await store.apply(KEY, CalledBack(1.0, "secret"))
        assert await waiter is not None
        await store.callback_secret(b"secret")
        assert [each.key async for each in store.records()] == [KEY]
        assert [each.key async for each in store.unfinished(ACCOUNT)] == [KEY]


async def test_a_refused_password_or_right_is_said_and_not_quoted(
    server: ValkeyServer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.ask("ACL", "SETUSER", prefix, "on", ">right", "~other:*", "+@all")
    wrong = ValkeyStore(server.url.replace("://", f"://{prefix}:hush@"))
    with pytest.raises(StoreError, match="user and password") as caught:
        await wrong.open()
    assert not caught.value.retryable
    assert "hush" not in str(caught.value) + repr(caught.value) + caplog.text
    with pytest.raises(StoreError, match="give it ~af10:") as caught:
        await ValkeyStore(server.url.replace("://", f"://{prefix}:right@")).open()
    assert not caught.value.retryable


async def test_a_parameter_that_redis_py_does_not_know_is_an_error_of_the_url(
    server: ValkeyServer,
) -> None:
    with pytest.raises(StoreError, match="parameters") as caught:
        await ValkeyStore(f"{server.url}?colour=red").open()
    assert not caught.value.retryable


async def test_without_a_server_opening_fails_and_leaves_nothing() -> None:
    store = ValkeyStore(f"valkey://127.0.0.1:{free_port()}")
    with pytest.raises(StoreError, match="cannot be used just now") as caught:
        await store.open()
    assert caught.value.retryable
    await store.close()


async def test_a_closed_store_says_so(server: ValkeyServer, prefix: str) -> None:
    store = ValkeyStore(f"{server.url}?prefix={prefix}")
    for _ in range(2):
        with pytest.raises(StoreError, match="is not open"):
            await store.get(KEY)
        with pytest.raises(StoreError, match="is not open"):
            await store.apply(KEY, Accepted(1.0))
        await store.open()
        await store.close()
    store.release(KEY)


async def test_closing_ends_every_wait(server: ValkeyServer, prefix: str) -> None:
    async with opened(server.url, prefix) as store:
        await store.add(record_of())
        waiters = [asyncio.create_task(store.changed(KEY, 0)) for _ in range(3)]
        await eventually(lambda: is_listening(store, server))
    for waiter in waiters:
        with pytest.raises(StoreError, match="is not open"):
            await waiter


async def test_a_foreign_value_under_a_jobs_name_is_an_error(
    store: ValkeyStore, server: ValkeyServer, prefix: str
) -> None:
    server.ask("SET", f"{prefix}:job:{{{KEY}}}", "something else")
    await store.add(record_of(OTHER_KEY))
    for step in (store.get(KEY), store.apply(KEY, Accepted(1.0)), store.add(record_of())):
        with pytest.raises(StoreError, match="not a job"):
            await step
    assert [each.key async for each in store.records()] == [OTHER_KEY]
    server.ask("DEL", f"{prefix}:job:{{{KEY}}}")
    server.ask("RPUSH", f"{prefix}:job:{{{KEY}}}", "a list")
    with pytest.raises(StoreError, match="WRONGTYPE") as caught:
        await store.get(KEY)
    assert not caught.value.retryable


# -- what lies in the server -----------------------------------------------------------------------


async def everything(store: ValkeyStore) -> None:
    """Each operation at least once, with jobs in each state."""
    now = time.time()
    events: list[Event] = [Accepted(now), Refused(now, "no"), LifeEnded(now)]
    events.append(PayloadReceived(now, "{}", is_file=True))
    for number, event in enumerate(events):
        await store.add(record_of(f"job {number}"))
        assert await store.apply(f"job {number}", event)
    await store.apply("job 1", CalledBack(now, "a callback brings it to life again"))
    await store.apply("job 3", Collected(now))
    await store.add_orphan(orphan("orphan", "secret", now, 60.0))
    await store.add_orphan(orphan("orphan", "another", now, 60.0))
    await store.apply("orphan", Adopted(now, ACCOUNT, "POST", "/x", True))
    await store.add(record_of("removed"))
    await store.remove("removed", 0)
    assert not await store.lease("job 0")
    store.release("job 0")
    assert await store.lease("job 0")
    await store.callback_secret(b"secret")
    unfinished = {each.key async for each in store.unfinished(ACCOUNT)}
    assert unfinished == {"job 0", "job 1", "orphan"}
    every = {each.key async for each in store.records()}
    assert every == {"job 0", "job 1", "job 2", "job 3", "orphan"}


async def test_all_but_the_callback_secret_ends_by_itself(
    store: ValkeyStore, server: ValkeyServer, prefix: str
) -> None:
    await everything(store)
    names = server.names(f"{prefix}:*")
    assert len(names) == 8  # five jobs, an index, a session, the secret
    lasting = [name for name in names if server.ask("PTTL", name) <= 0]
    assert lasting == [f"{prefix}:secret"]


async def test_the_index_holds_what_is_unfinished_and_forgets_what_vanished(
    store: ValkeyStore, server: ValkeyServer, prefix: str
) -> None:
    await everything(store)
    index = f"{prefix}:open:{{{ACCOUNT}}}"
    entries = {name.decode() for name in server.ask("ZRANGE", index, 0, -1)}
    assert entries == {"job 0", "job 1", "orphan"}

    server.ask("DEL", f"{prefix}:job:{{job 0}}")
    for _ in range(2):  # it may be one that is just being added, so it stays for a while
        assert {each.key async for each in store.unfinished(ACCOUNT)} == {"job 1", "orphan"}
        assert server.ask("ZSCORE", index, "job 0") is not None
    an_hour_ago = server.ask("ZSCORE", index, "job 0") + 3601
    server.ask("ZADD", index, an_hour_ago, "job 0")
    assert {each.key async for each in store.unfinished(ACCOUNT)} == {"job 1", "orphan"}
    await store.get(KEY)  # after it: what was sent before has happened
    assert server.ask("ZSCORE", index, "job 0") is None


async def test_an_index_outlives_each_of_its_jobs(
    store: ValkeyStore, server: ValkeyServer, prefix: str
) -> None:
    await store.add(replace(record_of(), expires_at=time.time() + 1e6))
    await store.add(record_of(OTHER_KEY))
    life = server.ask("PTTL", f"{prefix}:open:{{{ACCOUNT}}}")
    assert life > server.ask("PTTL", f"{prefix}:job:{{{KEY}}}") > 0


async def test_a_job_that_comes_to_life_while_it_is_struck_off_stays_in_the_index(
    store: ValkeyStore, server: ValkeyServer, prefix: str
) -> None:
    """Its reviver has announced it, and the one who struck it off comes late."""
    await store.add(record_of())
    refused = await store.apply(KEY, Refused(time.time(), "no"))
    revived = await store.apply(KEY, CalledBack(time.time(), "secret"))
    assert refused is not None
    assert revived is not None
    store._strike(refused.record)
    assert [each.key async for each in store.unfinished(ACCOUNT)] == [KEY]


async def test_every_operation_works_in_a_cluster() -> None:
    cluster = ValkeyCluster()
    try:
        await asyncio.to_thread(cluster.start)
        async with opened(cluster.url) as store, opened(cluster.url) as other:
            await everything(store)
            sizes = [len(node.names()) for node in cluster.nodes]
            assert sum(sizes) == 9
            for number in range(20):
                await store.add(record_of(f"{number}"))
            assert all(node.names("af10:job:*") for node in cluster.nodes)
            waiters = [asyncio.create_task(other.changed(f"{n}", 0)) for n in range(20)]
            await asyncio.sleep(0.1)
            for number in range(20):
                assert not await other.lease(f"{number}")
                await store.apply(f"{number}", CalledBack(1.0, "secret"))
            assert None not in await asyncio.gather(*waiters)
        with pytest.raises(StoreError, match="cluster=true") as caught:
            await everything_in(cluster.nodes[0].url)
        assert not caught.value.retryable
    finally:
        cluster.stop()


async def everything_in(url: str) -> None:
    async with opened(url) as store:
        for number in range(20):
            await store.add(record_of(f"{number}"))


async def test_a_lone_server_is_no_cluster(server: ValkeyServer) -> None:
    with pytest.raises(StoreError, match="is no cluster") as caught:
        await ValkeyStore(f"{server.url}?cluster=true").open()
    assert not caught.value.retryable


async def test_a_server_that_may_evict_jobs_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running("--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru") as server:
        async with opened(server.url):
            assert "maxmemory-policy volatile-lru" in caplog.text
        caplog.clear()
        server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        async with opened(server.url) as store:
            assert "maxmemory" not in caplog.text
            server.ask("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(StoreError, match="OutOfMemory") as caught:
                await store.add(record_of())
            assert caught.value.retryable
            server.ask("CONFIG", "SET", "maxmemory", "0")
            await store.add(record_of())


# -- a server that fails ---------------------------------------------------------------------------


async def test_a_waiter_is_woken_by_the_message_of_another_store(
    server: ValkeyServer, prefix: str
) -> None:
    async with opened(server.url, prefix) as store, opened(server.url, prefix) as other:
        await store.add(record_of())
        waiters = [asyncio.create_task(other.changed(KEY, 0)) for _ in range(3)]
        await eventually(lambda: is_listening(other, server))
        await store.apply(KEY, CalledBack(1.0, "secret"))
        for record in await asyncio.gather(*waiters):
            assert record is not None
            assert record.secrets == ("secret",)


async def test_waiters_outlive_a_killed_server_and_nothing_kept_is_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running(*DURABLE) as server:
        async with opened(server.url) as store, opened(server.url) as other:
            kept = [f"{number}" for number in range(50)]
            for key in kept:
                await store.add(record_of(key))
                await store.apply(key, Accepted(1.0))
            waiters = [asyncio.create_task(other.changed(key, 1)) for key in kept]
            await eventually(lambda: is_listening(other, server))
            server.kill()
            for step in (store.get("0"), store.apply("0", CalledBack(1.0, "early"))):
                with pytest.raises(StoreError) as caught:
                    await step
                assert caught.value.retryable
            late = asyncio.create_task(other.changed("0", 1))  # begins while it is away
            await asyncio.sleep(0.2)
            assert not any(waiter.done() for waiter in [*waiters, late])
            await asyncio.to_thread(server.start)
            for key in kept:
                await persistently(partial(store.apply, key, CalledBack(1.0, "secret")))
            for record in await asyncio.gather(*waiters, late):
                assert record is not None
                assert record.secrets == ("secret",)
            assert len([each async for each in store.unfinished(ACCOUNT)]) == len(kept)
    warnings = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(warnings) <= 2


async def test_a_waiter_whose_listener_was_cut_off_misses_no_change(
    server: ValkeyServer, prefix: str
) -> None:
    async with opened(server.url, prefix) as store, opened(server.url, prefix) as other:
        await store.add(record_of())
        waiter = asyncio.create_task(other.changed(KEY, 0))
        await eventually(lambda: is_listening(other, server))
        server.ask("CLIENT", "KILL", "TYPE", "pubsub")
        await store.apply(KEY, CalledBack(1.0, "secret"))
        record = await waiter
        assert record is not None
        assert record.secrets == ("secret",)


async def test_without_any_message_the_re_check_finds_the_change(
    server: ValkeyServer, prefix: str
) -> None:
    async with opened(server.url, prefix) as store, opened(server.url, prefix, 0.02) as other:
        other._watch._channel = "another channel"
        await store.add(record_of())
        waiter = asyncio.create_task(other.changed(KEY, 0))
        await asyncio.sleep(0.05)
        await store.apply(KEY, CalledBack(1.0, "secret"))
        assert await waiter is not None


async def test_a_server_that_was_emptied_ends_the_wait() -> None:
    with running() as server:
        async with opened(server.url, recheck=0.02) as store:
            await store.add(record_of())
            waiter = asyncio.create_task(store.changed(KEY, 0))
            await eventually(lambda: is_listening(store, server))
            server.ask("FLUSHALL")
            server.ask("SCRIPT", "FLUSH")
            assert await waiter is None
            assert await store.apply(KEY, CalledBack(1.0, "secret")) is None
            found = orphan(KEY, "secret", time.time(), 60.0)
            assert (await store.add_orphan(found)).record == found


async def test_a_silent_server_is_given_up_in_time_by_all_who_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(valkey_client, "COMMAND_SECONDS", 0.2)
    with running() as server:
        async with opened(server.url) as store:
            await store.add(record_of())
            server.pause()
            keys = [f"{number}" for number in range(3 * valkey_client._BATCH)]
            asked = [asyncio.create_task(store.apply(key, Accepted(1.0))) for key in keys]
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert all(isinstance(each, StoreError) and each.retryable for each in found)
            server.go_on()
            await persistently(lambda: store.apply(KEY, CalledBack(1.0, "secret")))
            assert await store.get(OTHER_KEY) is None
            record = await store.get(KEY)
            assert record is not None
            assert record.secrets == ("secret",)


async def test_after_300_cancelled_calls_every_answer_belongs_to_its_question(
    store: ValkeyStore,
) -> None:
    keys = [f"{number}" for number in range(20)]
    for key in keys:
        await store.add(record_of(key))
    for number in range(300):
        task = asyncio.create_task(store.get(keys[number % 20]))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        if number % 3 == 0:
            await asyncio.sleep(0.0005)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        found = await asyncio.gather(*map(store.get, keys[:3]))
        assert [each.key for each in found if each is not None] == keys[:3]


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_what_is_asked_again_after_a_lost_answer_is_known_as_ones_own(
    server: ValkeyServer, prefix: str, times: int
) -> None:
    proxy = Proxy(server)
    record = record_of()
    async with proxy.running() as url, opened(url, prefix) as store:
        await store.add(record_of("first"))  # the scripts are known from now on
        await store.apply("first", Accepted(1.0))
        proxy.lose, proxy.times = b"/backup/owner", times
        await persistently(lambda: store.add(record))
        assert proxy.lost == times
        assert not await store.lease(KEY)
        with pytest.raises(KeyError):
            await store.add(record)

        proxy.lose, proxy.lost = b"the secret", 0
        effects: list[Effect] = []

        async def apply() -> None:
            transition = await store.apply(KEY, CalledBack(1.0, "the secret"))
            assert transition is not None
            effects.append(transition.effect)

        failures = await persistently(apply)
        assert effects == [Effect.UNCHANGED if failures else Effect.CHANGED]
        found = await store.get(KEY)
        assert found is not None
        assert found.secrets == ("the secret",)


async def test_an_answer_out_of_date_is_not_believed(server: ValkeyServer, prefix: str) -> None:
    """What a store remembers of a record is only ever a guess."""
    async with opened(server.url, prefix) as store, opened(server.url, prefix) as other:
        await store.add(record_of())
        await other.apply(KEY, CalledBack(1.0, "secret"))
        again = await store.apply(KEY, SecretRefused(1.0, "secret"))
        assert again is not None
        assert again.effect is Effect.CHANGED

        await other.remove(KEY, again.record.version)
        await other.add(replace(record_of(), version=again.record.version, path="/another"))
        accepted = await store.apply(KEY, CalledBack(1.0, "new"))
        assert accepted is not None
        assert (accepted.record.path, accepted.record.secrets) == ("/another", ("new",))


# -- leases ----------------------------------------------------------------------------------------


async def test_who_gives_no_sign_of_life_elsewhere_loses_its_leases(
    server: ValkeyServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(valkey_leases, "is_gone", lambda _: None)  # another machine
    async with opened(server.url, prefix) as store, opened(server.url, prefix) as other:
        await store.add(record_of())
        assert not await other.lease(KEY)
        server.ask("DEL", f"{prefix}:session:{store._leases.session}")
        assert await other.lease(KEY)
        store.release(KEY)  # too late: it is another's by now
        await asyncio.sleep(0.05)
        assert not await store.lease(KEY)


async def test_a_store_gives_signs_of_life(
    server: ValkeyServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(valkey_leases, "SESSION_SECONDS", 0.1)
    async with opened(server.url, prefix) as store:
        name = f"{prefix}:session:{store._leases.session}"
        server.ask("DEL", name)

        async def is_there() -> bool:
            return bool(server.ask("EXISTS", name))

        await eventually(is_there)
    assert not server.ask("EXISTS", name)


async def test_a_release_while_the_server_is_away_is_made_up_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(valkey_leases, "_RETRY_SECONDS", 0.02)
    with running(*DURABLE) as server:
        async with opened(server.url) as store, opened(server.url) as other:
            await store.add(record_of())
            server.kill()
            store.release(KEY)
            await asyncio.sleep(0.05)
            await asyncio.to_thread(server.start)

            async def is_leased() -> bool:
                with contextlib.suppress(StoreError):
                    return await other.lease(KEY)
                return False

            await eventually(is_leased)


async def test_a_lease_may_be_released_by_any_thread(server: ValkeyServer, prefix: str) -> None:
    async with opened(server.url, prefix) as store, opened(server.url, prefix) as other:
        await store.add(record_of())
        await asyncio.to_thread(store.release, KEY)
        await eventually(lambda: other.lease(KEY))
    await asyncio.to_thread(store.release, KEY)


async def test_a_lease_of_which_the_answer_was_lost_is_not_held_by_nobody(
    server: ValkeyServer, prefix: str
) -> None:
    async with opened(server.url, prefix) as store, opened(server.url, prefix) as other:
        await store.add_orphan(orphan(KEY, "secret", time.time(), 60.0))
        asking = asyncio.create_task(store.lease(KEY))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        await eventually(lambda: other.lease(KEY))
        assert not await store.lease(KEY)


@pytest.fixture(autouse=True)
def no_secret_in_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert "hush" not in caplog.text
