"""A hundred thousand jobs that wait in one process, over each store: what does each take?

    python benchmarks/waiting_stored.py [--quick] [--jobs 100000] [--called 1000] [--rounds 1]

Unlike in `waiting.py`, the jobs are not posted one by one: one is, and its record is put into the
store again and again, each time under a new key. Then `await client.job(key)` waits for each, as
after a restart. Memory is what the process takes (RSS) and what Python allocated (tracemalloc),
each in runs of their own, as the difference between all of them waiting and an empty store; and
what the store takes outside of the process: the file of SQLite, the `used_memory` of Valkey. While
all wait, the CPU time is counted for a while in which nothing happens. Then some are called back
over TLS, all at once, by another process, and must give their own payload; the others are
cancelled.

AF10 is a few lines in the process itself, behind httpx.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import ssl
import statistics
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import bench
import httpx
from waiting import memory, say

from af10_async import AF10Client, CallbackServer, Job, JobState
from af10_async.protocol.lifecycle import JobRecord
from af10_async.stores import Store

AT_ONCE = 500
IDLE_SECONDS = 10.0


# -- in a process of their own -----------------------------------------------------------------


def af10(request: httpx.Request) -> httpx.Response:
    """Enough of AF10: a token, any job, and for any id a payload that tells which id it was."""
    answer: dict[str, Any] = {}
    if request.url.path.endswith("/authenticate"):
        answer = {"token": "t", "api_url": "https://127.0.0.1/api"}
    elif request.method == "GET":
        answer = {"data": {"url": file_of(request.url.params["id"])}}
    # As a stream: with `json=`, httpx takes the answer for one that was read already.
    return httpx.Response(200, stream=httpx.ByteStream(json.dumps(answer).encode()))


def file_of(secret: str) -> str:
    return f"https://127.0.0.1/files/{secret}"


def secret_of(key: str) -> str:
    return f"secret-of-{key}"


@asynccontextmanager
async def client(task: dict[str, Any]) -> AsyncIterator[tuple[AF10Client, CallbackServer]]:
    async with (
        CallbackServer(
            store=task["store"],
            callback_secret=bench.CALLBACK_SECRET,
            tls_cert=task["cert"],
            tls_key=task["key"],
        ) as server,
        httpx.AsyncClient(transport=httpx.MockTransport(af10)) as http,
        AF10Client(
            base_url="https://127.0.0.1/v2",
            api_key="k",
            username="u",
            password="p",
            callback_server=server,
            http_client=http,
            callback_timeout=math.inf,
        ) as made,
    ):
        yield made, server


async def add_all(store: Store, record: JobRecord, keys: Sequence[str]) -> None:
    for start in range(0, len(keys), AT_ONCE):
        few = keys[start : start + AT_ONCE]
        await asyncio.gather(*(store.add(replace(record, key=key)) for key in few))


async def wait_for_all(
    af10_client: AF10Client, store: Store, keys: Sequence[str], tasks: dict[str, asyncio.Task[Any]]
) -> None:
    """A task for each that waits for its callback."""
    for start in range(0, len(keys), AT_ONCE):
        jobs: list[Job[Any]] = [af10_client.job(key) for key in keys[start : start + AT_ONCE]]
        tasks |= {job.key: asyncio.create_task(job) for job in jobs}
        while any(job.state is not JobState.ACCEPTED for job in jobs):
            await asyncio.sleep(0.005)
        await asyncio.sleep(0)
        await store.get(keys[0])  # behind their last looks


async def complete(tasks: dict[str, asyncio.Task[Any]], called: Sequence[str]) -> int:
    """How many of those that are called back give the right result; nobody else may."""
    right = 0
    for key in called:
        file = await tasks[key]
        right += file.url == file_of(secret_of(key))
    for key in tasks.keys() - set(called):
        assert not tasks[key].done(), "a job is done that was not called back"
    return right


async def end_all(tasks: dict[str, asyncio.Task[Any]]) -> None:
    for task in tasks.values():
        task.cancel()
    if tasks:
        await asyncio.wait(tasks.values())
    for task in tasks.values():
        if not task.cancelled():
            task.exception()  # what went wrong is told by the first of them
    tasks.clear()


async def work(task: dict[str, Any]) -> None:
    """One run; the parent makes the callbacks when it hears that all wait."""
    traced, tasks = task["traced"], dict[str, asyncio.Task[Any]]()
    async with client(task) as (af10_client, server):
        first = await af10_client.backup_owner().start()
        record = await server.store.get(first.key)
        assert record is not None
        keys = [bench.new_key() for _ in range(task["jobs"])]
        called = random.sample(keys, task["called"])
        say(is_empty=True)
        await asyncio.to_thread(sys.stdin.readline)
        if traced:
            tracemalloc.start()
        before, started = memory(traced=traced), time.perf_counter()
        await add_all(server.store, record, keys)
        adding, started = time.perf_counter() - started, time.perf_counter()
        try:
            await wait_for_all(af10_client, server.store, keys, tasks)
            taking_up = time.perf_counter() - started
            each = (memory(traced=traced) - before) / len(keys)
            cpu = time.process_time()
            await asyncio.sleep(task["idle"])
            cpu = (time.process_time() - cpu) / task["idle"] * 100
            say(url=server.public_url, called=called)
            started = time.perf_counter()
            right = await complete(tasks, called)
            completing = time.perf_counter() - started
        finally:
            await end_all(tasks)
        after = (memory(traced=traced) - before) / len(keys)
        say(each=each, after=after, cpu=cpu, right=right)
        say(adding=adding, taking_up=taking_up, completing=completing)


# -- the parent --------------------------------------------------------------------------------


async def call_all(url: str, ca: Path, keys: Sequence[str]) -> None:
    """Make a callback for each, over up to 50 connections."""
    connector = aiohttp.TCPConnector(limit=50, ssl=ssl.create_default_context(cafile=ca))
    async with aiohttp.ClientSession(connector=connector) as session:

        async def call(key: str) -> None:
            async with session.get(f"{url}/af10/{key}", params={"id": secret_of(key)}) as answer:
                assert answer.status == 200, f"a callback was answered with {answer.status}"

        async with asyncio.TaskGroup() as group:
            for key in keys:
                group.create_task(call(key))


def run(name: str, folder: Path, ca: Path, task: dict[str, Any]) -> dict[str, Any]:
    """One run over an empty store."""
    found: dict[str, Any] = {}
    with bench.empty_store(name, folder) as place:
        command = (sys.executable, __file__, "--task", json.dumps({**task, "store": place.url}))
        with bench.child(*command) as (process, _):
            assert process.stdout is not None
            assert process.stdin is not None
            size = place.size()
            process.stdin.write("go\n")
            process.stdin.flush()
            for line in process.stdout:
                said = json.loads(line)
                if "called" in said:
                    found["stored"] = (place.size() - size) / task["jobs"] / 1024
                    asyncio.run(call_all(said["url"], ca, said["called"]))
                else:
                    found |= said
            assert process.wait(timeout=60) == 0, f"{name} ended with {process.returncode}"
    assert found["right"] == task["called"], f"{found['right']} results are right"
    return found


def measure(rounds: int, jobs: int, called: int, idle: float) -> None:
    """Run over all stores in turn, and print how they compare."""
    runs: dict[bool, dict[str, list[dict[str, Any]]]] = {}
    with bench.disk_folder() as folder:
        certificate = bench.Certificate.made_in(folder)
        task = {
            "cert": str(certificate.cert),
            "key": str(certificate.key),
            "jobs": jobs,
            "called": called,
            "idle": idle,
        }
        for traced in (False, True):
            runs[traced] = {name: [] for name in bench.STORES}
            for _, name in bench.interleaved(bench.STORES, rounds):
                found = run(name, folder, certificate.ca, {**task, "traced": traced})
                runs[traced][name].append(found)
    rows: list[tuple[object, ...]] = []
    for title, what, traced in (
        ("RSS, KiB a job while it waits", "each", False),
        ("RSS, KiB a job when it is done", "after", False),
        ("tracemalloc, KiB a job while it waits", "each", True),
        ("tracemalloc, KiB a job when it is done", "after", True),
        ("in the store, KiB a job", "stored", False),
        ("CPU % while all wait", "cpu", False),
        ("s to add all", "adding", False),
        ("s until all wait", "taking_up", False),
        ("s from the first callback to the last result", "completing", False),
    ):
        sizes = {name: [each[what] for each in runs[traced][name]] for name in bench.STORES}
        ratios: list[object] = ["-", "-"]
        if what == "each":
            ratios = [bench.ratio(sizes[name], sizes["memory"]) for name in bench.STORES[1:]]
        rows.append((title, *ratios, *(statistics.median(each) for each in sizes.values())))
    title = f"{jobs:,} jobs wait, {called:,} are called back and complete, {rounds} rounds"
    bench.table(title, ("sqlite/memory", "valkey/memory", *bench.STORES), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--called", type=int, default=1000, help="how many are called back")
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task is not None:
        asyncio.run(work(options.task))
    elif options.quick:
        measure(1, 2000, 200, 1.0)
    else:
        measure(options.rounds, options.jobs, min(options.called, options.jobs), IDLE_SECONDS)


if __name__ == "__main__":
    main()
