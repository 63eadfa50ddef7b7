"""Accounts: who the clients of a fleet are, from code or from a TOML file.

```toml
base_url = "https://api.autoflex10.work/v2"       # for every account that has none of its own
api_key = { env = "AF10_API_KEY" }

[accounts.amsterdam]
username = "dealer-1"
password = { keyring = "af10", username = "dealer-1" }

[accounts.utrecht]
api_key = "by value"
username = "dealer-2"
password = { file = "secrets/utrecht" }           # relative to this file
```

Each value stands there itself or says where it is: `env` names an environment variable, `file` a
file, `keyring` a service of the system's keyring (extra `keyring`; its user name is the account's
unless given). It is looked up when the fleet is entered; what is missing then is that account's
problem alone.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from .errors import ConfigurationError, MissingExtraError

__all__ = ["Account", "FromEnv", "FromFile", "FromKeyring", "read_accounts"]

logger = logging.getLogger("af10_async.accounts")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_DEVICES = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9])(\..*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FromEnv:
    """A value that stands in an environment variable."""

    name: str

    def look_up(self, username: str | None) -> str:
        """The value. Raises `ConfigurationError`."""
        value = os.environ.get(self.name)
        if not value:
            raise ConfigurationError(f"the environment variable {self.name} is not set")
        return value


@dataclass(frozen=True, slots=True)
class FromFile:
    """A value that stands in a file by itself; a line break at its end is none of it."""

    path: Path | str

    def look_up(self, username: str | None) -> str:
        """The value. Raises `ConfigurationError`."""
        try:
            return Path(self.path).expanduser().read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, ValueError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise ConfigurationError(f"the file {self.path} cannot be read: {reason}") from None


@dataclass(frozen=True, slots=True)
class FromKeyring:
    """A value that the system's keyring has; the extra `keyring` is needed."""

    service: str
    username: str | None = None
    """The account's own when not given."""

    def look_up(self, username: str | None) -> str:
        """The value; the keyring may ask somebody for it. Raises `ConfigurationError`."""
        try:
            import keyring
            from keyring.errors import KeyringError
        except ImportError:
            raise MissingExtraError(
                'secrets from the keyring need the extra "keyring":'
                ' pip install "af10-async[keyring]"'
            ) from None
        user = self.username or username
        if user is None:
            raise ConfigurationError(f"for the keyring's service {self.service} name a username")
        try:
            value = keyring.get_password(self.service, user)
        except (KeyringError, OSError) as error:
            kind = type(error).__name__
            raise ConfigurationError(
                f"the keyring cannot be asked ({kind}): unlock it, or install a backend for it"
            ) from None
        if not value:
            raise ConfigurationError(
                f"the keyring has nothing for the service {self.service}; put it there with"
                f" `keyring set {self.service} USERNAME`"
            )
        return value


Source: TypeAlias = FromEnv | FromFile | FromKeyring
Value: TypeAlias = str | Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One account of a fleet; each value is itself, or says where it is.

    Raises:
        ConfigurationError: the name cannot be one.

    """

    name: str = field(kw_only=False)
    """What events, logs and folders call it: letters, digits and . _ -."""
    base_url: Value
    api_key: Value = field(repr=False)
    username: Value = field(repr=False)
    password: Value = field(repr=False)
    organization_name: Value | None = None
    ca_file: Value | None = None

    def __post_init__(self) -> None:
        problem = _problem_of_name(self.name)
        if problem is not None:
            raise ConfigurationError(f"an account cannot be called {self.name!r}: {problem}")
        for name in _FIELDS:
            value = getattr(self, name)
            is_needed = name in _NEEDED
            if not isinstance(value, str | FromEnv | FromFile | FromKeyring | None) or (
                value is None and is_needed
            ):
                raise ConfigurationError(
                    f"account {self.name}: {name} must be text, or say where it is"
                )

    def resolve(self) -> dict[str, str]:
        """The arguments of its client. It may block: a keyring may ask somebody.

        Raises:
            ConfigurationError: a value is not where it should be; names the account and the field,
                and never a value.
            MissingExtraError: the extra `keyring` is needed.

        """
        username = self._look_up("username", None)
        found = {"username": username}
        for name in _FIELDS:
            if name != "username" and getattr(self, name) is not None:
                found[name] = self._look_up(name, username)
        return found

    def _look_up(self, name: str, username: str | None) -> str:
        value: Value = getattr(self, name)
        if isinstance(value, str):
            return value
        try:
            return value.look_up(username)
        except MissingExtraError as error:
            raise MissingExtraError(f"account {self.name}: {name}: {error.message}") from None
        except ConfigurationError as error:
            raise ConfigurationError(f"account {self.name}: {name}: {error.message}") from None


_FIELDS = tuple(each.name for each in fields(Account) if each.name != "name")
_NEEDED = ("base_url", "api_key", "username", "password")


def read_accounts(path: str | os.PathLike[str]) -> list[Account]:
    """The accounts of a TOML file, in its order.

    Raises:
        ConfigurationError: the file cannot be read, or says something that makes no sense; tells
            where.

    """
    path = Path(path)
    content = _parsed(path)
    _refuse_unknown(content, ("accounts", *_FIELDS), f"{path}")
    tables = content.pop("accounts", None)
    if not isinstance(tables, dict) or not tables:
        raise ConfigurationError(f"{path} names no account: give each a table [accounts.NAME]")
    common = {name: _value(name, value, path, str(path)) for name, value in content.items()}
    found = [_account(name, table, common, path) for name, table in tables.items()]
    _refuse_twins(found, path)
    if any(isinstance(value, str) for each in found for value in (each.api_key, each.password)):
        _warn_of_readers(path)
    return found


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        # Its text may quote the line; only where it is, is told.
        where = re.search(r"\(at .*\)", str(error))
        raise ConfigurationError(f"{path} is no TOML {where[0] if where else ''}".strip()) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigurationError(f"the file of accounts {path} cannot be read: {reason}") from None


def _account(name: str, table: Any, common: Mapping[str, Value], path: Path) -> Account:
    where = f"{path}, account {name}"
    problem = _problem_of_name(name)
    if problem is not None:
        raise ConfigurationError(f"{path}: an account cannot be called {name!r}: {problem}")
    if not isinstance(table, dict):
        raise ConfigurationError(f"{where}: it must be a table [accounts.{name}]")
    _refuse_unknown(table, _FIELDS, where)
    own = {field: _value(field, value, path, where) for field, value in table.items()}
    values = {**common, **own}
    missing = [field for field in _NEEDED if field not in values]
    if missing:
        raise ConfigurationError(f"{where}: {' and '.join(missing)} is missing")
    return Account(name, **values)


def _value(name: str, value: Any, path: Path, where: str) -> Value:
    if isinstance(value, str):
        if not value:
            raise ConfigurationError(f"{where}: {name} is empty")
        return _beside(path, value) if name == "ca_file" else value
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where}: {name} must be text, or say where it is: {_WHERE}")
    return _source(name, value, path, where)


_WHERE = '{ env = "..." }, { file = "..." } or { keyring = "..." }'


def _source(name: str, table: Mapping[str, Any], path: Path, where: str) -> Source:
    kinds = [kind for kind in ("env", "file", "keyring") if kind in table]
    allowed = {"keyring", "username"} if kinds == ["keyring"] else set(kinds)
    is_text = all(isinstance(each, str) and each for each in table.values())
    if len(kinds) != 1 or set(table) - allowed or not is_text:
        raise ConfigurationError(f"{where}: {name} must say where it is in one way: {_WHERE}")
    match kinds[0]:
        case "env":
            return FromEnv(table["env"])
        case "file":
            return FromFile(_beside(path, table["file"]))
        case _:
            return FromKeyring(table["keyring"], table.get("username"))


def _beside(path: Path, name: str) -> str:
    """A path that a file names, which is relative to that file."""
    try:
        expanded = Path(name).expanduser() if name.startswith("~") else Path(name)
    except RuntimeError:
        raise ConfigurationError(f"{path}: there is no home for {name}") from None
    return str(path.absolute().parent / expanded)


def _refuse_unknown(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ConfigurationError(f"{where}: there is no setting {name!r}; {hint}")


def _refuse_twins(accounts: list[Account], path: Path) -> None:
    names: dict[str, str] = {}
    known: dict[tuple[object, ...], str] = {}
    for each in accounts:
        other = names.setdefault(each.name.lower(), each.name)
        if other != each.name:
            raise ConfigurationError(
                f"{path}: the accounts {other} and {each.name} differ in capitals only, and would"
                " share a folder on some systems"
            )
        who = (each.base_url, each.api_key, each.username, each.organization_name)
        other = known.setdefault(who, each.name)
        if other != each.name:
            raise ConfigurationError(f"{path}: {other} and {each.name} are the same account")


def _problem_of_name(name: str) -> str | None:
    if not _NAME.fullmatch(name):
        return "it must begin with a letter or digit, and have only these and . _ - (64 at most)"
    if name.endswith("."):
        return "it must not end in a dot"
    if _DEVICES.fullmatch(name):
        return "Windows has a device of that name"
    return None


def _warn_of_readers(path: Path) -> None:
    mode = path.stat().st_mode if os.name == "posix" else 0
    if mode & 0o077:
        logger.warning("others can read %s, which holds secrets: chmod 600 it", path)
