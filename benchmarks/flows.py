"""Whole backups per second, and the CPU time of each: with each store, and written by hand.

    python benchmarks/flows.py [--quick] [--rounds 5] [--flows 600] [--concurrency 64]

One flow is: POST, wait for the callback (over TLS), redeem, download 64 KiB, check, flush,
rename. The sandbox runs in a process of its own; each run is a fresh process with an empty store;
CPU time is that of the client's process alone, its threads included. SQLite and the files are on a
disk; Valkey is reached over TCP on this machine, appends to a file on the same disk (`appendfsync
everysec`), and has its CPU time in a row of its own. By hand nothing is kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import bench
import handwritten

from af10_async import AF10Client

NAMES = (*bench.STORES, "by hand")
PAIRS = (("memory", "by hand"), ("sqlite", "memory"), ("valkey", "memory"))


async def ours(
    store: str,
    access: dict[str, str],
    cert: str,
    key: str,
    folder: Path,
    flows: int,
    concurrency: int,
) -> None:
    """The same as `handwritten.back_up`, over a store."""
    slots = asyncio.Semaphore(concurrency)
    async with AF10Client(
        base_url=access["base_url"],
        api_key=access["api_key"],
        username=access["username"],
        password=access["password"],
        tls_cert=cert,
        tls_key=key,
        store=store,
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
    by_hand = task["name"] == "by hand"
    run = handwritten.back_up if by_hand else partial(ours, task["store"])
    tls, folder = (task["cert"], task["key"]), task["folder"]
    with tempfile.TemporaryDirectory(prefix="flows-", dir=folder) as name:
        # What is imported or read only once is not what a flow costs.
        asyncio.run(run(task["access"], *tls, Path(name), 1, 1))
    with tempfile.TemporaryDirectory(prefix="flows-", dir=folder) as name:
        wall, cpu = time.perf_counter(), time.process_time()
        asyncio.run(run(task["access"], *tls, Path(name), task["flows"], task["concurrency"]))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        saved = sum(1 for each in Path(name).iterdir() if each.stat().st_size == 64 * 1024)
    assert saved == task["flows"], f"{saved} whole files instead of {task['flows']}"
    print(json.dumps({"rate": task["flows"] / wall, "cpu": cpu / task["flows"] * 1000}))


def run_over(name: str, folder: Path, task: dict[str, Any]) -> dict[str, float]:
    """One run over an empty store."""
    with bench.empty_store(name, folder) as place:
        before = place.cpu()
        found: dict[str, float] = bench.fresh_run(
            __file__, {**task, "name": name, "store": place.url, "folder": str(folder)}
        )
        found["server"] = (place.cpu() - before) / task["flows"] * 1000
    return found


def measure(rounds: int, flows: int, concurrency: int) -> None:
    """Run all in turn, and print how they compare."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
    with bench.disk_folder() as folder:
        certificate = bench.Certificate.made_in(folder)
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
                runs[name].append(run_over(name, folder, task))
    columns = (*(f"{ours}/{theirs}" for ours, theirs in PAIRS), *NAMES)
    rows: list[tuple[object, ...]] = []
    for title, what in (
        ("flows per second", "rate"),
        ("CPU ms per flow", "cpu"),
        ("CPU ms of its server", "server"),
    ):
        found = {name: [run[what] for run in runs[name]] for name in NAMES}
        ratios: list[object] = ["-"] * len(PAIRS)
        if what != "server":
            ratios = [bench.ratio(found[ours], found[theirs]) for ours, theirs in PAIRS]
        rows.append((title, *ratios, *(statistics.median(each) for each in found.values())))
    title = f"{flows} flows of 64 KiB, {concurrency} at a time, {rounds} rounds"
    bench.table(title, columns, rows)


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
