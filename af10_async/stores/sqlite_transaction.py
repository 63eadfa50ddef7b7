"""What the operations of one transaction see and do.

All records that they need are read by one statement and all that they changed are written by one.
That is not only for SQLite's sake: Python's lock is let go of around every step of a statement, and
has to be fought for again with a busy event loop each time.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..errors import StoreError
from ..protocol.lifecycle import JobRecord
from ..protocol.records import RecordError, decode, encode
from .base import SESSION_SECONDS
from .sessions import is_gone

_AT_ONCE = 500
"""Most records that one sweep takes away."""
_CHANGES_KEPT = 2000
"""Commits whose changes other processes can still learn of one by one."""
_LOAD = """
    SELECT json_group_array(json_array(key, record, owner)) FROM jobs
    WHERE key IN (SELECT value FROM json_each(?))"""
_TOUCH = """
    INSERT INTO jobs (key, account, unfinished, expires_at, record, owner)
    SELECT
        json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
        json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]')
    FROM json_each(?) WHERE true
    ON CONFLICT (key) DO UPDATE SET record = excluded.record, owner = excluded.owner"""
# Another statement, because whatever is named in it costs a change of its index.
_PLACE = (
    _TOUCH
    + ", account = excluded.account, unfinished = excluded.unfinished,"
    + " expires_at = excluded.expires_at"
)


@dataclass(slots=True)
class Session:
    """What an open store is known by to the others over the same file."""

    id: str
    process: str
    alive_until: float | None = None
    """Until when the others take it for alive without hearing of it; None while it has no leases.
    """

    def is_due(self, now: float) -> bool:
        """Whether it is time for a sign of life."""
        if self.alive_until is None:
            return False
        # Less than a third is gone of the time; more is left than there ever was when the clock
        # was set back.
        return not SESSION_SECONDS * 2 / 3 < self.alive_until - now <= SESSION_SECONDS


@dataclass(slots=True)
class Row:
    """A record as it is stored."""

    key: str
    text: str
    owner: str | None
    record: JobRecord | None = field(default=None, repr=False)

    def read(self) -> JobRecord:
        """The record; StoreError when this release does not understand it."""
        if self.record is None:
            try:
                self.record = decode(self.text)
            except RecordError as error:
                raise StoreError(str(error), key=self.key) from None
        return self.record


class Transaction:
    """The records that operations change, until they are written by `flush`.

    An operation that raises has changed nothing.
    """

    def __init__(self, connection: sqlite3.Connection, session: Session, now: float) -> None:
        self.connection = connection
        self.now = now
        self.changed: list[str] = []
        """The keys of which waiters should look again."""
        self._session = session
        self._rows: dict[str, Row | None] = {}
        self._touched: set[str] = set()
        """Of which nothing that is searched for has changed."""
        self._placed: set[str] = set()
        """New, or changed in what is searched for."""
        self._removed: set[str] = set()
        self._is_lessee = False

    # -- for operations ----------------------------------------------------------------------------

    def find(self, key: str) -> Row | None:
        """What is stored under `key`; there until it was swept, also when its time is over."""
        if key not in self._rows:
            self.load((key,))
        return self._rows[key]

    def add(self, record: JobRecord, *, leased: bool = False) -> None:
        """Store a new record."""
        owner = self._session.id if leased else None
        row = Row(record.key, encode(record), owner, record)
        self._is_lessee = self._is_lessee or leased
        self._store(row, is_like_before=False)
        self.changed.append(record.key)

    def change(self, row: Row, record: JobRecord) -> None:
        """Store another state of a record."""
        is_like_before = _indexed(row.read()) == _indexed(record)
        new = Row(row.key, encode(record), row.owner, record)
        self._store(new, is_like_before=is_like_before)
        self.changed.append(row.key)

    def lease(self, row: Row) -> bool:
        """Make this store the owner of a job; False when it has one that is alive."""
        if not row.read().is_unfinished:
            return False
        if row.owner is not None and self._is_alive(row.owner):
            return False
        owned = Row(row.key, row.text, self._session.id, row.read())
        self._is_lessee = True
        self._store(owned, is_like_before=True)
        return True

    def release(self, row: Row) -> None:
        """End the lease of this store on a job, if there is one."""
        if row.owner == self._session.id:
            self._store(Row(row.key, row.text, None, row.read()), is_like_before=True)

    def forget(self, key: str) -> None:
        """Remove what is stored under `key`."""
        self._rows[key] = None
        self._touched.discard(key)
        self._placed.discard(key)
        self._removed.add(key)
        self.changed.append(key)

    def page(
        self, condition: str, arguments: tuple[str, ...], after: int, size: int
    ) -> list[tuple[int, str]]:
        """The next records, as they are in the file; each with its place in the order."""
        return self._list(
            "SELECT json_group_array(json_array(id, record)) FROM"  # noqa: S608 - none is from outside
            f" (SELECT id, record FROM jobs WHERE {condition} id > ? ORDER BY id LIMIT ?)",
            *arguments,
            after,
            size,
        )

    # -- for the thread ----------------------------------------------------------------------------

    def load(self, keys: Iterable[str]) -> None:
        """Read what is stored under each of `keys`."""
        wanted = list(set(keys).difference(self._rows))
        if not wanted:
            return
        self._rows.update(dict.fromkeys(wanted))
        for key, text, owner in self._list(_LOAD, json.dumps(wanted)):
            self._rows[key] = Row(key, text, owner)

    def sweep(self) -> bool:
        """Remove records whose time is over, and dead sessions; whether that was all."""
        found = self._list(
            "SELECT json_group_array(key) FROM"
            " (SELECT key FROM jobs WHERE expires_at <= ? LIMIT ?)",
            self.now,
            _AT_ONCE,
        )
        for key in found:
            self.forget(key)
        sessions = "SELECT id, alive_until, process FROM sessions WHERE id != ?"
        for id_, alive_until, process in self.connection.execute(
            sessions, (self._session.id,)
        ).fetchall():
            if self._is_over(alive_until, process):
                self.connection.execute("DELETE FROM sessions WHERE id = ?", (id_,))
        return len(found) < _AT_ONCE

    def flush(self) -> int | None:
        """Write everything; the number of the change, if any record changed."""
        if self._removed:
            self._write(
                "DELETE FROM jobs WHERE key IN (SELECT value FROM json_each(?))",
                list(self._removed),
            )
        # What was removed and added again within one transaction is in both.
        if self._touched:
            self._write(_TOUCH, [self._columns(key) for key in self._touched])
        if self._placed:
            self._write(_PLACE, [self._columns(key) for key in self._placed])
        if self._is_sign_due:
            self._renew()
        return self._note_changes() if self.changed else None

    def commit(self) -> None:
        """Remember what became true by the commit."""
        if self._is_sign_due:
            self._session.alive_until = self.now + SESSION_SECONDS

    # ----------------------------------------------------------------------------------------------

    def _store(self, row: Row, *, is_like_before: bool) -> None:
        key = row.key
        self._rows[key] = row
        if key in self._placed or not is_like_before:
            self._placed.add(key)
            self._touched.discard(key)
        else:
            self._touched.add(key)

    def _is_alive(self, owner: str) -> bool:
        if owner == self._session.id:
            return True
        found = self.connection.execute(
            "SELECT alive_until, process FROM sessions WHERE id = ?", (owner,)
        ).fetchone()
        return found is not None and not self._is_over(*found)

    def _is_over(self, alive_until: float, process: str) -> bool:
        """Whether a session has ended without saying so."""
        gone = is_gone(process)
        # What can be seen of a process counts for more than the clock, which may be set.
        return alive_until <= self.now if gone is None else gone

    def _columns(self, key: str) -> list[Any]:
        row = self._rows[key]
        assert row is not None
        account, unfinished, expires_at = _indexed(row.read())
        return [key, account, unfinished, expires_at, row.text, row.owner]

    @property
    def _is_sign_due(self) -> bool:
        is_first = self._is_lessee and self._session.alive_until is None
        return is_first or self._session.is_due(self.now)

    def _renew(self) -> None:
        self.connection.execute(
            "INSERT OR REPLACE INTO sessions (id, alive_until, process) VALUES (?, ?, ?)",
            (self._session.id, self.now + SESSION_SECONDS, self._session.process),
        )

    def _note_changes(self) -> int:
        number = self.connection.execute(
            "INSERT INTO changes (keys) VALUES (?)", (json.dumps(self.changed),)
        ).lastrowid
        assert number is not None
        if number % 100 == 0:
            self.connection.execute(
                "DELETE FROM changes WHERE number <= ?", (number - _CHANGES_KEPT,)
            )
        return number

    def _list(self, statement: str, *arguments: Any) -> list[Any]:
        found: list[Any] = json.loads(self.connection.execute(statement, arguments).fetchone()[0])
        return found

    def _write(self, statement: str, rows: list[Any]) -> None:
        self.connection.execute(statement, (json.dumps(rows),))


def _indexed(record: JobRecord) -> tuple[str | None, int, float]:
    """What is searched for, beside the key."""
    return record.account, int(record.is_unfinished), record.expires_at
