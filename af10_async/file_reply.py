"""FileReply: the head of an answer, and its body in blocks."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from .body import BLOCK_SIZE, Body
from .connections import AsyncioStream
from .errors import RequestTimeoutError
from .http_errors import raise_translated

DIRECT_FROM = 1024 * 1024
"""A body of so many bytes is taken straight off the socket; below, the connection is kept."""
_TICK = 0.1
"""Seconds after which a block is handed on although it is not full."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some bytes of a body. Whoever is done with them says `free`: their memory is used again."""

    data: memoryview | bytes
    free: Callable[[], object]
    seconds: float
    """How long the network was waited for."""


class FileReply:
    """The head of an answer whose body is still to be read. Header names are in lower case."""

    def __init__(self, response: Any, what: str) -> None:
        self.status: int = response.status_code
        self.headers = lower_names(response.headers)
        self.is_too_long = False
        """Whether the body, read to its end, was followed by more than was promised."""
        self.is_consumed = False
        """Whether the body was read to its end, by way of httpx: the connection may be kept."""
        self._response = response
        self._what = what
        self._seen: list[bytes] = []
        self._rest: AsyncGenerator[bytes, None] | None = None

    async def peek(self, limit: int) -> bytes:
        """The first bytes of the body, `limit` or more of them unless it is shorter."""
        self._rest = self._read()
        async for chunk in self._rest:
            self._seen.append(chunk)
            if sum(map(len, self._seen)) >= limit:
                break
        return b"".join(self._seen)

    async def blocks(
        self,
        length: int | None,
        *,
        stall_timeout: float,
        eager: bool = False,
        block_size: int = BLOCK_SIZE,
        clock: Callable[[], float] = time.monotonic,
    ) -> AsyncGenerator[Block, None]:
        """The raw body, once. `length` is what its head promises.

        Blocks of a long body have `block_size` bytes, and are handed on at the latest after a
        tenth of a second (to an `eager` reader at once); when nothing came in that time, an empty
        one is.

        Raises `RequestTimeoutError` after `stall_timeout` seconds without a byte, `NetworkError`
        when the connection breaks; a body that is cut may just end.
        """
        ours, body = self._plain_stream(length), None
        if ours is not None and length is not None and length >= DIRECT_FROM and not self._rest:
            body = ours.take_body(length, block_size)
        if body is None:
            blocks = self._chunks(clock)
        else:
            blocks = self._direct(body, stall_timeout, eager, clock)
        async with aclosing(blocks):
            async for block in blocks:
                yield block
        self.is_consumed = body is None
        if body is not None:
            self.is_too_long = await body.is_followed()
        elif ours is not None and length is not None:
            self.is_too_long = ours.is_followed(length)
            self.is_consumed = not self.is_too_long  # else the rest would answer the next request

    def _plain_stream(self, length: int | None) -> AsyncioStream | None:
        """The connection, if it is one of ours on which nothing but the file's bytes follow."""
        stream = self._response.extensions.get("network_stream")
        is_plain = (
            length is not None
            and self.headers.get("content-length", "").strip() == str(length)
            and "transfer-encoding" not in self.headers
        )
        return stream if is_plain and isinstance(stream, AsyncioStream) else None

    async def close(self) -> None:
        """Let go of what was peeked at and not read on."""
        if self._rest is not None:
            await self._rest.aclose()

    async def _direct(
        self, body: Body, stall_timeout: float, eager: bool, clock: Callable[[], float]
    ) -> AsyncGenerator[Block, None]:
        silent, within = 0.0, min(_TICK, stall_timeout)
        while True:
            since, is_held_up = clock(), body.is_paused
            try:
                data = await body.read(within, eager=eager)
            except Exception as error:
                raise_translated(error, self._what, sent=True)
            if data is None:
                return
            if not data and body.is_paused:
                continue  # it is we who do not read: the disk is slow
            silent = 0.0 if data else silent + within
            if silent >= stall_timeout:
                raise RequestTimeoutError(
                    f"{self._what}: no answer in time", sent=True, retryable=True
                )
            free = functools.partial(body.free, data) if data else _nothing
            yield Block(data, free, 0.0 if is_held_up else clock() - since)

    async def _chunks(self, clock: Callable[[], float]) -> AsyncGenerator[Block, None]:
        async with aclosing(self._rest or self._read()) as rest:
            for chunk in self._seen:
                yield Block(chunk, _nothing, 0.0)
            since = clock()
            async for chunk in rest:
                yield Block(chunk, _nothing, clock() - since)
                since = clock()  # what the caller did meanwhile is not the server's fault

    async def _read(self) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(raw_body(self._response)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except (GeneratorExit, asyncio.CancelledError):
            raise
        except Exception as error:
            raise_translated(error, self._what, sent=True)


def lower_names(headers: Any) -> dict[str, str]:
    """Headers by their names in lower case."""
    return {name.lower(): value for name, value in headers.items()}


def raw_body(response: Any) -> AsyncGenerator[bytes, None]:
    """The body as it comes, undecoded; also of a mock that has it in memory already."""
    chunks: AsyncGenerator[bytes, None] = (
        _once(response.content) if response.is_stream_consumed else response.aiter_raw()
    )
    return chunks


async def _once(content: bytes) -> AsyncGenerator[bytes, None]:
    yield content


def _nothing() -> None:
    """What is to be done with bytes that nobody uses again."""
