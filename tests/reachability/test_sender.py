"""Who called back, as far as trusted proxies tell, and over what."""

from __future__ import annotations

import logging

import aiohttp
import pytest

from af10_async.events import CallbackReceived
from af10_async.protocol.keys import make_key
from af10_async.transport import ssl_context

from .tools import SECRET, Authority, Proxy, behind, proxying

CLEAR = "over plain http"


def target(number: int) -> str:
    return f"/af10/{make_key(number.to_bytes(18), SECRET.encode())}?id=id-{number}"


async def call(proxy: Proxy, authority: Authority, number: int) -> int:
    """A callback by the way of the proxy; its status."""
    connector = aiohttp.TCPConnector(ssl=ssl_context(authority.file), force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(proxy.url + target(number)) as response,
    ):
        return response.status


@pytest.mark.parametrize(
    ("trusted", "header", "sender"),
    [
        ((), "X-Forwarded-For: 192.0.2.7", "127.0.0.1"),
        (("127.0.0.1",), "X-Forwarded-For: 192.0.2.7", "192.0.2.7"),
        (("127.0.0.0/8",), "X-Forwarded-For: 203.0.113.1, 192.0.2.7, 127.0.0.9", "192.0.2.7"),
        (("127.0.0.1",), "X-Other: nothing", "127.0.0.1"),
    ],
)
async def test_the_event_says_who_called_back(
    authority: Authority, trusted: tuple[str, ...], header: str, sender: str
) -> None:
    told: list[CallbackReceived] = []
    async with (
        proxying(authority.context(), headers=(header,)) as proxy,
        behind(proxy, trusted_proxies=trusted, on_event=told.append),
    ):
        assert await call(proxy, authority, 1) == 200
    assert [each.sender for each in told] == [sender]


async def test_a_trusted_proxy_that_was_asked_in_the_clear_is_warned_of_once(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        proxying(authority.context(), headers=("X-Forwarded-Proto: http",)) as proxy,
        behind(proxy, trusted_proxies=("127.0.0.1",)),
    ):
        for number in range(3):
            assert await call(proxy, authority, number) == 200
    warnings = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert [CLEAR in each.getMessage() for each in warnings] == [True]
    assert "have it answer https only" in warnings[0].getMessage()


@pytest.mark.parametrize(
    ("trusted", "protocol"), [(("127.0.0.1",), "https"), ((), "http"), (("10.0.0.1",), "http")]
)
async def test_nobody_else_is_believed_to_have_been_asked_in_the_clear(
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
    trusted: tuple[str, ...],
    protocol: str,
) -> None:
    async with (
        proxying(authority.context(), headers=(f"X-Forwarded-Proto: {protocol}",)) as proxy,
        behind(proxy, trusted_proxies=trusted),
    ):
        assert await call(proxy, authority, 1) == 200
    assert CLEAR not in caplog.text
