"""Every kind of answer, and the error that a caller gets: as the README promises it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import httpx
import pytest
import respx

from af10_async import (
    AF10Client,
    AF10Error,
    APIError,
    AuthenticationError,
    BadResponseError,
    NotFoundError,
    RateLimitError,
    ServerError,
)
from af10_async.protocol.retry import may_repeat
from af10_async.protocol.wire import Reply, read_quick

BASE = "https://api.example.com/v2"
CANARY = "canary-7f3a"
STATUSES = (200, 201, 301, 400, 401, 403, 404, 408, 409, 422, 425, 429, 500, 502, 503, 504)
NO_CODE: Any = object()
CODES = {
    "none": NO_CODE,
    "same": "same",
    "other": 7,
    "E1": "E1",
    "0": 0,
    "401": 401,
    "429": 429,
    "404": 404,
    "500": 500,
    "'503'": "503",
    "null": None,
}
SHAPES = ("message", "no message", "list", "text", "html", "empty", "deep")

# What a code says wherever it stands, in the order in which the words count when the status and
# `errorCode` say different things: first what only a person can change, last what passes by itself.
WORDS: list[tuple[type[APIError], set[str]]] = [
    (AuthenticationError, {"401", "403"}),
    (RateLimitError, {"429"}),
    (NotFoundError, {"404"}),
    (ServerError, {"500", "502", "503", "504"}),
]
PASSES = (RateLimitError, ServerError)


def content(status: int, code: object, shape: str) -> bytes:
    """The body of an answer; only an object can have an `errorCode`."""
    if shape in ("message", "no message"):
        body = {} if code is NO_CODE else {"errorCode": status if code == "same" else code}
        said = {"errorMessage": "It is odd"} if shape == "message" else {}
        return json.dumps({**body, **said}).encode()
    return {
        "list": b'[{"errorCode": 7}]',
        "text": b'"errorCode 401"',
        "html": b"<html>errorCode</html>",
        "empty": b"",
        "deep": b'{"errorCode":' * 100_000,
    }[shape]


def code_in(status: int, code: object, shape: str) -> object:
    """The `errorCode` that the answer really has; None for none."""
    if shape not in ("message", "no message") or code is NO_CODE:
        return None
    return status if code == "same" else code


def expected(status: int, code: object, shape: str) -> type[AF10Error] | None:
    """The error that it is to be; None for an answer that is none."""
    if code in (None, 0) and status in (200, 201):
        is_json = shape in ("message", "no message", "list", "text", "empty")
        return None if is_json else BadResponseError
    said = {str(status), str(code)}
    return next((error for error, words in WORDS if words & said), APIError)


CASES = [
    pytest.param(status, code, shape, id=f"{status}-{name}-{shape}")
    for status, (name, code), shape in itertools.product(STATUSES, CODES.items(), SHAPES)
    if shape in ("message", "no message") or code is NO_CODE
]


@pytest.fixture(scope="module")
def router() -> Any:
    with respx.mock(assert_all_called=False) as found:
        found.get(f"{BASE}/authenticate").respond(json={"token": "t-0815"})
        yield found


async def outcome(router: Any, status: int, body: bytes) -> Any:
    router.post(f"{BASE}/thing").mock(return_value=httpx.Response(status, content=body))
    async with AF10Client(
        base_url=BASE, api_key="k-0815", username="u-0815", password="p-0815", retries=0
    ) as client:
        try:
            return await client.post("/thing", json={"x": CANARY}, params={"q": CANARY})
        except AF10Error as error:
            return error


@pytest.mark.parametrize(("status", "code", "shape"), CASES)
async def test_the_error_is_what_the_readme_says(
    router: Any, status: int, code: object, shape: str
) -> None:
    body = content(status, code, shape)
    found = await outcome(router, status, body)
    error_code = code_in(status, code, shape)
    kind = expected(status, error_code, shape)
    if kind is None:
        assert found == (json.loads(body) if body else None)
        return
    assert type(found) is kind
    assert (found.status, found.error_code) == (status, error_code)
    assert (found.method, found.path, found.step, found.sent) == ("POST", "/thing", "call", True)
    said = "It is odd" if shape == "message" and kind is not BadResponseError else None
    assert found.error_message == said
    assert found.key is None
    # A POST may be repeated only when AF10 itself says that it has done nothing.
    busy = error_code is not None and "503" in {str(status), str(error_code)}
    assert found.retryable is (kind is RateLimitError or (kind is ServerError and busy))
    text = str(found)
    assert f"POST /thing (HTTP {status}" in text
    assert (said or "") in text
    for hidden in (CANARY, "q=", "?", "t-0815", "k-0815", "u-0815", "p-0815"):
        assert hidden not in text + repr(vars(found))


@pytest.mark.parametrize(("status", "code", "shape"), CASES)
def test_whether_a_get_may_be_repeated_follows_from_the_kind_of_error(
    status: int, code: object, shape: str
) -> None:
    """What passes by itself, and nothing that a person has to change."""
    body = content(status, code, shape)
    kind = expected(status, code_in(status, code, shape), shape)
    reply = Reply("GET", "/thing", status, {}, body)
    if kind is None:
        assert read_quick(reply) == (json.loads(body) if body else None)
        return
    with pytest.raises(kind) as caught:
        read_quick(reply)
    passes = kind in PASSES or (kind is APIError and status in (408, 425))
    assert may_repeat(caught.value, "GET") is passes
