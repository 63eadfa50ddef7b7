"""Where files are to go: present, writable, roomy."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from af10_async.doctor import Finding, State
from af10_async.doctor.target import check_target


async def test_a_folder_is_written_to_and_left_as_it_was(tmp_path: Path) -> None:
    found = await check_target(tmp_path)
    assert found.state is State.PASSED
    assert found.details["exists"]
    assert found.details["free_bytes"] > 0
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_can_be_made_passes_and_is_not_made(tmp_path: Path) -> None:
    found = await check_target(f"{tmp_path}/a/b/")
    assert (found.state, found.details["exists"]) == (State.PASSED, False)
    assert list(tmp_path.iterdir()) == []


async def test_without_a_folder_it_is_skipped() -> None:
    found = await check_target(None)
    assert (found.state, "--out DIR" in found.advice) == (State.SKIPPED, True)


async def test_what_is_no_folder_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name in ("file", "file/below", "link", "a\0b", "x" * 300 + "/" + "y"):
        found = await check_target(f"{tmp_path}/{name}")
        assert (found.state, bool(found.advice)) == (State.FAILED, True), name
    assert (await check_target("~nobody-of-that-name/x")).state is State.FAILED


async def test_a_folder_that_cannot_be_written_to_fails(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    place: Path = tmp_path if os.geteuid() else Path("/proc/sys")
    found = await check_target(place)
    tmp_path.chmod(0o700)
    assert (found.state, "nothing can be written" in found.message) == (State.FAILED, True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB and ten files."""
    if os.geteuid():
        pytest.skip("only root can mount a small tmpfs")
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=10", "tmpfs", str(place)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small tmpfs cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


async def test_a_full_disk_fails_and_a_small_one_passes_with_advice(small_disk: Path) -> None:
    found = await check_target(small_disk)
    assert found.state is State.PASSED
    assert [line.partition(":")[0] for line in found.advice.splitlines()] == [
        "make room",
        "remove files",
    ]
    (small_disk / "large").write_bytes(bytes(240 * 1024))
    full = await check_target(small_disk)
    assert (full.state, "make room" in full.advice) == (State.FAILED, True)
    (small_disk / "large").unlink()
    _take_all_names(small_disk)
    no_inode = await check_target(small_disk)
    assert (no_inode.state, "make room" in no_inode.advice) == (State.FAILED, True)


def _take_all_names(place: Path) -> None:
    for number in range(20):
        try:
            (place / str(number)).touch()
        except OSError:
            return


@pytest.mark.parametrize(
    ("url", "state"),
    [
        ("s3://bucket/backups/", "skipped"),
        ("s3://", "failed"),
        ("s3://user:canary@bucket/x", "failed"),
        ("ftp://canary@host/x", "failed"),
        ("file://elsewhere/x", "failed"),
    ],
)
async def test_a_url_is_only_read(url: str, state: str) -> None:
    pytest.importorskip("obstore")
    found: Finding = await check_target(url)
    assert (str(found.state), bool(found.advice)) == (state, True)
    assert "canary" not in repr(found)


async def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    found = await check_target(f"file://{tmp_path}/")
    assert (found.state, found.details["path"]) == (State.PASSED, str(tmp_path))
