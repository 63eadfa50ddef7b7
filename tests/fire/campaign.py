"""Attack the receiver in every way we know while callbacks come in, and measure.

    python -m tests.fire.campaign [--seconds 10] [--attack NAME ...] [--json]

Receiver, attacker and callers are processes of their own. For each attack: how long callbacks took
before and meanwhile (by new connections and kept ones, plain and TLS), what was lost, memory and
open descriptors of the receiver before, at most and afterwards, how much the attacker really did,
and what the log says (at INFO). At last, whether answers tell kinds of wrong keys apart. The exit
code is 1 when a limit is broken: a callback lost, p99 of 250 ms or more, a traceback or input of
the attacker in the log, more than 100 lines in it, descriptors that do not come back, memory that
grows by more than 128 MiB, anything stored for an attacker.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from .attacker import raise_files
from .attacks import ATTACKS, BY_NAME
from .engine import Attack
from .field import Certificate, Log, Receiver, Size, attacked, receiving
from .legitimate import Callers, Record
from .timing import differences

MIB = 1024 * 1024
LONGEST = 0.250
"""Seconds: the p99 of callbacks must be below it."""
MOST_GROWTH = 128 * MIB
MOST_LINES = 100
"""Lines in the log beside one for each callback."""


# -- what has happened -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attack, and how the receiver stood it."""

    attack: Attack
    quiet: Record
    meanwhile: Record
    before: Size
    peak: Size
    after: Size
    done: dict[str, Any]
    seconds: float
    log: Log
    lost: int
    """Callbacks that were answered 200 and are not in the store."""
    stored: int
    """What is in the store, and no callback brought it."""
    has_settled: bool
    broken: list[str] = field(default_factory=list)
    """The limits that were broken, in words."""

    def judge(self) -> None:
        """See which limits were broken."""
        self.broken.extend(text for text, is_so in self._limits() if is_so)

    def _limits(self) -> Iterator[tuple[str, bool]]:
        failures = self.meanwhile.failures + self.quiet.failures
        yield f"callbacks failed: {dict(failures)}", failures.total() > 0
        yield f"{self.lost} callbacks answered 200 and not kept", self.lost > 0
        yield f"{self.stored} jobs stored by the attacker", self.stored > 0
        p99 = self.meanwhile.percentile(0.99)
        yield f"p99 is {p99 * 1000:.0f} ms", p99 >= LONGEST
        yield "there is a traceback in the log", self.log.has_traceback
        yield "the log repeats the attacker", self.log.repeats_input
        yield f"{len(self.log.lines)} lines in the log", len(self.log.lines) > MOST_LINES
        left = self.after.files - self.before.files
        yield f"{left} descriptors did not come back", not self.has_settled
        growth = self.peak.rss - self.before.rss
        yield f"memory grew by {growth / MIB:.0f} MiB", growth > MOST_GROWTH

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "attack": self.attack.name,
            "seconds": self.seconds,
            "quiet": _record_json(self.quiet),
            "meanwhile": _record_json(self.meanwhile),
            "rss_mib": [size.rss / MIB for size in (self.before, self.peak, self.after)],
            "files": [size.files for size in (self.before, self.peak, self.after)],
            "done": self.done,
            "log_lines": len(self.log.lines),
            "broken": self.broken,
        }


def _record_json(record: Record) -> dict[str, Any]:
    return {
        "callbacks": len(record.seconds) + record.failures.total(),
        "failures": dict(record.failures),
        "renewed": record.renewed,
        **{
            name: record.percentile(part)
            for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
        },
    }


# -- letting it happen -----------------------------------------------------------------------------


async def endure(
    certificate: Certificate, folder: Path, attack: Attack, options: argparse.Namespace
) -> Outcome:
    """One attack on a fresh receiver."""
    jobs = round(options.pace * (options.seconds + options.quiet)) + 10
    async with receiving(certificate, folder, jobs=jobs, files=attack.files) as receiver:
        callers = receiver.callers(certificate.client())
        try:
            return await _endured(receiver, callers, attack, options)
        finally:
            await callers.close()


async def _endured(
    receiver: Receiver, callers: Callers, attack: Attack, options: argparse.Namespace
) -> Outcome:
    await callers.steadily(options.pace, options.quiet)
    quiet, before = callers.renew(), receiver.watch.now()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(receiver.watch.again_and_again())
        async with attacked(receiver, attack) as attacker:
            await callers.steadily(options.pace, options.seconds)
        watching.cancel()
    has_settled = await receiver.has_settled(before.files)
    meanwhile, state = callers.renew(), await receiver.state()
    answered = {*quiet.answered, *meanwhile.answered}
    outcome = Outcome(
        attack=attack,
        quiet=quiet,
        meanwhile=meanwhile,
        before=before,
        peak=receiver.watch.peak,
        after=receiver.watch.now(),
        done=attacker.done,
        seconds=options.seconds,
        log=receiver.log(),
        lost=len(answered.difference(state["called_back"])),
        stored=state["strangers"] + len(state["tell_tale"]),
        has_settled=has_settled,
    )
    outcome.judge()
    return outcome


# -- telling of it ---------------------------------------------------------------------------------

HEADS = ("callbacks", "failed", "p50 ms", "p99", "max", "quiet p99", "conn/s", "req/s", "MiB/s")
MORE_HEADS = ("held", "fds", "RSS MiB", "log")
WIDTH = max(len(attack.name) for attack in ATTACKS)


def head() -> str:
    """The first line of the table."""
    return " " * WIDTH + "".join(
        f"{name:>{size}}" for name, size in (*((h, 10) for h in HEADS), *_more_widths())
    )


def _more_widths() -> Iterator[tuple[str, int]]:
    return zip(MORE_HEADS, (7, 14, 14, 5), strict=True)


def row(outcome: Outcome) -> str:
    """An attack's line; `before>most>after` where three numbers stand together."""
    done, seconds, here = outcome.done, outcome.seconds, outcome.meanwhile
    times = [here.percentile(part) * 1000 for part in (0.5, 0.99, 1.0)]
    rates = (done["connections"] / seconds, done["requests"] / seconds)
    sizes = (outcome.before, outcome.peak, outcome.after)
    cells = (
        f"{len(here.seconds) + here.failures.total():>10}{here.failures.total():>10}",
        *(f"{each:>10.1f}" for each in (*times, outcome.quiet.percentile(0.99) * 1000)),
        *(f"{each:>10,.0f}" for each in rates),
        f"{done['sent'] / MIB / seconds:>10.1f}",
        f"{done['most_held']:>7,}",
        f"{'>'.join(str(size.files) for size in sizes):>14}",
        f"{'>'.join(f'{size.rss / MIB:.0f}' for size in sizes):>14}",
        f"{len(outcome.log.lines):>5}",
    )
    return f"{outcome.attack.name:<{WIDTH}}" + "".join(cells)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _tell(outcome: Outcome, options: argparse.Namespace) -> None:
    if options.json:
        _say(json.dumps(outcome.as_json()))
        return
    _say(row(outcome))
    for text in outcome.broken:
        _say(f"  BROKEN: {text}")


# -- the command -----------------------------------------------------------------------------------


def certificate_in(folder: Path) -> Certificate:
    """One for 127.0.0.1."""
    made = Certificate(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")
    ca = trustme.CA()
    leaf = ca.issue_cert("127.0.0.1")
    ca.cert_pem.write_to_path(str(made.ca))
    leaf.private_key_pem.write_to_path(str(made.key))
    for pem in leaf.cert_chain_pems:
        pem.write_to_path(str(made.cert), append=True)
    return made


async def campaign(options: argparse.Namespace) -> bool:
    """All attacks that were asked for; whether every limit held."""
    is_good = True
    with tempfile.TemporaryDirectory(prefix="af10-fire-") as name:
        folder = Path(name)
        certificate = certificate_in(folder)
        if not options.json:
            _say(head())
        for each in options.attack:
            outcome = await endure(certificate, folder, BY_NAME[each], options)
            is_good = is_good and not outcome.broken
            _tell(outcome, options)
        if options.answers:
            await _compare(certificate, folder, options)
    return is_good


async def _compare(certificate: Certificate, folder: Path, options: argparse.Namespace) -> None:
    async with receiving(certificate, folder, jobs=options.answers) as receiver:
        found = await differences(receiver.ports["plain"], options.answers)
    if options.json:
        _say(json.dumps({"answers": [each.as_json() for each in found]}))
        return
    _say("\nWhat the time of an answer says (0.5: nothing; noise: one kind against itself)")
    for each in found:
        _say(each.line())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fire.campaign",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [attack.name for attack in ATTACKS]
    parser.add_argument("--seconds", type=float, default=10.0, help="of each attack")
    parser.add_argument("--quiet", type=float, default=3.0, help="seconds before it")
    parser.add_argument("--pace", type=float, default=50.0, help="callbacks a second")
    parser.add_argument("--attack", action="append", choices=names)
    parser.add_argument("--answers", type=int, default=1000, help="requests of each kind of key")
    parser.add_argument("--json", action="store_true", help="one object a line")
    options = parser.parse_args(arguments)
    options.attack = options.attack or names
    raise_files()
    is_good = asyncio.run(campaign(options))
    if not options.json:
        _say(f"\n{os.cpu_count()} cores; " + ("all limits held" if is_good else "LIMITS BROKEN"))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
