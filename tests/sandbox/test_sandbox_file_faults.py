"""Every kind of fault in the file, read from a raw socket where a library would hide it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest

from af10_async.sandbox import Fault

from .conftest import Wire, wired

SIZE = 64 * 1024


@dataclass
class Raw:
    """What arrived until the connection was closed."""

    head: str
    body: bytes
    reset: bool = False


@asynccontextmanager
async def opened(
    url: str, range_: str | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, str]]:
    """The connection just after the headers of a plain GET, and these."""
    parts = httpx.URL(url)
    reader, writer = await asyncio.open_connection(parts.host, parts.port)
    try:
        lines = [f"GET {parts.path} HTTP/1.1", "Host: x"]
        lines += [f"Range: {range_}"] if range_ else []
        writer.write("\r\n".join([*lines, "", ""]).encode())
        yield reader, (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    finally:
        writer.transport.abort()


async def fetch(url: str, range_: str | None = None) -> Raw:
    async with opened(url, range_) as (reader, head):
        body, reset = b"", False
        try:
            while piece := await reader.read(65536):
                body += piece
        except ConnectionResetError:
            reset = True
    return Raw(head, body, reset)


@asynccontextmanager
async def faulty(fault: Fault) -> AsyncIterator[tuple[Wire, str, bytes]]:
    async with wired() as wire:
        job = await wire.start()
        url = await wire.redeem(job)
        wire.sandbox.faults.add(fault)
        yield wire, url, wire.sandbox.archive(job)


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_stale_address_is_good_again_after_redeeming(status: int) -> None:
    """It is refused until then, and for ever; the new one works."""
    async with faulty(Fault.stale_file(status)) as (wire, url, content):
        statuses = [(await wire.http.get(url)).status_code for _ in range(2)]
        fresh = await wire.redeem(wire.sandbox.jobs[0])
        assert statuses == [status, status]
        assert (await wire.http.get(fresh)).content == content
        assert (await wire.http.get(url)).status_code == status


@pytest.mark.parametrize(("sent", "arrives"), [(None, SIZE // 2), (0, 0), (10, 10), (-1, SIZE - 1)])
async def test_truncated_promises_all_and_closes_early(sent: int | None, arrives: int) -> None:
    """Half, nothing, so many bytes, or all but so many."""
    async with faulty(Fault.truncated(sent)) as (wire, url, content):
        raw = await fetch(url)
        assert f"content-length: {SIZE}\r\n" in raw.head
        assert raw.body == content[:arrives]
        assert wire.sandbox.requests[-1].status == 200


async def test_truncated_counts_in_the_range_that_was_asked() -> None:
    """206, with the length of the range."""
    async with faulty(Fault.truncated(5)) as (_, url, content):
        raw = await fetch(url, "bytes=100-199")
        assert raw.head.startswith("http/1.1 206 partial content\r\n")
        assert "content-length: 100\r\n" in raw.head
        assert f"content-range: bytes 100-199/{SIZE}\r\n" in raw.head
        assert raw.body == content[100:105]


@pytest.mark.parametrize("by", [-10, 10])
async def test_a_wrong_length_is_not_that_of_the_body(by: int) -> None:
    """Too small or too big; the body is whole."""
    async with faulty(Fault.wrong_length(by)) as (_, url, content):
        raw = await fetch(url)
        assert f"content-length: {SIZE + by}\r\n" in raw.head
        assert raw.body == content


async def test_stall_sends_some_and_then_nothing() -> None:
    """The connection stays open."""
    async with faulty(Fault.stall(1000)) as (_, url, content), opened(url) as (reader, _head):
        assert await reader.readexactly(1000) == content[:1000]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.03):
                await reader.read(1)


@pytest.mark.parametrize(
    ("fault", "arrives"),
    [(Fault.no_length_cut(), SIZE // 2), (Fault.no_length_cut(7), 7), (Fault.no_length(), SIZE)],
)
async def test_a_body_without_a_length(fault: Fault, arrives: int) -> None:
    """Cut early, it looks like a whole one."""
    async with faulty(fault) as (wire, url, content):
        raw = await fetch(url)
        assert "content-length" not in raw.head
        assert "transfer-encoding" not in raw.head
        assert raw.body == content[:arrives]
        wire.sandbox.faults.add(fault)
        assert (await wire.http.get(url)).status_code == 200  # httpx sees nothing wrong


async def test_drip_sends_little_by_little() -> None:
    """All of it in the end."""
    async with faulty(Fault.drip(20_000, 0.005)) as (wire, url, content):
        before = asyncio.get_running_loop().time()
        assert (await wire.http.get(url)).content == content
        assert asyncio.get_running_loop().time() - before > 0.015


async def test_a_reset_in_the_body() -> None:
    """Not more than was asked arrives, and then a reset."""
    async with faulty(Fault.reset_in_body(1000)) as (_, url, content):
        raw = await fetch(url)
        assert raw.reset
        assert content[:1000].startswith(raw.body)


async def test_a_page_instead_of_the_file() -> None:
    """With HTTP 200."""
    async with faulty(Fault.file_html()) as (wire, url, _):
        answer = await wire.http.get(url)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")


async def test_the_file_encoded_although_nobody_asked() -> None:
    """Unpacked, it is right."""
    async with faulty(Fault.file_encoded()) as (_, url, content), opened(url) as (reader, head):
        assert "content-encoding: gzip\r\n" in head
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        assert gzip.decompress(await reader.readexactly(length)) == content


async def test_a_part_of_the_file_although_nobody_asked() -> None:
    """206 and the first half for a plain GET."""
    async with faulty(Fault.file_partial()) as (wire, url, content):
        answer = await wire.http.get(url)
        assert answer.status_code == 206
        assert answer.headers["content-range"] == f"bytes 0-{SIZE // 2 - 1}/{SIZE}"
        assert answer.content == content[: SIZE // 2]


async def test_a_range_that_is_ignored() -> None:
    """200 and the whole."""
    async with faulty(Fault.ignores_range()) as (wire, url, content):
        answer = await wire.http.get(url, headers={"Range": "bytes=10-"})
        assert (answer.status_code, answer.content) == (200, content)


async def test_a_range_that_is_not_the_one_that_was_asked() -> None:
    """It says so in Content-Range."""
    async with faulty(Fault.wrong_range(5)) as (wire, url, content):
        answer = await wire.http.get(url, headers={"Range": "bytes=10-19"})
        assert answer.headers["content-range"] == f"bytes 15-19/{SIZE}"
        assert answer.content == content[15:20]


async def test_a_file_that_changed() -> None:
    """Other bytes, another ETag, the same size."""
    async with faulty(Fault.changed()) as (wire, url, content):
        changed, again = await wire.http.get(url), await wire.http.get(url)
        assert len(changed.content) == len(content)
        assert changed.content != content == again.content
        assert changed.headers["etag"] != again.headers["etag"]


async def test_a_redirect() -> None:
    """To any address, with any status."""
    async with faulty(Fault.redirect("http://example.com/x", 307)) as (wire, url, _):
        answer = await wire.http.get(url)
        assert (answer.status_code, answer.headers["location"]) == (307, "http://example.com/x")


@pytest.mark.parametrize("fault", [Fault.reset_before, Fault.reset_after])
async def test_a_reset_instead_of_the_file(fault: type[Fault]) -> None:
    """Nothing is answered."""
    async with faulty(fault(on="file")) as (wire, url, _):  # type: ignore[call-arg]
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await wire.http.get(url)


async def test_the_general_faults_strike_the_file_too() -> None:
    """A 503, for instance."""
    async with faulty(Fault.status(503, on="file")) as (wire, url, content):
        assert (await wire.http.get(url)).status_code == 503
        assert (await wire.http.get(url)).content == content
