"""FileWriter: one thread that writes a file and hashes it, so that the event loop does neither."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from .partial_file import PartialFile
from .shelter import through

T = TypeVar("T")

_MOST_WAITING = 8 * 1024 * 1024
"""Bytes that may wait for the thread; whoever brings more has to wait as well."""
_READ_SIZE = 1024 * 1024
"""Bytes that are read back, to be hashed, in one go."""
_WORTH_A_THREAD = 256 * 1024
"""Bytes that are hashed at the same time as they are written."""

Work = Callable[[], object]


class PartialFileChanged(Exception):  # noqa: N818 - a message to ourselves
    """What a former writer left is not what it wrote."""


class Digest:
    """The hashes of a file whose bytes may come in any order; belongs to the writing thread.

    Bytes that come in order are hashed from memory. The others are read back from the file when
    the thread has nothing else to do, and at the end.
    """

    def __init__(self, partial: PartialFile, *, with_md5: bool) -> None:
        self._partial = partial
        self._with_md5 = with_md5
        self._check: tuple[int, str] | None = None
        self.start()

    def start(self, check: tuple[int, str] | None = None) -> None:
        """Begin anew; `check` is a size and the SHA-256 that so many bytes must have."""
        self.position = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if self._with_md5 else None
        self._check = check if check is not None and check[0] else None

    @property
    def sha256(self) -> str:
        """Of what was hashed, in hexadecimal."""
        return self._sha256.hexdigest()

    @property
    def md5(self) -> str | None:
        """The same, if it was asked for."""
        return self._md5.hexdigest() if self._md5 is not None else None

    @property
    def proof(self) -> tuple[int, str]:
        """A size, and the SHA-256 that so many bytes must have: those hashed, or those still to be.

        What is not checked yet is not vouched for.
        """
        return self._check or (self.position, self.sha256)

    def take(self, data: bytes | memoryview, offset: int) -> None:
        """Hash what was written at `offset`, if it is its turn."""
        if offset == self.position:
            self._update(data)

    def catch_up(self, front: int) -> None:
        """Hash a little of what is there, up to `front`."""
        size = min(_READ_SIZE, front - self.position)
        if self._check is not None and self.position < self._check[0]:
            size = min(size, self._check[0] - self.position)
        data = self._partial.read(self.position, size)
        if not data:
            raise PartialFileChanged
        self._update(data)

    def _update(self, data: bytes | memoryview) -> None:
        self._sha256.update(data)
        if self._md5 is not None:
            self._md5.update(data)
        self.position += len(data)
        if self._check is not None and self.position >= self._check[0]:
            if self.position != self._check[0] or self.sha256 != self._check[1]:
                raise PartialFileChanged
            self._check = None


class FileWriter:
    """Does everything that concerns one partial file in one thread, in the order it was asked for.

    What fails in writing is raised by whatever is asked for next.
    """

    def __init__(self, partial: PartialFile, *, with_md5: bool = False) -> None:
        self.partial = partial
        self.digest = Digest(partial, with_md5=with_md5)
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._front = 0
        self._waiting = 0
        self._room = asyncio.Event()
        self._error: BaseException | None = None
        self._hasher = ThreadPoolExecutor(1, "af10 hash")
        # A thread and a future, not a task: at the end of `asyncio.run` all tasks are cancelled,
        # and the one that waits for a thread would then no longer do so.
        self._ended: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._live, name="af10 write").start()

    async def write(
        self, data: bytes | memoryview, offset: int, front: int, free: Callable[[], object]
    ) -> None:
        """Write at `offset`, hash, and then `free` the data; the file is gapless up to `front`.

        Returns before that, unless too much waits to be written.
        """
        self._raise_error()
        self._waiting += len(data)
        self._queue.put(lambda: self._write(data, offset, front, free))
        while self._waiting > _MOST_WAITING:
            self._room.clear()
            await self._room.wait()
            self._raise_error()

    async def run(self, work: Callable[[], T]) -> T:
        """Do something else with the file, when everything before is written."""
        result: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(lambda: self._run(work, result))
        return await result

    def post(self, work: Work) -> None:
        """Let something be done with the file, without waiting; its failure counts as one to write.

        It is done before the thread ends, however soon that is asked for, but not after something
        failed: what `work` relies on may then not be in the file.
        """
        self._queue.put(lambda: self._try(work) if self._error is None else None)

    def post_end(self, keep: Callable[[], bool]) -> None:
        """Close the file for good: kept if `keep` says so and nothing has failed, else removed."""

        def end() -> None:
            if self._error is None:
                self._try(close)
            self.partial.discard()  # which does nothing to a closed one

        def close() -> None:
            if keep():
                self.partial.close()

        self._queue.put(end)

    async def digest_all(self) -> None:
        """Hash whatever of the file is still to be hashed.

        A little at a time: who is cancelled meanwhile waits for the thread, and that for its work.
        """
        while await self.run(self._digest_some):
            pass

    async def close(self) -> None:
        """Let the thread end what it was asked for, and wait for it, even when cancelled.

        What follows (closing the file) must not happen while the thread still writes.
        """
        self._queue.put(None)
        await through(self._ended)

    def restart(self, check: tuple[int, str] | None = None, front: int = 0) -> None:
        """Hash from the beginning; to be called in the thread (`run`)."""
        self._error = None
        self._front = front
        self.digest.start(check)

    # -- in the thread -----------------------------------------------------------------------------

    def _live(self) -> None:
        self._work()
        self._hasher.shutdown()
        self._tell(lambda: None if self._ended.done() else self._ended.set_result(None))

    def _work(self) -> None:
        while True:
            work = self._next()
            if work is None:
                return
            work()
            del work  # it holds a block

    def _next(self) -> Work | None:
        while True:
            idle = self._error is None and self.digest.position < self._front
            try:
                return self._queue.get(block=not idle)
            except queue.Empty:
                self._try(lambda: self.digest.catch_up(self._front))

    def _write(
        self, data: bytes | memoryview, offset: int, front: int, free: Callable[[], object]
    ) -> None:
        def work() -> None:
            if len(data) < _WORTH_A_THREAD:
                self.partial.write(data, offset)
                self.digest.take(data, offset)
            else:  # each of them is the slower one on some machine
                hashing = self._hasher.submit(self.digest.take, data, offset)
                try:
                    self.partial.write(data, offset)
                finally:
                    wait([hashing])  # it reads the same memory
                hashing.result()
            self._front = front

        if self._error is None:
            self._try(work)
        self._tell(lambda: self._written(len(data), free))

    def _run(self, work: Callable[[], T], result: asyncio.Future[T]) -> None:
        try:
            value = work()
        except BaseException as error:
            failure = error  # it goes to whoever waits
            self._tell(lambda: None if result.done() else result.set_exception(failure))
        else:
            self._tell(lambda: None if result.done() else result.set_result(value))

    def _digest_some(self) -> bool:
        """Whether there is more."""
        self._raise_error()
        if self.digest.position < self._front:
            self.digest.catch_up(self._front)
        return self.digest.position < self._front

    def _try(self, work: Work) -> None:
        try:
            work()
        except BaseException as error:  # a thread that died would leave everybody waiting
            self._error = error

    def _tell(self, news: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
            self._loop.call_soon_threadsafe(news)

    # -- in the loop -------------------------------------------------------------------------------

    def _written(self, size: int, free: Callable[[], object]) -> None:
        free()
        self._waiting -= size
        if self._waiting <= _MOST_WAITING:
            self._room.set()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
