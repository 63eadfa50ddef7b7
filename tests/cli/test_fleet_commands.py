"""Many accounts from the command line: what people and programs see, and how it ends."""

from __future__ import annotations

import asyncio
import io
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from rich.console import Console

from af10_async import AF10Error, Fleet, JobEvent, JobState, Progress, SavedFile
from af10_async.cli import fleets
from af10_async.cli.arguments import parse
from af10_async.cli.context import Context
from af10_async.cli.exit_codes import exit_code, exit_code_of_many
from af10_async.cli.json_output import JsonOutput
from af10_async.cli.output import Failure
from af10_async.cli.people_board import PeopleBoard
from af10_async.cli.people_output import PeopleOutput
from af10_async.sandbox import Account, Fault, Sandbox

from ..conftest import Tls
from .processes import Lines, lines_of, run, running

NAMES = [f"dealer-{number}" for number in range(1, 6)]
PASSWORD = "canary-password"


@pytest.fixture
async def sandbox(tls: Tls) -> AsyncIterator[Sandbox]:
    accounts = [Account(username=name, password=f"{PASSWORD}-{name}") for name in NAMES]
    async with Sandbox(callback_ca=tls.ca, accounts=accounts) as running:
        yield running


@pytest.fixture
def common(tls: Tls) -> dict[str, str]:
    return {"AF10_TLS_CERT": str(tls.cert), "AF10_TLS_KEY": str(tls.key)}


@pytest.fixture
def accounts(sandbox: Sandbox, tmp_path: Path) -> Path:
    """The file of all accounts; one password is wrong, and one is missing."""
    lines = [f'base_url = "{sandbox.base_url}"']
    for account in sandbox.accounts:
        password = f'"{account.password}"' if account.username != "dealer-2" else '"wrong"'
        if account.username == NAMES[-1]:
            password = '{ env = "AF10_NO_SUCH" }'
        lines += [
            f"[accounts.{account.username}]",
            f'api_key = "{account.api_key}"',
            f'username = "{account.username}"',
            f"password = {password}",
        ]
    path = tmp_path / "accounts.toml"
    path.write_text("\n".join(lines))
    path.chmod(0o600)
    return path


Here = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], common: dict[str, str]
) -> Here:
    """Exit code, stdout and stderr of a command, in this process."""
    for name, value in common.items():
        monkeypatch.setenv(name, value)

    async def run_here(*words: str) -> tuple[int, str, str]:
        context = Context(JsonOutput() if "--json" in words else PeopleOutput())
        try:
            parsed = parse(words)
            command = fleets.resume if parsed.command == "resume" else fleets.backup_owner
            await command(parsed, context)
            code = exit_code_of_many(context.failures)
        except AF10Error as error:
            context.report(error)
            code = exit_code(error)
        return code, *capsys.readouterr()

    return run_here


def of_good(*names: str) -> list[str]:
    return [word for name in names for word in ("--account", name)]


async def test_each_is_told_as_json_and_any_failure_is_exit_code_1(
    sandbox: Sandbox, accounts: Path, here: Here, tmp_path: Path
) -> None:
    sandbox.faults.add(Fault.never(account="dealer-3"))
    out = tmp_path / "out"
    command = ("backup", "owner", "--accounts", str(accounts), "--out", str(out), "--json")
    code, text, err = await here(*command, "--callback-timeout", "1")
    assert (code, err) == (1, "")
    lines = lines_of(text)
    of = {name: [each["event"] for each in lines if each.get("account") == name] for name in NAMES}
    for name in ("dealer-1", "dealer-4"):
        assert of[name][0] == "registered"
        assert of[name][-1] == "saved"
        assert [path.parent.name for path in out.glob(f"{name}/*.zip")] == [name]
    errors = {each["account"]: each for each in lines if each["event"] == "error"}
    assert errors["dealer-2"]["error"] == "AuthenticationError"
    assert (errors["dealer-3"]["error"], errors["dealer-3"]["exit_code"]) == (
        "CallbackTimeoutError",
        3,
    )
    assert errors["dealer-3"]["ticket"].startswith("af10-1.")
    assert "AF10_NO_SUCH is not set" in errors["dealer-5"]["message"]
    summary = lines[-1]
    assert (summary["event"], summary["accounts"]) == ("summary", 5)
    assert (summary["saved"], summary["failed"]) == (2, 3)
    assert summary["bytes"] == 2 * 64 * 1024
    assert PASSWORD not in text


async def test_people_see_a_line_for_each_and_programs_get_the_paths(
    accounts: Path, common: dict[str, str], tmp_path: Path
) -> None:
    """Without a terminal there is no table."""
    out = tmp_path / "out"
    command = ("backup", "owner", "--accounts", str(accounts), "--out", str(out))
    code, text, err = await run(*command, env=common)
    assert code == 1
    assert sorted(Path(line).parent.name for line in text.splitlines()) == [
        "dealer-1",
        "dealer-3",
        "dealer-4",
    ]
    assert "dealer-1       saved, 64.0 KiB in" in err
    assert "dealer-2       failed: AF10 refused GET /authenticate (HTTP 401" in err
    assert "3 of 5 saved, 192.0 KiB in" in err
    assert err.rstrip().endswith("2 failed")
    assert err.count("dealer-2") == 1
    assert PASSWORD not in text + err


async def test_all_that_are_named_saved_is_exit_code_0_and_older_ones_go(
    accounts: Path, here: Here, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("backup", "owner", "--accounts", str(accounts), "--out", str(out), "--json")
    for _ in range(2):
        names = of_good("dealer-1", "dealer-3")
        code, text, _ = await here(*command, *names, "--keep", "1", "--jobs", "1")
        assert code == 0
    removed = [Path(each["path"]) for each in lines_of(text) if each["event"] == "removed"]
    assert {path.name for path in removed} == {"backup-dealer-1-1.zip", "backup-dealer-3-1.zip"}
    assert {path.name for path in out.glob("*/*.zip")} == {
        "backup-dealer-1-2.zip",
        "backup-dealer-3-2.zip",
    }


async def test_one_account_keeps_its_newest_too(
    sandbox: Sandbox, common: dict[str, str], tmp_path: Path
) -> None:
    account = sandbox.accounts[0]
    env = {
        **common,
        "AF10_BASE_URL": sandbox.base_url,
        "AF10_API_KEY": account.api_key,
        "AF10_USERNAME": account.username,
        "AF10_PASSWORD": account.password,
    }
    for _ in range(2):
        code, _, err = await run(
            "backup", "owner", "--out", str(tmp_path / "out"), "--keep", "1", env=env
        )
        assert code == 0, err
    assert "removed" in err
    assert [path.name for path in (tmp_path / "out").glob("*.zip")] == ["backup-dealer-1-2.zip"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--accounts", "{none}"], "cannot be read: No such file"),
        (["--accounts", "{broken}"], "is no TOML (at line 1"),
        (["--accounts", "{accounts}", "--account", "nobody"], "no account of that name"),
        (["--accounts", "{accounts}", "--sha256", "0" * 64], "not with --accounts"),
        (["--accounts", "{accounts}", "--keep", "0"], "--keep"),
        (["--accounts", "{accounts}", "--jobs", "0"], "--jobs"),
    ],
)
async def test_wrong_usage_is_exit_code_2_and_nothing_is_sent(
    sandbox: Sandbox,
    accounts: Path,
    here: Here,
    tmp_path: Path,
    words: list[str],
    problem: str,
) -> None:
    (tmp_path / "broken.toml").write_text("= 1")
    places = {
        "none": tmp_path / "none.toml",
        "broken": tmp_path / "broken.toml",
        "accounts": accounts,
    }
    words = [word.format(**places) for word in words]
    code, out, err = await here("backup", "owner", *words, "--out", str(tmp_path / "out"))
    assert (code, out) == (2, "")
    assert problem in err
    assert len(err.splitlines()) == 1
    assert not sandbox.requests


async def test_the_name_of_an_account_without_a_file_of_them_is_wrong_usage(
    tmp_path: Path,
) -> None:
    code, _, err = await run("backup", "owner", "--account", "a", "--out", str(tmp_path))
    assert code == 2
    assert "--account goes with --accounts" in err


async def test_without_an_address_for_callbacks_it_is_said_once(
    accounts: Path, tmp_path: Path
) -> None:
    command = ("backup", "owner", "--accounts", str(accounts), "--out", str(tmp_path / "out"))
    code, out, err = await run(*command)
    assert (code, out) == (2, "")
    assert err.count("AF10_PUBLIC_URL") == 1


async def test_interrupted_it_names_the_jobs_that_go_on_and_resume_takes_them_up(
    sandbox: Sandbox, accounts: Path, common: dict[str, str], tmp_path: Path
) -> None:
    env = {**common, "AF10_STORE": f"sqlite:{tmp_path / 'jobs.db'}"}
    secret = {"AF10_CALLBACK_SECRET": "the same in both processes"}
    sandbox.faults.add(Fault.never(times=None))
    out = tmp_path / "out"
    names = of_good("dealer-1", "dealer-3")
    command = ("backup", "owner", "--accounts", str(accounts), *names, "--out", str(out), "--json")
    lines: Lines = []
    async with running(*command, env=env | secret) as process:
        assert process.stdout is not None
        while sum(each["event"] == "accepted" for each in lines) < 2:
            lines.append(json.loads(await process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        rest, _ = await process.communicate()
    assert process.returncode == 130
    lines += lines_of(rest.decode())
    keys = {each["account"]: each["key"] for each in lines if each["event"] == "accepted"}
    (error,) = [each for each in lines if each["event"] == "error"]
    assert sorted(error["keys"]) == sorted(keys.values())
    assert "af10 resume --all --accounts" in error["message"]

    sandbox.faults.clear()
    key = keys.pop("dealer-1")
    command = ("resume", key, "--accounts", str(accounts), "--out", str(out), "--json")
    async with running(*command, env=env | secret) as process:
        await ready(process, "summary", sandbox, account="dealer-1")
    assert len(list(out.glob("dealer-1/*.zip"))) == 1
    command = ("resume", "--all", "--accounts", str(accounts), "--out", str(out), "--json")
    async with running(*command, env=env | secret) as process:
        await ready(process, "summary", sandbox, account="dealer-3")
    assert len(list(out.glob("dealer-3/*.zip"))) == 1


async def ready(
    process: asyncio.subprocess.Process, event: str, sandbox: Sandbox, account: str
) -> None:
    """Call back for the account's job until the process has said that."""
    assert process.stdout is not None
    (job,) = [each for each in sandbox.jobs if each.account == account]
    said: list[str] = []
    reading = asyncio.create_task(process.stdout.read())
    while not reading.done():
        host, _, path = job.webhook_url.removeprefix("https://").partition("/")
        del host
        for port in await listening_ports(process.pid):
            url = f"https://127.0.0.1:{port}/{path}?id={job.secret}"
            await sandbox.call_back(job, url=url, secret=job.secret)
            job.become_ready()
        await asyncio.wait([reading], timeout=0.1)
    said = [each["event"] for each in lines_of((await reading).decode())]
    assert said[-1] == event
    assert "saved" in said


async def listening_ports(pid: int) -> list[int]:
    try:
        found = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return []
    return [each.laddr.port for each in found if each.status == psutil.CONN_LISTEN]


async def test_resume_goes_on_past_a_key_that_is_of_none_of_these_accounts(
    sandbox: Sandbox,
    accounts: Path,
    here: Here,
    common: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = f"sqlite:{tmp_path / 'jobs.db'}"
    monkeypatch.setenv("AF10_STORE", store)
    tls: dict[str, Any] = {name: common[f"AF10_{name.upper()}"] for name in ("tls_cert", "tls_key")}
    async with Fleet(accounts, store=store, **tls) as fleet:
        job = fleet["dealer-1"].backup_owner()
        await job
        key = job.key
        del job
    out = tmp_path / "out"
    where = ("--accounts", str(accounts), "--out", str(out), "--json")
    code, text, _ = await here("resume", "x" * 48, key, *where)
    lines = lines_of(text)
    assert code == 1
    errors = [each for each in lines if each["event"] == "error"]
    assert ["none of these accounts has a job" in each["message"] for each in errors] == [True]
    assert len(list(out.glob("dealer-1/*.zip"))) == 1
    code, text, _ = await here("resume", "--all", *where)
    assert (code, [each["event"] for each in lines_of(text)]) == (0, ["nothing"])


# -- the table -----------------------------------------------------------------------------------


def board(names: list[str], *, width: int = 80, height: int = 24) -> tuple[PeopleBoard, Console]:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, height=height, color_system=None)
    return PeopleBoard(console, names), console


def shown(board: PeopleBoard, console: Console) -> list[str]:
    with console.capture() as captured:
        console.print(board._table())
    return [line.rstrip() for line in captured.get().splitlines()]


def test_the_table_shows_how_far_each_has_come() -> None:
    table, console = board([f"dealer-{number}" for number in range(1, 101)])
    table.account("dealer-1").job(JobEvent("k" * 48, JobState.ACCEPTED, 0.0))
    with table.account("dealer-2").download("k" * 48) as tell:
        tell(Progress(2**20, 4 * 2**20, 2.0))
    table.account("dealer-3").failed(Failure("X", "it said [red]no[/red]", 1))
    lines = shown(table, console)
    assert lines[0].split() == ["dealer-1", "accepted"]
    assert lines[1].startswith("dealer-2")
    assert lines[1].endswith("1.0 MiB of 4.0 MiB, 512.0 KiB/s")
    assert lines[2].endswith("it said [red]no[/red]")
    assert lines[-1] == "1 failed, 2 under way, 97 waiting"


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (200, 60)])
def test_the_table_is_never_larger_than_the_terminal(width: int, height: int) -> None:
    table, console = board([f"dealer-{n}" for n in range(500)], width=width, height=height)
    for number in range(400):
        row = table.account(f"dealer-{number}")
        if number < 300:
            row.failed(Failure("X", "a long story " * 20, 1))
    lines = shown(table, console)
    assert len(lines) < height
    assert max(map(len, lines)) <= width


def test_what_failed_is_told_whole_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    table, console = board(["dealer-1", "dealer-2"])
    with console.capture() as captured, table:
        saved = SavedFile(Path("/backups/x.zip"), 2048, "0" * 64, 1.5)
        table.account("dealer-1").done(saved, None)
        table.account("dealer-2").failed(
            Failure("X", "a long story [bold]" * 9, 3, "k", "af10-1.t")
        )
    text = captured.get()
    assert "a long story [bold]" * 9 in text
    assert "af10-1.t" in text
    assert "1 of 2 saved, 2.0 KiB in" in text
    assert capsys.readouterr().out == "/backups/x.zip\n"
