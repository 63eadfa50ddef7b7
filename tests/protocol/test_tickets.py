"""A ticket says what restores a job, and nothing that lets anybody in."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from af10_async.protocol.keys import make_key
from af10_async.protocol.tickets import Ticket, TicketError, is_ticket, read_ticket

KEY = make_key(bytes(18), b"secret")
TICKET = Ticket(KEY, "0123456789abcdef" * 2, True, False, 1_700_000_000.0, "POST", "/backup/owner")
TEXT = f"af10-1.{KEY}.{TICKET.account}.f.6553f100.POST./backup/owner"


def test_a_ticket_is_one_short_plain_word() -> None:
    assert str(TICKET) == TEXT
    assert re.fullmatch(r"[A-Za-z0-9._%/-]{1,200}", TEXT)
    assert is_ticket(TEXT)
    assert not is_ticket(KEY)


@given(
    st.binary(min_size=18, max_size=18),
    st.text("0123456789abcdef", min_size=32, max_size=32),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**40),
    st.sampled_from(["GET", "POST", "DELETE"]),
    st.text(min_size=1, max_size=40).map(lambda text: f"/{text}"),
)
def test_a_ticket_is_read_as_it_was_written(
    random: bytes,
    account: str,
    expects_file: bool,
    start_certain: bool,
    created_at: int,
    method: str,
    path: str,
) -> None:
    key = make_key(random, b"secret")
    ticket = Ticket(key, account, expects_file, start_certain, float(created_at), method, path)
    assert is_ticket(str(ticket))
    assert read_ticket(f" {ticket}\n") == ticket


def test_a_later_release_may_add_fields() -> None:
    assert read_ticket(f"{TEXT}.more.of it") == TICKET


@pytest.mark.parametrize("version", ["2", "10", "999999"])
def test_a_newer_major_version_is_refused_by_name(version: str) -> None:
    with pytest.raises(TicketError, match=f"version {version}.*upgrade"):
        read_ticket(f"af10-{version}.what.ever")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "af10-1",
        "af10-1.",
        KEY,
        TEXT[:-20],
        TEXT.replace("POST", "post"),
        TEXT.replace(KEY, KEY[1:]),
        TEXT.replace(".f.", ".x."),
        TEXT.replace("6553f100", "-1"),
        TEXT.replace("0123", "012g"),
        TEXT.replace("af10-1", "af10-x"),
        TEXT.replace("af10-1", "af10-\uff11"),
        TEXT.replace(".", ". "),
    ],
)
def test_a_damaged_ticket_is_refused_in_words(text: str) -> None:
    with pytest.raises(TicketError, match=r"this (is not a )?ticket"):
        read_ticket(text)


@given(st.text())
def test_any_text_is_a_ticket_or_refused(text: str) -> None:
    with contextlib.suppress(TicketError):
        read_ticket(f"af10-1.{text}")
