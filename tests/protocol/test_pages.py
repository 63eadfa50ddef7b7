"""Lists in pages: what one says, and which servers repeat themselves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from af10_async.protocol.pages import (
    MOST_ALIKE,
    MOST_EMPTY,
    MOST_PAGES,
    Page,
    PageError,
    RepetitionGuard,
    read_page,
)

ROWS = [{"vehicle_id": 1}, {"vehicle_id": 2}]


def pages_read(pages: Any) -> int:
    """How many pages the guard lets pass before it finds a repetition; -1 when it finds none."""
    guard = RepetitionGuard()
    for number, rows in enumerate(pages):
        try:
            guard.check(rows)
        except PageError:
            return number
    return -1


def numbered(page: int, rows: int = 12) -> list[dict[str, int]]:
    return [{"vehicle_id": page * rows + row} for row in range(rows)]


# -- what a page says ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more", [False, None, 0, 0.0, "", "false", "False", " FALSE ", "0", "no", "N", "null", []]
)
def test_it_is_the_last_when_it_says_so_in_whatever_way(more: object) -> None:
    assert read_page({"data": ROWS, "nextpage": more}) == Page(ROWS, is_last=True)


@pytest.mark.parametrize("more", [True, 1, 2, "true", "1", "yes", "2", "/vehicle?page=2"])
def test_there_is_another_when_it_says_so_in_whatever_way(more: object) -> None:
    assert read_page({"data": ROWS, "nextpage": more}) == Page(ROWS, is_last=False)


def test_without_a_word_of_it_there_is_no_other() -> None:
    assert read_page({"data": ROWS}).is_last
    assert read_page(ROWS) == Page(ROWS, is_last=True)


def test_data_of_null_is_a_page_without_rows() -> None:
    assert read_page({"data": None, "nextpage": True}) == Page([], is_last=False)


@pytest.mark.parametrize(
    "value", [None, 7, "text", True, {}, {"rows": []}, {"data": {}}, {"data": "x"}, {"data": 0}]
)
def test_what_is_no_list_is_no_page(value: object) -> None:
    with pytest.raises(PageError, match="no list of rows"):
        read_page(value)


def test_the_repr_of_a_page_holds_no_rows() -> None:
    assert "canary" not in repr(read_page({"data": ["canary"]}))


# -- repetitions -----------------------------------------------------------------------------------


def test_pages_that_differ_are_no_repetition() -> None:
    assert pages_read(numbered(page) for page in range(500)) == -1


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_a_cycle_of_pages_is_found_when_it_begins_anew(length: int) -> None:
    """A A, A B A B, and so on."""
    assert pages_read(numbered(number % length) for number in range(100)) == length


def test_a_server_that_sticks_to_its_third_page_is_found() -> None:
    assert pages_read(numbered(min(number, 2)) for number in range(10)) == 3


def test_few_rows_may_come_again() -> None:
    """Two kinds of vehicles, and three others, again and again may be what was asked for."""
    assert pages_read(numbered(number % 2, 9) for number in range(500)) == -1


def test_rows_that_are_all_alike_prove_nothing() -> None:
    """Half a thousand pages of `{"brand": "Volvo"}` may well be what was asked for."""
    assert pages_read([{"brand": "Volvo"}] * 100 for _ in range(500)) == -1


@given(st.lists(st.lists(st.sampled_from(["Volvo", "Saab"]), min_size=3, max_size=9), max_size=60))
def test_rows_of_few_values_are_never_taken_for_a_repetition(pages: list[list[str]]) -> None:
    assert pages_read(pages) == -1


@pytest.mark.parametrize("rows", [[{"vehicle_id": 1}], [{"brand": "Volvo"}] * 100])
def test_alike_for_ever_is_found_in_the_end_whatever_stands_in_them(rows: list[Any]) -> None:
    assert pages_read(rows for _ in range(MOST_ALIKE + 5)) == MOST_ALIKE


def test_pages_that_are_empty_for_ever_are_found() -> None:
    assert pages_read([] for _ in range(10)) == MOST_EMPTY - 1


def test_a_few_empty_pages_in_between_are_no_end() -> None:
    pages = [page for number in range(50) for page in ([], numbered(number), [])]
    assert pages_read(pages) == -1


def test_a_list_that_does_not_end_does() -> None:
    assert pages_read([number] for number in range(MOST_PAGES + 5)) == MOST_PAGES - 1


SCALARS = st.none() | st.booleans() | st.floats() | st.text(st.characters(exclude_categories=()))
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(), SCALARS, max_size=2)


@given(st.lists(VALUES, max_size=5))
def test_rows_may_be_anything(rows: list[Any]) -> None:
    guard = RepetitionGuard()
    guard.check(rows)
