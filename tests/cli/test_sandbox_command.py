"""`af10 sandbox` with many accounts."""

from __future__ import annotations

import asyncio
import json
import stat
from asyncio.subprocess import Process
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from af10_async.accounts import read_accounts

from .processes import run, running


async def first_line(process: Process) -> dict[str, Any]:
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(await process.stdout.readline())
    return found


async def answers_to_each(path: Path) -> list[int]:
    """What the accounts of a file get when each logs in twice."""
    async with aiohttp.ClientSession() as session:

        async def log_in(values: dict[str, str]) -> int:
            url = values["base_url"] + "/authenticate"
            names = ("api_key", "username", "password")
            async with session.get(url, params={name: values[name] for name in names}) as answer:
                return answer.status

        each = [account.resolve() for account in read_accounts(path)] * 2
        return list(await asyncio.gather(*(log_in(values) for values in each)))


async def test_many_accounts_and_a_file_of_them(tmp_path: Path) -> None:
    """The first line stays as it was; a fleet reads the file, and each of its accounts logs in."""
    path = tmp_path / "accounts.toml"
    command = ("sandbox", "--json", "--accounts", "20", "--accounts-file", str(path))
    async with running(*command, "--quota", "1") as process:
        first = await first_line(process)
        assert list(first) == ["base_url", "api_key", "username", "password", "ca_file"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        accounts = read_accounts(path)
        assert [account.name for account in accounts] == [f"dealer-{n}" for n in range(1, 21)]
        assert [account.username for account in accounts] == [each.name for each in accounts]
        assert accounts[0].resolve() == {k: v for k, v in first.items() if k != "ca_file"}
        assert sorted(await answers_to_each(path)) == [200] * 20 + [429] * 20


async def test_one_account_keeps_its_name_and_people_are_told_of_the_file(tmp_path: Path) -> None:
    """With TLS, the file says whom to trust."""
    path = tmp_path / "accounts.toml"
    async with running("sandbox", "--tls", "--accounts-file", str(path)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [(await process.stdout.readline()).decode() for _ in range(5)]
        told = [(await process.stderr.readline()).decode() for _ in range(2)]
        (account,) = read_accounts(path)
        assert f"AF10_USERNAME={account.username}" in lines[2]
        assert account.name == account.username
        assert f"AF10_CA_FILE={account.ca_file}" in lines[4]
        assert str(path) in told[1]


async def test_the_stock_has_as_many_vehicles_as_asked(tmp_path: Path) -> None:
    """Of each account."""
    async with running("sandbox", "--json", "--vehicles", "3") as process:
        first = await first_line(process)
        names = ("api_key", "username", "password")
        async with aiohttp.ClientSession() as session:
            url = first["base_url"] + "/authenticate"
            params = {name: first[name] for name in names}
            async with session.get(url, params=params) as answer:
                found = await answer.json()
            url, headers = found["api_url"] + "/vehicle", {"token": found["token"]}
            async with session.get(url, headers=headers) as answer:
                assert len((await answer.json())["data"]) == 3


async def test_a_file_that_no_sandbox_wrote_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    """And stays as it is."""
    path = tmp_path / "accounts.toml"
    path.write_text("precious")
    code, out, err = await run("sandbox", "--accounts-file", str(path))
    assert (code, out) == (2, "")
    assert "there is something that no sandbox wrote" in err
    assert len(err.splitlines()) == 1
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    "option", [("--accounts", "0"), ("--vehicles", "-1"), ("--quota", "many"), ("--quota", "0")]
)
async def test_numbers_that_make_no_sense_are_usage_errors(option: tuple[str, str]) -> None:
    """Told before anything starts."""
    code, out, err = await run("sandbox", *option)
    assert (code, out) == (2, "")
    assert option[0] in err
