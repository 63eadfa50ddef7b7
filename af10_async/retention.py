"""Retention: of the backups in a folder, the newest few stay.

What was saved here is on a list beside the files, and only what is on it, and still is as it was
saved, is ever removed. The list is replaced whole, after files were removed; what is on it and gone
is forgotten.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .download import SavedFile
from .errors import ConfigurationError, SaveError
from .shelter import in_thread

__all__ = ["keep_in", "keep_newest", "note_backup"]

logger = logging.getLogger("af10_async.retention")

LIST = ".af10-backups.json"
"""The list's name in the folder."""
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class _Entry:
    """One backup that was saved here."""

    name: str
    size: int
    sha256: str
    saved_at: float
    """Unix seconds."""
    account: str = ""
    """Whose it is: several may share a folder."""
    mtime_ns: int = 0
    inode: int = 0


def note_backup(
    folder: str | os.PathLike[str], saved: SavedFile, now: float, account: str = ""
) -> None:
    """Put a file that was just saved on the folder's list, as the newest of its account.

    It blocks. `now` is in Unix seconds.

    Raises:
        SaveError: the list cannot be read or written.

    """
    folder, name = Path(folder), saved.path.name
    with _locked(folder):
        found = _looked_at(folder / name)
        entries = [each for each in _read(folder) if each.name != name]
        entry = _Entry(name, saved.size, saved.sha256, now, account)
        if found is not None:
            entry = replace(entry, mtime_ns=found.st_mtime_ns, inode=found.st_ino)
        _write(folder, [*entries, entry])


def keep_newest(folder: str | os.PathLike[str], count: int, account: str = "") -> list[Path]:
    """Remove what is older than the newest `count` backups of an account on the folder's list.

    A file that is not on the list, or that has changed since, is none of them and stays. It blocks.

    Returns:
        What was removed.

    Raises:
        ConfigurationError: `count` is less than 1: the newest one always stays.
        SaveError: the list cannot be read or written.

    """
    if count < 1:
        raise ConfigurationError("keep must be at least 1: the newest backup always stays")
    folder = Path(folder)
    with _locked(folder):
        # In the order in which they were noted: clocks may go back.
        good = [each for each in _read(folder) if _is_good(folder, each)]
        old = [each for each in good if each.account == account][:-count]
        if not old:
            return []
        removed = [path for each in old if (path := _remove(folder / each.name)) is not None]
        gone = {path.name for path in removed}
        _write(folder, [each for each in good if each.name not in gone])
        return removed


async def keep_in(saved: SavedFile, keep: int, account: str, now: float) -> list[Path]:
    """Note a backup as the newest of its account in its folder, and remove what is too old there.

    When that fails, the backup is there all the same: it is a warning in the log.
    """
    folder = saved.path.parent

    def tidy() -> list[Path]:
        note_backup(folder, saved, now, account)
        return keep_newest(folder, keep, account)

    try:
        return await in_thread(tidy)
    except SaveError as error:
        logger.warning("older backups were not removed: %s", error.message)
        return []


def _is_good(folder: Path, entry: _Entry) -> bool:
    """Whether a file is still the one that was saved."""
    found = _looked_at(folder / entry.name)
    if found is None or not stat.S_ISREG(found.st_mode):
        return False
    saved = (entry.size, entry.mtime_ns, entry.inode)
    return (found.st_size, found.st_mtime_ns, found.st_ino) == saved


def _looked_at(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None


def _remove(path: Path) -> Path | None:
    try:
        path.unlink()
    except OSError as error:
        logger.warning("an old backup was not removed: %s: %s", path, error.strerror)
        return None
    logger.info("removed an old backup: %s", path)
    return path


def _read(folder: Path) -> list[_Entry]:
    path = folder / LIST
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SaveError(f"{path} cannot be read: {error.strerror}") from None
    try:
        found = json.loads(content)
        is_newer = int(found["format"]) > _FORMAT
        entries = [] if is_newer else [_entry(each) for each in found["backups"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        _put_aside(path)
        return []
    if is_newer:
        raise SaveError(f"{path} is of a newer release of af10-async: upgrade this one")
    return entries


def _put_aside(path: Path) -> None:
    aside = path.with_name(f"{LIST}.damaged")
    logger.warning("%s is damaged: it is now %s, and nothing is removed", path, aside.name)
    try:
        path.replace(aside)
    except OSError as error:
        raise SaveError(f"{path} cannot be put aside: {error.strerror}") from None


def _entry(found: dict[str, Any]) -> _Entry:
    name = found["name"]
    if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
        raise ValueError("not the name of a file in this folder")
    return _Entry(
        name,
        int(found["size"]),
        str(found["sha256"]),
        float(found["saved_at"]),
        str(found.get("account", "")),
        int(found.get("mtime_ns", 0)),
        int(found.get("inode", 0)),
    )


def _write(folder: Path, entries: list[_Entry]) -> None:
    path, new = folder / LIST, folder / f"{LIST}.new"
    content = {"format": _FORMAT, "backups": [asdict(each) for each in entries]}
    try:
        with contextlib.suppress(FileNotFoundError):
            new.unlink()  # of somebody who died here; the lock says that nobody writes it now
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise SaveError(f"{path} cannot be written: {error.strerror}") from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Nobody else reads or writes the list meanwhile."""
    if sys.platform == "win32":  # a file that is open cannot be replaced there
        yield
        return
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SaveError(f"{folder} cannot be used: {error.strerror}") from None
    try:
        # A file system that knows no locks has no two writers either, as far as we can see.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
