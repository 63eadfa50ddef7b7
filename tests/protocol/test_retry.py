"""Trying again: how often, and after which pauses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from af10_async.protocol.retry import MAX_RETRY_AFTER, RetryPolicy, parse_retry_after

POLICY = RetryPolicy(attempts=10, first_pause=0.5, longest_pause=30.0)
NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine's own time zone, where it can be set, is not UTC."""
    if not hasattr(time, "tzset"):
        pytest.skip("the time zone cannot be set here")
    monkeypatch.setenv("TZ", "XYZ-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_the_pause_doubles_up_to_the_longest() -> None:
    pauses = [POLICY.pause(attempt, 1.0) for attempt in range(1, 10)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


@given(attempt=st.integers(1, 10**6), chance=st.floats(0, 1))
def test_chance_spreads_the_pause_over_its_upper_half(attempt: int, chance: float) -> None:
    lowest, highest = POLICY.backoff(attempt, 0.0), POLICY.backoff(attempt, 1.0)
    assert lowest == highest / 2
    assert lowest <= POLICY.backoff(attempt, chance) <= highest <= POLICY.longest_pause
    assert POLICY.backoff(attempt, 0.5) == 0.75 * highest


@pytest.mark.parametrize(("attempt", "again"), [(1, True), (9, True), (10, False), (11, False)])
def test_the_last_attempt_is_not_followed_by_another(attempt: int, again: bool) -> None:
    assert (POLICY.pause(attempt, 0.5) is not None) is again


def test_a_single_attempt_is_never_repeated() -> None:
    assert RetryPolicy(attempts=1).pause(1, 0.5, asked=0.0) is None


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, 0.5),
        (0.0, 0.5),
        (0.2, 0.5),
        (20.0, 20.0),
        (MAX_RETRY_AFTER, MAX_RETRY_AFTER),
        (MAX_RETRY_AFTER + 1, None),
        (float("inf"), None),
    ],
)
def test_the_wait_the_server_asks_for_is_the_least_and_an_absurd_one_ends_it(
    asked: float | None, expected: float | None
) -> None:
    assert POLICY.pause(1, 1.0, asked) == expected


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("1000000000", 1e9),
        pytest.param("9" * 5000, float("inf"), id="5000-digits"),
        ("Sun, 06 Nov 1994 08:50:07 GMT", 30.0),
        ("Sunday, 06-Nov-94 08:50:07 GMT", 30.0),
        ("Sun Nov  6 08:50:07 1994", 30.0),
        ("Sun, 06 Nov 1994 08:50:07 -0000", 30.0),
        ("Sun, 06 Nov 1994 09:50:07 +0100", 30.0),
        ("Sun, 06 Nov 1994 08:49:07 GMT", 0.0),
        ("Tue, 01 Jan 1901 00:00:00 GMT", 0.0),
    ],
)
@pytest.mark.usefixtures("far_from_greenwich")
def test_seconds_and_all_three_forms_of_a_date_are_read_in_utc(header: str, seconds: float) -> None:
    assert parse_retry_after(header, NOW) == seconds


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        " ",
        "-5",
        "1.5",
        "1e3",
        "soon",
        "\uff11\uff12",
        "\u00b2",
        "Sun, 99 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 99:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 +99999999999999999999",
        "Sun, 06 Nov 99999 08:49:37 GMT",
        pytest.param("Sun, 06 Nov " + "9" * 5000 + " 08:49:37 GMT", id="5000-digit-year"),
    ],
)
def test_nonsense_asks_for_nothing(header: str | None) -> None:
    assert parse_retry_after(header, NOW) is None


date_like = st.lists(
    st.sampled_from(
        ["Sun,", "06", "Nov", "1994", "08:49:37", "GMT", "+0100", "-9999", ":", "-", ",", "99999"]
    )
    | st.text(max_size=4),
    max_size=7,
).map(" ".join)


@given(header=st.text(st.characters(exclude_categories=()), max_size=30) | date_like)
def test_no_header_raises_and_none_asks_for_less_than_nothing(header: str) -> None:
    seconds = parse_retry_after(header, NOW)
    assert seconds is None or seconds >= 0.0


@given(
    moment=st.integers(7 * 10**8, 4 * 10**9).map(lambda stamp: datetime.fromtimestamp(stamp, UTC)),
    now=st.integers(0, 4 * 10**9),
)
def test_a_date_is_the_time_from_now_until_then(moment: datetime, now: int) -> None:
    header = format_datetime(moment, usegmt=True)
    expected = max(0.0, moment.timestamp() - now)
    assert parse_retry_after(header, float(now)) == expected
