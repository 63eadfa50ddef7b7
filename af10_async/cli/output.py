"""What the commands say: JSON lines for programs, or words and a progress bar for people."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any, Protocol

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from .. import JobEvent, JobState, Progress, SavedFile
from ..download import ProgressHandler
from ..protocol.keys import KEY_LENGTH
from ..protocol.lifecycle import JobRecord
from ..protocol.tickets import ticket_of
from .exit_codes import INTERRUPTED, TIMED_OUT

_STEPS = {
    JobState.REGISTERED: "the request goes out; the job is on record",
    JobState.ACCEPTED: "AF10 accepted it, and will call back",
    JobState.CALLED_BACK: "AF10 called back with the secret",
    JobState.READY: "the secret was redeemed for the file's address",
    JobState.FAILED: "AF10 refused it",
    JobState.EXPIRED: "its time is over",
}


class Output(Protocol):
    """Where a command speaks to."""

    def step(self, name: str, text: str, **details: Any) -> None:
        """Something has happened."""

    def job(self, event: JobEvent) -> None:
        """Say that a job has come a step further."""

    @contextmanager
    def download(self) -> Iterator[ProgressHandler]:
        """Show the progress of a download."""
        ...

    def saved(self, saved: SavedFile, key: str | None) -> None:
        """Say that the file is there."""

    def jobs(self, records: Sequence[JobRecord]) -> None:
        """List what is in a store."""

    def logs(self, name: str) -> AbstractContextManager[None]:
        """Say what a logger says, while the block lasts."""
        ...

    def error(
        self,
        error: str,
        message: str,
        key: str | None,
        exit_code: int,
        *,
        ticket: str | None = None,
    ) -> None:
        """Say that it went wrong."""


class JsonOutput:
    """One JSON object a line on stdout, and nothing else there."""

    def step(self, name: str, text: str, **details: Any) -> None:
        """Something has happened."""
        self._line(name, **details)

    def job(self, event: JobEvent) -> None:
        """Say that a job has come a step further."""
        failure = {"failure": event.failure} if event.failure else {}
        self._line(str(event.state), key=event.key, at=event.at, **failure)

    @contextmanager
    def download(self) -> Iterator[ProgressHandler]:
        """Show the progress of a download, about once a second."""
        told_at = -1.0

        def tell(progress: Progress) -> None:
            nonlocal told_at
            if progress.received == progress.total or progress.seconds - told_at >= 1:
                told_at = progress.seconds
                self._line(
                    "progress",
                    received=progress.received,
                    total=progress.total,
                    rate=round(progress.rate),
                    seconds_left=progress.seconds_left,
                )

        yield tell

    def saved(self, saved: SavedFile, key: str | None) -> None:
        """Say that the file is there."""
        self._line(
            "saved",
            path=str(saved.path),
            size=saved.size,
            sha256=saved.sha256,
            seconds=round(saved.seconds, 3),
            key=key,
        )

    def jobs(self, records: Sequence[JobRecord]) -> None:
        """One line for each."""
        for record in records:
            self._line(
                "job",
                key=record.key,
                state=str(record.state),
                unfinished=record.is_unfinished,
                account=record.account,
                method=record.method,
                path=record.path,
                created_at=record.created_at,
                expires_at=record.expires_at,
                start_certain=record.start_certain,
                failure=record.failure,
                file=record.file.path if record.file else None,
                ticket=str(ticket_of(record)) if record.account else None,
            )

    def logs(self, name: str) -> AbstractContextManager[None]:
        """A line for each record of a logger, from INFO on."""

        def tell(record: logging.LogRecord) -> None:
            self._line("log", level=record.levelname.lower(), message=record.getMessage())

        return _listening(name, tell)

    def error(
        self,
        error: str,
        message: str,
        key: str | None,
        exit_code: int,
        *,
        ticket: str | None = None,
    ) -> None:
        """Say that it went wrong."""
        more = {"ticket": ticket} if ticket else {}
        self._line("error", error=error, message=message, key=key, exit_code=exit_code, **more)

    def _line(self, event: str, **details: Any) -> None:
        sys.stdout.write(json.dumps({"event": event, **details}) + "\n")
        sys.stdout.flush()


class PeopleOutput:
    """Steps and a progress bar on stderr; the path of the file alone on stdout."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def step(self, name: str, text: str, **details: Any) -> None:
        """Something has happened."""
        self._console.print(f"[bold cyan]{name:<14}[/] ", end="")
        self._console.print(text, markup=False, soft_wrap=True)

    def job(self, event: JobEvent) -> None:
        """Say that a job has come a step further."""
        text = _STEPS.get(event.state, "")
        if event.state is JobState.REGISTERED:
            text += f": {event.key}"
        self.step(event.state.replace("_", " "), text)

    @contextmanager
    def download(self) -> Iterator[ProgressHandler]:
        """Show the progress of a download, with its rate and the time left."""
        columns = (
            TextColumn("[bold cyan]{task.description:<14}[/]"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[left]}"),
        )
        with Bar(*columns, console=self._console) as bar:
            task = bar.add_task("download", total=None, rate="", left="")

            def tell(progress: Progress) -> None:
                left = progress.seconds_left
                bar.update(
                    task,
                    completed=progress.received,
                    total=progress.total,
                    rate=f"{decimal(round(progress.rate))}/s" if progress.rate else "",
                    left=f"{timedelta(seconds=round(left))} left" if left is not None else "",
                )

            yield tell

    def saved(self, saved: SavedFile, key: str | None) -> None:
        """Say that the file is there."""
        self.step("saved", f"{saved.size:,} bytes, SHA-256 {saved.sha256}")
        sys.stdout.write(f"{saved.path}\n")
        sys.stdout.flush()

    def jobs(self, records: Sequence[JobRecord]) -> None:
        """A table on stdout: the keys in it are to be copied."""
        if not records:
            self.step("nothing", "there is no job in the store")
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        # What is to be copied comes whole, however narrow the terminal is.
        table.add_column("key", no_wrap=True, min_width=KEY_LENGTH)
        table.add_column("state", no_wrap=True, min_width=11)
        table.add_column("made", no_wrap=True, justify="right", min_width=8)
        table.add_column("request", no_wrap=True)
        now = time.time()
        for record in records:
            request = f"{record.method} {record.path}".strip() or "(orphan)"
            made = _ago(now - record.created_at)
            table.add_row(record.key, _state_of(record), made, request)
        width = None if sys.stdout.isatty() else 200
        Console(highlight=False, width=width).print(table)

    def logs(self, name: str) -> AbstractContextManager[None]:
        """A step for each record of a logger, from INFO on."""

        def tell(record: logging.LogRecord) -> None:
            self.step(record.levelname.lower(), record.getMessage())

        return _listening(name, tell)

    def error(
        self,
        error: str,
        message: str,
        key: str | None,
        exit_code: int,
        *,
        ticket: str | None = None,
    ) -> None:
        """Say that it went wrong."""
        self._console.print("[bold red]error:[/] ", end="")
        self._console.print(message, markup=False, soft_wrap=True)
        if ticket and exit_code in (TIMED_OUT, INTERRUPTED):
            self._console.print("[bold cyan]ticket        [/] ", end="")
            self._console.print(ticket, markup=False, soft_wrap=True)


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


def _state_of(record: JobRecord) -> str:
    if record.uncollected:
        return "to be saved"
    if record.state is JobState.READY:
        return "done"
    return record.state.replace("_", " ")


@contextmanager
def _listening(name: str, tell: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tell(record)

    logger, handler = logging.getLogger(name), Handler(logging.INFO)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
