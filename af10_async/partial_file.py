"""A file that appears under its name whole or not at all.

Everything here blocks and belongs in a thread. Bytes go to a hidden partial file in the target's
own folder; it is flushed to disk, then gets its name in one step, then the folder is flushed.

The partial file has a name made of what is saved (a job's key, say), and is locked while somebody
writes to it. What a dead or interrupted process left behind is recognised: with the resume state
that it wrote beside it, the next one goes on with it; without, it begins anew. Nobody ever goes on
with the partial file of somebody who still writes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path

from .errors import SaveError
from .protocol.lifecycle import FileOnDisk
from .protocol.resume import ResumeState, decode_state, encode_state
from .save_target import disk_full, is_at, resolve, save_error, split_name

try:
    import fcntl
except ImportError:  # Windows has no such locks: there each partial file has a name of its own
    fcntl = None  # type: ignore[assignment]

_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_FOLDER_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What network folders say to the flush of a folder; the file itself is flushed all the same."""
_NO_ALLOCATION = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_LEFT_NAME = re.compile(r"\.af10-[0-9a-f]{16}\.(part|json|json\.new)")
_WEEK = 7 * 24 * 3600.0
_MAX_STATE = 1024 * 1024
_HAS_LOCKS: bool = fcntl is not None
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
        self._state_name: str | None = None

    def open(self) -> ResumeState | None:
        """Make missing folders and the partial file, readable by their owner only.

        What a former writer left of it is kept if its resume state is there and sound; that is
        the result then.
        """
        self._folder, self._wanted = resolve(self._target, overwrite=self._overwrite)
        try:
            state = self._open()
        except OSError as error:
            raise save_error(error, self._folder) from None
        with contextlib.suppress(OSError):  # tidying up for others is no reason to fail
            self._sweep()
        return state

    def has(self, file: FileOnDisk) -> bool:
        """Whether the target, still unopened, is or holds just this file."""
        try:
            if not is_at(Path(file.path), self._target):
                return False
            if not _is_whole(file):
                _drop_reserved(file)
                return False
            self._folder = Path(file.path).parent
            self._drop_dead()
        except (OSError, ValueError, RuntimeError):
            return False
        return True

    def reserve(self, size: int, *, here: int, whole: bool) -> None:
        """Make sure that there is room for `size` bytes, `here` of which were written before.

        With `whole`, all of it is allocated at once, for pieces that come in any order.
        """
        try:
            has_room = self._has_room(size - here)
            if has_room and whole:
                self._allocate(size)
        except OSError as error:
            raise save_error(error, self._folder) from None
        if not has_room:
            raise disk_full(self._folder, size - here)

    def write(self, data: bytes | memoryview, offset: int) -> None:
        """Put them at their place."""
        try:
            view = memoryview(data)
            while view:
                written = self._write_at(view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            raise save_error(error, self._folder) from None

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` of the bytes that are there."""
        try:
            return self._read_at(size, offset)
        except OSError as error:
            raise save_error(error, self._folder) from None

    def keep(self, state: ResumeState) -> bool:
        """Note beside it how far it has come. False where nobody could find it again.

        What is hashed is not flushed: whoever goes on with it sees whether it is still there, even
        after a power failure.
        """
        if self._state_name is None or self._file == -1:
            return False
        try:
            if state.hashed < state.size:
                _flush_data(self._file)
            self._write_state(self._state_name, encode_state(state))
        except IsADirectoryError:
            return False  # somebody has made a folder of its name
        except OSError as error:
            raise save_error(error, self._folder) from None
        return True

    def restart(self) -> None:
        """Forget what was written."""
        try:
            os.ftruncate(self._file, 0)
            self._drop_state()
        except OSError as error:
            raise save_error(error, self._folder) from None

    def flush(self, size: int) -> None:
        """It is whole, with `size` bytes: have it on disk."""
        try:
            if os.fstat(self._file).st_size != size:
                os.ftruncate(self._file, size)
            os.fsync(self._file)
        except OSError as error:
            raise save_error(error, self._folder) from None

    def free_path(self, server_name: str) -> Path:
        """The path that the file will get.

        In a folder that is `server_name`, with a number when it is taken: `backup.zip`,
        `backup-2.zip`, ...
        """
        if self._wanted is not None or self._overwrite:
            return self._folder / (self._wanted or server_name)
        stem, suffix = split_name(server_name)
        try:
            for number in range(1, _MOST_NAMES):
                name = server_name if number == 1 else f"{stem}-{number}{suffix}"
                if not self._is_taken(name):
                    return self._folder / name
            raise FileExistsError(errno.EEXIST, "too many files of this name")
        except (OSError, ValueError) as error:
            raise save_error(error, self._folder / server_name) from None

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
            self._drop_state()
            self._flush_folder()
        except OSError as error:
            raise SaveError(
                f"{path} is there and whole, but its folder could not be flushed to disk"
                f" ({error.strerror}), so it may be gone after a power failure",
                step="save",
            ) from None
        self.close()
        return True

    def discard(self) -> None:
        """Leave nothing behind. Does nothing after `take` or `close`."""
        if self._file != -1 and self._name:
            with contextlib.suppress(OSError):
                os.unlink(self._at(self._name), dir_fd=self._folder_fd)
            with contextlib.suppress(OSError):
                self._drop_state()
        self.close()

    def close(self) -> None:
        """Leave what was kept to whoever goes on with it."""
        for descriptor in (self._file, self._folder_fd):
            if descriptor is not None and descriptor != -1:
                os.close(descriptor)
        self._file, self._folder_fd = -1, None

    def _open(self) -> ResumeState | None:
        if _HAS_DIR_FD:
            # Held open, so that a folder swapped for a link meanwhile leads nowhere else.
            self._folder_fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        self._file = -1 if self._own_name is None else self._open_own(self._own_name)
        if self._file != -1:
            return self._adopt()
        self._name = _partial_name(secrets.token_hex(8))
        self._file = self._open_at(self._name, os.O_CREAT | os.O_EXCL)
        return None

    def _adopt(self) -> ResumeState | None:
        """The state of the partial file that is open now; one without a state is emptied."""
        self._state_name = _state_name(self._name)
        state = self._read_state(self._state_name)
        if state is None or state.size > os.fstat(self._file).st_size:
            os.ftruncate(self._file, 0)
            self._drop_state()
            return None
        return state

    def _open_at(self, name: str, flags: int) -> int:
        flags |= os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        flags |= getattr(os, "O_BINARY", 0)
        return os.open(self._at(name), flags, 0o600, dir_fd=self._folder_fd)

    def _open_own(self, name: str) -> int:
        """The partial file of this job, perhaps a dead process's; -1 when somebody writes to it."""
        for _ in range(3 if _HAS_LOCKS else 0):
            try:
                # Without blocking, else a pipe of this name would hold us up for ever.
                file = self._open_at(name, os.O_CREAT | getattr(os, "O_NONBLOCK", 0))
            except OSError:
                return -1  # a link, a folder, a pipe, somebody else's
            try:
                if not _locked(file):
                    self._drop_unlockable(name, file)
                    break
                if self._is_own(name, file):
                    os.fchmod(file, 0o600)
                    self._name, own, file = name, file, -1
                    return own
            finally:
                if file != -1:
                    os.close(file)
        return -1

    def _drop_unlockable(self, name: str, file: int) -> None:
        """Where there are no locks, nobody could ever tell that this one is of no use."""
        found = os.fstat(file)
        if _has_no_locks(file) and not found.st_size and stat.S_ISREG(found.st_mode):
            with contextlib.suppress(OSError):
                os.unlink(self._at(name), dir_fd=self._folder_fd)

    def _is_own(self, name: str, file: int) -> bool:
        """Whether the locked file is still the one of that name, and has no other name."""
        found = os.fstat(file)
        try:
            there = os.stat(self._at(name), dir_fd=self._folder_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False  # it got its final name, or was discarded, before it was locked
        if (there.st_dev, there.st_ino) != (found.st_dev, found.st_ino):
            return False
        if not stat.S_ISREG(found.st_mode) or not _is_mine(found):
            return False
        if found.st_nlink > 1:
            # Its writer died between giving it its final name and taking this one away.
            for left in (name, _state_name(name)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._at(left), dir_fd=self._folder_fd)
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
                (self._folder / _state_name(name)).unlink(missing_ok=True)
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

    def _sweep(self) -> None:
        """Remove what processes that died a week ago left here, and nobody came back for."""
        limit = time.time() - _WEEK
        with os.scandir(self._folder if self._folder_fd is None else self._folder_fd) as entries:
            names = {each.name for each in entries if _LEFT_NAME.fullmatch(each.name)}
        for name in names:
            partial = name.partition(".json")[0].removesuffix(".part") + ".part"
            with contextlib.suppress(OSError):
                if partial == self._name or self._stat(name).st_mtime >= limit:
                    continue
                if name == partial:
                    self._remove_dead(name)
                elif partial not in names and _is_mine(self._stat(name)):
                    os.unlink(self._at(name), dir_fd=self._folder_fd)

    def _remove_dead(self, name: str) -> None:
        file = self._open_at(name, getattr(os, "O_NONBLOCK", 0))
        try:
            if _locked(file) and self._is_own(name, file):
                os.unlink(self._at(name), dir_fd=self._folder_fd)
                os.unlink(self._at(_state_name(name)), dir_fd=self._folder_fd)
        finally:
            os.close(file)

    def _stat(self, name: str) -> os.stat_result:
        return os.stat(self._at(name), dir_fd=self._folder_fd, follow_symlinks=False)

    def _read_state(self, name: str) -> ResumeState | None:
        try:
            file = self._open_at(name, getattr(os, "O_NONBLOCK", 0))
        except OSError:
            return None
        with open(file, "rb") as there:  # noqa: PTH123 - opened by descriptor
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode) or not _is_mine(found):
                return None
            return decode_state(there.read(_MAX_STATE))

    def _write_state(self, name: str, text: bytes) -> None:
        """In one step: whoever reads it finds the former one or this one."""
        new = f"{name}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._at(new), dir_fd=self._folder_fd)
        with open(self._open_at(new, os.O_CREAT | os.O_EXCL), "wb") as file:  # noqa: PTH123
            file.write(text)
        os.replace(
            self._at(new), self._at(name), src_dir_fd=self._folder_fd, dst_dir_fd=self._folder_fd
        )

    def _drop_state(self) -> None:
        for name in (self._state_name, f"{self._state_name}.new"):
            if self._state_name is not None and name is not None:
                with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                    os.unlink(self._at(name), dir_fd=self._folder_fd)

    def _has_room(self, size: int) -> bool:
        if not hasattr(os, "statvfs"):
            return True
        found = os.statvfs(self._folder if self._folder_fd is None else self._folder_fd)
        # Some network folders say that they have no blocks at all: then nobody knows.
        return not found.f_blocks or size <= found.f_bavail * found.f_frsize

    def _allocate(self, size: int) -> None:
        try:
            os.posix_fallocate(self._file, 0, size)
        except (AttributeError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_ALLOCATION:
                raise
            os.ftruncate(self._file, size)

    def _write_at(self, view: memoryview, offset: int) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self._file, view, offset)
        os.lseek(self._file, offset, os.SEEK_SET)
        return os.write(self._file, view)

    def _read_at(self, size: int, offset: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file, size, offset)
        os.lseek(self._file, offset, os.SEEK_SET)
        return os.read(self._file, size)

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


def _partial_name(token: str) -> str:
    return f".af10-{token}.part"


def _state_name(partial_name: str) -> str:
    return partial_name.removesuffix(".part") + ".json"


def _is_mine(found: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or found.st_uid == os.geteuid()


def _flush_data(file: int) -> None:
    flush: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
    flush(file)


def _locked(file: int) -> bool:
    """Lock an open file until it is closed; False when somebody else has."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # also where the file system has no locks
        return False
    return True


def _has_no_locks(file: int) -> bool:
    """Whether the file system has no locks at all, rather than that somebody else has this one."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False


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
