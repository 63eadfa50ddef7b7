"""A process with ngrok's real SDK, which is told to go to a stand-in of ngrok's service.

It is one of its own because the SDK's threads and sockets stay for as long as a process lives, and
to see how that ends. Writes one JSON object a line: what it is told, and at last what came of it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

import ngrok

from af10_async.errors import PublicURLError
from af10_async.public_url.base import LocalServer
from af10_async.public_url.ngrok import Ngrok
from af10_async.runtime import Runtime


def say(**what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def lead_astray(port: int, ca: str) -> None:
    """Let every session go to a port of this machine."""
    make = ngrok.SessionBuilder

    def builder() -> Any:
        made = make().server_addr(f"localhost:{port}")
        return made.ca_cert(bytearray(Path(ca).read_bytes())) if ca else made

    ngrok.SessionBuilder = builder  # type: ignore[assignment,misc]


async def run(options: dict[str, Any]) -> None:
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0 if seconds in options["at_once"] else seconds)

    how = Ngrok(authtoken=options["token"], domain=options["domain"], runtime=Runtime(sleep=sleep))
    local = LocalServer("127.0.0.1", options["local"], is_tls=options["is_tls"])
    try:
        async with how.open(local, lambda address: say(told=address)) as address:
            say(address=address)
            await asyncio.to_thread(sys.stdin.readline)
    except PublicURLError as error:
        say(error=str(error), retryable=error.retryable)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    say(left=[str(task) for task in left])


def main() -> None:
    options = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.DEBUG)
    lead_astray(options["port"], options["ca"])
    asyncio.run(run(options))


if __name__ == "__main__":
    main()
