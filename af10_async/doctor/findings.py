"""What a check has found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ..errors import AF10Error

CHECKS = (
    *("configuration", "credentials", "clock", "listening port", "public URL"),
    *("certificate", "round trip", "store", "target"),
)
"""The names of the checks, in their order."""
DEADLINE = 10.0
"""Seconds for each check, when nothing else is said."""
_ARGUMENTS = "tls_cert|tls_key|ca_file|listen_port|listen_host|public_url|callback_secret|api_key"
_TWICE = re.compile(rf"\b(?:{_ARGUMENTS})(?: \((AF10_\w+)\)|, (AF10_\w+))", re.ASCII)
_ONCE = re.compile(rf"\b(?:{_ARGUMENTS})\b", re.ASCII)


class State(StrEnum):
    """How a check has ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """It could not be made, or nobody asked for it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. It holds no secret."""

    name: str
    """Of the check; one of `CHECKS`."""
    state: State
    message: str
    """What was found; for a check that was skipped, why."""
    advice: str = ""
    """What to do next; each thing on a line of its own. Empty when nothing needs to be done."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """The same for programs: values that JSON knows."""
    seconds: float = 0.0
    """How long the check took."""


def passed(message: str, advice: str = "", **details: Any) -> Finding:
    """All is well; `advice` says what may be better."""
    return Finding("", State.PASSED, message, advice, details)


def failed(message: str, advice: str, **details: Any) -> Finding:
    """The link is broken."""
    return Finding("", State.FAILED, message, advice, details)


def skipped(message: str, advice: str, **details: Any) -> Finding:
    """Nothing is known of this link."""
    return Finding("", State.SKIPPED, message, advice, details)


def because_of(check: str, what: str) -> Finding:
    """A check whose precondition is missing, which another check tells of."""
    return skipped(what, f"see {check}, and mend that first", because_of=check)


def failed_with(
    error: AF10Error, advice: str, *, separators: tuple[str, ...] = ("; ", ": ")
) -> Finding:
    """What an error says; `advice` is for one that does not say what to do.

    Errors say what happened and, behind a semicolon or a colon, what to do next.
    """
    text = in_variables(error.message)
    details = {"error": type(error).__name__}
    for separator in separators:
        what, found, next_step = text.partition(separator)
        if found:
            return failed(what, next_step, **details)
    return failed(text, advice, **details)


def in_variables(text: str) -> str:
    """Name the variables of the environment, where an error names keyword arguments."""
    text = _TWICE.sub(lambda found: found[1] or found[2], text)
    return _ONCE.sub(lambda found: f"AF10_{found[0].upper()}", text)
