"""The backups of many dealers at once, each saved as soon as it is there.

    python examples/pipeline.py dealers.json /srv/backups

All of them share one callback server and one HTTP client. What goes wrong for one dealer is a line
in the summary, and nothing to the others.

Who the dealers are stands in a JSON file, `{"jansen": {"api_key": "...", "username": "...",
"password": "..."}, ...}`; the rest comes from AF10_* variables:

    export AF10_BASE_URL=https://api.autoflex10.work/v2
    export AF10_PUBLIC_URL=https://hooks.example.com AF10_LISTEN_PORT=8080

Without an AF10 account, in one terminal:

    python -m trustme -i 127.0.0.1                  # server.pem, server.key and client.pem
    af10 sandbox --callback-ca client.pem           # prints what to put in dealers.json

and in another, after the line for AF10_BASE_URL:

    export AF10_TLS_CERT=server.pem AF10_TLS_KEY=server.key
    python examples/pipeline.py dealers.json backups
"""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

from af10_async import AF10Client, AF10Error, CallbackServer, SavedFile

Credentials = dict[str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went for one dealer."""

    dealer: str
    result: SavedFile | AF10Error

    def __str__(self) -> str:
        if isinstance(self.result, SavedFile):
            return f"{self.dealer}: {self.result.path} ({self.result.size:,} bytes)"
        return f"{self.dealer}: FAILED: {self.result}"


async def back_up(
    dealer: str,
    credentials: Credentials,
    folder: str,
    server: CallbackServer,
    http: httpx.AsyncClient,
) -> Outcome:
    """Make and save one dealer's backup; an error of AF10 is an outcome too."""
    try:
        async with AF10Client.from_env(
            **credentials, callback_server=server, http_client=http
        ) as af10:
            backup = await af10.backup_owner()
            return Outcome(dealer, await backup.save(f"{folder}/{dealer}/"))
    except AF10Error as error:
        return Outcome(dealer, error)


async def back_up_all(dealers: dict[str, Credentials], folder: str) -> int:
    """Make and save them all; how many failed."""
    failed = 0
    async with (
        CallbackServer(
            port=int(os.environ.get("AF10_LISTEN_PORT", "0")),
            public_url=os.environ.get("AF10_PUBLIC_URL"),
            tls_cert=os.environ.get("AF10_TLS_CERT"),
            tls_key=os.environ.get("AF10_TLS_KEY"),
        ) as server,
        httpx.AsyncClient(timeout=30) as http,
        asyncio.TaskGroup() as group,
    ):
        backups = [
            group.create_task(back_up(dealer, credentials, folder, server, http))
            for dealer, credentials in dealers.items()
        ]
        for number, earliest in enumerate(asyncio.as_completed(backups), start=1):
            outcome = await earliest
            failed += isinstance(outcome.result, AF10Error)
            print(f"[{number}/{len(backups)}] {outcome}", flush=True)
    return failed


def main() -> int:
    """Run, and return the exit code."""
    if len(sys.argv) != 3:
        print("usage: pipeline.py DEALERS.json FOLDER", file=sys.stderr)
        return 2
    dealers = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        failed = asyncio.run(back_up_all(dealers, sys.argv[2]))
    except AF10Error as error:  # the callback server's, before anything was asked of AF10
        print(f"pipeline: {error}", file=sys.stderr)
        return 2
    print(f"{len(dealers) - failed} saved, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
