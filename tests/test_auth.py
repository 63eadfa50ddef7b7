"""One account's token: fetched once for however many ask, renewed before it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import respx

from af10_async.auth import MAX_COME_BACKS, Authenticator, Session
from af10_async.errors import (
    APIError,
    AuthenticationError,
    BadResponseError,
    ClosedError,
    ConnectFailedError,
    NetworkError,
    RateLimitError,
    ServerError,
)
from af10_async.protocol.retry import RetryPolicy
from af10_async.protocol.wire import TOKEN_CAP_SECONDS, Call, Reply, authenticate_call
from af10_async.runtime import Runtime
from af10_async.transport import Transport

BASE = "https://api.autoflex10.example/v2"
API_KEY, USERNAME, PASSWORD = "the-api-key", "the-user-name", "the-pass-word"
CREDENTIALS = (API_KEY, USERNAME, PASSWORD)

Answer = Reply | Exception


def reply(body: Any, status: int = 200, **headers: str) -> Reply:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply("GET", "/authenticate", status, headers, content)


def token(number: int = 1, **more: Any) -> Reply:
    return reply({"token": f"token-{number}", **more})


class AF10:
    """Answers authentications in order; its clocks stand still but for the sleeps."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.calls = 0
        self.pauses: list[float] = []
        self.clock = 1000.0
        self.gate = asyncio.Event()
        self.gate.set()
        self.auth = self.authenticator(self.exchange)

    def authenticator(
        self, exchange: Callable[[Call, str, float], Awaitable[Reply]]
    ) -> Authenticator:
        return Authenticator(
            authenticate_call(*CREDENTIALS),
            BASE,
            exchange,
            runtime=Runtime(
                now=lambda: 0.0, monotonic=lambda: self.clock, sleep=self.sleep, chance=lambda: 1.0
            ),
            policy=RetryPolicy(attempts=4, first_pause=0.5, longest_pause=30.0),
            secrets=CREDENTIALS,
            timeout=60.0,
        )

    async def exchange(self, call: Call, base_url: str, timeout: float) -> Reply:
        assert (call.method, call.path, base_url, timeout) == ("GET", "/authenticate", BASE, 60.0)
        self.calls += 1
        await self.gate.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock += seconds
        await asyncio.sleep(0)


# -- one flight for all ----------------------------------------------------------------------------


async def test_a_thousand_that_ask_at_once_are_one_authentication() -> None:
    af10 = AF10(token())
    sessions = await asyncio.gather(*(af10.auth.session() for _ in range(1000)))
    assert af10.calls == 1
    assert {id(session) for session in sessions} == {id(sessions[0])}


async def test_a_thousand_that_report_the_same_refused_token_are_one_authentication() -> None:
    af10 = AF10(token(1), token(2), token(3))
    refused = await af10.auth.session()
    sessions = await asyncio.gather(*(af10.auth.session(refused=refused) for _ in range(1000)))
    assert af10.calls == 2
    assert {session.token for session in sessions} == {"token-2"}

    late = await af10.auth.session(refused=refused)
    assert (late.token, af10.calls) == ("token-2", 2)


async def test_a_session_is_used_until_just_before_the_cap_and_then_renewed() -> None:
    af10 = AF10(token(1), token(2))
    first = await af10.auth.session()
    af10.clock += TOKEN_CAP_SECONDS - 1
    assert await af10.auth.session() is first
    af10.clock += 1
    assert (await af10.auth.session()).token == "token-2"


async def test_a_stated_end_is_believed_when_it_is_sooner_than_the_cap() -> None:
    af10 = AF10(token(1, token_valid_until="19700101T001000"), token(2))
    await af10.auth.session()
    af10.clock += 539.0
    assert (await af10.auth.session()).token == "token-1"
    af10.clock += 1.0  # nine tenths of the ten minutes are over
    assert (await af10.auth.session()).token == "token-2"


async def test_one_callers_cancellation_does_not_hurt_the_others() -> None:
    af10 = AF10(token())
    af10.gate.clear()
    first, second = (asyncio.create_task(af10.auth.session()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    af10.gate.set()
    assert (await second).token == "token-1"
    assert first.cancelled()
    assert af10.calls == 1


async def test_closing_ends_the_flight_and_everybody_is_told() -> None:
    af10 = AF10(token())
    af10.gate.clear()
    tasks = [asyncio.create_task(af10.auth.session()) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await af10.auth.close()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in found] == [ClosedError] * 3
    with pytest.raises(ClosedError, match="closed"):
        await af10.auth.session()
    assert af10.calls == 1


# -- come back later -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retry", "seconds"), [(5000, 5.0), (250, 0.25), (0, 0.1), (-1, 5.0), ("soon", 5.0), (None, 5)]
)
async def test_202_is_come_back_after_so_many_milliseconds(retry: object, seconds: float) -> None:
    af10 = AF10(reply({"retry": retry}, 202), reply({"retry": retry}, 202), token())
    assert (await af10.auth.session()).token == "token-1"
    assert af10.pauses == [seconds, seconds]


async def test_202_again_and_again_ends_some_time() -> None:
    af10 = AF10(reply({"retry": 1000}, 202))
    with pytest.raises(BadResponseError, match="again and again") as caught:
        await af10.auth.session()
    assert af10.calls == MAX_COME_BACKS + 1
    assert caught.value.step == "authenticate"


# -- again -----------------------------------------------------------------------------------------


async def test_what_may_pass_is_tried_again_after_growing_pauses() -> None:
    af10 = AF10(
        ConnectFailedError("no connection", sent=False, retryable=True),
        reply("later", 503),
        NetworkError("the connection broke", retryable=True),
        token(),
    )
    assert (await af10.auth.session()).token == "token-1"
    assert af10.pauses == [0.5, 1.0, 2.0]


async def test_after_the_last_attempt_the_error_is_everybodys_and_the_next_call_tries_anew() -> (
    None
):
    failure = ConnectFailedError("no connection", sent=False, retryable=True)
    af10 = AF10(failure, failure, failure, failure, token())
    found = await asyncio.gather(*(af10.auth.session() for _ in range(3)), return_exceptions=True)
    errors = [each for each in found if isinstance(each, ConnectFailedError)]
    assert len({id(each) for each in errors}) == 3
    assert {(each.step, each.sent) for each in errors} == {("authenticate", False)}
    assert af10.calls == 4
    assert (await af10.auth.session()).token == "token-1"


async def test_a_wait_that_af10_asks_for_is_kept() -> None:
    limited = reply({"errorCode": 429, "errorMessage": "slow down"}, 429, **{"retry-after": "7"})
    af10 = AF10(limited, token())
    await af10.auth.session()
    assert af10.pauses == [7.0]


async def test_a_wait_of_more_than_an_hour_is_an_error_at_once() -> None:
    af10 = AF10(reply("busy", 429, **{"retry-after": "1000000000"}))
    with pytest.raises(RateLimitError):
        await af10.auth.session()
    assert af10.calls == 1


@pytest.mark.parametrize(
    "answer",
    [
        reply({"errorCode": 401, "errorMessage": "Not authorized"}, 401),
        reply({"errorCode": 401, "errorMessage": f"Not authorized: {PASSWORD} {API_KEY}"}),
        reply("no", 403),
    ],
)
async def test_wrong_credentials_are_final_and_the_text_holds_none(answer: Reply) -> None:
    af10 = AF10(answer)
    with pytest.raises(AuthenticationError, match="check api_key") as caught:
        await af10.auth.session()
    assert (af10.calls, af10.pauses) == (1, [])
    assert (caught.value.step, caught.value.retryable) == ("authenticate", False)
    for secret in CREDENTIALS:
        assert secret not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize(
    "answer", [reply("no", 404), reply({"errorCode": 7, "errorMessage": "odd"})]
)
async def test_other_refusals_are_final_too(answer: Reply) -> None:
    af10 = AF10(answer)
    with pytest.raises(APIError) as caught:
        await af10.auth.session()
    assert not isinstance(caught.value, ServerError)
    assert af10.calls == 1


@pytest.mark.parametrize(
    "body",
    [
        b"<html>not AF10</html>",
        b"",
        b"[" * 100_000,
        [],
        "text",
        {},
        {"token": None},
        {"token": ""},
        {"token": 5},
        {"token": "two\r\nlines"},
        {"token": "x" * 5000},
        {"token": "good", "api_url": 5},
    ],
    ids=range(12),
)
async def test_an_answer_without_a_usable_token_is_a_clear_error(body: object) -> None:
    af10 = AF10(reply(body))
    with pytest.raises(BadResponseError, match="/authenticate") as caught:
        await af10.auth.session()
    assert af10.calls == 1
    assert caught.value.step == "authenticate"


async def test_unknown_fields_and_numbers_for_text_are_no_problem() -> None:
    af10 = AF10(token(1, user_id=5, environment=None, token_valid_until="never", more=[1]))
    assert (await af10.auth.session()).token == "token-1"


# -- where to --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("api_url", "adopted"),
    [
        (None, BASE),
        ("", BASE),
        ("https://other.example/api/", "https://other.example/api"),
        (f"{BASE}/", BASE),
    ],
)
async def test_the_api_url_is_used_from_then_on(api_url: str | None, adopted: str) -> None:
    af10 = AF10(token(1, api_url=api_url))
    assert (await af10.auth.session()).api_url == adopted


@pytest.mark.parametrize(
    "api_url",
    [
        "http://api.autoflex10.example/v2",
        "ftp://api.autoflex10.example",
        "//api.autoflex10.example",
        "https://user:secret@api.autoflex10.example",
        "https://127.0.0.1/v2",
        "https://localhost/v2",
        "https://[::1]/v2",
        "https://169.254.169.254/",
        "https://api.autoflex10.example/v2?x=1",
        "https://api.autoflex10.example:port/",
        "https://api.autoflex10.example\\@evil.example/",
    ],
)
async def test_an_api_url_that_is_not_safe_is_refused_and_not_repeated(api_url: str) -> None:
    af10 = AF10(token(1, api_url=api_url))
    with pytest.raises(BadResponseError, match="api_url that is not a safe address") as caught:
        await af10.auth.session()
    assert "secret@" not in str(caught.value)
    assert af10.calls == 1


async def test_neither_the_token_nor_the_credentials_stand_in_any_repr_or_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    af10 = AF10(reply("no", 500), token())
    session = await af10.auth.session()
    assert isinstance(session, Session)
    seen = f"{session!r} {caplog.text} {authenticate_call(*CREDENTIALS)!r}"
    for secret in ("token-1", *CREDENTIALS):
        assert secret not in seen


# -- over httpx ------------------------------------------------------------------------------------


@respx.mock
async def test_over_the_wire_it_is_one_get_with_the_credentials_as_parameters() -> None:
    route = respx.get(f"{BASE}/authenticate").respond(json={"token": "token-1"})
    transport = Transport()

    async def exchange(call: Call, base_url: str, timeout: float) -> Reply:
        return await transport.send(call, base_url, {}, timeout=timeout)

    auth = AF10(token()).authenticator(exchange)
    sessions = await asyncio.gather(*(auth.session() for _ in range(50)))
    await transport.close()

    assert {session.token for session in sessions} == {"token-1"}
    assert route.call_count == 1
    request = route.calls.last.request
    assert dict(request.url.params) == {
        "api_key": API_KEY,
        "username": USERNAME,
        "password": PASSWORD,
    }
    assert "token" not in request.headers
