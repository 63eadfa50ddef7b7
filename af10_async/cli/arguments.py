"""What the command line understands."""

from __future__ import annotations

import argparse
import math
import re
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from .. import __version__
from ..errors import ConfigurationError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|B|KB|MB|GB|KiB|MiB|GiB|K|M|G)", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_UNITS |= {"k": 2**10, "m": 2**20, "g": 2**30, "kib": 2**10, "mib": 2**20, "gib": 2**30}


_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])", re.ASCII)
_AGE_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_PHASES = {
    "start": "AF10 to accept the job",
    "callback": "AF10 to call back and hand over the payload",
    "download": "the whole download",
}


class UsageError(ConfigurationError):
    """The words after `af10` make no sense."""


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        # `--js` must not mean `--json` here and something else where errors are printed.
        super().__init__(**{"allow_abbrev": False} | options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments, with the name of the command in `command`. Raises `UsageError`."""
    parser = _Parser(prog="af10", description="Autoflex10 (AF10) from the command line.")
    parser.add_argument("--version", action="version", version=f"af10 {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_backup(commands)
    _add_receive(commands)
    _add_jobs(commands)
    _add_resume(commands)
    _add_sandbox(commands)
    return parser.parse_args(arguments)


def _add_demo(commands: argparse._SubParsersAction[_Parser]) -> None:
    demo = commands.add_parser(
        "demo", help="the main job with no account: a sandbox, a callback, a download"
    )
    demo.add_argument(
        "--out", type=Path, default=Path("backups"), metavar="DIR", help="(default: backups)"
    )
    _add_json(demo)


def _add_backup(commands: argparse._SubParsersAction[_Parser]) -> None:
    backup = commands.add_parser("backup", help="backups from the AF10 that AF10_* variables name")
    kinds = backup.add_subparsers(dest="kind", required=True, metavar="KIND")
    owner = kinds.add_parser("owner", help="everything that the dealer has in AF10")
    owner.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the file goes")
    _add_timeouts(owner, "start", "callback", "download")
    _add_json(owner)


def _add_receive(commands: argparse._SubParsersAction[_Parser]) -> None:
    receive = commands.add_parser(
        "receive",
        help="the callback server alone, over a store that others wait at (AF10_STORE), until"
        " interrupted",
    )
    _add_json(receive)


def _add_jobs(commands: argparse._SubParsersAction[_Parser]) -> None:
    jobs = commands.add_parser("jobs", help="what is in the store that AF10_STORE names")
    _add_json(jobs)
    actions = jobs.add_subparsers(dest="action", metavar="prune")
    prune = actions.add_parser("prune", help="forget finished jobs")
    prune.add_argument(
        "--older-than",
        type=age,
        required=True,
        metavar="AGE",
        help="such as 30d, 12h or 90m, since they were made; unfinished ones are kept",
    )
    _add_json(prune, default=argparse.SUPPRESS)


def _add_resume(commands: argparse._SubParsersAction[_Parser]) -> None:
    resume = commands.add_parser(
        "resume", help="wait for jobs that were started before, and save their files"
    )
    resume.add_argument("keys", nargs="*", metavar="KEY", help="the key or the ticket of a job")
    resume.add_argument(
        "--all",
        action="store_true",
        help="all of this account's in which something is left to do, and that nobody works on",
    )
    resume.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the files go")
    resume.add_argument(
        "--jobs", type=_count, default=8, metavar="N", help="at the same time (default: 8)"
    )
    _add_timeouts(resume, "callback", "download")
    _add_json(resume)


def _add_timeouts(parser: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        parser.add_argument(
            f"--{name}-timeout", type=_seconds, metavar="SECONDS", help=f"time for {_PHASES[name]}"
        )


def _add_sandbox(commands: argparse._SubParsersAction[_Parser]) -> None:
    sandbox = commands.add_parser("sandbox", help="a stand-in AF10, until interrupted")
    sandbox.add_argument("--host", default="127.0.0.1", help="(default: 127.0.0.1)")
    sandbox.add_argument("--port", type=_port, default=0, help="(default: any free one)")
    sandbox.add_argument(
        "--job-seconds",
        type=_duration,
        default=1.0,
        metavar="SECONDS",
        help="from an accepted job to its callback (default: 1.0)",
    )
    sandbox.add_argument(
        "--file-size",
        type=size,
        default=5 * 2**20,
        metavar="SIZE",
        help="of each backup, such as 64KiB or 2GiB (default: 5MiB)",
    )
    sandbox.add_argument(
        "--callback-ca",
        type=_certificates,
        metavar="PEM",
        help="trusted, beside the system's, when it calls an https webhook",
    )
    sandbox.add_argument("--tls", action="store_true", help="serve https, with a CA of its own")
    _add_json(sandbox)


def _add_json(parser: argparse.ArgumentParser, default: Any = False) -> None:
    parser.add_argument(
        "--json",
        action="store_true",
        default=default,
        help="one JSON object a line on stdout, errors included",
    )


def size(text: str) -> int:
    """A number of bytes: `65536`, `64KiB`, `5 MB`."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 65536, 64KiB or 5MB")
    return round(float(found[1]) * _UNITS[found[2].lower()])


def age(text: str) -> float:
    """A number of seconds: `30d`, `12h`, `90m`, `45s`, `2w`."""
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an age such as 30d, 12h or 90m")
    return float(found[1]) * _AGE_UNITS[found[2]]


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 1000):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000")
    return int(text)


def _seconds(text: str) -> float:
    seconds = _duration(text)
    if seconds == 0:
        raise argparse.ArgumentTypeError("it must be more than 0 seconds")
    return seconds


def _duration(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number from 0 to 65535")
    return int(text)


def _certificates(text: str) -> Path:
    path = Path(text)
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a PEM file of certificates") from None
    return path
