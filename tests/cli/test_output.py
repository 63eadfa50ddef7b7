"""What people and programs see of a download."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from af10_async import CopiedFile, Progress, SavedFile
from af10_async.cli.json_output import JsonOutput
from af10_async.cli.people_board import units
from af10_async.cli.people_output import PeopleOutput

MIB = 2**20
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def people(monkeypatch: pytest.MonkeyPatch) -> PeopleOutput:
    """At a terminal of 80 columns."""
    for name in ("NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"COLUMNS": "80", "TERM": "xterm", "FORCE_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    return PeopleOutput()


def seen(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines on the terminal, in the end and in between."""
    text = COLOURS.sub("", capsys.readouterr().err)
    found = re.split(r"[\r\n]+|\x1b\[\?25[lh]", text.replace("\x1b[2K", "").replace("\x1b[1A", ""))
    return [line.rstrip() for line in found if line.strip()]


def test_a_bar_says_how_much_how_fast_how_long_and_by_how_many_connections(
    people: PeopleOutput, capsys: pytest.CaptureFixture[str]
) -> None:
    with people.download(None) as tell:
        tell(Progress(700 * MIB, 1023 * MIB, 10.0, 0, 3, 12))
    last = seen(capsys)[-1]
    assert re.fullmatch(
        r"download {7}[━╸╺]{10,} 700\.0/1,023\.0 MiB 70\.0 MiB/s 0:00:05 left 12 segments", last
    )
    assert len(last) <= 80


def test_a_resumed_download_says_from_where_on_a_line_of_its_own(
    people: PeopleOutput, capsys: pytest.CaptureFixture[str]
) -> None:
    with people.download(None) as tell:
        tell(Progress(3 * MIB, 8 * MIB, 0.0, 3 * MIB))
        tell(Progress(4 * MIB, 8 * MIB, 1.0, 3 * MIB))
        tell(Progress(0, 8 * MIB, 2.0, 0))
        tell(Progress(8 * MIB, 8 * MIB, 4.0, 0))
    lines = seen(capsys)
    told = [line for line in lines if not line.startswith("download")]
    assert told == [
        "going on       resumed from 3.0 MiB that were here already",
        "starting over  what was here could not be gone on with",
    ]
    assert lines[-1].endswith(" 8.0/8.0 MiB 2.0 MiB/s")


def test_several_downloads_have_a_bar_each_and_the_last_one_stays(
    people: PeopleOutput, capsys: pytest.CaptureFixture[str]
) -> None:
    with people.download("b", name="second") as second:
        with people.download("a", name="first") as first:
            first(Progress(MIB, MIB, 1.0))
            second(Progress(MIB, 2 * MIB, 1.0))
        second(Progress(2 * MIB, 2 * MIB, 2.0))
    assert seen(capsys)[-1].startswith("second ")
    with people.download("c", name="third") as third:
        third(Progress(1, 1, 1.0))
    assert seen(capsys)[-1].startswith("third ")


def test_without_a_terminal_there_is_one_line_and_no_colour(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    output = PeopleOutput()
    with output.download(None) as tell:
        for received in range(9):
            tell(Progress(received * MIB, 8 * MIB, 1.0))
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert len(err.splitlines()) == 1
    assert "8.0/8.0 MiB" in err


@pytest.mark.parametrize(
    ("resumed_from", "attempts", "text"),
    [
        (0, 1, "9 bytes in 1.5 s"),
        (5, 3, "9 bytes in 1.5 s, resumed from 5 bytes, 3 attempts"),
        (9, 0, "9 bytes, which were here already"),
    ],
)
def test_a_saved_file_says_how_it_got_here(
    people: PeopleOutput,
    capsys: pytest.CaptureFixture[str],
    resumed_from: int,
    attempts: int,
    text: str,
) -> None:
    people.done(SavedFile(Path("x.zip"), 9, "abc", 1.5, resumed_from, attempts), None)
    out, err = capsys.readouterr()
    assert out == "x.zip\n"
    assert COLOURS.sub("", err) == f"saved          {text}\nSHA-256        abc\n"
    people.done(CopiedFile(9, "abc", 1.5, 1, "s3://b/k"), None)
    assert capsys.readouterr().out == "s3://b/k\n"


def test_json_has_one_line_a_second_one_at_the_start_and_one_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with JsonOutput().download("a-key") as tell:
        for tenth in range(36):
            tell(Progress(tenth * 100, 3500, tenth / 10, 0, 2, 3))
        tell(Progress(3500, 3500, 3.6, 0, 2, 3))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["received"] for line in lines] == [0, 1000, 2000, 3000, 3500]
    assert lines[1] == {
        "event": "progress",
        "received": 1000,
        "total": 3500,
        "rate": 1000,
        "seconds_left": 2.5,
        "segment": 2,
        "segments": 3,
        "resumed_from": 0,
        "key": "a-key",
    }


def test_units_are_those_that_fit() -> None:
    found = [units(number) for number in (0, 1023, 1536, 5 * MIB, 2**40 * 3)]
    assert found == ["0 bytes", "1023 bytes", "1.5 KiB", "5.0 MiB", "3.0 TiB"]
