"""receive, jobs and resume, as real processes that share a store."""

from __future__ import annotations

import asyncio
import json
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from af10_async import AF10Client, Job
from af10_async.__main__ import main
from af10_async.cli.arguments import UsageError, parse
from af10_async.cli.values import age
from af10_async.sandbox import Fault, Sandbox
from af10_async.stores import open_store

from ..conftest import Tls
from ..ports import free_port
from .processes import lines_of, run, running

BACKUP = ("backup", "owner", "--json", "--out")


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'jobs.db'}"


@pytest.fixture
def receiver(store_url: str, tls: Tls) -> dict[str, str]:
    """The environment of a receiver, on a port of its own."""
    port = free_port()
    return {
        "AF10_STORE": store_url,
        "AF10_LISTEN_PORT": str(port),
        "AF10_PUBLIC_URL": f"https://127.0.0.1:{port}",
        "AF10_TLS_CERT": str(tls.cert),
        "AF10_TLS_KEY": str(tls.key),
    }


@pytest.fixture
def account(sandbox: Sandbox) -> dict[str, str]:
    return {
        "AF10_BASE_URL": sandbox.base_url,
        "AF10_API_KEY": sandbox.api_key,
        "AF10_USERNAME": sandbox.username,
        "AF10_PASSWORD": sandbox.password,
    }


@pytest.fixture
def worker(account: dict[str, str], receiver: dict[str, str]) -> dict[str, str]:
    """The environment of a worker that does not listen itself."""
    names = ("AF10_STORE", "AF10_PUBLIC_URL")
    return account | {name: receiver[name] for name in names}


@pytest.fixture
async def receiving(receiver: dict[str, str]) -> AsyncIterator[Process]:
    async with running("receive", "--json", env=receiver) as process:
        assert (await line_of(process))["event"] == "listening"
        yield process


async def line_of(process: Process) -> dict[str, Any]:
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(await process.stdout.readline())
    return found


def without_secrets(sandbox: Sandbox, text: str) -> None:
    for secret in (sandbox.api_key, sandbox.password, *(job.secret for job in sandbox.jobs)):
        assert secret not in text


async def test_a_backup_whose_callback_another_process_receives(
    sandbox: Sandbox, worker: dict[str, str], receiving: Process, tmp_path: Path
) -> None:
    code, out, err = await run(*BACKUP, str(tmp_path / "out"), env=worker)
    assert code == 0, out + err
    saved = lines_of(out)[-1]
    assert Path(saved["path"]).read_bytes() == sandbox.archive(sandbox.jobs[0])

    told = await line_of(receiving)
    assert (told["event"], told["level"]) == ("log", "info")
    assert saved["key"] in told["message"]
    receiving.send_signal(signal.SIGINT)
    assert await receiving.wait() == 130
    assert receiving.stdout is not None
    rest = (await receiving.stdout.read()).decode()
    without_secrets(sandbox, out + err + rest + json.dumps(told))


async def test_a_job_that_was_interrupted_is_listed_and_resumed_in_another_process(
    sandbox: Sandbox, worker: dict[str, str], receiving: Process, tmp_path: Path
) -> None:
    """kill -9, a callback while nobody waits, and one whole file at the end."""
    sandbox.faults.add(Fault.never())
    out = tmp_path / "out"
    async with running(*BACKUP, str(out), env=worker) as process:
        key = (await line_of(process))["key"]
        assert (await line_of(process))["event"] == "accepted"
        process.kill()

    code, listed, err = await run("jobs", "--json", env=worker)
    assert (code, err) == (0, "")
    (job,) = lines_of(listed)
    assert (job["key"], job["state"], job["unfinished"]) == (key, "accepted", True)
    assert job["ticket"].startswith(f"af10-1.{key}.")

    assert await sandbox.call_back(sandbox.jobs[0]) == 200
    code, resumed, err = await run("resume", "--all", "--json", "--out", str(out), env=worker)
    assert (code, err) == (0, ""), resumed
    lines = lines_of(resumed)
    events = [line["event"] for line in lines if line["event"] != "progress"]
    assert events == ["resuming", "saved"]
    assert Path(lines[-1]["path"]).read_bytes() == sandbox.archive(sandbox.jobs[0])
    assert len(list(out.iterdir())) == 1
    assert sandbox.count("POST", "/backup/owner") == 1

    code, nothing, _ = await run("resume", "--all", "--json", "--out", str(out), env=worker)
    assert (code, lines_of(nothing)[0]["event"]) == (0, "nothing")
    without_secrets(sandbox, listed + resumed + err)


async def left(sandbox: Sandbox, worker: dict[str, str], number: int) -> list[Job[Any]]:
    """Jobs that were accepted, and whose callbacks are still to come."""
    sandbox.faults.add(Fault.never(times=number))
    names = {name.removeprefix("AF10_").lower(): value for name, value in worker.items()}
    async with AF10Client(**names) as af10:  # type: ignore[arg-type]
        return [await af10.backup_owner().start() for _ in range(number)]


async def test_jobs_are_resumed_by_key_and_by_ticket_and_each_failure_is_told(
    sandbox: Sandbox, worker: dict[str, str], receiving: Process, tmp_path: Path
) -> None:
    first, second, third = await left(sandbox, worker, 3)
    for job in sandbox.jobs[:2]:
        assert await sandbox.call_back(job) == 200
    keys = (first.key, second.ticket, third.ticket, first.key)
    options = ("--out", str(tmp_path / "out"), "--callback-timeout", "3", "--json")
    code, out, err = await run("resume", *keys, *options, env=worker)
    assert (code, err) == (3, "")
    lines = [line for line in lines_of(out) if line["event"] != "progress"]
    found = sorted(line["event"] for line in lines)
    assert found == ["error", "resuming", "resuming", "resuming", "saved", "saved"]


async def test_prune_forgets_finished_jobs_and_no_others(
    sandbox: Sandbox, worker: dict[str, str], receiving: Process, tmp_path: Path
) -> None:
    done, _ = await left(sandbox, worker, 2)
    assert await sandbox.call_back(sandbox.jobs[0]) == 200
    code, _, err = await run("resume", done.key, "--out", str(tmp_path / "out"), env=worker)
    assert code == 0, err

    code, out, _ = await run("jobs", "prune", "--older-than", "1d", "--json", env=worker)
    assert (code, lines_of(out)) == (0, [{"event": "pruned", "count": 0}])
    code, out, _ = await run("jobs", "--json", "prune", "--older-than", "0s", env=worker)
    assert (code, lines_of(out)) == (0, [{"event": "pruned", "count": 1}])
    code, out, _ = await run("jobs", env=worker)
    assert code == 0
    assert "accepted" in out
    assert sandbox.jobs[1].webhook_url.rpartition("/")[2] in out
    assert "done" not in out


# -- in this process, because it is over soon ------------------------------------------------------


Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Exit code, stdout and stderr of a command."""

    def say(*words: str, **variables: str) -> tuple[int, str, str]:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        code = main(words)
        out, err = capsys.readouterr()
        return code, out, err

    return say


ACCOUNT = {
    "AF10_BASE_URL": "http://127.0.0.1:9/v2",
    "AF10_API_KEY": "key",
    "AF10_USERNAME": "somebody",
    "AF10_PASSWORD": "password",
}


@pytest.mark.parametrize("command", ["receive", "jobs"])
def test_a_store_of_this_process_alone_is_refused(say: Say, tls: Tls, command: str) -> None:
    certificate = {"AF10_TLS_CERT": str(tls.cert), "AF10_TLS_KEY": str(tls.key)}
    code, out, err = say(command, AF10_STORE="memory:", **certificate)
    assert (code, out) == (2, "")
    assert "AF10_STORE" in err


def test_a_store_that_cannot_be_used_is_one_sentence_and_exit_code_2(
    say: Say, tmp_path: Path
) -> None:
    (tmp_path / "jobs.db").write_text("this is no database, but somebody's letter " * 99)
    code, out, err = say("jobs", AF10_STORE=f"sqlite:{tmp_path}/jobs.db")
    assert (code, out) == (2, "")
    assert "jobs.db" in err


def test_a_store_that_cannot_be_reached_is_one_sentence_and_exit_code_1(say: Say) -> None:
    url = "valkey://somebody:hidden-word@127.0.0.1:1"
    code, out, err = say("jobs", "--json", AF10_STORE=url)
    assert (code, err) == (1, "")
    (line,) = lines_of(out)
    assert line["error"] == "StoreError"
    assert "hidden-word" not in out


def test_a_ticket_that_cannot_be_read_is_one_sentence_and_exit_code_2(
    say: Say, tmp_path: Path
) -> None:
    command = ("resume", "af10-2.abc.def", "--out", str(tmp_path), "--json")
    code, out, err = say(*command, **ACCOUNT)
    assert (code, err) == (2, "")
    assert "upgrade" in lines_of(out)[0]["message"]


@pytest.mark.parametrize("key", ["no-such-key", "-" + 47 * "k", "--" + 46 * "k"])
def test_a_key_that_nobody_knows_is_one_sentence_and_exit_code_1(
    say: Say, tmp_path: Path, key: str
) -> None:
    """Also one that begins as an option does: a key may."""
    code, _, err = say("resume", key, "--out", str(tmp_path), **ACCOUNT)
    assert code == 1
    assert "no job under this key" in err


def test_to_list_a_store_that_is_not_there_makes_none(say: Say, tmp_path: Path) -> None:
    code, out, err = say("jobs", AF10_STORE=f"sqlite:{tmp_path}/misspelt/jobs.db")
    assert (code, out) == (2, "")
    assert "no such file" in err
    assert list(tmp_path.iterdir()) == []


def test_the_store_may_be_named_by_a_file(say: Say, tmp_path: Path) -> None:
    """Its URL may hold a password."""
    path = tmp_path / "jobs.db"
    (tmp_path / "store").write_text(f"sqlite:{path}\n")

    async def make() -> None:
        store = open_store(f"sqlite:{path}")
        await store.open()
        await store.close()

    asyncio.run(make())
    code, out, err = say("jobs", AF10_STORE_FILE=str(tmp_path / "store"))
    assert (code, out) == (0, "")
    assert "no job" in err


@pytest.mark.parametrize(
    "words",
    [
        ["resume", "--out", "x"],
        ["resume", "--all"],
        ["resume", "--all", "key", "--out", "x"],
        ["resume", "--all", "--out", "x", "--jobs", "0"],
        ["jobs", "prune"],
        ["jobs", "burn"],
    ],
)
def test_what_makes_no_sense_is_said_in_words(say: Say, words: list[str]) -> None:
    code, out, err = say(*words, **ACCOUNT)
    assert (code, out) == (2, "")
    assert "error:" in err


def test_an_age_is_a_number_with_a_unit() -> None:
    assert [age(text) for text in ("45s", "90m", "12h", "30d", "2w", "1.5d")] == [
        45,
        5400,
        43200,
        2592000,
        1209600,
        129600,
    ]
    for text in ("", "30", "d", "30 days", "1y"):
        with pytest.raises(UsageError, match="not an age"):
            parse(["jobs", "prune", "--older-than", text])
