"""From a callback to the task that waits for it: in the same process, and in another one.

    python benchmarks/wakeup.py [--quick] [--rounds 3] [--callbacks 100]

The clock starts right before the driver, a process of its own, writes the callback's bytes to a
connection that is open already (over TLS: what AF10's network and a handshake take is not ours). It
stops in the first line that runs in the task that waits in `Store.changed`, which is what a job
waits in; to redeem and to download come after that. So this is: TLS, reading the request, writing
the record to the store, hearing of the change, looking at the record, and a turn of both event
loops. All processes share one clock (CLOCK_MONOTONIC).

Callbacks come one at a time, at odd moments, so that each finds SQLite's watch (a look every
20 ms) at another point. All jobs of a round wait from its beginning.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import ssl
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bench

from af10_async import CallbackServer
from af10_async.protocol.lifecycle import JobRecord, JobState
from af10_async.stores import Store, open_store


@dataclass(frozen=True, slots=True)
class Way:
    """From where to where."""

    store: str
    is_elsewhere: bool
    aim: float
    """Milliseconds that 99 of 100 may take."""


WAYS = {
    "same process, memory": Way("memory", False, 2),
    "same process, SQLite": Way("sqlite", False, 2),
    "same process, Valkey": Way("valkey", False, 2),
    "other process, SQLite": Way("sqlite", True, 60),
    "other process, Valkey": Way("valkey", True, 5),
}


# -- in a process of their own -----------------------------------------------------------------


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def wait_for(store: Store, key: str) -> None:
    """What a job that waits does, and the time at which it goes on."""
    now = time.time()
    record = JobRecord(
        *(key, "1" * 32, "POST", "/backup/owner", True, now, now + 3600),
        state=JobState.ACCEPTED,
        start_certain=True,
        version=1,
    )
    await store.add(record)
    changed = await store.changed(key, record.version)
    at = time.monotonic_ns()
    assert changed is not None
    assert changed.state is JobState.CALLED_BACK
    say(key=key, at=at, secrets=changed.secrets)


async def work(task: dict[str, Any]) -> None:
    """Receive callbacks, or wait for them, or both, until stdin ends."""
    store = open_store(task["store"])
    server = CallbackServer(
        store=store,
        callback_secret=bench.CALLBACK_SECRET,
        tls_cert=task["cert"],
        tls_key=task["key"],
    )
    await (server.__aenter__() if task["receives"] else store.open())
    url = server.public_url if task["receives"] else None
    waiters = [asyncio.create_task(wait_for(store, key)) for key in task["keys"]]
    say(url=url)
    await asyncio.to_thread(sys.stdin.read)
    assert all(waiter.done() for waiter in waiters)
    await asyncio.gather(*waiters)
    await (server.__aexit__(None, None, None) if task["receives"] else store.close())


# -- the parent --------------------------------------------------------------------------------


class Driver:
    """Makes callbacks over one connection, as plainly as can be."""

    def __init__(self, url: str, ca: Path) -> None:
        context = ssl.create_default_context(cafile=ca)
        host, port = urlsplit(url).hostname, urlsplit(url).port
        assert host is not None
        plain = socket.create_connection((host, port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = context.wrap_socket(plain, server_hostname=host)

    def call(self, key: str, secret: str) -> int:
        """Send one; the time right before that."""
        request = f"GET /af10/{key}?id={secret} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        at = time.monotonic_ns()
        self._socket.sendall(request)
        answer = self._socket.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        return at

    def close(self) -> None:
        self._socket.close()


def run(way: Way, folder: Path, certificate: bench.Certificate, callbacks: int) -> list[float]:
    """The milliseconds of each callback."""
    keys = [bench.new_key() for _ in range(callbacks)]
    with ExitStack() as stack:
        place = stack.enter_context(bench.empty_store(way.store, folder))
        task: dict[str, Any] = {
            "store": place.url,
            "cert": str(certificate.cert),
            "key": str(certificate.key),
        }

        def start(**more: Any) -> tuple[subprocess.Popen[str], dict[str, Any]]:
            command = (sys.executable, __file__, "--task", json.dumps({**task, **more}))
            return stack.enter_context(bench.child(*command))

        receiver, found = start(receives=True, keys=[] if way.is_elsewhere else keys)
        waiter = start(receives=False, keys=keys)[0] if way.is_elsewhere else receiver
        driver = Driver(found["url"], certificate.ca)
        stack.callback(driver.close)
        time.sleep(1)  # until all wait
        assert waiter.stdout is not None
        times = []
        for number, key in enumerate(keys):
            time.sleep(random.uniform(0.03, 0.07))
            sent = driver.call(key, f"secret-{number}")
            woken = json.loads(waiter.stdout.readline())
            assert (woken["key"], woken["secrets"]) == (key, [f"secret-{number}"])
            times.append((woken["at"] - sent) / 1e6)
        for process in {receiver, waiter}:
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None
            assert process.wait(timeout=30) == 0
    return times


def measure(rounds: int, callbacks: int) -> None:
    """Go all ways in turn, and print how long each takes."""
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    with bench.disk_folder() as folder:
        certificate = bench.Certificate.made_in(folder)
        for _, name in bench.interleaved(tuple(WAYS), rounds):
            times[name] += run(WAYS[name], folder, certificate, callbacks)
    rows = []
    for name, found in times.items():
        cuts = statistics.quantiles(found, n=100, method="inclusive")
        aim = WAYS[name].aim
        rows.append((name, cuts[98] / aim, aim, cuts[49], cuts[98], max(found)))
    title = f"ms from callback to waiter, {rounds * callbacks} callbacks each, {rounds} rounds"
    bench.table(title, ("p99/aim", "aim", "p50", "p99", "longest"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--callbacks", type=int, default=100, help="of each round")
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task is not None:
        asyncio.run(work(options.task))
    elif options.quick:
        measure(1, 20)
    else:
        measure(options.rounds, options.callbacks)


if __name__ == "__main__":
    main()
