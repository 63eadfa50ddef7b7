"""Trying again: how often, and after which pauses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from af10_async.errors import (
    AF10Error,
    APIError,
    ConfigurationError,
    NetworkError,
    RateLimitError,
    ServerError,
)
from af10_async.protocol.retry import (
    MAX_RETRY_AFTER,
    RetryBudget,
    RetryPolicy,
    may_repeat,
    parse_retry_after,
)

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


# -- a quick call ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"attempts": 0},
        {"attempts": float("nan")},
        {"first_pause": -1},
        {"longest_pause": float("nan")},
        {"longest_total": -0.1},
        {"jitter": 1.1},
        {"jitter": -0.1},
        {"jitter": float("nan")},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_by_name(values: dict[str, float]) -> None:
    (name,) = values
    with pytest.raises(ConfigurationError, match=name):
        RetryPolicy(**values)  # type: ignore[arg-type]


@given(jitter=st.floats(0, 1), chance=st.floats(0, 1), attempt=st.integers(1, 50))
def test_jitter_is_the_part_of_the_pause_that_is_left_to_chance(
    jitter: float, chance: float, attempt: int
) -> None:
    policy = RetryPolicy(jitter=jitter)
    most = RetryPolicy(jitter=0).backoff(attempt, chance)
    assert most * (1 - jitter) * 0.999 <= policy.backoff(attempt, chance) <= most


@pytest.mark.parametrize(
    ("elapsed", "asked", "pause"),
    [(0, None, 0.5), (9.5, None, 0.5), (9.6, None, None), (0, 10.0, 10.0), (0, 10.1, None)],
)
def test_a_call_is_not_sent_again_after_the_longest_total(
    elapsed: float, asked: float | None, pause: float | None
) -> None:
    policy = RetryPolicy(longest_total=10, jitter=0)
    error = ServerError("sick", status=503, retry_after=asked, retryable=True)
    assert policy.pause_of_call(error, "GET", 1, elapsed, 1.0) == pause


def test_what_may_not_be_repeated_has_no_pause() -> None:
    error = NetworkError("broken", sent=True, retryable=True)
    assert POLICY.pause_of_call(error, "GET", 1, 0.0, 1.0) == 0.5
    assert POLICY.pause_of_call(error, "POST", 1, 0.0, 1.0) is None


@pytest.mark.parametrize("method", ["GET", "head", "OPTIONS", "PUT", "delete"])
@pytest.mark.parametrize("sent", [True, None, False])
def test_harmless_methods_are_repeated_when_it_may_pass(method: str, sent: bool | None) -> None:
    assert may_repeat(NetworkError("broken", sent=sent, retryable=True), method)
    assert not may_repeat(NetworkError("broken", sent=sent, retryable=False), method)


BUSY: list[tuple[AF10Error, bool]] = [
    (NetworkError("x", sent=False, retryable=True), True),
    (NetworkError("x", sent=True, retryable=True), False),
    (NetworkError("x", sent=None, retryable=True), False),
    (RateLimitError("x", status=429, retryable=True), True),
    (ServerError("x", status=503, retryable=True), False),
    (ServerError("x", status=503, retry_after=0.0, retryable=True), False),
    (ServerError("x", status=503, error_code="E1", retryable=True), True),
    (ServerError("x", status=200, error_code="503", retryable=True), True),
    (ServerError("x", status=200, error_code=500, retryable=True), False),
    (ServerError("x", status=502, retry_after=5.0, retryable=True), False),
    (APIError("x", status=408, retryable=True), False),
    (APIError("x", status=425, retryable=True), False),
]


@pytest.mark.parametrize(("error", "may"), BUSY, ids=range(len(BUSY)))
@pytest.mark.parametrize("method", ["POST", "PATCH", "patch", "PURGE"])
def test_other_methods_are_repeated_only_when_nothing_can_have_happened(
    error: AF10Error, may: bool, method: str
) -> None:
    assert may_repeat(error, method) is may


# -- the budget ------------------------------------------------------------------------------------


def reserved(budget: RetryBudget, now: float) -> float:
    wait = budget.reserve(now)
    assert wait is not None  # nothing is too long to wait for
    return wait


@given(
    rate=st.floats(0.5, 200),
    burst=st.integers(0, 20),
    gaps=st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.001, 0.1, 1.0, 7.5]), max_size=80),
    seconds=st.sampled_from([0.0, 0.01, 0.5, 1.0, 3.0, 10.0]),
)
def test_in_no_stretch_of_time_are_there_more_than_the_burst_and_the_rate(
    rate: float, burst: int, gaps: list[float], seconds: float
) -> None:
    budget, now, used = RetryBudget(rate, burst), 1000.0, []
    for gap in gaps:
        now += gap
        used.append(now + reserved(budget, now))
    assert used == sorted(used)
    most = burst + rate * seconds
    for first, begin in enumerate(used):
        within = [each for each in used[first:] if each <= begin + seconds]
        # One more may stand at the very edge when there is no burst that it could be part of.
        assert len(within) <= most * (1 + 1e-6) + (1 if burst == 0 else 1e-3)


@given(rate=st.floats(0.5, 200), burst=st.integers(1, 50))
def test_a_budget_that_was_left_alone_is_whole_and_nobody_waits_longer_than_his_turn(
    rate: float, burst: int
) -> None:
    budget = RetryBudget(rate, burst)
    for now in (5.0, 5000.0):
        assert all(reserved(budget, now) <= 1e-6 for _ in range(burst))
        assert reserved(budget, now) == pytest.approx(1 / rate, rel=1e-3)
        assert reserved(budget, now) == pytest.approx(2 / rate, rel=1e-3)


def test_who_would_wait_too_long_gets_none_and_takes_nothing() -> None:
    budget = RetryBudget(10, 1)
    assert [budget.reserve(0.0, 0.15) for _ in range(2)] == [0.0, pytest.approx(0.1)]
    assert budget.reserve(0.0, 0.15) is None
    assert budget.reserve(0.0, 0.25) == pytest.approx(0.2)


def test_what_is_given_back_can_be_used_by_others() -> None:
    budget = RetryBudget(10, 1)
    assert [budget.reserve(0.0) for _ in range(2)] == [0.0, pytest.approx(0.1)]
    budget.give_back()
    assert budget.reserve(0.0) == pytest.approx(0.1)


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (float("nan"), 1), (1, -1)])
def test_a_budget_of_nothing_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ConfigurationError):
        RetryBudget(rate, burst)
