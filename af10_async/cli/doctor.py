"""The command that says which link is broken."""

from __future__ import annotations

import argparse
import logging
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Protocol

from rich.console import Console
from rich.text import Text

from .. import AF10Error
from ..doctor import CHECKS, Finding, State
from .context import Context
from .output import Output, listening

_SIGNS = {State.PASSED: "✓", State.FAILED: "✗", State.SKIPPED: "–"}  # noqa: RUF001 - a dash
_PLAIN_SIGNS = {State.PASSED: "+", State.FAILED: "x", State.SKIPPED: "-"}
_STYLES = {State.PASSED: "green", State.FAILED: "bold red", State.SKIPPED: "yellow"}
_NAME_WIDTH = max(map(len, CHECKS))
_INDENT = len("✓ skipped  ") + _NAME_WIDTH + len("  ")
_NARROWEST = _INDENT + 30
_WIDEST = 120
"""Longer lines are hard to read."""


async def doctor(arguments: argparse.Namespace, context: Context) -> None:
    """Each check, and what to do next."""
    # Imported by who needs it: it imports nearly everything that there is.
    from ..doctor import examine

    report: _Report = _Lines(context.output) if arguments.json else _Page()
    counts, started = Counter[State](), time.monotonic()
    with _warnings() as warnings:
        async with aclosing(examine(out=arguments.out, timeout=arguments.timeout)) as findings:
            with report.beginning():
                async for finding in findings:
                    report.finding(_with(warnings, finding))
                    counts[finding.state] += 1
    report.summary(counts, time.monotonic() - started)
    if counts[State.FAILED]:
        # It was said already; this is for the exit code.
        context.failures.append(AF10Error(f"{counts[State.FAILED]} check(s) failed"))


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What the library warns of meanwhile, which belongs to what is examined just then."""
    found: list[str] = []

    def note(record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            found.append(record.getMessage())

    with listening("af10_async", note):
        yield found


def _with(warnings: list[str], finding: Finding) -> Finding:
    """A finding that passed, with what was warned of; one that failed says enough."""
    remarks = list(warnings) if finding.state is State.PASSED else []
    warnings.clear()
    return replace(finding, advice="\n".join(filter(None, [finding.advice, *remarks])))


class _Report(Protocol):
    """Where the findings go."""

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Show what is under way, while the block lasts."""
        yield

    def finding(self, finding: Finding) -> None:
        """Say what a check has found."""

    def summary(self, counts: Counter[State], seconds: float) -> None:
        """Say how many there were of each."""


class _Lines(_Report):
    """One JSON object a line."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def finding(self, finding: Finding) -> None:
        """A line for each check."""
        self._output.step(
            "finding",
            finding.message,
            check=finding.name,
            state=str(finding.state),
            message=finding.message,
            advice=finding.advice,
            seconds=finding.seconds,
            details=dict(finding.details),
        )

    def summary(self, counts: Counter[State], seconds: float) -> None:
        """The last line."""
        numbers = {str(state): counts[state] for state in State}
        self._output.step("summary", "", **numbers, seconds=round(seconds, 3))


class _Page(_Report):
    """Aligned lines on stdout, for people."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._width = max(min(self._console.width, _WIDEST), _NARROWEST)
        is_plain = not _can_be_written("".join(_SIGNS.values()) + "→")
        self._signs, self._arrow = (_PLAIN_SIGNS, "->") if is_plain else (_SIGNS, "→")
        self._left = list(CHECKS)
        self._status = self._console.status("", spinner="line" if is_plain else "dots")

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """A spinner with the name of the check, at a terminal."""
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            yield
            return
        self._status.update(f"{self._left[0]} ...")
        with self._status:
            yield

    def finding(self, finding: Finding) -> None:
        """A line, and below it what to do."""
        sign, style = self._signs[finding.state], _STYLES[finding.state]
        head = Text.assemble(
            (f"{sign} {finding.state:<7}  ", style), (f"{finding.name:<{_NAME_WIDTH}}  ", "bold")
        )
        self._block(head, finding.message, "" if finding.state is not State.SKIPPED else "dim")
        for advice in finding.advice.splitlines():
            arrow = f"{self._arrow} "
            self._block(Text(" " * _INDENT + arrow, "cyan"), advice, "cyan", len(arrow))
        self._left = self._left[1:]
        self._status.update(f"{self._left[0]} ..." if self._left else "")

    def summary(self, counts: Counter[State], seconds: float) -> None:
        """The last line, and whether all is well."""
        numbers = ", ".join(f"{counts[state]} {state}" for state in State)
        state = State.FAILED if counts[State.FAILED] else State.PASSED
        verdict = "something is broken" if counts[State.FAILED] else "nothing is broken"
        line = Text.assemble((f"{verdict}: ", _STYLES[state]), f"{numbers} in {seconds:.1f} s")
        self._console.print()
        self._console.print(line, soft_wrap=True)

    def _block(self, head: Text, text: str, style: str, more: int = 0) -> None:
        """Text beside a head, and below itself where it is longer than a line."""
        indent = _INDENT + more
        lines = textwrap.wrap(
            _written(text),
            self._width - indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        body = f"\n{' ' * indent}".join(lines)
        self._console.print(head + Text(body, style), soft_wrap=True)


def _can_be_written(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _written(text: str) -> str:
    """`text` as stdout can show it, and no more than text: a path may hold escape sequences."""
    shown = "".join(each if each.isprintable() else "?" for each in text)
    encoding = sys.stdout.encoding or "ascii"
    return shown.encode(encoding, "replace").decode(encoding)
