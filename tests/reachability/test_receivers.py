"""Which callback server it is that answers: this one, one over the same store, or another."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from af10_async import CallbackServer
from af10_async.errors import UnreachableError
from af10_async.errors import UnreachableProblem as Problem

from ..cli.processes import running
from ..conftest import ClientMaker, Tls
from ..ports import free_port
from .tools import SECRET, Authority, Dice, behind, is_of_help, proxying


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'jobs.db'}"


@asynccontextmanager
async def other(tls: Tls, **options: Any) -> AsyncIterator[CallbackServer]:
    """The one that is found at the public address."""
    given = {"tls_cert": tls.cert, "tls_key": tls.key, "callback_secret": SECRET, **options}
    async with CallbackServer(**given) as server:
        yield server


async def test_another_server_with_the_same_secret_and_a_store_of_its_own_is_told(
    tls: Tls, dice: Dice
) -> None:
    async with (
        other(tls) as found,
        CallbackServer(
            public_url=found.public_url, callback_secret=SECRET, runtime=dice.runtime
        ) as server,
    ):
        with pytest.raises(UnreachableError) as caught:
            await server.check_reachable(ca_file=tls.ca)
    assert caught.value.problem is Problem.OTHER_RECEIVER
    assert "the same store (AF10_STORE)" in str(caught.value)
    is_of_help(caught.value, caught.value.url)
    assert not dice.seen_in(str(caught.value))


async def test_another_server_with_another_secret_is_somebody_else(tls: Tls) -> None:
    async with (
        other(tls, callback_secret="another-secret-altogether") as found,
        CallbackServer(public_url=found.public_url, callback_secret=SECRET) as server,
    ):
        with pytest.raises(UnreachableError) as caught:
            await server.check_reachable(ca_file=tls.ca)
    assert caught.value.problem is Problem.OTHER_SERVER
    assert "another callback secret" in str(caught.value)


@pytest.mark.parametrize("given", [{"callback_secret": SECRET}, {}], ids=["given", "kept"])
async def test_another_server_over_the_same_store_is_as_good(
    tls: Tls, store_url: str, given: dict[str, str]
) -> None:
    shared: dict[str, Any] = {"callback_secret": None, **given, "store": store_url}
    async with (
        other(tls, **shared) as found,
        CallbackServer(public_url=found.public_url, **shared) as server,
    ):
        reached = await server.check_reachable(ca_file=tls.ca)
    assert (reached.is_here, reached.sender) == (False, None)


async def test_a_client_without_a_server_finds_the_one_that_receives_for_it(
    make_client: ClientMaker, tls: Tls, store_url: str
) -> None:
    async with (
        other(tls, store=store_url, callback_secret=None) as found,
        make_client(
            public_url=found.public_url,
            store=store_url,
            ca_file=tls.ca,
            tls_cert=None,
            tls_key=None,
        ) as af10,
    ):
        reached = await af10.check_reachable()
    assert not reached.is_here
    assert reached.sender is None


async def test_the_answer_of_another_server_may_come_in_pieces(
    authority: Authority, store_url: str
) -> None:
    async with (
        proxying(authority.context(), piece=7) as proxy,
        behind(proxy, store=store_url),
        CallbackServer(public_url=proxy.url, callback_secret=SECRET, store=store_url) as server,
    ):
        assert not (await server.check_reachable(ca_file=authority.file)).is_here


async def test_a_client_without_a_server_is_told_of_another_receiver(
    make_client: ClientMaker, tls: Tls, store_url: str
) -> None:
    """One that keeps its jobs elsewhere, and so most probably has another secret."""
    async with (
        other(tls, callback_secret=None) as found,
        make_client(
            public_url=found.public_url,
            store=store_url,
            ca_file=tls.ca,
            tls_cert=None,
            tls_key=None,
        ) as af10,
    ):
        with pytest.raises(UnreachableError) as caught:
            await af10.check_reachable()
    assert caught.value.problem is Problem.OTHER_SERVER


async def test_a_receiver_in_another_process_is_found(
    make_client: ClientMaker, tls: Tls, store_url: str
) -> None:
    port = free_port()
    environment = {
        "AF10_STORE": store_url,
        "AF10_LISTEN_PORT": str(port),
        "AF10_PUBLIC_URL": f"https://127.0.0.1:{port}",
        "AF10_TLS_CERT": str(tls.cert),
        "AF10_TLS_KEY": str(tls.key),
    }
    async with running("receive", "--json", env=environment) as process:
        assert process.stdout is not None
        assert json.loads(await process.stdout.readline())
        async with make_client(
            public_url=environment["AF10_PUBLIC_URL"],
            store=store_url,
            ca_file=tls.ca,
            preflight=True,
            tls_cert=None,
            tls_key=None,
        ) as af10:
            assert not (await af10.check_reachable()).is_here
