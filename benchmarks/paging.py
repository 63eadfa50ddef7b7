"""Reading a long list, page by page, beside a loop written by hand.

    python benchmarks/paging.py [--quick] [--rounds 5] [--rows 50000]

The rows of `GET /vehicle`, 100 a page, of a sandbox in a process of its own that takes as long to
answer as a server across a network does (`--latency`, in milliseconds, before each answer).
By hand: a `while` loop around `httpx.AsyncClient.get`, which asks for a page when the rows of the
one before have been used. Using a row costs `--row-us` microseconds of CPU, as it does when it is
written to a database, say.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from typing import Any

import bench
import httpx

from af10_async import AF10Client
from af10_async.sandbox import Fault, Sandbox

NAMES = ("af10_async", "by hand")
CREDENTIALS = ("api_key", "username", "password")


def use(row: dict[str, Any], seconds: float) -> int:
    """Work with one row."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
    return int(row["vehicle_id"])


async def ours(access: dict[str, str], seconds: float) -> int:
    total = 0
    async with AF10Client(**access) as af10:  # type: ignore[arg-type]
        async for row in af10.pages("/vehicle"):
            total += use(row, seconds)
    return total


async def by_hand(access: dict[str, str], seconds: float) -> int:
    total, number, more = 0, 0, True
    async with httpx.AsyncClient() as client:
        credentials = {key: access[key] for key in CREDENTIALS}
        answer = await client.get(f"{access['base_url']}/authenticate", params=credentials)
        session = answer.json()
        headers, url = {"token": session["token"]}, session["api_url"] + "/vehicle"
        while more:
            number += 1
            response = await client.get(url, params={"page": number}, headers=headers)
            response.raise_for_status()
            page = response.json()
            for row in page["data"]:
                total += use(row, seconds)
            more = page["nextpage"]
    return total


async def serve(rows: int, latency: float) -> None:
    """A sandbox whose lists come late, until its process is told to end."""
    async with Sandbox(vehicles=rows) as sandbox:
        if latency:
            sandbox.faults.add(Fault.slow(latency, on="vehicle", times=None))
        access = {name: getattr(sandbox, name) for name in ("base_url", *CREDENTIALS)}
        print(json.dumps(access), flush=True)
        await asyncio.get_running_loop().create_future()


def work(task: dict[str, Any]) -> None:
    """One run, in a process of its own."""
    run = by_hand if task["name"] == "by hand" else ours
    wall, cpu = time.perf_counter(), time.process_time()
    total = asyncio.run(run(task["access"], task["row_us"] / 1e6))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert total == task["rows"] * (task["rows"] + 1) // 2, "a row is missing, or came twice"
    print(json.dumps({"wall": wall, "cpu": cpu}))


def measure(rounds: int, rows: int, row_us: float, latency: float) -> None:
    """Run both in turn, and print how they compare."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
    serving = json.dumps({"rows": rows, "latency": latency / 1000})
    with bench.child(sys.executable, __file__, "--serve", serving) as (_, access):
        task = {"access": access, "rows": rows, "row_us": row_us}
        for _, name in bench.interleaved(NAMES, rounds):
            runs[name].append(bench.fresh_run(__file__, {**task, "name": name}))
    table: list[tuple[object, ...]] = []
    for title, what in (("seconds", "wall"), ("CPU seconds", "cpu")):
        found = [[run[what] for run in runs[name]] for name in NAMES]
        table.append((title, bench.ratio(*found), *map(statistics.median, found)))
    title = f"{rows:,} rows, {row_us:g} us a row, answers {latency:g} ms later, {rounds} rounds"
    bench.table(title, ("ours/by hand", *NAMES), table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--row-us", type=float, default=50.0)
    parser.add_argument("--latency", type=float, default=10.0)
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        asyncio.run(serve(**options.serve))
    elif options.task is not None:
        work(options.task)
    elif options.quick:
        measure(1, 1000, options.row_us, options.latency)
    else:
        measure(options.rounds, options.rows, options.row_us, options.latency)


if __name__ == "__main__":
    main()
