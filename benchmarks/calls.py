"""Quick calls per second beside httpx by hand, and what telling of them costs.

    python benchmarks/calls.py [--quick] [--rounds 5] [--calls 10000] [--concurrency 100]

`GET /vehicle/1` of a sandbox in a process of its own, always so many at a time. By hand: one
`httpx.AsyncClient` with the token as a header, `raise_for_status()` and `json()`, once with as many
connections kept as there are calls at a time, and once with httpx's own limits. With tracing: our
client with `OpenTelemetry` as a handler, over an SDK that records every span and exports none; with
an event handler: one that does nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import bench
import httpx

from af10_async import AF10Client

NAMES = ("af10_async", "httpx, 100", "httpx as it is", "with a handler", "with tracing")
PATH = "/vehicle/1"


async def all_of(calls: int, concurrency: int, one: Callable[[], Awaitable[object]]) -> None:
    """So many calls, by so many who make one after the other."""
    left = iter(range(calls))

    async def worker() -> None:
        for _ in left:
            await one()

    await asyncio.gather(*(worker() for _ in range(concurrency)))


async def ours(name: str, access: dict[str, Any], calls: int, concurrency: int) -> None:
    options: dict[str, Any] = {}
    if name == "with a handler":
        options["on_event"] = lambda event: None
    elif name == "with tracing":
        options["on_event"] = tracing()
    async with AF10Client(**access, **options) as af10:
        await all_of(calls, concurrency, lambda: af10.get(PATH))


def tracing() -> Any:
    from opentelemetry.sdk.trace import TracerProvider

    from af10_async.otel import OpenTelemetry

    return OpenTelemetry(tracer_provider=TracerProvider())


async def by_hand(name: str, access: dict[str, str], calls: int, concurrency: int) -> None:
    kept = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    limits = {"limits": kept} if name == "httpx, 100" else {}
    async with httpx.AsyncClient(**limits) as client:  # type: ignore[arg-type]
        credentials = {key: access[key] for key in ("api_key", "username", "password")}
        answer = await client.get(f"{access['base_url']}/authenticate", params=credentials)
        session = answer.json()
        headers, url = {"token": session["token"]}, session["api_url"] + PATH

        async def one() -> object:
            response = await client.get(url, headers=headers)
            response.raise_for_status()
            return response.json()

        await all_of(calls, concurrency, one)


def work(task: dict[str, Any]) -> None:
    """One run, in a process of its own."""
    run = by_hand if task["name"].startswith("httpx") else ours
    arguments = (task["name"], task["access"])
    asyncio.run(run(*arguments, 50, 10))  # what is imported or made only once is not counted
    wall, cpu = time.perf_counter(), time.process_time()
    asyncio.run(run(*arguments, task["calls"], task["concurrency"]))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"rate": task["calls"] / wall, "cpu": cpu / task["calls"] * 1000}))


def measure(rounds: int, calls: int, concurrency: int) -> None:
    """Run all in turn, and print how they compare."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
    with bench.sandbox(None) as access:
        task = {"access": access, "calls": calls, "concurrency": concurrency}
        for _, name in bench.interleaved(NAMES, rounds):
            runs[name].append(bench.fresh_run(__file__, {**task, "name": name}))
    ours_runs = runs["af10_async"]
    rows: list[tuple[object, ...]] = []
    for title, what in (("calls per second", "rate"), ("CPU ms per call", "cpu")):
        mine = [run[what] for run in ours_runs]
        rows.append((title, *(statistics.median(r[what] for r in runs[name]) for name in NAMES)))
        rows.append(
            ("  af10_async / it", *(bench.ratio(mine, [r[what] for r in runs[n]]) for n in NAMES))
        )
    title = f"{calls:,} quick GETs, {concurrency} at a time, {rounds} rounds"
    bench.table(title, NAMES, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task is not None:
        work(options.task)
    elif options.quick:
        measure(1, 300, 20)
    else:
        measure(options.rounds, options.calls, options.concurrency)


if __name__ == "__main__":
    main()
