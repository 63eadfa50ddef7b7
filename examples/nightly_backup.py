"""One dealer's backup every night, for cron.

    17 3 * * *  python nightly_backup.py /srv/backups

The AF10_* variables say which AF10, whose, and how it reaches this machine:

    export AF10_BASE_URL=https://api.autoflex10.work/v2
    export AF10_API_KEY=... AF10_USERNAME=... AF10_PASSWORD=...
    export AF10_PUBLIC_URL=https://hooks.example.com AF10_LISTEN_PORT=8080
    python examples/nightly_backup.py /srv/backups

Without an AF10 account, in one terminal:

    python -m trustme -i 127.0.0.1                  # server.pem, server.key and client.pem
    af10 sandbox --callback-ca client.pem           # prints export lines

and in another, after those lines:

    export AF10_TLS_CERT=server.pem AF10_TLS_KEY=server.key
    python examples/nightly_backup.py backups

It prints the path of the file. When there is none, it prints one sentence that names the job, and
ends with 1 (AF10, the network or the disk said no), 2 (wrong usage or configuration) or 3 (out of
time).
"""

import asyncio
import sys
from pathlib import Path

from af10_async import AF10Client, AF10Error, ConfigurationError


async def back_up(folder: Path) -> Path:
    """Have AF10 make a backup, and save it in the folder under the name that AF10 gives it."""
    async with AF10Client.from_env() as af10:
        backup = await af10.backup_owner()
        saved = await backup.save(folder)
    return saved.path


def main() -> int:
    """Run, and return the exit code."""
    if len(sys.argv) != 2:
        return complain("usage: nightly_backup.py FOLDER", 2)
    folder = Path(sys.argv[1])
    try:
        folder.mkdir(parents=True, exist_ok=True)  # before AF10 goes to any trouble
        print(asyncio.run(back_up(folder)))
    except ConfigurationError as error:
        return complain(error, 2)
    except (AF10Error, OSError) as error:
        return complain(error, 3 if isinstance(error, TimeoutError) else 1)
    return 0


def complain(what: object, code: int) -> int:
    """Say it where cron looks; an `AF10Error` ends with the key of its job."""
    print(f"nightly_backup: {what}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
