"""The configuration, read variable by variable, so that one mistake does not hide the others."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import SecretStr, create_model

from ..errors import ConfigurationError
from ..settings import ConnectionSettings, Settings, StoreSettings, variable_name
from .findings import Finding, failed, passed

_ACCOUNT = ("base_url", "api_key", "username", "password", "organization_name", "ca_file")
_FOR_ONE = 0.75
"""How near a name must be to a known one to be taken for a misspelling of it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one variable, or with several together."""

    variable: str
    """Empty when each by itself is right."""
    what: str
    advice: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the environment says, as far as it makes sense."""

    values: Mapping[str, Any]
    """Those settings that are right, by the names of their keyword arguments."""
    problems: tuple[Problem, ...]
    receiving: ConnectionSettings | None
    """What a receiver of callbacks is made with, if all of that is right."""

    @property
    def account(self) -> dict[str, Any] | None:
        """The arguments of a client that receives no callbacks, if all of them are right."""
        if not all(name in self.values for name in _ACCOUNT):
            return None
        return {name: _plain(self.values[name]) for name in _ACCOUNT}

    @property
    def store(self) -> str | None:
        """The URL of the store, which may hold a password."""
        found = self.values.get("store")
        return None if found is None else cast(str, _plain(found))


def _plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def read_configuration() -> Configuration:
    """The `AF10_*` variables of this process."""
    values, problems = {}, {}
    for name in sorted(Settings.model_fields, key=_in_order):
        try:
            values[name] = _value_of(name)
        except ConfigurationError as error:
            problems[name] = _problem(name, error)
    receiving, together = None, ""
    if not problems.keys() & ConnectionSettings.model_fields.keys():
        receiving, together = _together(ConnectionSettings)
    if not problems and not together:
        _, together = _together(Settings)
    found = [*problems.values()]
    if together:
        what, _, advice = together.partition(": ")
        found.append(Problem("", what, advice))
    return Configuration(values, tuple(found), receiving)


def _in_order(name: str) -> int:
    """The account comes first, as in every explanation of the settings."""
    return _ACCOUNT.index(name) if name in _ACCOUNT else len(_ACCOUNT)


def _value_of(name: str) -> Any:
    """One setting, without regard to the others. Raises `ConfigurationError`."""
    field = Settings.model_fields[name]
    only: Any = {name: (field.annotation, field)}
    settings = create_model("OneSetting", __base__=StoreSettings, **only)
    given = {} if name == "store" else {"store": "memory:"}
    return getattr(settings.from_env(**given), name)


def _together(
    settings: type[ConnectionSettings],
) -> tuple[ConnectionSettings | None, str]:
    try:
        return settings.from_env(), ""
    except ConfigurationError as error:
        return None, error.message


def _problem(name: str, error: ConfigurationError) -> Problem:
    variable, expected = variable_name(name), Settings.model_fields[name].description
    if error.message.startswith(f"{variable}_FILE "):
        reason = error.message.rpartition(": ")[2]
        what = f"{variable}_FILE names a file that cannot be read ({reason})"
        return Problem(f"{variable}_FILE", what, f"correct it, or set {variable} itself")
    what = "is malformed"
    if " is not set" in error.message:
        what = "is empty" if variable in _set_variables(with_empty=True) else "is not set"
    return Problem(variable, f"{variable} {what}", f"set {variable} to {expected}")


# -- what is to be said of it ----------------------------------------------------------------------


async def check_configuration(configuration: Configuration) -> Finding:
    """Name what is missing, malformed, misspelt or there twice."""
    names, remarks = _set_variables(), _remarks()
    details = {"set": names, "unknown": _unknown()}
    problems = configuration.problems
    if problems:
        advice = "\n".join([each.advice for each in problems] + remarks)
        variables = [each.variable for each in problems if each.variable]
        return failed(_all_of(problems), advice, variables=variables, **details)
    return passed(f"set and well-formed: {', '.join(names)}", "\n".join(remarks), **details)


def _all_of(problems: tuple[Problem, ...]) -> str:
    missing = [each.variable for each in problems if each.what.endswith(" is not set")]
    others = [each.what for each in problems if not each.what.endswith(" is not set")]
    if len(missing) < 2:
        return "; ".join(each.what for each in problems)
    return "; ".join([f"{_listed(missing)} are not set", *others])


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _remarks() -> list[str]:
    return [*(_of_unknown(name) for name in _unknown()), *_there_twice()]


def _of_unknown(name: str) -> str:
    near = difflib.get_close_matches(name.upper(), _known(), 1, _FOR_ONE)
    meant = f"did you mean {near[0]}?" if near else "remove it, unless it is for something else"
    return f"nothing here reads {name}: {meant}"


def _there_twice() -> list[str]:
    there = {name.upper() for name in _set_variables()}
    return [
        f"{name} is set, so {name}_FILE is not read: remove one of them"
        for name in sorted(there)
        if f"{name}_FILE" in there
    ]


def _unknown() -> list[str]:
    return [name for name in _set_variables() if name.upper() not in _known()]


def _known() -> list[str]:
    names = [variable_name(name) for name in Settings.model_fields]
    secrets = [name for name, field in Settings.model_fields.items() if _is_secret(field)]
    return [*names, *(f"{variable_name(name)}_FILE" for name in secrets)]


def _is_secret(field: Any) -> bool:
    return "SecretStr" in str(field.annotation)


def _set_variables(*, with_empty: bool = False) -> list[str]:
    """The names of the variables that are ours. Upper and lower case mean the same."""
    found = [name for name, value in os.environ.items() if value or with_empty]
    return sorted(name for name in found if name.upper().startswith("AF10_"))
