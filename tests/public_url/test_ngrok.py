"""ngrok by its own SDK.

What is decided here is tested with a fake that takes only calls which the real SDK takes, and what
the SDK does with the real one, in processes of their own, against a stand-in of ngrok's service.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from af10_async.errors import MissingExtraError, PublicURLError
from af10_async.public_url.base import LocalServer
from af10_async.public_url.ngrok import RETRY_SECONDS, Ngrok
from af10_async.public_url.ngrok_session import (
    MAX_CLOSE_SECONDS,
    MAX_SECONDS,
    PATIENCE,
    STEADY_SECONDS,
)
from tests.conftest import Tls
from tests.ports import free_port

from .ngrok_clock import Clock
from .ngrok_fake_sdk import FakeSdk
from .ngrok_service import NgrokService, ngrok_service

PLAIN = LocalServer("127.0.0.1", 8443, is_tls=False)
TLS = LocalServer("127.0.0.1", 8443, is_tls=True)
TOKEN = "2aTestToken_4bNotReal"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> FakeSdk:
    real = pytest.importorskip("ngrok", reason="the extra ngrok is not installed")
    fake = FakeSdk(real)
    monkeypatch.setitem(sys.modules, "ngrok", fake)
    return fake


def nobody(address: str | None) -> None:
    pytest.fail(f"told {address}")


def way(clock: Clock | None = None, **options: Any) -> Ngrok:
    return Ngrok(**{"authtoken": TOKEN, "runtime": (clock or Clock()).runtime, **options})


async def tell_from_a_thread(sdk: FakeSdk, name: str, *arguments: object) -> None:
    """What the SDK does when something happens."""
    await asyncio.to_thread(sdk.builders[-1].handlers[name], *arguments)


async def cut(sdk: FakeSdk) -> None:
    await tell_from_a_thread(sdk, "handle_disconnection", "x.example:443", "transport error")


async def beat(sdk: FakeSdk) -> None:
    await tell_from_a_thread(sdk, "handle_heartbeat", 40)


async def until(told: list[str | None], count: int) -> None:
    while len(told) < count:
        await asyncio.sleep(0)


async def test_the_sdk_forwards_to_the_server_and_all_is_closed_at_the_end(sdk: FakeSdk) -> None:
    async with way().open(PLAIN, nobody) as address:
        assert address == "https://first.ngrok.app"
        assert sdk.named("listen_and_forward") == [("listen_and_forward", "http://127.0.0.1:8443")]
        assert sdk.named("domain", "verify_upstream_tls", "close") == []
    assert sdk.named("authtoken") == [("authtoken", TOKEN)]
    assert len(sdk.named("close")) == 2
    assert not sdk.open


async def test_the_certificate_of_a_local_tls_server_is_not_checked(sdk: FakeSdk) -> None:
    async with way().open(TLS, nobody):
        assert sdk.named("verify_upstream_tls") == [("verify_upstream_tls", False)]
        assert sdk.named("listen_and_forward") == [("listen_and_forward", "https://127.0.0.1:8443")]


@pytest.mark.parametrize("domain", ["a.ngrok.app", "https://a.ngrok.app/"])
async def test_a_domain_is_asked_for(sdk: FakeSdk, domain: str) -> None:
    async with way(domain=domain).open(PLAIN, nobody):
        assert sdk.named("domain") == [("domain", "a.ngrok.app")]


async def test_without_a_token_the_sdk_reads_the_environment(sdk: FakeSdk) -> None:
    async with way(authtoken=None).open(PLAIN, nobody):
        assert len(sdk.named("authtoken_from_env")) == 1


async def test_a_connection_that_the_sdk_makes_again_keeps_its_address(
    sdk: FakeSdk, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str | None] = []
    clock = Clock()
    async with way(clock).open(PLAIN, told.append) as address:
        await cut(sdk)
        await until(told, 1)
        await beat(sdk)
        await clock.end(STEADY_SECONDS)
        await until(told, 2)
    assert told == [None, address]
    assert len(sdk.builders) == 1
    warnings = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert ["transport error" in each.getMessage() for each in warnings] == [True]


async def test_a_heartbeat_before_a_refusal_does_not_count(sdk: FakeSdk) -> None:
    told: list[str | None] = []
    clock = Clock()
    async with way(clock).open(PLAIN, told.append) as address:
        await cut(sdk)
        await beat(sdk)
        await clock.pausing(STEADY_SECONDS)
        await cut(sdk)
        await clock.end(STEADY_SECONDS)
        assert told == [None]
        await beat(sdk)
        await clock.end(STEADY_SECONDS)
        await until(told, 2)
    assert told == [None, address]


async def test_a_connection_that_stays_away_is_replaced_by_a_new_session(sdk: FakeSdk) -> None:
    told: list[str | None] = []
    clock = Clock()
    async with way(clock).open(PLAIN, told.append):
        await cut(sdk)
        await clock.end(PATIENCE)
        await until(told, 2)
        assert len(sdk.named("close")) == 2  # the old one
    assert told == [None, "https://second.ngrok.app"]
    assert not sdk.open


async def test_a_session_that_the_sdk_gives_up_is_replaced(sdk: FakeSdk) -> None:
    told: list[str | None] = []
    async with way().open(PLAIN, told.append):
        while not sdk.joins:
            await asyncio.sleep(0)
        sdk.joins[0].set_exception(ValueError("error on join: Canceled"))
        await until(told, 2)
    assert told == [None, "https://second.ngrok.app"]


async def test_a_new_session_is_tried_until_it_succeeds(sdk: FakeSdk) -> None:
    told: list[str | None] = []
    clock = Clock()
    async with way(clock).open(PLAIN, told.append):
        sdk.results["connect"] = ValueError("failed to connect session", "no route", None)
        await cut(sdk)
        await clock.end(PATIENCE)
        await clock.round(RETRY_SECONDS)
        assert told == [None]
        del sdk.results["connect"]
        await clock.end(RETRY_SECONDS)
        await until(told, 2)
    assert told == [None, "https://second.ngrok.app"]


@pytest.mark.parametrize("left_open", ["connect", "listen_and_forward"])
async def test_what_never_comes_is_given_up_in_time_and_closed(
    sdk: FakeSdk, left_open: str
) -> None:
    sdk.results[left_open] = future = asyncio.get_running_loop().create_future()
    clock = Clock()
    task = asyncio.create_task(_entered(way(clock)))
    while not sdk.named(left_open):
        await asyncio.sleep(0)
    await clock.end(MAX_SECONDS)
    with pytest.raises(PublicURLError, match="did not answer within 30 seconds") as caught:
        await task
    assert caught.value.retryable
    assert future.cancelled()
    assert not sdk.open


@pytest.mark.parametrize("left_open", ["connect", "listen_and_forward"])
async def test_what_comes_together_with_a_cancellation_is_closed_all_the_same(
    sdk: FakeSdk, left_open: str
) -> None:
    sdk.results[left_open] = future = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(_entered(way()))
    while not sdk.named(left_open):
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    future.set_result(sdk.made(left_open))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sdk.named("close")
    assert not sdk.open


async def _entered(how: Ngrok) -> None:
    async with how.open(PLAIN, nobody):
        await asyncio.Event().wait()


@pytest.mark.parametrize("part", ["close Listener", "close Session"])
async def test_leaving_does_not_wait_for_an_ngrok_that_does_not_answer(
    sdk: FakeSdk, part: str
) -> None:
    sdk.results[part] = asyncio.get_running_loop().create_future()
    async with way(Clock(MAX_CLOSE_SECONDS)).open(PLAIN, nobody):
        pass
    assert len(sdk.named("close")) == 2
    assert not sdk.open


async def test_an_error_on_leaving_is_none(sdk: FakeSdk) -> None:
    sdk.results["close Listener"] = ValueError("error closing listener", "no stream")
    async with way().open(PLAIN, nobody):
        pass
    assert len(sdk.named("close")) == 2
    assert not sdk.open


async def test_what_the_sdk_says_after_the_end_of_the_loop_is_nobodys(sdk: FakeSdk) -> None:
    async with way().open(PLAIN, nobody):
        handlers = sdk.builders[0].handlers

    def later() -> None:
        loop = asyncio.new_event_loop()
        loop.close()
        for handler in handlers.values():
            handler()

    await asyncio.to_thread(later)


@pytest.mark.parametrize(
    ("arguments", "expected", "retryable"),
    [
        (
            ("failed to connect session", f"Invalid.\nYour token: {TOKEN}", "ERR_NGROK_107"),
            "(ERR_NGROK_107: failed to connect session: Invalid. Your token: [redacted]): check",
            False,
        ),
        (
            ("failed to connect session", "failed to establish tcp connection"),
            "(failed to connect session: failed to establish tcp connection): check that this",
            True,
        ),
    ],
)
async def test_ngroks_reason_is_given_without_the_token(
    sdk: FakeSdk, arguments: tuple[str, ...], expected: str, retryable: bool
) -> None:
    sdk.results["connect"] = ValueError(*arguments)
    with pytest.raises(PublicURLError) as caught:
        await _entered(way())
    assert expected in str(caught.value)
    assert caught.value.retryable is retryable
    assert caught.value.__cause__ is None


async def test_the_token_of_the_environment_is_not_repeated_either(
    sdk: FakeSdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NGROK_AUTHTOKEN", TOKEN)
    sdk.results["connect"] = ValueError("failed to connect session", f"Your token: {TOKEN}")
    with pytest.raises(PublicURLError) as caught:
        await _entered(way(authtoken=None))
    assert TOKEN not in str(caught.value)


async def test_an_address_that_is_not_https_is_refused(sdk: FakeSdk) -> None:
    sdk.urls = ["http://first.ngrok.app"]
    with pytest.raises(PublicURLError, match="not https"):
        await _entered(way())
    assert len(sdk.named("close")) == 2
    assert not sdk.open


async def test_without_the_sdk_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ngrok", None)
    with pytest.raises(MissingExtraError, match=r'pip install "af10-async\[ngrok\]"'):
        await _entered(way())


def test_its_repr_hides_the_token() -> None:
    assert repr(way(domain="a.example")) == "Ngrok(authtoken='...', domain='a.example')"
    assert repr(Ngrok()) == "Ngrok(authtoken=None, domain=None)"


# With the real SDK.


class Child:
    """A process that has an address by the real SDK, until it is told to leave."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.log = ""

    async def said(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(await self._process.stdout.readline())

    async def leave(self) -> None:
        """Let it end; it must do so well, and without a word about the token."""
        out, log = await self._process.communicate(b"\n")
        self.log = log.decode()
        assert self._process.returncode == 0, self.log
        assert json.loads(out.splitlines()[-1]) == {"left": []}
        assert TOKEN not in out.decode() + self.log


@asynccontextmanager
async def child(**options: Any) -> AsyncIterator[Child]:
    pytest.importorskip("ngrok", reason="the extra ngrok is not installed")
    usual = {"ca": "", "local": 1, "is_tls": False, "token": TOKEN, "domain": None, "at_once": []}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.public_url.ngrok_child", json.dumps({**usual, **options})),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        yield Child(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.fixture
async def service(tls: Tls) -> AsyncIterator[NgrokService]:
    async with ngrok_service(str(tls.cert), str(tls.key)) as running:
        yield running


async def test_a_request_to_the_public_address_arrives_at_the_local_tls_server(
    service: NgrokService, tls: Tls
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhere!")
        arrived.append(seen.partition(b"\r\n")[0])
        await reader.read()
        writer.close()

    arrived: list[bytes] = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.cert, tls.key)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    local = server.sockets[0].getsockname()[1]
    async with child(
        port=service.port, ca=str(tls.ca), local=local, is_tls=True, domain="a.example"
    ) as ours:
        assert await ours.said() == {"address": "https://here.example.app"}
        [line] = service.lines
        request = b"GET /key?id=secret HTTP/1.1\r\nHost: here.example.app\r\n\r\n"
        assert (await line.forward(request, b"here!")).startswith(b"HTTP/1.1 200 OK")
        await ours.leave()
    server.close()
    assert arrived == [b"GET /key?id=secret HTTP/1.1"]
    assert service.tokens == [TOKEN]
    [asked_for] = service.binds
    assert "a.example" in (asked_for["Opts"].get("Domain"), asked_for["Opts"]["Hostname"])
    assert service.unbound >= 1


async def test_a_wrong_token_is_told_in_ngroks_words(service: NgrokService, tls: Tls) -> None:
    service.auth_error = f"It is invalid.\nYour authtoken: {TOKEN}\r\n\r\nERR_NGROK_105\r\n"
    async with child(port=service.port, ca=str(tls.ca)) as ours:
        said = await ours.said()
        assert "(ERR_NGROK_105: failed to connect session: It is invalid." in said["error"]
        await ours.leave()


async def test_a_domain_that_is_taken_is_told_in_ngroks_words(
    service: NgrokService, tls: Tls
) -> None:
    service.bind_error = "The endpoint is already online.\r\n\r\nERR_NGROK_334\r\n"
    async with child(port=service.port, ca=str(tls.ca)) as ours:
        said = await ours.said()
        assert "(ERR_NGROK_334: failed to start listener: The endpoint" in said["error"]
        await ours.leave()


async def test_without_a_network_there_is_an_error_and_a_good_end() -> None:
    async with child(port=free_port()) as ours:
        said = await ours.said()
        assert "failed to establish tcp connection" in said["error"]
        assert said["retryable"]
        await ours.leave()


async def test_an_ngrok_that_is_silent_is_given_up_in_time(service: NgrokService, tls: Tls) -> None:
    service.is_silent = True
    async with child(port=service.port, ca=str(tls.ca), at_once=[MAX_SECONDS]) as ours:
        said = await ours.said()
        assert "did not answer within 30 seconds" in said["error"]
        await ours.leave()


async def test_a_connection_that_broke_is_made_again_by_the_sdk(
    service: NgrokService, tls: Tls
) -> None:
    async with child(port=service.port, ca=str(tls.ca), at_once=[STEADY_SECONDS]) as ours:
        address = (await ours.said())["address"]
        service.cut()
        assert await ours.said() == {"told": None}
        assert await ours.said() == {"told": address}
        await ours.leave()


async def test_a_new_session_replaces_one_that_ngrok_does_not_take_back(
    service: NgrokService, tls: Tls
) -> None:
    async with child(port=service.port, ca=str(tls.ca), at_once=[PATIENCE, RETRY_SECONDS]) as ours:
        await ours.said()
        service.url = "https://there.example.app"
        service.cut()
        assert await ours.said() == {"told": None}
        assert await ours.said() == {"told": "https://there.example.app"}
        await ours.leave()
