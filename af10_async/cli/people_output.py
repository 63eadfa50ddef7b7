"""Words and progress bars, for people."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text

from .. import CopiedFile, JobEvent, JobState, Progress, SavedFile
from ..progress import ProgressHandler
from ..protocol.keys import KEY_LENGTH
from ..protocol.lifecycle import JobRecord
from .exit_codes import INTERRUPTED, TIMED_OUT
from .output import Failure, listening
from .people_board import PeopleBoard, tell_place, units

_STEPS = {
    JobState.REGISTERED: "the request goes out; the job is on record",
    JobState.ACCEPTED: "AF10 accepted it, and will call back",
    JobState.CALLED_BACK: "AF10 called back with the secret",
    JobState.READY: "the secret was redeemed for the file's address",
    JobState.FAILED: "AF10 refused it",
    JobState.EXPIRED: "its time is over",
}


class PeopleOutput:
    """Steps and progress bars on stderr; where the file is, alone on stdout."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bars: Bars | None = None

    def step(self, name: str, text: str, **details: Any) -> None:
        """Something has happened."""
        self._line(f"{name:<14}", "bold cyan", text)

    def job(self, event: JobEvent) -> None:
        """Say that a job has come a step further."""
        text = _STEPS.get(event.state, "")
        if event.state is JobState.REGISTERED:
            text += f": {event.key}"
        self.step(event.state.replace("_", " "), text)

    @contextmanager
    def download(self, key: str | None, *, name: str = "download") -> Iterator[ProgressHandler]:
        """A bar, with the rate and the time left; a line when it goes on with what was here."""
        with self._bar(name) as (bars, task):
            resumed_from = 0

            def tell(progress: Progress) -> None:
                nonlocal resumed_from
                connections = progress.segments
                if progress.resumed_from != resumed_from:
                    resumed_from = progress.resumed_from
                    self._tell_resumed(resumed_from)
                bars.update(
                    task,
                    completed=progress.received,
                    total=progress.total,
                    rate=f"{units(progress.rate)}/s" if progress.rate else "",
                    left=_left(progress),
                    segments=f"{connections} segments" if connections > 1 else "",
                )

            yield tell

    @contextmanager
    def _bar(self, name: str) -> Iterator[tuple[Bars, TaskID]]:
        """One more bar below those that there are."""
        bars = self._bars or Bars(
            TextColumn("[bold cyan]{task.description:<14}[/]"),
            BarColumn(bar_width=None),
            DownloadColumn(binary_units=True, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[segments]}"),
            console=self._console,
            expand=True,
            redirect_stdout=False,
        )
        if self._bars is None:
            self._bars = bars
            bars.start()
        task = bars.add_task(name, total=None, rate="", left="", segments="")
        try:
            yield bars, task
        finally:
            if len(bars.task_ids) > 1:
                bars.remove_task(task)
            else:  # the last one stays to be seen
                self._bars = None
                bars.stop()

    def _tell_resumed(self, resumed_from: int) -> None:
        if resumed_from:
            self.step("going on", f"resumed from {units(resumed_from)} that were here already")
        else:
            self.step("starting over", "what was here could not be gone on with")

    def done(self, file: SavedFile | CopiedFile, key: str | None) -> None:
        """Say that the file is there."""
        text = f"{file.size:,} bytes in {file.seconds:.1f} s"
        if isinstance(file, SavedFile) and file.resumed_from and file.attempts:
            text += f", resumed from {units(file.resumed_from)}"
        if file.attempts > 1:
            text += f", {file.attempts} attempts"
        if not file.attempts:
            text = f"{file.size:,} bytes, which were here already"
        is_saved = isinstance(file, SavedFile)
        self.step("saved" if is_saved else "copied", text)
        self.step("SHA-256", file.sha256)
        tell_place(file, self._console if self._bars is not None else None)

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

        return listening(name, tell)

    def removed(self, paths: Sequence[Path]) -> None:
        """Say which older backups were removed."""
        for path in paths:
            self.step("removed", str(path))

    def board(self, accounts: Sequence[str]) -> AbstractContextManager[PeopleBoard]:
        """A table that lives, or a line for each that ends where there is no terminal."""
        return PeopleBoard(self._console, accounts)

    def failed(self, failure: Failure) -> None:
        """Say that it went wrong."""
        self._line("error:", "bold red", failure.message)
        if failure.kept and failure.advice:
            self.step("go on", f"{units(failure.kept)} are here: {failure.advice}")
        for key in failure.keys:
            self.step("job", key)
        if failure.ticket and failure.exit_code in (TIMED_OUT, INTERRUPTED):
            self.step("ticket", failure.ticket)

    def _line(self, name: str, style: str, text: str) -> None:
        # In one go, else a progress bar comes in between.
        self._console.print(Text.assemble((name, style), " ", text), soft_wrap=True)


def _left(progress: Progress) -> str:
    left = progress.seconds_left
    if left is None or progress.received == progress.total:
        return ""
    return f"{timedelta(seconds=round(left))} left"


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
