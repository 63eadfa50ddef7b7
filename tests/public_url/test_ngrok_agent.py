"""An ngrok agent that is running already, by a real server that answers as its API does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from af10_async.errors import ConfigurationError, PublicURLError
from af10_async.public_url.base import LocalServer
from af10_async.public_url.ngrok_agent import MAX_SECONDS, MAX_SIZE, NgrokAgent
from tests.ports import free_port

from .ngrok_agent_api import Agent, running_agent
from .ngrok_clock import Clock

POLL = 15.0
PLAIN = LocalServer("127.0.0.1", 8443, is_tls=False)
TLS = LocalServer("127.0.0.1", 8443, is_tls=True)


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    async with running_agent() as running:
        yield running


def way(agent: Agent, clock: Clock | None = None) -> NgrokAgent:
    return NgrokAgent(api_url=agent.api_url, runtime=(clock or Clock()).runtime)


def nobody(address: str | None) -> None:
    pytest.fail(f"told {address}")


async def test_a_tunnel_that_leads_here_is_used_and_left_alone(agent: Agent) -> None:
    agent.add("other", "https://other.ngrok.app", "http://localhost:80")
    agent.add("command_line (http)", "http://mine.ngrok.app", "http://localhost:8443")
    agent.add("command_line", "https://mine.ngrok.app", "http://localhost:8443")
    async with way(agent).open(PLAIN, nobody) as address:
        assert address == "https://mine.ngrok.app"
    assert len(agent.tunnels) == 3
    assert (agent.wanted, agent.removed) == ([], [])


async def test_a_tunnel_that_speaks_http_to_a_tls_server_is_not_used(agent: Agent) -> None:
    agent.add("command_line", "https://mine.ngrok.app", "http://localhost:8443")
    async with way(agent).open(TLS, nobody) as address:
        assert address == "https://made-1.ngrok-free.app"


@pytest.mark.parametrize(
    ("local", "addr"), [(PLAIN, "http://127.0.0.1:8443"), (TLS, "https://127.0.0.1:8443")]
)
async def test_without_a_tunnel_one_is_asked_for_and_removed_at_the_end(
    agent: Agent, local: LocalServer, addr: str
) -> None:
    async with way(agent).open(local, nobody) as address:
        assert address == "https://made-1.ngrok-free.app"
        [(name, made)] = agent.tunnels.items()
        assert made["config"] == {"addr": addr, "inspect": False}
    assert agent.wanted[0]["schemes"] == ["https"]
    assert agent.removed == [name]
    assert agent.tunnels == {}


async def test_two_servers_share_one_agent_and_each_removes_its_own(agent: Agent) -> None:
    other = LocalServer("127.0.0.1", 9443, is_tls=False)
    one = way(agent)
    async with one.open(PLAIN, nobody) as first:
        async with one.open(other, nobody) as second:
            assert first != second
            assert len(agent.tunnels) == 2
        assert [each["public_url"] for each in agent.tunnels.values()] == [first]
    assert agent.tunnels == {}


async def test_a_tunnel_that_a_killed_process_left_is_used_again(agent: Agent) -> None:
    agent.add("af10-8443-00000000", "https://left.ngrok.app", "http://127.0.0.1:8443")
    async with way(agent).open(PLAIN, nobody) as address:
        assert address == "https://left.ngrok.app"


async def test_a_change_of_the_address_is_told_once(agent: Agent) -> None:
    told: list[str | None] = []
    clock = Clock()
    agent.add("command_line", "https://old.ngrok.app", "http://localhost:8443")
    async with way(agent, clock).open(PLAIN, told.append):
        await clock.round(POLL)
        assert told == []
        agent.add("command_line", "https://new.ngrok.app", "http://localhost:8443")
        await clock.round(POLL)
        await clock.round(POLL)
    assert told == ["https://new.ngrok.app"]


async def test_a_tunnel_beside_the_one_in_use_changes_nothing(agent: Agent) -> None:
    clock = Clock()
    async with way(agent, clock).open(PLAIN, nobody) as address:
        made = dict(agent.tunnels)
        agent.tunnels.clear()
        agent.add("earlier", "https://earlier.ngrok.app", "http://localhost:8443")
        agent.tunnels.update(made)
        await clock.round(POLL)
        assert address in {each["public_url"] for each in agent.tunnels.values()}


async def test_an_agent_that_restarts_is_asked_again_and_the_loss_is_warned_of_once(
    agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str | None] = []
    clock = Clock()
    async with way(agent, clock).open(PLAIN, told.append):
        await agent.stop()
        await clock.round(POLL)
        await clock.round(POLL)
        assert told == [None]
        await agent.start()
        await clock.round(POLL)
        assert told == [None, "https://made-2.ngrok-free.app"]
    assert agent.tunnels == {}
    warnings = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert ["no ngrok agent answers" in each.getMessage() for each in warnings] == [True]


async def test_a_tunnel_of_ours_that_somebody_ended_is_asked_for_again(agent: Agent) -> None:
    told: list[str | None] = []
    clock = Clock()
    async with way(agent, clock).open(PLAIN, told.append):
        agent.tunnels.clear()
        await clock.round(POLL)
        assert told == ["https://made-2.ngrok-free.app"]
        assert len(agent.tunnels) == 1
    assert agent.tunnels == {}


async def test_a_tunnel_of_somebody_elses_is_waited_for_and_not_replaced(
    agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str | None] = []
    clock = Clock()
    agent.add("command_line", "https://mine.ngrok.app", "8443")
    async with way(agent, clock).open(PLAIN, told.append):
        agent.tunnels.clear()
        await clock.round(POLL)
        await clock.round(POLL)
        assert told == [None]
        agent.add("command_line", "https://mine.ngrok.app", "8443")
        await clock.round(POLL)
    assert told == [None, "https://mine.ngrok.app"]
    assert agent.wanted == []
    assert caplog.text.count("no https tunnel to port 8443") == 1


async def test_a_refusal_under_way_is_a_loss_and_not_the_end(agent: Agent) -> None:
    told: list[str | None] = []
    clock = Clock()
    async with way(agent, clock).open(PLAIN, told.append):
        agent.tunnels.clear()
        agent.refusal = (502, {"msg": "failed to start tunnel", "details": {"err": "no"}})
        await clock.round(POLL)
        agent.refusal = None
        await clock.round(POLL)
    assert told == [None, "https://made-2.ngrok-free.app"]


async def test_leaving_while_a_tunnel_is_asked_for_again_leaves_nothing_at_the_agent(
    agent: Agent,
) -> None:
    clock = Clock()
    leave = asyncio.Event()

    async def inside() -> None:
        async with way(agent, clock).open(PLAIN, nobody):
            await leave.wait()

    task = asyncio.create_task(inside())
    await clock.pausing(POLL)
    agent.tunnels.clear()
    agent.asked.clear()
    agent.may_answer.clear()
    await clock.end(POLL)
    await agent.asked.wait()
    leave.set()
    await asyncio.sleep(0)
    agent.may_answer.set()
    await task
    assert agent.tunnels == {}


async def test_whoever_is_cancelled_while_asking_leaves_nothing_at_the_agent(
    agent: Agent,
) -> None:
    agent.may_answer.clear()
    task = asyncio.create_task(_entered(way(agent)))
    await agent.asked.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()  # again, and still it is tidied up
    await asyncio.sleep(0)
    agent.may_answer.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert agent.tunnels == {}
    assert agent.removed == [agent.wanted[0]["name"]]


async def test_whoever_is_cancelled_inside_leaves_nothing_at_the_agent(agent: Agent) -> None:
    inside = asyncio.Event()
    task = asyncio.create_task(_entered(way(agent), inside))
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert agent.tunnels == {}


async def _entered(how: NgrokAgent, inside: asyncio.Event | None = None) -> None:
    async with how.open(PLAIN, nobody):
        if inside is not None:
            inside.set()
        await asyncio.Event().wait()


async def test_an_agent_that_does_not_answer_in_time_is_asked_to_remove_it_again(
    agent: Agent,
) -> None:
    clock = Clock()
    agent.may_answer.clear()
    task = asyncio.create_task(_entered(way(agent, clock)))
    await agent.asked.wait()
    await clock.end(MAX_SECONDS)
    with pytest.raises(PublicURLError, match="no answer within 5 seconds") as caught:
        await task
    assert caught.value.retryable
    assert agent.removed == [agent.wanted[0]["name"]]


async def test_an_agent_that_is_gone_at_the_end_is_no_error(agent: Agent) -> None:
    async with way(agent).open(PLAIN, nobody):
        await agent.stop()


async def test_no_agent_says_how_to_start_one() -> None:
    port = free_port()
    how = NgrokAgent(api_url=f"http://127.0.0.1:{port}")
    with pytest.raises(PublicURLError) as caught:
        async with how.open(PLAIN, nobody):
            pass
    assert f"no ngrok agent answers at http://127.0.0.1:{port}" in str(caught.value)
    assert "`ngrok http 8443`" in str(caught.value)
    with pytest.raises(PublicURLError, match=r"`ngrok http https://127\.0\.0\.1:8443`"):
        async with how.open(TLS, nobody):
            pass


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            "Your account is limited.\r\n\r\nERR_NGROK_324\r\n",
            "(ERR_NGROK_324: failed to start tunnel: Your account is limited): end what else runs",
        ),
        ("tunnel session closed", "(failed to start tunnel: tunnel session closed): see its log"),
    ],
)
async def test_a_refusal_gives_the_agents_reason(agent: Agent, error: str, expected: str) -> None:
    agent.refusal = (502, {"msg": "failed to start tunnel", "details": {"err": error}})
    with pytest.raises(PublicURLError) as caught:
        async with way(agent).open(PLAIN, nobody):
            pass
    assert expected in str(caught.value)


def _reply(body: bytes, head: str = "200 OK") -> bytes:
    size = len(body)
    return f"HTTP/1.1 {head}\r\nContent-Length: {size}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (_reply(b"<!doctype html><title>Other</title>"), "its answer is none of an agent's"),
        (_reply(b"<html>", "404 Not Found"), "its answer is none of an agent's"),
        (_reply(b"", "302 Found\r\nLocation: http://127.0.0.1:1/"), "none of an agent's"),
        (_reply(b'{"status": "ok"}'), "its answer is none of an agent's"),
        (_reply(b'{"tunnels": null}'), "its answer is none of an agent's"),
        (_reply(b"[" * 200_000), "its answer is none of an agent's"),
        (_reply(b"\xff\xfe"), "its answer is none of an agent's"),
        (_reply(b" " * (MAX_SIZE + 1)), "an answer of more than 1024 KiB"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "ClientPayloadError"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "ClientResponseError"),
        (b"", "ServerDisconnectedError"),
    ],
)
async def test_whatever_else_listens_there_is_told_apart_from_an_agent(
    reply: bytes, expected: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)

    async with _listening(serve) as url:
        with pytest.raises(PublicURLError) as caught:
            async with NgrokAgent(api_url=url).open(PLAIN, nobody):
                pass
    assert expected in str(caught.value)
    assert f"what listens at {url} does not behave like an ngrok agent" in str(caught.value)


async def test_what_never_answers_is_given_up_in_time() -> None:
    clock = Clock()
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()

    async with _listening(serve) as url:
        how = NgrokAgent(api_url=url, runtime=clock.runtime)
        task = asyncio.create_task(_entered(how))
        await asked.wait()
        await clock.end(MAX_SECONDS)
        with pytest.raises(PublicURLError, match="no answer within 5 seconds"):
            await task


class _listening:  # noqa: N801 - used like a function
    """A server that is no agent."""

    def __init__(
        self, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    ) -> None:
        self._serve = serve
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        finally:
            writer.close()

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_the_proxies_of_the_environment_are_not_for_the_agent(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    async with way(agent).open(PLAIN, nobody) as address:
        assert address.startswith("https://")


async def test_the_address_may_be_that_of_the_api_itself(agent: Agent) -> None:
    async with NgrokAgent(api_url=f"{agent.api_url}/api/").open(PLAIN, nobody):
        assert agent.looks == 1


@pytest.mark.parametrize(
    "api_url",
    ["", "127.0.0.1:4040", "ftp://127.0.0.1", "http://", "http://u:p@127.0.0.1:4040",
     "http://127.0.0.1:port", "http://127.0.0.1:4040?x=1"],
)  # fmt: skip
def test_a_malformed_address_is_refused_without_repeating_it(api_url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        NgrokAgent(api_url=api_url)
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_the_pause_between_two_looks_must_be_one(seconds: float) -> None:
    with pytest.raises(ConfigurationError):
        NgrokAgent(poll_seconds=seconds)


def test_its_repr_says_what_is_configured() -> None:
    expected = "NgrokAgent(api_url='http://127.0.0.1:4040', poll_seconds=15.0)"
    assert repr(NgrokAgent()) == expected
