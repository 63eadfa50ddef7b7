"""What the benchmarks of downloads share: nginx, a file of random bytes, and children that are all
measured alike (Linux only: the peak of a process's memory is read from /proc).
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench

MIB = 1024 * 1024
GIB = 1024 * MIB
FILE = "file.bin"
WARM_UP = "warm-up.bin"
"""A small file, for what is imported or read only once."""
PROGRAMS = ("curl", "wget", "aria2c")
TRANSFERS = str(Path(__file__).with_name("transfers.py"))
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
}
"""The server is on this machine: no proxy is to be in between."""

NGINX = """
daemon off;
worker_processes 1;
user {user} {group};
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{http};
        listen 127.0.0.1:{https} ssl;
        ssl_certificate {certificate.cert};
        ssl_certificate_key {certificate.key};
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{ root {files}; }}
        location = /{warm_up} {{ root {files}; keepalive_timeout 0; }}
        location /capped/ {{ alias {files}/; limit_rate {rate}; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Source:
    """What nginx serves."""

    size: int
    sha256: str
    plain: str
    tls: str
    ca: Path

    def url(self, scheme: str, path: str = FILE) -> str:
        """The address of a file, `plain` or by `tls`; `capped/...` when each connection is slow."""
        return f"{self.tls if scheme == 'tls' else self.plain}/{path}"


@contextmanager
def served(folder: Path, size: int, *, rate: int = MIB, sparse: bool = False) -> Iterator[Source]:
    """nginx with one worker and a file of so many random bytes (or holes) in this folder.

    Under `capped/` each connection gets `rate` bytes per second.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise SystemExit("nginx is not installed")
    folder = folder.resolve()  # nginx takes names as relative to its own folder
    files = folder / "files"
    files.mkdir()
    sha256 = _make_file(files / FILE, size, sparse=sparse)
    _make_file(files / WARM_UP, 64 * 1024)
    certificate = bench.Certificate.made_in(folder)
    http, https = bench.free_port(), bench.free_port()
    config = folder / "nginx.conf"
    config.write_text(
        NGINX.format(
            user=pwd.getpwuid(os.getuid()).pw_name,
            group=grp.getgrgid(os.getgid()).gr_name,
            folder=folder,
            files=files,
            certificate=certificate,
            http=http,
            https=https,
            warm_up=WARM_UP,
            rate=rate,
        )
    )
    with bench.listening(https, program, "-p", str(folder), "-c", str(config), "-e", "stderr"):
        plain, tls = f"http://127.0.0.1:{http}", f"https://127.0.0.1:{https}"
        yield Source(size, sha256, plain, tls, certificate.ca)


def _make_file(path: Path, size: int, *, sparse: bool = False) -> str:
    """Its SHA-256; nothing when it is but one hole, which takes long to read."""
    with path.open("wb") as file:
        if sparse:
            file.truncate(size)
            return ""
        for start in range(0, size, MIB):
            file.write(os.urandom(min(MIB, size - start)))
    return sha256_of(path)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- children ----------------------------------------------------------------------------------


def program_run(*commands: Sequence[str]) -> dict[str, float]:
    """Run programs one after the other: seconds, CPU seconds, and the peak of memory in MiB."""
    runs = [_one_program(command) for command in commands]
    return {
        "seconds": sum(run["seconds"] for run in runs),
        "cpu": sum(run["cpu"] for run in runs),
        "peak": max(run["peak"] for run in runs),
    }


def _one_program(command: Sequence[str]) -> dict[str, float]:
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    with _Watch(process) as watch:
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode} of {' '.join(command)}")
    return {"seconds": seconds, "cpu": usage.ru_utime + usage.ru_stime, "peak": watch.peak}


class _Watch(threading.Thread):
    """Looks at a process's peak of memory until it ends, and ends it when it hangs.

    The `ru_maxrss` of a child is no use: it counts what its parent had when it was started.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__()
        self._process = process
        self._is_over = threading.Event()
        self.peak = 0.0

    def __enter__(self) -> _Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()

    def run(self) -> None:
        status = Path(f"/proc/{self._process.pid}/status")
        until = time.monotonic() + bench.DEADLINE
        while not self._is_over.wait(0.02):
            with suppress(OSError):  # it has ended
                if found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text()):
                    self.peak = max(self.peak, int(found[1]) / 1024)
            if time.monotonic() > until:
                self._process.kill()


def transfer(
    peer: str, url: str, target: Path, source: Source, **options: object
) -> dict[str, float]:
    """Fetch a file with Python in an interpreter of its own, which measures itself."""
    task = {
        "peer": peer,
        "url": url,
        "warm_up": f"{url.partition('://')[0]}://{url.split('/')[2]}/{WARM_UP}",
        "target": str(target),
        "ca": str(source.ca),
        **options,
    }
    done = subprocess.run(
        [sys.executable, TRANSFERS, "--task", json.dumps(task)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=bench.DEADLINE,
        env=ENVIRONMENT,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def curl(url: str, target: Path, source: Source) -> list[str]:
    return ["curl", "-q", "-sS", "--fail", "--cacert", str(source.ca), "-o", str(target), url]


def wget(url: str, target: Path, source: Source) -> list[str]:
    trust = f"--ca-certificate={source.ca}"
    return ["wget", "--no-config", "--no-hsts", "-q", trust, "-O", str(target), url]


def aria2c(url: str, target: Path, source: Source, connections: int = 1) -> list[str]:
    """Without what it does to the file before the first byte comes."""
    return [
        "aria2c",
        "--no-conf",
        "--quiet",
        "--file-allocation=none",
        f"--ca-certificate={source.ca}",
        f"--max-connection-per-server={connections}",
        f"--split={connections}",
        "--min-split-size=1M",
        f"--dir={target.parent}",
        f"--out={target.name}",
        url,
    ]


# -- around them -------------------------------------------------------------------------------


def check(target: Path, source: Source, who: str) -> None:
    """It is what was served."""
    assert target.stat().st_size == source.size, f"{who}: not the whole file"
    assert sha256_of(target) == source.sha256, f"{who}: not the same file"


@contextmanager
def ram_folder(chosen: Path | None) -> Iterator[Path]:
    """A temporary folder where the disk does not count, in the one that was chosen if any."""
    memory = Path("/dev/shm")
    place = chosen or (memory if memory.is_dir() else Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix="af10-bench-", dir=place) as name:
        yield Path(name)


def versions() -> dict[str, str]:
    """Of what was measured, as far as it is here."""
    found = {"Python": sys.version.split()[0], "cores": str(os.cpu_count())}
    for program, option in (("nginx", "-v"), *((name, "--version") for name in PROGRAMS)):
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin")
        if path is not None:
            said = subprocess.run([path, option], capture_output=True, text=True, check=True)
            number = re.search(r"\d+(\.\d+)+", said.stdout + said.stderr)
            found[program] = number[0] if number else "?"
    return found


def write_json(path: Path | None, what: str, found: dict[str, Any]) -> None:
    """For `plot_downloads.py`."""
    if path is not None:
        path.write_text(json.dumps({"what": what, "versions": versions(), **found}, indent=1))


def versions_text() -> str:
    return ", ".join(f"{name} {version}" for name, version in versions().items())


def size_text(size: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (1024, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size:,} bytes"
