"""What the commands say, whoever they say it to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .. import CopiedFile, JobEvent, SavedFile
from ..progress import ProgressHandler
from ..protocol.lifecycle import JobRecord


@dataclass(frozen=True, slots=True)
class Failure:
    """How something went wrong."""

    error: str
    """The name of the error."""
    message: str
    exit_code: int
    key: str | None = None
    """The job that it is about."""
    ticket: str | None = None
    """What restores that job."""
    kept: int | None = None
    """Bytes of the file that are here, and that will be gone on with; None when there was no
    download."""
    advice: str | None = None
    """How to go on with them."""
    keys: tuple[str, ...] = ()
    """Of several jobs, those that AF10 may go on with."""


class AccountOutput(Protocol):
    """Where the work for one account speaks to."""

    def job(self, event: JobEvent) -> None:
        """Say that its job has come a step further."""

    def download(
        self, key: str | None, *, name: str = "download"
    ) -> AbstractContextManager[ProgressHandler]:
        """Show the progress of its download, while the block lasts."""
        ...

    def done(self, file: SavedFile | CopiedFile, key: str | None) -> None:
        """Say that its file is there."""

    def removed(self, paths: Sequence[Path]) -> None:
        """Say which of its older backups were removed."""

    def failed(self, failure: Failure) -> None:
        """Say that it went wrong."""


class Output(AccountOutput, Protocol):
    """Where a command speaks to."""

    def step(self, name: str, text: str, **details: Any) -> None:
        """Something has happened."""

    def jobs(self, records: Sequence[JobRecord]) -> None:
        """List what is in a store."""

    def logs(self, name: str) -> AbstractContextManager[None]:
        """Say what a logger says, while the block lasts."""
        ...

    def board(self, accounts: Sequence[str]) -> AbstractContextManager[Board]:
        """Show what becomes of each account, while the block lasts, and then a summary."""
        ...


class Board(Protocol):
    """What becomes of many accounts."""

    def account(self, name: str) -> AccountOutput:
        """Where this one speaks to."""
        ...


@dataclass(slots=True)
class Tally:
    """How many are where, and what came of them."""

    accounts: int
    saved: int = 0
    failed: int = 0
    size: int = 0
    """Bytes of all files."""


@contextmanager
def listening(name: str, tell: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    """Call `tell` for each record of a logger, from INFO on."""

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
