"""JSON lines, for programs."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from .. import CopiedFile, JobEvent, Progress, SavedFile
from ..progress import ProgressHandler
from ..protocol.lifecycle import JobRecord
from ..protocol.tickets import ticket_of
from .output import Failure, Tally, listening


class JsonOutput:
    """One JSON object a line on stdout, and nothing else there."""

    def __init__(self, tally: Tally | None = None, **labels: str) -> None:
        self._tally = tally
        self._labels = labels

    def step(self, name: str, text: str, **details: Any) -> None:
        """Something has happened."""
        self._line(name, **details)

    def job(self, event: JobEvent) -> None:
        """Say that a job has come a step further."""
        failure = {"failure": event.failure} if event.failure else {}
        self._line(str(event.state), key=event.key, at=event.at, **failure)

    @contextmanager
    def download(self, key: str | None, *, name: str = "download") -> Iterator[ProgressHandler]:
        """A line at the start, one about each second, and one at the end."""
        told_at, told = -1.0, -1

        def tell(progress: Progress) -> None:
            nonlocal told_at, told
            is_whole = progress.received == progress.total != told
            if not is_whole and progress.seconds - told_at < 1:
                return
            told_at, told = progress.seconds, progress.received
            left = progress.seconds_left
            self._line(
                "progress",
                received=progress.received,
                total=progress.total,
                rate=round(progress.rate),
                seconds_left=None if left is None else round(left, 1),
                segment=progress.segment,
                segments=progress.segments,
                resumed_from=progress.resumed_from,
                key=key,
            )

        yield tell

    def done(self, file: SavedFile | CopiedFile, key: str | None) -> None:
        """Say that the file is there."""
        if self._tally is not None:
            self._tally.saved += 1
            self._tally.size += file.size
        common = {"size": file.size, "sha256": file.sha256, "seconds": round(file.seconds, 3)}
        more = {"attempts": file.attempts, "key": key}
        if isinstance(file, SavedFile):
            more = {"resumed_from": file.resumed_from, **more}
            self._line("saved", path=str(file.path), **common, **more)
        else:
            self._line("copied", url=file.url, **common, **more)

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

        return listening(name, tell)

    def removed(self, paths: Sequence[Path]) -> None:
        """A line for each older backup that was removed."""
        for path in paths:
            self._line("removed", path=str(path))

    @contextmanager
    def board(self, accounts: Sequence[str]) -> Iterator[JsonBoard]:
        """Each line says whose it is; the last one has the sums."""
        tally, started = Tally(len(accounts)), time.monotonic()
        try:
            yield JsonBoard(tally)
        finally:
            self._line(
                "summary",
                accounts=tally.accounts,
                saved=tally.saved,
                failed=tally.failed,
                bytes=tally.size,
                seconds=round(time.monotonic() - started, 3),
            )

    def failed(self, failure: Failure) -> None:
        """Say that it went wrong."""
        if self._tally is not None:
            self._tally.failed += 1
        more: dict[str, Any] = {"ticket": failure.ticket} if failure.ticket else {}
        more |= {"keys": list(failure.keys)} if failure.keys else {}
        if failure.kept is not None:
            more |= {"resumable": failure.kept > 0}
            more |= {"kept": failure.kept} if failure.kept else {}
        self._line(
            "error",
            error=failure.error,
            message=failure.message,
            key=failure.key,
            exit_code=failure.exit_code,
            **more,
        )

    def _line(self, event: str, **details: Any) -> None:
        sys.stdout.write(json.dumps({"event": event, **self._labels, **details}) + "\n")
        sys.stdout.flush()


class JsonBoard:
    """What becomes of many accounts, as lines."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def account(self, name: str) -> JsonOutput:
        """Lines with the name of the account."""
        return JsonOutput(self._tally, account=name)
