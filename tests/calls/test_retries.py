"""Calls that are sent again: which, how often, after how long, and how many of them in all."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import respx

from af10_async import (
    Account,
    AF10Client,
    AF10Error,
    APIError,
    AuthenticationError,
    BadResponseError,
    ConnectFailedError,
    Fleet,
    NetworkError,
    NotFoundError,
    RateLimitError,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
)
from af10_async.events import CallBegan, CallRetried, Event
from af10_async.resources import RETRY_BURST, RETRY_RATE
from af10_async.sandbox import Answer, Fault, Sandbox, Seen

from ..conftest import ClientMaker
from ..ports import free_port
from .tools import FakeTime, SharedTime

HARMLESS = ("GET", "PUT", "DELETE")
OTHERS = ("POST", "PATCH")


# -- which, and how often --------------------------------------------------------------------------


@dataclass(frozen=True)
class Trouble:
    """What goes wrong each time, and what is to come of it."""

    fault: Callable[[], Fault]
    error: type[AF10Error]
    harmless: int
    """How often a method is sent of which once and twice come to the same."""
    others: int
    is_retryable: bool = True


def fails(status: int, code: object = None, **headers: str) -> Callable[[], Fault]:
    body = b"" if code is None else {"errorCode": code, "errorMessage": "no"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda: Fault.status(status, body, headers=named, on="call", times=None)


def refused() -> Fault:
    """AF10 names an address at which nobody listens."""
    elsewhere = {"token": "t", "api_url": f"http://127.0.0.1:{free_port()}"}
    return Fault.status(200, elsewhere, on="authenticate", times=None)


TROUBLES = {
    "connection refused": Trouble(refused, ConnectFailedError, 4, 4),
    "reset before": Trouble(lambda: Fault.reset_before(on="call", times=None), NetworkError, 4, 1),
    "reset after": Trouble(lambda: Fault.reset_after(on="call", times=None), NetworkError, 4, 1),
    "timeout": Trouble(lambda: Fault.hang(on="call", times=None), RequestTimeoutError, 4, 1),
    "408": Trouble(fails(408), APIError, 4, 1),
    "425": Trouble(fails(425), APIError, 4, 1),
    "429": Trouble(fails(429), RateLimitError, 4, 4),
    "429 Retry-After": Trouble(fails(429, retry_after="0"), RateLimitError, 4, 4),
    "429 in 200": Trouble(fails(200, 429), RateLimitError, 4, 4),
    "500": Trouble(fails(500), ServerError, 4, 1),
    "500 errorCode": Trouble(fails(500, 500), ServerError, 4, 1),
    "500 Retry-After": Trouble(fails(500, retry_after="0"), ServerError, 4, 1),
    "500 in 200": Trouble(fails(200, 500), ServerError, 4, 1),
    "502": Trouble(fails(502), ServerError, 4, 1),
    "502 Retry-After": Trouble(fails(502, retry_after="0"), ServerError, 4, 1),
    "503": Trouble(fails(503), ServerError, 4, 1),
    "503 errorCode": Trouble(fails(503, 503), ServerError, 4, 4),
    "503 other errorCode": Trouble(fails(503, "E1"), ServerError, 4, 4),
    "503 Retry-After": Trouble(fails(503, retry_after="0"), ServerError, 4, 1),
    "503 in 200": Trouble(fails(200, "503"), ServerError, 4, 4),
    "504": Trouble(fails(504), ServerError, 4, 1),
    "HTML": Trouble(
        lambda: Fault.html(on="call", times=None), BadResponseError, 1, 1, is_retryable=False
    ),
    "401": Trouble(fails(401, 401), AuthenticationError, 2, 2, is_retryable=False),
    "401 in 200": Trouble(fails(200, 401), AuthenticationError, 2, 2, is_retryable=False),
    "403": Trouble(fails(403), AuthenticationError, 1, 1, is_retryable=False),
    "404": Trouble(fails(404, 404), NotFoundError, 1, 1, is_retryable=False),
    "400": Trouble(fails(400), APIError, 1, 1, is_retryable=False),
    "409": Trouble(fails(409), APIError, 1, 1, is_retryable=False),
    "302": Trouble(fails(302), APIError, 1, 1, is_retryable=False),
    "E17 in 200": Trouble(fails(200, "E17"), APIError, 1, 1, is_retryable=False),
}


class Sent:
    """Counts what is sent to an endpoint, at this end."""

    def __init__(self, path: str) -> None:
        self.count = 0
        self._path = path

    def __call__(self, event: Event) -> None:
        self.count += isinstance(event, CallBegan) and event.path == self._path


@pytest.mark.parametrize("method", [*HARMLESS, *OTHERS])
@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
async def test_what_failed_is_sent_again_only_where_that_is_harmless(
    make_caller: ClientMaker, sandbox: Sandbox, trouble: Trouble, method: str
) -> None:
    sent = Sent("/thing")
    sandbox.answers(method, "/thing", {})
    sandbox.faults.add(trouble.fault())
    async with make_caller(
        on_event=sent, timeout=0.05 if "Timeout" in str(trouble) else 20
    ) as af10:
        with pytest.raises(AF10Error) as caught:
            await af10.request(method, "/thing")
    error, times = caught.value, trouble.harmless if method in HARMLESS else trouble.others
    assert type(error) is trouble.error
    assert sent.count == times
    if trouble.error is not ConnectFailedError:
        assert sandbox.count(method, "/thing") == times
    assert (error.method, error.path, error.step) == (method, "/thing", "call")
    # The caller, too, may only try again what this would.
    assert error.retryable is (trouble.is_retryable and times > 1)


@pytest.mark.parametrize("method", HARMLESS)
async def test_what_passes_is_not_noticed(
    caller: AF10Client, sandbox: Sandbox, method: str
) -> None:
    sandbox.answers(method, "/thing", {"data": 1})
    sandbox.faults.add(
        Fault.reset_before(on="call"), Fault.status(502, on="call"), Fault.reset_after(on="call")
    )
    assert await caller.request(method, "/thing") == {"data": 1}
    assert sandbox.count(method, "/thing") == 4


async def test_each_repetition_is_told_with_its_pause(
    make_caller: ClientMaker, sandbox: Sandbox, fake_time: FakeTime
) -> None:
    told: list[Event] = []
    sandbox.answers("GET", "/thing", Answer(503))
    policy = RetryPolicy(attempts=3)
    async with make_caller(
        retries=policy, runtime=fake_time.runtime, on_event=told.append, name="n"
    ) as client:
        with pytest.raises(ServerError):
            await client.get("/thing")
    retried = [event for event in told if isinstance(event, CallRetried)]
    assert [(each.attempt, each.pause, each.account) for each in retried] == [
        (1, 0.5, "n"),
        (2, 1.0, "n"),
    ]
    assert all(isinstance(each.error, ServerError) for each in retried)


# -- after how long --------------------------------------------------------------------------------


@pytest.fixture
def asker(make_caller: ClientMaker, sandbox: Sandbox, fake_time: FakeTime) -> Callable[..., Any]:
    """Asks for `/thing`, which answers in order, in a time of its own."""

    @asynccontextmanager
    async def ask(*answers: Answer, policy: RetryPolicy | None = None) -> AsyncIterator[AF10Client]:
        left = list(answers)
        sandbox.answers("GET", "/thing", lambda _: left.pop(0) if len(left) > 1 else left[0])
        retries = policy or RetryPolicy(jitter=0)
        async with make_caller(retries=retries, runtime=fake_time.runtime) as client:
            yield client

    return ask


Asker = Callable[..., Any]
DONE = Answer(200, {"data": 1})


@pytest.mark.parametrize(
    ("chance", "jitter", "pauses"),
    [
        (0.0, 0.5, [0.25, 0.5, 1.0]),
        (1.0, 0.5, [0.5, 1.0, 2.0]),
        (0.0, 0.0, [0.5, 1.0, 2.0]),
        (0.0, 1.0, [0.0, 0.0, 0.0]),
        (0.5, 1.0, [0.25, 0.5, 1.0]),
    ],
)
async def test_pauses_grow_and_chance_spreads_them(
    asker: Asker, fake_time: FakeTime, chance: float, jitter: float, pauses: list[float]
) -> None:
    fake_time.chance = chance
    async with asker(Answer(503), policy=RetryPolicy(jitter=jitter)) as client:
        with pytest.raises(ServerError):
            await client.get("/thing")
    assert fake_time.pauses == pauses


@pytest.mark.parametrize(
    ("answer", "pause"),
    [
        (Answer(503, b"", {"Retry-After": "7"}), 7.0),
        (Answer(429, b"", {"Retry-After": "0"}), 0.5),
        (Answer(503, b"", {"Retry-After": "Thu, 01 Jan 1970 00:17:10 GMT"}), 30.0),
        (Answer(503, b"", {"Retry-After": "Thu, 01 Jan 1970 00:00:10 GMT"}), 0.5),
        (Answer(503, b"", {"Retry-After": "soon"}), 0.5),
        (Answer(429, {"errorCode": 429, "retry": 2500}), 2.5),
        (Answer(429, {"errorCode": 429, "retry": "2500"}), 2.5),
        (Answer(429, {"errorCode": 429, "retry": -1}), 0.5),
        (Answer(429, {"errorCode": 429, "retry": "soon"}), 0.5),
        (Answer(429, {"errorCode": 429, "retry": 9000}, {"Retry-After": "7"}), 7.0),
        (Answer(200, {"errorCode": 503, "retry": 2500}), 2.5),
        (Answer(202, {"retry": 5000}), 5.0),
        (Answer(202, {"retry": "5000", "data": None}), 5.0),
        (Answer(202, {"retry": None}), 5.0),
        (Answer(202, {"retry": "soon"}), 5.0),
        (Answer(202, {"retry": -1}), 5.0),
        (Answer(202, {"retry": 0}), 0.5),
    ],
)
async def test_a_wait_that_af10_asks_for_is_the_least(
    asker: Asker, fake_time: FakeTime, answer: Answer, pause: float
) -> None:
    async with asker(answer, DONE) as client:
        assert await client.get("/thing") == {"data": 1}
    assert fake_time.pauses == [pause]


ABSURD = {
    "seconds": Answer(503, b"", {"Retry-After": "86400"}),
    "endless": Answer(503, b"", {"Retry-After": "9" * 400}),
    "date": Answer(429, b"", {"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}),
    "body": Answer(429, {"errorCode": 429, "retry": 86_400_000}),
    "body in 200": Answer(200, {"errorCode": 503, "retry": 1e300}),
    "huge number": Answer(429, b'{"errorCode": 429, "retry": 1' + b"0" * 400 + b"}"),
    "come back": Answer(202, {"retry": 86_400_000}),
    "come back never": Answer(202, b'{"retry": Infinity}'),
    "come back in a huge number": Answer(202, b'{"retry": 1' + b"0" * 400 + b"}"),
}


@pytest.mark.parametrize("longest_total", [300.0, math.inf])
@pytest.mark.parametrize("answer", ABSURD.values(), ids=ABSURD)
async def test_an_absurd_wait_is_an_error_at_once(
    asker: Asker,
    sandbox: Sandbox,
    fake_time: FakeTime,
    answer: Answer,
    longest_total: float,
) -> None:
    async with asker(answer, policy=RetryPolicy(longest_total=longest_total)) as client:
        with pytest.raises((RateLimitError, ServerError, BadResponseError)):
            await client.get("/thing")
    assert fake_time.pauses == []
    assert sandbox.count("GET", "/thing") == 1


async def test_a_wait_beyond_the_longest_total_is_an_error_at_once(
    asker: Asker, fake_time: FakeTime
) -> None:
    policy = RetryPolicy(longest_total=10)
    async with asker(Answer(503, b"", {"Retry-After": "11"}), policy=policy) as client:
        with pytest.raises(ServerError) as caught:
            await client.get("/thing")
    assert fake_time.pauses == []
    assert (caught.value.retryable, caught.value.retry_after) == (True, 11.0)


async def test_coming_back_ends_with_the_longest_total_and_uses_up_no_attempts(
    asker: Asker, sandbox: Sandbox, fake_time: FakeTime
) -> None:
    policy = RetryPolicy(attempts=2, jitter=0, longest_total=60)
    later = Answer(202, {"retry": 5000})
    async with asker(*[later] * 10, Answer(503), DONE, policy=policy) as client:
        assert await client.get("/thing") == {"data": 1}
    assert fake_time.pauses == [5.0] * 10 + [0.5]

    fake_time.pauses.clear()
    async with asker(later, policy=policy) as client:
        with pytest.raises(BadResponseError, match="come back later"):
            await client.get("/thing")
    assert fake_time.pauses == [5.0] * 12


async def test_a_202_with_data_is_the_answer(asker: Asker, fake_time: FakeTime) -> None:
    async with asker(Answer(202, {"retry": 5000, "data": []})) as client:
        assert await client.get("/thing") == {"retry": 5000, "data": []}
    assert fake_time.pauses == []


async def test_an_error_about_coming_back_repeats_no_credentials(
    make_caller: ClientMaker, sandbox: Sandbox
) -> None:
    sandbox.answers(
        "GET", "/thing", lambda seen: Answer(202, {"retry": 1e12, "for": seen.headers["token"]})
    )
    async with make_caller() as client:
        with pytest.raises(BadResponseError) as caught:
            await client.get("/thing")
    token = sandbox.requests[-1].headers["token"]
    assert token not in str(caught.value) + repr(vars(caught.value))


async def test_the_longest_total_is_from_the_first_time_to_the_last(
    asker: Asker, fake_time: FakeTime
) -> None:
    policy = RetryPolicy(
        attempts=100, first_pause=100, longest_pause=1000, jitter=0, longest_total=350
    )
    async with asker(Answer(503), policy=policy) as client:
        with pytest.raises(ServerError):
            await client.get("/thing")
    assert fake_time.pauses == [100, 200]


async def test_the_time_that_an_attempt_takes_counts_too(
    make_caller: ClientMaker, sandbox: Sandbox, fake_time: FakeTime
) -> None:
    """One that took a minute is not sent again when half a minute was all there is."""

    def slowly(seen: Seen) -> Answer:
        fake_time.clock += 60
        return Answer(503)

    sandbox.answers("GET", "/thing", slowly)
    policy = RetryPolicy(longest_total=30)
    async with make_caller(retries=policy, runtime=fake_time.runtime) as client:
        with pytest.raises(ServerError):
            await client.get("/thing")
    assert sandbox.count("GET", "/thing") == 1


# -- authentication --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        lambda: Fault.status(503, on="authenticate", times=None),
        lambda: Fault.reset_before(on="authenticate", times=None),
        lambda: Fault.rate_limited("0", on="authenticate", times=None),
    ],
    ids=["503", "reset", "429"],
)
async def test_retries_of_authentication_are_not_multiplied_by_those_of_the_call(
    caller: AF10Client, sandbox: Sandbox, fault: Callable[[], Fault]
) -> None:
    sandbox.faults.add(fault())
    with pytest.raises(AF10Error) as caught:
        await caller.get("/thing")
    assert caught.value.step == "authenticate"
    assert sandbox.count("GET", "/authenticate") == 4
    assert sandbox.count("GET", "/thing") == 0


async def test_authentication_and_the_call_are_each_sent_again_on_their_own(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.answers("GET", "/thing", {"data": 1})
    sandbox.faults.add(
        Fault.status(503, on="authenticate", times=3), Fault.status(503, on="call", times=3)
    )
    assert await caller.get("/thing") == {"data": 1}
    assert sandbox.count("GET", "/authenticate") == 4
    assert sandbox.count("GET", "/thing") == 4


async def test_a_token_refused_between_repetitions_is_renewed(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.answers("GET", "/thing", {"data": 1})
    sandbox.faults.add(
        Fault.status(503, on="call"), Fault.expired_token(on="call"), Fault.status(503, on="call")
    )
    assert await caller.get("/thing") == {"data": 1}
    assert sandbox.count("GET", "/authenticate") == 2
    assert sandbox.count("GET", "/thing") == 4


# -- how many in all -------------------------------------------------------------------------------

BASE = "https://api.example.com/v2"


def most_within(seconds: float, times: list[float]) -> int:
    """How many of these moments, in order, lie at most so far apart."""
    most = first = 0
    for last, time in enumerate(times):
        while time - times[first] > seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


async def test_300_accounts_that_all_fail_at_once_do_not_storm_the_server() -> None:
    """Their repetitions are no more than the budget of what they share, and none is dropped."""
    time, repetitions = SharedTime(), []

    def note(event: Event) -> None:
        if isinstance(event, CallBegan) and event.attempt > 1:
            repetitions.append(event.at)

    accounts = [
        Account(f"a{n}", base_url=BASE, api_key="k", username=f"u{n}", password="p")
        for n in range(300)
    ]
    with respx.mock() as router:
        router.get(f"{BASE}/authenticate").respond(json={"token": "t"})
        thing = router.get(f"{BASE}/thing").mock(side_effect=httpx.ReadError("lost"))
        async with Fleet(accounts, runtime=time.runtime, on_event=note) as fleet:
            calls: list[asyncio.Task[object]] = [
                asyncio.create_task(fleet[account.name].get("/thing")) for account in accounts
            ]
            await time.pass_for(calls)
        assert thing.call_count == 300 * 4
    assert all(isinstance(call.exception(), NetworkError) for call in calls)
    assert len(repetitions) == 300 * 3
    repetitions.sort()
    for seconds in (0.0, 0.5, 1.0, 2.0, 5.0):
        assert most_within(seconds, repetitions) <= RETRY_BURST + RETRY_RATE * seconds + 1
    # It was the budget that held them back: the pauses alone end after three and a half seconds.
    assert time.clock > (900 - RETRY_BURST) / RETRY_RATE


async def test_one_account_that_fails_leaves_the_others_their_share(
    make_caller: ClientMaker, sandbox: Sandbox, fake_time: FakeTime
) -> None:
    """Each account has a budget of its own before the common one."""
    sandbox.answers("GET", "/thing", Answer(503))
    times: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, CallBegan) and event.attempt > 1:
            times.append(event.at)

    policy = RetryPolicy(attempts=401, first_pause=0, longest_pause=0)
    async with make_caller(retries=policy, runtime=fake_time.runtime, on_event=note) as client:
        with pytest.raises(ServerError):
            await client.get("/thing")
    assert len(times) == 400
    assert most_within(1.0, times) <= RETRY_BURST + RETRY_RATE + 1
    assert fake_time.clock - 1000.0 == pytest.approx(200 / RETRY_RATE)


async def test_what_is_not_sent_again_needs_no_budget(
    make_caller: ClientMaker, sandbox: Sandbox, fake_time: FakeTime
) -> None:
    sandbox.answers("GET", "/thing", {"data": 1})
    async with make_caller(runtime=fake_time.runtime) as client:
        await asyncio.gather(*(client.get("/thing") for _ in range(500)))
    assert fake_time.pauses == []
