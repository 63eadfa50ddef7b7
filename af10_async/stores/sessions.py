"""Which process has a store open, and whether it is still alive, as far as this machine can tell.

A store that several processes share notes the identity of each of them beside its leases. What a
process that was killed had leased is then free at once for the next one on the same machine, not
only after the killed one has been silent for long enough.
"""

from __future__ import annotations

import os
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START_FIELD = 19
"""The index of the start time in /proc/PID/stat, counted after the name of the program."""
_ENDED = ("Z", "X", "x")
"""The states of a process that is over, though its parent has not looked yet."""


def identity() -> str:
    """`host/pid/start` of this process; without host and start where they cannot be known."""
    pid = os.getpid()
    return f"{_host()}/{pid}/{_start(pid) or ''}"


def is_gone(identity: str) -> bool | None:
    """Whether the process of an identity has ended; None when it cannot be told from here."""
    host, _, process = identity.partition("/")
    pid, _, start = process.partition("/")
    # Process numbers mean something only within one boot and one namespace.
    if not host or host != _host() or not start or not (pid.isascii() and pid.isdigit()):
        return None
    return _start(int(pid)) != start


def _host() -> str:
    """The running system and its namespace of process numbers; empty elsewhere than on Linux."""
    try:
        boot = _BOOT_ID.read_text("ascii").strip()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except (OSError, ValueError):
        return ""
    return f"{boot}-{namespace}"


def _start(pid: int) -> str | None:
    """When a process was started, in ticks since the boot; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name of the program, in brackets, may hold anything.
    fields = stat.rpartition(b")")[2].decode("ascii", "replace").split()
    if len(fields) <= _START_FIELD or fields[0] in _ENDED:
        return None
    return fields[_START_FIELD]
