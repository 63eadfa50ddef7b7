"""`af10 doctor`, as people and programs see it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from rich.cells import cell_len

from af10_async.cli.doctor import _Page
from af10_async.doctor import CHECKS, Finding, State

from ..cli.processes import lines_of, run
from .conftest import Environment


async def test_json_has_a_line_for_each_check_and_a_summary_and_exit_code_0(
    right: Environment, tmp_path: Path
) -> None:
    code, out, err = await run("doctor", "--json", "--out", str(tmp_path), env=right.values)
    lines = lines_of(out)
    assert (code, err) == (0, "")
    assert [line["check"] for line in lines[:-1]] == list(CHECKS)
    assert {line["event"] for line in lines[:-1]} == {"finding"}
    for line in lines[:-1]:
        assert set(line) == {
            *("event", "check", "state", "message", "advice", "details", "seconds")
        }
    seconds = lines[-1].pop("seconds")
    assert seconds >= 0
    assert lines[-1] == {"event": "summary", "passed": 9, "failed": 0, "skipped": 0}


async def test_people_read_of_what_is_broken_on_stdout_and_the_exit_code_is_1(
    right: Environment,
) -> None:
    right.set(password="canary-word", ca_file=None)
    plain = {"COLUMNS": "80", "PYTHONIOENCODING": "ascii"}
    code, out, err = await run("doctor", "--timeout", "5", env=right.values | plain)
    assert (code, err) == (1, "")
    assert out.isascii()
    assert "x failed   credentials     AF10 refused GET /authenticate" in out
    assert f"\n{' ' * 27}-> check AF10_API_KEY" in out
    assert "something is broken: 5 passed, 2 failed, 2 skipped in" in out.splitlines()[-1]
    # A word that is longer than a line, such as the path of a temporary file, stays whole.
    assert max(len(line) for line in out.splitlines() if "/pytest-" not in line) <= 80
    assert "canary" not in out


async def test_wrong_words_end_in_exit_code_2(right: Environment) -> None:
    code, out, err = await run("doctor", "--timeout", "0", env=right.values)
    assert (code, out) == (2, "")
    assert "--timeout" in err


@pytest.fixture
def findings() -> list[Finding]:
    long = "words that are many " * 8
    return [
        Finding("configuration", State.PASSED, "fine"),
        Finding("listening port", State.FAILED, long, f"{long}\nsecond\x1b[31m"),
        Finding("target", State.SKIPPED, "https://a.very.long.name/" + "x" * 90, "say --out DIR"),
    ]


@pytest.mark.parametrize("columns", [40, 80, 300])
def test_lines_fit_the_terminal_and_are_aligned(
    findings: list[Finding],
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    page = _Page()
    with page.beginning():
        for finding in findings:
            page.finding(finding)
    page.summary(Counter({State.FAILED: 1, State.PASSED: 1}), 1.25)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    lines = out.splitlines()
    assert lines[0] == "✓ passed   configuration   fine"
    assert lines[1].startswith("✗ failed   listening port  words that are")
    assert lines[2][:27].isspace()
    assert not lines[2][27].isspace()
    assert f"{' ' * 27}→ second?[31m" in lines
    wrapped = [line for line in lines[:-1] if "https" not in line]
    assert max(map(cell_len, wrapped)) <= min(max(columns, 57), 120)
    assert lines[-1] == "something is broken: 1 passed, 1 failed, 0 skipped in 1.2 s"


@pytest.mark.parametrize("is_wanted", [True, False])
def test_colours_come_at_a_terminal_unless_nobody_wants_them(
    findings: list[Finding],
    is_wanted: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    values = {"COLUMNS": "80", "TERM": "xterm", "FORCE_COLOR": "1"}
    for name, value in (values | ({} if is_wanted else {"NO_COLOR": "1"})).items():
        monkeypatch.setenv(name, value)
    page = _Page()
    page.finding(findings[0])
    assert ("\x1b[32m✓ passed" in capsys.readouterr().out) is is_wanted
