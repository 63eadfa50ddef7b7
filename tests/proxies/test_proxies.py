"""The callback server behind real proxies, configured as docs/proxies.md says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest

from af10_async.callback_server import KEEP_ALIVE_BEHIND_PROXY
from tests.callback_server.conftest import ID, OTHER_ID

from .conftest import Setting, SettingMaker, request, target
from .programs import PROXIES
from .proxy import DOCS, Proxy

HEX = "".join(f"%{ord(each):02x}" for each in ID)
"""The id with each of its characters percent-encoded."""
BOTH_VERSIONS = pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])


# -- a callback ------------------------------------------------------------------------------------


@pytest.mark.parametrize("strips", [False, True], ids=["prefix handed on", "prefix taken away"])
async def test_a_callback_through_tls_and_a_path_prefix_is_kept(
    make_setting: SettingMaker, strips: bool
) -> None:
    setting = await make_setting(strips=strips)
    async with setting.server():
        answer = await setting.ask(request(target()))

    assert (answer.status, answer.body) == (200, b"OK")
    assert await setting.kept() == {1}


async def test_a_callback_over_http2_is_kept(open_setting: Setting) -> None:
    async with open_setting.caller("HTTP/2") as client:
        answers = await asyncio.gather(*(client.get(target(each)) for each in range(1, 21)))

    assert {(each.http_version, each.status_code) for each in answers} == {("HTTP/2", 200)}
    assert await open_setting.kept() == set(range(1, 21))


def test_the_documentation_says_how_the_prefix_is_taken_away() -> None:
    """The changes that these tests make are those that readers are told of."""
    text = DOCS.read_text()
    for proxy in PROXIES:
        changed = set(proxy.stripping[1].splitlines()) - set(proxy.stripping[0].splitlines())
        assert all(f"`{line.strip()}`" in text for line in changed)


async def test_each_form_of_the_id_arrives_as_the_same_secret(open_setting: Setting) -> None:
    """Percent-encoded in either case, after a trailing slash, after `&`, among others."""
    forms = [
        f"?id={ID.replace('-', '%2D')}",
        f"?id={ID.replace('-', '%2d')}",
        f"?id={HEX}",
        f"?id={HEX.upper()}",
        f"/?id={ID}",
        f"&id={ID}",
        f"/&id={ID}",
        f"?&id={ID}",
        f"?a=%20b%2Fc&id={ID}&d=%C3%A9",
        f"?id={ID}&id={HEX}",
    ]
    for number, form in enumerate(forms, 1):
        answer = await open_setting.ask(request(target(number, form)))
        assert answer.status == 200, form

    assert await open_setting.kept() == set(range(1, len(forms) + 1))


async def test_an_id_that_is_none_is_refused_by_us_and_nothing_is_kept(
    open_setting: Setting,
) -> None:
    forms = ["", "?id=", f"?id={ID}&id={OTHER_ID}", f"?id=%7B{ID}%7D", f"?id={ID}%0D%0A", "?id=%FF"]
    for form in forms:
        answer = await open_setting.ask(request(target(1, form)))
        assert (answer.status, answer.body) == (400, b"Bad Request"), form

    assert await open_setting.kept() == set()


# -- what is slow or large -------------------------------------------------------------------------


async def test_callers_whose_headers_drip_stay_at_the_proxy(open_setting: Setting) -> None:
    """The callback server has no connection for them, and others get through."""
    port, trust = open_setting.proxy.port, open_setting.trust
    slow = [
        await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="127.0.0.1")
        for _ in range(10)
    ]
    try:
        for _, writer in slow:
            writer.write(request(target(2))[:-2])
            await writer.drain()
        assert await open_setting.call(1) == 200
        assert len(open_setting.connections()) <= 1
        assert await open_setting.kept() == {1}
    finally:
        for _, writer in slow:
            writer.transport.abort()


@pytest.mark.parametrize("chunked", [False, True], ids=["a length", "chunks"])
async def test_a_large_body_does_no_harm(open_setting: Setting, chunked: bool) -> None:
    """Whether it is kept, refused or cut off: the next callback is answered as ever."""
    body = b"x" * 3_000_000

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    async with open_setting.caller() as client:
        with suppress(httpx.TransportError):
            answer = await client.request("GET", target(1), content=chunks() if chunked else body)
            assert answer.status_code in (200, 413, 502)
    assert await open_setting.call(2) == 200
    assert 2 in await open_setting.kept()


async def test_a_small_body_is_no_reason_to_lose_a_callback(open_setting: Setting) -> None:
    answer = await open_setting.ask(request(target(), "Content-Length: 5", body=b"hello"))

    assert answer.status == 200
    assert await open_setting.kept() == {1}


# -- restarts --------------------------------------------------------------------------------------


async def test_callbacks_before_during_and_after_a_reload_of_the_proxy_are_kept(
    open_setting: Setting,
) -> None:
    assert await open_setting.call(1) == 200
    during = asyncio.create_task(_calls(open_setting, range(3, 23)))
    await open_setting.proxy.reload()
    assert await during == {200}

    assert await open_setting.call(2) == 200
    assert await open_setting.kept() == set(range(1, 23))


async def _calls(setting: Setting, numbers: range) -> set[int]:
    return {await setting.call(number) for number in numbers}


async def test_after_kill_9_of_the_proxy_no_connection_is_left_and_the_next_one_works(
    open_setting: Setting,
) -> None:
    assert await open_setting.call(1) == 200
    await open_setting.proxy.kill()
    await open_setting.disconnected()

    await open_setting.proxy.start()

    assert await open_setting.call(2) == 200
    assert await open_setting.kept() == {1, 2}


async def test_a_connection_to_us_serves_one_callback_after_another(open_setting: Setting) -> None:
    seen = set()
    async with open_setting.caller() as client:
        for number in range(1, 6):
            assert (await client.get(target(number))).status_code == 200
            seen |= open_setting.connections()

    assert len(seen) == 1


def test_the_proxies_are_done_with_an_idle_connection_before_we_are() -> None:
    """The idle times that the documentation gives, where the proxy has no shorter one."""
    times = re.findall(r"\bkeepalive(?:_timeout)? (\d+)s", DOCS.read_text())
    assert len(times) == 2
    assert all(int(each) < KEEP_ALIVE_BEHIND_PROXY for each in times)


@BOTH_VERSIONS
async def test_idle_connections_that_we_close_cost_no_callback(
    setting: Setting, version: str
) -> None:
    """Also when we close one in the very moment in which the proxy uses it again."""
    async with setting.server(keep_alive=0.02), setting.caller(version) as client:
        for number in range(1, 14):
            answer = await client.get(target(number))
            assert (answer.http_version, answer.status_code) == (version, 200)
            await asyncio.sleep(0.018 + number % 4 / 1000)

    assert await setting.kept() == set(range(1, 14))


@BOTH_VERSIONS
async def test_callers_that_stay_connected_lose_no_callback_when_we_restart(
    setting: Setting, version: str
) -> None:
    """The proxy finds that each connection it had to us is closed."""
    async with setting.caller(version) as client:
        for number in range(1, 6):
            async with setting.server():
                answer = await client.get(target(number))
                assert (answer.http_version, answer.status_code) == (version, 200)

    assert await setting.kept() == set(range(1, 6))


async def test_while_we_are_away_the_answer_is_502_or_503_and_afterwards_200_at_once(
    make_setting: SettingMaker,
) -> None:
    """However many failed meanwhile: no proxy takes us for down."""
    setting = await make_setting(waits=False)
    for _ in range(5):
        assert await setting.call(1) in (502, 503)

    async with setting.server():
        assert await setting.call(2) == 200
    assert await setting.call(3) in (502, 503)
    async with setting.server():
        assert await setting.call(4) == 200

    assert await setting.kept() == {2, 4}


async def test_a_callback_waits_at_the_proxy_for_us_to_come_back_where_the_proxy_can(
    kind: type[Proxy], setting: Setting
) -> None:
    """Caddy and haproxy can; nginx says at once that it has not got through."""
    if not kind.can_wait:
        assert await setting.call(1) == 502
        return
    waiting = asyncio.create_task(setting.call(1))
    await asyncio.sleep(0.3)  # the proxy has tried by now; if not, this proves a little less
    assert not waiting.done()

    async with setting.server():
        assert await waiting == 200

    assert await setting.kept() == {1}


async def test_with_two_receivers_one_may_be_away(make_setting: SettingMaker) -> None:
    setting = await make_setting(receivers=2)
    for here, numbers in ((1, range(1, 4)), (0, range(4, 7)), (1, range(7, 10))):
        async with setting.server(here):
            assert await _calls(setting, numbers) == {200}

    assert await setting.kept() == set(range(1, 10))
