"""Where a file is to be saved: its folder, its name, and the errors that this can end in."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

from .errors import DiskFullError, SaveError, TargetExistsError

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def is_at(path: Path, target: str | os.PathLike[str]) -> bool:
    """Whether `path` is the target, or is in it when the target is a folder."""
    wanted = Path(os.fspath(target)).expanduser()
    if os.fspath(target).endswith(("/", os.sep)) or wanted.is_dir():
        return wanted.is_dir() and path.parent.samefile(wanted)
    return path.name == wanted.name and path.parent.samefile(wanted.parent)


def resolve(target: str | os.PathLike[str], *, overwrite: bool) -> tuple[Path, str | None]:
    """The folder, made when missing, and the name; no name when `target` is a folder."""
    text = os.fspath(target)
    try:
        path = Path(text).expanduser()
        is_folder = text.endswith(("/", os.sep)) or path.is_dir()
        folder = path if is_folder else path.parent
        _make_folders(folder)
        if not is_folder:
            _refuse_taken(path, overwrite=overwrite)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: `~nobody` has no home
        raise save_error(error, Path(text)) from None
    return folder, None if is_folder else path.name


def _make_folders(folder: Path) -> None:
    """Each for its owner only: `mkdir(parents=True)` would give that mode to the last one alone."""
    for each in reversed([folder, *folder.parents]):
        if not each.is_dir():
            each.mkdir(mode=0o700, exist_ok=True)


def _refuse_taken(path: Path, *, overwrite: bool) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not overwrite:
        raise FileExistsError(errno.EEXIST, "something is there already")
    if not stat.S_ISREG(found.st_mode):
        raise FileExistsError(errno.EEXIST, "what is there is not an ordinary file")


def save_error(error: OSError | ValueError | RuntimeError, path: Path) -> SaveError:
    """The error of ours for one of the system's."""
    code = error.errno if isinstance(error, OSError) else None
    if code in _FULL:
        return disk_full(path)
    if isinstance(error, FileExistsError):
        return TargetExistsError(
            f"cannot save to {path}: {error.strerror or 'something is there already'}; choose"
            " another name, or pass overwrite=True to replace a file",
            step="save",
        )
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return SaveError(f"cannot save to {path}: {reason}; nothing was left behind", step="save")


def disk_full(path: Path, need: int | None = None) -> DiskFullError:
    """The error for a disk on which `need` more bytes have no room."""
    needed = "" if need is None else f"{need:,} bytes needed, "
    return DiskFullError(
        f"no space left for {path} ({needed}{_free(path)}); nothing was left behind: make room and"
        " try again",
        step="save",
    )


def _free(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    try:
        return f"{shutil.disk_usage(folder).free:,} bytes free"
    except OSError:
        return "free space unknown"


def split_name(name: str) -> tuple[str, str]:
    """What a number can be put between: the stem, and the suffix with its dot."""
    stem, dot, suffix = name.rpartition(".")
    return (stem, dot + suffix) if stem else (name, "")
