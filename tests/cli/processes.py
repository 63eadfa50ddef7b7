"""The command line, as real processes."""

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

Lines = list[dict[str, Any]]
CACHE = tempfile.TemporaryDirectory()


@asynccontextmanager
async def running(
    *arguments: str,
    env: dict[str, str] | None = None,
    python: tuple[str, ...] = ("-m", "af10_async"),
) -> AsyncIterator[Process]:
    """`af10 ...`, ended by force when the block is left."""
    dropped = ("AF10_", "PYTHONDONTWRITEBYTECODE")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    clean["PYTHONPYCACHEPREFIX"] = CACHE.name  # most of the time would go into compiling
    process = await asyncio.create_subprocess_exec(
        sys.executable, *python, *arguments, stdout=PIPE, stderr=PIPE, env=clean | (env or {})
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def run(*arguments: str, **options: Any) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `af10 ...`."""
    async with running(*arguments, **options) as process:
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()


def lines_of(text: str) -> Lines:
    return [json.loads(line) for line in text.splitlines()]
