"""Whatever is wrong on the way here is produced for real, told apart, and said."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from af10_async.callback_server import CallbackServer
from af10_async.errors import ClosedError, ConfigurationError
from af10_async.errors import UnreachableProblem as Problem

from ..ports import free_port
from .conftest import Refused
from .tools import (
    SECRET,
    Authority,
    Talk,
    answering,
    hangs_up,
    response,
    says_for_ever,
    says_goodbye,
    says_nothing,
    serving,
)

# -- no connection ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["nothing.invalid", "a" * 64 + ".example", "a..b.example", "1.2.3.4.5"],
    ids=["unknown", "too long", "empty label", "not quite an address"],
)
async def test_a_name_without_an_address_is_told(refused: Refused, name: str) -> None:
    error = await refused(f"https://{name}")
    assert error.problem is Problem.NAME_NOT_FOUND
    assert "check its spelling and its DNS record" in str(error)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_closed_port_is_told(refused: Refused, host: str) -> None:
    """And that it may be closed for those only who are behind the same router."""
    error = await refused(f"https://{host}:{free_port()}")
    assert error.problem is Problem.CONNECTION_REFUSED
    assert "nothing listens there" in str(error)
    assert "asked from here" in str(error)
    assert error.retryable


async def test_an_address_that_no_packet_can_be_sent_to_is_told(refused: Refused) -> None:
    error = await refused(f"https://[fe80::1%25nowhere]:{free_port()}")
    assert error.problem is Problem.CONNECTION_REFUSED
    assert "cannot be connected to (" in str(error)


async def test_a_server_that_accepts_and_says_nothing_is_a_timeout(refused: Refused) -> None:
    async with serving(says_nothing) as port:
        error = await refused(f"https://127.0.0.1:{port}", timeout=0.05)
    assert error.problem is Problem.TIMEOUT
    assert "does not answer within 0.05 s" in str(error)
    assert "asked from here" in str(error)


async def test_a_server_that_does_tls_and_never_answers_is_a_timeout(
    refused: Refused, authority: Authority
) -> None:
    has_asked = asyncio.Event()

    async def ponder(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        has_asked.set()
        await says_nothing(reader, writer)

    async with serving(ponder, authority.context()) as port:
        error = await refused(f"https://127.0.0.1:{port}", timeout=0.3)
    assert has_asked.is_set()
    assert error.problem is Problem.TIMEOUT


# -- somebody else's server ------------------------------------------------------------------------

NGROK_PAGE = response(
    "404 Not Found",
    b"<!DOCTYPE html><html><body>ngrok: The endpoint is offline. ERR_NGROK_3200</body></html>",
    "Content-Type: text/html",
    "Ngrok-Error-Code: ERR_NGROK_3200",
)
OTHERS = {
    "a page": (response("200 OK", b"<html>It works!</html>"), "status 200"),
    "an empty page": (response("200 OK"), "status 200"),
    "no such page": (response("404 Not Found", b"nothing here"), "status 404"),
    "ngrok's error": (NGROK_PAGE, "status 404, ERR_NGROK_3200 of ngrok"),
    "a made-up code": (response("502 Bad Gateway", b"", "Ngrok-Error-Code: <b>"), "(status 502)"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", "status 204"),
    "compressed": (response("200 OK", b"\x1f\x8b rubbish", "Content-Encoding: gzip"), "200"),
    "a redirect": (
        response("302 Found", b"", "Location: https://login.example.com/?next=/af10"),
        "status 302, sending its callers on to login.example.com)",
    ),
    "a redirect of its own": (
        response("301 Moved Permanently", b"", "Location: /elsewhere"),
        "sending its callers on to another path",
    ),
    "a redirect to nowhere": (
        response("301 Moved Permanently", b"", "Location: https://[half"),
        "sending its callers on to an address that is none",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
async def test_somebody_elses_answer_is_told(
    refused: Refused, authority: Authority, name: str
) -> None:
    answer, said = OTHERS[name]
    async with serving(answering(answer), authority.context()) as port:
        error = await refused(f"https://127.0.0.1:{port}")
    assert error.problem is Problem.OTHER_SERVER
    assert f"somebody else's server answers at {error.url} (status {error.status}" in str(error)
    assert said in str(error)


async def test_a_redirect_that_repeats_what_was_asked_is_not_repeated_again(
    refused: Refused, authority: Authority
) -> None:
    """As servers do that send everybody on to https, or to another name."""

    async def send_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
        location = f"Location: https://www.example.com{target}"
        writer.write(response("301 Moved Permanently", target.encode(), location))
        await writer.drain()

    async with serving(send_on, authority.context()) as port:
        error = await refused(f"https://127.0.0.1:{port}")
    assert "sending its callers on to www.example.com)" in str(error)


async def test_of_a_huge_answer_only_the_beginning_is_read(
    refused: Refused, authority: Authority
) -> None:
    async with serving(says_for_ever, authority.context()) as port:
        error = await refused(f"https://127.0.0.1:{port}")
    assert error.problem is Problem.OTHER_SERVER


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"\x00" * 100,
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\ncut",
    ],
    ids=["ssh", "zeros", "no status", "endless header", "no chunk", "cut off"],
)
async def test_an_answer_that_is_not_http_is_told(
    refused: Refused, authority: Authority, answer: bytes
) -> None:
    async with serving(answering(answer), authority.context()) as port:
        error = await refused(f"https://127.0.0.1:{port}")
    assert error.problem is Problem.OTHER_SERVER
    assert error.status is None
    assert "gives an answer that is not HTTP" in str(error)


@pytest.mark.parametrize("talk", [hangs_up, says_goodbye], ids=["at once", "in good order"])
async def test_a_server_that_hangs_up_is_told(
    refused: Refused, authority: Authority, talk: Talk
) -> None:
    async with serving(talk, authority.context()) as port:
        error = await refused(f"https://127.0.0.1:{port}")
    assert error.problem is Problem.OTHER_SERVER
    assert "hangs up without an answer" in str(error)


# -- using it --------------------------------------------------------------------------------------


async def test_a_check_that_is_cancelled_leaves_nothing_behind(authority: Authority) -> None:
    has_asked = asyncio.Event()

    async def ponder(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        has_asked.set()
        await says_nothing(reader, writer)

    async with serving(ponder, authority.context()) as port:
        url = f"https://127.0.0.1:{port}"
        async with CallbackServer(public_url=url, callback_secret=SECRET) as server:
            check = asyncio.create_task(server.check_reachable(ca_file=authority.file))
            await has_asked.wait()
            check.cancel()
            with pytest.raises(asyncio.CancelledError):
                await check


async def test_a_server_that_is_not_running_is_not_asked_for() -> None:
    server = CallbackServer(public_url="https://nothing.invalid")
    with pytest.raises(ClosedError, match="not running"):
        await server.check_reachable()
    async with server:
        pass
    with pytest.raises(ClosedError, match="not running"):
        await server.check_reachable()


async def test_a_file_of_authorities_that_holds_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    async with CallbackServer(public_url="https://nothing.invalid") as server:
        with pytest.raises(ConfigurationError, match="holds no PEM certificate"):
            await server.check_reachable(ca_file=tmp_path / "ca.pem")
