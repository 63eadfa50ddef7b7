"""A connection is served once its first words are whole, or can never be right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from af10_async.protocol.openings import MOST, head_needs, hello_needs

from ..hello import client_hello

HEAD = b"GET /af10/key?id=1 HTTP/1.1\r\nHost: hooks.example.com\r\nAccept: */*\r\n\r\n"


# -- HTTP ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
@given(behind=st.binary(max_size=50))
def test_a_head_is_waited_for_byte_by_byte_to_its_end(end: bytes, behind: bytes) -> None:
    """And whatever stands behind it does not matter."""
    head = HEAD.replace(b"\r\n", end)
    for length in range(1, len(head)):
        assert head_needs(head[:length]) == length + 1
    assert head_needs(head + behind) == 0


@pytest.mark.parametrize(
    "data",
    [b"\r\nGET /", b"get / HTTP/1.1\r\n", b"\x16\x03\x01", b"\x00", b" GET /", "É".encode()],
)
def test_what_is_no_request_is_not_waited_for(data: bytes) -> None:
    assert head_needs(data) == 0


def test_a_head_that_grows_and_grows_is_not_waited_for() -> None:
    assert head_needs(b"GET /" + b"a" * 4000) > 4000
    assert head_needs(b"GET /" + b"a" * 5000) == 0


# -- TLS -------------------------------------------------------------------------------------------


def test_a_client_hello_is_waited_for_at_once() -> None:
    """First for what says how long it is, and then for all of it."""
    hello = client_hello()
    for length in range(1, 5):
        assert hello_needs(hello[:length]) == 5
    for length in range(5, len(hello) + 1):
        assert hello_needs(hello[:length]) == len(hello)


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n", b"\x15\x03\x01\x00\x02", b"\x80\x2e\x01", b"\x16\x03\x01\xff\xff"],
)
def test_what_begins_no_handshake_is_not_waited_for(data: bytes) -> None:
    """Plain HTTP, an alert, a hello of SSL 2, and a record longer than there are."""
    assert hello_needs(data) == 0


@given(data=st.binary(min_size=1, max_size=40))
def test_nothing_is_waited_for_that_would_not_be_looked_at(data: bytes) -> None:
    """So no connection waits for ever for its end to be seen."""
    assert head_needs(data) <= MOST
    assert hello_needs(data) <= MOST
