"""What the benchmarks share: a sandbox in a process of its own, fresh interpreters, and a table."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

DEADLINE = 600.0
"""Seconds after which a benchmark's child is taken to hang."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate for 127.0.0.1, and the authority that signed it."""

    ca: Path
    cert: Path
    key: Path

    @classmethod
    def made_in(cls, folder: Path) -> Certificate:
        authority = trustme.CA()
        leaf = authority.issue_cert("127.0.0.1")
        made = cls(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
        authority.cert_pem.write_to_path(made.ca)
        for pem in leaf.cert_chain_pems:
            pem.write_to_path(made.cert, append=True)
        leaf.private_key_pem.write_to_path(made.key)
        return made


@contextmanager
def child(*command: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A process that is told to end afterwards, and the JSON that is its first line."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        first_line = process.stdout.readline()
        if not first_line:
            raise SystemExit(f"did not start: {' '.join(command)}")
        yield process, json.loads(first_line)
    finally:
        process.terminate()
        process.communicate(timeout=30)


@contextmanager
def sandbox(ca: Path, *options: str) -> Iterator[dict[str, Any]]:
    """`af10 sandbox`; gives `base_url`, `api_key`, `username` and `password`."""
    command = (sys.executable, "-m", "af10_async", "sandbox", "--json", "--callback-ca", str(ca))
    with child(*command, *options) as (_, access):
        yield access


def fresh_run(
    script: str, task: Mapping[str, Any], env: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a script in an interpreter of its own: a JSON task in, a line of JSON out."""
    done = subprocess.run(
        [sys.executable, script, "--task", json.dumps(task)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=DEADLINE,
        env={**os.environ, **(env or {})},
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def interleaved(names: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """A B, B A, A B, ...: what drifts, and who goes first, hits all alike."""
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            yield number, name


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' own ratios."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows of a name and numbers."""
    width = max(len(str(row[0])) for row in rows)
    print(f"\n{title}")
    print(" " * width + "".join(f"{name:>16}" for name in columns))
    for name, *cells in rows:
        print(f"{name!s:<{width}}" + "".join(f"{_cell(cell):>16}" for cell in cells))


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
