"""The examples do what their docstrings say, as processes of their own against a sandbox."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from af10_async.sandbox import Account, Fault, Sandbox

EXAMPLES = Path(__file__).parents[2] / "examples"
DEALERS = ("jansen", "bakker", "visser")


@dataclass(frozen=True)
class Result:
    code: int | None
    out: str
    err: str


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(accounts=[Account(username=name) for name in DEALERS]) as running:
        yield running


def environment(sandbox: Sandbox, **extra: str) -> dict[str, str]:
    """How a process of its own finds the sandbox, and is found by it."""
    cert, key = sandbox.issue_certificate("127.0.0.1")
    here = {name: value for name, value in os.environ.items() if not name.startswith("AF10_")}
    there = {
        "AF10_BASE_URL": sandbox.base_url,
        "AF10_TLS_CERT": str(cert),
        "AF10_TLS_KEY": str(key),
        "PYTHONUNBUFFERED": "1",
    }
    return {**here, **there, **extra}


def credentials(account: Account) -> dict[str, str]:
    return {
        "api_key": account.api_key,
        "username": account.username,
        "password": account.password,
    }


def as_dealer(sandbox: Sandbox, dealer: str) -> dict[str, str]:
    account = sandbox.accounts[DEALERS.index(dealer)]
    own = {f"AF10_{name.upper()}": value for name, value in credentials(account).items()}
    return environment(sandbox, **own)


def accounts_file(sandbox: Sandbox, folder: Path) -> str:
    """Who the dealers are."""
    path = folder / "accounts.toml"
    sandbox.write_accounts(path)
    return str(path)


async def run(name: str, *arguments: str | Path, env: dict[str, str]) -> Result:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLES / name), *map(str, arguments)),
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return Result(process.returncode, out.decode(), err.decode())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# -- nightly_backup ----------------------------------------------------------------------------


async def test_nightly_backup_saves_the_file_or_says_in_one_sentence_why_not(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    unset = as_dealer(sandbox, "visser")
    del unset["AF10_PASSWORD"]
    sandbox.faults.add(Fault.file_html(account="bakker"))
    # At once: most of what each takes is the start of an interpreter.
    good, no_file, refused, misused = await asyncio.gather(
        run("nightly_backup.py", tmp_path / "a" / "b", env=as_dealer(sandbox, "jansen")),
        run("nightly_backup.py", tmp_path / "c", env=as_dealer(sandbox, "bakker")),
        run("nightly_backup.py", tmp_path / "d", env={**unset, "AF10_PASSWORD": "not-it"}),
        run("nightly_backup.py", tmp_path / "e", env=unset),
    )
    jobs = {job.account: job for job in sandbox.jobs}
    assert sorted(jobs) == ["bakker", "jansen"]

    assert (good.code, good.err) == (0, "")
    path = Path(good.out.strip())
    assert list((tmp_path / "a" / "b").iterdir()) == [path]
    assert digest(path) == sandbox.archive_sha256(jobs["jansen"])

    assert [each.code for each in (no_file, refused, misused)] == [1, 1, 2]
    for failure in (no_file, refused, misused):
        assert failure.out == ""
        assert failure.err.count("\n") == 1
    assert jobs["bakker"].webhook_url.rpartition("/")[2] in no_file.err
    assert list((tmp_path / "c").iterdir()) == []
    assert "not-it" not in refused.err
    assert "AF10_PASSWORD" in misused.err


# -- pipeline ----------------------------------------------------------------------------------


async def test_pipeline_saves_every_account_but_the_one_that_fails(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    accounts, folder = accounts_file(sandbox, tmp_path), tmp_path / "backups"
    sandbox.faults.add(Fault.status(403, {"errorCode": 403}, on="start", account="bakker"))
    result = await run("pipeline.py", accounts, folder, env=environment(sandbox))
    assert (result.code, result.err) == (1, "")
    assert result.out.endswith("2 saved, 1 failed\n")
    assert sorted(each.name for each in folder.iterdir()) == ["jansen", "visser"]
    for job in sandbox.jobs:
        (path,) = (folder / job.account).iterdir()
        assert digest(path) == sandbox.archive_sha256(job)
        assert str(path) in result.out
    (line,) = (line for line in result.out.splitlines() if "FAILED" in line)
    assert "bakker" in line


# -- fastapi_service ---------------------------------------------------------------------------


@asynccontextmanager
async def service(env: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """The service under uvicorn, on a free port."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "--port", "0"),
        "fastapi_service:app",
        env=env,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    seen = ""
    try:
        while not (found := re.search(r"running on (http://\S+)", seen)):
            line = await process.stderr.readline()
            assert line, f"the service did not start: {seen}"
            seen += line.decode()
        async with httpx.AsyncClient(base_url=found[1], timeout=10) as http:
            yield http
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        _, rest = await process.communicate()
    seen += rest.decode()
    assert "Traceback" not in seen
    assert "Application shutdown complete" in seen


async def test_service_starts_backups_tells_their_state_and_streams_their_files(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    env = environment(sandbox, ACCOUNTS=accounts_file(sandbox, tmp_path))
    sandbox.faults.add(Fault.never(account="visser"))
    async with service(env) as http:
        keys = {}
        for dealer in DEALERS:
            started = await http.post(f"/dealers/{dealer}/backups")
            assert started.status_code == 202
            keys[dealer] = started.json()["key"]
        await sandbox.settled()  # AF10 has called back, and was answered

        for job in sandbox.jobs[:2]:
            key = keys[job.account]
            assert (await http.get(f"/backups/{key}")).json() == {
                "key": key,
                "state": "called_back",
            }
            file = await http.get(f"/backups/{key}/file")
            assert file.status_code == 200
            assert hashlib.sha256(file.content).hexdigest() == sandbox.archive_sha256(job)
            assert (await http.get(f"/backups/{key}")).json()["state"] == "ready"

        early = await http.get(f"/backups/{keys['visser']}/file")
        assert (early.status_code, early.json()["detail"][-8:]) == (409, "accepted")
        assert (await http.get("/backups/nonsense")).status_code == 404
        assert (await http.post("/dealers/nobody/backups")).status_code == 404

        with sandbox.faults.during(Fault.file_html()):
            no_file = await http.get(f"/backups/{keys['jansen']}/file")
        with sandbox.faults.during(Fault.status(403, {"errorCode": 403}, on="start")):
            refused = await http.post("/dealers/jansen/backups")
        assert (no_file.status_code, refused.status_code) == (502, 502)
        assert keys["jansen"] in no_file.json()["detail"]
        assert "403" in refused.json()["detail"]
