"""Body: the rest of an answer, straight from the socket into a few large blocks.

asyncio writes into memory that we name (`asyncio.BufferedProtocol`), so nothing is copied on the
way to whoever writes it to a file; and when nobody takes the blocks, the sender has to wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import httpcore

BLOCK_SIZE = 1024 * 1024
"""Bytes of a body that are gathered before they are handed on."""
BLOCKS = 4
"""Most blocks of one body that are under way; then its sender has to wait."""
_TAIL = 640 * 1024
"""More bytes than any loop holds back for a connection that is paused."""
_SMALL_ROOM = 16 * 1024
"""A block with less room than this counts as full: tiny reads cost more than they bring."""
GONE = "the other side closed the connection"


class Body(asyncio.BufferedProtocol):
    """The rest of an answer of known length, straight from the socket into a few large blocks."""

    def __init__(self, transport: Any, length: int, block_size: int) -> None:
        self._transport = transport
        self._missing = length
        self._block_size = min(block_size, length + 1)  # with room to notice one byte too many
        self._free: list[memoryview] = []
        self._made = 0
        self._block = self._next_block()
        self._filled = 0
        self._full: deque[tuple[memoryview, int]] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._waits_for_any = False
        self._is_lost = False
        self.is_paused = False
        self.is_too_long = False
        """Whether more came than was promised, as far as it has come."""

    # -- asyncio calls these -----------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        if self._block is None:
            # Nothing is missing, or we are paused and the transport had begun to read.
            self._block, self._filled = self._new_block() if self._missing else _spare(), 0
        return self._block[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """They are there."""
        if nbytes > self._missing:
            self.is_too_long = True
            nbytes = self._missing
        if not nbytes:
            return
        self._filled += nbytes
        self._missing -= nbytes
        room = self._block_size - self._filled
        if not self._missing or room < min(_SMALL_ROOM, self._missing + 1):
            self._turn_over()
        elif self._waits_for_any:
            wake(self._reader)

    def eof_received(self) -> None:
        """The other side sends no more."""
        self.connection_lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._is_lost = True
        wake(self._reader)

    # -- the reader calls these --------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take in what had come before."""
        left = memoryview(data)
        while left and not self.is_too_long:
            room = self.get_buffer(len(left))
            size = min(len(room), len(left))
            room[:size] = left[:size]
            left = left[size:]
            self.buffer_updated(size)

    async def read(self, within: float, *, eager: bool = False) -> memoryview | None:
        """The next block: a full one, or what there is after `within` seconds, perhaps nothing.

        None at the end. An `eager` reader takes what there is as soon as there is any. Who is done
        with a block gives it back with `free`.

        Raises `httpcore.ReadError` when the connection is lost before that.
        """
        if not self._full and self._missing and not self._is_lost:
            await self._wait(within, eager)
        if self._full:
            block, filled = self._full.popleft()
        elif self._filled and self._block is not None:
            block, filled = self._block, self._filled
            self._block, self._filled = self._next_block(), 0
            self._pause_or_go_on()
        elif not self._missing:
            return None
        elif self._is_lost:
            raise httpcore.ReadError(GONE)
        else:
            return memoryview(b"")
        return block[:filled]

    def free(self, block: memoryview) -> None:
        """Use the memory of a block again."""
        whole = memoryview(block.obj)
        if self._block is None and self._missing:
            self._block, self._filled = whole, 0
            self._pause_or_go_on()
        else:
            self._free.append(whole)

    async def is_followed(self) -> bool:
        """Whether more comes than was promised, as far as it is here already."""
        for _ in range(2):  # once for the loop to look at the socket, once for what it finds
            if self.is_too_long or self._is_lost:
                break
            await asyncio.sleep(0)
        return self.is_too_long

    async def _wait(self, within: float, eager: bool) -> None:
        if eager and self._filled:
            return
        loop = asyncio.get_running_loop()
        self._reader = reader = loop.create_future()
        self._waits_for_any = eager
        timer = loop.call_later(within, wake, reader)
        try:
            await reader
        finally:
            timer.cancel()
            self._reader, self._waits_for_any = None, False

    def _turn_over(self) -> None:
        assert self._block is not None  # it was written to
        self._full.append((self._block, self._filled))
        if self._missing:
            self._block, self._filled = self._next_block(), 0
            self._pause_or_go_on()
        else:
            self._block, self._filled = None, 0
        wake(self._reader)

    def _next_block(self) -> memoryview | None:
        if self._free:
            return self._free.pop()
        # At the end there is no pause: some loops lose what they have when the other side closes.
        is_tail = self._missing <= max(self._block_size, _TAIL)
        return self._new_block() if self._made < BLOCKS or is_tail else None

    def _new_block(self) -> memoryview:
        self._made += 1
        return memoryview(bytearray(self._block_size))

    def _pause_or_go_on(self) -> None:
        must_pause = self._block is None
        if must_pause == self.is_paused or self._transport.is_closing():
            return
        self.is_paused = must_pause
        if must_pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()


def wake(waiter: asyncio.Future[None] | None) -> None:
    """End somebody's wait, unless it is over."""
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _spare() -> memoryview:
    """Where bytes go that nobody wants: it is enough to see that there are any."""
    return memoryview(bytearray(64))
