"""The callback server, when anybody at all calls it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import ssl
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from af10_async.callback_server import Orphan
from af10_async.protocol.callbacks import MAX_TARGET_LENGTH
from af10_async.protocol.keys import make_key

from .conftest import (
    ID,
    OTHER_ID,
    PUBLIC_URL,
    Certificate,
    Run,
    key_of,
    known,
    nothing,
    request,
    running,
    talk,
)
from .servers import AIOHTTP, ALONE, LITESTAR, MOUNTED_AT, ON_UVICORN, Kind, Served

HERE = f"{MOUNTED_AT}/af10"
GOOD = f"{HERE}/{key_of()}?id={ID}"
SECOND = f"{HERE}/{key_of(2)}?id={OTHER_ID}"


async def still_serves(server: Served, tls: ssl.SSLContext | None = None) -> bool:
    """Whether a genuine callback gets through."""
    answer = await talk(server.port, request(f"{HERE}/{key_of(9)}?id={ID}"), tls)
    return answer.statuses == [200]


# -- what is not a callback ------------------------------------------------------------------------


NOT_OURS = [
    "/",
    "/af10",
    "/af10/",
    "/af10/guessed",
    f"/af10/{make_key(bytes(18), b'another secret of some length')}",
    f"/af10/{key_of()[:-1]}A",
    f"/af10/{key_of().swapcase()}",
    f"/af10/{key_of()}/more",
    f"/af10//{key_of()}",
    f"/af10/%25{ord(key_of()[0]):02x}{key_of()[1:]}",
    f"/af10/x%2f..%2f{key_of()}",
    f"/AF10/{key_of()}",
    f"/elsewhere/{key_of()}",
    f"/af10/../af10/{key_of()}",
    "/" + "a" * 4000,
]
AS_ONE_SLASH = f"/af10//{key_of()}"
"""What Litestar takes for the address with one slash less."""


async def test_a_key_that_is_not_ours_is_404_with_a_constant_body_and_nothing_stored(
    server: Served, kind: Kind
) -> None:
    orphans: list[Orphan] = []
    server.attach(nothing, orphans.append)

    for path in NOT_OURS:
        if kind is LITESTAR and path == AS_ONE_SLASH:
            continue
        answer = await talk(server.port, request(f"{MOUNTED_AT}{path}?id={ID}"))
        assert (path, answer.status, answer.body) == (path, 404, b"Not Found")
        assert "cache-control: no-store" in answer.head
        made_up = path.rpartition("/")[2]
        assert made_up == key_of() or await server.store.get(made_up) is None

    assert await known(server.store, key_of()) == ()
    stored = [record.key async for record in server.store.unfinished("an account")]
    assert stored == [key_of()]
    assert orphans == []


async def test_only_get_is_allowed(server: Served) -> None:
    for method in ("HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH", "TRACE"):
        answer = await talk(server.port, request(GOOD, method=method))

        assert (method, answer.status) == (method, 405)
        assert "allow: get" in answer.head
        assert "cache-control: no-store" in answer.head
    assert await known(server.store, key_of()) == ()


async def test_asterisk_and_authority_targets_are_turned_away_like_any_other(
    server: Served, kind: Kind
) -> None:
    """Frameworks find nothing mounted there, and say so themselves."""
    turned_away = (400, 405) if kind is ALONE else (400, 404, 405)
    for line in ("OPTIONS *", "CONNECT evil.example:443"):
        data = f"{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        answer = await talk(server.port, data)
        assert answer.status in turned_away
        assert kind is AIOHTTP or "aiohttp" not in answer.head


NO_SECRETS = [
    "",
    "?",
    "?id",
    "?id=",
    "?ID=" + ID,
    f"?id={ID}&id={OTHER_ID}",
    f"?id={ID}&id=",
    "?id=" + "a" * 129,
    "?id=" + "a" * 3900,
    "?id=" + "a" * 8192,
    f"?id={ID}%0d%0aX:%20y",
    f"?id={ID}%0a",
    f"?id={ID}%00",
    f"?id={ID}\x00",
    "?id=%ff%fe",
    "?id=%ef%bc%91%ef%bc%92",
    "?id=\uff11\uff12",
    f"?id=%7b{ID}%7d",
    f"?id={{{ID}}}",
    f"?id=urn:uuid:{ID}",
    f"?id={ID}+",
    f"?id=%20{ID}",
    "?id=../../x",
    "?id=\udcff",
]


async def test_an_id_that_no_secret_looks_like_is_400_and_nothing_is_kept(
    server: Served, kind: Kind
) -> None:
    """An address that is too long is nobody's where uvicorn has let it through."""
    for query in NO_SECRETS:
        too_long = len(query) > MAX_TARGET_LENGTH and kind in ON_UVICORN
        answer = await talk(server.port, request(f"{HERE}/{key_of()}{query}"))
        assert (query, answer.status) == (query, 404 if too_long else 400)
    assert await known(server.store, key_of()) == ()


def test_no_text_at_all_as_an_id_makes_the_server_fail() -> None:
    """Whatever is sent as an id, percent-encoded or not, the answer is 200 or 400."""
    with asyncio.Runner() as runner:
        context = running()
        server = runner.run(context.__aenter__())
        numbers = itertools.count(100)  # one job has no room for many ids
        try:

            @settings(max_examples=60, deadline=None)
            @given(text=st.text(max_size=40), encoded=st.booleans())
            def check(text: str, encoded: bool) -> None:
                if not encoded:
                    text = "".join(text.split()).replace("\x00", "")
                sent = quote(text, safe="") if encoded else text
                data = request(f"{HERE}/{key_of(next(numbers))}?id={sent}")
                assert runner.run(talk(server.port, data)).status in (200, 400)

            check()
        finally:
            runner.run(context.__aexit__(None, None, None))


# -- bodies ----------------------------------------------------------------------------------------


async def test_a_get_with_a_small_body_is_kept_but_its_connection_closes(
    server: Served,
) -> None:
    data = f"GET {GOOD} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello".encode()

    answer = await talk(server.port, data)

    assert answer.status == 200
    assert "connection: close" in answer.head
    assert await known(server.store, key_of()) == (ID,)


async def test_a_gigabyte_that_is_announced_is_not_waited_for(server: Served) -> None:
    data = f"GET {GOOD} HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n{'x' * 70000}"

    answer = await talk(server.port, data.encode())

    assert answer.status == 200
    assert "connection: close" in answer.head


@pytest.mark.parametrize("expectation", ["100-continue", "something else"])
async def test_nobody_is_told_to_go_on_and_send_a_body(server: Served, expectation: str) -> None:
    data = (
        f"GET {GOOD} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nExpect: {expectation}\r\n\r\n"
    )

    answer = await talk(server.port, data.encode())

    assert answer.status == 200
    assert b"100 Continue" not in answer.raw
    assert await known(server.store, key_of()) == (ID,)


async def test_an_endless_chunked_body_is_not_read(server: Served) -> None:
    data = f"GET {GOOD} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\nabc"

    answer = await talk(server.port, data.encode())

    assert answer.status == 200
    assert "connection: close" in answer.head


# -- smuggling -------------------------------------------------------------------------------------

FOLDED = "\r\n "
HIDDEN = f"GET {SECOND} HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        f"Content-Length: {len(HIDDEN)}\r\nTransfer-Encoding: chunked\r\n",
        f"Transfer-Encoding: chunked\r\nContent-Length: {len(HIDDEN)}\r\n",
        f"Content-Length: 0\r\nContent-Length: {len(HIDDEN)}\r\n",
        f"Content-Length: {len(HIDDEN)}, 0\r\n",
        f"Content-Length: +{len(HIDDEN)}\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x10\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        f"X: y{FOLDED}Transfer-Encoding: chunked\r\n",
        f"X: y\nContent-Length: {len(HIDDEN)}\r\n",
        f"X: y\rContent-Length: {len(HIDDEN)}\r\n",
        f"X\x00: y\r\nContent-Length: {len(HIDDEN)}\r\n",
        f"Content-Length: {len(HIDDEN)}\r\n",
        "Transfer-Encoding: chunked\r\n",
    ],
    ids=range(16),
)
async def test_a_request_hidden_behind_another_is_never_run(
    run: Run, kind: Kind, headers: str
) -> None:
    """Both are answered with at most one 200, and the hidden one leaves no trace."""
    if kind.host == "h11" and FOLDED in headers:
        return  # it takes the folded line for the end of `X`, and then nothing is hidden
    async with run() as server:
        data = f"GET {GOOD} HTTP/1.1\r\nHost: x\r\n{headers}\r\n{HIDDEN}".encode()

        answer = await talk(server.port, data)

        assert answer.status in (200, 400)
        assert await known(server.store, key_of(2)) == ()
        assert await still_serves(server)


async def test_chunk_extensions_and_bad_chunks_run_nothing_more(run: Run) -> None:
    async with run() as server:
        for chunk in ("0;a=b\r\n\r\n", "5\nhello\r\n0\r\n\r\n", "zz\r\n", "0\r\nX: y\r\n\r\n"):
            data = f"GET {GOOD} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
            await talk(server.port, (data + HIDDEN).encode())
        assert await known(server.store, key_of(2)) == ()


async def test_a_line_folded_or_ended_by_a_bare_lf_is_not_a_second_header(
    run: Run, kind: Kind
) -> None:
    """Most refuse it; h11 reads it as RFC 9112 allows: a folded line belongs to the one before."""
    is_read = kind.host == "h11"
    async with run() as server:
        for data in (
            f"GET {GOOD} HTTP/1.1\r\nHost: x\r\nX: y\r\n folded\r\nConnection: close\r\n\r\n",
            f"GET {GOOD} HTTP/1.1\nHost: x\nConnection: close\n\n",
        ):
            answer = await talk(server.port, data.encode())
            assert answer.status == (200 if is_read else 400)
        assert await known(server.store, key_of()) == ((ID,) if is_read else ())


# -- what decides nothing --------------------------------------------------------------------------


async def test_an_absolute_form_target_is_not_a_callback(server: Served, kind: Kind) -> None:
    """Only uvicorn with httptools takes it for the path in it, as RFC 9112 has it for proxies."""
    is_read = kind.host == "httptools"
    for host in ("http://evil.example", "https://hooks.example.com"):
        answer = await talk(server.port, request(f"{host}{GOOD}"))
        assert answer.status == (200 if is_read else 404)
        assert b"evil" not in answer.raw
    assert await known(server.store, key_of()) == ((ID,) if is_read else ())


async def test_spoofed_headers_and_hosts_change_nothing(server: Served) -> None:
    spoofed = (
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Prefix: /af10",
        "X-HTTP-Method-Override: GET",
        "X-Original-URL: " + GOOD,
        "Forwarded: for=127.0.0.1;host=evil.example",
    )
    good = await talk(server.port, request(GOOD, *spoofed))
    bad = await talk(server.port, request(GOOD.replace("/af10/", "/"), *spoofed))
    post = await talk(server.port, request(GOOD, *spoofed, method="POST"))
    for host in ("evil.example", "", "a b", "x\r\nHost: y"):
        data = f"GET {SECOND} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        answer = await talk(server.port, data)
        assert answer.status in (200, 400)
        assert b"evil" not in answer.raw

    assert (good.status, bad.status, post.status) == (200, 404, 405)
    assert server.public_url == PUBLIC_URL


# -- the wrong protocol ----------------------------------------------------------------------------


async def test_a_tls_client_on_the_plain_port_does_no_harm(certificate: Certificate) -> None:
    async with running() as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await talk(server.port, request(GOOD), certificate.client)
        assert await still_serves(server)


async def test_a_plain_client_on_the_tls_port_does_no_harm(certificate: Certificate) -> None:
    async with running(tls_cert=certificate.cert, tls_key=certificate.key) as server:
        answer = await talk(server.port, request(GOOD))
        assert 200 not in answer.statuses
        assert await known(server.store, key_of()) == ()
        assert await still_serves(server, certificate.client)


async def test_a_client_that_does_not_trust_the_certificate_does_no_harm(
    certificate: Certificate,
) -> None:
    async with running(tls_cert=certificate.cert, tls_key=certificate.key) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await talk(server.port, request(GOOD), ssl.create_default_context())
        assert await still_serves(server, certificate.client)


@pytest.mark.usefixtures("quick_keep_alive")
@pytest.mark.parametrize("sent", ["", "GET /af", f"GET {GOOD} HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_whoever_does_not_finish_its_headers_is_cut_off(sent: str) -> None:
    async with running() as server:
        answer = await talk(server.port, sent.encode())
        assert answer.raw == b""
        assert await known(server.store, key_of()) == ()
        assert await still_serves(server)


@pytest.mark.usefixtures("quick_keep_alive")
async def test_many_slow_clients_do_not_keep_a_genuine_one_waiting() -> None:
    async with running() as server:
        slow = [asyncio.create_task(talk(server.port, b"GET /slow")) for _ in range(100)]
        await asyncio.sleep(0)
        assert await still_serves(server)
        assert {answer.raw for answer in await asyncio.gather(*slow)} == {b""}


# -- what is said ----------------------------------------------------------------------------------


async def test_a_flood_of_malformed_requests_logs_no_traceback_and_no_input(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with running() as server:
        for _ in range(50):
            for data in (b"\x16\x03\x01 attack\r\n\r\n", b"GET attack HTTP/1.1\r\nattack\r\n\r\n"):
                await talk(server.port, data)
        assert await still_serves(server)
    assert not [record for record in caplog.records if record.exc_info]
    ours = [record for record in caplog.records if record.name != "asyncio"]
    assert not [record for record in ours if "attack" in record.getMessage()]
    flood = [record for record in ours if "malformed" in record.getMessage()]
    assert {record.levelno for record in flood} <= {logging.DEBUG}


READABLE = [
    request(GOOD),
    request("/"),
    request(GOOD, method="POST"),
    request(f"{HERE}/{key_of()}"),
]
UNREADABLE = [
    b"attack\r\n\r\n",
    b"GET / HTTP/1.1\r\nattack attack\r\n\r\n",
    b"GET /" + b"attack" * 2000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"attack" * 2000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: attack\r\n" * 200 + b"\r\n",
]


@pytest.mark.parametrize("data", [*READABLE, *UNREADABLE], ids=range(9))
async def test_no_answer_shows_versions_or_repeats_what_was_sent(data: bytes) -> None:
    async with running() as server:
        answer = await talk(server.port, data)
    assert answer.status in (200, 400, 404, 405)
    assert "server: af10_async\r\n" in answer.head + "\r\n"
    assert b"attack" not in answer.raw
    assert b"/3." not in answer.raw
    assert len(answer.body) < 30


async def test_no_answer_of_ours_shows_versions_wherever_it_is_mounted(server: Served) -> None:
    for path in ("", "/other"):
        for method in ("GET", "POST"):
            data = request(GOOD.replace("?", f"{path}?"), method=method)
            answer = await talk(server.port, data)
            assert answer.status in (200, 404, 405)
            assert re.search(r"server: (af10_async|uvicorn)\r\n", answer.head + "\r\n")
            assert b"/3." not in answer.raw
