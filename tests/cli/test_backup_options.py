"""Where backups go, and what else is asked of their download."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from af10_async import CopiedFile, SavedFile
from af10_async.__main__ import main
from af10_async.cli.arguments import parse
from af10_async.cli.destination import Destination
from af10_async.sandbox import Fault, Sandbox

from ..conftest import Tls
from .processes import lines_of, run, running
from .s3 import s3_server

BACKUP = ("backup", "owner", "--json", "--out")


@pytest.fixture
async def sandbox(tls: Tls) -> AsyncIterator[Sandbox]:
    """One whose files come in several blocks."""
    async with Sandbox(callback_ca=tls.ca, file_size=5 * 2**20) as running:
        yield running


def digest_of(sandbox: Sandbox) -> str:
    return hashlib.sha256(sandbox.archive(sandbox.jobs[-1])).hexdigest()


async def test_a_backup_goes_to_object_storage(
    sandbox: Sandbox, environment: dict[str, str]
) -> None:
    async with s3_server() as s3:
        url = f"s3://{s3.bucket}/today/"
        code, out, err = await run(*BACKUP, url, env=environment | s3.environment)
        assert (code, err) == (0, "")
        copied = lines_of(out)[-1]
        assert copied.pop("seconds") >= 0
        (name,) = (await s3.state())["objects"]
        assert (await s3.state())["objects"][name] == digest_of(sandbox)
    assert copied == {
        "event": "copied",
        "url": f"s3://{s3.bucket}/{name}",
        "size": len(sandbox.archive(sandbox.jobs[0])),
        "sha256": digest_of(sandbox),
        "attempts": 1,
        "key": sandbox.jobs[0].webhook_url.rpartition("/")[2],
    }
    assert s3.secret not in out


async def test_an_interrupted_copy_leaves_nothing_and_promises_nothing(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    sandbox.faults.add(Fault.stall(2 * 2**20))
    environment["AF10_STORE"] = f"sqlite:{tmp_path}/jobs.db"
    async with s3_server() as s3:
        url = f"s3://{s3.bucket}/today/"
        async with running(*BACKUP, url, env=environment | s3.environment) as process:
            assert process.stdout is not None
            line: dict[str, Any] = {"event": "started"}
            while line["event"] != "progress" or line["received"] == 0:  # some of it is on its way
                line = json.loads(await process.stdout.readline())
            process.send_signal(signal.SIGINT)
            out, err = await process.communicate()
        state = await s3.state()
        assert (process.returncode, err) == (130, b"")
        assert lines_of(out.decode())[-1]["resumable"] is False
        assert (state["objects"], state["uploads"]) == ({}, [])
        key = sandbox.jobs[0].webhook_url.rpartition("/")[2]
        command = ("resume", key, "--json", "--out", url)
        code, text_out, _ = await run(*command, env=environment | s3.environment)
        assert (code, lines_of(text_out)[-1]["event"]) == (0, "copied")


async def test_a_backup_goes_to_a_file_url(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    url = f"file://{tmp_path}/new/backup.zip"
    code, out, err = await run("backup", "owner", "--out", url, env=environment)
    assert (code, out) == (0, f"{url}\n"), err
    assert (tmp_path / "new/backup.zip").read_bytes() == sandbox.archive(sandbox.jobs[0])

    code, out, _ = await run(*BACKUP, url, env=environment)
    assert (code, lines_of(out)[-1]["error"]) == (1, "TargetExistsError")
    assert len(sandbox.jobs) == 1  # it was told before anything was sent


async def test_segments_and_checksums_go_with_a_backup_too(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    options: tuple[str, ...] = ("--segments", "3", "--max-size", "1GiB", "--stall-timeout", "20")
    code, out, err = await run(*BACKUP, str(tmp_path), *options, env=environment)
    assert (code, err) == (0, "")
    assert lines_of(out)[-1]["sha256"] == digest_of(sandbox)
    ranges = {seen.headers.get("range") for seen in sandbox.requests if seen.where == "file"}
    assert len(ranges) > 1

    options = ("--sha256", "0" * 64)
    code, out, _ = await run(*BACKUP, str(tmp_path), *options, env=environment)
    error = lines_of(out)[-1]
    assert (code, error["error"], error["resumable"]) == (1, "ChecksumMismatchError", False)
    assert len(list(tmp_path.iterdir())) == 1


# -- interrupted -----------------------------------------------------------------------------------


async def interrupted(
    sandbox: Sandbox, env: dict[str, str], folder: Path, number: signal.Signals, *options: str
) -> tuple[str, str, str]:
    """A backup that was interrupted during its download: its key, stdout and stderr."""
    sandbox.faults.add(Fault.stall(2 * 2**20))
    async with running("backup", "owner", "--out", str(folder), *options, env=env) as process:
        while not any(each.stat().st_size for each in folder.glob(".af10-*.part")):
            assert process.returncode is None
            await asyncio.sleep(0.01)
        process.send_signal(number)
        out, err = await process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in err
    return sandbox.jobs[0].webhook_url.rpartition("/")[2], out.decode(), err.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupt_says_which_job_and_leaves_no_litter_where_the_job_is_lost(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    key, out, err = await interrupted(sandbox, environment, tmp_path, number)
    assert out == ""
    assert f"interrupted during the download [job {key}]" in err
    assert "go on" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_download_is_kept_and_resume_goes_on_with_it_and_leaves_no_litter(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "out"
    environment["AF10_STORE"] = f"sqlite:{tmp_path}/jobs.db"
    key, out, err = await interrupted(sandbox, environment, folder, number, "--json")
    error = lines_of(out)[-1]
    assert (error["resumable"], error["key"], err) == (True, key, "")
    assert error["kept"] > 0
    kept = sorted(each.suffix for each in folder.iterdir())
    assert kept == [".json", ".part"]

    command = ("resume", key, "--json", "--out", str(folder))
    code, out, err = await run(*command, env=environment)
    assert (code, err) == (0, ""), out
    resuming, *told, saved = lines_of(out)
    assert resuming == {"event": "resuming", "key": key}
    assert {line["event"] for line in told} == {"progress"}
    assert {(line["resumed_from"], line["key"]) for line in told} == {(error["kept"], key)}
    assert (saved["event"], saved["resumed_from"]) == ("saved", error["kept"])
    assert Path(saved["path"]).read_bytes() == sandbox.archive(sandbox.jobs[0])
    assert [str(each) for each in folder.iterdir()] == [saved["path"]]


async def test_people_are_told_the_command_that_goes_on_with_an_interrupted_backup(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "my backups"
    environment["AF10_STORE"] = f"sqlite:{tmp_path}/jobs.db"
    key, _, err = await interrupted(sandbox, environment, folder, signal.SIGINT)
    command = f"`af10 resume {key} --out '{folder}'` goes on from where it stopped"
    assert any(line.endswith(f" are here: {command}") for line in err.splitlines())
    code, out, err = await run("resume", key, "--out", str(folder), env=environment)
    assert (code, Path(out.strip()).parent) == (0, folder)
    assert "going on       resumed from " in err


# -- refused before anything is sent ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("s3://", "it names no bucket"),
        ("gs:///key", "it names no bucket"),
        ("ftp://example.com/x", "s3, gs, az or file"),
        ("s3://bucket/key?x=y", "a query"),
        ("az://container/../key", "empty, . or .."),
        ("file://elsewhere/x", "another machine"),
    ],
)
def test_a_url_that_is_none_is_exit_code_2_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    out: str,
    words: str,
) -> None:
    told(monkeypatch, tmp_path)
    assert main([*BACKUP, out]) == 2
    (error,) = lines_of(capsys.readouterr().out)
    assert (error["error"], error["exit_code"]) == ("UsageError", 2)
    assert words in error["message"]
    assert "resumable" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["backup", "owner", "--out", "s3://bucket/key", "--segments", "1"],
        ["backup", "owner", "--out", "file:///key", "--md5", "0" * 32],
        ["resume", "a-key", "--out", "s3://bucket/key", "--segments", "auto"],
        ["resume", "a-key", "another", "--out", "s3://bucket/key"],
        ["resume", "--all", "--out", "s3://bucket/key/"],
        ["resume", "--all", "--out", "x", "--overwrite"],
        ["resume", "a-key", "--out", "x", "--sha256", "0" * 64],
    ],
)
def test_options_that_do_not_go_together_are_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: list[str],
) -> None:
    told(monkeypatch, tmp_path)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def told(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """An account at an address where nobody is, from an empty folder."""
    monkeypatch.chdir(folder)
    for name in ("API_KEY", "USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"AF10_{name}", "x")
    monkeypatch.setenv("AF10_BASE_URL", "http://127.0.0.1:9/v2")


async def test_a_missing_extra_is_told_before_the_job_is_started(
    sandbox: Sandbox, environment: dict[str, str]
) -> None:
    code = "import sys; sys.modules['obstore'] = None"
    code += "; from af10_async.__main__ import main; sys.exit(main())"
    found, out, err = await run(*BACKUP, "s3://b/k", env=environment, python=("-c", code))
    assert (found, err) == (2, "")
    (error,) = lines_of(out)
    assert error["error"] == "MissingExtraError"
    assert 'pip install "af10-async[storage]"' in error["message"]
    assert sandbox.requests == []


OPTIONS = ["--max-size", "5GiB", "--stall-timeout", "2.5", "--min-speed", "0", "--overwrite"]


@pytest.mark.parametrize("command", [["fetch", "https://x.example/y"], ["backup", "owner"]])
def test_every_option_reaches_the_download(command: list[str]) -> None:
    class File:
        given: dict[str, Any]

        async def save(self, target: str, **given: Any) -> SavedFile:
            self.given = {"target": target, **given}
            return SavedFile(Path(target), 0, "", 0.0)

        async def copy_to(self, target: str, **given: Any) -> CopiedFile:
            self.given = {"target": target, **given}
            return CopiedFile(0, "", 0.0, 1)

    expected = ["--sha256", "A" * 64]
    here = ["--segments", "auto", "--md5", "b" * 32]
    common = {
        "overwrite": True,
        "sha256": "a" * 64,
        "max_size": 5 * 2**30,
        "stall_timeout": 2.5,
        "min_speed": 0,
        "progress": print,
    }
    file: Any = File()
    parsed = parse([*command, "--out", "x", *OPTIONS, *expected, *here])
    asyncio.run(Destination("x", None).deliver(file, parsed, print))
    assert file.given == common | {"target": "x", "segments": "auto", "md5": "b" * 32}
    parsed = parse([*command, "--out", "s3://x/y", *OPTIONS, *expected])
    asyncio.run(Destination(None, "s3://x/y").deliver(file, parsed, print))
    assert file.given == common | {"target": "s3://x/y"}
