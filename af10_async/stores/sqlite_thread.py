"""The thread that has the connection: it alone reads and writes the file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import StoreError
from .base import SESSION_SECONDS
from .sqlite_file import Version, connect, persistently, roll_back, store_error
from .sqlite_transaction import Session, Transaction
from .waiters import Waiters

logger = logging.getLogger(__name__)

_MOST_AT_ONCE = 500
"""Most operations of one transaction: another process may be waiting for its turn."""
_SWEEP_EVERY = 60.0
"""Seconds between two looks for records whose time is over."""
_SIGN_EVERY = SESSION_SECONDS / 3
"""Seconds between two signs of life, while there is anything leased."""

Step = Callable[[Transaction], Any]


@dataclass(frozen=True)
class Timing:
    """How long and how often."""

    patience: float
    """Seconds that a lock of another process is waited for."""
    poll: float
    """Seconds between two looks for what other processes changed, while anybody waits."""
    recheck: float
    """Seconds after which such a look no longer relies on SQLite's word that nothing changed."""


@dataclass(eq=False, slots=True)
class Request:
    """An operation, and who wants to know what came of it."""

    step: Step
    writes: bool
    key: str | None
    """Of which record it wants to know."""
    future: asyncio.Future[Any] | None
    result: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        """Tell whoever still waits."""
        future = self.future
        if future is None or future.done():
            return
        if self.error is None:
            future.set_result(self.result)
        else:
            future.set_exception(self.error)


class StoreThread(threading.Thread):
    """Runs operations on the file, as many in one transaction as have come meanwhile.

    So the price of a commit, which is that of the disk, is paid once for all of them. Nobody hears
    of an operation before it is committed. Everything public is for the loop's thread, but `ask`
    without a future.
    """

    def __init__(
        self,
        path: Path,
        version: Version,
        session: Session,
        waiters: Waiters,
        now: Callable[[], float],
        timing: Timing,
    ) -> None:
        super().__init__(name="af10_async store", daemon=True)
        self.loop = asyncio.get_running_loop()
        self.ended = self.loop.create_future()
        """Done when the file is closed."""
        self.commits = 0
        self._path = path
        self._version = version
        self._session = session
        self._waiters = waiters
        self._now = now
        self._timing = timing
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._is_stopping = False
        self._swept_at: float | None = now()
        self._seen: int | None = None
        """The last change that waiters were told of; None while nobody waits."""
        self._data_version = 0
        self._poll_at = self._recheck_at = 0.0

    def ask(self, request: Request) -> None:
        """Have an operation done."""
        if self.ended.done():
            request.error = StoreError("the store is closed")
            request.settle()
        else:
            self._requests.put(request)

    def stop(self) -> None:
        """Do what was asked before, then close the file and end."""
        self._requests.put(None)

    # -- in the thread -----------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop`."""
        error: StoreError | None = None
        try:
            connection = connect(self._path, self._version, self._timing.patience)
            try:
                self._serve(connection)
            finally:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()
        except StoreError as found:
            error = found
        except Exception as found:
            logger.exception("the thread of the store ended")
            error = StoreError(f"the store {self._path} failed ({type(found).__name__})")
        self._tell(self._end, error)

    def _serve(self, connection: sqlite3.Connection) -> None:
        while not self._is_stopping:
            requests = self._take()
            if requests or self._is_due():
                self._transact(connection, requests)
            if self._seen is not None and time.monotonic() >= self._poll_at:
                self._poll(connection)
        if self._session.alive_until is not None:
            leave = [Request(self._take_leave, True, None, None)]
            try:
                persistently(lambda: self._attempt(connection, leave), self._timing.patience)
            except sqlite3.Error as error:
                logger.debug("the leases in %s end by themselves: %s", self._path, error)

    def _take(self) -> list[Request]:
        """Everything that was asked meanwhile; waits for it until there is something else to do."""
        if self._seen is not None:
            timeout: float | None = max(0.0, self._poll_at - time.monotonic())
        elif self._session.alive_until is not None:
            timeout = _SIGN_EVERY
        else:
            timeout = None
        found: list[Request] = []
        with contextlib.suppress(queue.Empty):
            request = self._requests.get(timeout=timeout)
            while request is not None:
                found.append(request)
                if len(found) == _MOST_AT_ONCE:
                    return found
                request = self._requests.get_nowait()
            self._is_stopping = True
        return found

    def _is_due(self) -> bool:
        now = self._now()
        return self._session.is_due(now) or self._is_sweep_due(now)

    def _is_sweep_due(self, now: float) -> bool:
        return self._swept_at is None or now - self._swept_at >= _SWEEP_EVERY

    def _transact(self, connection: sqlite3.Connection, requests: list[Request]) -> None:
        keys: list[str] = []
        try:
            keys = persistently(lambda: self._attempt(connection, requests), self._timing.patience)
        except Exception as error:
            _fail(requests, self._describe(error))
        self._tell(self._settle, requests, keys)

    def _attempt(self, connection: sqlite3.Connection, requests: list[Request]) -> list[str]:
        """One transaction; the keys of what it changed. Nothing has happened when it raises."""
        now = self._now()
        transaction = Transaction(connection, self._session, now)
        sweeps = self._is_sweep_due(now)
        writes = sweeps or self._session.is_due(now) or any(each.writes for each in requests)
        connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        try:
            seen = self._look_from_here(connection)
            is_swept = transaction.sweep() if sweeps else False
            transaction.load(each.key for each in requests if each.key is not None)
            for request in requests:
                _perform(request, transaction)
            number = transaction.flush() if writes else None
            # Others that read may hold this up for a moment; it can be tried again as it is.
            persistently(lambda: connection.execute("COMMIT"), self._timing.patience)
        except BaseException:
            roll_back(connection)
            raise
        self.commits += 1
        transaction.commit()
        if sweeps:
            self._swept_at = now if is_swept else None
        if number is not None and seen == number - 1:
            seen = number  # ours, and nobody else's came in between
        self._seen = seen
        return transaction.changed

    def _look_from_here(self, connection: sqlite3.Connection) -> int | None:
        """The change after which to look for more; None when nobody waits.

        Whoever waits was noted as a waiter before asking for the record, so asks for it in this
        transaction or in a later one, and what changes after it will be found.
        """
        if not self._waiters:
            return None
        if self._seen is not None:
            return self._seen
        self._data_version = _number(connection, "PRAGMA data_version")
        self._poll_at = time.monotonic() + self._timing.poll
        self._recheck_at = time.monotonic() + self._timing.recheck
        return _number(connection, "SELECT coalesce(max(number), 0) FROM changes")

    def _poll(self, connection: sqlite3.Connection) -> None:
        """Wake the waiters of what other processes have changed."""
        if not self._waiters:
            self._seen = None
            return
        self._poll_at = time.monotonic() + self._timing.poll
        try:
            # The version is kept in memory, or in the first page of the file: this reads no disk.
            version = _number(connection, "PRAGMA data_version")
            if version == self._data_version and time.monotonic() < self._recheck_at:
                return
            keys = self._news(connection)
        except (sqlite3.Error, ValueError) as error:
            logger.debug("no look at the changes in %s: %s", self._path, error)
            return
        self._data_version = version
        self._recheck_at = time.monotonic() + self._timing.recheck
        if keys:
            self._tell(self._waiters.wake_all, keys)

    def _news(self, connection: sqlite3.Connection) -> list[str]:
        """Those of the waiters' keys whose records were changed since the last look."""
        assert self._seen is not None
        found = connection.execute(
            "SELECT number, keys FROM changes WHERE number > ? ORDER BY number", (self._seen,)
        ).fetchall()
        if not found:
            return []
        is_gap = found[0][0] != self._seen + 1
        self._seen = found[-1][0]
        if is_gap:  # so late that the list of changes was cut meanwhile
            return self._waiters.keys
        changed = {key for _, keys in found for key in json.loads(keys)}
        return [key for key in changed if key in self._waiters]

    def _take_leave(self, transaction: Transaction) -> None:
        transaction.connection.execute("DELETE FROM sessions WHERE id = ?", (self._session.id,))

    def _describe(self, error: Exception) -> StoreError:
        if isinstance(error, sqlite3.Error):
            return store_error(error, self._path)
        logger.error("the store failed", exc_info=error)
        return StoreError(f"the store {self._path} failed ({type(error).__name__})")

    def _tell(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the loop was closed before the store: nobody is left to be told
            self._is_stopping = True

    # -- in the loop -------------------------------------------------------------------------------

    def _settle(self, requests: list[Request], keys: Iterable[str]) -> None:
        for request in requests:
            request.settle()
        self._waiters.wake_all(keys)

    def _end(self, error: StoreError | None) -> None:
        self.ended.set_result(None)
        left: list[Request] = []
        with contextlib.suppress(queue.Empty):
            while True:
                request = self._requests.get_nowait()
                if request is not None:
                    left.append(request)
        _fail(left, error or StoreError("the store is closed"))
        for request in left:
            request.settle()
        self._waiters.wake_all()


def _perform(request: Request, transaction: Transaction) -> None:
    request.result, request.error = None, None
    try:
        request.result = request.step(transaction)
    except sqlite3.Error:
        raise
    except Exception as error:  # of this one only: it has changed nothing
        request.error = error


def _fail(requests: Iterable[Request], error: StoreError) -> None:
    for request in requests:
        request.result, request.error = None, error.fresh()


def _number(connection: sqlite3.Connection, statement: str) -> int:
    return int(connection.execute(statement).fetchone()[0])
