"""Decisions about what ngrok says, by tables."""

from __future__ import annotations

import pytest

from af10_async.protocol.ngrok import (
    MAX_REASON,
    Target,
    addresses_to,
    advice,
    chosen,
    definition,
    error_code,
    https_address,
    leads_to,
    reason,
    refusal,
)

PLAIN = Target("127.0.0.1", 8443, is_tls=False)
TLS = Target("127.0.0.1", 8443, is_tls=True)
ELSEWHERE = Target("192.0.2.7", 8443, is_tls=False)


@pytest.mark.parametrize(
    ("addr", "target", "expected"),
    [
        ("http://localhost:8443", PLAIN, True),
        ("http://127.0.0.1:8443", PLAIN, True),
        ("http://127.0.0.2:8443/", PLAIN, True),
        ("http://[::1]:8443", PLAIN, True),
        ("HTTP://LOCALHOST:8443", PLAIN, True),
        ("localhost:8443", PLAIN, True),
        ("8443", PLAIN, True),
        (8443, PLAIN, True),
        ("https://127.0.0.1:8443", TLS, True),
        ("https://localhost:8443", TLS, True),
        ("http://localhost", Target("127.0.0.1", 80, is_tls=False), True),
        ("https://localhost", Target("127.0.0.1", 443, is_tls=True), True),
        ("http://192.0.2.7:8443", ELSEWHERE, True),
        # Another port, machine or language.
        ("http://localhost:8444", PLAIN, False),
        ("localhost", PLAIN, False),
        ("http://192.0.2.7:8443", PLAIN, False),
        ("http://localhost:8443", ELSEWHERE, False),
        ("http://localhost.example:8443", PLAIN, False),
        ("https://localhost:8443", PLAIN, False),
        ("http://localhost:8443", TLS, False),
        ("8443", TLS, False),
        ("tcp://localhost:8443", PLAIN, False),
        ("file:///var/www", PLAIN, False),
        ("unix:/tmp/x.sock", PLAIN, False),
        # What is no address at all.
        ("", PLAIN, False),
        ("http://localhost:port", PLAIN, False),
        ("http://[::1:8443", PLAIN, False),
        ("٨٤٤٣", PLAIN, False),
        (None, PLAIN, False),
        ({}, PLAIN, False),
        (8443.0, PLAIN, False),
    ],
)
def test_a_tunnel_leads_here_by_port_machine_and_scheme(
    addr: object, target: Target, expected: bool
) -> None:
    assert leads_to(addr, target) is expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://d95211d2.ngrok.app", "https://d95211d2.ngrok.app"),
        ("https://d95211d2.ngrok.app/", "https://d95211d2.ngrok.app"),
        ("https://d95211d2.ngrok.app:8443", "https://d95211d2.ngrok.app:8443"),
        ("http://d95211d2.ngrok.app", None),
        ("tcp://1.tcp.ngrok.io:22", None),
        ("https://", None),
        ("https://user:pw@d95211d2.ngrok.app", None),
        ("https://d95211d2.ngrok.app/path", None),
        ("https://d95211d2.ngrok.app?id=1", None),
        ("https://d95211d2.ngrok.app:port", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_only_a_bare_https_address_is_public(url: object, expected: str | None) -> None:
    assert https_address(url) == expected


def entry(url: str, addr: str) -> dict[str, object]:
    return {"public_url": url, "config": {"addr": addr, "inspect": True}}


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        ({"tunnels": []}, ()),
        (
            {
                "tunnels": [
                    entry("http://a.example", "http://localhost:8443"),
                    entry("https://a.example", "http://localhost:8443"),
                    entry("https://b.example", "http://localhost:80"),
                    entry("https://c.example", "8443"),
                    entry("", "8443"),
                    {"public_url": "https://d.example"},
                    {"public_url": "https://e.example", "config": None},
                    None,
                    "https://f.example",
                ]
            },
            ("https://a.example", "https://c.example"),
        ),
        ({"tunnels": "none"}, None),
        ({"tunnels": {}}, None),
        ({}, None),
        ([], None),
        (None, None),
        ("tunnels", None),
    ],
)
def test_the_list_of_tunnels_is_read_tolerantly_and_nothing_else_is_taken_for_one(
    listing: object, expected: tuple[str, ...] | None
) -> None:
    assert addresses_to(listing, PLAIN) == expected


@pytest.mark.parametrize(
    ("addresses", "current", "expected"),
    [
        ([], None, None),
        ([], "https://a", None),
        (["https://a", "https://b"], None, "https://a"),
        (["https://a", "https://b"], "https://b", "https://b"),
        (["https://a", "https://b"], "https://c", "https://a"),
    ],
)
def test_an_address_in_use_stays_in_use(
    addresses: list[str], current: str | None, expected: str | None
) -> None:
    assert chosen(addresses, current) == expected


def test_what_is_asked_for_is_https_only_and_not_kept_for_the_agents_web_page() -> None:
    wanted = definition("name", "https://127.0.0.1:8443")
    assert wanted == {
        "name": "name",
        "proto": "http",
        "addr": "https://127.0.0.1:8443",
        "schemes": ["https"],
        "inspect": False,
    }


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {
                "error_code": 103,
                "status_code": 502,
                "msg": "failed to start tunnel",
                "details": {"err": "Too many tunnels.\nRunning:\n[x]\r\n\r\nERR_NGROK_324\r\n"},
            },
            "ERR_NGROK_324: failed to start tunnel: Too many tunnels. Running: [x]",
        ),
        (
            {"error_code": 102, "msg": "invalid tunnel configuration", "details": {"err": ""}},
            "invalid tunnel configuration",
        ),
        ({"msg": "no details"}, "no details"),
        ({"msg": "no details", "details": ["x"]}, "no details"),
        ({"msg": 7}, None),
        ({"message": "x"}, None),
        ([], None),
        (None, None),
    ],
)
def test_an_error_body_gives_code_message_and_reason(body: object, expected: str | None) -> None:
    assert refusal(body) == expected


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (
            (
                "failed to connect session",
                "The authtoken is invalid.\nYour authtoken: 2aToken",
                "ERR_NGROK_107",
            ),
            "ERR_NGROK_107: failed to connect session: The authtoken is invalid."
            " Your authtoken: [redacted]",
        ),
        (("failed to connect session", None), "failed to connect session"),
        ((), ""),
        (("see https://dashboard.ngrok.com/x?token=1 there",), "see [url] there"),
        (("x" * 500, "ERR_NGROK_1"), ("ERR_NGROK_1: " + "x" * 500)[:MAX_REASON]),
    ],
)
def test_a_reason_is_short_on_one_line_with_its_code_first_and_without_the_token(
    parts: tuple[object, ...], expected: str
) -> None:
    found = reason(parts, iter(["2aToken"]))
    assert found == expected
    assert len(found) <= MAX_REASON


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("ERR_NGROK_105: x", "ERR_NGROK_105", "check the authtoken"),
        ("ERR_NGROK_4018: x", "ERR_NGROK_4018", "check the authtoken"),
        ("ERR_NGROK_108: x", "ERR_NGROK_108", "end what else runs"),
        ("ERR_NGROK_9999: x", "ERR_NGROK_9999", "ngrok.com/docs/errors explains err_ngrok_9999"),
        ("no route", None, "connect.ngrok-agent.com:443"),
    ],
)
def test_each_reason_comes_with_what_to_do(text: str, code: str | None, hint: str) -> None:
    assert error_code(text) == code
    assert hint in advice(text)
