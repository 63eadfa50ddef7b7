"""One download with Python in an interpreter of its own, which measures itself.

The other benchmarks run it. Neither the start of the interpreter nor an import counts, nor the
making of a client: a small file is fetched before, over a connection that is then closed. Only what
the peer itself needs is imported.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import re
import resource
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
BEAT = 0.001
"""Seconds between two heartbeats."""

Task = dict[str, Any]
Fetch = Callable[[str, Path], Awaitable[object]]


# -- the peers ---------------------------------------------------------------------------------


@asynccontextmanager
async def ours(task: Task) -> AsyncIterator[Fetch]:
    """`RemoteFile.save`, which flushes to disk and computes the SHA-256."""
    from af10_async import AF10Client

    # AF10 itself is not asked for anything. A private address: the file's may be one too.
    nobody: dict[str, Any] = dict.fromkeys(("api_key", "username", "password"), "-")
    nobody["base_url"] = "http://127.0.0.1:1/v2"
    options: dict[str, Any] = task.get("options", {})
    async with AF10Client(**nobody, ca_file=task["ca"]) as af10:
        yield lambda url, target: af10.file(url).save(target, **options)


@asynccontextmanager
async def httpx_bytes(task: Task, *, raw: bool = False) -> AsyncIterator[Fetch]:
    """The usual loop: each chunk is written as it comes."""
    import httpx

    async with httpx.AsyncClient(verify=_trusting(task)) as client:

        async def fetch(url: str, target: Path) -> None:
            async with client.stream("GET", url) as response:
                response.raise_for_status()
                with target.open("wb") as file:
                    async for chunk in response.aiter_raw() if raw else response.aiter_bytes():
                        file.write(chunk)
                    if task.get("fsync"):
                        file.flush()
                        os.fsync(file.fileno())

        yield fetch


def httpx_raw(task: Task) -> AbstractAsyncContextManager[Fetch]:
    """The same without decoders."""
    return httpx_bytes(task, raw=True)


@asynccontextmanager
async def aiohttp_chunks(task: Task) -> AsyncIterator[Fetch]:
    """aiohttp's loop over chunks of up to 1 MiB."""
    import aiohttp

    trusting = _trusting(task)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:

        async def fetch(url: str, target: Path) -> None:
            async with session.get(url, ssl=trusting, raise_for_status=True) as response:
                with target.open("wb") as file:
                    async for chunk in response.content.iter_chunked(MIB):
                        file.write(chunk)

        yield fetch


@asynccontextmanager
async def hugging_face(task: Task) -> AsyncIterator[Fetch]:
    """What huggingface_hub fetches each of its files with; it is not asynchronous."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["SSL_CERT_FILE"] = task["ca"]
    http_get = importlib.import_module("huggingface_hub.file_download").http_get

    async def fetch(url: str, target: Path) -> None:
        with target.open("wb") as file:
            http_get(url, file)

    yield fetch


@asynccontextmanager
async def idle(task: Task) -> AsyncIterator[Fetch]:
    """Nothing but two seconds of sleep, for what the machine itself does to a heartbeat."""

    async def fetch(url: str, target: Path) -> None:
        await asyncio.sleep(2 if url == task["url"] else 0)
        target.touch()

    yield fetch


def _trusting(task: Task) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=task["ca"])


PEERS: dict[str, tuple[str, Callable[[Task], AbstractAsyncContextManager[Fetch]]]] = {
    "ours": ("af10_async", ours),
    "httpx": ("httpx", httpx_bytes),
    "httpx raw": ("httpx", httpx_raw),
    "aiohttp": ("aiohttp", aiohttp_chunks),
    "huggingface_hub": ("huggingface_hub", hugging_face),
    "idle": ("httpx", idle),
}
"""Under each name what it imports, and how it fetches."""


# -- what is measured --------------------------------------------------------------------------


def memory(kind: str) -> float:
    """MiB of this process: `VmRSS` now, `VmHWM` at most so far."""
    found = re.search(rf"{kind}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def cpu() -> float:
    """CPU seconds of this process and its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Heartbeat:
    """A task that wants to run each millisecond: how long did the loop not let it?"""

    def __init__(self) -> None:
        self.held: list[float] = []

    async def beat(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(BEAT)
            now = time.perf_counter()
            self.held.append(now - last)
            last = now


async def measured(task: Task, base: float) -> dict[str, float]:
    """One download; times of it alone, memory over what was there after the import."""
    target = Path(task["target"])
    async with PEERS[task["peer"]][1](task) as fetch:
        small = target.with_name(f"{target.name}.warm-up")
        await fetch(task["warm_up"], small)
        small.unlink()
        idle = memory("VmRSS")
        heartbeat = Heartbeat()
        beating = asyncio.create_task(heartbeat.beat()) if task.get("heartbeat") else None
        spent, started = cpu(), time.perf_counter()
        await fetch(task["url"], target)
        seconds, spent = time.perf_counter() - started, cpu() - spent
        if beating is not None:
            await asyncio.sleep(2 * BEAT)  # so that it sees what came last
            beating.cancel()
    return {
        "seconds": seconds,
        "cpu": spent,
        "peak": memory("VmHWM"),
        "over import": memory("VmHWM") - base,
        "over idle": memory("VmHWM") - idle,
        "held": max(heartbeat.held, default=0.0),
        "often held": float(sum(each > 0.05 for each in heartbeat.held)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", type=json.loads, required=True, help=argparse.SUPPRESS)
    task: Task = parser.parse_args().task
    importlib.import_module(PEERS[task["peer"]][0])
    print(json.dumps(asyncio.run(measured(task, memory("VmRSS")))))


if __name__ == "__main__":
    main()
