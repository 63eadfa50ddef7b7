"""Whole backups per second, and the CPU time of each, beside a script written by hand.

    python benchmarks/flows.py [--quick] [--rounds 5] [--flows 600] [--concurrency 64]

One flow is: POST, wait for the callback (over TLS), redeem, download 64 KiB, check, flush,
rename. The sandbox runs in a process of its own; each run is a fresh process; CPU time is that of
the client's process alone, its threads included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import bench
import handwritten

from af10_async import AF10Client

NAMES = ("ours", "by hand")


async def ours(
    access: dict[str, str], cert: str, key: str, folder: Path, flows: int, concurrency: int
) -> None:
    """The same as `handwritten.back_up`."""
    slots = asyncio.Semaphore(concurrency)
    async with AF10Client(
        base_url=access["base_url"],
        api_key=access["api_key"],
        username=access["username"],
        password=access["password"],
        tls_cert=cert,
        tls_key=key,
    ) as af10:

        async def flow() -> None:
            async with slots:
                backup = await af10.backup_owner()
                await backup.save(folder)

        async with asyncio.TaskGroup() as group:
            for _ in range(flows):
                group.create_task(flow())


def work(task: dict[str, Any]) -> None:
    """One run, in a process of its own."""
    run = {"ours": ours, "by hand": handwritten.back_up}[task["name"]]
    tls = (task["cert"], task["key"])
    with tempfile.TemporaryDirectory(prefix="af10-flows-") as name:
        # What is imported or read only once is not what a flow costs.
        asyncio.run(run(task["access"], *tls, Path(name), 1, 1))
    with tempfile.TemporaryDirectory(prefix="af10-flows-") as name:
        wall, cpu = time.perf_counter(), time.process_time()
        asyncio.run(run(task["access"], *tls, Path(name), task["flows"], task["concurrency"]))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        saved = sum(1 for each in Path(name).iterdir() if each.stat().st_size == 64 * 1024)
    assert saved == task["flows"], f"{saved} whole files instead of {task['flows']}"
    print(json.dumps({"rate": task["flows"] / wall, "cpu": cpu / task["flows"] * 1000}))


def measure(rounds: int, flows: int, concurrency: int) -> None:
    """Run both in turn, and print how they compare."""
    rate: dict[str, list[float]] = {name: [] for name in NAMES}
    cpu: dict[str, list[float]] = {name: [] for name in NAMES}
    with tempfile.TemporaryDirectory(prefix="af10-flows-") as folder:
        certificate = bench.Certificate.made_in(Path(folder))
        options = ("--job-seconds", "0", "--file-size", "64KiB")
        with bench.sandbox(certificate.ca, *options) as access:
            task = {
                "access": access,
                "cert": str(certificate.cert),
                "key": str(certificate.key),
                "flows": flows,
                "concurrency": concurrency,
            }
            for _, name in bench.interleaved(NAMES, rounds):
                found = bench.fresh_run(__file__, {**task, "name": name})
                rate[name].append(found["rate"])
                cpu[name].append(found["cpu"])
    rows = [
        (title, bench.ratio(*each.values()), *(statistics.median(each[name]) for name in NAMES))
        for title, each in (("flows per second", rate), ("CPU ms per flow", cpu))
    ]
    title = f"{flows} flows of 64 KiB, {concurrency} at a time, {rounds} rounds"
    bench.table(title, ("ratio", *NAMES), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--flows", type=int, default=600)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task is not None:
        work(options.task)
    elif options.quick:
        measure(1, 40, 16)
    else:
        measure(options.rounds, options.flows, options.concurrency)


if __name__ == "__main__":
    main()
