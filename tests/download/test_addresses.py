"""Addresses: each one on the way to a file is looked at, and none gets any credentials."""

from __future__ import annotations

from pathlib import Path

import pytest
import respx

from af10_async import (
    ConfigurationError,
    Downloader,
    DownloadRefusedError,
    NetworkError,
    UnsafeURLError,
)
from af10_async.protocol.files import MAX_REDIRECTS

from .file_server import FileServer, Lie, Request, Version
from .tools import BODY, downloads, names, ranges


def moved(location: str, status: int = 302) -> Lie:
    return Lie(status=status, headers={"Location": location})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed_whatever_its_kind(tmp_path: Path, status: int) -> None:
    lies = {1: moved("/b/other.zip", status)}
    async with FileServer(Version(BODY), lies) as server, downloads() as files:
        saved = await files.file(server.url()).save(tmp_path)
    assert [each.target for each in server.requests] == ["/files/backup.zip", "/b/other.zip"]
    assert [each.method for each in server.requests] == ["GET", "GET"]
    assert (saved.path.name, saved.size) == ("other.zip", len(BODY))


@pytest.mark.parametrize("hops", [MAX_REDIRECTS, MAX_REDIRECTS + 1])
async def test_so_many_redirects_and_no_more_are_followed(tmp_path: Path, hops: int) -> None:
    lies = {number: moved(f"/{number}") for number in range(1, hops + 1)}
    async with FileServer(Version(BODY), lies) as server, downloads() as files:
        if hops <= MAX_REDIRECTS:
            assert await files.file(server.url()).read() == BODY
        else:
            with pytest.raises(UnsafeURLError, match="redirects too often"):
                await files.file(server.url()).read()
    assert len(server.requests) == MAX_REDIRECTS + 1


async def test_each_attempt_follows_the_redirects_anew_and_asks_for_the_rest(
    tmp_path: Path,
) -> None:
    """The address that a redirect leads to may be good for a moment only."""

    def lies(request: Request) -> Lie | None:
        if "signed" not in request.target:
            return moved(f"/signed/{request.number}")
        return Lie(cut=4000) if request.number == 2 else None

    async with FileServer(Version(BODY), lies) as server, downloads() as files:
        saved = await files.file(server.url()).save(tmp_path)
    assert saved.path.read_bytes() == BODY
    assert ranges(server.requests) == [None, None, *["bytes=4000-9999"] * 2]
    assert [each.target for each in server.requests][1::2] == ["/signed/1", "/signed/3"]


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://user:password@127.0.0.1/x",
        "http://127.0.0.1:99999/x",
        "http://a b/x",
        "http://[::1/x",
        "http://127.0.0.1:x/x",
        "javascript:alert(1)",
        "data:,x",
    ],
)
async def test_a_redirect_to_what_is_no_address_of_a_file_is_refused(
    tmp_path: Path, location: str
) -> None:
    async with FileServer(Version(BODY), moved(location)) as server, downloads() as files:
        with pytest.raises(UnsafeURLError) as caught:
            await files.file(server.url()).save(tmp_path)
    assert not caught.value.retryable
    assert location not in str(caught.value)
    assert len(server.requests) == 1
    assert names(tmp_path) == []


async def test_a_location_without_end_is_refused(tmp_path: Path) -> None:
    lie = moved("/" + "x" * 1024 * 1024)
    async with FileServer(Version(BODY), lie) as server, downloads() as files:
        with pytest.raises(NetworkError):
            await files.file(server.url()).save(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("status", [300, 304, 305, 306])
async def test_other_3xx_are_not_followed(tmp_path: Path, status: int) -> None:
    async with FileServer(Version(BODY), moved("/b", status)) as server, downloads() as files:
        with pytest.raises(DownloadRefusedError):
            await files.file(server.url()).save(tmp_path)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "location",
    [
        "https://127.0.0.1/x",
        "https://10.0.0.1/x",
        "https://localhost/x",
        "https://[::1]/x",
        "https://169.254.169.254/latest/meta-data",
        "https://2130706433/x",
        "https://example.com:22/x",
        "http://example.com/x",
    ],
)
async def test_a_public_server_does_not_send_us_inside_the_network(location: str) -> None:
    """Also when the caller gave its address, who may name a private one."""
    with respx.mock(assert_all_called=False) as router:
        router.get("https://files.example.com/x").respond(302, headers={"location": location})
        inside = router.route(url=location).respond(200, content=b"secret")
        async with downloads() as files:
            with pytest.raises(UnsafeURLError, match="nothing was sent to it"):
                await files.file("https://files.example.com/x").read()
        assert not inside.called


async def test_a_redirect_from_public_to_public_is_followed() -> None:
    with respx.mock() as router:
        there = router.get("https://cdn.example.net/y").respond(
            200, content=b"hello", headers={"content-length": "5"}
        )
        location = {"location": "https://cdn.example.net/y", "set-cookie": "session=x"}
        router.get("https://files.example.com/x").respond(302, headers=location)
        async with downloads() as files:
            assert await files.file("https://files.example.com/x").read() == b"hello"
        asked = there.calls.last.request
        assert not {"authorization", "cookie", "token", "apikey", "referer"} & {*asked.headers}


# -- hosts that are allowed ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "is_allowed"),
    [
        (["127.0.0.1"], True),
        (["example.com", "127.0.0.1"], True),
        ("127.0.0.1", True),
        (["example.com"], False),
        (["7.0.0.1"], False),
        (["127.0.0.10"], False),
        ([], False),
    ],
)
async def test_a_file_may_come_from_allowed_hosts_only(
    allowed: list[str], is_allowed: bool
) -> None:
    """And from what is below them; nothing is sent to others."""
    async with FileServer(Version(BODY)) as server, downloads(allowed_hosts=allowed) as files:
        if is_allowed:
            assert await files.file(server.url()).read() == BODY
            return
        with pytest.raises(UnsafeURLError, match="not one of the allowed hosts"):
            await files.file(server.url()).read()
    assert server.requests == []


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("example.com", True),
        ("EXAMPLE.com", True),
        ("cdn.example.com", True),
        ("example.com.", True),
        ("notexample.com", False),
        ("example.com.evil.net", False),
        ("example.org", False),
    ],
)
async def test_a_host_below_an_allowed_one_is_allowed(host: str, is_allowed: bool) -> None:
    with respx.mock(assert_all_called=False) as router:
        route = router.get(path="/x").respond(
            200, content=b"hello", headers={"content-length": "5"}
        )
        async with downloads(allowed_hosts=[".Example.com"]) as files:
            if is_allowed:
                assert await files.file(f"https://{host}/x").read() == b"hello"
            else:
                with pytest.raises(UnsafeURLError):
                    await files.file(f"https://{host}/x").read()
        assert route.called is is_allowed


async def test_each_redirect_must_lead_to_an_allowed_host(tmp_path: Path) -> None:
    async with FileServer(Version(BODY)) as server:
        elsewhere = server.url().replace("127.0.0.1", "localhost")
        server.lies = {1: moved(elsewhere)}
        async with downloads(allowed_hosts=["127.0.0.1"]) as files:
            with pytest.raises(UnsafeURLError, match="not one of the allowed hosts"):
                await files.file(server.url()).save(tmp_path)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "allowed", [["https://example.com"], ["example.com/x"], ["example.com:443"], [""], ["*"]]
)
def test_what_is_no_name_of_a_host_cannot_be_allowed(allowed: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="allowed_hosts"):
        Downloader(allowed_hosts=allowed)
