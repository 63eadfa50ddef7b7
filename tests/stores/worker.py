"""One process with a store of its own, which does what it is told and says what came of it.

`python -m tests.stores.worker URL`. Each line is a JSON list; so is each answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from af10_async.protocol.lifecycle import (
    Accepted,
    CalledBack,
    Collected,
    Effect,
    Event,
    JobRecord,
    PayloadReceived,
    Refused,
    SecretRefused,
)
from af10_async.stores import Store, open_store

AT = 4_000_000_000.0
"""Long after every test, so that nothing ends before it: the workers go by the real time."""
KINDS: dict[str, type[Any]] = {
    each.__name__: each
    for each in (Accepted, CalledBack, Collected, PayloadReceived, Refused, SecretRefused)
}


def event_of(description: list[Any]) -> Event:
    """The event that `[name, argument, ...]` stands for."""
    name, *arguments = description
    found: Event = KINDS[name](AT, *arguments)
    return found


def record_of(key: str, account: str = "1" * 32) -> JobRecord:
    """A new record that outlives every test."""
    return JobRecord(key, account, "POST", "/x", True, AT, 1e12)


async def apply_all(store: Store, script: list[Any]) -> list[Any]:
    """Apply `[key, event]` one after another; `[key, version, event]` of each that changed it."""
    changed = []
    for key, event in script:
        transition = await store.apply(key, event_of(event))
        if transition is not None and transition.effect is Effect.CHANGED:
            changed.append([key, transition.record.version, event])
    return changed


async def obey(store: Store, order: list[Any]) -> Any:
    """What one order gives."""
    match order:
        case ["apply", script]:
            return await apply_all(store, script)
        case ["at once", scripts]:
            found = await asyncio.gather(*(apply_all(store, script) for script in scripts))
            return [each for part in found for each in part]
        case ["add", key]:
            try:
                await store.add(record_of(key))
            except KeyError:
                return False
            return True
        case ["lease", key]:
            return await store.lease(key)
        case ["wait", key, version]:
            record = await store.changed(key, version)
            return record and record.version
    raise ValueError(order)


def say(answer: Any) -> None:
    """One line for whoever gave the order."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def main(url: str) -> None:
    """Obey until there are no more orders."""
    store = open_store(url)
    await store.open()
    say("open")
    while line := await asyncio.to_thread(sys.stdin.readline):
        say(await obey(store, json.loads(line)))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
