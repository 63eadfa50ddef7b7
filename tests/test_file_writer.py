"""One thread writes a file and hashes it, in whatever order its bytes come."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from pathlib import Path

import pytest

from af10_async.errors import SaveError
from af10_async.file_writer import FileWriter, PartialFileChanged
from af10_async.partial_file import PartialFile

BLOCK = 512 * 1024
DATA = os.urandom(5 * BLOCK + 17)


def nothing() -> None:
    """Nobody uses the memory again."""


async def written(writer: FileWriter, order: list[int]) -> None:
    """Write the blocks in this order; the last three arguments are as `Saving` gives them."""
    here: set[int] = set()
    for number in order:
        here.add(number)
        gap = next(each for each in range(len(order) + 1) if each not in here)
        start = number * BLOCK
        front = min(gap * BLOCK, len(DATA))
        await writer.write(DATA[start : start + BLOCK], start, front, nothing)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [0, 2, 1, 5, 3, 4]])
async def test_the_hashes_are_right_in_whatever_order_the_bytes_come(
    tmp_path: Path, order: list[int]
) -> None:
    writer = FileWriter(PartialFile(tmp_path, overwrite=False), with_md5=True)
    try:
        await writer.run(writer.partial.open)
        await written(writer, order)
        await writer.digest_all()
        assert writer.digest.position == len(DATA)
        assert writer.digest.sha256 == hashlib.sha256(DATA).hexdigest()
        assert writer.digest.md5 == hashlib.md5(DATA).hexdigest()
    finally:
        writer.post_end(lambda: False)
        await writer.close()
    assert list(tmp_path.iterdir()) == []


async def test_a_cancelled_caller_does_not_wait_until_all_is_hashed(tmp_path: Path) -> None:
    reads, has_begun, may_go_on = [0], threading.Event(), threading.Event()

    class Endless(PartialFile):
        def read(self, offset: int, size: int) -> bytes:
            reads[0] += 1
            has_begun.set()
            may_go_on.wait(10)
            return bytes(size)

    writer = FileWriter(Endless(tmp_path, overwrite=False))
    await writer.run(writer.partial.open)
    await writer.run(lambda: writer.restart(None, 2**60))
    task = asyncio.create_task(writer.digest_all())
    await asyncio.to_thread(has_begun.wait, 10)
    task.cancel()
    writer.post_end(lambda: False)
    may_go_on.set()
    await writer.close()
    assert task.cancelled()
    assert reads[0] <= 2
    assert list(tmp_path.iterdir()) == []


async def test_after_a_failed_write_nothing_is_noted_and_nothing_is_kept(tmp_path: Path) -> None:
    class Broken(PartialFile):
        def write(self, data: bytes | memoryview, offset: int) -> None:
            raise SaveError("the disk is ill")

    noted: list[str] = []
    writer = FileWriter(Broken(tmp_path, overwrite=False))
    await writer.run(writer.partial.open)
    await writer.write(DATA, 0, len(DATA), nothing)
    writer.post(lambda: noted.append("progress"))
    with pytest.raises(SaveError, match="ill"):
        await writer.digest_all()

    def keep() -> bool:
        noted.append("end")
        return True

    writer.post_end(keep)
    await writer.close()
    assert noted == []
    assert list(tmp_path.iterdir()) == []


async def test_a_beginning_that_is_not_what_was_written_is_noticed(tmp_path: Path) -> None:
    writer = FileWriter(PartialFile(tmp_path, overwrite=False))
    try:
        await writer.run(writer.partial.open)
        await writer.run(lambda: writer.partial.write(b"tampered", 0))
        await writer.run(lambda: writer.restart((8, hashlib.sha256(b"original").hexdigest()), 8))
        assert writer.digest.proof[0] == 8
        with pytest.raises(PartialFileChanged):
            await writer.digest_all()
    finally:
        writer.post_end(lambda: False)
        await writer.close()
