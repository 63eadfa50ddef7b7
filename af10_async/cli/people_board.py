"""What becomes of many accounts, for people: a table that lives, and a summary."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .. import CopiedFile, JobEvent, JobState, Progress, SavedFile
from ..progress import ProgressHandler
from .output import Failure, Tally

_STATES = {
    JobState.REGISTERED: "asking AF10",
    JobState.ACCEPTED: "accepted",
    JobState.CALLED_BACK: "called back",
    JobState.READY: "ready",
    JobState.FAILED: "refused",
    JobState.EXPIRED: "expired",
}
_BESIDE = 6
"""Lines of the terminal that the rows of the table leave free."""
_BAR = 20


@dataclass(slots=True)
class _Row:
    """One account, as it is shown."""

    name: str
    state: str = "waiting"
    style: str = "dim"
    began: float | None = None
    ended: float | None = None
    progress: Progress | None = None
    note: str = ""

    @property
    def order(self) -> tuple[int, float]:
        """Those under way first, then those that ended, the latest first, then those who wait."""
        if self.began is None:
            return (2, 0.0)
        return (0, self.began) if self.ended is None else (1, -self.ended)


@dataclass(frozen=True, slots=True)
class _Trouble:
    account: str
    failure: Failure


class PeopleBoard:
    """A context manager; at its end it says what came of all."""

    def __init__(self, console: Console, accounts: Sequence[str]) -> None:
        self._console = console
        self._rows = {name: _Row(name) for name in accounts}
        self._tally = Tally(len(accounts))
        self._troubles: list[_Trouble] = []
        self._started = time.monotonic()
        self._live = (
            Live(
                console=console,
                get_renderable=self._table,
                refresh_per_second=5,
                transient=True,
                redirect_stdout=False,  # what is for programs stays where programs read
            )
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
        self._tell_end()

    def account(self, name: str) -> _AccountRow:
        """The row of an account."""
        return _AccountRow(self, self._rows[name])

    def done(self, row: _Row, file: SavedFile | CopiedFile) -> None:
        """One more is saved."""
        self._tally.saved += 1
        self._tally.size += file.size
        text = f"{units(file.size)} in {file.seconds:.1f} s"
        if file.attempts > 1:
            text += f", {file.attempts} attempts"
        self._ended(row, "saved", "green", text)
        tell_place(file, self._console if self._live is not None else None)

    def failed(self, row: _Row, failure: Failure) -> None:
        """One more has failed."""
        self._tally.failed += 1
        self._troubles.append(_Trouble(row.name, failure))
        self._ended(row, "failed", "red", failure.message)

    def _ended(self, row: _Row, state: str, style: str, note: str) -> None:
        row.state, row.style, row.note, row.ended = state, style, note, time.monotonic()
        row.progress = None
        if self._live is None and state == "saved":
            self._line(row.name, style, f"{state}, {note}")
        elif self._live is None:
            self._line(row.name, style, f"{state}: {note}")

    # -- what is seen ------------------------------------------------------------------------------

    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False, show_header=False, expand=True)
        table.add_column(no_wrap=True, style="bold", max_width=30, overflow="ellipsis")
        table.add_column(no_wrap=True, min_width=11)
        table.add_column(no_wrap=True, width=_BAR)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        room = max(3, self._console.size.height - _BESIDE)
        rows = sorted(self._rows.values(), key=lambda row: row.order)
        shown = [row for row in rows if row.began is not None][:room]
        for row in shown:
            table.add_row(row.name, Text(row.state, row.style), _bar(row), Text(_note(row)))
        return Group(table, Text(self._counts(), "bold"))

    def _counts(self) -> str:
        waiting = sum(row.began is None for row in self._rows.values())
        ended = self._tally.saved + self._tally.failed
        under_way = len(self._rows) - waiting - ended
        counts = (
            (self._tally.saved, "saved"),
            (self._tally.failed, "failed"),
            (under_way, "under way"),
            (waiting, "waiting"),
        )
        return ", ".join(f"{many} {what}" for many, what in counts if many) or "nothing yet"

    def _tell_end(self) -> None:
        seconds = time.monotonic() - self._started
        for trouble in self._troubles:
            if self._live is not None:
                self._line(trouble.account, "red", f"failed: {trouble.failure.message}")
            if trouble.failure.ticket and trouble.failure.key:
                self._line(" ticket", "cyan", trouble.failure.ticket)
        tally = self._tally
        text = f"{tally.saved} of {tally.accounts} saved, {units(tally.size)} in {seconds:.1f} s"
        left = tally.accounts - tally.saved - tally.failed
        text += f"; {tally.failed} failed" if tally.failed else ""
        text += f"; {left} not done" if left else ""
        self._line("summary", "bold cyan", text)

    def _line(self, name: str, style: str, text: str) -> None:
        line = Text.assemble((f"{name:<14}", style), " ", text)
        self._console.print(line, soft_wrap=True)


class _AccountRow:
    """Where one account speaks to."""

    def __init__(self, board: PeopleBoard, row: _Row) -> None:
        self._board = board
        self._row = row
        row.began, row.state, row.style = time.monotonic(), "logging in", "cyan"

    def job(self, event: JobEvent) -> None:
        """Its job has come a step further."""
        self._row.state = _STATES.get(event.state, str(event.state))

    @contextmanager
    def download(self, key: str | None, *, name: str = "download") -> Iterator[ProgressHandler]:
        """A bar in its row."""
        self._row.state = "downloading"

        def tell(progress: Progress) -> None:
            self._row.progress = progress

        yield tell

    def done(self, file: SavedFile | CopiedFile, key: str | None) -> None:
        """Its file is there."""
        self._board.done(self._row, file)

    def removed(self, paths: Sequence[object]) -> None:
        """Older backups were removed."""
        if paths:
            self._row.note += f"; {len(paths)} older removed"

    def failed(self, failure: Failure) -> None:
        """It went wrong."""
        self._board.failed(self._row, failure)


def _bar(row: _Row) -> ProgressBar | str:
    if row.progress is None:
        return ""
    total = float(row.progress.total) if row.progress.total else None
    return ProgressBar(total=total, completed=row.progress.received, width=_BAR, pulse=False)


def _note(row: _Row) -> str:
    progress = row.progress
    if progress is None:
        return row.note
    text = units(progress.received)
    if progress.total:
        text += f" of {units(progress.total)}"
    return text + (f", {units(progress.rate)}/s" if progress.rate else "")


def tell_place(file: SavedFile | CopiedFile, live: Console | None) -> None:
    """Where a file is, alone on stdout; through the console that is drawing on the same screen."""
    place = str(file.path if isinstance(file, SavedFile) else file.url)
    if live is not None and sys.stdout.isatty():
        live.print(Text(place), soft_wrap=True)
    else:
        sys.stdout.write(f"{place}\n")
        sys.stdout.flush()


def units(size: float) -> str:
    """A number of bytes as people read it: `1.5 MiB`."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
