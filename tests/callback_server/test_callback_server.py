"""The callback server, when callers are who they say they are."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization

from af10_async.callback_server import CallbackServer, Orphan
from af10_async.errors import (
    CallbackServerError,
    ClosedError,
    ConfigurationError,
    PortInUseError,
)
from af10_async.protocol.lifecycle import CALLBACK_STEP, MAX_SECRETS, JobRecord, JobState
from af10_async.runtime import Runtime
from af10_async.stores import MemoryStore

from .conftest import (
    CALLBACK_SECRET,
    ID,
    OTHER_ID,
    PUBLIC_URL,
    BrokenStore,
    Certificate,
    CountingStore,
    GatedStore,
    Run,
    key_of,
    known,
    nothing,
    record_of,
    request,
    running,
    talk,
)
from .servers import AIOHTTP, ALONE, MOUNTED_AT, Kind, Served

HERE = f"{MOUNTED_AT}/af10"


def target(number: int = 1, secret: str = ID) -> str:
    return f"{HERE}/{key_of(number)}?id={secret}"


# -- keep, wake, answer ----------------------------------------------------------------------------


async def test_a_genuine_callback_is_kept_and_answered_200(server: Served) -> None:
    answer = await talk(server.port, request(target()))

    record = await server.store.get(key_of())
    assert answer.status == 200
    assert answer.body == b"OK"
    assert record is not None
    assert (record.state, record.secrets) == (JobState.CALLED_BACK, (ID,))


def tells(what: Callable[[JobRecord], None]) -> Callable[[JobRecord], bool]:
    """A listener that claims the job."""

    def listener(record: JobRecord) -> bool:
        what(record)
        return True

    return listener


async def test_nothing_is_answered_before_the_secret_is_kept_and_the_waiter_woken(run: Run) -> None:
    store = GatedStore()
    events: list[str] = []
    async with run(store=store) as server:
        await store.add(record_of(key_of()))
        server.claim(
            key_of(), tells(lambda record: events.append(f"told of {len(record.secrets)}"))
        )

        async def wait() -> None:
            record = await store.changed(key_of(), 0)
            events.append(f"woken at version {record.version if record else None}")

        async def call() -> None:
            await talk(server.port, request(target()))
            events.append("answered")

        async with asyncio.TaskGroup() as group:
            group.create_task(wait())
            group.create_task(call())
            await store.reached.wait()
            assert events == []
            store.gate.set()

    assert events == ["told of 1", f"woken at version {CALLBACK_STEP}", "answered"]


async def test_twenty_duplicates_at_once_are_one_change_and_twenty_times_200(
    server: Served,
) -> None:
    told: list[JobRecord] = []
    server.claim(key_of(), tells(told.append))

    answers = await asyncio.gather(*(talk(server.port, request(target())) for _ in range(20)))

    record = await server.store.get(key_of())
    assert [answer.status for answer in answers] == [200] * 20
    assert record is not None
    assert (record.version, record.secrets) == (CALLBACK_STEP, (ID,))
    assert len(told) == 1


async def test_a_different_secret_is_kept_beside_the_first(server: Served) -> None:
    for secret in (ID, OTHER_ID):
        assert (await talk(server.port, request(target(secret=secret)))).status == 200

    assert await known(server.store, key_of()) == (ID, OTHER_ID)


async def test_a_secret_too_many_is_answered_503_and_not_lost_silently(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(MAX_SECRETS):
        assert (await talk(server.port, request(target(secret=f"made-up-{number}")))).status == 200

    answer = await talk(server.port, request(target()))

    assert answer.status == 503
    assert "retry-after: 5" in answer.head
    assert len(await known(server.store, key_of())) == MAX_SECRETS
    assert "too many untried ids" in caplog.text


SPELLINGS = [
    f"?id={ID}",
    f"&id={ID}",
    f"/?id={ID}",
    f"/&id={ID}",
    f"?a=1&id={ID}&b=2",
    f"?a=1?id={ID}",
    f"?id={ID}&id={ID}",
    f"?id={ID}&",
    f"?id={ID.replace('-', '%2D')}",
]


async def test_every_way_to_append_the_id_is_understood(server: Served) -> None:
    for number, spelling in enumerate(SPELLINGS):
        answer = await talk(server.port, request(f"{HERE}/{key_of(number)}{spelling}"))
        assert (spelling, answer.status) == (spelling, 200)
        assert await known(server.store, key_of(number)) == (ID,)


async def test_an_ordinary_http_client_may_keep_its_connection(server: Served) -> None:
    """Two callbacks over one connection of aiohttp's client."""
    async with (
        aiohttp.TCPConnector(limit=1) as connector,
        aiohttp.ClientSession(f"http://127.0.0.1:{server.port}", connector=connector) as session,
    ):
        for secret in (ID, OTHER_ID):
            async with session.get(target(secret=secret)) as answer:
                assert answer.status == 200
                assert answer.headers["Cache-Control"] == "no-store"

    assert await known(server.store, key_of()) == (ID, OTHER_ID)


async def test_over_tls_the_server_needs_no_public_url(certificate: Certificate) -> None:
    async with running(
        public_url=None, tls_cert=certificate.cert, tls_key=certificate.key
    ) as server:
        await server.store.add(record_of(key_of()))
        assert server.public_url == f"https://127.0.0.1:{server.port}"
        url = f"{server.webhook_url(key_of())}?id={ID}"
        async with (
            aiohttp.TCPConnector(ssl=certificate.client) as connector,
            aiohttp.ClientSession(connector=connector) as session,
            session.get(url) as answer,
        ):
            assert answer.status == 200
        assert await known(server.store, key_of()) == (ID,)


# -- when the store fails --------------------------------------------------------------------------


@pytest.mark.parametrize("orphans_only", [False, True])
async def test_a_failing_store_is_answered_503_and_its_text_is_not_logged(
    run: Run, orphans_only: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with run(store=BrokenStore(orphans_only=orphans_only)) as server:
        answer = await talk(server.port, request(target()))

    assert answer.status == 503
    assert "retry-after" in answer.head
    assert "not kept" in caplog.text
    assert ID not in caplog.text


@pytest.mark.usefixtures("quick_store_timeout")
async def test_a_hanging_store_is_answered_503_soon(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    store = GatedStore()
    async with run(store=store) as server:
        await store.add(record_of(key_of()))
        answer = await talk(server.port, request(target()))
        assert answer.status == 503
        assert await known(store, key_of()) == ()

        store.gate.set()  # once it is well again, the repeated call is kept
        assert (await talk(server.port, request(target()))).status == 200
        assert await known(store, key_of()) == (ID,)
    assert "TimeoutError" in caplog.text


# -- orphans ---------------------------------------------------------------------------------------


async def test_a_genuine_key_without_a_record_is_kept_as_an_orphan_and_told(run: Run) -> None:
    orphans: asyncio.Queue[Orphan] = asyncio.Queue()
    runtime = Runtime(now=lambda: 1000.0)
    async with run(on_orphan=orphans.put_nowait, runtime=runtime) as server:
        answer = await talk(server.port, request(target()))

        assert answer.status == 200
        assert await orphans.get() == Orphan(key_of(), None)
        record = await server.store.get(key_of())
        assert record is not None
        assert (record.state, record.secrets) == (JobState.CALLED_BACK, (ID,))
        assert record.account is None
        assert record.expires_at == 1000.0 + 7 * 24 * 3600


async def test_an_orphan_whose_job_the_store_knows_is_told_with_its_account() -> None:
    orphans: asyncio.Queue[Orphan] = asyncio.Queue()

    async def on_orphan(orphan: Orphan) -> None:
        await orphans.put(orphan)

    async with running(on_orphan=on_orphan) as server:
        await server.store.add(record_of(key_of()))
        server.store.release(key_of())
        await talk(server.port, request(target()))
        assert await orphans.get() == Orphan(key_of(), "an account")


async def test_a_callback_for_a_job_that_somebody_has_leased_is_no_orphan() -> None:
    orphans: list[Orphan] = []
    async with running(on_orphan=orphans.append) as server:
        await server.store.add(record_of(key_of()))
        await talk(server.port, request(target()))
        await asyncio.sleep(0)
        assert await known(server.store, key_of()) == (ID,)
    assert orphans == []


async def test_an_orphan_is_told_once_however_often_its_callback_comes() -> None:
    orphans: list[Orphan] = []
    async with running(on_orphan=orphans.append) as server:
        await asyncio.gather(*(talk(server.port, request(target())) for _ in range(5)))
    assert len(orphans) == 1


async def test_a_failing_orphan_handler_is_logged_and_does_no_harm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[Orphan] = []

    async def fails(orphan: Orphan) -> None:
        raise LookupError("a bug of the user's")

    async with running(on_orphan=fails) as server:
        server.attach(nothing, told.append)
        answers = [await talk(server.port, request(target(number))) for number in (1, 2)]
        await asyncio.sleep(0)

    assert [answer.status for answer in answers] == [200, 200]
    assert [orphan.key for orphan in told] == [key_of(1), key_of(2)]
    assert "on_orphan failed" in caplog.text
    assert ID not in caplog.text


async def test_a_claimed_job_is_no_orphan_until_it_is_unclaimed(run: Run) -> None:
    orphans: list[Orphan] = []
    records: list[JobRecord] = []
    async with run(on_orphan=orphans.append) as server:
        listener = tells(records.append)
        server.claim(key_of(), listener)
        await talk(server.port, request(target(secret=ID)))
        assert (len(records), len(orphans)) == (1, 0)

        server.unclaim(key_of(), listener)
        server.unclaim(key_of(), listener)  # a second time does nothing
        await talk(server.port, request(target(secret=OTHER_ID)))
        await asyncio.sleep(0)
        assert (len(records), len(orphans)) == (1, 1)


async def test_an_orphan_handler_that_hangs_does_not_keep_the_server_from_closing() -> None:
    started = asyncio.Event()
    cancelled = asyncio.Event()

    async def hangs(orphan: Orphan) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with running(on_orphan=hangs) as server:
        assert (await talk(server.port, request(target()))).status == 200
        await started.wait()
    assert cancelled.is_set()


# -- its life --------------------------------------------------------------------------------------


async def test_port_0_takes_any_free_port_and_each_server_has_its_own() -> None:
    async with running() as one, running() as other:
        assert one.is_running
        assert one.port != other.port
        assert 0 < one.port < 65536


async def test_a_port_in_use_is_named_and_nothing_is_half_started() -> None:
    store = CountingStore()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = CallbackServer(port=port, public_url=PUBLIC_URL, store=store)
        with pytest.raises(PortInUseError, match=f"port {port} on 127.0.0.1 is in use"):
            await server.__aenter__()
    assert not server.is_running
    assert (store.opened, store.closed) == (1, 1)
    async with server:  # the port is free now, and the same object can be entered
        assert server.port == port


async def test_an_address_that_is_not_ours_is_a_clear_error() -> None:
    server = CallbackServer(host="192.0.2.1", public_url=PUBLIC_URL)
    with pytest.raises(CallbackServerError, match=r"cannot listen on 192\.0\.2\.1 port 0: .*host"):
        await server.__aenter__()


async def test_using_it_before_entering_or_entering_it_twice_is_a_clear_error() -> None:
    server = CallbackServer(public_url=PUBLIC_URL)
    with pytest.raises(ClosedError, match="not running"):
        _ = server.port
    async with server:
        with pytest.raises(ClosedError, match="running already"):
            await server.__aenter__()
        assert server.is_running
    with pytest.raises(ClosedError, match="not running"):
        _ = server.port


@pytest.mark.parametrize(
    ("prefix", "path"),
    [("", ""), ("/", ""), ("hooks", "/hooks"), ("/a/b.c/d~e/", "/a/b.c/d~e")],
)
async def test_the_prefix_may_be_nested_or_empty(run: Run, prefix: str, path: str) -> None:
    here, elsewhere = f"{MOUNTED_AT}{path}", f"{MOUNTED_AT}/other{path}"
    async with run(prefix=prefix) as server:
        await server.store.add(record_of(key_of()))
        assert server.webhook_url(key_of()) == f"{PUBLIC_URL}{path}/{key_of()}"
        assert (await talk(server.port, request(f"{here}/{key_of()}?id={ID}"))).status == 200
        assert (await talk(server.port, request(f"{elsewhere}/{key_of()}?id={ID}"))).status == 404


async def test_an_orderly_stop_records_the_request_under_way_and_refuses_new_ones() -> None:
    store = GatedStore()
    order: list[str] = []

    async def interrupt() -> None:
        order.append("interrupted")

    async with running(store=store) as server:
        await store.add(record_of(key_of()))
        server.attach(interrupt, None)
        port = server.port
        call = asyncio.create_task(talk(port, request(target())))
        call.add_done_callback(lambda _: order.append("answered"))
        await store.reached.wait()
        closing = asyncio.create_task(server.__aexit__(None, None, None))
        await asyncio.sleep(0)
        assert not closing.done()
        store.gate.set()
        await closing

    assert (await call).status == 200
    assert await known(store, key_of()) == (ID,)
    assert order[0] == "interrupted" or order == ["answered", "interrupted"]
    with pytest.raises(ConnectionError):
        await talk(port, request(target()))


async def test_an_idle_kept_alive_connection_does_not_delay_the_stop() -> None:
    async with running() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"GET {target()} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert (await reader.readuntil(b"\r\n\r\nOK")).startswith(b"HTTP/1.1 200")
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_closing_interrupts_every_client_that_is_attached_and_no_other() -> None:
    calls: list[str] = []

    async def first() -> None:
        calls.append("first")

    async def second() -> None:
        calls.append("second")

    async def gone() -> None:
        calls.append("gone")

    async with running() as server:
        for each in (first, gone, second):
            server.attach(each, None)
        server.detach(gone, None)
        assert calls == []
    assert calls == ["first", "second"]


async def test_two_clients_share_a_server_and_a_detached_one_hears_nothing_more() -> None:
    heard: dict[str, list[Orphan]] = {"a": [], "b": []}

    async def interrupt_a() -> None: ...
    async def interrupt_b() -> None: ...

    hear_a, hear_b = heard["a"].append, heard["b"].append
    async with running() as server:
        server.attach(interrupt_a, hear_a)
        server.attach(interrupt_b, hear_b)
        await talk(server.port, request(target(1)))
        server.detach(interrupt_a, hear_a)
        await talk(server.port, request(target(2)))
        await asyncio.sleep(0)
    assert [orphan.key for orphan in heard["a"]] == [key_of(1)]
    assert [orphan.key for orphan in heard["b"]] == [key_of(1), key_of(2)]


async def test_without_a_callback_secret_one_is_made_at_random_and_kept_in_the_store() -> None:
    store = MemoryStore()
    async with running(callback_secret=None, store=store) as server:
        secret = server.callback_secret
    async with running(callback_secret=None, store=store) as again:
        assert again.callback_secret == secret
    async with running(callback_secret=None) as other:
        assert other.callback_secret != secret
    assert len(secret) == 32


async def test_a_given_callback_secret_signs_the_keys_of_every_replica() -> None:
    async with running() as one, running() as other:
        assert one.callback_secret == other.callback_secret == CALLBACK_SECRET.encode()


# -- wrong configuration ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "public_url",
    [
        "http://hooks.example.com",
        "hooks.example.com",
        "https://",
        "https://hooks.example.com?x=1",
        "https://hooks.example.com#here",
        "https://user:hunter2@hooks.example.com",
        "https://hooks.example.com:http",
        "https://hooks.example.com:99999",
        "https://[::1",
        "https://hooks.example.com/a b",
        "https://hooks.example.com/a\r\nX: y",
        "",
    ],
)
def test_a_public_url_that_cannot_be_used_is_refused_without_repeating_it(public_url: str) -> None:
    with pytest.raises(ConfigurationError, match="public_url must be an https address") as caught:
        CallbackServer(public_url=public_url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("public_url", "expected"),
    [
        ("https://hooks.example.com/", "https://hooks.example.com"),
        ("https://hooks.example.com:8443/a/b/", "https://hooks.example.com:8443/a/b"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
    ],
)
def test_a_public_url_may_have_a_port_and_a_path(public_url: str, expected: str) -> None:
    assert CallbackServer(public_url=public_url).public_url == expected


@pytest.mark.parametrize("options", [{}, {"host": "0.0.0.0"}])
def test_without_public_url_and_certificate_the_error_names_both(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"AF10_PUBLIC_URL.*tls_cert and tls_key"):
        CallbackServer(**options)


def test_listening_on_all_addresses_with_tls_still_needs_a_public_url(
    certificate: Certificate,
) -> None:
    with pytest.raises(ConfigurationError, match="listens on all addresses"):
        CallbackServer(host="0.0.0.0", tls_cert=certificate.cert, tls_key=certificate.key)


@pytest.mark.parametrize("prefix", ["a b", "ä", "a?b", "a#b", "%41", "a//b", "..", "a/../b", "."])
def test_a_prefix_that_a_client_would_rewrite_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="prefix must be a path"):
        CallbackServer(public_url=PUBLIC_URL, prefix=prefix)


def test_a_callback_secret_that_can_be_guessed_is_refused() -> None:
    for secret in ("", "too-short"):
        with pytest.raises(ConfigurationError, match="callback_secret must be at least 16") as it:
            CallbackServer(public_url=PUBLIC_URL, callback_secret=secret)
        assert "too-short" not in str(it.value)


def test_a_certificate_without_its_key_is_refused(certificate: Certificate) -> None:
    with pytest.raises(ConfigurationError, match="TLS needs both"):
        CallbackServer(tls_cert=certificate.cert)
    with pytest.raises(ConfigurationError, match="TLS needs both"):
        CallbackServer(tls_key=certificate.key)


def test_certificates_that_cannot_be_used_are_refused_with_a_clear_sentence(
    certificate: Certificate, tmp_path: Path
) -> None:
    """Missing, no PEM at all, a key of another certificate, and a key with a passphrase."""
    rubbish, other, locked = tmp_path / "rubbish", tmp_path / "other", tmp_path / "locked"
    rubbish.write_text("no PEM")
    key = serialization.load_pem_private_key(certificate.key.read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )
    other.write_bytes(_another_key())
    for cert, key_file in [
        (tmp_path / "missing", certificate.key),
        (rubbish, certificate.key),
        (certificate.cert, rubbish),
        (certificate.cert, other),
        (certificate.cert, locked),
    ]:
        with pytest.raises(ConfigurationError, match=r"cannot be used: .+; they must be PEM"):
            CallbackServer(tls_cert=cert, tls_key=key_file)


def _another_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


# -- silence ---------------------------------------------------------------------------------------


async def test_no_secret_is_in_any_log_record_even_at_debug(
    run: Run, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """Access logs included. Only aiohttp's own server logs whole what it cannot read at all."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "aiohttp")
    unreadable = (
        f"GET {target()} HTTP/9.9\r\nConnection: close\r\n\r\n".encode(),
        f"GET {target()}\x00 HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        f"{target()} GET HTTP/1.1\r\n\r\n".encode(),
    )
    async with run(store=MemoryStore()) as server:
        await server.store.add(replace(record_of(key_of()), expires_at=1e12))
        for data in (
            request(target()),
            request(target()),
            request(target(2)),
            request(f"{target()}&id={OTHER_ID}"),
            request(f"{HERE}/{key_of()}&id={ID}"),
            request(f"{HERE}/{key_of()}%26id={ID}"),
            request(f"{HERE}/{key_of()}x?id={ID}"),
            request(target(), method="POST"),
            request(f"{target()}%00"),
            *(unreadable if kind is not AIOHTTP else ()),
        ):
            await talk(server.port, data)
    async with run(store=BrokenStore()) as server:
        await talk(server.port, request(target()))

    access = [record for record in caplog.records if "access" in record.name]
    assert bool(access) == (kind is not ALONE)
    assert caplog.records
    for record in caplog.records:
        seen = f"{record.getMessage()} {record.args} {record.exc_text} {record.exc_info}"
        for secret in (ID, OTHER_ID, CALLBACK_SECRET):
            assert secret not in seen
