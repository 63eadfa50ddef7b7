"""A port that can be bound again and again, as by a service that restarts."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

PORTS = range(10_000, 32_000)
"""Below those that the system gives to connections that go out, which may take one meanwhile."""
# Not the seeded one: tests that run at the same time would choose the same.
CHANCE = random.SystemRandom()


def free_port() -> int:
    """One that nobody listens on."""
    while True:
        port = CHANCE.choice(PORTS)
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
