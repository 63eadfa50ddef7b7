"""The file of accounts."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path

import pytest

from af10_async.sandbox import Account, Sandbox
from af10_async.sandbox.accounts_file import write_accounts_file


async def test_the_file_has_all_that_clients_need(tmp_path: Path) -> None:
    """The address and the authority once, and the credentials of each account."""
    path = tmp_path / "accounts.toml"
    accounts = [Account(username="dealer-1"), Account(username="dealer-2", organization_name="x")]
    async with Sandbox(accounts=accounts, tls=True) as sandbox:
        sandbox.write_accounts(path)
        expected = {
            name: {
                "api_key": account.api_key,
                "username": account.username,
                "password": account.password,
            }
            for name, account in zip(("dealer-1", "dealer-2"), accounts, strict=True)
        }
        expected["dealer-2"]["organization_name"] = "x"
        assert tomllib.loads(path.read_text()) == {
            "base_url": sandbox.base_url,
            "ca_file": str(sandbox.ca_file),
            "accounts": expected,
        }


async def test_only_its_owner_can_read_it_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    """Each sandbox replaces what another one wrote; the mode stays strict."""
    path = tmp_path / "accounts.toml"
    for _ in range(2):
        async with Sandbox() as sandbox:
            sandbox.write_accounts(str(path))
            assert sandbox.api_key in path.read_text()
            assert "ca_file" not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["text", "empty", "folder", "link", "dangling", "pipe"])
def test_what_no_sandbox_wrote_is_left_alone(tmp_path: Path, kind: str) -> None:
    """Files of accounts that matter, above all; a link may lead anywhere."""
    path, ours = tmp_path / "accounts.toml", tmp_path / "ours"
    write_accounts_file(ours, "http://x", None, [])
    match kind:
        case "text":
            path.write_text('api_key = "precious"\n')
        case "empty":
            path.touch()
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(ours)
        case "dangling":
            path.symlink_to(tmp_path / "nothing")
        case _:
            os.mkfifo(path)
    before = {each.name: each.lstat().st_mtime_ns for each in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match="no sandbox wrote"):
        write_accounts_file(path, "http://x", None, [Account()])
    assert {each.name: each.lstat().st_mtime_ns for each in tmp_path.iterdir()} == before


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """The older file is as it was, and there is no partial one."""
    path = tmp_path / "accounts.toml"
    write_accounts_file(path, "http://x", None, [Account(username="before")])
    with pytest.raises(UnicodeEncodeError):
        write_accounts_file(path, "http://x", None, [Account(password="\ud800")])
    with pytest.raises(FileNotFoundError):
        write_accounts_file(tmp_path / "none" / "x", "http://x", None, [Account()])
    assert list(tmp_path.iterdir()) == [path]
    assert "before" in path.read_text()


@pytest.mark.parametrize("usernames", [["jan@example.nl", "piet"], ["Jan", "jan"], ["a.b"], ["é"]])
def test_names_that_cannot_be_are_numbered(tmp_path: Path, usernames: list[str]) -> None:
    """All of them, so that none is taken twice."""
    accounts = [Account(username=name, password='q"\\\n\x7f😀') for name in usernames]
    write_accounts_file(tmp_path / "x", "http://x", None, accounts)
    found = tomllib.loads((tmp_path / "x").read_text(encoding="utf-8"))["accounts"]
    assert list(found) == [f"account-{number}" for number in range(1, len(usernames) + 1)]
    assert [each["username"] for each in found.values()] == usernames
    assert {each["password"] for each in found.values()} == {'q"\\\n\x7f😀'}
