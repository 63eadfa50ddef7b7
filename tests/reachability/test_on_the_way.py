"""What arrives, how, and from whom, when there is nothing, a proxy or a bad proxy in front."""

from __future__ import annotations

import ssl
import traceback
from collections.abc import Callable

import pytest

from af10_async import AF10Client, CallbackServer
from af10_async.errors import UnreachableError
from af10_async.errors import UnreachableProblem as Problem
from af10_async.sandbox import Sandbox

from ..conftest import ClientMaker, Tls
from .tools import Authority, Dice, Proxy, behind, is_of_help, proxying

HERE = ("127.0.0.1",)
SOMEBODY = "192.0.2.77"


# -- it arrives ------------------------------------------------------------------------------------


async def test_a_server_with_tls_of_its_own_reaches_itself(tls: Tls) -> None:
    async with CallbackServer(tls_cert=tls.cert, tls_key=tls.key) as server:
        found = await server.check_reachable(ca_file=tls.ca)
        assert (found.url, found.is_here, found.sender) == (server.public_url, True, "127.0.0.1")
        assert found.seconds >= 0


async def test_a_server_with_tls_is_reached_by_its_name_too(tls: Tls) -> None:
    async with CallbackServer(host="localhost", tls_cert=tls.cert, tls_key=tls.key) as server:
        found = await server.check_reachable(ca_file=tls.ca)
        assert found.url == f"https://localhost:{server.port}"
        assert found.is_here


@pytest.mark.parametrize("path", ["", "/hooks", "/hooks/of/ours"])
@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "stripped"])
async def test_a_proxy_may_keep_the_path_of_the_address_or_take_it_off(
    authority: Authority, path: str, is_kept: bool
) -> None:
    async with proxying(authority.context(), path) as proxy, behind(proxy) as server:
        if not is_kept:
            proxy.change = lambda target: target.removeprefix(path)
        found = await server.check_reachable(ca_file=authority.file)
    assert found.is_here
    assert proxy.passed[0].startswith(f"{path}/af10/")


@pytest.mark.parametrize("prefix", ["", "deep/er"])
async def test_the_prefix_may_be_another_one_or_none(authority: Authority, prefix: str) -> None:
    async with proxying(authority.context()) as proxy, behind(proxy, prefix=prefix) as server:
        assert (await server.check_reachable(ca_file=authority.file)).is_here


async def test_each_check_asks_for_something_new(authority: Authority) -> None:
    async with proxying(authority.context()) as proxy, behind(proxy) as server:
        for _ in range(3):
            await server.check_reachable(ca_file=authority.file)
    assert len(set(proxy.passed)) == 3


async def test_a_check_is_no_callback(authority: Authority) -> None:
    """It is kept nowhere, and nobody is told of it."""
    told: list[object] = []
    async with (
        proxying(authority.context()) as proxy,
        behind(proxy, on_event=told.append, on_orphan=told.append) as server,
    ):
        await server.check_reachable(ca_file=authority.file)
        assert [each async for each in server.store.unfinished("an account")] == []
    assert told == []


@pytest.mark.parametrize(
    ("trusted", "said", "sender"),
    [
        ((), SOMEBODY, "127.0.0.1"),
        (HERE, SOMEBODY, SOMEBODY),
        (HERE, f"198.51.100.9, {SOMEBODY}", SOMEBODY),
        (HERE, f"{SOMEBODY}, 127.0.0.1", SOMEBODY),
        (HERE, f"{SOMEBODY}:4711", SOMEBODY),
        (HERE, "nonsense", "127.0.0.1"),
        (("10.0.0.0/8",), SOMEBODY, "127.0.0.1"),
    ],
)
async def test_who_asked_is_what_a_trusted_proxy_says_and_nobody_else(
    authority: Authority, trusted: tuple[str, ...], said: str, sender: str
) -> None:
    headers = (f"X-Forwarded-For: {said}",)
    async with (
        proxying(authority.context(), headers=headers) as proxy,
        behind(proxy, trusted_proxies=trusted) as server,
    ):
        assert (await server.check_reachable(ca_file=authority.file)).sender == sender


async def test_what_becomes_of_the_answer_does_not_matter_once_it_has_arrived(
    authority: Authority,
) -> None:
    """What AF10 sends is kept then, whatever it is told."""

    async with proxying(authority.context()) as proxy, behind(proxy) as server:
        proxy.piece = 1
        assert (await server.check_reachable(ca_file=authority.file)).is_here


# -- it arrives changed ----------------------------------------------------------------------------


def last_part(target: str) -> str:
    return target[target.rindex("/") :]


CHANGES: dict[str, tuple[Callable[[str], str], str]] = {
    "all of it is taken off": (last_part, "arrived as /..."),
    "more than the path is": (lambda target: target.removeprefix("/hooks/af10"), "as /..."),
    "something is added": (lambda target: f"/app{target}", "as /app/hooks/af10/..."),
    "it is another one": (lambda target: f"/webhook{last_part(target)}", "as /webhook/..."),
    "it is there twice": (lambda target: f"/hooks{target}", "as /hooks/hooks/af10/..."),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_path_that_is_changed_on_the_way_is_told(
    authority: Authority, dice: Dice, name: str
) -> None:
    change, said = CHANGES[name]
    async with (
        proxying(authority.context(), "/hooks", change=change) as proxy,
        behind(proxy, runtime=dice.runtime) as server,
    ):
        error = await error_of(server, authority, dice)
    assert error.problem is Problem.LOST_PREFIX
    assert "what was sent to /hooks/af10/..." in str(error)
    assert said in str(error)


QUERIES: dict[str, Callable[[str], str]] = {
    "taken off": lambda target: target.partition("?")[0],
    "emptied": lambda target: target.partition("=")[0] + "=",
    "renamed": lambda target: target.replace("?id=", "?key="),
    "replaced": lambda target: target.partition("=")[0] + "=another",
    "doubled": lambda target: f"{target}&id=another",
}


@pytest.mark.parametrize("name", QUERIES)
async def test_a_query_that_is_lost_on_the_way_is_told(
    authority: Authority, dice: Dice, name: str
) -> None:
    async with (
        proxying(authority.context(), change=QUERIES[name]) as proxy,
        behind(proxy, runtime=dice.runtime) as server,
    ):
        error = await error_of(server, authority, dice)
    assert error.problem is Problem.LOST_QUERY
    assert "the id that AF10 adds would not arrive" in str(error)


async def test_a_key_that_is_changed_on_the_way_is_nobodys(
    authority: Authority, dice: Dice
) -> None:
    """What answers 404 then is this server, but it cannot know that."""
    async with (
        proxying(authority.context()) as proxy,
        behind(proxy, runtime=dice.runtime) as server,
    ):
        proxy.change = lambda target: target.replace("?", "x?")
        error = await error_of(server, authority, dice)
    assert error.problem is Problem.OTHER_SERVER
    assert "status 404" in str(error)


async def error_of(server: CallbackServer, authority: Authority, dice: Dice) -> UnreachableError:
    with pytest.raises(UnreachableError) as caught:
        await server.check_reachable(ca_file=authority.file)
    error = caught.value
    is_of_help(error, server.public_url)
    assert not dice.seen_in("".join(traceback.format_exception(error)) + repr(error))
    return error


# -- a client --------------------------------------------------------------------------------------


async def test_a_client_can_be_used_after_a_check_that_failed(
    make_client: ClientMaker, tls: Tls, sandbox: Sandbox, dice: Dice
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.cert, tls.key)
    async with (
        proxying(context, change=lambda target: "/lost" + last_part(target)) as proxy,
        behind(proxy, runtime=dice.runtime) as server,
        make_client(callback_server=server, ca_file=tls.ca, tls_cert=None, tls_key=None) as af10,
    ):
        with pytest.raises(UnreachableError) as caught:
            await af10.check_reachable()
        assert caught.value.problem is Problem.LOST_PREFIX
        proxy.change = Proxy.change
        assert (await af10.check_reachable()).is_here
        file = await af10.backup_owner()
        assert await file.read() == sandbox.archive(sandbox.jobs[0])


async def test_a_client_trusts_its_ca_file_in_a_check(af10: AF10Client, tls: Tls) -> None:
    with pytest.raises(UnreachableError) as caught:
        await af10.check_reachable()
    assert caught.value.problem is Problem.UNTRUSTED_CERTIFICATE
