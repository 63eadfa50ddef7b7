"""Killed at any step, a process leaves a job that the next one brings to its end.

Once for each step; `campaign.py` does it hundreds of times, in chains, and at any moment.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from ..conftest import Tls
from .campaign import Tally, case_of, table
from .nursery import Nursery
from .runs import Case, Moment, Verdict, World, play, sandbox_for
from .steps import STEPS, Step

if not hasattr(os, "fork"):
    pytest.skip("processes are forked here", allow_module_level=True)

STORES = ("sqlite", "valkey")
SEED = 10


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    running = Nursery()
    yield running
    running.close()


Judge = Callable[[Case], Awaitable[Verdict]]


@pytest.fixture
def verdict_on(
    nursery: Nursery, tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Judge:
    """Lets a case happen."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.ca))  # instead of all that the system trusts

    async def judge(case: Case) -> Verdict:
        with nursery.heard():
            async with sandbox_for(1, tls.ca) as sandbox:
                accounts = iter(sandbox.accounts)
                world = World(sandbox, nursery, tmp_path, accounts, tls.cert, tls.key)
                return await play(world, case)

    return judge


@pytest.mark.parametrize(
    ("store", "step"),
    [
        # In turn over the stores: the campaign has every step with each.
        pytest.param(store, step, id=f"{store}-{step.name}")
        for number, step in enumerate(STEPS)
        for store in (step.stores[number % len(step.stores)],)
    ],
)
async def test_a_job_whose_process_is_killed_is_brought_to_its_end_by_the_next(
    store: str, step: Step, verdict_on: Judge
) -> None:
    """One whole file and one POST, nothing lying about; or an error that says what is owed."""
    draw = random.Random(f"{store} {step.name}")
    case = Case(0, store, (step,), (draw.choice(step.take_ups),), is_named=store == "valkey")
    verdict = await verdict_on(case)
    assert not verdict.losses
    assert verdict.killed == [step]


@pytest.mark.parametrize("store", STORES)
async def test_a_job_survives_the_death_of_one_process_after_another(
    store: str, verdict_on: Judge
) -> None:
    ways = {
        "accepted": "ticket",
        "the callback read, its secret not kept": "key",
        "asked for the payload, not answered": "unfinished",
        "in the middle of the download": "key",
        "about to be linked": "ticket",
        "linked, the partial file not removed": "unfinished",
        "there, that not noted": "key",
    }
    steps = {step.name: step for step in STEPS if not step.overwrite}
    kills = tuple(steps[name] for name in ways)
    case = Case(0, store, kills, tuple(ways.values()))  # type: ignore[arg-type]
    verdict = await verdict_on(case)
    assert not verdict.losses
    assert verdict.killed == list(kills)


async def test_a_job_survives_deaths_at_any_moment(verdict_on: Judge) -> None:
    moments = (Moment(0.2, 0.01), Moment(0.4, 0.01), Moment(0.1, 0.01))
    case = Case(0, "sqlite", moments, ("unfinished", "ticket", "key"))
    assert not (await verdict_on(case)).losses


# -- the campaign itself ---------------------------------------------------------------------------


def test_a_case_depends_on_the_seed_and_its_number_alone() -> None:
    cases = [case_of(SEED, number, STORES) for number in range(200)]
    assert cases == [case_of(SEED, number, STORES) for number in range(200)]
    assert cases != [case_of(SEED + 1, number, STORES) for number in range(200)]


def test_the_campaign_comes_to_every_step() -> None:
    cases = [case_of(SEED, number, STORES) for number in range(3 * len(STEPS) * len(STORES))]
    met = {(case.kind, kill) for case in cases for kill in case.kills if isinstance(kill, Step)}
    assert met == {(store, step) for step in STEPS for store in step.stores}


def test_a_loss_is_counted_where_the_process_was_killed() -> None:
    first, second = STEPS[5], STEPS[12]
    case = Case(0, "sqlite", (first, second), ("key", "key"))
    tally = Tally()
    tally.add(Verdict(case, killed=[first, second], losses=["2 POSTs"], seconds=1.0))
    tally.add(Verdict(case, killed=[first], seconds=1.0))
    assert (tally.kills, tally.losses) == (3, 2)
    lines = [line.split() for line in table(tally, ("sqlite",))]
    assert lines[1][-4:] == ["2", "1", "1", "0.75"]
    assert lines[-1] == ["together", "3", "1", "2"]
