"""A file appears under its name whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from af10_async.errors import DiskFullError, SaveError, TargetExistsError
from af10_async.partial_file import PartialFile
from af10_async.protocol.lifecycle import FileOnDisk

NAME = "backup.zip"


@contextmanager
def partial(target: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[PartialFile]:
    """An open partial file, discarded at the end as its users do."""
    found = PartialFile(target, overwrite=overwrite)
    try:
        found.open()
        yield found
    finally:
        found.discard()


def save(target: str | os.PathLike[str], data: bytes = b"data", *, overwrite: bool = False) -> Path:
    with partial(target, overwrite=overwrite) as file:
        return finish(file, data, NAME)


def finish(file: PartialFile, data: bytes, server_name: str) -> Path:
    file.write(data, 0)
    file.flush(len(data))
    path = file.free_path(server_name)
    while not file.take(path):
        path = file.free_path(server_name)
    return path


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def no_descriptor_left() -> Iterator[None]:
    folder = Path("/proc/self/fd")
    before = len(names(folder)) if folder.is_dir() else 0
    yield
    assert not before or len(names(folder)) <= before


@pytest.fixture
def umask_0() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Makes small file systems of their own."""
    made: list[Path] = []

    def make(options: str) -> Path:
        folder = tmp_path / f"disk{len(made)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if not sys.platform.startswith("linux") or os.geteuid() != 0:
            pytest.skip("needs root on Linux, to mount a small file system")
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting is not allowed here")
        made.append(folder)
        return folder

    yield make
    for folder in made:
        subprocess.run(["umount", str(folder)], check=True)


# -- whole or not at all ---------------------------------------------------------------------------


def test_nothing_has_the_final_name_before_the_end_and_the_whole_file_has_it_then(
    tmp_path: Path,
) -> None:
    with partial(tmp_path / NAME) as file:
        file.write(b"abc", 0)
        file.write(b"", 3)
        (hidden,) = names(tmp_path)
        assert hidden.startswith(".af10-")
        assert hidden.endswith(".part")
        path = finish(file, b"abcdefghi", "ignored")
    assert path == tmp_path / NAME
    assert path.read_bytes() == b"abcdefghi"
    assert names(tmp_path) == [NAME]


def test_bytes_are_put_at_their_place_in_any_order_and_can_be_read_back(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    with partial(tmp_path / NAME) as file:
        file.write(memoryview(data)[2_000_000:], 2_000_000)
        file.write(data[:2_000_000], 0)
        assert file.read(1_999_990, 20) == data[1_999_990:2_000_010]
        assert file.read(len(data), 1) == b""
        file.flush(len(data))
        assert file.take(file.free_path(NAME))
    assert (tmp_path / NAME).read_bytes() == data


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    assert save(tmp_path / NAME, b"").read_bytes() == b""


def test_a_discarded_file_leaves_nothing_behind_however_often(tmp_path: Path) -> None:
    file = PartialFile(tmp_path / NAME, overwrite=False)
    file.discard()
    file.open()
    file.write(b"data", 0)
    file.discard()
    file.discard()
    assert names(tmp_path) == []


def test_discarding_after_the_end_does_nothing(tmp_path: Path) -> None:
    with partial(tmp_path) as file:
        path = finish(file, b"data", NAME)
        file.discard()
    assert path.read_bytes() == b"data"


def test_a_restart_forgets_what_was_written(tmp_path: Path) -> None:
    with partial(tmp_path / NAME) as file:
        file.write(b"a version that is longer", 0)
        file.restart()
        path = finish(file, b"another", NAME)
    assert path.read_bytes() == b"another"


def test_write_goes_on_until_all_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, bytes(data)[:3], at))
    assert save(tmp_path / NAME, b"0123456789").read_bytes() == b"0123456789"


def test_two_files_on_their_way_to_one_name_never_mix(tmp_path: Path) -> None:
    with partial(tmp_path / NAME) as one, partial(tmp_path / NAME) as other:
        one.write(b"one", 0)
        other.write(b"other", 0)
        finish(one, b"one", NAME)
        with pytest.raises(TargetExistsError):
            finish(other, b"other", NAME)
    assert (tmp_path / NAME).read_bytes() == b"one"
    assert names(tmp_path) == [NAME]


# -- names -----------------------------------------------------------------------------------------


def test_in_a_folder_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path, b"%d" % number)
    assert names(tmp_path) == ["backup-2.zip", "backup-3.zip", NAME]
    assert (tmp_path / "backup-3.zip").read_bytes() == b"2"


@pytest.mark.parametrize(
    ("name", "second"),
    [("backup", "backup-2"), ("a.tar.gz", "a.tar-2.gz"), (".zip", ".zip-2"), ("ä.zip", "ä-2.zip")],
)
def test_the_number_stands_before_the_suffix(tmp_path: Path, name: str, second: str) -> None:
    for expected in (name, second):
        with partial(tmp_path) as file:
            assert finish(file, b"data", name).name == expected


def test_in_a_folder_an_older_file_is_replaced_when_that_is_wanted(tmp_path: Path) -> None:
    save(tmp_path, b"old")
    assert save(tmp_path, b"new", overwrite=True).read_bytes() == b"new"
    assert names(tmp_path) == [NAME]


def test_a_path_that_ends_in_a_slash_is_a_folder_and_is_made(tmp_path: Path) -> None:
    path = save(f"{tmp_path}/a/b/")
    assert path == tmp_path / "a" / "b" / NAME
    assert path.read_bytes() == b"data"


def test_a_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert save("~/x/file.zip") == tmp_path / "x" / "file.zip"


def test_a_path_that_is_taken_is_refused_at_once_unless_it_may_be_replaced(tmp_path: Path) -> None:
    target = tmp_path / NAME
    target.write_bytes(b"old")
    with pytest.raises(TargetExistsError, match="overwrite=True") as caught:
        save(target)
    assert isinstance(caught.value, FileExistsError)
    assert caught.value.step == "save"
    assert target.read_bytes() == b"old"
    assert save(target, b"new", overwrite=True).read_bytes() == b"new"
    assert names(tmp_path) == [NAME]


def test_a_path_that_is_taken_meanwhile_is_refused_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / NAME
    with partial(target) as file:
        target.write_bytes(b"somebody else's")
        with pytest.raises(TargetExistsError):
            finish(file, b"ours", NAME)
    assert target.read_bytes() == b"somebody else's"
    assert names(tmp_path) == [NAME]


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "ä" * 200])
def test_a_name_that_no_file_can_have_is_refused_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(SaveError, match="cannot save to"):
        PartialFile(tmp_path / name, overwrite=False).open()
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_server_name_that_no_file_can_have_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(SaveError), partial(tmp_path) as file:
        finish(file, b"data", name)
    assert names(tmp_path) == []


def test_the_home_of_nobody_is_a_clear_error() -> None:
    with pytest.raises(SaveError, match="cannot save to"):
        PartialFile("~no-such-user-at-all/file.zip", overwrite=False).open()


def test_too_many_files_of_one_name_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("af10_async.partial_file._MOST_NAMES", 3)
    save(tmp_path)
    save(tmp_path)
    with pytest.raises(TargetExistsError, match="too many files"):
        save(tmp_path)
    assert names(tmp_path) == ["backup-2.zip", NAME]


# -- what is not an ordinary file ------------------------------------------------------------------


def _link(path: Path) -> None:
    victim = path.parent / "victim"
    victim.write_bytes(b"victim")
    path.symlink_to(victim)


ODD: dict[str, Callable[[Path], Any]] = {
    "link": _link,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "fifo": os.mkfifo,
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_target_is_refused_at_once(tmp_path: Path, kind: str, overwrite: bool) -> None:
    ODD[kind](tmp_path / NAME)
    before = names(tmp_path)
    with pytest.raises(TargetExistsError):
        save(tmp_path / NAME, overwrite=overwrite)
    assert names(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", [*ODD, "folder"])
def test_an_odd_target_that_comes_meanwhile_is_refused_at_the_end(
    tmp_path: Path, kind: str, overwrite: bool
) -> None:
    with partial(tmp_path / NAME, overwrite=overwrite) as file:
        file.write(b"data", 0)
        ODD.get(kind, Path.mkdir)(tmp_path / NAME)
        with pytest.raises(TargetExistsError):
            finish(file, b"data", NAME)
    assert not [name for name in names(tmp_path) if name.startswith(".af10")]
    victim = tmp_path / "victim"
    assert not victim.exists() or victim.read_bytes() == b"victim"


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for target in (f"{tmp_path}/file/", f"{tmp_path}/file/{NAME}"):
        with pytest.raises(SaveError):
            save(target)


def test_a_folder_swapped_for_a_link_leads_nowhere_else(tmp_path: Path) -> None:
    folder, moved, elsewhere = (tmp_path / name for name in ("folder", "moved", "elsewhere"))
    elsewhere.mkdir()
    with partial(folder / NAME) as file:
        file.write(b"data", 0)
        folder.rename(moved)
        folder.symlink_to(elsewhere)
        finish(file, b"data", NAME)
    assert names(elsewhere) == []
    assert (moved / NAME).read_bytes() == b"data"


# -- who may read it -------------------------------------------------------------------------------


@pytest.mark.usefixtures("umask_0")
def test_only_the_owner_can_read_the_file_and_every_folder_that_was_made(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "c"
    with partial(f"{target}/") as file:
        (hidden,) = target.iterdir()
        assert mode(hidden) == 0o600
        path = finish(file, b"data", NAME)
    assert mode(path) == 0o600
    assert [mode(each) for each in (target, target.parent, target.parent.parent)] == [0o700] * 3


@pytest.mark.usefixtures("umask_0")
def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o755)
    path = save(folder)
    assert (mode(folder), mode(path)) == (0o755, 0o600)


@pytest.mark.usefixtures("umask_0")
def test_a_replaced_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    (tmp_path / NAME).touch(mode=0o666)
    assert mode(save(tmp_path / NAME, overwrite=True)) == 0o600


# -- when the disk fails ---------------------------------------------------------------------------


def test_a_full_disk_is_a_clear_error_and_nothing_is_left(mount: Mount) -> None:
    folder = mount("size=64k")
    with pytest.raises(DiskFullError, match=r"no space left for .*bytes free.*make room") as caught:
        save(folder / NAME, bytes(200_000))
    assert caught.value.step == "save"
    assert names(folder) == []
    save(folder / NAME, bytes(10_000))


def test_a_disk_without_room_for_one_more_name_is_a_clear_error(mount: Mount) -> None:
    folder = mount("size=1m,nr_inodes=2")
    (folder / "one").touch()
    with pytest.raises(DiskFullError):
        save(folder / NAME)
    assert names(folder) == ["one"]


def test_a_read_only_disk_is_a_clear_error(mount: Mount) -> None:
    folder = mount("size=64k,ro")
    with pytest.raises(SaveError, match="Read-only file system"):
        save(folder / NAME)
    with pytest.raises(SaveError, match="Read-only file system"):
        save(folder / "new" / NAME)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_ours_to_write_in_is_a_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(SaveError, match="Permission denied"):
            save(tmp_path / NAME)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_flush_that_fails_gives_no_file_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    flushes: list[int] = []

    def fsync(descriptor: int) -> None:
        flushes.append(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(SaveError, match="Input/output error"):
        save(tmp_path / NAME, overwrite=overwrite)
    assert len(flushes) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize("step", ["pwrite", "ftruncate"])
def test_any_step_that_fails_is_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fails(*_: object) -> int:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with partial(tmp_path / NAME) as file:
        monkeypatch.setattr(os, step, fails)
        with pytest.raises(DiskFullError):
            file.write(b"x", 0) if step == "pwrite" else file.restart()
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", ["EINVAL", "EOPNOTSUPP"])
def test_a_folder_that_cannot_be_flushed_at_all_is_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """As some network folders are."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(getattr(errno, code), "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert save(tmp_path / NAME).read_bytes() == b"data"


# -- in which order --------------------------------------------------------------------------------


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The system calls that matter, in order, as they are made."""
    seen: list[str] = []

    def record(name: str) -> None:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "fsync":
                is_folder = stat.S_ISDIR(os.fstat(args[0]).st_mode)
                seen.append("fsync folder" if is_folder else "fsync file")
            elif name != "unlink":
                seen.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, call)

    for each in ("pwrite", "fsync", "link", "replace"):
        record(each)
    return seen


def test_the_file_is_flushed_before_it_gets_its_name_and_the_folder_after(
    tmp_path: Path, steps: list[str]
) -> None:
    save(tmp_path / NAME)
    assert steps == ["pwrite", "fsync file", "link", "fsync folder"]


def test_a_replacing_file_is_flushed_before_and_its_folder_after(
    tmp_path: Path, steps: list[str]
) -> None:
    save(tmp_path / NAME, overwrite=True)
    assert steps == ["pwrite", "fsync file", "replace", "fsync folder"]


# -- without hard links ----------------------------------------------------------------------------


@pytest.fixture(params=["EPERM", "EOPNOTSUPP"])
def no_hard_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What exFAT, some network folders and some containers say."""

    def link(*_: object, **__: object) -> None:
        raise OSError(getattr(errno, request.param), "Operation not permitted")

    monkeypatch.setattr(os, "link", link)


@pytest.mark.usefixtures("no_hard_links")
def test_without_hard_links_the_file_still_gets_a_free_name(tmp_path: Path) -> None:
    first, second = save(tmp_path, b"1"), save(tmp_path, b"2")
    assert (first.name, second.name) == (NAME, "backup-2.zip")
    assert (first.read_bytes(), second.read_bytes()) == (b"1", b"2")
    assert mode(first) == 0o600
    assert names(tmp_path) == ["backup-2.zip", NAME]


@pytest.mark.usefixtures("no_hard_links")
def test_without_hard_links_a_name_that_is_taken_meanwhile_is_refused(tmp_path: Path) -> None:
    with partial(tmp_path / NAME) as file:
        (tmp_path / NAME).write_bytes(b"somebody else's")
        with pytest.raises(TargetExistsError):
            finish(file, b"ours", NAME)
    assert (tmp_path / NAME).read_bytes() == b"somebody else's"


@pytest.mark.usefixtures("no_hard_links")
def test_without_hard_links_a_failing_rename_leaves_no_empty_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(SaveError, match="nothing was left behind"):
        save(tmp_path / NAME)
    assert names(tmp_path) == []


# -- without descriptors of folders ----------------------------------------------------------------


def test_where_folders_cannot_be_held_open_paths_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""
    monkeypatch.setattr("af10_async.partial_file._HAS_DIR_FD", False)
    first, second = save(tmp_path, b"1"), save(tmp_path, b"2")
    replaced = save(tmp_path / NAME, b"3", overwrite=True)
    with pytest.raises(TargetExistsError):
        save(tmp_path / NAME)
    assert (replaced, replaced.read_bytes()) == (first, b"3")
    assert names(tmp_path) == [second.name, first.name]


# -- what a dead process left ----------------------------------------------------------------------


def dead(target: Path, data: bytes = b"half of it", name: str = "job") -> Path:
    """What is left when a process dies while it saves to `target`."""
    file = PartialFile(target, overwrite=False, name=name)
    file.open()
    file.write(data, 0)
    (path,) = target.glob(".af10-*.part")
    file.close()
    return path


def test_the_partial_file_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    left = dead(tmp_path)
    with named(tmp_path) as file:
        assert names(tmp_path) == [left.name]
        path = finish(file, b"all of it", NAME)
    assert path.read_bytes() == b"all of it"
    assert names(tmp_path) == [NAME]


def test_the_partial_file_of_another_job_is_left_alone(tmp_path: Path) -> None:
    left = dead(tmp_path, name="another job")
    with named(tmp_path) as file:
        finish(file, b"data", NAME)
    assert names(tmp_path) == sorted([left.name, NAME])
    assert left.read_bytes() == b"half of it"


def test_the_partial_file_of_a_living_writer_is_left_to_it(tmp_path: Path) -> None:
    with named(tmp_path) as one, named(tmp_path) as other:
        assert len(names(tmp_path)) == 2
        first, second = finish(one, b"one", NAME), finish(other, b"other", NAME)
    assert (first.read_bytes(), second.read_bytes()) == (b"one", b"other")
    assert names(tmp_path) == sorted([first.name, second.name])


def test_a_partial_file_that_has_its_final_name_already_is_not_written_to(tmp_path: Path) -> None:
    """Its writer died between giving the name and taking the other one away."""
    left = dead(tmp_path, b"whole")
    os.link(left, tmp_path / NAME)
    with named(tmp_path) as file:
        path = finish(file, b"again", NAME)
    assert (tmp_path / NAME).read_bytes() == b"whole"
    assert path.read_bytes() == b"again"
    assert names(tmp_path) == sorted([NAME, path.name])


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_something_odd_under_the_partial_files_name_is_left_alone(
    tmp_path: Path, kind: str
) -> None:
    odd = dead(tmp_path)
    odd.unlink()
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    if kind == "link":
        odd.symlink_to(victim)
    elif kind == "folder":
        odd.mkdir()
    else:
        os.mkfifo(odd)
    with named(tmp_path) as file:
        finish(file, b"data", NAME)
    assert victim.read_bytes() == b"precious"
    assert names(tmp_path) == sorted([odd.name, "victim", NAME])


@contextmanager
def named(target: Path) -> Iterator[PartialFile]:
    found = PartialFile(target, overwrite=False, name="job")
    try:
        found.open()
        yield found
    finally:
        found.discard()


def test_a_partial_file_that_cannot_be_emptied_is_closed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`no_descriptor_left` looks after that."""

    def fail(file: int, size: int) -> None:
        raise OSError(errno.EIO, "the disk is ill")

    monkeypatch.setattr(os, "ftruncate", fail)
    with pytest.raises(SaveError, match="the disk is ill"), named(tmp_path):
        pass


def test_the_name_of_a_partial_file_does_not_tell_the_jobs_key(tmp_path: Path) -> None:
    assert "job" not in dead(tmp_path, name="the-key-of-the-job").name


def whole(path: Path, data: bytes = b"data") -> FileOnDisk:
    path.write_bytes(data)
    return FileOnDisk(str(path), len(data), hashlib.sha256(data).hexdigest())


def test_a_file_that_was_saved_before_is_recognised_and_what_is_left_beside_it_removed(
    tmp_path: Path,
) -> None:
    file = whole(tmp_path / NAME)
    for target in (tmp_path, f"{tmp_path}/", tmp_path / NAME):
        dead(tmp_path)
        assert PartialFile(target, overwrite=False, name="job").has(file)
        assert names(tmp_path) == [NAME]


def test_a_file_that_was_saved_elsewhere_or_has_changed_is_not_taken_for_it(
    tmp_path: Path,
) -> None:
    file = whole(tmp_path / NAME)
    (tmp_path / "other").mkdir()
    for target in (tmp_path / "other", tmp_path / "missing" / "folder", tmp_path / "other.zip"):
        assert not PartialFile(target, overwrite=False).has(file)
    for data in (b"dat", b"DATA", b"data and more"):
        (tmp_path / NAME).write_bytes(data)
        assert not PartialFile(tmp_path, overwrite=False).has(file)
    (tmp_path / NAME).unlink()
    assert not PartialFile(tmp_path, overwrite=False).has(file)
    os.mkfifo(tmp_path / NAME)  # which nobody writes to
    assert not PartialFile(tmp_path, overwrite=False).has(file)
    (tmp_path / NAME).unlink()
    whole(tmp_path / "real")
    (tmp_path / NAME).symlink_to(tmp_path / "real")
    assert not PartialFile(tmp_path, overwrite=False).has(file)


def test_a_name_that_is_taken_at_the_last_moment_is_not_overwritten(tmp_path: Path) -> None:
    with partial(tmp_path) as file:
        file.write(b"ours", 0)
        file.flush(4)
        path = file.free_path(NAME)
        path.write_bytes(b"theirs")
        assert not file.take(path)
        second = file.free_path(NAME)
        assert file.take(second)
    assert (path.read_bytes(), second.read_bytes()) == (b"theirs", b"ours")
