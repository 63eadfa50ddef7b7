"""Kill the client's process at every step of a job's life, hundreds of times; nothing may be lost.

    python -m tests.crash.campaign --kills 500 [--seed N] [--store sqlite --store valkey]

AF10 (the sandbox) lives in this process; the clients are processes of their own, each of which is
killed with SIGKILL at a step by name, or at any moment, and then resumed by another, which may be
killed as well. A loss is a job that AF10 accepted and that does not end in its whole file, another
file, a second POST, or anything left lying about. `--case` repeats one.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..stores.urls import SHARED_URLS
from .life import TakeUp
from .nursery import Nursery
from .runs import Case, Kill, Moment, Verdict, World, play, sandbox_for
from .steps import STEPS, Step

LONGEST = 4
"""Most kills of one job."""


# -- what is to happen -----------------------------------------------------------------------------


def case_of(seed: int, number: int, kinds: Sequence[str]) -> Case:
    """The case with this number: every step in turn, and each third one at any moment."""
    draw = random.Random(f"{seed} {number}")
    turn, kind = divmod(number, len(kinds))
    store = kinds[kind]
    round_, part = divmod(turn, 3)
    kills = _moments(draw) if part == 2 else _steps(draw, store, 2 * round_ + part)
    take_ups = tuple(draw.choice(_take_ups(kill)) for kill in kills)
    return Case(number, store, kills, take_ups, is_named=draw.random() < 0.3)


def _steps(draw: random.Random, store: str, number: int) -> tuple[Kill, ...]:
    """The step whose turn it is; perhaps others that its successors come to."""
    steps = [step for step in STEPS if store in step.stores]
    found = [steps[number % len(steps)]]
    while len(found) < LONGEST and draw.random() < 0.4:
        later = [step for step in steps if step.phase in found[-1].then and _is_plain(step)]
        if not later or not _is_plain(found[-1]):
            break
        found.append(draw.choice(later))
    return tuple(found)


def _is_plain(step: Step) -> bool:
    return not step.overwrite and step.has_links


def _moments(draw: random.Random) -> tuple[Kill, ...]:
    number = draw.choice((1, 2, 2, LONGEST))
    return tuple(Moment(draw.uniform(0.0, 1.1), draw.uniform(0.0, 0.1)) for _ in range(number))


def _take_ups(kill: Kill) -> Sequence[TakeUp]:
    return kill.take_ups if isinstance(kill, Step) else ("unfinished", "key", "ticket")


# -- what has happened -----------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """All verdicts so far."""

    killed: Counter[tuple[str, str]] = field(default_factory=Counter)
    resumed: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)

    def add(self, verdict: Verdict) -> None:
        """Count one more."""
        case = verdict.case
        for kill in verdict.killed:
            self.killed[kill.name, case.kind] += 1
            self.seconds[kill.name] += verdict.seconds / len(verdict.killed)  # type: ignore[assignment]
            counter = self.lost if verdict.losses else self.resumed
            counter[kill.name] += 1
        if verdict.losses and not verdict.killed:
            self.lost[case.kills[0].name] += 1

    @property
    def kills(self) -> int:
        """How many processes were killed."""
        return self.killed.total()

    @property
    def losses(self) -> int:
        """How many kills were followed by a loss."""
        return self.lost.total()


def table(tally: Tally, kinds: Sequence[str]) -> Iterator[str]:
    """The lines of a table: each step with its kills, and what came of them."""
    names = list(dict.fromkeys([*(step.name for step in STEPS), Moment(0, 0).name]))
    width = max(map(len, names))
    heads = (*kinds, "resumed", "losses", "seconds")
    yield " " * width + "".join(f"{head:>10}" for head in heads)
    for name in names:
        kills = [tally.killed[name, kind] for kind in kinds]
        if any(kills) or tally.lost[name]:
            cells = (*kills, tally.resumed[name], tally.lost[name])
            mean = tally.seconds[name] / max(1, sum(kills))
            yield f"{name:<{width}}" + "".join(f"{cell:>10}" for cell in cells) + f"{mean:>10.2f}"
    total = [sum(tally.killed[name, kind] for name in names) for kind in kinds]
    cells = (*total, tally.resumed.total(), tally.lost.total())
    yield f"{'together':<{width}}" + "".join(f"{cell:>10}" for cell in cells)


# -- letting it happen -----------------------------------------------------------------------------


async def campaign(
    nursery: Nursery, folder: Path, cases: Iterable[Case], options: argparse.Namespace
) -> Tally:
    """Let case after case happen, some at a time, until there were enough kills."""
    tally, upcoming = Tally(), iter(cases)
    sandbox = sandbox_for(2 * options.kills + 100)
    with nursery.heard():
        async with sandbox:
            certificate = sandbox.issue_certificate("127.0.0.1")
            world = World(sandbox, nursery, folder, iter(sandbox.accounts), *certificate)

            async def work() -> None:
                while tally.kills < options.kills:
                    case = next(upcoming, None)
                    if case is None:
                        return
                    report(await play(world, case))

            def report(verdict: Verdict) -> None:
                tally.add(verdict)
                if not verdict.killed and not verdict.losses:
                    world.life_seconds = 0.9 * world.life_seconds + 0.1 * verdict.seconds
                _say(verdict, tally, options)
                if not verdict.losses:
                    shutil.rmtree(folder / f"{verdict.case.number}-{verdict.case.kind}")

            async with asyncio.TaskGroup() as group:
                for _ in range(options.together):
                    group.create_task(work())
    return tally


def _say(verdict: Verdict, tally: Tally, options: argparse.Namespace) -> None:
    if verdict.losses:
        again = f"--seed {options.seed} --case {verdict.case.number}"
        again += "".join(f" --store {kind}" for kind in options.store)
        lines = (
            f"LOSS in {verdict.case}",
            *(f"  {loss}" for loss in verdict.losses),
            f"  again: python -m tests.crash.campaign {again}",
        )
        sys.stderr.write("\n".join(lines) + "\n")
    elif sys.stderr.isatty() or tally.kills % 50 < len(verdict.killed):
        end = "\r" if sys.stderr.isatty() else "\n"
        sys.stderr.write(f"{tally.kills} kills, {tally.losses} losses{end}")
        sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash.campaign",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--store", action="append", choices=sorted(SHARED_URLS))
    parser.add_argument("--case", type=int, help="only the case with this number")
    parser.add_argument("--together", type=int, default=os.cpu_count() or 2)
    options = parser.parse_args(arguments)
    options.store = options.store or sorted(SHARED_URLS)
    numbers = itertools.count() if options.case is None else [options.case]
    cases = (case_of(options.seed, number, options.store) for number in numbers)
    folder = Path(tempfile.mkdtemp(prefix="af10-crash-"))
    started = time.monotonic()
    nursery = Nursery()
    try:
        tally = asyncio.run(campaign(nursery, folder, cases, options))
    finally:
        nursery.close()
    lines = list(table(tally, options.store))
    seconds = time.monotonic() - started
    lines.append(
        f"{tally.kills} kills, {tally.losses} losses, {seconds:.0f} s, seed {options.seed}"
    )
    sys.stdout.write("\n".join(lines) + "\n")
    if not tally.losses:
        shutil.rmtree(folder)
    return 1 if tally.losses else 0


if __name__ == "__main__":
    sys.exit(main())
