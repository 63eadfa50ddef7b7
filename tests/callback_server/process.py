"""A process with a callback server, whose log goes to stderr.

    python -m tests.callback_server.process '{"options": {"callback_secret": "..."}, "files": 64}'

It says its port. For each key that it reads, it says which secrets the store has for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from af10_async.callback_server import CallbackServer
from af10_async.runtime import Runtime


async def serve(options: dict[str, Any]) -> None:
    """Until the input ends."""
    runtime = Runtime(sleep=lambda _: asyncio.sleep(0))
    async with CallbackServer(**options, runtime=runtime) as server:
        _say(server.port)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            record = await server.store.get(line.strip())
            _say(list(record.secrets) if record else [])


def _say(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main(task: dict[str, Any]) -> None:
    """The process."""
    if task["files"]:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (task["files"], task["files"]))
    logging.basicConfig(level=logging.INFO)
    asyncio.run(serve(task["options"]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
