"""Where an attack takes place: the receiver and the attacker in processes of their own, watched."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from .engine import Attack
from .legitimate import Callers, Way

ROOT = Path(__file__).parents[2]
_PER_CALLBACK = re.compile(r"INFO:af10_async\.callback_server:callback for job [\w-]{48}")
_ATTACK = re.compile(r"hooks\.example\.com|HTTP/1|/af10/|yyyy|xxxx|aaaa")
"""What only attackers send."""
_SETTLE_SECONDS = 20.0
"""Seconds that the receiver has to give descriptors back."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files for 127.0.0.1."""

    cert: Path
    key: Path
    ca: Path

    def client(self) -> ssl.SSLContext:
        """What a caller trusts."""
        return ssl.create_default_context(cafile=str(self.ca))


@dataclass(frozen=True, slots=True)
class Size:
    """What a process takes."""

    rss: int
    files: int


class Watch:
    """What a process takes at most."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self.peak = self.now()

    def now(self) -> Size:
        """What it takes now, which counts for the peak."""
        size = Size(self._process.memory_info().rss, self._process.num_fds())
        last = getattr(self, "peak", size)
        self.peak = Size(max(size.rss, last.rss), max(size.files, last.files))
        return size

    async def again_and_again(self) -> None:
        """Until it is cancelled."""
        while True:
            self.now()
            await asyncio.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Log:
    """What the receiver has written."""

    lines: tuple[str, ...]
    """Without those that each callback has by right."""

    @property
    def has_traceback(self) -> bool:
        """Whether something went wrong unforeseen."""
        return any("Traceback" in line for line in self.lines)

    @property
    def repeats_input(self) -> bool:
        """Whether an attacker's words are in it."""
        return any(_ATTACK.search(line) for line in self.lines)


class Receiver:
    """The process under attack."""

    def __init__(self, process: Process, ports: dict[str, int], log: Path) -> None:
        self._process = process
        self._log = log
        self.ports = ports
        self.watch = Watch(psutil.Process(process.pid))

    def log(self) -> Log:
        """What it has written so far."""
        lines = self._log.read_text(errors="replace").splitlines()
        return Log(tuple(line for line in lines if not _PER_CALLBACK.fullmatch(line)))

    async def state(self) -> dict[str, Any]:
        """How its jobs are."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        return await _heard(self._process)

    async def has_settled(self, files: int) -> bool:
        """Wait until it has no more descriptors than before; whether that came to be."""
        for _ in range(int(_SETTLE_SECONDS / 0.05)):
            if self.watch.now().files <= files:
                return True
            await asyncio.sleep(0.05)
        return False

    def callers(self, client: ssl.SSLContext) -> Callers:
        """Who sends it callbacks, by each way there is."""
        found = (
            Way(self.ports[port], client if port == "tls" else None, is_kept)
            for is_kept in (False, True)
            for port in ("plain", "tls")
        )
        return Callers(tuple(found))


async def _heard(process: Process) -> dict[str, Any]:
    """The next thing that a process says."""
    assert process.stdout is not None
    async with asyncio.timeout(60):
        line = await process.stdout.readline()
    if not line:
        raise RuntimeError(f"a process of ours ended early, with {await process.wait()}")
    found: dict[str, Any] = json.loads(line)
    return found


@asynccontextmanager
async def _child(module: str, *arguments: str) -> AsyncIterator[Process]:
    """A process that ends when its input does."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdin=PIPE,
        stdout=PIPE,
        limit=2**24,
        env={**os.environ, "PYTHONPATH": paths},
    )
    try:
        yield process
    finally:
        await _ended(process)


async def _ended(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(30):
            await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise


@asynccontextmanager
async def receiving(
    certificate: Certificate, folder: Path, *, jobs: int, files: int | None = None
) -> AsyncIterator[Receiver]:
    """A receiver with so many jobs, which may have so many descriptors open."""
    log = folder / "receiver.log"
    log.unlink(missing_ok=True)
    task = {
        "cert": str(certificate.cert),
        "key": str(certificate.key),
        "files": files,
        "jobs": jobs,
        "log": str(log),
    }
    async with _child("tests.fire.receiver", json.dumps(task)) as process:
        yield Receiver(process, await _heard(process), log)


class Attacker:
    """A process that attacks."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.done: dict[str, Any] = {}
        """What it says that it has done, when it has ended."""

    async def has_begun(self) -> None:
        """Wait until the attack is under way."""
        message = await _heard(self._process)
        assert message == {"has_begun": True}

    async def stop(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        message = await _heard(self._process)
        while "has_begun" in message:
            message = await _heard(self._process)
        self.done = {**message, "statuses": Counter(message["statuses"])}


@asynccontextmanager
async def attacked(
    receiver: Receiver, attack: Attack, connections: int = 10**6
) -> AsyncIterator[Attacker]:
    """While this attack goes on, with at most so many connections."""
    task = {**receiver.ports, "seconds": None, "connections": connections}
    async with _child("tests.fire.attacker", attack.name, json.dumps(task)) as process:
        attacker = Attacker(process)
        try:
            yield attacker
        finally:
            await attacker.stop()
