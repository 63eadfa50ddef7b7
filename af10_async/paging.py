"""Pages: the rows of a list, fetched page by page, the next one while this one is being used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from .protocol.pages import PageError, RepetitionGuard
from .shelter import ended

__all__ = ["Pages"]

T = TypeVar("T")

_TURNS = 6
"""Turns of the event loop until a request over an open connection has gone out: it takes 4."""


@dataclass(frozen=True, slots=True)
class FetchedPage(Generic[T]):
    """One page that is here."""

    rows: list[T]
    is_last: bool
    raw: list[object]
    """The rows as AF10 sent them."""
    refuse: Callable[[str], object]
    """Raises the error that it is not what was expected."""


class Pages(Generic[T]):
    """The rows of a list: `async for row in pages`. Each iteration begins with the first page.

    The next page is fetched while the rows of this one are being used. Leaving the loop early ends
    that, too.

    Raises, when iterated over:
        BadResponseError: AF10 sent no list, a row that does not fit the model, or the same page
            again and again.
        AF10Error: what any call raises. The rows of the pages before were given out by then.
    """

    def __init__(self, fetch: Callable[[int], Awaitable[FetchedPage[T]]]) -> None:
        self._fetch = fetch

    async def __aiter__(self) -> AsyncGenerator[T, None]:
        """Row by row."""
        pages = self.by_page()
        try:
            async for rows in pages:
                for row in rows:
                    yield row
        finally:
            await pages.aclose()

    async def by_page(self) -> AsyncGenerator[list[T], None]:
        """Page by page."""
        guard, number = RepetitionGuard(), 1
        ahead = self._begin(number)
        try:
            while True:
                page = await ahead
                if not page.is_last:
                    _check(guard, page)
                    number += 1
                    ahead = self._begin(number)
                    await _let_go_out()
                yield page.rows
                if page.is_last:
                    return
        finally:
            await ended(ahead)

    async def all(self) -> list[T]:
        """All of them in memory."""
        return [row async for row in self]

    def _begin(self, number: int) -> asyncio.Task[FetchedPage[T]]:
        return asyncio.create_task(self._get(number), name=f"af10_async page {number}")

    async def _get(self, number: int) -> FetchedPage[T]:
        return await self._fetch(number)


async def _let_go_out() -> None:
    """Let the request for the next page be sent before the caller gets the rows of this one.

    Whoever uses rows without awaiting anything would otherwise keep it back until then.
    """
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def _check(guard: RepetitionGuard, page: FetchedPage[T]) -> None:
    try:
        guard.check(page.raw)
    except PageError as error:
        page.refuse(str(error))
