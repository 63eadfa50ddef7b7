"""Where a file goes: a folder or a path on this machine, or a URL."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import ConfigurationError, CopiedFile, RemoteFile, SavedFile, SaveError
from ..partial_file import PartialFile
from ..progress import ProgressHandler
from ..protocol.storage_urls import file_path, is_storage_url
from ..save_target import resolve
from ..storage import put_object
from .arguments import UsageError

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_ANYWHERE = ("overwrite", "sha256", "max_size", "stall_timeout", "min_speed")
_HERE = ("segments", "md5")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a file goes."""

    path: str | None
    """Where it is on this machine, if it is: a folder, or the file's own path."""
    url: str | None
    """As it was said, if it was a URL."""

    def below(self, name: str) -> Destination:
        """A place of its own for one of several accounts."""
        if self.path is None:
            return Destination(None, f"{(self.url or '').rstrip('/')}/{name}/")
        return Destination(f"{Path(self.path) / name}/", None)

    async def deliver(
        self, file: RemoteFile, arguments: argparse.Namespace, progress: ProgressHandler
    ) -> SavedFile | CopiedFile:
        """Bring a file there."""
        wishes = _given(arguments, _ANYWHERE)
        if self.url is not None:
            return await file.copy_to(self.url, progress=progress, **wishes)
        assert self.path is not None  # what is at no URL is at a path
        return await file.save(self.path, progress=progress, **wishes, **_given(arguments, _HERE))

    def leave(self, name: str, *, keep: bool) -> int:
        """How many bytes an interrupted download has left there for the next one to go on with.

        Without `keep` they are removed. `name` is what the download is recognised by: the job's
        key, or the address of the file.
        """
        if self.path is None or not _folder_of(self.path).is_dir():
            return 0
        partial = PartialFile(self.path, overwrite=True, name=name)
        try:
            state = partial.open()
        except SaveError:
            return 0
        if state is None or not keep:
            partial.discard()
            return 0
        partial.close()
        return sum(stop - start for start, stop in state.done)


async def destination(
    arguments: argparse.Namespace, *, is_folder: bool, several: bool = False
) -> Destination:
    """What `--out` names. It is found out before anything is sent whether it can be used."""
    out = arguments.out
    if several and (_URL.match(out) or arguments.overwrite):
        raise UsageError(
            "--overwrite and --out URL are for one job, named by its key: the files of several may"
            " have the same name"
        )
    if not _URL.match(out):
        path = _expanded(out)
        _check_path(path, arguments, is_folder=is_folder)
        return Destination(path, None)
    if not is_storage_url(out):
        raise UsageError("--out is neither a folder nor an s3, gs, az or file URL")
    if _given(arguments, _HERE):
        raise UsageError("--segments and --md5 cannot be had with --out URL: name a folder instead")
    try:
        if not out.lower().startswith("file:"):
            await _check_storage(out)
            return Destination(None, out)
        path = file_path(out)
    except ConfigurationError as error:
        raise UsageError(f"--out: {error.message}") from None
    _check_path(path, arguments, is_folder=False)
    return Destination(path, out)


def _given(arguments: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(arguments, name, None)) is not None}


def _check_path(path: str, arguments: argparse.Namespace, *, is_folder: bool) -> None:
    folder = Path(path) if is_folder else _folder_of(path)
    prepare(folder)
    if folder != Path(path):
        resolve(path, overwrite=arguments.overwrite)  # raises when something is there


def _expanded(path: str) -> str:
    if not path.startswith("~"):
        return path
    try:
        found = str(Path(path).expanduser())
    except RuntimeError:
        raise ConfigurationError(f"--out {path} cannot be used: nobody has that name") from None
    return found + "/" if path.endswith("/") else found


def _folder_of(path: str) -> Path:
    found = Path(path)
    return found if path.endswith(("/", os.sep)) or found.is_dir() else found.parent


def prepare(folder: Path) -> None:
    """Have a folder that can be written to."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ConfigurationError(f"--out {folder} cannot be used: it is no folder") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"--out {folder} cannot be used: {reason}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(f"--out {folder} cannot be used: no permission to write there")


class _Nothing(Exception):  # noqa: N818 - it is no error
    """There are no bytes yet."""


async def _check_storage(url: str) -> None:
    """Find out whether the URL, what is installed and the environment are good; send nothing."""

    async def source() -> AsyncIterator[bytes]:
        raise _Nothing
        yield b""

    with suppress(_Nothing):
        await put_object(url, source(), name="file")
