"""A file that appears under its name whole or not at all.

Everything here blocks and belongs in a thread. Bytes go to a hidden partial file in the target's
own folder; it is flushed to disk, then gets its name in one step, then the folder is flushed.

The partial file of a job has a name made of the job's key, and is locked while somebody writes to
it: what a dead process left behind is recognised, and taken over by who resumes the job.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
from pathlib import Path

from .errors import DiskFullError, SaveError, TargetExistsError
from .protocol.lifecycle import FileOnDisk

try:
    import fcntl
except ImportError:  # Windows has no such locks: there each partial file has a name of its own
    fcntl = None  # type: ignore[assignment]

_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_FOLDER_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What network folders say to the flush of a folder; the file itself is flushed all the same."""
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_HAS_DIR_FD = os.open in os.supports_dir_fd and hasattr(os, "O_DIRECTORY")
_MOST_NAMES = 10_000


class PartialFile:
    """The bytes of one download on their way to `target`.

    Args:
        target: A folder (one that exists, or a path that ends in a slash) or the path of the file.
        overwrite: Whether the final name may belong to an older file, which is then replaced.
        name: What the same download is recognised by when it is tried again; may be a secret.

    """

    def __init__(
        self, target: str | os.PathLike[str], *, overwrite: bool, name: str | None = None
    ) -> None:
        self._target = target
        self._overwrite = overwrite
        self._folder = Path()
        self._wanted: str | None = None
        token = hashlib.sha256(name.encode()).hexdigest()[:16] if name else ""
        self._own_name = _partial_name(token) if token else None
        self._name = ""
        self._file = -1
        self._folder_fd: int | None = None
        self._hash = hashlib.sha256()
        self.size = 0

    def open(self) -> None:
        """Make missing folders and the partial file, readable by their owner only."""
        self._folder, self._wanted = _resolve(self._target, overwrite=self._overwrite)
        try:
            self._open()
        except OSError as error:
            raise save_error(error, self._folder) from None

    def has(self, file: FileOnDisk) -> bool:
        """Whether the target, still unopened, is or holds just this file."""
        try:
            if not _is_at(Path(file.path), self._target):
                return False
            if not _is_whole(file):
                _drop_reserved(file)
                return False
            self._folder = Path(file.path).parent
            self._drop_dead()
        except (OSError, ValueError, RuntimeError):
            return False
        return True

    @property
    def sha256(self) -> str:
        """The SHA-256 of what was written, in hexadecimal."""
        return self._hash.hexdigest()

    def write(self, blocks: list[bytes]) -> None:
        """Append."""
        try:
            for block in blocks:
                self._write_all(block)
                self._hash.update(block)
                self.size += len(block)
        except OSError as error:
            raise save_error(error, self._folder) from None

    def restart(self) -> None:
        """Forget what was written."""
        try:
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
        except OSError as error:
            raise save_error(error, self._folder) from None
        self._hash = hashlib.sha256()
        self.size = 0

    def flush(self, last_blocks: list[bytes], server_name: str) -> Path:
        """Append the last blocks, and flush everything to disk; the path that it may get now."""
        self.write(last_blocks)
        try:
            os.fsync(self._file)
        except OSError as error:
            raise save_error(error, self._folder) from None
        return self.free_path(server_name)

    def free_path(self, server_name: str) -> Path:
        """The path that the file will get.

        In a folder that is `server_name`, with a number when it is taken: `backup.zip`,
        `backup-2.zip`, ...
        """
        if self._wanted is not None or self._overwrite:
            return self._folder / (self._wanted or server_name)
        stem, suffix = _split_name(server_name)
        try:
            for number in range(1, _MOST_NAMES):
                name = server_name if number == 1 else f"{stem}-{number}{suffix}"
                if not self._is_taken(name):
                    return self._folder / name
            raise FileExistsError(errno.EEXIST, "too many files of this name")
        except (OSError, ValueError) as error:
            raise save_error(error, self._folder / server_name) from None

    def as_saved_to(self, path: Path) -> FileOnDisk:
        """What will be at `path`."""
        return FileOnDisk(str(path.absolute()), self.size, self.sha256)

    def take(self, path: Path) -> bool:
        """Give the flushed file its path; False when that was taken a moment ago."""
        try:
            if self._overwrite:
                self._refuse_odd_target(path.name)
                self._rename(path.name)
            else:
                self._link(path.name)
        except FileExistsError as error:
            if self._wanted is None and not self._overwrite:
                return False
            raise save_error(error, path) from None
        except (OSError, ValueError) as error:
            raise save_error(error, path) from None
        self._name = ""  # gone; the next writer of this job may have made it anew
        try:
            self._flush_folder()
        except OSError as error:
            raise SaveError(
                f"{path} is there and whole, but its folder could not be flushed to disk"
                f" ({error.strerror}), so it may be gone after a power failure",
                step="save",
            ) from None
        self._close()
        return True

    def discard(self) -> None:
        """Leave nothing behind. Does nothing after `finish`."""
        if self._file != -1 and self._name:
            with contextlib.suppress(OSError):
                os.unlink(self._at(self._name), dir_fd=self._folder_fd)
        self._close()

    def _open(self) -> None:
        if _HAS_DIR_FD:
            # Held open, so that a folder swapped for a link meanwhile leads nowhere else.
            self._folder_fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        self._file = -1 if self._own_name is None else self._open_own(self._own_name)
        if self._file == -1:
            self._name = _partial_name(secrets.token_hex(8))
            self._file = self._open_at(self._name, os.O_CREAT | os.O_EXCL)

    def _open_at(self, name: str, flags: int) -> int:
        flags |= os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        flags |= getattr(os, "O_BINARY", 0)
        return os.open(self._at(name), flags, 0o600, dir_fd=self._folder_fd)

    def _open_own(self, name: str) -> int:
        """The partial file of this job, perhaps a dead process's; -1 when somebody writes to it."""
        for _ in range(3):
            try:
                # Without blocking, else a pipe of this name would hold us up for ever.
                file = self._open_at(name, os.O_CREAT | getattr(os, "O_NONBLOCK", 0))
            except OSError:
                return -1  # a link, a folder, a pipe, somebody else's
            try:
                if not _locked(file):
                    break
                if self._is_own(name, file):
                    os.ftruncate(file, 0)
                    os.fchmod(file, 0o600)
                    self._name, own, file = name, file, -1
                    return own
            finally:
                if file != -1:
                    os.close(file)
        return -1

    def _is_own(self, name: str, file: int) -> bool:
        """Whether the locked file is still the one of that name, and has no other name."""
        found = os.fstat(file)
        try:
            there = os.stat(self._at(name), dir_fd=self._folder_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False  # it got its final name, or was discarded, before it was locked
        if (there.st_dev, there.st_ino) != (found.st_dev, found.st_ino):
            return False
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            return False
        if found.st_nlink > 1:
            # Its writer died between giving it its final name and taking this one away.
            os.unlink(self._at(name), dir_fd=self._folder_fd)
            return False
        return True

    def _drop_dead(self) -> None:
        """Remove what is left of a dead process's partial file beside the whole one."""
        name = self._own_name
        if name is None or not (self._folder / name).exists():
            return
        file = self._open_at(str(self._folder / name), getattr(os, "O_NONBLOCK", 0))
        try:
            if _locked(file) and self._is_own(str(self._folder / name), file):
                (self._folder / name).unlink()
        finally:
            os.close(file)

    def _is_taken(self, name: str) -> bool:
        try:
            os.stat(self._at(name), dir_fd=self._folder_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _at(self, name: str) -> str:
        return name if self._folder_fd is not None else str(self._folder / name)

    def _write_all(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            view = view[os.write(self._file, view) :]

    def _flush_folder(self) -> None:
        if self._folder_fd is None:
            return
        try:
            os.fsync(self._folder_fd)
        except OSError as error:
            if error.errno not in _NO_FOLDER_FLUSH:
                raise

    def _link(self, name: str) -> None:
        try:
            os.link(
                self._at(self._name),
                self._at(name),
                src_dir_fd=self._folder_fd,
                dst_dir_fd=self._folder_fd,
                follow_symlinks=False,
            )
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            self._reserve(name)
            try:
                self._rename(name)
            except OSError:
                os.unlink(self._at(name), dir_fd=self._folder_fd)
                raise
            return
        os.unlink(self._at(self._name), dir_fd=self._folder_fd)

    def _reserve(self, name: str) -> None:
        """Where there are no hard links: take the name, empty, so that nobody else does."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        os.close(os.open(self._at(name), flags, 0o600, dir_fd=self._folder_fd))

    def _rename(self, name: str) -> None:
        os.replace(
            self._at(self._name),
            self._at(name),
            src_dir_fd=self._folder_fd,
            dst_dir_fd=self._folder_fd,
        )

    def _refuse_odd_target(self, name: str) -> None:
        try:
            found = os.stat(self._at(name), dir_fd=self._folder_fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISREG(found.st_mode):
            raise FileExistsError(errno.EEXIST, "what is there is not an ordinary file")

    def _close(self) -> None:
        for descriptor in (self._file, self._folder_fd):
            if descriptor is not None and descriptor != -1:
                os.close(descriptor)
        self._file, self._folder_fd = -1, None


def _partial_name(token: str) -> str:
    return f".af10-{token}.part"


def _locked(file: int) -> bool:
    """Lock an open file until it is closed; False when somebody else has."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # also where the file system has no locks
        return False
    return True


def _is_at(path: Path, target: str | os.PathLike[str]) -> bool:
    """Whether `path` is the target, or is in it when the target is a folder."""
    wanted = Path(os.fspath(target)).expanduser()
    if os.fspath(target).endswith(("/", os.sep)) or wanted.is_dir():
        return wanted.is_dir() and path.parent.samefile(wanted)
    return path.name == wanted.name and path.parent.samefile(wanted.parent)


def _is_whole(file: FileOnDisk) -> bool:
    # Without blocking, else a pipe in the file's place would hold us up for ever.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    flags |= getattr(os, "O_BINARY", 0)
    with open(os.open(file.path, flags), "rb") as there:  # noqa: PTH123 - opened by descriptor
        found = os.fstat(there.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size != file.size:
            return False
        return hashlib.file_digest(there, "sha256").hexdigest() == file.sha256


def _drop_reserved(file: FileOnDisk) -> None:
    """Free the name again that a dead process had reserved, where there are no hard links."""
    path = Path(file.path)
    found = path.lstat()
    is_empty = stat.S_ISREG(found.st_mode) and not found.st_size
    if is_empty and file.size and stat.S_IMODE(found.st_mode) == 0o600:
        path.unlink()


def _resolve(target: str | os.PathLike[str], *, overwrite: bool) -> tuple[Path, str | None]:
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
        return DiskFullError(
            f"no space left for {path} ({_free(path)}); nothing was left behind: make room and try"
            " again",
            step="save",
        )
    if isinstance(error, FileExistsError):
        return TargetExistsError(
            f"cannot save to {path}: {error.strerror or 'something is there already'}; choose"
            " another name, or pass overwrite=True to replace a file",
            step="save",
        )
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return SaveError(f"cannot save to {path}: {reason}; nothing was left behind", step="save")


def _free(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    try:
        return f"{shutil.disk_usage(folder).free:,} bytes free"
    except OSError:
        return "free space unknown"


def _split_name(name: str) -> tuple[str, str]:
    stem, dot, suffix = name.rpartition(".")
    return (stem, dot + suffix) if stem else (name, "")
