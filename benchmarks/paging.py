"""Reading a long list, page by page, beside a loop written by hand.

    python benchmarks/paging.py [--quick] [--rounds 5] [--rows 50000]

The rows of `GET /vehicle`, 100 a page, of a server in a process of its own that has its answers
ready and takes as long as one across a network does (`--latency`, in milliseconds, for each).
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
from aiohttp import web

from af10_async import AF10Client
from af10_async.sandbox.vehicles import make_vehicles

NAMES = ("af10_async", "by hand")
CREDENTIALS = ("api_key", "username", "password")
ROWS = 100
"""On a page."""


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
    """An AF10 whose lists are ready and come late, until its process is told to end."""
    vehicles = make_vehicles(rows)
    pages = [
        json.dumps({"data": vehicles[start : start + ROWS], "nextpage": start + ROWS < rows})
        for start in range(0, rows, ROWS)
    ]

    async def authenticate(_: web.Request) -> web.Response:
        return web.json_response({"token": "t", "api_url": base_url})

    async def vehicle(request: web.Request) -> web.Response:
        if latency:
            await asyncio.sleep(latency)
        number = int(request.query["page"])
        return web.Response(text=pages[number - 1], content_type="application/json")

    app = web.Application()
    app.add_routes([web.get("/authenticate", authenticate), web.get("/vehicle", vehicle)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    print(json.dumps({"base_url": base_url, **dict.fromkeys(CREDENTIALS, "x")}), flush=True)
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
