"""A backup of each of 500 accounts: how long beside the ideal, with how much memory and sockets.

    python benchmarks/fleet.py [--quick] [--rounds 3] [--accounts 500] [--job-seconds 1]
        [--concurrency 16 100 500]

A sandbox with so many accounts runs in a process of its own; each job calls back over TLS after so
many seconds, and its file of 64 KiB is saved. Ideal: the accounts go in rows of `concurrency`, and
a row takes as long as one job. Of the process with the fleet: memory over what it has once
everything is imported, the most sockets that were open at a time, and CPU time, both at the moment
when all clients are made and at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import bench
import psutil  # type: ignore[import-untyped]

from af10_async import Fleet
from af10_async.accounts import Account
from af10_async.sandbox import Account as SandboxAccount
from af10_async.sandbox import Sandbox

COLUMNS = (
    "seconds/ideal",
    "seconds",
    "ideal",
    "CPU ms each",
    "MiB",
    "KiB each",
    "enter ms each",
    "sockets",
)


async def serve(accounts: int, job_seconds: float, ca: str) -> None:
    """A sandbox, until its process is told to end."""
    known = [SandboxAccount() for _ in range(accounts)]
    async with Sandbox(accounts=known, job_seconds=job_seconds, callback_ca=ca) as sandbox:
        found = [[each.api_key, each.username, each.password] for each in known]
        print(json.dumps({"base_url": sandbox.base_url, "accounts": found}), flush=True)
        await asyncio.get_running_loop().create_future()


def memory() -> int:
    return int(psutil.Process().memory_info().rss)


async def count_sockets(most: list[int]) -> None:
    process = psutil.Process()
    while True:
        most[0] = max(most[0], len(process.net_connections(kind="inet")))
        await asyncio.sleep(0.25)


async def run(task: dict[str, Any], folder: str) -> dict[str, float]:
    names = ("api_key", "username", "password")
    accounts = [
        Account(
            f"dealer-{number}", base_url=task["base_url"], **dict(zip(names, each, strict=True))
        )
        for number, each in enumerate(task["accounts"], start=1)
    ]
    before, cpu, started = memory(), time.process_time(), time.perf_counter()
    async with Fleet(
        accounts, tls_cert=task["cert"], tls_key=task["key"], max_requests=task["concurrency"]
    ) as fleet:
        entered, entering = memory(), time.perf_counter() - started
        most = [0]
        counting = asyncio.create_task(count_sockets(most))
        started, saved = time.perf_counter(), 0
        backups = fleet.backup_owner(save_to=folder, concurrency=task["concurrency"])
        async for outcome in backups:
            saved += outcome.ok
        seconds = time.perf_counter() - started
        counting.cancel()
        after = memory()
    assert saved == len(accounts), f"{saved} of {len(accounts)} were saved"
    return {
        "seconds": seconds,
        "cpu": (time.process_time() - cpu) / saved * 1000,
        "memory": (after - before) / 2**20,
        "each": (entered - before) / saved / 1024,
        "entering": entering / saved * 1000,
        "sockets": most[0],
    }


def work(task: dict[str, Any]) -> None:
    """One run, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="fleet-", dir=task["folder"]) as folder:
        # What is imported or read only once is not what an account costs.
        asyncio.run(run({**task, "accounts": task["accounts"][:1]}, folder))
    with tempfile.TemporaryDirectory(prefix="fleet-", dir=task["folder"]) as folder:
        print(json.dumps(asyncio.run(run(task, folder))))


def measure(rounds: int, accounts: int, job_seconds: float, many: Sequence[int]) -> None:
    """Run each in turn, and print how far it is from the ideal."""
    runs: dict[int, list[dict[str, float]]] = {each: [] for each in many}
    with bench.disk_folder() as folder:
        certificate = bench.Certificate.made_in(folder)
        serving = {"accounts": accounts, "job_seconds": job_seconds, "ca": str(certificate.ca)}
        command = (sys.executable, __file__, "--serve", json.dumps(serving))
        with bench.child(*command) as (_, access):
            tls = {"cert": str(certificate.cert), "key": str(certificate.key)}
            task = {**access, **tls, "folder": str(folder)}
            for _, name in bench.interleaved([str(each) for each in many], rounds):
                found = bench.fresh_run(__file__, {**task, "concurrency": int(name)})
                runs[int(name)].append(found)
    rows: list[tuple[object, ...]] = []
    for each in many:
        ideal = math.ceil(accounts / each) * job_seconds
        middle = {
            what: statistics.median(run[what] for run in runs[each]) for what in runs[each][0]
        }
        first = (f"{each} at a time", middle["seconds"] / ideal, middle["seconds"], ideal)
        last = (middle[what] for what in ("cpu", "memory", "each", "entering", "sockets"))
        rows.append((*first, *last))
    bench.table(f"{accounts} accounts, jobs of {job_seconds:g} s, {rounds} rounds", COLUMNS, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--accounts", type=int, default=500)
    parser.add_argument("--job-seconds", type=float, default=1.0)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[16, 100, 500])
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        asyncio.run(serve(**options.serve))
    elif options.task is not None:
        work(options.task)
    elif options.quick:
        measure(1, 20, 0.1, [5, 20])
    else:
        measure(options.rounds, options.accounts, options.job_seconds, options.concurrency)


if __name__ == "__main__":
    main()
