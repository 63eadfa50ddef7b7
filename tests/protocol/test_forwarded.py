"""Who sent a request that came through proxies: only what named proxies say is believed."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from af10_async.protocol.forwarded import came_in_the_clear, is_trusted, networks, sender

US = networks(["127.0.0.1", "10.0.0.0/8", "fd00::/8"])


# -- who is trusted --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "is_ours"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", False),
        ("10.255.0.1", True),
        ("11.0.0.1", False),
        ("fd12::1", True),
        ("fe80::1", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:11.0.0.1", False),
        ("fd12::1%eth0", True),
        ("localhost", False),
        ("010.0.0.1", False),
        ("", False),
        (None, False),
    ],
)
def test_a_proxy_is_trusted_by_its_address(address: str | None, is_ours: bool) -> None:
    assert is_trusted(address, US) is is_ours
    assert not is_trusted(address, ())


@pytest.mark.parametrize("text", ["", "localhost", "10.0.0.1/8", "10.0.0.0/33", "*", "1.2.3"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        networks([text])


def test_blanks_around_a_network_do_not_matter() -> None:
    assert networks([" 127.0.0.1", "10.0.0.0/8 ", "\tfd00::/8"]) == US


# -- who sent it -----------------------------------------------------------------------------------

SENDERS = {
    "nothing said": ("127.0.0.1", [], "127.0.0.1"),
    "one proxy": ("127.0.0.1", ["192.0.2.1"], "192.0.2.1"),
    "two proxies": ("127.0.0.1", ["192.0.2.1, 10.0.0.1"], "192.0.2.1"),
    "as two headers": ("127.0.0.1", ["192.0.2.1", "10.0.0.1"], "192.0.2.1"),
    "no blanks": ("127.0.0.1", ["192.0.2.1,10.0.0.1"], "192.0.2.1"),
    "written by the sender": ("127.0.0.1", ["198.51.100.1, 192.0.2.1"], "192.0.2.1"),
    "proxies claimed by the sender": ("127.0.0.1", ["10.0.0.5, 192.0.2.1"], "192.0.2.1"),
    "a stranger": ("192.0.2.9", ["192.0.2.1"], "192.0.2.9"),
    "a stranger who claims a proxy": ("192.0.2.9", ["127.0.0.1"], "192.0.2.9"),
    "only proxies": ("127.0.0.1", ["10.0.0.2, 10.0.0.1"], "10.0.0.2"),
    "not known": ("127.0.0.1", ["unknown"], "127.0.0.1"),
    "hidden": ("127.0.0.1", ["192.0.2.1, _hidden, 10.0.0.1"], "10.0.0.1"),
    "empty": ("127.0.0.1", [""], "127.0.0.1"),
    "a gap": ("127.0.0.1", ["192.0.2.1,,10.0.0.1"], "10.0.0.1"),
    "version 6": ("fd00::1", ["2001:db8::1"], "2001:db8::1"),
    "version 4 as 6": ("::ffff:127.0.0.1", ["::ffff:192.0.2.1"], "::ffff:192.0.2.1"),
    "with a port": ("127.0.0.1", ["192.0.2.1:4711"], "192.0.2.1"),
    "a proxy with a port": ("127.0.0.1", ["192.0.2.1, 10.0.0.1:80"], "192.0.2.1"),
    "version 6 with a port": ("127.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
    "in brackets": ("127.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
    "half a bracket": ("127.0.0.1", ["[2001:db8::1"], "127.0.0.1"),
    "a name with a port": ("127.0.0.1", ["hooks.example.com:80"], "127.0.0.1"),
    "over a socket file": (None, ["192.0.2.1"], None),
}


@pytest.mark.parametrize("name", SENDERS)
def test_the_sender_is_the_first_from_the_end_that_is_no_proxy_of_ours(name: str) -> None:
    peer, said, expected = SENDERS[name]
    assert sender(peer, said, US) == expected


def test_when_nobody_is_trusted_nothing_is_believed() -> None:
    assert sender("127.0.0.1", ["192.0.2.1"], ()) == "127.0.0.1"


addresses = st.ip_addresses().map(str)
ours = st.one_of(
    st.just("127.0.0.1"),
    st.ip_addresses(network="10.0.0.0/8").map(str),
    st.ip_addresses(network="fd00::/8").map(str),
)
headers = st.lists(st.one_of(addresses, ours, st.text()), max_size=5)


@given(st.one_of(st.none(), addresses), headers)
@example("127.0.0.1", ["\x00", ","])
def test_it_never_fails_and_is_an_address_or_what_came_by_itself(
    peer: str | None, said: list[str]
) -> None:
    found = sender(peer, said, US)
    if found != peer:
        assert found is not None
        ip_address(found)
        assert found in ",".join(said)
        assert is_trusted(peer, US)


@given(addresses, headers, st.lists(ours, max_size=3))
def test_what_a_sender_writes_does_not_change_who_it_is(
    real: str, forged: list[str], proxies: list[str]
) -> None:
    """However much it writes: each proxy adds at the end whom it was asked by."""
    if is_trusted(real, US):
        return
    chain = [real, *proxies]
    assert sender("127.0.0.1", [*forged, ", ".join(chain)], US) == real


# -- and over what ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "said", "is_clear"),
    [
        ("127.0.0.1", ["http"], True),
        ("127.0.0.1", ["HTTP"], True),
        ("127.0.0.1", ["https"], False),
        ("127.0.0.1", ["https, http"], True),
        ("127.0.0.1", ["http, https"], False),
        ("127.0.0.1", ["http", "https"], False),
        ("127.0.0.1", [" http "], True),
        ("127.0.0.1", [], False),
        ("127.0.0.1", [""], False),
        ("127.0.0.1", ["httpx"], False),
        ("192.0.2.1", ["http"], False),
        (None, ["http"], False),
    ],
)
def test_only_a_proxy_of_ours_says_what_it_was_asked_over(
    peer: str | None, said: list[str], is_clear: bool
) -> None:
    assert came_in_the_clear(peer, said, US) is is_clear


@given(st.one_of(st.none(), addresses), st.lists(st.text(), max_size=3))
def test_no_protocol_that_is_said_makes_it_fail(peer: str | None, said: list[str]) -> None:
    came_in_the_clear(peer, said, US)
