"""Files: whole or not at all, whatever the server does."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import respx

from af10_async import (
    AF10Client,
    AF10Error,
    ConnectFailedError,
    DownloadRefusedError,
    DownloadTimeoutError,
    FileTooLargeError,
    IncompleteDownloadError,
    Progress,
    RemoteFile,
    TargetExistsError,
    TLSError,
    UnsafeURLError,
)
from af10_async.sandbox import Fault, Sandbox

from ..conftest import ClientMaker, Tls

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def served(
    answer: bytes, *, tls: Tls | None = None, seen: list[bytes] | None = None
) -> AsyncIterator[str]:
    """A server that gives each request the same raw answer, then closes; its address."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            request = await reader.readuntil(b"\r\n\r\n")
            if seen is not None:
                seen.append(request)
            writer.write(answer)
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    context = None
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls.cert, tls.key)
    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}/files/name.zip"


def visible(folder: Path) -> list[Path]:
    """What is in the folder, but for what a download to be gone on with keeps there."""
    return [path for path in folder.iterdir() if not path.name.startswith(".af10-")]


def ok(body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + body


# -- ways to fetch ---------------------------------------------------------------------------------


async def test_save_read_and_iterate_give_the_same_bytes(
    af10: AF10Client, sandbox: Sandbox, tmp_path: Path
) -> None:
    file = await af10.backup_owner()
    saved = await file.save(tmp_path / "mine.zip")
    iterated = b"".join([chunk async for chunk in file])
    assert saved.path == tmp_path / "mine.zip"
    assert saved.path.read_bytes() == iterated == await file.read()
    assert iterated == sandbox.archive(sandbox.jobs[0])
    assert saved.sha256 == hashlib.sha256(iterated).hexdigest()
    assert os.fspath(saved) == str(saved.path)


async def test_a_file_larger_than_one_block_is_saved_whole(
    make_client: ClientMaker, tls: Tls, tmp_path: Path
) -> None:
    async with Sandbox(callback_ca=tls.ca, file_size=5 * 2**20 + 17) as sandbox:
        arguments = {
            "base_url": sandbox.base_url,
            "api_key": sandbox.api_key,
            "username": sandbox.username,
            "password": sandbox.password,
        }
        async with make_client(**arguments) as af10:
            saved = await (await af10.backup_owner()).save(tmp_path)
        assert saved.size == 5 * 2**20 + 17
        assert saved.sha256 == sandbox.archive_sha256(sandbox.jobs[0])


async def test_progress_runs_from_nothing_to_everything(af10: AF10Client, tmp_path: Path) -> None:
    seen: list[Progress] = []
    saved = await (await af10.backup_owner()).save(tmp_path, progress=seen.append)
    assert seen[0].received == 0
    assert seen[-1].received == seen[-1].total == saved.size
    assert [each.received for each in seen] == sorted(each.received for each in seen)
    assert seen[-1].rate > 0
    assert seen[-1].seconds_left == 0
    assert Progress(10, None, 1.0).seconds_left is None
    assert Progress(0, 100, 0.0).rate == 0
    assert Progress(50, 100, 5.0).seconds_left == 5.0


async def test_a_failing_progress_handler_ends_the_download_and_leaves_nothing(
    af10: AF10Client, tmp_path: Path
) -> None:
    def handler(progress: Progress) -> None:
        raise ZeroDivisionError

    def last(progress: Progress) -> None:
        if progress.received == progress.total:
            raise ZeroDivisionError

    file = await af10.backup_owner()
    for each in (handler, last):
        with pytest.raises(ZeroDivisionError):
            await file.save(tmp_path, progress=each)
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_is_made_and_a_taken_name_gets_a_number(
    af10: AF10Client, tmp_path: Path
) -> None:
    file = await af10.backup_owner()
    first = await file.save(f"{tmp_path}/new/folder/")
    (tmp_path / first.path.name).write_bytes(b"somebody else's")
    second = await file.save(tmp_path)
    assert second.path.name == f"{first.path.stem}-2.zip"
    assert first.path.read_bytes() == second.path.read_bytes()


async def test_a_file_that_is_there_already_is_not_fetched_again(
    af10: AF10Client, sandbox: Sandbox, tmp_path: Path
) -> None:
    file = await af10.backup_owner()
    first = await file.save(tmp_path)
    count = len(sandbox.requests)
    for again in (file, await af10.job(str(file.key))):
        second = await again.save(tmp_path)
        assert (second.path, second.size, second.sha256) == (first.path, first.size, first.sha256)
    assert len(sandbox.requests) == count
    first.path.write_bytes(b"changed since")
    third = await file.save(tmp_path)
    assert third.path.name == f"{first.path.stem}-2.zip"
    assert sorted(tmp_path.iterdir()) == sorted([first.path, third.path])


async def test_a_path_is_not_overwritten_unless_asked(
    af10: AF10Client, sandbox: Sandbox, tmp_path: Path
) -> None:
    file = await af10.backup_owner()
    target = tmp_path / "backup.zip"
    target.write_text("precious")
    fetched = len(sandbox.requests)
    with pytest.raises(TargetExistsError, match="overwrite=True") as caught:
        await file.save(target)
    assert isinstance(caught.value, FileExistsError)
    assert len(sandbox.requests) == fetched, "it could be told before the download"
    assert target.read_text() == "precious"
    await file.save(target, overwrite=True)
    assert target.read_bytes() == sandbox.archive(sandbox.jobs[0])
    assert list(tmp_path.iterdir()) == [target]


async def test_reading_stops_at_the_limit(af10: AF10Client) -> None:
    file = await af10.backup_owner()
    with pytest.raises(FileTooLargeError, match="1,000 bytes"):
        await file.read(limit=1000)
    async with served(ok(b"5\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked")) as url:
        with pytest.raises(FileTooLargeError):
            await af10.file(url).read(limit=4)
        assert await af10.file(url).read(limit=5) == b"hello"


async def test_any_url_makes_a_file_and_gets_no_credentials(
    af10: AF10Client, sandbox: Sandbox, tmp_path: Path
) -> None:
    seen: list[bytes] = []
    await af10.authenticate()
    async with served(ok(b"hello", "Content-Length: 5"), seen=seen) as url:
        file = af10.file(url)
        assert (await file.save(tmp_path)).path == tmp_path / "name.zip"
        assert file.key is None
        assert url not in repr(file)
    text = seen[0].decode().lower()
    assert "accept-encoding: identity" in text
    for word in ("token", "apikey", "cookie", "authorization", sandbox.api_key):
        assert word not in text


# -- what is not the file --------------------------------------------------------------------------


NOT_THE_FILE = {
    "cut, no length": (Fault.no_length_cut(1000, times=None), DownloadRefusedError),
    "no length": (Fault.no_length(times=None), DownloadRefusedError),
    "reset at once": (Fault.reset_in_body(0, times=None), AF10Error),
    "shorter than said": (Fault.wrong_length(10, times=None), IncompleteDownloadError),
    "html": (Fault.file_html(times=None), DownloadRefusedError),
    "encoded": (Fault.file_encoded(times=None), DownloadRefusedError),
    "partial": (Fault.file_partial(times=None), DownloadRefusedError),
    "500": (Fault.status(500, on="file", times=None), DownloadRefusedError),
    "429": (Fault.rate_limited("0", on="file", times=None), DownloadRefusedError),
    "404": (Fault.status(404, on="file", times=None), DownloadRefusedError),
    "418": (Fault.status(418, on="file", times=None), DownloadRefusedError),
}


@pytest.mark.parametrize("case", NOT_THE_FILE)
@pytest.mark.parametrize("way", ["save", "read", "iterate"])
async def test_what_is_not_the_whole_file_is_an_error_and_leaves_nothing(
    af10: AF10Client, sandbox: Sandbox, tmp_path: Path, case: str, way: str
) -> None:
    fault, error = NOT_THE_FILE[case]
    sandbox.faults.add(fault)
    job = af10.backup_owner()
    file = await job
    with pytest.raises(error) as caught:
        match way:
            case "save":
                await file.save(tmp_path)
            case "read":
                await file.read()
            case _:
                async for _ in file:
                    pass
    assert visible(tmp_path) == []
    assert isinstance(caught.value, AF10Error)
    assert caught.value.key == job.key
    assert caught.value.step == "download"
    assert file.url not in str(caught.value)


@pytest.mark.parametrize(
    "fault",
    [
        Fault.truncated(1000, times=2),
        Fault.truncated(1000, times=None),
        Fault.reset_in_body(1000, times=3),
        Fault.reset_in_body(1000, times=None),
        Fault.status(503, on="file", times=2),
        Fault.rate_limited("0", on="file", times=2),
        Fault.reset_before(on="file", times=2),
    ],
    ids=["short", "always short", "reset", "always reset", "503", "429", "lost"],
)
async def test_a_fault_that_passes_or_lets_some_bytes_through_is_got_over(
    af10: AF10Client, sandbox: Sandbox, tmp_path: Path, fault: Fault
) -> None:
    sandbox.faults.add(fault)
    file = await af10.backup_owner()
    saved = await file.save(tmp_path)
    assert saved.path.read_bytes() == sandbox.archive(sandbox.jobs[0])
    assert saved.sha256 == sandbox.archive_sha256(sandbox.jobs[0])
    assert await file.read() == sandbox.archive(sandbox.jobs[0])


@pytest.mark.parametrize("way", ["save", "read", "iterate"])
async def test_an_error_of_af10_with_http_200_is_not_the_file(
    af10: AF10Client, sandbox: Sandbox, tmp_path: Path, way: str
) -> None:
    sandbox.faults.add(Fault.error_in_200(17, "No such backup", on="file", times=None))
    file = await af10.backup_owner()
    with pytest.raises(DownloadRefusedError, match="an error message of AF10"):
        match way:
            case "save":
                await file.save(tmp_path)
            case "read":
                await file.read()
            case _:
                async for _ in file:
                    pass
    assert list(tmp_path.iterdir()) == []


async def test_not_authorized_with_http_200_asks_for_a_fresh_address(
    af10: AF10Client, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.faults.add(Fault.error_in_200(401, "Not authorized", on="file"))
    saved = await (await af10.backup_owner()).save(tmp_path)
    assert saved.sha256 == sandbox.archive_sha256(sandbox.jobs[0])
    assert sandbox.count("GET", "/webhook") == 2


async def test_a_file_that_is_json_itself_arrives_whole(af10: AF10Client) -> None:
    for body in (b'{"rows": [1, 2]}', b"[]", b"{" + b" " * 70_000 + b"}"):
        answer = ok(body, f"Content-Length: {len(body)}", "Content-Type: application/json")
        async with served(answer) as url:
            assert await af10.file(url).read() == body
            assert b"".join([chunk async for chunk in af10.file(url)]) == body
        size = f"{len(body):x}\r\n".encode()
        chunked = size + body + b"\r\n0\r\n\r\n"
        answer = ok(chunked, "Transfer-Encoding: chunked", "Content-Type: application/json")
        async with served(answer) as url:
            assert await af10.file(url).read() == body


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"hello", "Content-Length: 5", "Content-Length: 6"),
        ok(b"hello", "Content-Length: -5"),
        ok(b"hello", "Content-Length: 5x"),
        ok(b"hello", "Content-Length: " + "9" * 20),
        ok(b"hel", "Content-Length: 5"),
        ok(b"5\r\nhel", "Transfer-Encoding: chunked"),
        ok(b"5\r\nhello\r\n", "Transfer-Encoding: chunked"),
        ok(b"zz\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
        ok(b"hello", "Content-Length: 5", "Content-Encoding: gzip"),
        ok(b"hello", "Content-Length: 5", "Content-Type: text/html; charset=utf-8"),
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"garbage\r\n\r\n",
        b"",
    ],
)
async def test_a_broken_answer_is_never_a_file(
    af10: AF10Client, tmp_path: Path, answer: bytes
) -> None:
    async with served(answer) as url:
        with pytest.raises(AF10Error):
            await af10.file(url).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", range(0, 130, 7))
async def test_a_cut_at_any_byte_is_never_a_file(af10: AF10Client, tmp_path: Path, at: int) -> None:
    answer = ok(b"x" * 60, "Content-Length: 60", "Content-Type: application/zip")
    assert len(answer) < 135
    async with served(answer[:at]) as url:
        with pytest.raises(AF10Error):
            await af10.file(url).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


# -- time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["save", "read", "iterate"])
async def test_download_timeout_ends_a_stall_and_nothing_has_the_final_name(
    af10: AF10Client, sandbox: Sandbox, tmp_path: Path, way: str
) -> None:
    sandbox.faults.add(Fault.stall(1000))
    job = af10.backup_owner(download_timeout=0.1)
    file = await job
    with pytest.raises(DownloadTimeoutError, match=r"0\.1 s") as caught:
        match way:
            case "save":
                await file.save(tmp_path)
            case "read":
                await file.read()
            case _:
                async for _ in file:
                    pass
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.key == job.key
    assert visible(tmp_path) == []


async def test_a_drip_does_not_outlive_the_timeout(
    af10: AF10Client, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.faults.add(Fault.drip(1, 0.001))
    with pytest.raises(DownloadTimeoutError):
        await (await af10.backup_owner(download_timeout=0.1)).save(tmp_path)
    assert visible(tmp_path) == []


async def test_silence_is_a_broken_connection_and_the_download_goes_on(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.stall(1000))
    async with make_client(stall_timeout=0.05) as af10:
        file = await af10.backup_owner()
        assert await file.read() == sandbox.archive(sandbox.jobs[0])
        ranges = [each.headers.get("range") for each in sandbox.requests if "/files" in each.path]
        assert ranges[:2] == [None, "bytes=1000-"]


async def test_what_the_caller_does_between_chunks_is_not_ended(
    af10: AF10Client,
) -> None:
    async with served(ok(b"5\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked")) as url:
        chunks = []
        async for chunk in af10.file(url, download_timeout=0.2):
            chunks.append(chunk)
            await asyncio.sleep(0.01)
    assert chunks == [b"hello"]


@pytest.mark.parametrize("way", ["save", "read", "iterate"])
async def test_a_cancelled_download_leaves_what_the_next_one_goes_on_with(
    af10: AF10Client, sandbox: Sandbox, tmp_path: Path, way: str
) -> None:
    sandbox.faults.add(Fault.stall(1000))
    file = await af10.backup_owner()

    async def iterate() -> None:
        async for _ in file:
            pass

    ways: dict[str, Callable[[], Awaitable[object]]] = {
        "save": lambda: file.save(tmp_path),
        "read": file.read,
        "iterate": iterate,
    }
    task = asyncio.ensure_future(ways[way]())
    while sandbox.requests[-1].path.startswith("/webhook"):
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert visible(tmp_path) == []
    saved = await file.save(tmp_path)
    assert saved.resumed_from == (1000 if way == "save" else 0)
    assert saved.path.read_bytes() == sandbox.archive(sandbox.jobs[0])
    assert list(tmp_path.iterdir()) == [saved.path]


async def test_a_save_can_be_cancelled_at_every_turn_of_the_loop(
    af10: AF10Client, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Nothing but the whole file has the final name, and the next save goes on from there."""
    file = await af10.backup_owner()
    expected = sandbox.archive(sandbox.jobs[0])
    for turns in range(0, 90, 3):
        folder = tmp_path / str(turns)
        folder.mkdir()
        task = asyncio.create_task(file.save(folder))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        found = [path.read_bytes() for path in visible(folder)]
        assert found in ([], [expected])
        if found:
            continue  # it was done before so many turns
        saved = await file.save(folder)
        assert saved.path.read_bytes() == expected
        assert list(folder.iterdir()) == [saved.path]


async def test_an_iteration_left_early_lets_go_of_the_connection(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    file = await af10.backup_owner()
    chunks = aiter(file)
    assert await anext(chunks)
    await chunks.aclose()


# -- addresses -------------------------------------------------------------------------------------


PRIVATE = [
    "https://127.0.0.1/x",
    "https://localhost/x",
    "https://[::1]/x",
    "https://169.254.169.254/latest/meta-data",
    "https://[::ffff:10.0.0.1]/x",
    "https://[64:ff9b::7f00:1]/x",
    "https://[2002:7f00:1::]/x",
    "https://2130706433/x",
    "https://0x7f.1/x",
    "http://example.com/x",
    "file:///etc/passwd",
    "ftp://example.com/x",
    "//example.com/x",
    "https://user:password@example.com/x",
    "https://example.com:22/x",
    "https://host\\@evil.example/x",
    "https:///x",
    "https://example.com/\r\nx",
]


@contextlib.asynccontextmanager
async def public(
    make_client: ClientMaker, payload_url: str, **arguments: Any
) -> AsyncIterator[RemoteFile]:
    """The file that an AF10 at a public address says is at `payload_url`."""
    base_url = "https://api.example.com/v2"
    with respx.mock(assert_all_called=False) as router:
        router.get(f"{base_url}/authenticate").respond(json={"token": "t-o-k-e-n"})
        router.post(f"{base_url}/backup/owner").respond(json={"data": {"url": payload_url}})
        router.route().pass_through()
        async with make_client(base_url=base_url, **arguments) as af10:
            yield await af10.backup_owner()


@pytest.mark.parametrize("url", PRIVATE)
async def test_a_payload_url_never_points_inside_the_network(
    make_client: ClientMaker, url: str
) -> None:
    """AF10 at a public address must not send us to a private one."""
    async with public(make_client, url) as file:
        with pytest.raises(UnsafeURLError, match="nothing was sent") as caught:
            await file.read()
    assert url not in str(caught.value)
    assert caught.value.sent is False


async def test_private_addresses_can_be_allowed(make_client: ClientMaker) -> None:
    async with (
        served(ok(b"hello", "Content-Length: 5")) as url,
        public(make_client, url, allow_private_files=True) as file,
    ):
        assert await file.read() == b"hello"


async def test_a_name_that_leads_inside_the_network_is_not_connected_to(
    make_client: ClientMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address is checked where it is connected to, whatever the name says."""

    usual = asyncio.get_running_loop().getaddrinfo

    async def resolve(host: Any, port: Any, **options: Any) -> list[Any]:
        if host != "files.example.com":  # the callback server's own
            return list(await usual(host, port, **options))
        return [(2, 1, 6, "", ("10.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    async with public(make_client, "https://files.example.com/x") as file:
        with pytest.raises(UnsafeURLError, match="points inside a private network"):
            await file.read()


async def test_redirects_are_followed_a_few_times_without_credentials(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    seen: list[bytes] = []
    async with served(ok(b"hello", "Content-Length: 5"), seen=seen) as url:
        sandbox.faults.add(Fault.redirect(url))
        file = await af10.backup_owner()
        assert await file.read() == b"hello"
    assert b"token" not in seen[0].lower()
    assert b"cookie" not in seen[0].lower()


async def test_a_redirect_loop_ends(af10: AF10Client, sandbox: Sandbox) -> None:
    async with served(b"HTTP/1.1 302 Found\r\nLocation: x\r\nContent-Length: 0\r\n\r\n") as url:
        with pytest.raises(UnsafeURLError, match="redirects too often"):
            await af10.file(url).read()


async def test_a_redirect_never_falls_from_https_to_http(
    make_client: ClientMaker, tls: Tls
) -> None:
    answer = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
    async with make_client(ca_file=tls.ca) as af10, served(answer, tls=tls) as url:
        with pytest.raises(UnsafeURLError, match="from https to something else"):
            await af10.file(url).read()


@pytest.mark.parametrize("location", ["http://[", "https://exa mple/", ""])
async def test_a_malformed_redirect_is_refused(af10: AF10Client, location: str) -> None:
    head = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    async with served(head.encode()) as url:
        with pytest.raises((UnsafeURLError, DownloadRefusedError)):
            await af10.file(url).read()


async def test_a_certificate_that_is_not_trusted_is_a_tls_error(
    af10: AF10Client, make_client: ClientMaker, tls: Tls
) -> None:
    async with served(ok(b"hello", "Content-Length: 5"), tls=tls) as url:
        with pytest.raises(TLSError, match="ca_file"):
            await af10.file(url).read()
        async with make_client(ca_file=tls.ca) as trusting:
            assert await trusting.file(url).read() == b"hello"


async def test_a_server_that_is_not_there_is_a_connect_error(
    af10: AF10Client, unused_tcp_port: int, tmp_path: Path
) -> None:
    with pytest.raises(ConnectFailedError):
        await af10.file(f"http://127.0.0.1:{unused_tcp_port}/x").save(tmp_path)
    assert list(tmp_path.iterdir()) == []


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="/etc/cron.d/x"', "x"),
        ('attachment; filename="C:\\\\evil.exe"', "evil.exe"),
        ("attachment; filename*=UTF-8''na%C3%AFve.zip; filename=x", "naïve.zip"),
        ('attachment; filename="."', "name.zip"),
        ('attachment; filename="CON"', "_CON"),
        (f'attachment; filename="{"y" * 300}.zip"', "y" * 196 + ".zip"),
        ("attachment", "name.zip"),
    ],
)
async def test_the_servers_name_is_reduced_to_one_safe_component(
    af10: AF10Client, tmp_path: Path, disposition: str, name: str
) -> None:
    answer = ok(b"hello", "Content-Length: 5", f"Content-Disposition: {disposition}")
    async with served(answer) as url:
        saved = await af10.file(url).save(tmp_path / "in")
        assert saved.path == tmp_path / "in"
        saved = await af10.file(url).save(f"{tmp_path}/folder/")
    assert saved.path == tmp_path / "folder" / name
