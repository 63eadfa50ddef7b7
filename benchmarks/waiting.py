"""A thousand jobs at once in one process: do all complete, and what does each cost while it waits?

    python benchmarks/waiting.py [--quick] [--jobs 1000] [--rounds 3]

The sandbox runs in a process of its own, and calls nobody back before it is told to. Beside ours
stands the bare minimum, for scale: a dictionary of futures with a task for each. Memory is what
the process takes (RSS) and what Python allocated (tracemalloc), each in runs of their own, as the
difference between all of them waiting and none.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import bench
import psutil  # type: ignore[import-untyped]

from af10_async import AF10Client
from af10_async.sandbox import Fault, Sandbox

NAMES = ("ours", "bare minimum")
WARM_UP = 100


# -- in a process of their own -----------------------------------------------------------------


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def memory(*, traced: bool) -> float:
    """KiB in use, now that nothing is left to collect."""
    gc.collect()
    size = tracemalloc.get_traced_memory()[0] if traced else psutil.Process().memory_info().rss
    return size / 1024


async def hold(task: dict[str, Any]) -> None:
    """A sandbox that calls back when it is told to, by a line on stdin."""
    async with Sandbox(callback_ca=task["ca"]) as sandbox:
        sandbox.faults.add(Fault.never(times=None))
        say(
            base_url=sandbox.base_url,
            api_key=sandbox.api_key,
            username=sandbox.username,
            password=sandbox.password,
        )
        slots = asyncio.Semaphore(100)
        called = 0

        async def call_back(job: Any) -> None:
            async with slots:
                status = await sandbox.call_back(job)
                assert status == 200, f"a callback was answered with {status}"

        while await asyncio.to_thread(sys.stdin.readline):
            async with asyncio.TaskGroup() as group:
                for job in sandbox.jobs[called:]:
                    group.create_task(call_back(job))
            called = len(sandbox.jobs)


async def ours(task: dict[str, Any]) -> None:
    """Many jobs of one client."""
    async with AF10Client(
        **task["access"],
        tls_cert=task["cert"],
        tls_key=task["key"],
        start_timeout=math.inf,
        callback_timeout=math.inf,
    ) as af10:
        starts = asyncio.Semaphore(100)

        async def one(is_waiting: Callable[[], None]) -> None:
            job = af10.backup_owner()
            async with starts:  # the time that a start may take is not spent in a queue
                await job.start()
            is_waiting()
            await job

        await wait_for_all(task, one, lambda: None)


async def bare_minimum(task: dict[str, Any]) -> None:
    """Many futures, each with a task that waits for it."""
    futures: dict[str, asyncio.Future[str]] = {}

    async def one(is_waiting: Callable[[], None]) -> None:
        key = secrets.token_urlsafe(36)
        futures[key] = asyncio.get_running_loop().create_future()
        is_waiting()
        async with asyncio.timeout(3600):
            await futures[key]
        del futures[key]

    def release() -> None:
        for future in futures.values():
            future.set_result("")

    await wait_for_all(task, one, release)


async def wait_for_all(
    task: dict[str, Any],
    one: Callable[[Callable[[], None]], Awaitable[None]],
    release: Callable[[], None],
) -> None:
    """Have many of `one` wait; measure; have them released; see that all complete."""
    traced = task["traced"]
    for is_warm_up in (True, False):  # the connections of the warm-up are not the jobs' cost
        jobs = WARM_UP if is_warm_up else task["jobs"]
        if traced and not is_warm_up:
            tracemalloc.start()
        before, started = memory(traced=traced), time.perf_counter()
        waiting = completed = 0
        all_wait = asyncio.Event()

        def is_waiting(jobs: int = jobs, all_wait: asyncio.Event = all_wait) -> None:
            nonlocal waiting
            waiting += 1
            if waiting == jobs:
                all_wait.set()

        async def run(is_waiting: Callable[[], None] = is_waiting) -> None:
            nonlocal completed
            await one(is_waiting)
            completed += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(jobs):
                group.create_task(run())
            await all_wait.wait()
            starting = time.perf_counter() - started
            each = (memory(traced=traced) - before) / jobs
            released = time.perf_counter()
            say(waiting=jobs)
            release()
        completing = time.perf_counter() - released
        after = (memory(traced=traced) - before) / jobs
    say(each=each, after=after, completed=completed, starting=starting, completing=completing)


# -- the parent --------------------------------------------------------------------------------


def run(name: str, task: dict[str, Any]) -> dict[str, Any]:
    """One run: a fresh sandbox, and a fresh process whose jobs wait for it."""
    hold_task = json.dumps({"name": "hold", "ca": task["ca"]})
    with bench.child(sys.executable, __file__, "--task", hold_task) as (sandbox, access):
        command = (sys.executable, __file__, "--task")
        full = json.dumps({**task, "name": name, "access": access})
        with subprocess.Popen([*command, full], stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            assert sandbox.stdin is not None
            found: dict[str, Any] = {}
            for line in worker.stdout:
                found = json.loads(line)
                if "waiting" in found:
                    sandbox.stdin.write("call back\n")
                    sandbox.stdin.flush()
    assert worker.returncode == 0, f"{name} ended with {worker.returncode}"
    assert found["completed"] == task["jobs"]
    return found


def measure(rounds: int, jobs: int) -> None:
    """Run both in turn, and print how they compare."""
    runs: dict[bool, dict[str, list[dict[str, Any]]]] = {}
    with tempfile.TemporaryDirectory(prefix="af10-waiting-") as folder:
        certificate = bench.Certificate.made_in(Path(folder))
        task = {
            "ca": str(certificate.ca),
            "cert": str(certificate.cert),
            "key": str(certificate.key),
            "jobs": jobs,
        }
        for traced in (False, True):
            runs[traced] = {name: [] for name in NAMES}
            for _, name in bench.interleaved(NAMES, rounds):
                runs[traced][name].append(run(name, {**task, "traced": traced}))
    rows: list[tuple[object, ...]] = []
    for what, traced in (("RSS", False), ("tracemalloc", True)):
        for when, title in (("each", "while it waits"), ("after", "when it is done")):
            sizes = [[found[when] for found in runs[traced][name]] for name in NAMES]
            factor = bench.ratio(*sizes) if when == "each" else "-"
            medians = (statistics.median(each) for each in sizes)
            rows.append((f"{what}, KiB a job {title}", factor, *medians))
    title = f"{jobs:,} jobs at once, {rounds} rounds: all of them completed"
    bench.table(title, ("ratio", *NAMES), rows)
    mine = runs[False]["ours"]
    print(
        f"ours: {statistics.median(each['starting'] for each in mine):.1f} s until all were"
        f" accepted, {statistics.median(each['completing'] for each in mine):.1f} s from the first"
        " callback to the last result"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1000, help="such as 10000")
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task is not None:
        work = {"hold": hold, "ours": ours, "bare minimum": bare_minimum}[options.task["name"]]
        asyncio.run(work(options.task))
    elif options.quick:
        measure(1, 100)
    else:
        measure(options.rounds, options.jobs)


if __name__ == "__main__":
    main()
