"""Redaction: text from elsewhere without secrets, URLs, identifiers and line breaks."""

from __future__ import annotations

import html
import json
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from af10_async.protocol.redaction import REDACTED, redact

PASSWORD = 'p"a/s s&w\\ö!rd'


@pytest.mark.parametrize(
    "spelling",
    [
        PASSWORD,
        PASSWORD.upper(),
        quote(PASSWORD, safe=""),
        quote(PASSWORD, safe="").lower(),
        quote(PASSWORD, safe="/!"),
        quote_plus(PASSWORD),
        json.dumps(PASSWORD)[1:-1],
        json.dumps(PASSWORD)[1:-1].replace("/", "\\/"),
        json.dumps(PASSWORD, ensure_ascii=False)[1:-1],
        html.escape(PASSWORD),
    ],
    ids=[
        "plain",
        "upper-case",
        "url",
        "url-lower",
        "url-partly",
        "form",
        "json",
        "json-slashes",
        "json-unicode",
        "html",
    ],
)
def test_a_secret_is_taken_out_in_every_spelling(spelling: str) -> None:
    assert redact(f"before {spelling} after", [PASSWORD]) == f"before {REDACTED} after"


def test_a_request_that_is_repeated_loses_its_credentials() -> None:
    query = urlencode({"api_key": "k-1234", "username": "jan", "password": PASSWORD})
    told = redact(f"no route for /authenticate?{query}", ["k-1234", "jan", PASSWORD])
    assert told == (
        f"no route for /authenticate?api_key={REDACTED}&username={REDACTED}&password={REDACTED}"
    )


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("see https://f.example/x?sig=1 now", "see [url] now"),
        ("see HTTP://f.example now", "see [url] now"),
        ('<a href="https://f.example/x?sig=1">', '<a href="[url]">'),
        ("url=https%3A%2F%2Ff.example%2Fx&a=1 now", "url=[url] now"),
        ("https:\\/\\/f.example\\/x now", "[url] now"),
        ("xhttps://f.example/x", "x[url]"),
        ("https://f.example/it's?sig=1 now", "[url] now"),
        ("the https scheme: fine", "the https scheme: fine"),
    ],
)
def test_every_url_is_taken_out(text: str, left: str) -> None:
    assert redact(text, []) == left


@pytest.mark.parametrize(
    "identifier",
    ["0b8e6a3c-7a51-4d0e-9a65-9f6d2c1e4b77", "0B8E6A3C7A514D0E9A659F6D2C1E4B77"],
)
def test_every_uuid_is_taken_out(identifier: str) -> None:
    assert redact(f"id {identifier}.", []) == f"id {REDACTED}."


def test_the_longer_of_two_secrets_goes_whole() -> None:
    assert redact("abcdef abc", ["abc", "abcdef"]) == f"{REDACTED} {REDACTED}"


def test_a_secret_that_stands_in_the_mark_itself_does_not_spoil_it() -> None:
    assert redact("xyz and e", ["xyz", "e"]) == f"{REDACTED} and {REDACTED}"


def test_an_empty_secret_takes_nothing_out() -> None:
    assert redact("nothing secret", ["", ""]) == "nothing secret"


def test_a_secret_that_looks_like_a_pattern_is_taken_literally() -> None:
    assert redact("abc .* (", [".*", "("]) == f"abc {REDACTED} {REDACTED}"


def test_what_is_left_is_one_line_that_can_be_printed() -> None:
    assert redact(" a\r\n\tb\x00c\x1b[0m\u2028d\x85 \ud800 ", []) == "a b c [0m d  ?"


@given(
    text=st.text(st.characters(exclude_categories=()), max_size=60),
    secrets=st.lists(st.text(st.characters(exclude_categories=()), max_size=6), max_size=3),
)
def test_no_text_and_no_secret_raises(text: str, secrets: list[str]) -> None:
    told = redact(text, secrets)
    assert told.encode().decode() == told
    assert "\n" not in told


@given(
    secret=st.text(st.sampled_from("0123456789%&+/\"\\ <>'?=~ä€"), min_size=8, max_size=20),
    around=st.text(st.sampled_from("xyz \n,"), max_size=10),
)
def test_no_secret_survives_next_to_any_text(secret: str, around: str) -> None:
    for spelling in (secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)):
        told = redact(f"{around}{spelling}{around}", [secret])
        assert secret not in told
        assert REDACTED in told
