"""`preflight=True`: who enters knows that callbacks arrive; who does not has left nothing open."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from af10_async import Account, AF10Client, CallbackServer, Fleet
from af10_async.errors import ClosedError, PublicURLError, UnreachableError
from af10_async.errors import UnreachableProblem as Problem
from af10_async.public_url import LocalServer, PublicURL, Tell
from af10_async.sandbox import Sandbox

from ..conftest import ClientMaker, Tls
from ..ports import free_port

KINDS = ("server", "client", "fleet")
NOBODY = "https://127.0.0.1:1"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Make = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def make(kind: str, make_client: ClientMaker, sandbox: Sandbox, tls: Tls) -> Make:
    """Makes one of each kind, with a port and perhaps an address."""

    def made(port: int, **options: Any) -> AbstractAsyncContextManager[Any]:
        given: dict[str, Any] = {
            "tls_cert": tls.cert,
            "tls_key": tls.key,
            "ca_file": tls.ca,
            "preflight": True,
            **options,
        }
        if kind == "server":
            return CallbackServer(port=port, **given)
        if kind == "client":
            return make_client(listen_port=port, **given)
        account = Account(
            "amsterdam",
            base_url=sandbox.base_url,
            api_key=sandbox.api_key,
            username=sandbox.username,
            password=sandbox.password,
        )
        return Fleet([account], listen_port=port, **given)

    return made


async def test_who_is_reachable_is_entered(make: Make) -> None:
    async with make(0) as entered:
        assert (await check(entered)).is_here


async def check(entered: Any, **options: Any) -> Any:
    if isinstance(entered, CallbackServer):
        options["ca_file"] = entered._ca_file
    return await entered.check_reachable(**options)


async def test_who_is_not_reachable_is_not_entered_and_its_port_is_free_again(make: Make) -> None:
    port = free_port()
    refused = make(port, public_url=NOBODY)
    with pytest.raises(UnreachableError) as caught:
        async with refused:
            pytest.fail("entered")
    assert caught.value.problem is Problem.CONNECTION_REFUSED
    with socket.create_server(("127.0.0.1", port)):
        pass
    async with make(port) as entered:
        assert (await check(entered)).is_here


async def test_a_certificate_that_is_not_trusted_is_found_on_entry(make: Make) -> None:
    with pytest.raises(UnreachableError) as caught:
        async with make(0, ca_file=None):
            pytest.fail("entered")
    assert caught.value.problem is Problem.UNTRUSTED_CERTIFICATE


async def test_without_a_preflight_nothing_is_asked(make: Make) -> None:
    async with make(0, public_url=NOBODY, preflight=False) as entered:
        with pytest.raises(UnreachableError):
            await check(entered)


async def test_a_client_of_a_given_server_leaves_it_running(
    make_client: ClientMaker, sandbox: Sandbox, tls: Tls
) -> None:
    given = {"ca_file": tls.ca, "tls_cert": None, "tls_key": None, "preflight": True}
    async with CallbackServer(public_url=NOBODY) as server:
        with pytest.raises(UnreachableError):
            async with make_client(callback_server=server, **given):
                pytest.fail("entered")
        assert server.is_running
    async with CallbackServer(tls_cert=tls.cert, tls_key=tls.key) as server:
        async with make_client(callback_server=server, **given) as af10:
            file = await af10.backup_owner()
            assert await file.read() == sandbox.archive(sandbox.jobs[0])
        assert server.is_running


async def test_a_fleet_of_a_given_server_leaves_it_running() -> None:
    account = Account(
        "amsterdam", base_url="https://api.example.com", api_key="k", username="u", password="p"
    )
    async with CallbackServer(public_url=NOBODY) as server:
        with pytest.raises(UnreachableError):
            async with Fleet([account], callback_server=server, preflight=True):
                pytest.fail("entered")
        assert server.is_running


class Way(PublicURL):
    """A tunnel that knows whether it is open, and may be down."""

    is_open = False

    def __init__(self, *, is_down: bool) -> None:
        self._is_down = is_down

    @asynccontextmanager
    async def open(self, local: LocalServer, tell: Tell) -> AsyncIterator[str]:
        self.is_open = True
        try:
            if self._is_down:
                asyncio.get_running_loop().call_soon(tell, None)
            yield NOBODY if self._is_down else local.url
        finally:
            self.is_open = False


async def test_a_preflight_that_fails_closes_the_tunnel() -> None:
    way = Way(is_down=True)
    with pytest.raises(UnreachableError):
        async with CallbackServer(public_url=way, preflight=True):
            pytest.fail("entered")
    assert not way.is_open


async def test_a_tunnel_that_is_down_cannot_be_asked(tls: Tls) -> None:
    way = Way(is_down=True)
    async with CallbackServer(public_url=way) as server:
        await asyncio.sleep(0)
        with pytest.raises(PublicURLError, match="down for now") as caught:
            await server.check_reachable()
    assert caught.value.retryable


async def test_a_preflight_can_be_cancelled(make: Make) -> None:
    """Whoever gives up while it waits finds the port free."""
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        entering = asyncio.create_task(make(port, public_url=url).__aenter__())
        silent.setblocking(False)
        asked = asyncio.create_task(asyncio.get_running_loop().sock_accept(silent))
        await asyncio.wait([asked, entering], return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()  # when it was not asked at all, its own error says why
        connection = asked.result()[0] if asked.done() else await entering
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        connection.close()
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_a_client_that_is_not_entered_cannot_be_asked(make_client: ClientMaker) -> None:
    client: AF10Client = make_client()
    with pytest.raises(ClosedError):
        await client.check_reachable()
