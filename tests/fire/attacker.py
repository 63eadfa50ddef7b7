"""A process that attacks until its input ends, or for some seconds.

    python -m tests.fire.attacker NAME '{"plain": 8080, "tls": 8443, "seconds": null,
                                         "connections": 1500}'

It says `{"has_begun": true}` once the attack is under way, and at last what it did.
"""

from __future__ import annotations

import json
import selectors
import ssl
import sys
import time
from contextlib import suppress
from typing import Any

from .attacks import BY_NAME, small
from .engine import Engine, told


def raise_files() -> None:
    """Have as many descriptors as the system allows."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def client_context() -> ssl.SSLContext:
    """An attacker does not care whose certificate it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def attack(name: str, task: dict[str, Any]) -> None:
    """Carry it out."""
    found = small(BY_NAME[name], task["connections"])
    engine = Engine(found, ("127.0.0.1", task[found.port]), client_context())
    until = time.monotonic() + (task["seconds"] or 3600.0)
    orders = selectors.DefaultSelector()
    orders.register(sys.stdin, selectors.EVENT_READ)
    has_said = False
    while time.monotonic() < until and not orders.select(0):
        engine.turn()
        if engine.has_begun and not has_said:
            has_said = True
            _say({"has_begun": True})
    engine.close()
    orders.close()
    _say(told(engine.score))


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise_files()
    attack(sys.argv[1], json.loads(sys.argv[2]))
