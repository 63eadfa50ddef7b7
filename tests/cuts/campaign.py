"""Cut downloads in every way, a thousand times; the file is one version of it, or it is not there.

    python -m tests.cuts.campaign --cuts 1000 [--seed N]

Each download has a server that may lie and change its file, a line that resets, closes, stalls
and corrupts, and some attempts, each of which may be cancelled or have its process killed; the next
one goes on with what is there. Wrong is a file that is not to the byte one of the server's versions
(the right one, where a digest was given), an error that is not ours, an error beside a file, a
result that is not what is on the disk, and an attempt that does not end. `--case` repeats one.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..download.fault_proxy import Close, FaultProxy, Reset, Stall
from ..download.file_server import FileServer
from . import life
from .life import STALL, End, Order, Process
from .scenarios import Life, Scenario, scenario_of

PATIENCE = 60.0
"""Seconds after which an attempt is taken to hang."""
NAME = "backup.zip"
MOST_LITTER_TOLD = 5


@dataclass(slots=True)
class Verdict:
    """What has happened to one download."""

    scenario: Scenario
    cuts: int = 0
    ends: list[End] = field(default_factory=list)
    is_whole: bool = False
    wrong: list[str] = field(default_factory=list)
    litter: list[str] = field(default_factory=list)
    """What else is in the folder, where it is whole."""


# -- one download ----------------------------------------------------------------------------------


async def play(scenario: Scenario, folder: Path) -> Verdict:
    """Let it happen, in a folder of its own."""
    folder.mkdir()
    verdict = Verdict(scenario)
    async with (
        FileServer(scenario.versions(), scenario.lie) as server,
        FaultProxy("127.0.0.1", server.port, scenario.faults) as proxy,
    ):
        for each in scenario.lives:
            end = await _live(scenario, each, proxy, folder, verdict)
            _judge(verdict, end, folder / NAME)
            if verdict.is_whole or verdict.wrong:
                break
    verdict.cuts += sum(isinstance(fault, Close | Reset | Stall) for _, fault in proxy.acted)
    if verdict.is_whole:
        verdict.litter = sorted(path.name for path in folder.iterdir() if path.name != NAME)
    return verdict


async def _live(
    scenario: Scenario, each: Life, proxy: FaultProxy, folder: Path, verdict: Verdict
) -> End | None:
    """One attempt; None when it was ended."""
    order = Order(proxy.url(), str(folder / NAME), _options(scenario, each))
    process = Process(order) if each.is_process else None
    saving = asyncio.create_task(process.ended() if process else life.save(order))
    enough = asyncio.create_task(_passed(proxy, each.ends_after))
    await asyncio.wait({saving, enough}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    if not saving.done():
        if enough.done():
            verdict.cuts += 1
        else:
            verdict.wrong.append(f"an attempt did not end within {PATIENCE:.0f} s: {each}")
        if process is not None and enough.done():
            process.kill()
        else:
            saving.cancel()
        await asyncio.wait({saving}, timeout=PATIENCE)
        if not saving.done():
            verdict.wrong.append(f"an attempt did not end when it was cancelled: {each}")
    enough.cancel()
    await asyncio.wait({enough})
    return saving.result() if saving.done() and not saving.cancelled() else None


async def _passed(proxy: FaultProxy, count: int | None) -> None:
    goal = float("inf") if count is None else proxy.sent + count
    await proxy.until(lambda: proxy.sent >= goal)


def _options(scenario: Scenario, each: Life) -> dict[str, Any]:
    found: dict[str, Any] = {"segments": each.segments, "stall_timeout": STALL}
    if scenario.digest is not None:
        body = scenario.right()[0]
        found[scenario.digest] = hashlib.new(scenario.digest, body).hexdigest()
    return found


def _judge(verdict: Verdict, end: End | None, target: Path) -> None:
    if end is not None:
        verdict.ends.append(end)
        if not end.is_ours:
            verdict.wrong.append(f"an error that is not ours: {end.text}")
    if not target.exists():
        if end is not None and not end.error:
            verdict.wrong.append("it was said to be saved, and is not there")
        return
    found = target.read_bytes()
    right = verdict.scenario.right()
    verdict.is_whole = found in right
    if not verdict.is_whole:
        verdict.wrong.append(_difference(found, right))
    if end is None:
        return  # it was ended just after the file had got its name
    if end.error:
        verdict.wrong.append(f"there is a file, and yet there was an error: {end}")
    elif (end.size, end.sha256) != (len(found), hashlib.sha256(found).hexdigest()):
        verdict.wrong.append(f"what was said is not what is there: {end}")


def _difference(found: bytes, right: list[bytes]) -> str:
    """How far it is like each version: enough to see where one was put beside another."""
    alike = (
        f"{next((at for at, (a, b) in enumerate(zip(found, body)) if a != b), 'all')}"  # noqa: B905
        f" of {len(body):,}"
        for body in right
    )
    return f"a wrong file of {len(found):,} bytes; like the right ones up to {', '.join(alike)}"


# -- all of them -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """All verdicts so far."""

    cuts: int = 0
    downloads: int = 0
    whole: int = 0
    resumed: int = 0
    littered: int = 0
    wrong: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, verdict: Verdict) -> None:
        """Count one more."""
        last = verdict.ends[-1] if verdict.ends else End()
        self.cuts += verdict.cuts
        self.downloads += 1
        self.whole += verdict.is_whole
        self.resumed += verdict.is_whole and last.resumed_from > 0
        self.littered += bool(verdict.litter)
        self.wrong += bool(verdict.wrong)
        if last.error and not verdict.is_whole:
            self.errors[last.error] += 1

    def __str__(self) -> str:
        errors = ", ".join(f"{count} {name}" for name, count in self.errors.most_common())
        return (
            f"{self.cuts} cuts, {self.downloads} downloads, {self.whole} whole ({self.resumed} of"
            f" them resumed, {self.littered} with something beside them), {errors or 'no error'},"
            f" {self.wrong} wrong"
        )


async def campaign(scenarios: Iterable[Scenario], folder: Path, cuts: int, together: int) -> Tally:
    """Let scenario after scenario happen, some at a time, until there were enough cuts."""
    tally, upcoming = Tally(), iter(scenarios)

    async def work() -> None:
        while tally.cuts < cuts:
            scenario = next(upcoming, None)
            if scenario is None:
                return
            place = folder / str(scenario.number)
            verdict = await play(scenario, place)
            before = tally.cuts
            tally.add(verdict)
            _say(verdict, tally, before)
            if not verdict.wrong and not verdict.litter:
                shutil.rmtree(place)

    async with asyncio.TaskGroup() as group:
        for _ in range(together):
            group.create_task(work())
    return tally


def _say(verdict: Verdict, tally: Tally, before: int) -> None:
    scenario = verdict.scenario
    if verdict.wrong or (verdict.litter and tally.littered <= MOST_LITTER_TOLD):
        lines = [
            f"{'WRONG' if verdict.wrong else 'LITTER'} in {scenario}",
            *(f"  {each}" for each in verdict.wrong or verdict.litter),
            f"  ends: {verdict.ends}",
            f"  again: python -m tests.cuts.campaign --seed {scenario.seed}"
            f" --case {scenario.number}",
        ]
        sys.stderr.write("\n".join(lines) + "\n")
    elif tally.cuts // 100 > before // 100:
        sys.stderr.write(f"{tally}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.cuts.campaign",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cuts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--case", type=int, help="only the scenario with this number")
    parser.add_argument("--together", type=int, default=os.cpu_count() or 2)
    options = parser.parse_args(arguments)
    numbers = itertools.count() if options.case is None else [options.case]
    scenarios = (scenario_of(options.seed, number) for number in numbers)
    folder = Path(tempfile.mkdtemp(prefix="af10-cuts-"))
    started = time.monotonic()
    life.prepare()
    tally = asyncio.run(campaign(scenarios, folder, options.cuts, options.together))
    seconds = time.monotonic() - started
    sys.stdout.write(f"{tally}, {seconds:.0f} s, seed {options.seed}\n")
    if not tally.wrong:
        shutil.rmtree(folder)
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
