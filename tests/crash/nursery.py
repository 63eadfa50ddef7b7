"""The campaign's side of `child.py`."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .life import Life

PATIENCE = 60.0
"""Seconds after which a process is taken to hang."""


class Process:
    """One client process."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.said: list[dict[str, Any]] = []
        self._news = asyncio.Event()

    def hear(self, message: dict[str, Any]) -> None:
        """Something that it says."""
        self.said.append(message)
        self._news.set()

    def all(self, what: str) -> list[dict[str, Any]]:
        """What it said of that kind so far."""
        return [message for message in self.said if message["said"] == what]

    @property
    def code(self) -> int | None:
        """What it ended with; None while it lives."""
        return next((message["code"] for message in self.all("ended")), None)

    async def says(self, what: str) -> bool:
        """Wait until it says so; False when it ends without."""
        while not self.all(what):
            if self.code is not None:
                return False
            self._news.clear()
            await self._news.wait()
        return True


class Nursery:
    """Starts client processes; none of this needs a loop before the first of them."""

    def __init__(self) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._in, self._out = self._popen.stdin, self._popen.stdout
        self._numbers = itertools.count(1)
        self._processes: dict[int, Process] = {}
        self._rest = b""

    def close(self) -> None:
        """End it, and all that it has started."""
        self._in.close()
        self._popen.wait()
        self._out.close()

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Hear, in the running loop, what the processes say."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._out.fileno(), self._read)
        try:
            yield
        finally:
            loop.remove_reader(self._out.fileno())

    def start(self, life: Life) -> Process:
        """A new process."""
        process = Process(next(self._numbers))
        self._processes[process.number] = process
        self._order({"fork": process.number, "life": life.as_json()})
        return process

    def kill(self, process: Process) -> None:
        """`kill -9`, unless it has ended."""
        self._order({"kill": process.number})

    def _order(self, order: dict[str, Any]) -> None:
        self._in.write(json.dumps(order).encode() + b"\n")

    def _read(self) -> None:
        found = os.read(self._out.fileno(), 65536)
        if not found:
            asyncio.get_running_loop().remove_reader(self._out.fileno())
            raise RuntimeError("the process that starts the others has ended")
        *lines, self._rest = (self._rest + found).split(b"\n")
        for line in lines:
            message = json.loads(line)
            self._processes[message["number"]].hear(message)
