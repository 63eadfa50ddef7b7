"""The backups of many dealers, each copied on to where it is to stay as soon as it is there.

    python examples/pipeline.py accounts.toml s3://bucket/backups
    python examples/pipeline.py accounts.toml /srv/backups

All of them share one callback server and one set of connections. What goes wrong for one dealer is
a line in the summary, and nothing to the others. Who the dealers are stands in a TOML file (see the
README); where callbacks arrive comes from AF10_* variables:

    export AF10_PUBLIC_URL=https://hooks.example.com AF10_LISTEN_PORT=8080

Without an AF10 account, in one terminal:

    python -m trustme -i 127.0.0.1                  # server.pem, server.key and client.pem
    af10 sandbox --callback-ca client.pem --accounts 5 --accounts-file accounts.toml

and in another:

    export AF10_TLS_CERT=server.pem AF10_TLS_KEY=server.key
    python examples/pipeline.py accounts.toml backups
"""

import asyncio
import sys

from af10_async import AF10Client, AF10Error, Fleet


async def main(accounts: str, target: str) -> int:
    """Copy them all; how many failed."""

    async def back_up(af10: AF10Client) -> tuple[str, int]:
        backup = await af10.backup_owner()
        place = f"{target.rstrip('/')}/{af10.name}/"
        if "://" in target:
            copied = await backup.copy_to(place)
            return copied.url or place, copied.size
        saved = await backup.save(place)
        return str(saved.path), saved.size

    failed = 0
    async with Fleet.from_env(accounts) as fleet:
        async for outcome in fleet.each(back_up, concurrency=16):
            if outcome.ok:
                place, size = outcome.result
                print(f"{outcome.account}: {place} ({size:,} bytes)", flush=True)
            else:
                failed += 1
                print(f"{outcome.account}: FAILED: {outcome.error}", flush=True)
    print(f"{len(fleet) - failed} saved, {failed} failed")
    return failed


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: pipeline.py ACCOUNTS.toml FOLDER|URL")
    try:
        sys.exit(1 if asyncio.run(main(*sys.argv[1:])) else 0)
    except AF10Error as error:  # of what all have in common, before anything was sent
        sys.exit(f"pipeline: {error}")
