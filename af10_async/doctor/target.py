"""Where files are to go: whether there is a folder, permission and room."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..errors import AF10Error
from ..protocol.storage_urls import file_path, is_storage_url
from ..storage import check_storage_url
from .findings import Finding, failed, failed_with, passed, skipped

T = TypeVar("T")

SCANTY = 2**30
"""Bytes of free space below which a large backup may not fit."""
FEW = 1000
"""Free inodes below which a file system is nearly full."""
_TRIED = 64 * 1024
"""Bytes that are written to see whether they can be; a quota shows in no other way."""
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


async def check_target(out: str | os.PathLike[str] | None) -> Finding:
    """Examine the folder `out`, or what can be known of the URL without asking anybody."""
    if out is None:
        return skipped("no folder was named", "say --out DIR to examine where files are to go")
    text = os.fspath(out)
    try:
        if _URL.match(text):
            if not text.lower().startswith("file:"):
                return _of_storage(text)
            text = os.path.dirname(file_path(text)) or "/"  # noqa: PTH120 - it may be no path
        return await _in_thread(lambda: _of_folder(text))
    except AF10Error as error:
        return failed_with(error, "name a folder, or s3://bucket/path/ and the like")


def _of_storage(url: str) -> Finding:
    if not is_storage_url(url):
        return failed(
            "it is neither a folder nor a URL of object storage",
            "name a folder, or s3://…, gs://… or az://…",
        )
    check_storage_url(url)
    return skipped(
        "object storage is not written to here; the URL is well-formed",
        "try it with a small file: `af10 fetch URL --out ...`",
    )


async def _in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread that nobody waits for when its time is over.

    A network folder whose server is gone holds up whoever looks at it, perhaps for ever.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if result.done():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type]  # then it is a T

    def run() -> None:
        value: T | None = None
        error: BaseException | None = None
        try:
            value = work()
        except BaseException as raised:
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=run, name="af10_async doctor", daemon=True).start()
    return await result


# -- a folder --------------------------------------------------------------------------------------


def _of_folder(text: str) -> Finding:
    try:
        folder = Path(text).expanduser().absolute()
        place = _nearest(folder)
        if not stat.S_ISDIR(place.stat().st_mode):
            return failed(f"{place} is not a folder", "name another place with --out", path=text)
        _try(place)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: `~nobody` has no home
        return _refused(text, error)
    return _judged(folder, place)


def _nearest(folder: Path) -> Path:
    """What is there of it: itself, or the folder in which the rest would be made."""
    for each in (folder, *folder.parents):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            each.lstat()
            return each
    return folder


def _try(place: Path) -> None:
    """Write a file, flush it and give it another name, as saving does."""
    with tempfile.TemporaryDirectory(prefix=".af10-doctor-", dir=place) as folder:
        first = Path(folder) / "part"
        with first.open("xb") as file:
            file.write(bytes(_TRIED))
            file.flush()
            os.fsync(file.fileno())
        first.rename(Path(folder) / "whole")


def _refused(text: str, error: OSError | ValueError | RuntimeError) -> Finding:
    reason = getattr(error, "strerror", None) or "there is no such path"
    advice = "name another place with --out, or give this user the right to write there"
    code = error.errno if isinstance(error, OSError) else None
    if code in _FULL:
        advice = "make room there, or name another place with --out"
    elif code == errno.EROFS:
        advice = "name another place with --out: that file system is mounted read-only"
    return failed(f"nothing can be written to {text} ({reason})", advice, path=text)


def _judged(folder: Path, place: Path) -> Finding:
    free, inodes = shutil.disk_usage(place).free, _free_inodes(place)
    remarks = []
    if free < SCANTY:
        remarks.append("make room: a large backup may not fit")
    if inodes is not None and inodes < FEW:
        remarks.append(f"remove files: that file system has room for {inodes} more only")
    state = "can be written to" if place == folder else "is not there yet, and can be made"
    return passed(
        f"{folder} {state}; {_spoken(free)} free",
        "\n".join(remarks),
        path=str(folder),
        exists=place == folder,
        free_bytes=free,
        free_inodes=inodes,
    )


def _free_inodes(place: Path) -> int | None:
    """How many more files there can be; None where nobody counts them."""
    if not hasattr(os, "statvfs"):
        return None
    found = os.statvfs(place)
    return found.f_favail if found.f_files else None


def _spoken(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
