"""A proxy that is started with the very configuration that docs/proxies.md prints."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

DOCS = Path(__file__).parents[2] / "docs" / "proxies.md"
PREFIX = "/dealers"
PUBLIC_URL = "https://hooks.example.com/dealers"
_HOMES = ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME")
_HARD = 20.0
"""Seconds that a program has for what it does at once, before a test fails."""


def documented(language: str) -> str:
    """The fenced block of this language."""
    (found,) = re.findall(
        rf"^```{language}\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL
    )
    return str(found)


def replaced(text: str, changes: dict[str, str]) -> str:
    """`text` with each key replaced by its value; each must be there."""
    for old, new in changes.items():
        assert old in text, f"docs/proxies.md no longer has {old!r}"
        text = text.replace(old, new)
    return text


@dataclass(frozen=True)
class Place:
    """What a proxy is given: a folder of its own, ports, and a certificate."""

    folder: Path
    port: int
    behind: tuple[int, ...]
    """The ports that it passes callbacks on to."""
    cert: Path
    key: Path
    strips: bool = False
    """Whether it takes the prefix away."""
    waits: bool = True
    """Whether it may wait for a callback server that is away."""


class Proxy(ABC):
    """One that can be started, reloaded, killed and started again."""

    program: str
    package: str
    language: str
    stripping: tuple[str, str]
    """A line of the configuration, and what it becomes for the prefix to be taken away."""
    impatience: dict[str, str]
    """Changes that keep it from waiting for a callback server that is away."""
    can_wait = True

    def __init__(self, place: Place) -> None:
        self.place = place
        self.port = place.port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        """Where everything that it writes is."""
        return self.place.folder

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """What differs from the documentation here: ports and paths."""

    @abstractmethod
    def command(self) -> list[str]:
        """How it is started, in the foreground."""

    @abstractmethod
    def ask_to_reload(self) -> None:
        """Have it read its configuration again."""

    def write(self) -> Path:
        """The documented configuration, as a file of its own."""
        changes = self.settings()
        if self.place.strips:
            changes = dict([self.stripping]) | changes
        if not self.place.waits:
            changes = self.impatience | changes
        path = self.folder / "documented.conf"
        path.write_text(replaced(documented(self.language), changes))
        return path

    def environment(self) -> dict[str, str]:
        """Whatever it takes for a home is its folder."""
        return {"PATH": os.environ["PATH"]} | dict.fromkeys(_HOMES, str(self.folder))

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        self.write()
        with (self.folder / "output.log").open("ab") as output:
            before = output.tell()
            self._process = subprocess.Popen(
                [path_of(self), *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env=self.environment(),
                start_new_session=True,
            )
        async with asyncio.timeout(_HARD):
            while not (await self._listens() and self.is_ready(before)):
                assert self._process.poll() is None, self.said()
                await asyncio.sleep(0.01)

    def is_ready(self, before: int) -> bool:
        """Whether it can be reloaded; its output had the length `before` when it was started."""
        return True

    async def reload(self) -> None:
        """Have it read its configuration again, and wait until it has."""
        self.ask_to_reload()

    async def kill(self) -> None:
        """End it, and what it has started, as kill -9 does."""
        assert self._process is not None
        family = self._family()
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        async with asyncio.timeout(_HARD):
            while any(map(_is_alive, family)):
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """End it, and wait until nothing of it is left."""
        if self._process is None:
            return
        if self._process.poll() is None:
            family = self._family()
            self._process.terminate()
            await asyncio.to_thread(psutil.wait_procs, family, timeout=_HARD)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def workers(self) -> set[int]:
        """The process ids of what it has started."""
        assert self._process is not None
        return {each.pid for each in psutil.Process(self._process.pid).children(recursive=True)}

    def said(self) -> str:
        """All that it has written to logs."""
        return "\n".join(path.read_text("utf-8", "replace") for path in self.folder.glob("*.log"))

    def _family(self) -> list[psutil.Process]:
        assert self._process is not None
        process = psutil.Process(self._process.pid)
        return [process, *process.children(recursive=True)]

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    async def has_new_workers(self, before: set[int]) -> None:
        """Wait until none of those before is left, and others are there."""
        async with asyncio.timeout(_HARD):
            while not (now := self.workers()) or now & before:
                await asyncio.sleep(0.01)


def path_of(proxy: Proxy | type[Proxy]) -> str:
    """Where the program is; Debian has some of them where only root looks."""
    path = os.environ["PATH"] + os.pathsep + "/usr/sbin"
    found = shutil.which(proxy.program, path=path)
    if found is None:
        pytest.skip(f"{proxy.program} is not installed (Debian: apt install {proxy.package})")
    return found


def _is_alive(process: psutil.Process) -> bool:
    """Whether it still does something; whoever inherited it may take its time to notice."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def skip_without(proxy: type[Proxy]) -> None:
    """Skip the test when the program is not installed."""
    path_of(proxy)
