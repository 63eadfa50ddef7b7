"""What a store promises to several processes at once, tested with real ones."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from af10_async.protocol.lifecycle import Effect, advance
from af10_async.stores import open_store

from .processes import workers
from .urls import SHARED_URLS
from .worker import event_of, record_of

PROCESSES = 3
EXAMPLES = 20
KEYS = ("k1", "k2")


@pytest.fixture(params=sorted(SHARED_URLS))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return SHARED_URLS[request.param](tmp_path)


def script(draw: random.Random, keys: list[str]) -> list[Any]:
    """Events in any order, of which many meet each other."""
    return [[draw.choice(keys), event(draw)] for _ in range(draw.randint(3, 12))]


def event(draw: random.Random) -> list[Any]:
    secret = f"secret {draw.randint(1, 10)}"
    if draw.random() < 0.05:
        return ["PayloadReceived", draw.choice("12"), secret, True]
    usual: list[list[Any]] = [
        ["CalledBack", secret],
        ["CalledBack", secret],
        ["SecretRefused", secret],
        ["SecretRefused", secret],
        ["Accepted"],
        ["Refused", "no"],
        ["Collected"],
    ]
    return draw.choice(usual)


async def test_events_of_many_processes_happen_one_after_another_and_none_is_lost(url: str) -> None:
    """What each was told, in order of version, is the one history that leads to what is stored."""
    store = open_store(url)
    await store.open()
    async with workers(url, PROCESSES) as running:
        for seed in range(EXAMPLES):
            draw = random.Random(seed)
            keys = [f"{seed} {name}" for name in KEYS]
            for key in keys:
                await store.add(record_of(key))
            for worker in running:
                worker.send("at once", [script(draw, keys) for _ in range(3)])
            answers = await asyncio.gather(*(worker.answer() for worker in running))
            told: dict[str, list[tuple[int, Any]]] = defaultdict(list)
            for key, version, happened in (each for answer in answers for each in answer):
                told[key].append((version, happened))
            for key in keys:
                record = record_of(key)
                for version, happened in sorted(told[key], key=lambda each: each[0]):
                    transition = advance(record, event_of(happened))
                    assert transition.effect is Effect.CHANGED
                    record = transition.record
                    assert record.version == version, f"seed {seed}"
                assert await store.get(key) == record, f"seed {seed}"
    await store.close()


async def test_a_key_is_added_by_one_of_many_processes(url: str) -> None:
    async with workers(url, PROCESSES) as running:
        for number in range(EXAMPLES):
            answers = await asyncio.gather(*(each.tell("add", f"{number}") for each in running))
            assert sorted(answers) == [False] * (PROCESSES - 1) + [True]


async def test_a_job_is_leased_by_one_of_many_processes(url: str) -> None:
    store = open_store(url)
    await store.open()
    async with workers(url, PROCESSES) as running:
        for number in range(EXAMPLES):
            await store.add(record_of(f"{number}"))
            store.release(f"{number}")
            await store.get(f"{number}")  # after it: the release is over
            answers = await asyncio.gather(*(each.tell("lease", f"{number}") for each in running))
            assert sorted(answers) == [False] * (PROCESSES - 1) + [True]
    await store.close()


async def test_a_waiter_is_woken_by_another_process(url: str) -> None:
    store = open_store(url)
    await store.open()
    await store.add(record_of("there"))
    async with workers(url, 2) as (waiting, writing):
        here = asyncio.create_task(store.changed("there", 0))
        waiting.send("wait", "there", 0)
        assert await writing.tell("apply", [["there", ["CalledBack", "secret"]]])
        record = await here
        assert record is not None
        assert await waiting.answer() == record.version
        assert record.secrets == ("secret",)
    await store.close()


async def test_the_leases_of_a_killed_process_are_free_at_once(url: str) -> None:
    store = open_store(url)
    await store.open()
    async with workers(url, 1) as (leasing,):
        assert await leasing.tell("add", "there")
        assert not await store.lease("there")
        await leasing.kill()
        assert await store.lease("there")
    await store.close()


async def test_what_a_killed_process_was_told_is_kept(url: str) -> None:
    store = open_store(url)
    await store.open()
    await store.add(record_of("there"))
    async with workers(url, 1) as (killed,):
        [[_, version, _]] = await killed.tell("apply", [["there", ["CalledBack", "secret"]]])
        killed.send("apply", [["there", ["SecretRefused", "secret"]]] * 50)
        await killed.kill()
        record = await store.get("there")
        assert record is not None
        assert record.version >= version
        assert "secret" in record.secrets + record.refused
    await store.close()
