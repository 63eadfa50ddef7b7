"""Callbacks per second with 100,000 jobs waiting, beside an aiohttp handler that does nothing.

    python benchmarks/receiver.py [--quick] [--rounds 5] [--jobs 100000] [--callbacks 20000]
                                  [--seconds 3] [--connections 32] [--profile FILE]

The receiver runs in a process of its own, with the memory store: each job is registered, claimed,
and awaited by a task. The callbacks come over kept connections from another process, each for
another job: from wrk for some seconds, if it is there (Debian: `apt install wrk`), else so many
from a generator in Python, which may itself be slower than the handler. That is a `web.Application`
with one route, which returns `web.Response()`. With `--profile`, there is one run more, whose
receiver writes what cProfile saw.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import bench
import psutil  # type: ignore[import-untyped]
from aiohttp import web

from af10_async import CallbackServer
from af10_async.protocol.keys import RANDOM_BYTES, make_key
from af10_async.protocol.lifecycle import JobRecord
from af10_async.stores import MemoryStore, Store

NAMES = ("af10_async", "bare aiohttp")
ID = "0ca11bac-0000-4000-8000-00000000000a"
PUBLIC_URL = "https://hooks.example.com"


def key_of(number: int) -> str:
    return make_key(number.to_bytes(RANDOM_BYTES), bench.CALLBACK_SECRET.encode())


# -- the receivers -----------------------------------------------------------------------------


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def ours(jobs: int, profile: str | None) -> None:
    """A receiver for which so many jobs wait."""
    seen = cProfile.Profile()
    store = MemoryStore()
    async with CallbackServer(
        store=store, callback_secret=bench.CALLBACK_SECRET, public_url=PUBLIC_URL
    ) as server:
        waiting = [asyncio.create_task(wait(server, store, key_of(n))) for n in range(jobs)]
        await asyncio.sleep(0.1)  # all of them have come to where they wait
        say(port=server.port)
        if profile:
            seen.enable()
        await told_to_end()
        if profile:
            seen.disable()
            seen.dump_stats(profile)
        done = sum(task.done() for task in waiting)
        say(done=done)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def wait(server: CallbackServer, store: Store, key: str) -> None:
    await store.add(JobRecord(key, "an account", "POST", "/backup/owner", True, 0.0, 1e12))
    server.claim(key, is_claimed)
    await store.changed(key, 0)
    server.unclaim(key, is_claimed)


def is_claimed(record: JobRecord) -> bool:
    return True


async def bare() -> None:
    """A handler that does nothing."""

    async def nothing(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/af10/{key}", nothing)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    say(port=runner.addresses[0][1])
    await told_to_end()
    say(done=0)
    await runner.cleanup()


async def told_to_end() -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    loop.add_reader(sys.stdin, told.set)
    await told.wait()
    loop.remove_reader(sys.stdin)


def receive(task: dict[str, Any]) -> None:
    """One receiver, in a process of its own."""
    is_ours = task["receive"] == NAMES[0]
    asyncio.run(ours(task["jobs"], task["profile"]) if is_ours else bare())


# -- the callers -------------------------------------------------------------------------------


class Line:
    """A kept connection that sends one request after the other."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._got = b""

    def send(self, request: bytes) -> None:
        self.socket.sendall(request)

    def answer(self) -> str | None:
        """The status, once the whole answer is here."""
        part = self.socket.recv(65536)
        assert part, "a kept connection was ended"
        self._got += part
        head, end, body = self._got.partition(b"\r\n\r\n")
        if not end or len(body) < length_in(head):
            return None
        self._got = b""
        return head[9:12].decode()


def length_in(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0] or 0)


def load(task: dict[str, Any]) -> None:
    """Send all requests, so many at a time, in a process of its own."""
    requests = [request_of(number) for number in range(task["callbacks"])]
    left = iter(requests)
    statuses: Counter[str] = Counter()
    started = time.perf_counter()
    with selectors.DefaultSelector() as selector, ExitStack() as stack:
        for _ in range(task["connections"]):
            line = Line(task["port"])
            stack.enter_context(line.socket)
            selector.register(line.socket, selectors.EVENT_READ, line)
            send_next(line, left)
        while statuses.total() < len(requests):
            for key, _ in selector.select():
                if status := key.data.answer():
                    statuses[status] += 1
                    send_next(key.data, left)
    say(seconds=time.perf_counter() - started, statuses=statuses)


def send_next(line: Line, left: Iterator[bytes]) -> None:
    if request := next(left, None):
        line.send(request)


def request_of(number: int) -> bytes:
    return (
        f"GET /af10/{key_of(number)}?id={ID} HTTP/1.1\r\nHost: hooks.example.com\r\n\r\n".encode()
    )


WRK = """
local targets, last = {}, 0
for line in io.lines(os.getenv("TARGETS")) do
  targets[#targets + 1] = wrk.format("GET", line, {["Host"] = "hooks.example.com"})
end
function request()
  last = last % #targets + 1
  return targets[last]
end
function done(summary)
  local errors = summary.errors
  local bad = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format('{"requests": %d, "seconds": %f, "bad": %d}\\n',
    summary.requests, summary.duration / 1e6, bad))
end
"""


def by_wrk(options: argparse.Namespace, port: int) -> dict[str, Any]:
    """The same by wrk, each connection in turn sending what is next."""
    with tempfile.TemporaryDirectory(prefix="af10-bench-") as name:
        script, targets = Path(name, "keys.lua"), Path(name, "targets")
        script.write_text(WRK)
        lines = (f"/af10/{key_of(number)}?id={ID}\n" for number in range(options.jobs))
        targets.write_text("".join(lines))
        how = ("-t1", f"-c{options.connections}", f"-d{options.seconds}s", "-s", str(script))
        done = subprocess.run(
            ["wrk", *how, f"http://127.0.0.1:{port}"],
            stdout=subprocess.PIPE,
            check=True,
            env={**os.environ, "TARGETS": str(targets)},
        )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["bad"] == 0, found
    assert found["requests"] <= options.jobs, "more callbacks than jobs: give more --jobs"
    return {"seconds": found["seconds"], "statuses": {"200": found["requests"]}}


def by_python(options: argparse.Namespace, port: int) -> dict[str, Any]:
    sizes = {"callbacks": options.callbacks, "connections": options.connections}
    return bench.fresh_run(__file__, {"load": True, "port": port, **sizes})


# -- beside each other -------------------------------------------------------------------------


LOADS = {"wrk": by_wrk, "python": by_python}


def run(name: str, options: argparse.Namespace, profile: Path | None = None) -> dict[str, float]:
    """One receiver and its callers: requests per second, and CPU time for each."""
    task = {
        "receive": name,
        "jobs": options.jobs,
        "profile": str(profile.resolve()) if profile else None,
    }
    with bench.child(sys.executable, __file__, "--task", json.dumps(task)) as (process, access):
        server = psutil.Process(process.pid)
        before = bench.cpu_of(server)
        found = LOADS[options.load](options, access["port"])
        cpu = bench.cpu_of(server) - before
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        ended = json.loads(process.stdout.readline())
        process.wait(timeout=60)
        process.stdin = None  # nothing more to be said to it
    count = found["statuses"].pop("200")
    assert not found["statuses"], found["statuses"]
    # wrk does not wait for the last answers.
    assert 0 <= ended["done"] - count <= options.connections or name != NAMES[0], ended
    return {"rate": count / found["seconds"], "cpu": cpu / count * 1e6}


def measure(options: argparse.Namespace) -> None:
    """Run both in turn, and print how they compare."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
    for _, name in bench.interleaved(NAMES, options.rounds):
        runs[name].append(run(name, options))
    mine, theirs = ([each["rate"] for each in runs[name]] for name in NAMES)
    print(f"af10_async / bare aiohttp: {bench.ratio(mine, theirs):.2f}")
    rows = [
        (title, *(statistics.median(each[what] for each in runs[name]) for name in NAMES))
        for title, what in (("requests per second", "rate"), ("CPU µs per request", "cpu"))
    ]
    bench.table(
        f"callbacks by {options.load} over {options.connections} kept connections,"
        f" {options.jobs:,} jobs waiting, {options.rounds} rounds",
        NAMES,
        rows,
    )
    if options.profile:
        run(NAMES[0], options, options.profile)
        print(f"\npython -m pstats {options.profile}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--callbacks", type=int, default=20_000)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--load", choices=LOADS, default="wrk" if shutil.which("wrk") else "python")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--profile", type=Path, help="where a profile of the receiver goes")
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task is not None:
        (load if "load" in options.task else receive)(options.task)
        return
    if options.quick:
        options.load = "python"
        options.rounds, options.jobs, options.callbacks = 1, 1000, 500
    measure(options)


if __name__ == "__main__":
    main()
