"""The command line, as real processes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import zipfile
from asyncio.subprocess import PIPE
from pathlib import Path

import aiohttp
import pytest

from af10_async.__main__ import main
from af10_async.cli.arguments import UsageError, parse
from af10_async.cli.values import size
from af10_async.sandbox import Fault, Sandbox

from ..conftest import Tls
from .processes import lines_of, run, running

# -- demo ------------------------------------------------------------------------------------------


async def test_demo_leaves_a_whole_file_and_prints_its_path_alone(tmp_path: Path) -> None:
    code, out, err = await run("demo", "--out", str(tmp_path))
    assert code == 0, err
    path = Path(out.removesuffix("\n"))
    assert path.parent == tmp_path
    assert zipfile.ZipFile(path).testzip() is None
    for word in ("sandbox", "listening", "registered", "accepted", "called back", "saved", "MiB"):
        assert word in err


async def test_demo_json_is_one_object_a_line(tmp_path: Path) -> None:
    code, out, err = await run("demo", "--json", "--out", str(tmp_path))
    assert (code, err) == (0, "")
    events = [line["event"] for line in lines_of(out)]
    assert [event for event in events if event != "progress"] == [
        *("sandbox", "listening", "authenticated"),
        *("registered", "accepted", "called_back", "ready", "saved"),
    ]
    saved = lines_of(out)[-1]
    assert Path(saved["path"]).stat().st_size == saved["size"] == 5 * 2**20


# -- backup owner ----------------------------------------------------------------------------------


async def test_backup_owner_saves_the_file(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    code, out, err = await run("backup", "owner", "--out", str(tmp_path), env=environment)
    assert code == 0, err
    assert Path(out.strip()).read_bytes() == sandbox.archive(sandbox.jobs[0])
    for secret in (sandbox.api_key, sandbox.password, sandbox.jobs[0].secret, "/files/"):
        assert secret not in out + err


async def test_a_timeout_prints_the_key_and_exits_with_3(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    sandbox.faults.add(Fault.never(times=None))
    command = ("backup", "owner", "--out", str(tmp_path), "--callback-timeout", "0.1")
    code, out, err = await run(*command, env=environment)
    key = sandbox.jobs[0].webhook_url.rpartition("/")[2]
    assert (code, out) == (3, "")
    assert f"[job {key}]" in err.splitlines()[-2]
    assert f"af10-1.{key}." in err.splitlines()[-1]
    assert "Traceback" not in err
    code, out, err = await run(*command, "--json", env=environment)
    assert (code, err) == (3, "")
    error = lines_of(out)[-1]
    assert error["event"] == "error"
    assert error["error"] == "CallbackTimeoutError"
    assert error["exit_code"] == 3
    assert error["key"] == sandbox.jobs[1].webhook_url.rpartition("/")[2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"AF10_BASE_URL": ""}, "AF10_BASE_URL is not set"),
        ({"AF10_BASE_URL": "nonsense"}, "AF10_BASE_URL is malformed: it must be"),
        ({"AF10_LISTEN_PORT": "x"}, "AF10_LISTEN_PORT is malformed: it must be a port number"),
        ({"AF10_TLS_KEY": ""}, "AF10_TLS_CERT is set but AF10_TLS_KEY is not"),
        ({"AF10_TLS_CERT": "", "AF10_TLS_KEY": ""}, "AF10_PUBLIC_URL"),
        ({"AF10_PUBLIC_URL": "http://x.example"}, "AF10_PUBLIC_URL is malformed"),
        ({"AF10_STORE": "oracle://x"}, "AF10_STORE is malformed"),
    ],
)
def test_a_wrong_configuration_is_one_sentence_and_exit_code_2(
    tls: Tls,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    changes: dict[str, str],
    words: str,
) -> None:
    usual = {
        "AF10_BASE_URL": "https://api.example.com",
        "AF10_API_KEY": "k",
        "AF10_USERNAME": "u",
        "AF10_PASSWORD": "p",
        "AF10_TLS_CERT": str(tls.cert),
        "AF10_TLS_KEY": str(tls.key),
    }
    for name, value in (usual | changes).items():
        monkeypatch.setenv(name, value)
    assert main(["backup", "owner", "--out", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert words in err


async def test_wrong_credentials_are_one_sentence_and_exit_code_1(
    environment: dict[str, str], tmp_path: Path
) -> None:
    environment["AF10_PASSWORD"] = "wrong"
    code, out, err = await run("backup", "owner", "--out", str(tmp_path), env=environment)
    assert (code, out) == (1, "")
    assert "check api_key, username and password" in err.splitlines()[-1]
    assert "wrong" not in err


def test_the_commands_run_in_this_process_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `af10` and `python -m af10_async` call them."""
    for arguments in (["demo"], ["demo", "--json"]):
        assert main([*arguments, "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith(str(tmp_path))
    assert lines_of(out.partition("\n")[2])[-1]["event"] == "saved"
    assert "SHA-256" in err
    assert len(list(tmp_path.iterdir())) == 2


async def test_a_folder_that_cannot_be_used_is_told_before_anything_is_sent(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    out = str(tmp_path / "file")
    code, _, err = await run("backup", "owner", "--out", out, env=environment)
    assert code == 2
    assert "cannot be used" in err
    assert sandbox.requests == []


# -- sandbox ---------------------------------------------------------------------------------------


async def test_the_sandboxes_first_json_line_is_all_that_a_client_needs(
    tls: Tls, tmp_path: Path
) -> None:
    options = ("--job-seconds", "0", "--file-size", "64KiB", "--callback-ca", str(tls.ca))
    async with running("sandbox", "--json", "--tls", *options) as process:
        assert process.stdout is not None
        first = json.loads(await process.stdout.readline())
        assert list(first) == ["base_url", "api_key", "username", "password", "ca_file"]
        environment = {f"AF10_{name.upper()}": value for name, value in first.items()}
        environment |= {"AF10_TLS_CERT": str(tls.cert), "AF10_TLS_KEY": str(tls.key)}
        code, out, err = await run("backup", "owner", "--out", str(tmp_path), env=environment)
        assert code == 0, err
        assert Path(out.strip()).stat().st_size == 64 * 1024
        process.send_signal(signal.SIGINT)
        rest, err_bytes = await process.communicate()
    assert process.returncode == 130
    assert (rest, err_bytes) == (b"", b"")
    assert not Path(first["ca_file"]).exists()


async def test_the_sandbox_for_people_prints_what_a_shell_can_read() -> None:
    async with running("sandbox") as process:
        assert process.stdout is not None
        lines = [(await process.stdout.readline()).decode() for _ in range(4)]
        names = [line.removeprefix("export ").partition("=")[0] for line in lines]
        assert names == ["AF10_BASE_URL", "AF10_API_KEY", "AF10_USERNAME", "AF10_PASSWORD"]
        base_url = lines[0].partition("=")[2].strip()
        async with aiohttp.ClientSession() as session, session.get(base_url + "/x") as answer:
            assert answer.status == 404


async def test_the_sandboxes_port_may_be_taken(sandbox: Sandbox) -> None:
    port = sandbox.base_url.rpartition(":")[2].partition("/")[0]
    code, out, err = await run("sandbox", "--port", port)
    assert (code, out) == (2, "")
    assert "--port" in err
    assert len(err.splitlines()) == 1


# -- usage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["backup"],
        ["backup", "owner"],
        ["backup", "owner", "--out", "x", "--callback-timeout", "0"],
        ["backup", "owner", "--out", "x", "--callback-timeout", "soon"],
        ["sandbox", "--port", "70000"],
        ["sandbox", "--file-size", "big"],
        ["sandbox", "--job-seconds", "-1"],
        ["sandbox", "--callback-ca", "no such file"],
        ["sandbox", "--callback-ca", __file__],
        ["demo", "--js"],
    ],
)
def test_wrong_words_are_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match="--help"):
        parse(arguments)


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", 7), ("64KiB", 65536), ("5 MB", 5_000_000), ("1.5k", 1536), ("2GiB", 2 * 2**30)],
)
def test_sizes_are_read(text: str, number: int) -> None:
    assert size(text) == number


async def test_wrong_words_exit_with_2_in_json_too() -> None:
    code, out, err = await run("backup", "owner", "--json")
    assert (code, err) == (2, "")
    assert lines_of(out)[0]["error"] == "UsageError"


async def test_nobody_reading_is_no_traceback(tmp_path: Path) -> None:
    shell = f"{sys.executable} -m af10_async demo --json --out {tmp_path} | head -n 1"
    process = await asyncio.create_subprocess_shell(shell, stdout=PIPE, stderr=PIPE)
    out, err = await process.communicate()
    assert json.loads(out)["event"] == "sandbox"
    assert err == b""


async def test_a_full_stdout_is_one_sentence(tmp_path: Path) -> None:
    shell = f"{sys.executable} -m af10_async demo --json --out {tmp_path} > /dev/full"
    process = await asyncio.create_subprocess_shell(shell, stderr=PIPE)
    _, err = await process.communicate()
    assert process.returncode == 1
    assert err.decode().startswith("error: cannot write")
    assert len(err.splitlines()) == 1


async def test_a_closed_stdout_is_no_traceback(tmp_path: Path) -> None:
    shell = f"{sys.executable} -m af10_async demo --json --out {tmp_path} >&-"
    process = await asyncio.create_subprocess_shell(shell, stderr=PIPE)
    _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("missing", "arguments", "line"),
    [
        ("rich", ["--version"], 'pip install "af10-async[cli]"'),
        ("trustme", ["demo", "--out", "{out}"], 'pip install "af10-async[sandbox]"'),
    ],
)
async def test_a_missing_extra_is_one_sentence_with_the_pip_line(
    tmp_path: Path, missing: str, arguments: list[str], line: str
) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from af10_async import *"
    code += "; from af10_async.__main__ import main; sys.exit(main())"
    arguments = [each.format(out=tmp_path) for each in arguments]
    found, out, err = await run(*arguments, python=("-c", code))
    assert found == 2
    assert line in err
    assert len(err.splitlines()) == 1 or "sandbox" in err
    assert "Traceback" not in out + err
