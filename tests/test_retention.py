"""Retention: the newest few stay, and nothing is removed that was not saved here."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from af10_async import ConfigurationError, SavedFile, SaveError, retention
from af10_async.retention import LIST, keep_newest, note_backup


def save(folder: Path, name: str, content: bytes = b"backup", at: float = 0.0) -> Path:
    path = folder / name
    path.write_bytes(content)
    note_backup(folder, SavedFile(path, len(content), "0" * 64, 0.1), at)
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {LIST}


def test_the_newest_stay_and_older_ones_go(tmp_path: Path) -> None:
    paths = [save(tmp_path, f"{number}.zip") for number in range(5)]
    assert keep_newest(tmp_path, 2) == paths[:3]
    assert names(tmp_path) == {"3.zip", "4.zip"}
    assert keep_newest(tmp_path, 2) == []


def test_what_was_not_saved_here_stays_and_takes_no_place(tmp_path: Path) -> None:
    (tmp_path / "precious.zip").write_bytes(b"of somebody else")
    for number in range(3):
        save(tmp_path, f"{number}.zip")
    keep_newest(tmp_path, 1)
    assert names(tmp_path) == {"precious.zip", "2.zip"}


def test_a_file_that_was_changed_is_no_longer_ours(tmp_path: Path) -> None:
    changed = save(tmp_path, "changed.zip")
    old, new = save(tmp_path, "old.zip"), save(tmp_path, "new.zip")
    changed.write_bytes(b"somebody wrote something else here")
    assert keep_newest(tmp_path, 1) == [old]
    assert changed.exists()
    assert new.exists()


def test_the_only_good_one_is_never_removed(tmp_path: Path) -> None:
    """The newest was cut since; the older one is whole, and so it stays."""
    whole, cut = save(tmp_path, "whole.zip"), save(tmp_path, "cut.zip")
    cut.write_bytes(b"")
    assert keep_newest(tmp_path, 1) == []
    assert whole.exists()


def test_a_link_in_the_place_of_a_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    target = tmp_path / "outside" / "x"
    target.write_bytes(b"backup")
    link = save(tmp_path, "link.zip")
    link.unlink()
    link.symlink_to(target)
    save(tmp_path, "new.zip")
    assert keep_newest(tmp_path, 1) == []
    assert target.exists()


def test_none_is_no_number_to_keep(tmp_path: Path) -> None:
    save(tmp_path, "x.zip")
    with pytest.raises(ConfigurationError, match="keep must be at least 1"):
        keep_newest(tmp_path, 0)
    assert names(tmp_path) == {"x.zip"}


def test_one_that_is_saved_again_under_its_name_is_the_newest(tmp_path: Path) -> None:
    first, second = save(tmp_path, "first.zip"), save(tmp_path, "second.zip")
    save(tmp_path, "first.zip")
    assert keep_newest(tmp_path, 1) == [second]
    assert first.exists()


def test_a_clock_that_goes_back_changes_nothing(tmp_path: Path) -> None:
    old = save(tmp_path, "old.zip", at=2_000_000_000.0)
    new = save(tmp_path, "new.zip", at=1_000_000_000.0)
    assert keep_newest(tmp_path, 1) == [old]
    assert new.exists()


def test_the_list_is_the_owners_alone(tmp_path: Path) -> None:
    save(tmp_path, "x.zip")
    assert stat.S_IMODE((tmp_path / LIST).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"format": 1}',
        b'{"format": 1, "backups": [{"name": "../x", "size": 1, "sha256": "", "saved_at": 0}]}',
        b'{"format": 1, "backups": [{"name": 3}]}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_list_is_put_aside_and_nothing_is_removed(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    outside = tmp_path / "x"
    outside.write_bytes(b"1")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.zip").write_bytes(b"backup")
    (folder / LIST).write_bytes(content)
    save(folder, "b.zip")
    assert keep_newest(folder, 1) == []
    assert names(folder) == {"a.zip", "b.zip", f"{LIST}.damaged"}
    assert outside.exists()
    assert "is damaged" in caplog.text


def test_a_list_of_a_newer_release_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / LIST).write_text(json.dumps({"format": 2, "backups": []}))
    with pytest.raises(SaveError, match="newer release"):
        save(tmp_path, "x.zip")
    assert json.loads((tmp_path / LIST).read_text())["format"] == 2


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="cannot be used: No such file"):
        keep_newest(tmp_path / "none", 1)


@pytest.mark.parametrize("step", ["unlink", "write"])
def test_a_crash_in_between_neither_loses_the_newest_nor_removes_too_much(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        save(tmp_path, f"{number}.zip")
    with monkeypatch.context() as patch:
        name = "_remove" if step == "unlink" else "_write"
        patch.setattr(retention, name, _crash)
        with pytest.raises(KeyboardInterrupt):
            keep_newest(tmp_path, 2)
    assert {"2.zip", "3.zip"} <= names(tmp_path)
    save(tmp_path, "4.zip")
    keep_newest(tmp_path, 2)
    assert names(tmp_path) == {"3.zip", "4.zip"}


def _crash(*_: object) -> None:
    raise KeyboardInterrupt


def _save_many(folder: Path, number: int) -> None:
    for each in range(20):
        save(folder, f"{number}-{each}.zip")


def test_processes_that_save_at_the_same_time_lose_no_entry(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_save_many, args=(tmp_path, n)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(json.loads((tmp_path / LIST).read_text())["backups"]) == 60
    assert len(keep_newest(tmp_path, 1)) == 59


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("save"), st.integers(0, 5)),
            st.tuples(st.just("keep"), st.integers(1, 4)),
            st.tuples(st.just("change"), st.integers(0, 5)),
            st.tuples(st.just("remove"), st.integers(0, 5)),
        ),
        max_size=25,
    )
)
def test_whatever_happens_the_newest_good_ones_are_there(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """A model: a list of good backups, oldest first."""
    folder = tmp_path_factory.mktemp("kept")
    good: list[str] = []
    for step, number in steps:
        name = f"{number}.zip"
        if step == "save":
            save(folder, name)
            good = [each for each in good if each != name] + [name]
        elif step == "keep":
            keep_newest(folder, number) if folder.joinpath(LIST).exists() else None
            good = good[-number:]
        elif (folder / name).exists():
            (folder / name).unlink() if step == "remove" else os.truncate(folder / name, 1)
            good = [each for each in good if each != name]
        assert set(good) <= names(folder)


def test_accounts_that_share_a_folder_keep_their_own(tmp_path: Path) -> None:
    for account, number in (("a", 1), ("b", 1), ("b", 2), ("b", 3)):
        path = tmp_path / f"{account}{number}.zip"
        path.write_bytes(b"backup")
        note_backup(tmp_path, SavedFile(path, 6, "0" * 64, 0.1), 0.0, account)
    assert [path.name for path in keep_newest(tmp_path, 1, "b")] == ["b1.zip", "b2.zip"]
    assert keep_newest(tmp_path, 1, "a") == []
    assert names(tmp_path) == {"a1.zip", "b3.zip"}


def test_a_file_of_the_same_size_that_somebody_wrote_since_is_left_alone(tmp_path: Path) -> None:
    path = save(tmp_path, "notes.zip", b"backup")
    save(tmp_path, "new.zip")
    path.unlink()
    path.write_bytes(b"notes!")
    assert keep_newest(tmp_path, 1) == []
    assert path.read_bytes() == b"notes!"
