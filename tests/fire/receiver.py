"""A process with the receiver: one of its ports is plain, the other speaks TLS.

    python -m tests.fire.receiver '{"cert": "...", "key": "...", "files": 1024, "jobs": 5000,
                                    "log": "receiver.log"}'

It says its ports, and then, for each line that it reads, how its jobs are.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from af10_async import CallbackServer
from af10_async.protocol.lifecycle import JobRecord
from af10_async.stores import MemoryStore, Store

from .keys import SECRET, STOLEN, TELL_TALE, key_of

PUBLIC_URL = "https://127.0.0.1"  # which the certificate is for


async def serve(task: dict[str, Any]) -> None:
    """Until the input ends."""
    store = MemoryStore()
    for number in (*range(task["jobs"]), TELL_TALE, STOLEN):
        await store.add(record_of(key_of(number)))
    same: dict[str, Any] = {"store": store, "callback_secret": SECRET, "public_url": PUBLIC_URL}
    tls = {"tls_cert": task["cert"], "tls_key": task["key"]}
    async with CallbackServer(**same) as plain, CallbackServer(**same, **tls) as secure:
        _say({"plain": plain.port, "tls": secure.port})
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            _say(await _state(store, task["jobs"]))


def record_of(key: str) -> JobRecord:
    """A job that waits for its callback."""
    return JobRecord(key, "an account", "POST", "/backup/owner", True, 0.0, 1e12)


async def _state(store: Store, jobs: int) -> dict[str, Any]:
    async def secrets(number: int) -> list[str]:
        record = await store.get(key_of(number))
        return list(record.secrets) if record else []

    records = [record.key async for record in store.records()]
    return {
        "called_back": [number for number in range(jobs) if await secrets(number)],
        "tell_tale": await secrets(TELL_TALE),
        "strangers": len(records) - jobs - 2,
    }


def _limit_files(files: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    """The process."""
    task = json.loads(sys.argv[1])
    if task["files"]:
        _limit_files(task["files"])
    logging.basicConfig(filename=task["log"], level=logging.INFO)
    asyncio.run(serve(task))


if __name__ == "__main__":
    main()
