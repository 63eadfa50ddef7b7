"""Real processes that share a store; see `worker.py` for what they can be told."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

CACHE = tempfile.TemporaryDirectory()


class Worker:
    """One such process."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def tell(self, *order: Any) -> Any:
        """Give an order; the answer."""
        self.send(*order)
        return await self.answer()

    def send(self, *order: Any) -> None:
        """Give an order, and do not wait for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")

    async def answer(self) -> Any:
        """The next answer."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 40)
        assert line, "the worker has ended"
        return json.loads(line)

    async def kill(self) -> None:
        """End it as a power failure would."""
        self.process.kill()
        await self.process.communicate()


@asynccontextmanager
async def workers(url: str, number: int) -> AsyncIterator[list[Worker]]:
    """Processes with the same store, opened."""
    command = (sys.executable, "-m", "tests.stores.worker", url)
    env = {name: os.environ[name] for name in os.environ if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = CACHE.name  # most of the time would go into compiling
    found = [
        Worker(
            await asyncio.create_subprocess_exec(
                *command, env=env, stdin=PIPE, stdout=PIPE, limit=2**20
            )
        )
        for _ in range(number)
    ]
    try:
        for worker in found:
            assert await worker.answer() == "open"
        yield found
    finally:
        for worker in found:
            if worker.process.returncode is None:
                await worker.process.communicate(b"")  # the end of its orders
