"""What the receiver is attacked with, by name."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import replace

from ..hello import client_hello
from .engine import BLOCK, Attack
from .keys import STOLEN, TELL_TALE, key_of, request_of, target_of, wrong_key

HOST = "Host: hooks.example.com\r\n"
HEAD = f"GET /af10/{wrong_key(1)}?id=x HTTP/1.1\r\n{HOST}"
BATCH = 16
"""Requests that are sent at once."""
LONG_BATCH = 200
GARBAGE = random.Random(2026).randbytes(BLOCK)
"""Odd, and the same in each run."""
SMUGGLED = request_of(key_of(TELL_TALE)).decode()
STOLEN_KEY = key_of(STOLEN)


def _wrong_keys(count: int, number: int) -> bytes:
    return _made_wrong_keys(count, number % 500)


@functools.cache
def _made_wrong_keys(count: int, number: int) -> bytes:
    """Made once: the attacker's time is better spent on sending."""
    start = number * count
    return b"".join(request_of(wrong_key(start + each)) for each in range(count))


CLIENT_HELLO = client_hello()


def _shape(headers: str, body: str, line: str = "GET") -> bytes:
    """A message whose first request is good: what ends the connection must be its shape."""
    path = f"{line} {target_of(STOLEN_KEY)} HTTP/1.1\r\n"
    return f"{path}{HOST}{headers}\r\n{body}".encode("latin-1")


def _shapes() -> tuple[bytes, ...]:
    """Messages of which two readers may differ on where they end, and a genuine one behind each."""
    length = f"Content-Length: {len(SMUGGLED)}\r\n"
    chunked = "Transfer-Encoding: chunked\r\n"
    behind = f"0\r\n\r\n{SMUGGLED}"
    return (
        _shape(f"Content-Length: 5\r\n{chunked}", behind),
        _shape(f"{chunked}Content-Length: 5\r\n", behind),
        _shape(f"Content-Length: 0\r\n{length}", SMUGGLED),
        _shape(f"Content-Length: 0, {len(SMUGGLED)}\r\n", SMUGGLED),
        _shape(f"Content-Length: +{len(SMUGGLED)}\r\n", SMUGGLED),
        _shape("Content-Length: -1\r\n", SMUGGLED),
        _shape(f"Content-Length : {len(SMUGGLED)}\r\n", SMUGGLED),
        _shape("Transfer-Encoding: xchunked\r\n", behind),
        _shape("Transfer-Encoding: chunked, identity\r\n", behind),
        _shape("Transfer-Encoding: \x0bchunked\r\n", behind),
        _shape("Transfer-Encoding\t: chunked\r\n", behind),
        _shape("X: y\r\n Transfer-Encoding: chunked\r\n", behind),
        _shape("X: y\n" + chunked, behind),
        _shape("X: y\rTransfer-Encoding: chunked\r\n", behind),
        _shape(chunked, f'5;x="\r\n{SMUGGLED}'),
        _shape(chunked, f"5;{'x' * 300}\r\nabcde\r\n0\r\n\r\n{SMUGGLED}"),
        _shape(chunked, f"0x5\r\nabcde\r\n{behind}"),
        _shape(chunked, f"ffffffffffffffff1\r\n{SMUGGLED}"),
        _shape(chunked, f"5\nabcde\n0\n\n{SMUGGLED}"),
        _shape(chunked, f"0\r\n{SMUGGLED}"),
        _shape("Expect: 100-continue\r\n" + length, SMUGGLED),
        _shape("\x00: x\r\n" + length, SMUGGLED),
        _shape(f"\r\n{length}", SMUGGLED, "GET  "),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED.encode(),
    )


SHAPES = _shapes()


def _lines(number: int) -> bytes:
    return f"X-{number}: {'y' * 60}\r\n".encode() * 200


ATTACKS: tuple[Attack, ...] = (
    Attack("half-lines", "1,500 half request lines", lambda _: b"GET /af10/", connections=1500),
    Attack("half-headers", "1,500 heads without an end", lambda _: HEAD.encode(), connections=1500),
    Attack(
        "drip",
        "1,500 heads, a byte each second",
        lambda _: HEAD.encode() + b"X: ",
        drip=b"y",
        connections=1500,
    ),
    Attack(
        "endless-headers",
        "heads whose headers never end",
        lambda number: HEAD.encode() + _lines(number) * 20,
        then="again",
    ),
    Attack(
        "endless-target",
        "a target that never ends",
        lambda _: b"GET /af10/" + b"a" * BLOCK,
        then="again",
    ),
    Attack(
        "huge-query",
        "queries of 4 to 32 KiB",
        lambda number: request_of(wrong_key(number), "x" * (3900 + number % 8 * 4096)),
        requests=1,
    ),
    Attack("idle", "5,000 connections that say nothing", connections=5000),
    Attack(
        "idle-few-files",
        "the same, and 1,024 descriptors",
        connections=5000,
        files=1024,
    ),
    Attack(
        "idle-tls",
        "2,000 that say nothing after a TLS handshake",
        connections=2000,
        port="tls",
        shakes_hands=True,
    ),
    Attack(
        "pipelining",
        f"{LONG_BATCH} wrong keys at once, answers unread",
        lambda number: _wrong_keys(LONG_BATCH, number),
        requests=LONG_BATCH,
        then="again",
        reads=False,
    ),
    Attack(
        "pipelining-stolen",
        f"{LONG_BATCH} times a genuine URL at once, again and again",
        lambda _: request_of(STOLEN_KEY) * LONG_BATCH,
        requests=LONG_BATCH,
        then="again",
    ),
    Attack(
        "pipelining-unread",
        "the same, answers unread",
        lambda _: request_of(STOLEN_KEY) * LONG_BATCH,
        requests=LONG_BATCH,
        then="again",
        reads=False,
    ),
    Attack(
        "smuggling",
        f"{len(SHAPES)} shapes of smuggling",
        lambda number: SHAPES[number % len(SHAPES)],
        requests=1,
    ),
    Attack(
        "wrong-keys",
        f"wrong keys, {BATCH} a connection",
        lambda number: _wrong_keys(BATCH, number),
        requests=BATCH,
    ),
    Attack(
        "wrong-keys-single",
        "wrong keys, a connection for each",
        lambda number: _wrong_keys(1, number),
        requests=1,
    ),
    Attack(
        "wrong-ids",
        f"a genuine URL with wrong ids, {BATCH} a connection",
        lambda _: request_of(STOLEN_KEY, "%0d%0a") * BATCH,
        requests=BATCH,
    ),
    Attack(
        "bodies",
        "1,500 bodies announced and never sent",
        lambda number: _body(number),
        requests=1,
        connections=1500,
    ),
    Attack(
        "bodies-sent",
        "bodies without an end",
        lambda _: _shape("Content-Length: 1073741824\r\n", "x" * BLOCK, "POST"),
        requests=1,
        then="again",
    ),
    Attack(
        "client-hello",
        "1,500 TLS handshakes stop after ClientHello",
        lambda _: CLIENT_HELLO,
        connections=1500,
        port="tls",
    ),
    Attack("tls-nothing", "1,500 begin no handshake", connections=1500, port="tls"),
    Attack("tls-half-hello", "1,500 halves of a ClientHello", lambda _: CLIENT_HELLO[:99],
        connections=1500, port="tls"),
    Attack(
        "tls-garbage",
        "no TLS at all on the TLS port",
        lambda number: GARBAGE[number % 1000 :][:4096],
        port="tls",
    ),
    Attack(
        "tls-handshakes",
        "whole handshakes, and gone",
        then="close",
        port="tls",
        shakes_hands=True,
    ),
    Attack("reset", "connect and reset", then="reset"),
    Attack("reset-tls", "connect to the TLS port and reset", then="reset", port="tls"),
)  # fmt: skip


def _body(number: int) -> bytes:
    kinds: Sequence[str] = (
        "Content-Length: 1073741824\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 10\r\nExpect: 100-continue\r\n",
    )
    return _shape(kinds[number % 3], "", ("GET", "POST")[number % 2])


BY_NAME = {attack.name: attack for attack in ATTACKS}


def small(attack: Attack, connections: int) -> Attack:
    """The same with fewer connections."""
    return replace(attack, connections=min(attack.connections, connections))
