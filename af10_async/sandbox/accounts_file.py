"""A TOML file with which clients can log in as each account."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from .accounts import Account

__all__ = ["write_accounts_file"]

_FIRST_LINE = "# The accounts of an AF10 sandbox, which replaces this file when it is started.\n"
"""What a file of ours is recognised by."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)


def write_accounts_file(
    path: Path, base_url: str, ca_file: Path | None, accounts: Sequence[Account]
) -> None:
    """Write the file, whole or not at all, readable by its owner only.

    Raises:
        FileExistsError: when there is something that this function did not write.
        OSError: when it cannot be written.

    """
    text = "".join(_lines(base_url, ca_file, accounts))
    _refuse_foreign(path)
    file, name = tempfile.mkstemp(prefix=".af10-accounts-", dir=path.parent)  # 0600
    try:
        with os.fdopen(file, "wb") as partial:
            partial.write(text.encode())
            partial.flush()
            os.fsync(partial.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _refuse_foreign(path: Path) -> None:
    if not os.path.lexists(path):
        return
    # What is no plain file is not opened: a pipe would wait for somebody to write.
    if not path.is_symlink() and path.is_file():
        with path.open("rb") as file:
            if file.readline(len(_FIRST_LINE) + 1) == _FIRST_LINE.encode():
                return
    reason = "there is something that no sandbox wrote"
    raise FileExistsError(errno.EEXIST, reason, str(path))


def _lines(base_url: str, ca_file: Path | None, accounts: Sequence[Account]) -> Iterator[str]:
    yield _FIRST_LINE
    yield _pair("base_url", base_url)
    if ca_file is not None:
        yield _pair("ca_file", str(ca_file))
    for name, account in zip(_names(accounts), accounts, strict=True):
        yield f"\n[accounts.{name}]\n"
        yield _pair("api_key", account.api_key)
        yield _pair("username", account.username)
        yield _pair("password", account.password)
        if account.organization_name is not None:
            yield _pair("organization_name", account.organization_name)


def _names(accounts: Sequence[Account]) -> list[str]:
    names = [account.username for account in accounts]
    are_usable = all(_NAME.fullmatch(name) for name in names)
    # Names become folders, and not every system tells `Jan` from `jan`.
    if are_usable and len({name.lower() for name in names}) == len(names):
        return names
    return [f"account-{number}" for number in range(1, len(names) + 1)]


def _pair(name: str, value: str) -> str:
    # TOML's strings are JSON's, but for surrogates and for DEL.
    quoted = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"{name} = {quoted}\n"
