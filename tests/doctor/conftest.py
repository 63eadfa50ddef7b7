"""An environment in which everything is right, and examinations of it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from af10_async.doctor import Finding, examine
from af10_async.sandbox import Sandbox

from ..conftest import Tls

Findings: TypeAlias = dict[str, Finding]
Examine: TypeAlias = Callable[..., Awaitable[Findings]]


class Environment:
    """The `AF10_*` variables of this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.clear()

    def clear(self) -> None:
        for name in list(os.environ):
            if name.upper().startswith("AF10_"):
                self._monkeypatch.delenv(name)

    def set(self, **values: object) -> None:
        """Set `AF10_<NAME>`; None takes it away."""
        for name, value in values.items():
            variable = f"AF10_{name.upper()}"
            if value is None:
                self._monkeypatch.delenv(variable, raising=False)
            else:
                self._monkeypatch.setenv(variable, str(value))

    @property
    def values(self) -> dict[str, str]:
        return {name: text for name, text in os.environ.items() if name.startswith("AF10_")}


@pytest.fixture
def store_file(tmp_path: Path) -> Path:
    return tmp_path / "store" / "jobs.db"


@pytest.fixture
def right(
    monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, tls: Tls, store_file: Path
) -> Environment:
    """With these, everything passes; a test spoils one thing."""
    environment = Environment(monkeypatch)
    environment.set(
        base_url=sandbox.base_url,
        api_key=sandbox.api_key,
        username=sandbox.username,
        password=sandbox.password,
        tls_cert=tls.cert,
        tls_key=tls.key,
        ca_file=tls.ca,
        store=f"sqlite:{store_file}",
    )
    return environment


async def examined(**options: Any) -> Findings:
    """All findings, by their names."""
    async with aclosing(examine(**options)) as findings:
        return {finding.name: finding async for finding in findings}


def states(findings: Findings) -> dict[str, str]:
    """The checks that did not pass."""
    return {name: str(each.state) for name, each in findings.items() if each.state != "passed"}
