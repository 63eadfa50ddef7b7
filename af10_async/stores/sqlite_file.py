"""The database file: made whole or not at all, opened in a safe journal mode, and kept private.

Everything here blocks, and belongs in the thread of the store.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..errors import StoreError
from .sessions import identity, is_gone

logger = logging.getLogger(__name__)

T = TypeVar("T")
Version = tuple[int, int, int]

APPLICATION_ID = 0x41463130
"""Marks the files that are ours ("AF10")."""
_STEPS: tuple[tuple[str, ...], ...] = (
    (
        f"PRAGMA application_id = {APPLICATION_ID}",
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID",
        """CREATE TABLE jobs (
            id INTEGER PRIMARY KEY,
            key TEXT NOT NULL UNIQUE,
            account TEXT,
            unfinished INTEGER NOT NULL,
            expires_at REAL NOT NULL,
            record TEXT NOT NULL
        )""",
        "CREATE INDEX jobs_unfinished ON jobs (account) WHERE unfinished",
        "CREATE INDEX jobs_expiry ON jobs (expires_at)",
        # One row for each commit that changed records: what other processes wake their waiters by.
        "CREATE TABLE changes (number INTEGER PRIMARY KEY, keys TEXT NOT NULL)",
    ),
    (
        "ALTER TABLE jobs ADD COLUMN owner TEXT",
        """CREATE TABLE sessions (
            id TEXT PRIMARY KEY,
            alive_until REAL NOT NULL,
            process TEXT NOT NULL
        ) WITHOUT ROWID""",
    ),
)
"""What makes each version of the schema of the one before; a step that was released never changes.
"""
_PASSING = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_CANTOPEN,  # the journal could not be made: for want of descriptors, say
}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_SHORTEST_NAP, _LONGEST_NAP = 0.0005, 0.003
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_FOLDER_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES, errno.EISDIR}


def journal_mode(version: Version) -> str:
    """`WAL` where SQLite can be trusted with it, `TRUNCATE` where it cannot.

    Before 3.51.3 (and 3.50.7, and 3.44.6) a database in WAL mode that two connections write can be
    damaged when the log is started anew: https://sqlite.org/wal.html#walresetbug.
    """
    fixed = (
        version >= (3, 51, 3)
        or (3, 50, 7) <= version < (3, 51, 0)
        or (3, 44, 6) <= version < (3, 45, 0)
    )
    return "WAL" if fixed else "TRUNCATE"


def absolute(path: str | os.PathLike[str]) -> Path:
    """The path with `~` and links followed, so that each way to a file gives the same name."""
    try:
        return Path(path).expanduser().resolve()
    except (OSError, RuntimeError):
        raise StoreError(f"{os.fspath(path)} leads nowhere: give another path") from None


def connect(path: Path, version: Version, patience: float) -> sqlite3.Connection:
    """A connection to the store's file, which is made when there is none. Raises StoreError.

    Args:
        path: As `absolute` gives it.
        version: The version of SQLite.
        patience: Seconds that a lock of another process is waited for.

    """
    try:
        _remove_unfinished(path)
        if not path.exists():
            _create(path, journal_mode(version))
        _check(path)
    except OSError as error:
        raise _open_error(path, error.strerror or "no reason given") from None
    except sqlite3.Error as error:
        raise _creation_error(error, path) from None
    connection = _connect(path, "mode=rw")
    try:
        persistently(lambda: _set_mode(connection, path, version, patience), patience)
        persistently(lambda: migrate(connection, path), patience)
    except sqlite3.Error as error:
        connection.close()
        raise store_error(error, path) from None
    except BaseException:
        connection.close()
        raise
    return connection


def persistently(step: Callable[[], T], patience: float) -> T:
    """What `step` gives, which is done again while another connection has the database locked.

    SQLite waits by itself too, but takes naps of up to a tenth of a second: where two processes
    write all the time, one that sleeps so long misses each short moment in which the other has let
    go, until its time is over.
    """
    until = time.monotonic() + patience
    nap = _SHORTEST_NAP
    while True:
        try:
            return step()
        except sqlite3.Error as error:
            if not _is_busy(error) or time.monotonic() >= until:
                raise
        time.sleep(nap)
        nap = min(nap * 1.5, _LONGEST_NAP)


def store_error(error: sqlite3.Error, path: Path) -> StoreError:
    """The error of ours that says what SQLite means. Never holds what was to be stored."""
    code = _code(error)
    says = {
        sqlite3.SQLITE_FULL: "there is no room left for {}: make room on its disk",
        sqlite3.SQLITE_BUSY: "{} is locked by another process that does not let go of it",
        sqlite3.SQLITE_LOCKED: "{} is locked by another process that does not let go of it",
        sqlite3.SQLITE_IOERR: "{} could not be read or written: look after its disk",
        sqlite3.SQLITE_NOTADB: "{} is no store of ours: give another path, or move it away",
        sqlite3.SQLITE_CORRUPT: "{} is damaged: move it away, and put back a copy of it if you"
        " have one",
        sqlite3.SQLITE_READONLY: "{} cannot be written any more: look at the permissions of the"
        " file and of its folder, and whether it was moved or deleted",
        sqlite3.SQLITE_CANTOPEN: "{} or the journal beside it could not be opened: look at the"
        " permissions of its folder",
    }
    sentence = says.get(code, "the store {} failed").format(path)
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    return StoreError(f"{sentence} ({name})", retryable=code in _PASSING)


def migrate(connection: sqlite3.Connection, path: Path, steps: int = len(_STEPS)) -> None:
    """Bring the schema up to date, step by step; several processes may do so at once."""
    while True:
        known = _number(connection, "user_version")
        if known > len(_STEPS):
            raise StoreError(f"{path} was made by a newer release of af10-async: upgrade this one")
        if known >= steps:
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _number(connection, "user_version") == known:
                for statement in _STEPS[known]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {known + 1}")
            connection.execute("COMMIT")
        except BaseException:
            roll_back(connection)
            raise


def roll_back(connection: sqlite3.Connection) -> None:
    """Undo what was not committed."""
    with contextlib.suppress(sqlite3.Error):
        if connection.in_transaction:  # SQLite has done it by itself after some errors
            connection.execute("ROLLBACK")


# -- making it -------------------------------------------------------------------------------------


def _create(path: Path, mode: str) -> None:
    """Make the file under another name; it gets its own when it is whole and on the disk."""
    _make_folders(path.parent)
    maker = identity().replace("/", "_")  # so that others can tell whether it is still at it
    new = path.with_name(f".{path.name}.{maker}.{secrets.token_hex(4)}.new")
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with contextlib.closing(_connect(new, "mode=rw")) as connection:
            connection.execute(f"PRAGMA journal_mode = {mode}")
            migrate(connection, path)
        _flush(new)
        _give_name(new, path)
    finally:
        _remove(new)
    _flush_folder(path.parent)


def _remove(new: Path) -> None:
    for suffix in ("-journal", "-wal", "-shm", ""):  # itself last: by it the others are found
        new.with_name(new.name + suffix).unlink(missing_ok=True)


def _remove_unfinished(path: Path) -> None:
    """What a process that died while it made the file has left beside it."""
    for new in path.parent.glob(f".{glob.escape(path.name)}.*.new"):
        maker = new.name.removeprefix(f".{path.name}.").rpartition(".new")[0].rpartition(".")[0]
        if is_gone(maker.replace("_", "/")):
            _remove(new)


def _make_folders(folder: Path) -> None:
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        _flush_folder(each.parent)


def _give_name(new: Path, path: Path) -> None:
    with contextlib.suppress(FileExistsError):  # another process was first: both use its file
        try:
            os.link(new, path)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            if not path.exists():  # as near as such a file system lets us come
                new.rename(path)


def _flush(file: Path) -> None:
    descriptor = os.open(file, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """So that a new name survives a power failure; some systems cannot, or need not."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_FLUSH:
            raise
    finally:
        os.close(descriptor)


# -- opening it ------------------------------------------------------------------------------------


def _check(path: Path) -> None:
    """Refuse what is not ours, before anything is done to it."""
    status = path.stat()
    if path.is_dir():
        raise StoreError(f"{path} is a folder: give the path of a file in it")
    if status.st_size == 0:
        raise StoreError(f"{path} is empty, so it is no store: remove it, and it will be made anew")
    # Read by SQLite and not by us: closing a descriptor of our own would drop the locks that
    # another store of this process has on the file. "Immutable" takes none and writes nothing.
    connection = _connect(path, "mode=ro&immutable=1")
    with contextlib.closing(connection):
        found = _number(connection, "application_id")
    if found != APPLICATION_ID:
        raise StoreError(f"{path} is a database of something else: give another path")
    _make_private(path, status.st_mode)


def _make_private(path: Path, mode: int) -> None:
    if os.name != "posix" or not mode & 0o077:
        return
    logger.warning("%s could be read by others, though it holds secrets: now it cannot", path)
    path.chmod(0o600)


def _set_mode(
    connection: sqlite3.Connection, path: Path, version: Version, patience: float
) -> None:
    # What was committed survives a power failure, in either mode.
    connection.execute("PRAGMA synchronous = FULL")
    if _text(connection, "journal_mode") != "wal":
        # The kind of rollback journal is each connection's own; only WAL is a thing of the file.
        connection.execute("PRAGMA journal_mode = TRUNCATE")
    elif journal_mode(version) != "WAL":
        _leave_wal(connection, path, version, patience)


def _leave_wal(
    connection: sqlite3.Connection, path: Path, version: Version, patience: float
) -> None:
    """Make a file of a newer SQLite one that this one cannot damage, if nobody else has it open."""
    try:
        mode = persistently(lambda: _text(connection, "journal_mode = TRUNCATE"), patience)
    except sqlite3.OperationalError as error:
        if not _is_busy(error):
            raise
        mode = "wal"
    if mode != "truncate":
        number = ".".join(map(str, version))
        raise StoreError(
            f"{path} is in use by a process whose SQLite is newer than the one here ({number}),"
            " which could damage the file in the mode it is in: stop that process, or use the same"
            " Python for both"
        )


def _connect(path: Path, options: str) -> sqlite3.Connection:
    """A connection to a file that exists."""
    return sqlite3.connect(
        f"{path.as_uri()}?{options}",
        uri=True,
        isolation_level=None,
        timeout=0,
        cached_statements=64,
    )


def _open_error(path: Path, reason: str) -> StoreError:
    return StoreError(
        f"the store {path} cannot be opened ({reason}): give a path in a folder that can be written"
    )


def _creation_error(error: sqlite3.Error, path: Path) -> StoreError:
    if _code(error) == sqlite3.SQLITE_CANTOPEN:
        return _open_error(path, "no permission, or not a file")
    return store_error(error, path)


def _code(error: sqlite3.Error) -> int:
    """The primary code: the extended one without its details."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def _is_busy(error: sqlite3.Error) -> bool:
    return _code(error) in _BUSY


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def _text(connection: sqlite3.Connection, pragma: str) -> str:
    return str(connection.execute(f"PRAGMA {pragma}").fetchone()[0])
