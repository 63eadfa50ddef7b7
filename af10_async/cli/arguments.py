"""What the command line understands."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from .. import __version__
from ..download_source import MIN_SPEED, STALL_TIMEOUT
from ..errors import ConfigurationError
from ..protocol.redaction import redact
from . import values
from .values import size

__all__ = ["UsageError", "parse", "size"]

_PHASES = {
    "start": "AF10 to accept the job",
    "callback": "AF10 to call back and hand over the payload",
    "download": "the whole download",
}
_URLS = "s3://…, gs://…, az://… or file:///…"


class UsageError(ConfigurationError):
    """The words after `af10` make no sense."""


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        # `--js` must not mean `--json` here and something else where errors are printed.
        super().__init__(**{"allow_abbrev": False} | options)

    def error(self, message: str) -> NoReturn:
        # What was typed may be the address of a file, with a signature in it.
        raise UsageError(f"{redact(message, ())}; see `{self.prog} --help`")


_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


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
    _add_fetch(commands)
    _add_doctor(commands)
    _add_sandbox(commands)
    return parser.parse_args([values.shielded(each) for each in arguments])


def _add_demo(commands: _Commands) -> None:
    demo = commands.add_parser(
        "demo", help="the main job with no account: a sandbox, a callback, a download"
    )
    demo.add_argument(
        "--out", type=Path, default=Path("backups"), metavar="DIR", help="(default: backups)"
    )
    _add_json(demo)


def _add_backup(commands: _Commands) -> None:
    backup = commands.add_parser("backup", help="backups from the AF10 that AF10_* variables name")
    kinds = backup.add_subparsers(dest="kind", required=True, metavar="KIND")
    owner = kinds.add_parser("owner", help="everything that the dealer has in AF10")
    owner.add_argument(
        "--out",
        required=True,
        metavar="DIR|URL",
        help=f"where the file goes: a folder, or {_URLS}",
    )
    owner.add_argument(
        "--keep",
        type=values.count,
        metavar="N",
        help="keep the newest N backups there (of each account), and remove older ones that were"
        " saved in this way",
    )
    _add_accounts(owner, "a backup of each account")
    _add_jobs_at_a_time(owner, 16, "accounts")
    _add_download(owner)
    _add_expected(owner)
    _add_timeouts(owner, "start", "callback", "download")
    _add_json(owner)


def _add_accounts(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--accounts",
        type=Path,
        metavar="TOML",
        help=f"{what} of this file, into a folder of its name",
    )
    parser.add_argument(
        "--account",
        action="append",
        metavar="NAME",
        help="only that one of them; may be said several times",
    )


def _add_jobs_at_a_time(parser: argparse.ArgumentParser, default: int, what: str) -> None:
    parser.add_argument(
        "--jobs",
        type=values.count,
        default=default,
        metavar="N",
        help=f"{what} at the same time (default: {default})",
    )


def _add_receive(commands: _Commands) -> None:
    receive = commands.add_parser(
        "receive",
        help="the callback server alone, over a store that others wait at (AF10_STORE), until"
        " interrupted",
    )
    _add_json(receive)


def _add_jobs(commands: _Commands) -> None:
    jobs = commands.add_parser("jobs", help="what is in the store that AF10_STORE names")
    _add_json(jobs)
    actions = jobs.add_subparsers(dest="action", metavar="prune")
    prune = actions.add_parser("prune", help="forget finished jobs")
    prune.add_argument(
        "--older-than",
        type=values.age,
        required=True,
        metavar="AGE",
        help="such as 30d, 12h or 90m, since they were made; unfinished ones are kept",
    )
    _add_json(prune, default=argparse.SUPPRESS)


def _add_resume(commands: _Commands) -> None:
    resume = commands.add_parser(
        "resume", help="wait for jobs that were started before, and save their files"
    )
    resume.add_argument(
        "keys",
        nargs="*",
        type=values.unshielded,
        metavar="KEY",
        help="the key or the ticket of a job",
    )
    resume.add_argument(
        "--all",
        action="store_true",
        help="all of this account's in which something is left to do, and that nobody works on",
    )
    resume.add_argument(
        "--out",
        required=True,
        metavar="DIR|URL",
        help=f"where the files go: a folder or, for one job, {_URLS}",
    )
    _add_accounts(resume, "jobs of all accounts")
    _add_jobs_at_a_time(resume, 8, "jobs")
    _add_download(resume, " (one job only)")
    _add_timeouts(resume, "callback", "download")
    _add_json(resume)


def _add_fetch(commands: _Commands) -> None:
    fetch = commands.add_parser(
        "fetch",
        help="a file from any address, without AF10; after an interruption, the same command goes"
        " on from where it stopped",
    )
    fetch.add_argument("url", metavar="URL", help="http or https; it is told to nobody else")
    fetch.add_argument(
        "--out",
        required=True,
        metavar="DIR|PATH|URL",
        help="where the file goes: a folder (one that is there, or that ends in a slash), a path,"
        f" or {_URLS}",
    )
    _add_download(fetch)
    _add_expected(fetch)
    fetch.add_argument(
        "--ca-file",
        type=values.certificates,
        metavar="PEM",
        help="certificates to trust beside the system's",
    )
    fetch.add_argument(
        "--allowed-host",
        type=values.host,
        action="append",
        metavar="HOST",
        help="that it, or what is below it, may be fetched from, redirects included; may be said"
        " several times (default: any)",
    )
    _add_timeouts(fetch, "download")
    _add_json(fetch)


def _add_doctor(commands: _Commands) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="which link between this machine and AF10 is broken, and what to do; changes nothing",
    )
    doctor.add_argument(
        "--out",
        metavar="DIR|URL",
        help="where files are to go: whether there is permission and room",
    )
    doctor.add_argument(
        "--timeout",
        type=values.seconds,
        default=10.0,
        metavar="SECONDS",
        help="time for each check (default: 10)",
    )
    _add_json(doctor)


def _add_download(parser: argparse.ArgumentParser, overwriting: str = "") -> None:
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help=f"replace a file of the same name{overwriting}",
    )
    parser.add_argument(
        "--segments",
        type=values.segments,
        metavar="N|auto",
        help="connections that fetch parts of a file at the same time (default: 1)",
    )
    parser.add_argument(
        "--max-size", type=values.size, metavar="SIZE", help="most that a file may have: 5GiB"
    )
    parser.add_argument(
        "--stall-timeout",
        type=values.seconds,
        metavar="SECONDS",
        help="time without a byte after which a connection counts as broken"
        f" (default: {STALL_TIMEOUT:g})",
    )
    parser.add_argument(
        "--min-speed",
        type=values.size,
        metavar="SIZE",
        help=f"bytes a second below which it does, too: 100KiB (default: {MIN_SPEED:g})",
    )


def _add_expected(parser: argparse.ArgumentParser) -> None:
    for name, digits in (("sha256", 64), ("md5", 32)):
        parser.add_argument(
            f"--{name}",
            type=values.hexadecimal(digits),
            metavar="HEX",
            help=f"what the {name.upper()} of the file must be",
        )


def _add_timeouts(parser: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        parser.add_argument(
            f"--{name}-timeout",
            type=values.seconds,
            metavar="SECONDS",
            help=f"time for {_PHASES[name]}",
        )


def _add_sandbox(commands: _Commands) -> None:
    sandbox = commands.add_parser("sandbox", help="a stand-in AF10, until interrupted")
    sandbox.add_argument("--host", default="127.0.0.1", help="(default: 127.0.0.1)")
    sandbox.add_argument("--port", type=values.port, default=0, help="(default: any free one)")
    sandbox.add_argument(
        "--job-seconds",
        type=values.duration,
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
        type=values.certificates,
        metavar="PEM",
        help="trusted, beside the system's, when it calls an https webhook",
    )
    sandbox.add_argument("--tls", action="store_true", help="serve https, with a CA of its own")
    sandbox.add_argument(
        "--accounts",
        type=values.count,
        default=1,
        metavar="N",
        help="how many may log in: dealer-1 to dealer-N (default: one of any name)",
    )
    sandbox.add_argument(
        "--accounts-file",
        type=Path,
        metavar="TOML",
        help="where their credentials are written; what another sandbox wrote there is replaced",
    )
    sandbox.add_argument(
        "--vehicles",
        type=_number_of,
        default=250,
        metavar="N",
        help="in the stock of each account (default: 250)",
    )
    sandbox.add_argument(
        "--quota",
        type=_number_of,
        metavar="N",
        help="requests a minute that each account may send (default: any number)",
    )
    _add_json(sandbox)


def _number_of(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 1_000_000):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000000")
    return int(text)


def _add_json(parser: argparse.ArgumentParser, default: Any = False) -> None:
    parser.add_argument(
        "--json",
        action="store_true",
        default=default,
        help="one JSON object a line on stdout, errors included",
    )
