"""What goes wrong around a receiver: stores that are away or late, callers that hang up, handlers
that close it, strangers who know one address.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from af10_async import AF10Client, ClosedError, ConfigurationError
from af10_async.callback_backlog import MOST_OF_ONE
from af10_async.callback_receiver import CallbackReceiver
from af10_async.callback_server import CallbackServer, Orphan
from af10_async.events import CallbackReceived
from af10_async.protocol.lifecycle import Event, JobRecord, Transition
from af10_async.runtime import Runtime
from af10_async.sandbox import Sandbox
from af10_async.stores import MemoryStore

from ..conftest import ClientMaker, Tls
from .conftest import (
    CALLBACK_SECRET,
    ID,
    PUBLIC_URL,
    BrokenStore,
    GatedStore,
    key_of,
    known,
    record_of,
    request,
    running,
    talk,
)


class Asked:
    """A callback, as whoever serves it hands it over."""

    method = "GET"

    def __init__(self, key: str, secret: str = ID) -> None:
        self.target = f"/af10/{key}?id={secret}"

    def peer(self) -> str | None:
        return None

    def header(self, name: str) -> Sequence[str]:
        return ()


class Clock:
    """A runtime whose sleeps last until the test says so."""

    def __init__(self) -> None:
        self._wake = asyncio.Event()
        self.runtime = replace(Runtime(), sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        await self._wake.wait()
        self._wake.clear()

    async def goes_on(self) -> None:
        self._wake.set()
        for _ in range(10):
            await asyncio.sleep(0)


class AwayStore(MemoryStore):
    """Keeps nothing while it is away."""

    is_away = True

    async def apply(self, key: str, event: Event) -> Transition | None:
        if self.is_away:
            raise OSError("away")
        return await super().apply(key, event)


class LateStore(MemoryStore):
    """Keeps a callback, but its first answer does not come."""

    is_immediate = False
    is_late = True

    async def add_orphan(self, record: JobRecord) -> Transition:
        kept = await super().add_orphan(record)
        await self._answer_late()
        return kept

    async def apply(self, key: str, event: Event) -> Transition | None:
        found = await super().apply(key, event)
        if found is not None:
            await self._answer_late()
        return found

    async def _answer_late(self) -> None:
        if self.is_late:
            self.is_late = False
            await asyncio.Event().wait()


# -- what is held for later ------------------------------------------------------------------------


async def test_made_up_ids_for_one_job_leave_room_for_the_callbacks_of_others(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who knows one webhook URL must not keep the callbacks of all jobs from being held."""
    monkeypatch.setattr("af10_async.callback_backlog.MOST", 2 * MOST_OF_ONE)
    clock, store = Clock(), AwayStore()
    async with running(store=store, runtime=clock.runtime) as server:
        for number in range(20 * MOST_OF_ONE):
            assert (await server.handle(Asked(key_of(1), f"made-up-{number}"))).status == 503
        assert (await server.handle(Asked(key_of(2)))).status == 503
        store.is_away = False
        await clock.goes_on()
        assert await known(store, key_of(2)) == (ID,)
        assert len(await known(store, key_of(1))) == MOST_OF_ONE
    said = [each for each in caplog.messages if "neither kept nor held" in each]
    assert len(said) == 1
    assert key_of(1) in said[0]
    assert "made-up" not in caplog.text


async def test_a_store_that_is_away_is_one_line_a_minute_however_many_call_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And none of them is lost."""
    clock, store = Clock(), AwayStore()
    async with running(store=store, runtime=clock.runtime) as server:
        for number in range(50):
            assert (await server.handle(Asked(key_of(number)))).status == 503
        store.is_away = False
        await clock.goes_on()
        for number in range(50):
            assert await known(store, key_of(number)) == (ID,)
    (line,) = [each for each in caplog.messages if "not kept" in each]
    assert key_of(0) in line


async def test_places_that_are_free_again_are_given_away_again() -> None:
    clock, store = Clock(), AwayStore()
    async with running(store=store, runtime=clock.runtime) as server:
        for number in range(3 * MOST_OF_ONE):
            store.is_away = True
            await server.handle(Asked(key_of(number % 2), f"made-up-{number % MOST_OF_ONE}"))
            store.is_away = False
            await clock.goes_on()
        store.is_away = True
        await server.handle(Asked(key_of(3)))
        store.is_away = False
        await clock.goes_on()
        assert await known(store, key_of(3)) == (ID,)


async def test_a_request_that_is_cancelled_loses_its_answer_but_not_its_callback() -> None:
    store = GatedStore()
    await store.add(record_of(key_of()))
    async with running(store=store) as server:
        asked = asyncio.create_task(server.handle(Asked(key_of())))
        await store.reached.wait()
        asked.cancel()
        await asyncio.wait([asked])
        assert asked.cancelled()
        store.gate.set()
    assert await known(store, key_of()) == (ID,)


async def test_what_is_lost_is_said_when_the_exit_is_cancelled_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class SlowlyBroken(BrokenStore):
        is_immediate = False

        async def apply(self, key: str, event: Event) -> Transition | None:
            trying.set()
            await asyncio.sleep(0)
            return await super().apply(key, event)

    trying = asyncio.Event()
    server = CallbackServer(
        public_url=PUBLIC_URL, store=SlowlyBroken(), callback_secret=CALLBACK_SECRET
    )
    await server.__aenter__()
    await server.handle(Asked(key_of()))
    trying.clear()
    leaving = asyncio.create_task(server.__aexit__(None, None, None))
    await trying.wait()
    leaving.cancel()
    await asyncio.wait([leaving])
    assert leaving.cancelled()
    assert f"callback for job {key_of()} lost" in caplog.text


async def test_what_was_held_after_the_end_is_kept_when_the_receiver_is_entered_again() -> None:
    """In somebody's app, a request may be cancelled after the receiver was left."""
    clock, store = Clock(), GatedStore()
    receiver = CallbackReceiver(
        public_url=PUBLIC_URL, store=store, callback_secret=CALLBACK_SECRET, runtime=clock.runtime
    )
    async with receiver:
        asked = asyncio.create_task(receiver.handle(Asked(key_of())))
        await store.reached.wait()
    asked.cancel()
    await asyncio.wait([asked])
    store.gate.set()
    async with receiver:
        await asyncio.sleep(0)
        await clock.goes_on()
        assert await known(store, key_of()) == (ID,)


# -- a store whose answer comes too late -----------------------------------------------------------


@pytest.mark.parametrize("is_registered", [False, True])
@pytest.mark.usefixtures("quick_store_timeout")
async def test_what_a_store_kept_without_saying_so_is_told_all_the_same(
    is_registered: bool,
) -> None:
    clock, store = Clock(), LateStore()
    events: list[object] = []
    orphans: list[Orphan] = []
    if is_registered:
        await store.add(record_of(key_of()))
        store.release(key_of())
    options = {"store": store, "runtime": clock.runtime, "on_event": events.append}
    async with running(**options, on_orphan=orphans.append) as server:
        assert (await server.handle(Asked(key_of()))).status == 503
        assert (await server.handle(Asked(key_of()))).status == 200
        assert not events
        await clock.goes_on()
        assert [type(each) for each in events] == [CallbackReceived]
        assert [each.key for each in orphans] == [key_of()]


@pytest.mark.usefixtures("quick_store_timeout")
async def test_a_callback_that_came_again_while_it_was_held_is_told_once() -> None:
    class OnceAway(MemoryStore):
        is_immediate = False
        tries = 0

        async def apply(self, key: str, event: Event) -> Transition | None:
            self.tries += 1
            if self.tries == 1:
                raise OSError("away")
            return await super().apply(key, event)

    clock, store = Clock(), OnceAway()
    events: list[object] = []
    options = {"store": store, "runtime": clock.runtime, "on_event": events.append}
    async with running(**options) as server:
        assert (await server.handle(Asked(key_of()))).status == 503
        assert (await server.handle(Asked(key_of()))).status == 200
        await clock.goes_on()
        assert len(events) == 1


# -- its life --------------------------------------------------------------------------------------


async def _plainly(close: Awaitable[None]) -> None:
    await close


async def _within_a_time(close: Awaitable[None]) -> None:
    await asyncio.wait_for(close, 5)


@pytest.mark.parametrize("how", [_plainly, _within_a_time])
async def test_an_orphan_handler_may_close_the_server(
    how: Callable[[Awaitable[None]], Awaitable[None]],
) -> None:
    ended = asyncio.Event()

    async def close(orphan: Orphan) -> None:
        try:
            await how(server.__aexit__(None, None, None))
        finally:
            ended.set()

    server = CallbackServer(public_url=PUBLIC_URL, callback_secret=CALLBACK_SECRET, on_orphan=close)
    await server.__aenter__()
    assert (await talk(server.port, request(f"/af10/{key_of()}?id={ID}"))).status == 200
    async with asyncio.timeout(5):
        await ended.wait()
    assert not server.is_running
    async with server:  # all of it was left
        pass


async def test_of_two_who_enter_one_server_at_once_the_second_is_refused() -> None:
    server = CallbackServer(public_url=PUBLIC_URL)
    first, second = await asyncio.gather(
        server.__aenter__(), server.__aenter__(), return_exceptions=True
    )
    assert first is server
    assert isinstance(second, ClosedError)
    await server.__aexit__(None, None, None)
    async with server:
        assert server.is_running


async def test_an_entry_that_failed_can_be_tried_again() -> None:
    class FailsOnce(MemoryStore):
        tries = 0

        async def open(self) -> None:
            self.tries += 1
            if self.tries == 1:
                raise OSError("not yet")

    server = CallbackServer(public_url=PUBLIC_URL, store=FailsOnce())
    with pytest.raises(OSError, match="not yet"):
        await server.__aenter__()
    async with server:
        assert server.is_running


async def test_when_nothing_listens_any_more_a_new_job_is_refused_and_nothing_was_sent(
    make_client: ClientMaker, sandbox: Sandbox, tls: Tls
) -> None:
    async with CallbackServer(tls_cert=tls.cert, tls_key=tls.key) as server:
        options = {"callback_server": server, "tls_cert": None, "tls_key": None}
        async with make_client(**options) as af10:
            await af10.authenticate()
            server._has_died()
            await asyncio.sleep(0)
            with pytest.raises(ClosedError, match="the job was not started") as started:
                await af10.backup_owner().start()
            with pytest.raises(ClosedError, match="the job was not started") as awaited:
                await af10.backup_owner()
            assert (started.value.sent, awaited.value.sent) == (False, False)
            assert sandbox.count("POST", "/backup/owner") == 0
            for ask in (af10.check_reachable, server.check_reachable):
                with pytest.raises(ClosedError, match="cannot listen any more"):
                    await ask()
            with pytest.raises(ClosedError, match="cannot listen any more"):
                _ = af10.callback_url
        with pytest.raises(ClosedError, match="cannot listen any more"):
            async with make_client(**options):
                pytest.fail("entered")
    async with server:
        assert server.is_running


# -- what it is given ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [CallbackServer, CallbackReceiver])
def test_proxies_may_be_one_text(kind: type[CallbackReceiver]) -> None:
    one = kind(public_url=PUBLIC_URL, trusted_proxies="127.0.0.1")
    several = kind(public_url=PUBLIC_URL, trusted_proxies="127.0.0.1, fd00::/8")
    as_list = kind(public_url=PUBLIC_URL, trusted_proxies=["127.0.0.1", "fd00::/8"])
    assert len(one._trusted) == 1
    assert several._trusted == as_list._trusted
    with pytest.raises(ConfigurationError, match="trusted_proxies must be"):
        kind(public_url=PUBLIC_URL, trusted_proxies="nonsense")


async def test_what_the_server_is_given_as_ca_file_is_trusted_by_its_check(tls: Tls) -> None:
    async with CallbackServer(tls_cert=tls.cert, tls_key=tls.key, ca_file=tls.ca) as server:
        assert (await server.check_reachable()).is_here


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_all(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"AF10_{name.upper()}", str(value))

    return set_all


async def test_the_preflight_of_a_server_from_the_environment_trusts_its_ca_file(
    environment: Callable[..., None], tls: Tls
) -> None:
    environment(tls_cert=tls.cert, tls_key=tls.key, ca_file=tls.ca)
    async with CallbackServer.from_env(preflight=True) as server:
        assert server.is_running


@pytest.mark.parametrize("url", [PUBLIC_URL, "cloudflared:hooks.example.com"])
def test_a_server_from_the_environment_takes_no_random_port_behind_a_known_address(
    environment: Callable[..., None], url: str
) -> None:
    environment(public_url=url)
    with pytest.raises(ConfigurationError, match="AF10_PUBLIC_URL is set but AF10_LISTEN_PORT is"):
        CallbackServer.from_env()
    environment(listen_port=8443)
    CallbackServer.from_env()


async def test_a_receiver_from_the_environment_has_its_secret_its_store_and_its_proxies(
    environment: Callable[..., None], tmp_path: Path
) -> None:
    environment(
        public_url=PUBLIC_URL,
        callback_secret=CALLBACK_SECRET,
        store=f"sqlite:{tmp_path / 'jobs.db'}",
        trusted_proxies="127.0.0.1,10.0.0.0/8",
    )
    orphans: list[Orphan] = []
    async with CallbackReceiver.from_env(on_orphan=orphans.append) as receiver:
        assert receiver.public_url == PUBLIC_URL
        assert receiver.store.is_shared
        assert len(receiver._trusted) == 2
        assert (await receiver.handle(Asked(key_of()))).status == 200


@pytest.mark.parametrize("url", [None, "cloudflared", "http://x.example"])
def test_a_receiver_from_the_environment_needs_the_address_of_its_app(
    environment: Callable[..., None], url: str | None
) -> None:
    if url is not None:
        environment(public_url=url)
    with pytest.raises(ConfigurationError, match=r"^AF10_PUBLIC_URL is .* the https address of"):
        CallbackReceiver.from_env()


def test_a_client_with_a_server_of_its_own_does_not_look_at_what_that_replaces(
    environment: Callable[..., None],
) -> None:
    environment(
        base_url="https://api.example.com/v2",
        api_key="k",
        username="u",
        password="p",
        public_url=PUBLIC_URL,
        callback_secret="short",
        listen_port="nonsense",
    )
    receiver = CallbackReceiver(public_url=PUBLIC_URL)
    AF10Client.from_env(callback_server=receiver)
    AF10Client.from_env(callback_server=receiver, store="nonsense")


# -- a certificate for another name ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "proxies", "level"),
    [
        ("https://127.0.0.1", (), None),
        ("https://other.example.com", (), logging.WARNING),
        ("https://other.example.com", ("127.0.0.1",), logging.INFO),
    ],
)
async def test_a_certificate_for_another_name_than_the_public_one_is_noticed_at_the_start(
    url: str,
    proxies: Sequence[str],
    level: int | None,
    authority: trustme.CA,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    leaf = authority.issue_cert("127.0.0.1")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    files = {"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}
    async with running(public_url=url, trusted_proxies=proxies, **files):
        pass
    levels = [each.levelno for each in caplog.records if "is not for" in each.getMessage()]
    assert levels == ([level] if level else [])
