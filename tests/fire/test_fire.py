"""The receiver is attacked in every way we know, by another process, and answers callbacks still.

Each attack is small here; `campaign.py` has them at full size, and measures.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ..conftest import Tls
from .attacks import ATTACKS, BY_NAME, SMUGGLED, STOLEN_KEY, small
from .engine import Attack, Engine
from .field import Certificate, Log, Receiver, attacked, receiving
from .legitimate import Callers

if sys.platform != "linux":
    pytest.skip("attacks come from many addresses of the loopback network", allow_module_level=True)

MIB = 1024 * 1024
CONNECTIONS = 200
FILES = 160
"""Descriptors of the receiver that is to have fewer than there are connections."""
MOST_GROWTH = 192 * MIB
"""Of the receiver's memory. A TLS connection of asyncio takes a third of a megabyte, and there are
200 of them at most; the rest is room for other Pythons and allocators."""
CALLBACKS = 8
"""During each attack: two of each way, plain and TLS, by a new connection and a kept one."""
KINDS = {
    "heads": ("half-lines", "half-headers", "drip", "endless-headers", "endless-target"),
    "requests": ("huge-query", "smuggling", "bodies", "bodies-sent", "wrong-ids"),
    "floods": ("wrong-keys", "wrong-keys-single", "pipelining", "pipelining-stolen"),
    "connections": ("idle", "reset", "pipelining-unread"),
    "handshakes": ("client-hello", "tls-nothing", "tls-half-hello", "tls-garbage"),
    "tls": ("idle-tls", "tls-handshakes", "reset-tls"),
}


@pytest.fixture
def certificate(tls: Tls) -> Certificate:
    return Certificate(tls.cert, tls.key, tls.ca)


async def endure(receiver: Receiver, callers: Callers, names: Sequence[str]) -> None:
    """One attack after the other, with callbacks meanwhile."""
    for name in names:
        async with attacked(receiver, BY_NAME[name], CONNECTIONS) as attacker:
            await attacker.has_begun()
            for _ in range(CALLBACKS):
                await callers.one()
                receiver.watch.now()
        assert attacker.done["connections"] > 0, name
        assert not callers.record.failures, name


async def stands(certificate: Certificate, folder: Path, names: Sequence[str], files: int) -> None:
    """Attack a receiver with so many descriptors, and see that it has lost and kept nothing."""
    jobs = CALLBACKS * len(names) + 4
    async with receiving(certificate, folder, jobs=jobs, files=files) as receiver:
        callers = receiver.callers(certificate.client())
        try:
            for _ in range(4):
                await callers.one()
            before = receiver.watch.now()
            await endure(receiver, callers, names)
        finally:
            await callers.close()
        assert await receiver.has_settled(before.files)
        assert receiver.watch.peak.files < files
        assert receiver.watch.peak.rss - before.rss < MOST_GROWTH
        state = await receiver.state()
    assert sorted(callers.record.answered) == state["called_back"] == list(range(jobs))
    assert (state["tell_tale"], state["strangers"]) == ([], 0)
    is_quiet(receiver.log())


def is_quiet(log: Log) -> None:
    assert not log.has_traceback
    assert not log.repeats_input
    assert len(log.lines) < 20


@pytest.mark.parametrize("kind", KINDS)
async def test_no_callback_is_lost_while_others_attack(
    kind: str, certificate: Certificate, tmp_path: Path
) -> None:
    """None fails, no traceback, nothing stored, and what was taken is given back."""
    await stands(certificate, tmp_path, KINDS[kind], 4096)


async def test_no_callback_is_lost_when_there_are_fewer_descriptors_than_connections(
    certificate: Certificate, tmp_path: Path
) -> None:
    await stands(certificate, tmp_path, ("idle-few-files", "tls-nothing", "half-lines"), FILES)


# -- the attacks themselves ------------------------------------------------------------------------


def test_each_attack_has_its_place_here() -> None:
    named = [name for names in KINDS.values() for name in names]
    assert sorted([*named, "idle-few-files"]) == sorted(attack.name for attack in ATTACKS)


def test_a_small_attack_is_the_same_with_fewer_connections() -> None:
    assert small(BY_NAME["idle"], 10).connections == 10
    assert small(BY_NAME["reset"], 10**6) == BY_NAME["reset"]


async def test_what_is_smuggled_would_be_a_callback_by_itself(
    certificate: Certificate, tmp_path: Path
) -> None:
    """So that its record staying as it is says something."""
    async with receiving(certificate, tmp_path, jobs=0) as receiver:
        with socket.create_connection(("127.0.0.1", receiver.ports["plain"])) as line:
            line.sendall(SMUGGLED.encode())
            assert line.recv(4096).startswith(b"HTTP/1.1 200")
        assert (await receiver.state())["tell_tale"] != []


async def test_the_engine_counts_what_it_does(certificate: Certificate, tmp_path: Path) -> None:
    """Two requests on each connection, and their answers."""
    request = f"GET /af10/{STOLEN_KEY}?id=x HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    attack = Attack("two", "", lambda _: request * 2, requests=2, connections=5)
    async with receiving(certificate, tmp_path, jobs=0) as receiver:
        engine = Engine(attack, ("127.0.0.1", receiver.ports["plain"]))
        while engine.score.statuses.total() < 10:
            engine.turn()
        assert engine.has_begun
        engine.close()
    score = engine.score
    assert (score.connections, score.requests, score.sent) == (5, 10, 10 * len(request))
    assert (score.statuses, score.cut, score.refused) == ({"200": 10}, 0, 0)
