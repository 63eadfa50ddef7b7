"""The wire: what is sent, and what every answer means."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote, quote_plus, urljoin, urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from af10_async.errors import (
    AF10Error,
    APIError,
    AuthenticationError,
    BadResponseError,
    ConfigurationError,
    NotFoundError,
    RateLimitError,
    ServerError,
)
from af10_async.protocol.wire import (
    EXCERPT_LENGTH,
    MAX_REPLY_BYTES,
    SOONEST,
    TOKEN_CAP_SECONDS,
    USUAL_WAIT,
    Call,
    ComeBack,
    Finished,
    NotNow,
    NotReady,
    NotRedeemable,
    Payload,
    Reply,
    Started,
    Unclear,
    authenticate_call,
    check_quick,
    checked_json,
    checked_path,
    decipher,
    environment_call,
    is_token_refused,
    not_promised,
    only_row,
    payload_url,
    query,
    quick_call,
    read_come_back,
    read_quick,
    read_quick_come_back,
    read_redeem,
    read_start,
    redeem_call,
    token_life,
    webhook_call,
)

HTML = b"<html><h1>Sign in</h1></html>"
NO_JSON = {
    "html": HTML,
    "empty": b"",
    "cut": b'{"data": [1, 2',
    "deep": b"[" * 100_000,
    "digits": b"9" * 5000,
    "bad-utf-8": b'{"data": "\xff\xfe"}',
    "text": b"OK",
    "two-values": b"{}{}",
}
JSON_VALUES: dict[str, Any] = {
    "object": {"a": 1},
    "list": [1, 2],
    "text": "x",
    "number": 7,
    "zero": 0,
    "null": None,
    "true": True,
    "huge-number": 10**400,
    "empty-object": {},
    "no-error-code": {"errorCode": None, "data": 1},
    "empty-error-code": {"errorCode": "", "data": 1},
    "zero-error-code": {"errorCode": 0, "data": 1},
    "message-alone": {"errorMessage": "fine", "data": 1},
}


def reply(status: int = 200, body: Any = None, **headers: str) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply("POST", "/backup/owner", status, named, raw, received_at=1_000_000.0)


def code(error_code: Any, message: Any = None) -> dict[str, Any]:
    return {"errorCode": error_code, "errorMessage": message}


# -- what goes out ---------------------------------------------------------------------------------


def test_authenticate_is_a_get_with_the_three_credentials() -> None:
    call = authenticate_call("key", "user", "pass")
    assert call == Call(
        "GET", "/authenticate", {"api_key": "key", "username": "user", "password": "pass"}
    )


@pytest.mark.parametrize("name", [None, ""])
def test_an_organization_name_is_sent_only_when_there_is_one(name: str | None) -> None:
    assert authenticate_call("k", "u", "p", "Garage BV").params["organization_name"] == "Garage BV"
    assert "organization_name" not in authenticate_call("k", "u", "p", name).params


def test_a_job_is_a_post_whose_json_names_the_webhook() -> None:
    call = webhook_call("POST", "/backup/owner", "https://hooks.example/k")
    assert (call.method, call.path, dict(call.params)) == ("POST", "/backup/owner", {})
    assert call.json == {"webhook_url": "https://hooks.example/k"}


def test_a_body_of_the_callers_is_sent_but_cannot_replace_the_webhook() -> None:
    body = {"year": 2024, "webhook_url": "https://elsewhere.example"}
    call = webhook_call("POST", "/export", "https://hooks.example/k", body)
    assert call.json == {"year": 2024, "webhook_url": "https://hooks.example/k"}
    assert body["webhook_url"] == "https://elsewhere.example"


def test_redeeming_is_a_get_of_webhook_with_the_id() -> None:
    assert redeem_call("s-1") == Call("GET", "/webhook", {"id": "s-1"})


def test_no_repr_of_a_call_a_reply_or_an_outcome_shows_what_it_carries() -> None:
    shown = [
        authenticate_call("canary", "canary", "canary", "canary"),
        webhook_call("POST", "/backup/owner", "https://canary.example/", {"canary": 1}),
        redeem_call("canary"),
        reply(200, {"token": "canary"}, set_cookie="canary"),
        Finished("canary"),
        Payload("canary"),
    ]
    assert "canary" not in repr(shown)


# -- decipher --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", JSON_VALUES.values(), ids=JSON_VALUES)
@pytest.mark.parametrize("status", [200, 201, 202, 299])
def test_a_good_status_with_json_is_its_value(status: int, value: Any) -> None:
    assert decipher(reply(status, value)) == value


@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
@pytest.mark.parametrize("status", [200, 202, 204])
def test_a_good_status_without_json_is_a_bad_response(status: int, body: bytes) -> None:
    with pytest.raises(BadResponseError, match="is not JSON") as caught:
        decipher(reply(status, body))
    error = caught.value
    assert (error.status, error.method, error.path) == (status, "POST", "/backup/owner")
    assert (error.sent, error.retryable) == (True, False)
    assert len(error.excerpt) <= EXCERPT_LENGTH
    assert f"HTTP {status}" in str(error)
    assert ("It begins" in str(error)) is bool(body)


@pytest.mark.parametrize(
    "body",
    [*NO_JSON.values(), b"[]", b"7", b"null", b"{}"],
    ids=[*NO_JSON, "list", "number", "null", "object"],
)
@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (302, APIError, False),
        (400, APIError, False),
        (401, AuthenticationError, False),
        (403, AuthenticationError, False),
        (404, NotFoundError, False),
        (429, RateLimitError, True),
        (500, ServerError, True),
        (502, ServerError, True),
        (503, ServerError, True),
    ],
)
def test_a_bad_status_is_an_api_error_whatever_the_body(
    status: int, kind: type[APIError], retryable: bool, body: bytes
) -> None:
    with pytest.raises(APIError) as caught:
        decipher(reply(status, body))
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.error_code, error.error_message) == (status, None, None)
    assert (error.method, error.path) == ("POST", "/backup/owner")
    assert (error.sent, error.retryable) == (True, retryable)
    assert f"HTTP {status})" in str(error)


@pytest.mark.parametrize(
    ("error_code", "message", "kind"),
    [
        (401, "Not authorized", AuthenticationError),
        ("401", None, AuthenticationError),
        (401.0, None, AuthenticationError),
        (403, None, AuthenticationError),
        (9, "You are NOT Authorized here", APIError),
        (9, "NOT authorized.", AuthenticationError),
        (9, "Not authorized: p", AuthenticationError),
        (429, None, RateLimitError),
        ("429", None, RateLimitError),
        (500, "boom", ServerError),
        ("503", None, ServerError),
        (599, None, ServerError),
        (600, None, APIError),
        (404, "no such dealer", NotFoundError),
        ("E17", "odd", APIError),
        (True, None, APIError),
        (-1, None, APIError),
        ("\u00b2", None, APIError),
        ("\u0665\u0660\u0660", None, APIError),
        pytest.param("9" * 5000, None, APIError, id="5000-digits"),
        pytest.param(10**400, None, APIError, id="huge-number"),
        ([401], None, APIError),
        ({"a": 1}, None, APIError),
        (4.5, None, APIError),
        (1e300, None, APIError),
        (404, ["not", "text"], NotFoundError),
    ],
)
def test_an_error_code_is_an_error_even_with_http_200(
    error_code: Any, message: Any, kind: type[APIError]
) -> None:
    with pytest.raises(APIError) as caught:
        decipher(reply(200, code(error_code, message)))
    error = caught.value
    assert type(error) is kind
    assert error.status == 200
    assert error.error_message == (message if isinstance(message, str) else None)
    assert error.retryable is (kind in (RateLimitError, ServerError))
    assert len(str(error)) < 1000


def test_code_and_message_of_af10_stand_in_the_error_and_its_text() -> None:
    with pytest.raises(APIError) as caught:
        decipher(reply(404, code(404, "no such dealer")))
    assert (caught.value.error_code, caught.value.error_message) == (404, "no such dealer")
    assert "errorCode 404" in str(caught.value)
    assert "no such dealer" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (302, "check the base URL"),
        (401, "check api_key, username and password"),
        (429, "later"),
        (500, "try again later"),
        (404, "check the path, and the id in it"),
    ],
)
def test_an_error_says_what_to_do_next(status: int, advice: str) -> None:
    with pytest.raises(APIError, match=advice):
        decipher(reply(status, b""))


@pytest.mark.parametrize(("header", "seconds"), [("12", 12.0), ("soon", None), (None, None)])
def test_the_wait_that_the_server_asks_for_is_in_the_error(
    header: str | None, seconds: float | None
) -> None:
    headers = {"retry_after": header} if header else {}
    with pytest.raises(RateLimitError) as caught:
        decipher(reply(429, {}, **headers))
    assert caught.value.retry_after == seconds


def test_a_retry_after_date_is_relative_to_when_the_answer_came() -> None:
    with pytest.raises(RateLimitError) as caught:
        decipher(reply(429, {}, retry_after="Mon, 12 Jan 1970 13:47:10 GMT"))
    assert caught.value.retry_after == 30.0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["errorCode", "errorMessage", "data", "retry", "url"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
bodies = st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode())
statuses = st.sampled_from([200, 200, 202, 204, 302, 400, 401, 404, 409, 429, 500, 503])


@given(status=statuses, body=bodies)
def test_whatever_is_answered_every_reader_gives_an_outcome_or_one_of_our_errors(
    status: int, body: bytes
) -> None:
    answer = reply(status, body)
    for read in (decipher, read_start, read_redeem):
        outcome = result_of(read, answer)
        if isinstance(outcome, AF10Error):
            assert "HTTP" in str(outcome)
            assert str(outcome).encode()
            assert not any(unicodedata.category(letter) == "Cc" for letter in str(outcome))
        if isinstance(outcome, Finished):
            json.loads(outcome.payload)
        if isinstance(outcome, Payload):
            json.loads(outcome.json)
    assert is_token_refused(answer) in (True, False)
    assert (read_come_back(answer) is None) is (status != 202)


def result_of(read: Callable[[Reply], Any], answer: Reply) -> Any:
    try:
        return read(answer)
    except AF10Error as error:
        return error


# -- errors repeat no secret -----------------------------------------------------------------------

SECRETS = ("4p!k/ey+%&", 'p"a ss\\w\u00f6rd/<&>', "plain-token-0001")
URL = "https://files.example/owner.zip?sig=canary%2Bsig"
UUID = "0b8e6a3c-7a51-4d0e-9a65-9f6d2c1e4b77"


def spellings(secret: str) -> list[str]:
    encoded = quote(secret, safe="")
    return [
        secret,
        encoded,
        encoded.lower(),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    ]


CANARIES = [spelling for secret in SECRETS for spelling in spellings(secret)]
CANARIES += [URL, quote(URL, safe=""), URL.replace("/", "\\/"), UUID, UUID.replace("-", "")]
filler = st.text(st.sampled_from("xyz .,:<>{}\n"), max_size=12)


def texts_of(error: AF10Error) -> str:
    return " ".join([str(error), repr(error), repr(vars(error))])


def raised(answer: Reply) -> AF10Error:
    with pytest.raises(AF10Error) as caught:
        decipher(answer, SECRETS)
    return caught.value


@given(
    status=st.sampled_from([200, 400, 401, 429, 500, 503]),
    parts=st.lists(st.tuples(filler, st.sampled_from(CANARIES)), min_size=1, max_size=4),
    place=st.sampled_from(["code", "message", "page"]),
)
def test_no_error_repeats_a_secret_a_url_or_a_uuid_in_any_spelling(
    status: int, parts: list[tuple[str, str]], place: str
) -> None:
    said = "".join(f"{before} {canary} " for before, canary in parts)
    bodies: dict[str, Any] = {
        "code": code(said, "no"),
        "message": code(7, said),
        "page": b"<p>" + said.encode(),
    }
    shown = texts_of(raised(reply(status, bodies[place])))
    for canary in CANARIES:
        assert canary not in shown
    assert "canary" not in shown
    assert "files.example" not in shown


@pytest.mark.parametrize("lead", range(0, 64, 4))
def test_not_even_the_beginning_of_a_secret_is_left_where_an_excerpt_is_cut(lead: int) -> None:
    page = "x" * lead + f"{URL} " * 15 + SECRETS[2] * 60
    assert "plain" not in texts_of(raised(reply(200, page.encode())))


def test_a_numeric_code_that_is_a_secret_is_not_repeated() -> None:
    with pytest.raises(APIError) as caught:
        decipher(reply(200, code(73519842, "no")), ("73519842",))
    assert "73519842" not in texts_of(caught.value)


def test_an_excerpt_is_one_printable_line() -> None:
    error = raised(reply(200, b"a\r\nb\x1b[31mc\x00\n"))
    assert isinstance(error, BadResponseError)
    assert error.excerpt == "a b [31mc"


def test_a_message_is_cut_after_200_characters() -> None:
    error = raised(reply(400, code(1, "m" * 5000)))
    assert isinstance(error, APIError)
    assert error.error_message == "m" * EXCERPT_LENGTH


def test_an_answer_that_was_not_promised_says_what_is_wrong_with_it() -> None:
    error = not_promised(reply(200, {"data": SECRETS[2]}), "has no usable token", SECRETS)
    assert "(HTTP 200) has no usable token" in str(error)
    assert SECRETS[2] not in str(error)


# -- token refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        (reply(401, b""), True),
        (reply(401, HTML), True),
        (reply(200, code(401, "x")), True),
        (reply(200, code("401")), True),
        (reply(400, code(12, "Not authorized")), True),
        (reply(200, code(403)), False),
        (reply(403, b""), False),
        (reply(200, code(404, "gone")), False),
        (reply(200, {"data": "401 Not authorized"}), False),
        (reply(200, {"data": {"errorCode": 401}}), False),
        (reply(200, b"errorCode 401 Not authorized"), False),
        (reply(500, code(500)), False),
        (reply(200, {"data": []}), False),
    ],
    ids=[
        "401-empty",
        "401-html",
        "code-401",
        "code-401-text",
        "message",
        "code-403",
        "403",
        "code-404",
        "data-text",
        "data-object",
        "not-json",
        "500",
        "fine",
    ],
)
def test_a_token_is_refused_by_401_as_status_or_code_or_by_the_message(
    answer: Reply, refused: bool
) -> None:
    assert is_token_refused(answer) is refused


# -- authenticate ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"retry": 5000}, 5.0),
        ({"retry": "2500"}, 2.5),
        ({"retry": 0}, SOONEST),
        ({"retry": 3_600_000}, 3600.0),
        ({"retry": 3_600_001}, 5.0),
        ({"retry": -1}, 5.0),
        ({"retry": "soon"}, 5.0),
        ({"retry": [1]}, 5.0),
        ({"retry": None}, 5.0),
        ({"retry": float("nan")}, 5.0),
        ({"retry": float("inf")}, 5.0),
        pytest.param({"retry": 10**400}, 5.0, id="huge-number"),
        ({}, 5.0),
        ([], 5.0),
        (HTML, 5.0),
        (b"", 5.0),
    ],
)
def test_202_means_come_back_after_so_many_milliseconds(body: Any, seconds: float) -> None:
    assert read_come_back(reply(202, body)) == ComeBack(seconds)


@pytest.mark.parametrize("status", [200, 201, 401, 503])
def test_no_other_status_asks_to_come_back(status: int) -> None:
    assert read_come_back(reply(status, {"retry": 5000})) is None


NOW = datetime(2024, 6, 1, 12, 0, tzinfo=UTC)


def stated(minutes: float, zone: int) -> str:
    local = (NOW + timedelta(minutes=minutes)).astimezone(timezone(timedelta(hours=zone)))
    return local.strftime("%Y%m%dT%H%M%S")


@pytest.mark.parametrize("zone", [0, 1, 2], ids=["utc", "winter", "summer"])
@pytest.mark.parametrize("minutes", [1, 10, 20, 59])
def test_a_token_is_renewed_before_it_ends_in_whatever_zone_its_end_is_stated(
    zone: int, minutes: int
) -> None:
    life = token_life(stated(minutes, zone), NOW.timestamp())
    assert life == pytest.approx(min(0.9 * 60 * minutes, TOKEN_CAP_SECONDS))


def test_a_token_is_never_used_longer_than_the_cap() -> None:
    assert token_life(stated(60 * 24 * 365, 0), NOW.timestamp()) == TOKEN_CAP_SECONDS


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "soon",
        "20240601",
        "2024-06-01T12:30:00",
        "20240601T123000Z",
        "20241301T000000",
        "1717245000",
        "00010101T000000",
        "99991231T235959",
        "20200101T000000",
    ],
)
def test_an_end_that_is_unreadable_past_or_absurd_leaves_the_cap(text: str | None) -> None:
    assert token_life(text, NOW.timestamp()) == TOKEN_CAP_SECONDS


@given(
    text=st.text(max_size=20)
    | st.datetimes().map(lambda moment: f"{moment.year:04}" + moment.strftime("%m%dT%H%M%S")),
    now=st.floats(0, 4e9),
)
def test_the_life_of_a_token_is_always_positive_and_within_the_cap(text: str, now: float) -> None:
    assert 0 < token_life(text, now) <= TOKEN_CAP_SECONDS


# -- start a job -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        reply(202, {"successCode": 202}),
        reply(202, {}),
        reply(202, HTML),
        reply(202, b""),
        reply(202, {"data": {"anything": 1}}),
        reply(200, {"successCode": 202}),
        reply(200, {"data": None}),
        reply(200, []),
        reply(200, "accepted"),
        reply(200, 202),
    ],
    ids=[
        "as-documented",
        "202-empty-object",
        "202-html",
        "202-empty",
        "202-with-data",
        "200-success-code",
        "200-null-data",
        "list",
        "text",
        "number",
    ],
)
def test_an_acceptance_means_that_a_callback_will_come(answer: Reply) -> None:
    assert read_start(answer) == Started()


@pytest.mark.parametrize("data", [{"url": "https://f.example/x"}, {}, [], 0, False, "text", [None]])
def test_200_with_data_is_the_payload_at_once(data: Any) -> None:
    outcome = read_start(reply(200, {"data": data}))
    assert isinstance(outcome, Finished)
    assert json.loads(outcome.payload) == data


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (reply(429, b""), RateLimitError),
        (reply(429, code(429, "slow down")), RateLimitError),
        (reply(200, code(429)), RateLimitError),
        (reply(503, code(503, "busy")), ServerError),
        (reply(200, code("503")), ServerError),
        (reply(503, code(17, "maintenance")), ServerError),
    ],
    ids=["429", "429-code", "200-code-429", "503-code", "200-code-503", "503-other-code"],
)
def test_busy_in_af10s_own_words_means_not_now(answer: Reply, kind: type[APIError]) -> None:
    outcome = read_start(answer)
    assert isinstance(outcome, NotNow)
    assert type(outcome.reason) is kind
    assert outcome.reason.retryable


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (reply(500, b""), ServerError),
        (reply(500, {}), ServerError),
        (reply(502, HTML), ServerError),
        (reply(503, HTML), ServerError),
        (reply(504, {"errorMessage": "late"}), ServerError),
        (reply(200, HTML), BadResponseError),
        (reply(200, b""), BadResponseError),
        (reply(204, b""), BadResponseError),
    ],
    ids=["500", "500-json", "502", "503", "504", "200-html", "200-empty", "204"],
)
def test_what_af10_has_not_said_itself_leaves_the_start_open(
    answer: Reply, kind: type[AF10Error]
) -> None:
    outcome = read_start(answer)
    assert isinstance(outcome, Unclear)
    assert type(outcome.reason) is kind


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (reply(400, HTML), APIError),
        (reply(404, {}), NotFoundError),
        (reply(401, b""), AuthenticationError),
        (reply(403, code(403)), AuthenticationError),
        (reply(200, code(12, "webhook_url must start with https")), APIError),
        (reply(500, code(500, "boom")), ServerError),
        (reply(307, b""), APIError),
    ],
    ids=["400", "404", "401", "403", "200-code", "500-code", "307"],
)
def test_a_clear_refusal_is_raised(answer: Reply, kind: type[APIError]) -> None:
    with pytest.raises(APIError) as caught:
        read_start(answer)
    assert type(caught.value) is kind


# -- redeem a secret -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [{"url": "https://f.example/x"}, {}, [], [1], "text", 0, None, False, {"a": {"b": "\u00e9"}}],
)
def test_whatever_data_is_redeemed_is_the_payload(data: Any) -> None:
    outcome = read_redeem(reply(200, {"data": data, "more": 1}))
    assert isinstance(outcome, Payload)
    assert json.loads(outcome.json) == data


@pytest.mark.parametrize(
    "answer",
    [
        reply(404, HTML),
        reply(404, code(404)),
        reply(409, b""),
        reply(425, b""),
        reply(408, b""),
        reply(200, code(404, "unknown id")),
        reply(200, code("409")),
        reply(401, b""),
        reply(403, b""),
        reply(200, code(401, "Not authorized")),
        reply(202, {"data": 1}),
        reply(202, {}),
    ],
    ids=[
        "404-html",
        "404",
        "409",
        "425",
        "408",
        "200-code-404",
        "200-code-409",
        "401",
        "403",
        "200-code-401",
        "202-data",
        "202",
    ],
)
def test_not_found_not_yet_and_not_authorized_are_worth_another_try(answer: Reply) -> None:
    assert read_redeem(answer) == NotReady()


@pytest.mark.parametrize("answer", [reply(400, b""), reply(410, HTML)], ids=["empty", "page"])
def test_a_page_from_in_between_says_nothing_about_the_secret(answer: Reply) -> None:
    assert read_redeem(answer) == NotReady()


@pytest.mark.parametrize(
    "answer",
    [reply(400, code(400)), reply(410, code(410)), reply(200, code(17, "no"))],
    ids=["400", "410", "200-code"],
)
def test_any_other_refusal_is_final_for_this_secret(answer: Reply) -> None:
    assert read_redeem(answer) == NotRedeemable()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (reply(500, b""), ServerError),
        (reply(200, code(503)), ServerError),
        (reply(429, b""), RateLimitError),
        (reply(302, b"", location="https://login.example"), APIError),
        (reply(200, HTML), BadResponseError),
        (reply(202, HTML), BadResponseError),
        (reply(200, {}), BadResponseError),
        (reply(200, [1]), BadResponseError),
        (reply(200, "x"), BadResponseError),
    ],
    ids=["500", "503-code", "429", "302", "html", "202-html", "no-data", "list", "text"],
)
def test_what_says_nothing_about_the_secret_is_raised(answer: Reply, kind: type[AF10Error]) -> None:
    with pytest.raises(AF10Error) as caught:
        read_redeem(answer)
    assert type(caught.value) is kind


@given(secret=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=12))
def test_an_error_while_redeeming_does_not_repeat_the_secret(secret: str) -> None:
    with pytest.raises(BadResponseError) as usual:
        read_redeem(reply(200, "x"))
    plain = texts_of(usual.value)  # words of our own, whatever AF10 sends
    assume(secret.lower() not in plain.lower())
    with pytest.raises(BadResponseError) as caught:
        read_redeem(reply(200, {"id": secret}), (secret,))
    assert secret not in texts_of(caught.value)


@pytest.mark.parametrize(
    ("payload", "url"),
    [
        ({"url": "https://f.example/x"}, "https://f.example/x"),
        ({"url": "https://f.example/x", "size": 3}, "https://f.example/x"),
        ({"url": ""}, None),
        ({"url": None}, None),
        ({"url": 5}, None),
        ({"url": ["https://f.example/x"]}, None),
        ({"URL": "https://f.example/x"}, None),
        ({}, None),
        ([], None),
        ("https://f.example/x", None),
        (None, None),
    ],
)
def test_a_payload_is_a_file_when_it_names_a_url(payload: Any, url: str | None) -> None:
    assert payload_url(payload) == url


# -- quick calls -----------------------------------------------------------------------------------


def test_a_quick_call_is_what_was_asked_and_may_be_answered_at_length() -> None:
    call = quick_call("put", "/vehicle/1", {"a": 1, "b": None}, {"x": 1})
    assert call == Call("PUT", "/vehicle/1", {"a": "1"}, {"x": 1}, most_bytes=MAX_REPLY_BYTES)


def test_the_environment_is_asked_for_by_the_user_name() -> None:
    assert environment_call("u") == Call("GET", "/util/environment", {"username": "u"})


path_texts = st.text(st.sampled_from("/.ab:@%2eE\\?#\r\n \u00e9"), max_size=8) | st.text(max_size=6)


@given(path=path_texts)
def test_no_path_whatsoever_leads_out_of_the_api(path: str) -> None:
    base = "https://api.example.com:8443/v2"
    try:
        checked = checked_path(path)
    except ConfigurationError:
        return
    parts = urlsplit(urljoin(base, base + checked))
    assert parts.netloc == "api.example.com:8443"
    assert parts.path == "/v2" + path
    assert (parts.query, parts.fragment) == ("", "")


@given(
    st.dictionaries(
        st.text(max_size=3),
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(max_size=3)),
    )
)
def test_parameters_are_all_text_and_none_is_left_out(params: dict[str, Any]) -> None:
    found = query(params)
    assert set(found) == {name for name, value in params.items() if value is not None}
    assert all(isinstance(value, str) for value in found.values())


@pytest.mark.parametrize(
    "value", [object(), {1}, float("nan"), float("inf"), b"x", datetime(2024, 1, 1, tzinfo=UTC)]
)
def test_a_body_that_is_no_json_is_refused(value: Any) -> None:
    for body in (value, {"a": [value]}):
        with pytest.raises(ConfigurationError, match="json"):
            checked_json(body)


def test_a_body_without_end_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ConfigurationError, match="json"):
        checked_json(endless)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
@pytest.mark.parametrize("body", [b"", b" \r\n\t"])
def test_no_body_is_none(status: int, body: bytes) -> None:
    assert read_quick(reply(status, body)) is None


@pytest.mark.parametrize("status", [302, 404, 500])
def test_no_body_with_a_bad_status_is_an_error(status: int) -> None:
    with pytest.raises(APIError):
        read_quick(reply(status, b""))


@pytest.mark.parametrize(
    ("value", "row"),
    [
        ({"data": {"a": 1}}, {"a": 1}),
        ({"data": [{"a": 1}]}, {"a": 1}),
        ([{"a": 1}], {"a": 1}),
        ({"a": 1}, {"a": 1}),
        ({"data": None}, None),
        ({"data": []}, []),
        ([1, 2], [1, 2]),
        (None, None),
    ],
)
def test_the_only_row_is_in_data_or_stands_by_itself(value: Any, row: Any) -> None:
    assert only_row(value) == row


@pytest.mark.parametrize(
    "body", [HTML, b"errorCode", b'{"errorCode": 0}', {"data": {"errorCode": 1}}, b"\xff", b""]
)
def test_anything_that_is_no_refusal_passes_as_a_raw_answer(body: Any) -> None:
    check_quick(reply(200, body))


@pytest.mark.parametrize("answer", [reply(404, HTML), reply(200, code(17)), reply(302, b"")])
def test_a_refusal_is_one_also_as_a_raw_answer(answer: Reply) -> None:
    with pytest.raises(APIError):
        check_quick(answer)


def get(status: int, body: Any) -> Reply:
    return replace(reply(status, body), method="GET")


@pytest.mark.parametrize(
    ("retry", "seconds"),
    [
        (2500, 2.5),
        ("2500", 2.5),
        (0, SOONEST),
        (86_400_000, 86_400.0),
        (10**400, float("inf")),
        (float("inf"), float("inf")),
        (-1, USUAL_WAIT),
        (-(10**400), USUAL_WAIT),
        (float("nan"), USUAL_WAIT),
        (True, USUAL_WAIT),
        (None, USUAL_WAIT),
        ("soon", USUAL_WAIT),
    ],
    ids=range(12),
)
def test_a_202_with_retry_asks_a_get_to_come_back_however_late(
    retry: object, seconds: float
) -> None:
    assert read_quick_come_back(get(202, {"retry": retry})) == ComeBack(seconds)


@pytest.mark.parametrize(
    "answer",
    [
        get(200, {"retry": 5}),
        get(503, {"retry": 5}),
        get(202, {}),
        get(202, {"successCode": 202}),
        get(202, {"retry": 5, "data": []}),
        get(202, [{"retry": 5}]),
        get(202, HTML),
        get(202, b""),
        reply(202, {"retry": 5}),
    ],
)
def test_nothing_else_asks_to_come_back(answer: Reply) -> None:
    assert read_quick_come_back(answer) is None


@pytest.mark.parametrize(
    ("headers", "retry", "seconds"),
    [
        ({}, 2500, 2.5),
        ({"retry_after": "7"}, 2500, 7.0),
        ({"retry_after": "soon"}, 2500, 2.5),
        ({}, 86_400_000, 86_400.0),
        ({}, -1, None),
        ({}, "soon", None),
    ],
)
def test_the_wait_that_an_error_asks_for_is_in_it(
    headers: dict[str, str], retry: object, seconds: float | None
) -> None:
    with pytest.raises(RateLimitError) as caught:
        decipher(reply(429, {"errorCode": 429, "retry": retry}, **headers))
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("status", [408, 425])
@pytest.mark.parametrize(
    ("error_code", "retryable"), [(None, True), (7, True), (401, False), (404, False), (429, True)]
)
def test_too_late_or_too_early_passes_unless_the_code_says_what_does_not(
    status: int, error_code: object, retryable: bool
) -> None:
    with pytest.raises(APIError) as caught:
        decipher(reply(status, code(error_code)))
    assert caught.value.retryable is retryable
