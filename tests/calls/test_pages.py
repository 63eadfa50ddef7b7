"""Pages: every row once and in order, the next page ahead, and nothing left of those who leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from pydantic import BaseModel

from af10_async import (
    AF10Client,
    BadResponseError,
    ClosedError,
    ConfigurationError,
    NotFoundError,
    Pages,
    ServerError,
)
from af10_async.protocol.pages import MOST_EMPTY
from af10_async.sandbox import Answer, Fault, Sandbox, Seen

from ..conftest import ClientMaker

CANARY = "canary-7f3a"


class Row(BaseModel):
    vehicle_id: int


def numbered(page: int, rows: int = 3) -> list[dict[str, int]]:
    return [{"vehicle_id": page * rows + row} for row in range(rows)]


def ids(rows: list[Any]) -> list[int]:
    return [row["vehicle_id"] for row in rows]


class List:
    """A list at `/list` of which each page is answered when it is let go."""

    def __init__(self, sandbox: Sandbox, pages: int = 3) -> None:
        self.asked = [asyncio.Event() for _ in range(pages + 1)]
        self.go = [asyncio.Event() for _ in range(pages + 1)]
        self.pages = pages
        sandbox.answers("GET", "/list", self._answer)

    async def _answer(self, seen: Seen) -> Any:
        page = int(seen.query["page"])
        self.asked[page].set()
        await self.go[page].wait()
        return {"data": numbered(page), "nextpage": page < self.pages}

    def let_all_go(self) -> None:
        for event in self.go:
            event.set()


@pytest.fixture
async def slow_list(sandbox: Sandbox) -> AsyncIterator[List]:
    found = List(sandbox)
    yield found
    found.let_all_go()


async def read(pages: Pages[Any], rows: list[Any]) -> None:
    """Put the rows into a list, where they stay when the next one is an error."""
    async for row in pages:
        rows.append(row)  # noqa: PERF401


def page_tasks() -> set[str]:
    return {
        task.get_name()
        for task in asyncio.all_tasks()
        if task.get_name().startswith("af10_async page")
    }


async def no_page_left() -> bool:
    for _ in range(20):  # what a loop that was left early held is closed in a task of its own
        await asyncio.sleep(0)
    return not page_tasks()


# -- all rows, in order ----------------------------------------------------------------------------


async def test_all_rows_of_three_pages_come_once_and_in_order(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    rows = [row async for row in caller.pages("/vehicle")]
    assert rows == sandbox.vehicles()
    assert len(rows) == 250
    asked = [seen.query["page"] for seen in sandbox.requests if seen.path == "/vehicle"]
    assert asked == ["1", "2", "3"]


async def test_page_by_page_and_all_at_once(caller: AF10Client, sandbox: Sandbox) -> None:
    pages = caller.pages("/vehicle")
    assert [len(rows) async for rows in pages.by_page()] == [100, 100, 50]
    assert await pages.all() == sandbox.vehicles()


async def test_iterating_twice_begins_anew(caller: AF10Client, sandbox: Sandbox) -> None:
    pages = caller.pages("/vehicle", fields=["vehicle_id"])
    first = [row async for row in pages]
    assert [row async for row in pages] == first
    assert sandbox.count("GET", "/vehicle") == 6


async def test_two_may_iterate_at_the_same_time(caller: AF10Client, sandbox: Sandbox) -> None:
    pages = caller.pages("/vehicle")
    first, second = await asyncio.gather(pages.all(), pages.all())
    assert first == second == sandbox.vehicles()


async def test_what_was_asked_for_goes_with_each_page(caller: AF10Client, sandbox: Sandbox) -> None:
    sandbox.answers(
        "GET", "/list", lambda seen: {"data": [], "nextpage": seen.query["page"] == "1"}
    )
    pages = caller.pages(
        "/list",
        fields=["a", "b"],
        filter="x=1",
        search="volvo",
        sort="-a",
        params={"more": True, "none": None},
    )
    assert await pages.all() == []
    usual = {"fields": "a,b", "filter": "x=1", "search": "volvo", "sort": "-a", "more": "true"}
    seen = [each.query for each in sandbox.requests if each.path == "/list"]
    assert seen == [{**usual, "page": "1"}, {**usual, "page": "2"}]


async def test_nothing_is_sent_before_the_first_row_is_wanted(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    pages = caller.pages("/vehicle")
    await asyncio.sleep(0)
    assert isinstance(pages, Pages)
    assert sandbox.requests == []


async def test_a_page_number_of_the_callers_is_refused(caller: AF10Client) -> None:
    with pytest.raises(ConfigurationError, match="must not name a page"):
        caller.pages("/vehicle", params={"page": 2})


async def test_rows_become_what_the_model_says(caller: AF10Client, sandbox: Sandbox) -> None:
    rows = await caller.pages("/vehicle", model=Row).all()
    assert rows == [Row(vehicle_id=row["vehicle_id"]) for row in sandbox.vehicles()]


async def test_a_row_that_does_not_fit_is_named_and_the_pages_before_were_given(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    bad = [{"vehicle_id": 1}, {"vehicle_id": CANARY}]
    sandbox.answers(
        "GET",
        "/list",
        lambda seen: (
            {"data": numbered(0), "nextpage": True} if seen.query["page"] == "1" else {"data": bad}
        ),
    )
    rows: list[Row] = []
    with pytest.raises(BadResponseError, match=r"Row.*: 1\.vehicle_id: ") as caught:
        await read(caller.pages("/list", model=Row), rows)
    assert [row.vehicle_id for row in rows] == [0, 1, 2]
    assert CANARY not in str(caught.value) + repr(vars(caught.value))


# -- the end of a list -----------------------------------------------------------------------------


@pytest.mark.parametrize("more", ["missing", False, None, 0, "false", "0", ""])
async def test_it_ends_where_af10_says_so_in_whatever_way(
    caller: AF10Client, sandbox: Sandbox, more: Any
) -> None:
    last = {"data": numbered(1)} if more == "missing" else {"data": numbered(1), "nextpage": more}
    sandbox.answers("GET", "/list", last)
    assert await caller.pages("/list").all() == numbered(1)
    assert sandbox.count("GET", "/list") == 1


async def test_data_of_null_has_no_rows(caller: AF10Client, sandbox: Sandbox) -> None:
    sandbox.answers("GET", "/list", {"data": None, "nextpage": False})
    assert await caller.pages("/list", model=Row).all() == []
    assert [rows async for rows in caller.pages("/list").by_page()] == [[]]


@pytest.mark.parametrize("value", [{}, {"data": CANARY}, {"data": {"a": 1}}, 7, None, Answer(204)])
async def test_what_is_no_list_is_a_bad_response(
    caller: AF10Client, sandbox: Sandbox, value: Any
) -> None:
    sandbox.answers("GET", "/list", value if isinstance(value, Answer) else Answer(200, value))
    with pytest.raises(BadResponseError, match="no list of rows") as caught:
        await caller.pages("/list").all()
    assert (caught.value.method, caught.value.path) == ("GET", "/list")
    assert CANARY not in str(caught.value)


CYCLES: dict[str, Callable[[int], list[Any]]] = {
    "the first": lambda page: numbered(1, 12),
    "A B": lambda page: numbered(page % 2, 12),
    "the third": lambda page: numbered(min(page, 3), 12),
}


@pytest.mark.parametrize("cycle", CYCLES.values(), ids=CYCLES)
async def test_a_server_that_repeats_its_pages_for_ever_is_found_out(
    caller: AF10Client, sandbox: Sandbox, cycle: Callable[[int], list[Any]]
) -> None:
    sandbox.answers(
        "GET", "/list", lambda seen: {"data": cycle(int(seen.query["page"])), "nextpage": True}
    )
    rows: list[Any] = []
    with pytest.raises(BadResponseError, match="one that came before"):
        await read(caller.pages("/list"), rows)
    assert len(rows) == len(set(ids(rows)))
    assert len(rows) >= 12


async def test_the_sandboxs_own_repetition_is_found_out(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.repeats_page())
    with pytest.raises(BadResponseError, match="one that came before"):
        await caller.vehicles().all()
    assert sandbox.count("GET", "/vehicle") <= 3


async def test_empty_pages_for_ever_are_found_out(caller: AF10Client, sandbox: Sandbox) -> None:
    sandbox.answers("GET", "/list", {"data": [], "nextpage": True})
    with pytest.raises(BadResponseError, match="empty again"):
        await caller.pages("/list").all()
    assert sandbox.count("GET", "/list") == MOST_EMPTY


async def test_rows_that_are_all_alike_are_no_repetition(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    volvos = [{"brand": "Volvo"}] * 100
    sandbox.answers(
        "GET", "/list", lambda seen: {"data": volvos, "nextpage": int(seen.query["page"]) < 20}
    )
    assert await caller.pages("/list").all() == volvos * 20


# -- ahead -----------------------------------------------------------------------------------------


async def test_the_next_page_is_asked_for_before_the_rows_of_this_one_are_used(
    caller: AF10Client, slow_list: List
) -> None:
    slow_list.go[1].set()
    async with aclosing(aiter(caller.pages("/list"))) as rows:
        assert (await anext(rows))["vehicle_id"] == 3
        await asyncio.wait_for(slow_list.asked[2].wait(), 10)
        # The rest of the first page is here, though the second is not.
        assert [(await anext(rows))["vehicle_id"] for _ in range(2)] == [4, 5]
        assert not slow_list.asked[3].is_set()
        slow_list.let_all_go()
        assert ids([row async for row in rows]) == [6, 7, 8, 9, 10, 11]


async def test_only_one_page_is_fetched_ahead(caller: AF10Client, slow_list: List) -> None:
    slow_list.let_all_go()
    async with aclosing(caller.pages("/list").by_page()) as pages:
        await anext(pages)
        await asyncio.wait_for(slow_list.asked[2].wait(), 10)
        await asyncio.sleep(0.02)  # page 2 is here by now, and nobody has asked for its rows
        assert not slow_list.asked[3].is_set()


async def test_the_last_page_is_not_followed_by_another_request(
    caller: AF10Client, sandbox: Sandbox, slow_list: List
) -> None:
    slow_list.let_all_go()
    assert len(await caller.pages("/list").all()) == 9
    assert sandbox.count("GET", "/list") == 3


# -- those who leave -------------------------------------------------------------------------------


async def test_leaving_early_ends_what_is_fetched_ahead(
    caller: AF10Client, slow_list: List
) -> None:
    slow_list.go[1].set()
    async for _ in caller.pages("/list"):
        await asyncio.wait_for(slow_list.asked[2].wait(), 10)
        assert page_tasks() == {"af10_async page 2"}
        break
    assert await no_page_left()


async def test_an_error_of_the_callers_ends_it_too(caller: AF10Client, slow_list: List) -> None:
    slow_list.go[1].set()
    with pytest.raises(ZeroDivisionError):
        async for row in caller.pages("/list"):
            _ = row["vehicle_id"] / 0
    assert await no_page_left()


@pytest.mark.parametrize("page", [1, 2])
async def test_cancelling_while_a_page_is_awaited_leaves_no_task(
    caller: AF10Client, slow_list: List, page: int
) -> None:
    for number in range(1, page):
        slow_list.go[number].set()
    reading = asyncio.create_task(caller.pages("/list").all())
    await asyncio.wait_for(slow_list.asked[page].wait(), 10)
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()
    assert await no_page_left()


async def test_closing_the_client_ends_a_list_that_is_waited_for(
    make_caller: ClientMaker, slow_list: List
) -> None:
    slow_list.go[1].set()
    rows: list[Any] = []
    async with make_caller() as client:
        reading = asyncio.create_task(read(client.pages("/list"), rows))
        await asyncio.wait_for(slow_list.asked[2].wait(), 10)
    await asyncio.wait([reading])
    assert isinstance(reading.exception(), ClosedError)
    assert ids(rows) == [3, 4, 5]
    assert await no_page_left()


async def test_closing_the_client_while_rows_are_used_leaves_nothing(
    make_caller: ClientMaker, slow_list: List
) -> None:
    """What was here is given out, then it is said that the client is closed."""
    slow_list.go[1].set()
    async with make_caller() as client:
        rows = aiter(client.pages("/list"))
        await anext(rows)
        await asyncio.wait_for(slow_list.asked[2].wait(), 10)
    assert await no_page_left()
    assert [(await anext(rows))["vehicle_id"] for _ in range(2)] == [4, 5]
    with pytest.raises(ClosedError):
        await anext(rows)


async def test_a_list_that_nobody_reads_to_its_end_is_not_complained_of(
    make_caller: ClientMaker, slow_list: List, caplog: pytest.LogCaptureFixture
) -> None:
    """The page ahead fails when the client closes, and nobody hears of it."""
    slow_list.go[1].set()
    async with make_caller() as client:
        rows = aiter(client.pages("/list"))
        await anext(rows)
        await asyncio.wait_for(slow_list.asked[2].wait(), 10)
    await rows.aclose()
    del rows
    assert await no_page_left()
    assert "never retrieved" not in caplog.text


# -- trouble ---------------------------------------------------------------------------------------


async def test_a_token_that_expires_in_the_middle_is_renewed(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.expired_token(on="vehicle", skip=1))
    assert await caller.pages("/vehicle").all() == sandbox.vehicles()
    assert sandbox.count("GET", "/authenticate") == 2


async def test_a_page_that_fails_for_a_while_is_asked_for_again(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.status(503, on="vehicle", skip=1, times=3))
    assert await caller.pages("/vehicle").all() == sandbox.vehicles()
    assert sandbox.count("GET", "/vehicle") == 6


async def test_a_page_that_fails_raises_after_the_rows_before_it(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.status(500, on="vehicle", skip=2, times=None))
    rows: list[Any] = []
    with pytest.raises(ServerError) as caught:
        await read(caller.pages("/vehicle"), rows)
    assert rows == sandbox.vehicles()[:200]
    assert (caught.value.path, caught.value.retryable) == ("/vehicle", True)
    assert await no_page_left()


async def test_a_list_that_is_not_there_raises_at_its_first_row(caller: AF10Client) -> None:
    pages = caller.pages("/no-such-list")
    with pytest.raises(NotFoundError):
        await pages.all()


async def test_options_hold_for_each_page(caller: AF10Client, sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault.status(503, on="vehicle", skip=1, times=None))
    with pytest.raises(ServerError):
        await caller.with_options(retries=1).pages("/vehicle").all()
    assert sandbox.count("GET", "/vehicle") == 3


async def test_a_list_is_of_a_client_that_is_entered(make_caller: ClientMaker) -> None:
    with pytest.raises(ClosedError, match="enter the client first"):
        await make_caller().pages("/vehicle").all()
