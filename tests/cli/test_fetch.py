"""af10 fetch, as real processes that fetch from a real file server."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from af10_async.__main__ import main

from ..conftest import Tls
from ..download.file_server import HONEST, FileServer, Lie, Request, Version, make_body
from .processes import Lines, lines_of, run, running
from .s3 import s3_server

MIB = 1024 * 1024
BODY = make_body(3 * MIB, seed=3)
SHA256 = hashlib.sha256(BODY).hexdigest()
MD5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
SIGNED = "/files/backup.zip?signature=hidden-word"
HELD = Lie(cut=2 * MIB, then="hold")
"""Most of the file, and then nothing for ever."""


def serving(lies: Lie | dict[int, Lie] | Callable[[Request], Lie | None] = HONEST) -> FileServer:
    return FileServer(Version(BODY), lies)


async def fetch(server: FileServer, out: str | Path, *options: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; its URL, a secret, is in neither."""
    found = await run("fetch", server.url(SIGNED), "--out", str(out), *options)
    for text in found[1:]:
        assert "hidden-word" not in text
        assert f":{server.port}/" not in text
        assert "Traceback" not in text
    return found


async def fetch_json(
    server: FileServer, out: str | Path, *options: str
) -> tuple[int, Lines, Lines]:
    """Exit code, the lines about progress, and the other lines."""
    code, text, err = await fetch(server, out, "--json", *options)
    assert err == ""
    lines = lines_of(text)
    told = [line for line in lines if line["event"] == "progress"]
    return code, told, [line for line in lines if line not in told]


def files_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


# -- where it goes ---------------------------------------------------------------------------------


async def test_people_get_the_path_alone_on_stdout_and_the_rest_on_stderr(tmp_path: Path) -> None:
    async with serving() as server:
        code, out, err = await fetch(server, tmp_path)
    assert (code, out) == (0, f"{tmp_path}/backup.zip\n")
    assert (tmp_path / "backup.zip").read_bytes() == BODY
    assert "3.0/3.0 MiB" in err
    assert SHA256 in err


@pytest.mark.parametrize(
    ("out", "path"),
    [("new/", "new/backup.zip"), ("here", "here/backup.zip"), ("a/b.zip", "a/b.zip")],
)
async def test_a_slash_or_an_existing_folder_is_a_folder_and_all_else_is_a_path(
    tmp_path: Path, out: str, path: str
) -> None:
    (tmp_path / "here").mkdir()
    async with serving() as server:
        code, stdout, _ = await fetch(server, f"{tmp_path}/{out}")
    assert (code, stdout) == (0, f"{tmp_path / path}\n")
    assert (tmp_path / path).read_bytes() == BODY


async def test_the_json_lines_are_exactly_these(tmp_path: Path) -> None:
    async with serving() as server:
        code, told, (saved,) = await fetch_json(server, tmp_path)
    assert code == 0
    assert saved.pop("seconds") >= 0
    assert saved == {
        "event": "saved",
        "path": f"{tmp_path}/backup.zip",
        "size": len(BODY),
        "sha256": SHA256,
        "resumed_from": 0,
        "attempts": 1,
        "key": None,
    }
    assert told[0] == {
        "event": "progress",
        "received": 0,
        "total": len(BODY),
        "rate": 0,
        "seconds_left": None,
        "segment": 0,
        "segments": 1,
        "resumed_from": 0,
        "key": None,
    }
    assert list(told[-1]) == list(told[0])
    assert (told[-1]["received"], told[-1]["seconds_left"]) == (len(BODY), 0)
    received = [line["received"] for line in told]
    assert received == sorted(set(received))


async def test_a_file_url_is_a_place_too(tmp_path: Path) -> None:
    async with serving() as server:
        code, _, (copied,) = await fetch_json(server, f"file://{tmp_path}/new/")
    assert code == 0
    assert copied.pop("seconds") >= 0
    assert copied == {
        "event": "copied",
        "url": f"file://{tmp_path}/new/backup.zip",
        "size": len(BODY),
        "sha256": SHA256,
        "attempts": 1,
        "key": None,
    }
    assert (tmp_path / "new/backup.zip").read_bytes() == BODY


async def test_object_storage_gets_it_under_its_key_and_its_url_is_printed() -> None:
    async with serving() as server, s3_server() as s3:
        url = f"s3://{s3.bucket}/backups/"
        command = ("fetch", server.url(SIGNED), "--out", url)
        code, out, err = await run(*command, "--sha256", SHA256, env=s3.environment)
        assert (code, out) == (0, f"{url}backup.zip\n"), err
        assert (await s3.state())["objects"] == {"backups/backup.zip": SHA256}
        assert "copied" in err

        code, out, err = await run(*command, "--json", env=s3.environment)
        *_, error = lines_of(out)
        assert (code, error["error"], error["resumable"]) == (1, "TargetExistsError", False)
        assert "say --overwrite" in error["message"]
        code, out, err = await run(*command, "--json", "--overwrite", env=s3.environment)
        *_, copied = lines_of(out)
        assert (code, copied["event"], copied["url"]) == (0, "copied", f"{url}backup.zip")
        assert (await s3.state())["uploads"] == []
    for secret in (s3.secret, "hidden-word"):
        assert secret not in out + err


# -- what may be asked of it -----------------------------------------------------------------------


async def test_segments_fetch_parts_of_it_at_the_same_time(tmp_path: Path) -> None:
    async with serving() as server:
        code, _, (saved,) = await fetch_json(server, tmp_path, "--segments", "3")
        parts = {request.range for request in server.requests}
    assert (code, saved["sha256"]) == (0, SHA256)
    assert len(parts) > 1
    async with serving() as server:
        code, _, (saved,) = await fetch_json(server, tmp_path, "--segments", "auto")
    assert (code, saved["sha256"]) == (0, SHA256)


async def test_the_expected_checksums_pass(tmp_path: Path) -> None:
    async with serving() as server:
        code, _, _ = await fetch_json(server, tmp_path, "--sha256", SHA256.upper(), "--md5", MD5)
    assert code == 0


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (("--sha256", "0" * 64), "ChecksumMismatchError", SHA256),
        (("--md5", "0" * 32), "ChecksumMismatchError", MD5),
        (("--max-size", "1MiB"), "FileTooLargeError", "1,048,576 bytes (--max-size)"),
        (("--allowed-host", "example.com"), "UnsafeURLError", "allowed hosts"),
    ],
)
async def test_a_file_that_is_not_wanted_is_refused_and_leaves_nothing(
    tmp_path: Path, options: tuple[str, str], error: str, words: str
) -> None:
    async with serving() as server:
        code, _, (line,) = await fetch_json(server, tmp_path, *options)
    assert words in line.pop("message")
    assert code == 1
    assert line == {
        "event": "error",
        "error": error,
        "key": None,
        "exit_code": 1,
        "resumable": False,
    }
    assert files_in(tmp_path) == []


async def test_hosts_that_are_allowed_may_be_several(tmp_path: Path) -> None:
    hosts = ("--allowed-host", "example.com", "--allowed-host", "127.0.0.1")
    async with serving() as server:
        code, _, _ = await fetch(server, tmp_path, *hosts)
    assert code == 0


async def test_a_file_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "backup.zip"
    path.write_text("older")
    async with serving() as server:
        code, _, (error,) = await fetch_json(server, path)
        assert (code, error["error"]) == (1, "TargetExistsError")
        assert "say --overwrite" in error["message"]
        assert path.read_text() == "older"
        assert server.requests == []
        code, _, _ = await fetch(server, path, "--overwrite")
        assert code == 0
        assert path.read_bytes() == BODY
        code, out, _ = await fetch(server, tmp_path)
        assert (code, out) == (0, f"{tmp_path}/backup-2.zip\n")


async def test_a_server_with_a_certificate_of_ones_own_is_trusted_by_ca_file(
    tmp_path: Path, tls: Tls
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfile")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.cert, tls.key)
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        command = ("fetch", f"https://127.0.0.1:{port}/file", "--json", "--out", f"{tmp_path}/x")
        code, out, _ = await run(*command, "--ca-file", str(tls.ca))
        assert (code, lines_of(out)[-1]["event"]) == (0, "saved")
    assert (tmp_path / "x").read_text() == "file"


# -- when it goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("segments", ["1", "3"])
async def test_after_an_interrupt_the_same_command_goes_on_from_where_it_stopped(
    tmp_path: Path, number: signal.Signals, segments: str
) -> None:
    in_half = replace(HELD, cut=MIB // 2)
    lies = {1: HELD} if segments == "1" else {1: in_half, 3: in_half}
    async with serving(lies) as server:
        command = ("fetch", server.url(SIGNED), "--out", str(tmp_path), "--json")
        async with running(*command, "--segments", segments) as process:
            await written(tmp_path)
            process.send_signal(number)
            out, err = await process.communicate()
        assert (process.returncode, err) == (130, b"")
        *_, error = lines_of(out.decode())
        kept = error.pop("kept")
        assert 0 < kept <= 2 * MIB
        assert error == {
            "event": "error",
            "error": "KeyboardInterrupt",
            "message": "interrupted during the download",
            "key": None,
            "exit_code": 130,
            "resumable": True,
        }
        before = server.sent
        code, told, (saved,) = await fetch_json(server, tmp_path, "--segments", segments)
        assert (code, saved["resumed_from"], told[0]["received"]) == (0, kept, kept)
        assert {line["resumed_from"] for line in told} == {kept}
        assert server.sent - before < len(BODY)
    assert (tmp_path / "backup.zip").read_bytes() == BODY
    assert files_in(tmp_path) == ["backup.zip"]
    assert b"hidden-word" not in out


async def written(folder: Path) -> None:
    """Returns when something is written to a partial file."""
    while not any(each.read_bytes().strip(b"\0") for each in folder.glob(".af10-*.part")):
        await asyncio.sleep(0.01)


async def test_people_are_told_in_one_line_that_the_same_command_goes_on(tmp_path: Path) -> None:
    async with serving({1: HELD}) as server:
        async with running("fetch", server.url(SIGNED), "--out", str(tmp_path)) as process:
            await written(tmp_path)
            process.send_signal(signal.SIGINT)
            out, err = await process.communicate()
        assert (process.returncode, out) == (130, b"")
        *_, error, advice = err.decode().splitlines()
        assert error == "error: interrupted during the download"
        assert advice.startswith("go on          ")
        assert advice.endswith(" are here: the same command goes on from where it stopped")

        code, _, text = await fetch(server, tmp_path)
    assert code == 0
    assert text.startswith("going on       resumed from ")
    assert ", resumed from " in text.splitlines()[-2]


@pytest.mark.parametrize("pause", [0, 0.002, 0.01])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_impatient_second_interrupt_spoils_nothing(
    tmp_path: Path, number: signal.Signals, pause: float
) -> None:
    async with serving({1: HELD}) as server:
        command = ("fetch", server.url(SIGNED), "--out", str(tmp_path), "--json")
        async with running(*command) as process:
            await written(tmp_path)
            process.send_signal(number)
            await asyncio.sleep(pause)
            with suppress(ProcessLookupError):
                process.send_signal(number)
            out, err = await process.communicate()
    assert err == b""
    *_, error = lines_of(out.decode())
    assert (error["error"], error["resumable"]) == ("KeyboardInterrupt", True)


async def test_a_download_out_of_time_exits_with_3_and_can_be_gone_on_with(tmp_path: Path) -> None:
    async with serving({1: HELD}) as server:
        limit = ("--download-timeout", "1")
        code, _, (error,) = await fetch_json(server, tmp_path / "x.zip", *limit)
        assert (code, error["error"], error["exit_code"]) == (3, "DownloadTimeoutError", 3)
        assert error["resumable"] is True
        code, _, (saved,) = await fetch_json(server, tmp_path / "x.zip")
    assert (code, saved["resumed_from"]) == (0, error["kept"])
    assert (tmp_path / "x.zip").read_bytes() == BODY


async def test_nobody_is_promised_more_than_can_be_held(tmp_path: Path) -> None:
    """A server without validators: what is here cannot be told from another version."""
    lie = Lie(cut=2 * MIB, then="hold", headers={"ETag": None, "Last-Modified": None})
    async with serving(lie) as server:
        code, _, (error,) = await fetch_json(server, tmp_path, "--download-timeout", "1")
    assert (code, error["resumable"]) == (3, False)
    assert "kept" not in error
    assert files_in(tmp_path) == []


async def test_what_a_final_refusal_leaves_is_not_promised(tmp_path: Path) -> None:
    async with serving({1: HELD, 2: Lie(status=403)}) as server:
        await fetch_json(server, tmp_path, "--download-timeout", "1")
        code, _, (error,) = await fetch_json(server, tmp_path)
    assert (code, error["error"], error["resumable"]) == (1, "DownloadRefusedError", False)


async def test_silence_is_a_broken_connection_after_the_stall_timeout(tmp_path: Path) -> None:
    async with serving({1: HELD}) as server:
        code, _, (saved,) = await fetch_json(server, tmp_path, "--stall-timeout", "0.3")
    assert (code, saved["attempts"], saved["resumed_from"]) == (0, 2, 0)


async def test_a_server_that_says_no_is_exit_code_1(tmp_path: Path) -> None:
    async with serving(Lie(status=404)) as server:
        code, out, err = await fetch(server, tmp_path)
    assert (code, out) == (1, "")
    assert "HTTP 404" in err.splitlines()[-1]
    assert files_in(tmp_path) == []


URL = "https://example.com/file?signature=hidden-word"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["fetch", URL], "--out"),
        (["fetch", "--out", "x"], "URL"),
        (["fetch", URL, URL, "--out", "x"], "unrecognized"),
        (["fetch", "hidden-word", "--out", "x"], "not an http or https address"),
        (["fetch", "ftp://example.com/hidden-word", "--out", "x"], "not an http or https address"),
        (["fetch", "https://a:hidden-word@example.com/x", "--out", "x"], "a user name"),
        (["fetch", URL, "--out", "x", "--segments", "0"], '"auto", or a number from 1 to 64'),
        (["fetch", URL, "--out", "x", "--segments", "many"], '"auto", or a number from 1 to 64'),
        (["fetch", URL, "--out", "x", "--sha256", "abc"], "64 hexadecimal digits"),
        (["fetch", URL, "--out", "x", "--md5", "0" * 31], "32 hexadecimal digits"),
        (["fetch", URL, "--out", "x", "--max-size", "big"], "not a size"),
        (["fetch", URL, "--out", "x", "--min-speed", "fast"], "not a size"),
        (["fetch", URL, "--out", "x", "--stall-timeout", "0"], "more than 0 seconds"),
        (["fetch", URL, "--out", "x", "--download-timeout", "soon"], "a number of seconds"),
        (["fetch", URL, "--out", "x", "--ca-file", "nowhere"], "not a PEM file"),
        (["fetch", URL, "--out", "x", "--allowed-host", URL], "names of hosts"),
        (["fetch", URL, "--out", "http://example.com/x"], "s3, gs, az or file"),
        (["fetch", URL, "--out", "s3:///key"], "it names no bucket"),
        (["fetch", URL, "--out", "s3://bucket/a/../b"], "empty, . or .."),
        (["fetch", URL, "--out", "s3://bucket/x?y=z"], "a query"),
        (["fetch", URL, "--out", "s3://me:hidden-word@bucket/x"], "credentials"),
        (["fetch", URL, "--out", "file://elsewhere/x"], "another machine"),
        (["fetch", URL, "--out", "s3://bucket/x", "--segments", "2"], "--segments and --md5"),
        (["fetch", URL, "--out", "file:///x", "--md5", "0" * 32], "--segments and --md5"),
        ([URL], "invalid choice"),
    ],
)
def test_what_makes_no_sense_is_exit_code_2_and_names_no_url(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: list[str],
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert text in err
    assert "hidden-word" not in err
    assert files_in(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_exit_code_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for out in (f"{tmp_path}/file/x", f"{tmp_path}/file/", f"file://{tmp_path}/file/x"):
        assert main(["fetch", URL, "--out", out]) == 2
        assert "cannot be used: it is no folder" in capsys.readouterr().err
