"""Four receivers behind a real haproxy, two workers, one store: is every job done, and done once?

    python benchmarks/replicas.py [--quick] [--jobs 10000] [--stores valkey sqlite]
        [--receivers 4] [--workers 2] [--concurrency 200] [--rounds 1]

haproxy (it must be installed) takes the callbacks over TLS and spreads them over the receivers,
which are `af10 receive` with plain HTTP. The workers post the jobs, wait for them by way of the
store alone, redeem, and save files of 1 KiB. The sandbox runs in this process, which looks over
everything at the end: each job was posted once, each file is there once and whole, each receiver
had its share of the callbacks, and each record says that the job is finished. All of them share
this machine's cores; CPU time is that of each kind of process, per job.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import hashlib
import json
import shutil
import socket
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench
import psutil  # type: ignore[import-untyped]

from af10_async import AF10Client
from af10_async.protocol.lifecycle import JobState
from af10_async.sandbox import Sandbox
from af10_async.stores import open_store

FILE_SIZE = 1024
HAPROXY = """
global
    maxconn 4096
    stats socket {folder}/stats mode 600
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend callbacks
    bind 127.0.0.1:{port} ssl crt {folder}/both.pem
    default_backend receivers
backend receivers
    balance roundrobin
"""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    jobs: int
    receivers: int
    workers: int
    concurrency: int
    """Of each worker."""


# -- a worker, in a process of its own ---------------------------------------------------------


async def work(task: dict[str, Any]) -> None:
    """Run so many jobs whose callbacks others receive."""
    folder = Path(task["folder"])
    async with AF10Client(
        **task["access"],
        store=task["store"],
        public_url=task["public_url"],
        callback_secret=bench.CALLBACK_SECRET,
        callback_timeout=bench.DEADLINE,
    ) as af10:
        await af10.authenticate()
        print(json.dumps({"is_ready": True}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        left = iter(range(task["jobs"]))

        async def some() -> None:
            for _ in left:
                backup = await af10.backup_owner()
                await backup.save(folder)

        async with asyncio.TaskGroup() as group:
            for _ in range(task["concurrency"]):
                group.create_task(some())
        print(json.dumps({"is_done": True}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)


# -- around it ---------------------------------------------------------------------------------


@contextmanager
def haproxy(
    folder: Path, certificate: bench.Certificate, port: int, behind: Sequence[int]
) -> Iterator[psutil.Process]:
    """haproxy on `port`, in front of the ports `behind`."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        raise SystemExit("haproxy is not installed")
    both = certificate.cert.read_text() + certificate.key.read_text()
    (folder / "both.pem").write_text(both)
    servers = "".join(f"    server r{each} 127.0.0.1:{each}\n" for each in behind)
    config = folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(folder=folder, port=port) + servers)
    with bench.listening(port, program, "-db", "-q", "-f", str(config)) as process:
        yield process


def shares(folder: Path) -> list[int]:
    """How many callbacks each receiver has answered with 200, as haproxy counts."""
    with socket.socket(socket.AF_UNIX) as talk:
        talk.connect(str(folder / "stats"))
        talk.sendall(b"show stat\n")
        text = b"".join(iter(lambda: talk.recv(65536), b"")).decode().removeprefix("# ")
    rows = csv.DictReader(text.splitlines())
    mine = (row for row in rows if row["pxname"] == "receivers" and row["svname"] != "BACKEND")
    return [int(row["hrsp_2xx"]) for row in mine]


@contextmanager
def receiver(port: int, store: str, public_url: str) -> Iterator[psutil.Process]:
    """`af10 receive`."""
    env = {
        "AF10_STORE": store,
        "AF10_PUBLIC_URL": public_url,
        "AF10_CALLBACK_SECRET": bench.CALLBACK_SECRET,
        "AF10_LISTEN_PORT": str(port),
    }
    command = (sys.executable, "-m", "af10_async", "receive", "--json")
    with bench.listening(port, *command, env=env) as process:
        yield process


class Setup:
    """Everything that runs, but the sandbox."""

    def __init__(
        self, stack: ExitStack, kind: str, size: Size, folder: Path, access: dict[str, str]
    ) -> None:
        certificate = bench.Certificate.made_in(folder)
        self.size = size
        self.folder = folder
        self.place = stack.enter_context(bench.empty_store(kind, folder))
        self.empty = self.place.size()
        port = bench.free_port()
        public_url = f"https://127.0.0.1:{port}"
        ports = [bench.free_port() for _ in range(size.receivers)]
        self.receivers = [
            stack.enter_context(receiver(each, self.place.url, public_url)) for each in ports
        ]
        self.haproxy = stack.enter_context(haproxy(folder, certificate, port, ports))
        self.workers = []
        self.folders = []
        for number in range(size.workers):
            self.folders.append(folder / f"worker-{number}")
            self.folders[-1].mkdir()
            task = {
                "access": access,
                "store": self.place.url,
                "public_url": public_url,
                "folder": str(self.folders[-1]),
                "jobs": len(range(number, size.jobs, size.workers)),
                "concurrency": size.concurrency,
            }
            command = (sys.executable, __file__, "--task", json.dumps(task))
            self.workers.append(stack.enter_context(bench.child(*command))[0])

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far of each kind of process."""
        workers = [psutil.Process(worker.pid) for worker in self.workers]
        return {
            "workers": sum(map(bench.cpu_of, workers)),
            "receivers": sum(map(bench.cpu_of, self.receivers)),
            "haproxy": bench.cpu_of(self.haproxy),
            "store's server": self.place.cpu(),
            "sandbox": time.process_time(),
        }

    async def work(self) -> dict[str, float]:
        """Have all jobs done; what it took."""
        before, started = self.cpu(), time.perf_counter()
        self._tell_all()
        for worker in self.workers:
            assert worker.stdout is not None
            line = await asyncio.to_thread(worker.stdout.readline)
            assert line, "a worker has failed"
        wall, after = time.perf_counter() - started, self.cpu()
        self._tell_all()
        for worker in self.workers:
            assert await asyncio.to_thread(worker.wait, 60) == 0, "a worker has failed"
        jobs = self.size.jobs
        spent = {f"{kind}, CPU ms": (after[kind] - before[kind]) / jobs * 1000 for kind in after}
        return {"jobs per second": jobs / wall, **spent}

    def _tell_all(self) -> None:
        for worker in self.workers:
            assert worker.stdin is not None
            worker.stdin.write("go on\n")
            worker.stdin.flush()


async def run(kind: str, folder: Path, size: Size) -> dict[str, float]:
    """One run, looked over."""
    folder.mkdir()
    ca = folder / "ca.pem"
    ca.touch()  # there before the certificate is made, and read only at the first callback
    async with Sandbox(file_size=FILE_SIZE, callback_ca=ca) as sandbox:
        access = {
            "base_url": sandbox.base_url,
            "api_key": sandbox.api_key,
            "username": sandbox.username,
            "password": sandbox.password,
        }
        with ExitStack() as stack:
            # In a thread: the workers log in at the sandbox while they start.
            setup = await asyncio.to_thread(Setup, stack, kind, size, folder, access)
            found = await setup.work()
            await sandbox.settled()
            await check(sandbox, setup)
            found["store, KiB"] = (setup.place.size() - setup.empty) / size.jobs / 1024
    return found


async def check(sandbox: Sandbox, setup: Setup) -> None:
    """Everything is there, once."""
    size = setup.size
    posts = sandbox.count("POST", "/backup/owner")
    assert posts == len(sandbox.jobs) == size.jobs, f"{posts} POSTs for {size.jobs} jobs"
    statuses = Counter(each.status for job in sandbox.jobs for each in job.callbacks)
    assert statuses == {200: size.jobs}, f"callbacks were answered with {statuses}"
    files = [file for each in setup.folders for file in each.iterdir()]
    found = Counter(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    wanted = Counter(sandbox.archive_sha256(job) for job in sandbox.jobs)
    assert found == wanted, f"{len(files)} files, of which {(found & wanted).total()} are right"
    assert len(wanted) == size.jobs
    answered = shares(setup.folder)
    assert len(answered) == size.receivers
    assert sum(answered) == size.jobs, f"receivers answered {answered}"
    assert min(answered) > size.jobs / size.receivers / 2, f"receivers answered {answered}"
    store = open_store(setup.place.url)
    await store.open()
    try:
        records = [record async for record in store.records()]
    finally:
        await store.close()
    assert len({record.key for record in records}) == len(records) == size.jobs
    left = [each for each in records if each.is_unfinished or each.state is not JobState.READY]
    assert not left, f"{len(left)} records are not finished"


def measure(stores: Sequence[str], rounds: int, size: Size) -> None:
    """Run over the stores in turn, and print what each took."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in stores}
    with bench.disk_folder() as folder:
        for number, name in bench.interleaved(stores, rounds):
            runs[name].append(asyncio.run(run(name, folder / f"{name}-{number}", size)))
    rows: list[tuple[object, ...]] = []
    for what in runs[stores[0]][0]:
        found = [[each[what] for each in runs[name]] for name in stores]
        has_ratio = len(stores) > 1 and min(map(min, found)) > 0
        ratio = bench.ratio(found[1], found[0]) if has_ratio else "-"
        rows.append((what, ratio, *(statistics.median(each) for each in found)))
    title = (
        f"{size.jobs:,} jobs, {size.workers} workers with {size.concurrency} at a time,"
        f" {size.receivers} receivers, {rounds} rounds: each job was done once; CPU and KiB per job"
    )
    bench.table(title, (f"{stores[1]}/{stores[0]}" if len(stores) > 1 else "-", *stores), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--stores", nargs="+", choices=("valkey", "sqlite"))
    parser.add_argument("--receivers", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--concurrency", type=int, default=200, help="jobs at once of each worker")
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task is not None:
        asyncio.run(work(options.task))
        return
    jobs = 200 if options.quick else options.jobs
    size = Size(jobs, options.receivers, options.workers, options.concurrency)
    rounds = 1 if options.quick else options.rounds
    measure(options.stores or ("valkey", "sqlite"), rounds, size)


if __name__ == "__main__":
    main()
