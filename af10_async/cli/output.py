"""What the commands say, whoever they say it to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
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


class Output(Protocol):
    """Where a command speaks to."""

    def step(self, name: str, text: str, **details: Any) -> None:
        """Something has happened."""

    def job(self, event: JobEvent) -> None:
        """Say that a job has come a step further."""

    def download(
        self, key: str | None, *, name: str = "download"
    ) -> AbstractContextManager[ProgressHandler]:
        """Show the progress of a download, while the block lasts; there may be several."""
        ...

    def done(self, file: SavedFile | CopiedFile, key: str | None) -> None:
        """Say that the file is there."""

    def jobs(self, records: Sequence[JobRecord]) -> None:
        """List what is in a store."""

    def logs(self, name: str) -> AbstractContextManager[None]:
        """Say what a logger says, while the block lasts."""
        ...

    def failed(self, failure: Failure) -> None:
        """Say that it went wrong."""


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
