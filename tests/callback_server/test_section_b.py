"""What nobody means well, and what breaks: the callback server lives, and loses no callback.

Where the rows 11 to 30 of the catalogue of faults are proven (a name without a folder is in this
one; without a file, in here):

| row | what | where |
|---|---|---|
| 11 | unusable URLs | test_callback_server: `a_public_url_that_cannot_be_used...`; test_client |
| 12 | URLs that lead elsewhere | reachability/; doctor/ |
| 13 | guessed keys | test_hostile_requests: `a_key_that_is_not_ours_is_404...`; |
|    | | `ten_thousand_guesses...`; fire/test_answers (the same bytes), fire/timing |
| 14 | twenty duplicates | test_callback_server: `twenty_duplicates_at_once...` |
| 15 | a late callback | jobs/test_rules: `a_late_callback_is_kept_told_and_adopted`; |
|    | | jobs/test_waiting: `a_cancelled_waiter...`, `a_cancel_together_with_the_callback...` |
| 16 | other methods | test_hostile_requests: `only_get_is_allowed` |
| 17 | odd ids | test_hostile_requests: `an_id_that_no_secret_looks_like...`, |
|    | | `no_text_at_all...`; protocol/test_callbacks; fuzz/ |
| 18 | slow peers | `a_thousand_slow_peers...`; test_connections: `whoever_does_not_take...`; |
|    | | test_hostile_requests: `whoever_does_not_finish...` |
| 19 | too many of them | `when_descriptors_run_out...`; test_connections: its first part; |
|    | | test_waiting_room; fire/ |
| 20 | smuggling | test_hostile_requests: `a_request_hidden...`, `chunk_extensions...`, |
|    | | `a_line_folded...`; `without_its_extensions...` |
| 21 | bodies | test_hostile_requests: `a_gigabyte...`, `nobody_is_told_to_go_on...`, |
|    | | `an_endless_chunked_body...` |
| 22 | log floods | `ten_thousand_guesses...`, `malformed_requests_are_no_line...`; |
|    | | test_hostile_requests: `a_flood_of_malformed...`, `no_answer_shows_versions...` |
| 23 | wrong protocol | test_hostile_requests: `a_tls_client...`, `a_plain_client...`; |
|    | | test_connections: `a_handshake_that_comes_to_nothing...` |
|    | certificates | `another_name...`, `an_expired...`; public_url/test_certificates; |
|    | | test_hostile_requests: `a_client_that_does_not_trust...` |
| 24 | spoofed headers | test_hostile_requests: `spoofed_headers...`, `an_absolute_form...`; |
|    | | proxies/test_hostile_callers |
| 25 | a port in use | test_callback_server: `a_port_in_use...`; test_client: `a_taken_port...` |
| 26 | closing meanwhile | test_callback_server: `an_orderly_stop...`; test_connections: |
|    | | `what_has_arrived...`, `a_request_that_never_ends...`, `a_cancellation_while...` |
| 27 | it listens no more | test_connections: `a_listening_socket_that_breaks...`, |
|    | | `when_it_cannot_listen_any_more...`, `a_socket_that_breaks_again...` |
| 28 | a slow store | test_callback_server: `a_hanging_store...`, `a_failing_store...`, |
|    | | `nothing_is_answered_before...`; jobs/test_durable: `...cannot_keep_is_answered_503...` |
| 29 | kept connections | `a_connection_that_a_proxy_keeps...`; |
|    | | proxies/test_proxies: `the_proxies_are_done...`, `idle_connections_that_we_close...` |
| 30 | another replica | jobs/test_durable: `the_callback_lands_at_one_replica...`; |
|    | | test_workers; stores/test_many_processes: `a_waiter_is_woken_by_another_process` |
"""

from __future__ import annotations

import asyncio
import datetime
import inspect
import json
import logging
import os
import socket
import ssl
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from . import (
    test_callback_server,
    test_connections,
    test_hostile_requests,
    test_waiting_room,
)
from .conftest import (
    CALLBACK_SECRET,
    ID,
    OTHER_ID,
    PUBLIC_URL,
    Certificate,
    key_of,
    known,
    running,
    talk,
)
from .peers import Peers, as_many_sockets_as_before, is_open, to_the_end
from .servers import MOUNTED_AT
from .test_connections import callback, is_served, lines_about

HERE = f"{MOUNTED_AT}/af10"


# -- slow peers ------------------------------------------------------------------------------------

SLOW = (b"", b"GET /af10/x", b"GET /af10/x HTTP/1.1\r\nHost: x\r\nX-Slow: ")


async def drip(peer: socket.socket) -> None:
    """One byte of a header at a time, until the server has had enough."""
    loop = asyncio.get_running_loop()
    try:
        while True:
            await loop.sock_sendall(peer, b"y")
            await asyncio.sleep(0.02)
    except ConnectionError:
        return


async def test_a_thousand_slow_peers_are_cut_off_and_a_genuine_callback_is_served_meanwhile(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Silent ones, half a line, half a header, and one byte at a time; none gets an answer."""
    caplog.set_level(logging.INFO)
    _have_files(2500)
    async with running(keep_alive=0.5, max_connections=1100) as server, as_many_sockets_as_before():
        with Peers(server.port) as peers:
            crowd = [peers.connect(SLOW[number % 3]) for number in range(1000)]
            dripping = [asyncio.create_task(drip(each)) for each in crowd[2:60:3]]
            await asyncio.sleep(0)
            assert await is_served(server)
            assert {await to_the_end(each) for each in crowd} == {b""}
            assert await asyncio.wait_for(asyncio.gather(*dripping), 20)
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


def _have_files(number: int) -> None:
    """Both ends of all connections are in this process."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < number:
        if hard != resource.RLIM_INFINITY and hard < number:
            pytest.skip(f"this test needs {number} open files (ulimit -n)")
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


# -- connections that a proxy keeps ----------------------------------------------------------------


async def test_a_connection_that_a_proxy_keeps_lives_longer_than_one_of_anybody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a proxy is named; it is used again after a time when others were cut off."""
    monkeypatch.setattr("af10_async.callback_server.KEEP_ALIVE", 0.05)
    monkeypatch.setattr("af10_async.callback_server.KEEP_ALIVE_BEHIND_PROXY", 60.0)
    used_again: list[object] = []

    async def reused(*about: object) -> None:
        used_again.append(about)

    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(reused)
    async with running(trusted_proxies=["127.0.0.1"]) as behind, running() as plain:
        base = f"http://127.0.0.1:{behind.port}"
        async with aiohttp.ClientSession(base, trace_configs=[trace]) as pooled:
            for secret in (ID, OTHER_ID):
                async with pooled.get(f"{HERE}/{key_of(2)}?id={secret}") as answer:
                    assert answer.status == 200
                with Peers(plain.port) as peers:
                    assert await to_the_end(peers.connect()) == b""
        assert len(used_again) == 1
        assert await known(behind.store, key_of(2)) == (ID, OTHER_ID)


# -- what is logged --------------------------------------------------------------------------------


@dataclass
class Guess:
    """A request as a server would hand it on."""

    target: str
    method: str = "GET"

    def peer(self) -> str | None:
        return "203.0.113.5"

    def header(self, name: str) -> tuple[str, ...]:
        return ()


async def test_ten_thousand_guesses_are_one_line_and_nothing_of_them_is_in_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At INFO; they are counted, and nothing of them is kept either."""
    caplog.set_level(logging.INFO)
    async with running() as server:
        for number in range(10_000):
            target = ("/af10/guess", f"/af10/{key_of(1)}?id=%0aguess", "/guess")[number % 3]
            found = await server.handle(Guess(f"{MOUNTED_AT}{target}{number}"))
            assert found.status in (400, 404)
        assert [each async for each in server.store.records()] == []
        assert await is_served(server)
    told = lines_about(caplog, "turned away")
    assert len(told) == 1
    assert len(caplog.records) < 10
    assert "guess" not in caplog.text


async def test_malformed_requests_are_no_line_at_all_at_info(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with running() as server:
        for number in range(300):
            with Peers(server.port) as peers:
                malformed = (b"guess\r\n\r\n", b"GET guess guess guess\r\n\r\n", b"\x16\x03\x01")
                await to_the_end(peers.connect(malformed[number % 2]))
    assert not caplog.records


# -- certificates ----------------------------------------------------------------------------------


async def test_another_name_than_the_certificates_is_the_callers_decision(
    certificate: Certificate,
) -> None:
    """By SNI and by what it checks: the server is the same for all names."""
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
    async with running(tls_cert=certificate.cert, tls_key=certificate.key) as server:
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            await _handshake(server.port, certificate.client, "hooks.example.com")
        await _handshake(server.port, careless, "hooks.example.com")
        assert await is_served(server, certificate.client)


async def test_an_expired_certificate_is_refused_by_callers_and_the_server_lives(
    authority: trustme.CA, certificate: Certificate
) -> None:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    leaf = authority.issue_cert("127.0.0.1", not_before=past, not_after=past.replace(month=2))
    leaf.cert_chain_pems[0].write_to_path(certificate.cert)
    leaf.private_key_pem.write_to_path(certificate.key)
    async with running(tls_cert=certificate.cert, tls_key=certificate.key) as server:
        for _ in range(2):
            with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
                await _handshake(server.port, certificate.client, "127.0.0.1")


async def _handshake(port: int, tls: ssl.SSLContext, name: str) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    writer.close()
    await writer.wait_closed()


# -- in a process of its own -----------------------------------------------------------------------


class Child:
    """A process with a callback server; see `process.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.port = 0

    async def answer(self) -> Any:
        assert self._process.stdout is not None
        async with asyncio.timeout(40):
            return json.loads(await self._process.stdout.readline())

    async def secrets(self, key: str) -> list[str]:
        """What it was told for that key."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{key}\n".encode())
        found = await self.answer()
        assert isinstance(found, list)
        return found

    async def log(self) -> str:
        """All of it; then the process has ended."""
        _, log = await self._process.communicate(b"")  # nothing, but its end
        assert self._process.returncode == 0
        return log.decode()


@asynccontextmanager
async def child(
    files: int | None = None, options: dict[str, Any] | None = None, **environment: str
) -> AsyncIterator[Child]:
    """Ends with the test, whatever becomes of it."""
    usual = {"public_url": PUBLIC_URL, "callback_secret": CALLBACK_SECRET}
    task = json.dumps({"files": files, "options": usual | (options or {})})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.callback_server.process", task),
        env=os.environ | environment,
        cwd=Path(__file__).parents[2],
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    found = Child(process)
    try:
        found.port = await found.answer()
        yield found
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_when_descriptors_run_out_idle_connections_go_and_callbacks_are_served() -> None:
    """Also when more wait at the door than it can ever take in; one line tells of it."""
    async with child(files=48, options={"max_connections": 500}) as server:
        with Peers(server.port) as peers:
            crowd = [peers.connect() for _ in range(150)]
            assert (await talk(server.port, callback(key_of(1)))).status == 200
            assert sum(map(is_open, crowd)) < 48
        assert (await talk(server.port, callback(key_of(2)))).status == 200
        assert await server.secrets(key_of(1)) == await server.secrets(key_of(2)) == [ID]
        log = await server.log()
    assert log.count("no connection can be taken in (Too many open files)") == 1
    assert "Traceback" not in log
    assert len(log.splitlines()) < 10


async def test_without_its_extensions_aiohttp_is_warned_of_and_runs_nothing_hidden() -> None:
    """The requests that `test_hostile_requests` hides from its parser in C."""
    hides = test_hostile_requests.test_a_request_hidden_behind_another_is_never_run
    (mark,) = (each for each in hides.pytestmark if each.name == "parametrize")  # type: ignore[attr-defined]
    async with child(AIOHTTP_NO_EXTENSIONS="1") as server:
        for headers in mark.args[1]:
            start = f"GET {test_hostile_requests.GOOD} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"
            answer = await talk(server.port, (start + test_hostile_requests.HIDDEN).encode())
            assert (headers, answer.status) in ((headers, 200), (headers, 400))
            assert await server.secrets(key_of(2)) == []
        assert (await talk(server.port, callback(key_of(2)))).status == 200
        log = await server.log()
    assert log.count("aiohttp runs without its C extensions") == 1
    assert "Traceback" not in log


# -- uvloop ----------------------------------------------------------------------------------------

USUAL = {"caplog", "monkeypatch", "certificate"}
NOT_ON_UVLOOP = "resolves_to"
"""uvloop asks the system for addresses by itself."""
ON_UVLOOP = [
    found
    for room in (test_connections, test_callback_server, test_waiting_room)
    for name, found in sorted(vars(room).items())
    if name.startswith("test_")
    and inspect.iscoroutinefunction(found)
    and USUAL.issuperset(inspect.signature(found).parameters)
    and NOT_ON_UVLOOP not in found.__code__.co_names
]


@pytest.mark.parametrize("test", ON_UVLOOP, ids=lambda test: test.__name__.removeprefix("test_"))
def test_on_uvloop_all_is_the_same(
    test: Callable[..., Any], request: pytest.FixtureRequest
) -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed: pip install uvloop")
    given = {name: request.getfixturevalue(name) for name in inspect.signature(test).parameters}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test(**given))
