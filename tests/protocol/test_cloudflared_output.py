"""What lines of cloudflared's output mean, as versions since 2021 print them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from af10_async.protocol.cloudflared import (
    LONGEST_LINE,
    LONGEST_TEXT,
    Address,
    Connected,
    Event,
    Heard,
    LineSplitter,
    Other,
    RemoteRules,
    Rule,
    Trouble,
    advice,
    misled_to,
    presentable,
    read,
)

TIME = "2026-02-28T18:46:31Z"
QUICK = Address("https://buffalo-marco-cardiff-motel.trycloudflare.com")
RULES = RemoteRules(
    (Rule("af10.example.com", "http://localhost:8443"), Rule("", "http_status:404"))
)
CONFIG = json.dumps(
    {
        "ingress": [
            {
                "hostname": "af10.example.com",
                "originRequest": {"noTLSVerify": True},
                "service": "http://localhost:8443",
            },
            {"service": "http_status:404"},
        ],
        "warp-routing": {"enabled": False},
    }
)
IN_TEXT = f"{TIME} INF Updated to new configuration config={json.dumps(CONFIG)} version=8"
IN_JSON = json.dumps(
    {"config": CONFIG, "level": "info", "message": "Updated to new configuration", "version": 1}
)


@pytest.mark.parametrize(
    ("line", "event"),
    [
        # The box of a quick tunnel, in text, JSON, colours, and without a log's beginning.
        (f"{TIME} INF |  {QUICK.url}                                     |", QUICK),
        (f"{TIME} INF |  {QUICK.url}  |\r", QUICK),
        (f'{{"level":"info","time":"{TIME}","message":"|  {QUICK.url}  |"}}', QUICK),
        (f"\x1b[90m{TIME}\x1b[0m \x1b[32mINF\x1b[0m |  {QUICK.url}  |", QUICK),
        (f"|  {QUICK.url}  |", QUICK),
        (f"{TIME} INF Your quick Tunnel has been created! Visit it at {QUICK.url}", QUICK),
        # Other addresses are not ours.
        (f"{TIME} INF Requesting new quick Tunnel on trycloudflare.com...", Other()),
        (f"{TIME} INF |  https://api.trycloudflare.com  |", Other()),
        (f"{TIME} INF |  {QUICK.url}.evil.example  |", Other()),
        (f"{TIME} INF |  {QUICK.url}@evil.example  |", Other()),
        (f"{TIME} INF |  {QUICK.url}:8443  |", Other()),
        (f"{TIME} INF |  http://plain.trycloudflare.com  |", Other()),
        (f"{TIME} INF +---------------------------------+", Other()),
        (
            f"{TIME} INF Thank you for trying Cloudflare Tunnel. Doing so, without a Cloudflare "
            "account, is a quick way to experiment and try it out. (https://www.cloudflare.com/"
            "website-terms/)",
            Other(),
        ),
        # A connection, as said since 2022 and before, and as JSON.
        (
            f"{TIME} INF Registered tunnel connection connIndex=3 connection=52b585bc-858c-432a-b7"
            "24-90993c84cc10 event=0 ip=198.41.219.4 location=mia01 protocol=http2",
            Connected(),
        ),
        (
            "2022-06-01T16:23:12Z INF Connection c206cf44-945f-4c3c-a85c-af60c6338dc2 registered "
            "connIndex=0 location=ORD",
            Connected(),
        ),
        (
            '{"level":"info","connIndex":0,"location":"ams08","protocol":"quic",'
            f'"time":"{TIME}","message":"Registered tunnel connection"}}',
            Connected(),
        ),
        (f"{TIME} INF Unregistered tunnel connection connIndex=2 event=0", Other()),
        (f"{TIME} INF Retrying connection in up to 1m4s connIndex=0 ip=198.41.192.77", Other()),
        (f"{TIME} INF Starting tunnel tunnelID=dd3d43a3-2923-40b9-ab88-9d538025aad9", Other()),
        (f"{TIME} INF Initial protocol quic", Other()),
        (f"{TIME} WRN The user running cloudflared process has a GID that is off", Other()),
        # The rules at Cloudflare.
        (IN_TEXT, RULES),
        (IN_JSON, RULES),
        (f'{TIME} INF Updated to new configuration config="null" version=1', Other()),
        (f'{TIME} INF Updated to new configuration config="{{}}" version=1', Other()),
        (f'{TIME} INF Updated to new configuration config="{{\\"ingress\\":[1]}}"', Other()),
        (f"{TIME} INF Updated to new configuration config=[...] version=2", Other()),
        (f"{TIME} INF Updated to new configuration", Other()),
        # Errors.
        (
            f'{TIME} ERR Register tunnel error from server side error="Unauthorized: Failed to get '
            'tunnel" connIndex=0 event=0 ip=198.41.192.77',
            Trouble(
                'Register tunnel error from server side error="Unauthorized: Failed to get '
                'tunnel" connIndex=0 event=0 ip=198.41.192.77',
                True,
            ),
        ),
        (
            f'{TIME} ERR  error="Unable to reach the origin service" connIndex=0',
            Trouble(' error="Unable to reach the origin service" connIndex=0', True),
        ),
        (
            '{"level":"error","error":"invalid character","status_code":"429 Too Many Requests",'
            '"message":"Error unmarshaling QuickTunnel response: error code: 1015"}',
            Trouble(
                "Error unmarshaling QuickTunnel response: error code: 1015: invalid character: "
                "429 Too Many Requests",
                True,
            ),
        ),
        (
            "Provided Tunnel token is not valid.",
            Trouble("Provided Tunnel token is not valid.", False),
        ),
        ("See 'cloudflared tunnel run --help'.", Other()),
        (
            'failed to request quick Tunnel: Post "https://api.trycloudflare.com/tunnel": dial '
            "tcp: lookup api.trycloudflare.com on 127.0.0.11:53: no such host",
            Trouble(
                'failed to request quick Tunnel: Post "https://api.trycloudflare.com/tunnel": dial '
                "tcp: lookup api.trycloudflare.com on 127.0.0.11:53: no such host",
                False,
            ),
        ),
        (
            "Incorrect Usage: flag provided but not defined: -loglevel",
            Trouble("Incorrect Usage: flag provided but not defined: -loglevel", True),
        ),
        # Errors that are none, with our arguments.
        (f"{TIME} ERR Configuration file /dev/null was empty", Other()),
        (
            f"{TIME} ERR Cannot determine default origin certificate path. No file cert.pem in "
            "[~/.cloudflared]. You need to specify the origin certificate path",
            Other(),
        ),
        # Not understood.
        ("", Other()),
        ("   ", Other()),
        ("{half an object", Trouble("{half an object", False)),
        ('{"level": 7, "message": null}', Other()),
        ("{" + '"a":{' * 100_000, Trouble("{" + '"a":{' * 100_000, False)),
    ],
)
def test_each_line_has_its_meaning(line: str, event: Event) -> None:
    assert read(line) == event


@given(st.text())
def test_any_text_means_something(line: str) -> None:
    read(line)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_configuration_means_something(config: object) -> None:
    line = {"message": "Updated to new configuration", "config": config}
    read(json.dumps(line))
    read(json.dumps({**line, "config": {"ingress": config}}))
    read(f"{TIME} INF Updated to new configuration config={json.dumps(json.dumps(config))}")


# -- a run -----------------------------------------------------------------------------------------


def heard(*lines: str) -> Heard:
    found = Heard()
    for line in lines:
        found = found.with_event(read(line))
    return found


BOX = f"{TIME} INF |  {QUICK.url}  |"
REGISTERED = f"{TIME} INF Registered tunnel connection connIndex=0"


def test_an_address_counts_once_a_connection_is_registered() -> None:
    assert not heard(BOX).is_ready
    assert not heard(REGISTERED).is_ready
    assert heard(BOX, REGISTERED).is_ready
    assert heard(REGISTERED, BOX).url == QUICK.url


def test_an_address_that_is_known_stays() -> None:
    other = "https://some-other-name.trycloudflare.com"
    assert heard(BOX, f"{TIME} INF |  {other}  |").url == QUICK.url
    assert Heard("https://af10.example.com").with_event(QUICK).url == "https://af10.example.com"


LIMITED = (
    f'{TIME} ERR Error unmarshaling QuickTunnel response: error code: 1015 error="invalid '
    'character \'e\' looking for beginning of value" status_code="429 Too Many Requests"',
    "failed to unmarshal quick Tunnel: invalid character 'e' looking for beginning of value",
)


def test_an_error_that_is_marked_tells_more_than_a_line_that_is_not() -> None:
    found = heard("some banner", *LIMITED)
    assert found.trouble is not None
    assert found.trouble.text.startswith("Error unmarshaling QuickTunnel response")
    last = heard("one line", "another line").trouble
    assert last == Trouble("another line", False)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (LIMITED, "wait some minutes"),
        (("Provided Tunnel token is not valid.", "See 'cloudflared --help'."), "TUNNEL_TOKEN"),
        (
            (f'{TIME} ERR Register tunnel error from server side error="Unauthorized: Invalid"',),
            "that the tunnel exists",
        ),
        (
            (
                "You can't set the --url flag (or $TUNNEL_URL) when using multiple-origin "
                "ingress rules",
            ),
            "config.yml",
        ),
        ((f'{TIME} ERR Failed to dial a quic connection error="timeout" connIndex=0',), "7844"),
        (("Incorrect Usage: flag provided but not defined: -x", "NAME:"), "update cloudflared"),
        ((), "by hand"),
    ],
)
def test_each_usual_error_comes_with_what_to_do(lines: tuple[str, ...], words: str) -> None:
    assert words in advice(heard(*lines))


def test_nothing_secret_is_presented() -> None:
    token = "eyJhIjoiMTIzNDU2Nzg5MCIsInQiOiJhYmMiLCJzIjoic2VjcmV0LXNlY3JldC1zZWNyZXQifQ=="
    text = (
        "Request failed dest=https://af10.example.com/key?id=8c4f7a4e-1111-4222-8333-444455556666 "
        f"token=short-one other={token}"
    )
    shown = presentable(text, ["short-one", ""])
    assert shown == "Request failed dest=[url] token=[redacted] other=[redacted]"


def test_what_is_presented_is_one_short_line() -> None:
    shown = presentable("two\nlines\x1b[2J " + "and so on " * 100, [])
    assert len(shown) == LONGEST_TEXT
    assert shown.isprintable()


# -- rules -----------------------------------------------------------------------------------------


def rules(*pairs: tuple[str, str]) -> list[Rule]:
    return [Rule(*pair) for pair in pairs]


@pytest.mark.parametrize(
    ("given_rules", "misled"),
    [
        (rules(("af10.example.com", "http://localhost:8443")), None),
        (rules(("AF10.example.com", "https://127.0.0.1:8443/")), None),
        (rules(("*.example.com", "http://host.docker.internal:8443")), None),
        (rules(("*", "http://localhost:8443")), None),
        (rules(("af10.example.com", "http://localhost:80"), ("", "https://[::1]:8443")), None),
        (rules(("af10.example.com", "http://localhost:8080")), ["http://localhost:8080"]),
        (rules(("af10.example.com", "http://nginx")), ["http://nginx"]),
        (rules(("af10.example.com", "http://localhost:99999")), ["http://localhost:99999"]),
        (rules(("af10.example.com", "http://me:pw@localhost:80/x")), ["http://localhost:80"]),
        (rules(("other.example.com", "http://localhost:8443")), []),
        (
            rules(("other.example.com", "http://localhost:8443"), ("", "http_status:404")),
            ["http_status:404"],
        ),
    ],
)
def test_rules_that_lead_elsewhere_are_seen(
    given_rules: list[Rule], misled: list[str] | None
) -> None:
    assert misled_to(given_rules, "af10.example.com", 8443) == misled


def test_a_default_port_is_a_port() -> None:
    assert misled_to(rules(("", "https://localhost")), "a.example.com", 443) is None
    assert misled_to(rules(("", "http://localhost")), "a.example.com", 80) is None


# -- lines -----------------------------------------------------------------------------------------


@given(
    st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))), st.data()
)
def test_lines_are_the_same_however_they_arrive(lines: list[str], data: st.DataObject) -> None:
    whole = "".join(f"{line}\n" for line in lines).encode()
    splitter = LineSplitter()
    found = []
    while whole:
        size = data.draw(st.integers(1, len(whole)))
        found += splitter.feed(whole[:size])
        whole = whole[size:]
    assert found + splitter.feed(b"") == lines


def test_a_last_line_needs_no_end() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"one\ntw") == ["one"]
    assert splitter.feed(b"") == ["tw"]
    assert splitter.feed(b"") == []


def test_the_rest_of_an_endless_line_is_dropped() -> None:
    splitter = LineSplitter()
    for _ in range(10):
        assert splitter.feed(b"x" * LONGEST_LINE) == []
    assert splitter.feed(b"x\nnext\n") == ["x" * LONGEST_LINE, "next"]
