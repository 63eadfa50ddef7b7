"""Quick calls: what goes out, what comes back, and that nothing is left of those that end early."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, Field
from typing_extensions import TypedDict

from af10_async import (
    AF10Client,
    APIError,
    AuthenticationError,
    BadResponseError,
    CallbackTimeoutError,
    ClosedError,
    ConfigurationError,
    ConnectFailedError,
    NotFoundError,
    RemoteFile,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    StartTimeoutError,
    UnexpectedPayloadError,
)
from af10_async.limits import ConcurrencyLimit
from af10_async.sandbox import Answer, Fault, Sandbox, Seen

from ..conftest import ClientMaker, Tls

CANARY = "canary-7f3a"


class Row(BaseModel):
    brand: str
    year: int = 0


class RowDict(TypedDict):
    brand: str


@dataclass
class RowClass:
    brand: str


def last(sandbox: Sandbox) -> Seen:
    return [seen for seen in sandbox.requests if seen.where == "api"][-1]


def sent_to_api(sandbox: Sandbox) -> list[Seen]:
    return [seen for seen in sandbox.requests if seen.where == "api"]


async def send(client: AF10Client, method: str, path: str, **arguments: Any) -> Any:
    """A call by the method's own function."""
    return await getattr(client, method.lower())(path, **arguments)


# -- there and back --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_the_json_of_the_answer_comes_back(
    caller: AF10Client, sandbox: Sandbox, method: str
) -> None:
    sandbox.answers(method, "/thing", {"data": [1, {"a": None}]})
    assert await send(caller, method, "/thing") == {"data": [1, {"a": None}]}
    assert await caller.request(method.lower(), "/thing") == {"data": [1, {"a": None}]}
    assert last(sandbox).headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("body", [{"a": "\u20ac"}, [1], "text", 0, False, {}])
async def test_the_body_goes_out_as_json_however_empty(
    caller: AF10Client, sandbox: Sandbox, method: str, body: Any
) -> None:
    sandbox.answers(method, "/thing", {})
    await send(caller, method, "/thing", json=body)
    assert last(sandbox).json() == body
    assert last(sandbox).headers["content-type"] == "application/json"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_without_a_body_none_is_sent(
    caller: AF10Client, sandbox: Sandbox, method: str
) -> None:
    sandbox.answers(method, "/thing", {})
    await send(caller, method, "/thing")
    assert last(sandbox).body == b""


@pytest.mark.parametrize("method", ["PATCH", "HEAD"])
async def test_request_takes_other_methods_too(
    caller: AF10Client, sandbox: Sandbox, method: str
) -> None:
    sandbox.answers(method, "/thing", {"data": 1})
    expected = None if method == "HEAD" else {"data": 1}
    assert await caller.request(method, "/thing") == expected


@pytest.mark.parametrize("answer", [Answer(204), Answer(200, b""), Answer(201, b" \r\n ")])
async def test_an_answer_without_a_body_is_none(
    caller: AF10Client, sandbox: Sandbox, answer: Answer
) -> None:
    sandbox.answers("DELETE", "/thing", answer)
    assert await caller.delete("/thing") is None


async def test_a_202_is_an_answer_like_any_other_to_a_post(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.answers("POST", "/thing", Answer(202, {"retry": 5000}))
    assert await caller.post("/thing", json={}) == {"retry": 5000}


async def test_parameters_are_text_by_plain_rules(caller: AF10Client, sandbox: Sandbox) -> None:
    sandbox.answers("GET", "/thing", {})
    params = {
        "none": None,
        "yes": True,
        "no": False,
        "number": 7,
        "part": 1.5,
        "text": "a&b=c d+\u20ac",
        "empty": "",
        "several": ["brand", "model"],
        "numbers": [1, 2],
        "one": ("brand",),
    }
    await caller.get("/thing", params=params)
    assert last(sandbox).query == {
        "yes": "true",
        "no": "false",
        "number": "7",
        "part": "1.5",
        "text": "a&b=c d+\u20ac",
        "empty": "",
        "several": "brand,model",
        "numbers": "1,2",
        "one": "brand",
    }


@pytest.mark.parametrize("value", [{"a": 1}, b"bytes", [None], object(), {"set"}])
async def test_a_parameter_without_a_clear_text_is_named_and_nothing_is_sent(
    caller: AF10Client, sandbox: Sandbox, value: Any
) -> None:
    with pytest.raises(ConfigurationError, match="'odd'"):
        await caller.get("/thing", params={"odd": value})
    assert sandbox.requests == []


NO_PATHS = [
    "",
    "vehicle",
    "vehicle/1",
    "//evil.example/x",
    "//evil.example",
    "///x",
    "/a?b=c",
    "/a#b",
    "/../x",
    "/a/../../x",
    "/a/..",
    "/%2e%2e/x",
    "/.%2E/x",
    "/..;a=b/x",
    "/a%2Fb",
    "/a%5cb",
    "/a//b",
    "/./a",
    "/a b",
    "/a\\b",
    "\\\\evil.example",
    "/\\evil.example",
    "https://evil.example/x",
    "http:/evil",
    "@evil.example/x",
    ":8080/x",
    ".evil.example/x",
    "/a\r\nHost: evil.example",
    "/a\n",
    "/a\x00",
    "/a\t",
    "/caf\u00e9",
    "/\uff0e\uff0e/x",
    "/<x>",
]


@pytest.mark.parametrize("path", NO_PATHS, ids=ascii)
async def test_what_is_no_plain_path_is_refused_before_anything_is_sent(
    make_client: ClientMaker, sandbox: Sandbox, path: str
) -> None:
    async with make_client() as client:
        for ask in (client.get, client.post, client.put, client.delete):
            with pytest.raises(ConfigurationError, match="path"):
                await ask(path)
        with pytest.raises(ConfigurationError, match="path"):
            await client.with_raw_response.get(path)
        with pytest.raises(ConfigurationError, match="path"):
            client.pages(path)
        with pytest.raises(ConfigurationError, match="path"):
            client.call("POST", path)
    assert sandbox.requests == []


@pytest.mark.parametrize(
    "path", ["/a%20b", "/..a/x", "/a%3Fb", "/a:80@evil.example/x", "/a;b=c", "/@evil", "/a/"]
)
async def test_every_other_path_leads_to_af10(
    caller: AF10Client, sandbox: Sandbox, path: str
) -> None:
    with pytest.raises(NotFoundError):
        await caller.get(path)
    assert sandbox.requests[-1].headers["host"] in sandbox.base_url
    assert sandbox.requests[-1].where == "api"


@pytest.mark.parametrize("method", ["", "GE T", "GET\r\n", "G\u00c9T", "GET/1.1", "x" * 21])
async def test_what_is_no_method_is_refused_before_anything_is_sent(
    caller: AF10Client, sandbox: Sandbox, method: str
) -> None:
    with pytest.raises(ConfigurationError, match="method"):
        await caller.request(method, "/thing")
    assert sandbox.requests == []


# -- models ----------------------------------------------------------------------------------------

FITTING: list[tuple[Any, Any, Any]] = [
    (Row, {"brand": "Volvo", "more": 1}, Row(brand="Volvo")),
    (list[Row], [{"brand": "Volvo"}], [Row(brand="Volvo")]),
    (RowDict, {"brand": "Volvo"}, {"brand": "Volvo"}),
    (RowClass, {"brand": "Volvo"}, RowClass("Volvo")),
    (Annotated[int, Field(gt=3)], 5, 5),
    (Annotated[int, Field(gt=3), [["not", "hashable"]]], 5, 5),
    (dict[str, list[int]], {"a": [1]}, {"a": [1]}),
    (Row | None, None, None),
    (Literal["a"], "a", "a"),
]


@pytest.mark.parametrize(("model", "value", "expected"), FITTING, ids=range(len(FITTING)))
async def test_an_answer_becomes_what_the_model_says(
    caller: AF10Client, sandbox: Sandbox, model: Any, value: Any, expected: Any
) -> None:
    sandbox.answers("GET", "/thing", Answer(200, value))
    found = await caller.get("/thing", model=model)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_every_method_takes_a_model(
    caller: AF10Client, sandbox: Sandbox, method: str
) -> None:
    sandbox.answers(method, "/thing", {"brand": "Volvo"})
    assert await send(caller, method, "/thing", model=Row) == Row(brand="Volvo")


class Colour(Enum):
    RED = "red"


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Pet(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


class Strict(BaseModel):
    model_config = {"extra": "forbid"}

    day: date | None = None
    price: Decimal | None = None
    colour: Colour | None = None
    code: str = Field(default="", pattern="^[0-9]*$")
    short: str = Field(default="", max_length=3)


MISFITS: list[tuple[Any, Any, str, str]] = [
    (Row, {"brand": "Volvo", "year": CANARY}, "Row", "year"),
    (Row, {"year": 5, "x": CANARY}, "Row", "brand"),
    (Row, CANARY, "Row", "it"),
    (Row, None, "Row", "it"),
    (list[Row], [{"brand": "Volvo"}, {"brand": {"x": CANARY}}], "Row", "1.brand"),
    (RowDict, {"brand": [CANARY]}, "RowDict", "brand"),
    (RowClass, {"brand": [CANARY]}, "RowClass", "brand"),
    (Annotated[int, Field(gt=3)], CANARY, "int", "it"),
    (Row | None, {"brand": [CANARY]}, "Row", "brand"),
    (Strict, {"day": CANARY}, "Strict", "day"),
    (Strict, {"price": CANARY}, "Strict", "price"),
    (Strict, {"colour": CANARY}, "Strict", "colour"),
    (Strict, {"code": CANARY}, "Strict", "code"),
    (Strict, {"short": CANARY}, "Strict", "short"),
    (Strict, {"more": CANARY}, "Strict", "more"),
    (Pet, {"pet": {"kind": CANARY}}, "Pet", "pet"),
]


@pytest.mark.parametrize(
    ("model", "value", "name", "field"), MISFITS, ids=[str(n) for n in range(len(MISFITS))]
)
async def test_a_misfit_names_the_model_and_the_field_and_holds_no_value_of_the_answer(
    caller: AF10Client, sandbox: Sandbox, model: Any, value: Any, name: str, field: str
) -> None:
    sandbox.answers("GET", "/thing", Answer(200, value))
    with pytest.raises(BadResponseError) as caught:
        await caller.get("/thing", params={"q": CANARY}, model=model)
    error = caught.value
    assert f"{name}" in str(error)
    assert f" {field}: " in str(error)
    assert CANARY not in str(error) + repr(error) + repr(vars(error))
    assert (error.method, error.path, error.status) == ("GET", "/thing", 200)
    assert (error.sent, error.retryable, error.step) == (True, False, "call")
    assert sandbox.count("GET", "/thing") == 1


async def test_a_204_does_not_fit_a_model_but_may_be_allowed_for(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.answers("GET", "/thing", Answer(204))
    with pytest.raises(BadResponseError, match="Row"):
        await caller.get("/thing", model=Row)
    nothing: Any = Row | None
    assert await caller.get("/thing", model=nothing) is None


class Unknown:
    """Nothing that pydantic knows how to make."""


@pytest.mark.parametrize("model", [Unknown, list[Unknown], 5])
async def test_what_pydantic_cannot_validate_is_no_model_and_nothing_is_sent(
    make_client: ClientMaker, sandbox: Sandbox, model: Any
) -> None:
    async with make_client() as client:
        with pytest.raises(ConfigurationError, match="model"):
            await client.post("/thing", model=model)
        with pytest.raises(ConfigurationError, match="model"):
            client.pages("/thing", model=model)
        with pytest.raises(ConfigurationError, match="model"):
            client.call("POST", "/backup/owner", model=model)
        with pytest.raises(ConfigurationError, match="model"):
            client.job("key", model=model)
    assert sandbox.requests == []


async def test_the_word_of_a_validator_of_the_users_own_is_told(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    def refuse(value: str) -> str:
        raise ValueError("no such brand")

    sandbox.answers("GET", "/thing", Answer(200, CANARY))
    model: Any = Annotated[str, AfterValidator(refuse)]
    with pytest.raises(BadResponseError, match="no such brand"):
        await caller.get("/thing", model=model)


# -- refusals --------------------------------------------------------------------------------------


async def test_an_error_in_http_200_is_an_error(caller: AF10Client, sandbox: Sandbox) -> None:
    sandbox.answers("GET", "/thing", {"errorCode": 17, "errorMessage": "odd", "data": []})
    with pytest.raises(APIError, match="odd") as caught:
        await caller.get("/thing", params={"q": CANARY})
    error = caught.value
    assert (error.status, error.error_code, error.error_message) == (200, 17, "odd")
    assert (error.method, error.path, error.step) == ("GET", "/thing", "call")
    assert CANARY not in str(error) + repr(vars(error))


async def test_html_is_a_bad_response_and_is_not_asked_for_again(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.answers("GET", "/thing", Answer(200, b"<html>sign in</html>"))
    with pytest.raises(BadResponseError, match="is not JSON"):
        await caller.get("/thing")
    assert sandbox.count("GET", "/thing") == 1


@pytest.mark.parametrize("status", [401, 200])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_token_that_expires_in_the_middle_is_renewed_once(
    caller: AF10Client, sandbox: Sandbox, status: int, method: str
) -> None:
    sandbox.answers(method, "/thing", {"data": 1})
    await caller.request(method, "/thing")
    sandbox.faults.add(Fault.expired_token(status, on="call"))
    assert await caller.request(method, "/thing") == {"data": 1}
    assert sandbox.count("GET", "/authenticate") == 2
    assert sandbox.count(method, "/thing") == 3


async def test_a_hundred_whose_token_expires_renew_it_once(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.answers("GET", "/thing", {"data": 1})
    await caller.get("/thing")
    sandbox.expire_tokens()
    await asyncio.gather(*(caller.get("/thing") for _ in range(100)))
    assert sandbox.count("GET", "/authenticate") == 2


async def test_a_request_that_repeats_credentials_does_not_put_them_into_the_error(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.echo(400, on="call"))
    sandbox.answers("GET", "/thing", {})
    with pytest.raises(APIError) as caught:
        await caller.get("/thing")
    shown = str(caught.value) + repr(vars(caught.value))
    token = sandbox.requests[-1].headers["token"]
    assert sandbox.api_key not in shown
    assert token not in shown


# -- raw -------------------------------------------------------------------------------------------


async def test_a_raw_response_is_the_answer_as_it_came(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    body = b"%PDF\x00\xff errorCode"
    sandbox.answers("GET", "/thing", Answer(201, body, {"X-Odd": "yes"}))
    found = await caller.with_raw_response.get("/thing", params={"a": 1})
    assert (found.method, found.path, found.status) == ("GET", "/thing", 201)
    assert (found.headers["x-odd"], found.body) == ("yes", body)
    assert last(sandbox).query == {"a": "1"}
    with pytest.raises(ValueError):
        found.json()
    assert CANARY not in repr(found)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_every_method_has_a_raw_response(
    caller: AF10Client, sandbox: Sandbox, method: str
) -> None:
    sandbox.answers(method, "/thing", {"data": 1})
    found = await getattr(caller.with_raw_response, method.lower())("/thing")
    assert (found.method, found.json()) == (method, {"data": 1})


async def test_the_repr_of_a_raw_response_holds_nothing_of_it(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.answers("GET", "/thing", Answer(200, {"a": CANARY}, {"X-Odd": CANARY}))
    assert CANARY not in repr(await caller.with_raw_response.get("/thing"))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(404, b"<html>"), NotFoundError),
        (Answer(302, b"", {"Location": "https://evil.example/"}), APIError),
        (Answer(200, {"errorCode": 500, "errorMessage": "x"}), ServerError),
        (Answer(200, {"errorCode": 403}), AuthenticationError),
    ],
)
async def test_a_refusal_is_raised_also_when_the_answer_is_wanted_raw(
    caller: AF10Client, sandbox: Sandbox, answer: Answer, error: type[APIError]
) -> None:
    sandbox.answers("POST", "/thing", answer)
    with pytest.raises(error) as caught:
        await caller.with_raw_response.post("/thing", json={})
    assert type(caught.value) is error


# -- options ---------------------------------------------------------------------------------------


async def test_options_are_of_the_copy_and_the_original_is_unchanged(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.answers("GET", "/thing", Answer(503))
    for changed, attempts in [
        (caller.with_options(retries=0), 1),
        (caller.with_options(retries=1), 2),
        (caller.with_options(retries=RetryPolicy(attempts=3, first_pause=0)), 3),
        (caller.with_options(retries=1).with_options(timeout=20), 2),
        (caller, 4),
    ]:
        before = sandbox.count("GET", "/thing")
        with pytest.raises(ServerError):
            await changed.get("/thing")
        assert sandbox.count("GET", "/thing") - before == attempts


async def test_a_number_of_retries_keeps_the_pauses_of_the_policy(
    make_caller: ClientMaker, sandbox: Sandbox
) -> None:
    """With the usual half a second, this would wait for a day."""
    slow = RetryPolicy(first_pause=86_400, longest_pause=86_400, longest_total=90_000)
    async with make_caller(retries=slow) as client:
        sandbox.answers("GET", "/thing", Answer(503))
        asking = asyncio.create_task(client.with_options(retries=1).get("/thing"))
        while sandbox.count("GET", "/thing") < 1 or sandbox.requests[-1].status is None:
            await asyncio.sleep(0.001)
        done, _ = await asyncio.wait([asking], timeout=0.05)
        assert not done
        asking.cancel()
        await asyncio.wait([asking])


async def test_a_timeout_is_for_each_attempt(caller: AF10Client, sandbox: Sandbox) -> None:
    sandbox.answers("GET", "/thing", {})
    sandbox.faults.add(Fault.hang(on="call", times=None))
    with pytest.raises(RequestTimeoutError, match=r"no answer within 0\.03 s") as caught:
        await caller.with_options(timeout=0.03, retries=2).get("/thing")
    assert sandbox.count("GET", "/thing") == 3
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.path, caught.value.retryable) == ("/thing", True)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": float("nan")},
        {"retries": -1},
        {"start_timeout": -1},
        {"callback_timeout": 0},
        {"download_timeout": 0},
    ],
)
async def test_an_option_that_makes_no_sense_is_named(
    caller: AF10Client, options: dict[str, Any]
) -> None:
    (name,) = options
    with pytest.raises(ConfigurationError, match="attempts" if name == "retries" else name):
        caller.with_options(**options)


async def test_jobs_made_by_a_copy_have_its_policy_and_its_timeouts(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    async with make_client() as client:
        sandbox.faults.add(Fault.rate_limited("0", on="start", times=None))
        with pytest.raises(APIError):
            await client.with_options(retries=1).backup_owner()
        assert sandbox.count("POST", "/backup/owner") == 2
        sandbox.faults.clear()

        sandbox.faults.add(Fault.never())
        with pytest.raises(CallbackTimeoutError, match=r"within 0\.02 s"):
            await client.with_options(callback_timeout=0.02).backup_owner()
        sandbox.faults.add(Fault.hang(on="authenticate", times=None))
        sandbox.expire_tokens()
        with pytest.raises(StartTimeoutError, match=r"within 0\.02 s"):
            await client.with_options(start_timeout=0.02).backup_owner().start()


# -- size ------------------------------------------------------------------------------------------


async def test_an_answer_of_several_mib_is_read(caller: AF10Client, sandbox: Sandbox) -> None:
    rows = [{"n": number, "text": "x" * 1000} for number in range(6000)]
    sandbox.answers("GET", "/thing", {"data": rows})
    assert await caller.get("/thing") == {"data": rows}


async def test_an_answer_of_more_than_32_mib_is_cut_while_it_streams(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.answers("GET", "/thing", Answer(200, b'"' + b"x" * 33 * 2**20 + b'"'))
    with pytest.raises(BadResponseError, match="larger than 32 MiB; it was not read further"):
        await caller.get("/thing")
    assert sandbox.count("GET", "/thing") == 1


# -- the end of a client, and of a call ------------------------------------------------------------


@pytest.fixture
async def hanging(sandbox: Sandbox) -> AsyncIterator[Hanging]:
    found = Hanging(sandbox)
    yield found
    found.end.set()


class Hanging:
    """An endpoint that does not answer, and tells when it was called."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.asked = asyncio.Event()
        self.end = asyncio.Event()
        sandbox.answers("GET", "/hanging", self._answer)

    async def _answer(self, seen: Seen) -> Any:
        self.asked.set()
        await self.end.wait()
        return {}


async def test_closing_the_client_ends_calls_under_way(
    make_caller: ClientMaker, sandbox: Sandbox, hanging: Hanging
) -> None:
    async with make_caller(max_concurrency=2) as client:
        calls = [asyncio.create_task(client.get("/hanging")) for _ in range(5)]
        await hanging.asked.wait()
    for call in calls:
        assert isinstance(call.exception(), ClosedError)
        assert "GET /hanging: the client was closed" in str(call.exception())


async def test_closing_ends_a_call_that_waits_for_its_token_or_its_next_attempt(
    make_caller: ClientMaker, sandbox: Sandbox
) -> None:
    slow = RetryPolicy(first_pause=200)
    sandbox.answers("GET", "/thing", Answer(503))
    async with make_caller(retries=slow) as pausing, make_caller() as waiting:
        first = asyncio.create_task(pausing.get("/thing"))
        while not sandbox.count("GET", "/thing"):
            await asyncio.sleep(0.001)
        sandbox.faults.add(Fault.hang(on="authenticate"))
        second = asyncio.create_task(waiting.get("/thing"))
        while sandbox.count("GET", "/authenticate") < 2:
            await asyncio.sleep(0.001)
    assert isinstance(first.exception(), ClosedError)
    assert isinstance(second.exception(), ClosedError)


async def test_a_call_before_or_after_the_clients_life_is_a_closed_error(
    make_caller: ClientMaker,
) -> None:
    client = make_caller()
    raw, other = client.with_raw_response, client.with_options(timeout=1)
    asks = (client.get, raw.get, other.get, lambda _: client.vehicle(1))
    for ask in asks:
        with pytest.raises(ClosedError, match="enter the client first"):
            await ask("/thing")
    async with client:
        pass
    for ask in asks:
        with pytest.raises(ClosedError, match="the client is closed") as caught:
            await ask("/thing")
        assert caught.value.sent is False


def test_a_call_in_another_loop_is_a_closed_error() -> None:
    async def enter() -> tuple[AF10Client, asyncio.AbstractEventLoop]:
        client = AF10Client(base_url="http://127.0.0.1:1", api_key="k", username="u", password="p")
        return await client.__aenter__(), asyncio.get_running_loop()

    with asyncio.Runner() as runner:
        client, _ = runner.run(enter())
        with pytest.raises(ClosedError, match="event loop that entered it") as caught:
            asyncio.run(client.get("/thing"))
        assert caught.value.sent is False
        runner.run(client.__aexit__(None, None, None))


def free_slots(limit: ConcurrencyLimit, total: int) -> int:
    """How many can be had at once; each is given back."""
    taken = 0
    try:
        while taken < total + 1:
            attempt = limit.acquire(f"probe {taken}", 1)
            try:
                attempt.send(None)
            except StopIteration:
                taken += 1
            else:
                attempt.close()
                break
    finally:
        for number in range(taken):
            limit.release(f"probe {number}", 1)
    return taken


async def test_1000_calls_cancelled_at_any_moment_leave_nothing(
    make_caller: ClientMaker, sandbox: Sandbox
) -> None:
    """No task and no socket (conftest looks), no slot taken, and the client goes on as before."""
    chance = random.Random(7)
    sandbox.answers("GET", "/thing", {"data": 1})
    sandbox.answers("GET", "/busy", Answer(429, b"", {"Retry-After": "0"}))
    limit = ConcurrencyLimit.of_this_loop()
    before = asyncio.all_tasks()
    async with make_caller(max_concurrency=3) as client:
        cancelled = 0
        for _ in range(50):
            paths = chance.choices(["/thing", "/busy"], k=20)
            calls = [asyncio.create_task(client.get(path)) for path in paths]
            for call in chance.sample(calls, 20):
                for _ in range(chance.choice([0, 0, 1, 3, 10])):
                    await asyncio.sleep(0)
                call.cancel()
            await asyncio.wait(calls)
            cancelled += sum(call.cancelled() for call in calls)
        assert cancelled > 500
        assert free_slots(limit, 200) == 200
        assert await client.get("/thing") == {"data": 1}
    for _ in range(3):
        await asyncio.sleep(0)
    ours = {task for task in asyncio.all_tasks() - before if "af10_async" in task.get_name()}
    assert not ours


# -- what is answered later ------------------------------------------------------------------------


class Report(BaseModel):
    year: int
    total: Decimal


@pytest.fixture
async def sandbox(tls: Tls) -> AsyncIterator[Sandbox]:
    paths = ("/backup/owner", "/report/year")
    async with Sandbox(callback_ca=tls.ca, webhook_paths=paths) as running:
        yield running


async def test_any_webhook_type_endpoint_can_be_called_with_body_and_parameters(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.payload({"year": 2025, "total": "12.50"}))
    job = af10.call("post", "/report/year", json={"year": 2025}, params={"all": True}, model=Report)
    assert await job == Report(year=2025, total=Decimal("12.50"))
    post = next(seen for seen in sandbox.requests if seen.path == "/report/year")
    assert post.query == {"all": "true"}
    assert set(post.json()) == {"year", "webhook_url"}
    assert post.json()["year"] == 2025


async def test_without_a_model_the_result_is_the_payload(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    job = af10.call("POST", "/report/year")
    payload = await job
    assert list(payload) == ["url"]
    sandbox.faults.add(Fault.payload([1, None]))
    assert await af10.call("POST", "/report/year") == [1, None]


async def test_a_file_is_a_file_that_can_be_read(af10: AF10Client, sandbox: Sandbox) -> None:
    file = await af10.call("POST", "/report/year", model=RemoteFile)
    assert await file.read() == sandbox.archive(sandbox.jobs[0])


async def test_a_payload_that_does_not_fit_is_in_the_error(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.payload({"year": CANARY}))
    job = af10.call("POST", "/report/year", model=Report)
    with pytest.raises(UnexpectedPayloadError, match="does not fit Report: year: ") as caught:
        await job
    assert caught.value.payload == {"year": CANARY}
    assert caught.value.key == job.key
    assert CANARY not in str(caught.value)


async def test_a_job_taken_up_by_its_key_has_the_model_that_is_asked_for_now(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.payload({"year": 2025, "total": 1}))
    async with make_client() as af10:
        key = (await af10.call("POST", "/report/year").start()).key
        assert await af10.job(key, model=Report) == Report(year=2025, total=Decimal(1))
        assert await af10.job(key) == {"year": 2025, "total": 1}
        with pytest.raises(UnexpectedPayloadError, match="does not fit Row: brand"):
            await af10.job(key, model=Row)


async def test_a_job_taken_up_as_a_file_is_one_whatever_it_was_called_for(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    key = (await af10.call("POST", "/report/year").start()).key
    file = await af10.job(key, model=RemoteFile)
    assert await file.read() == sandbox.archive(sandbox.jobs[0])

    sandbox.faults.add(Fault.payload({"year": CANARY}))
    other = (await af10.call("POST", "/report/year").start()).key
    with pytest.raises(UnexpectedPayloadError) as caught:
        await af10.job(other, model=RemoteFile)
    assert caught.value.payload == {"year": CANARY}


async def test_a_file_that_was_to_be_a_model_says_how_to_get_it(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    key = (await af10.backup_owner().start()).key
    with pytest.raises(UnexpectedPayloadError, match="model=RemoteFile"):
        await af10.job(key, model=Row)
    assert isinstance(await af10.job(key), RemoteFile)


@pytest.mark.parametrize("method", ["GET", "get", "HEAD", "OPTIONS"])
async def test_a_method_without_a_body_cannot_be_called_back(
    af10: AF10Client, sandbox: Sandbox, method: str
) -> None:
    with pytest.raises(ConfigurationError, match="cannot be called back"):
        af10.call(method, "/report/year")
    assert sandbox.requests == []


@pytest.mark.parametrize(
    ("body", "said"), [({"webhook_url": "https://x"}, "webhook_url"), ([1], "an object")]
)
async def test_a_body_that_leaves_no_room_for_the_webhook_is_refused(
    af10: AF10Client, sandbox: Sandbox, body: Any, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        af10.call("POST", "/report/year", json=body)
    assert sandbox.requests == []


async def test_without_a_callback_server_a_call_for_later_says_what_is_missing(
    caller: AF10Client,
) -> None:
    with pytest.raises(ConfigurationError, match="AF10_PUBLIC_URL"):
        caller.call("POST", "/report/year")


BODIES: list[Any] = [{"a": object()}, {"a": float("nan")}, {"a": {1, 2}}, {"a": Decimal(1)}]


@pytest.mark.parametrize("body", BODIES, ids=["object", "nan", "set", "decimal"])
async def test_a_body_that_is_no_json_is_refused_before_anything_is_sent(
    af10: AF10Client, sandbox: Sandbox, body: Any
) -> None:
    with pytest.raises(ConfigurationError, match="json"):
        await af10.post("/thing", json=body)
    with pytest.raises(ConfigurationError, match="json"):
        af10.call("POST", "/report/year", json=body)
    assert sandbox.requests == []


async def test_nobody_listens_where_af10_says(make_caller: ClientMaker, sandbox: Sandbox) -> None:
    """An error of the network says that nothing was sent, and of which call."""
    sandbox.faults.add(
        Fault.status(
            200, {"token": "t", "api_url": "http://127.0.0.1:1"}, on="authenticate", times=None
        )
    )
    async with make_caller() as client:
        with pytest.raises(ConnectFailedError) as caught:
            await client.post("/thing", params={"q": CANARY})
    error = caught.value
    assert (error.sent, error.retryable, error.step) == (False, True, "call")
    assert (error.method, error.path) == ("POST", "/thing")
    assert CANARY not in str(error)
