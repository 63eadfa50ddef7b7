"""Downloads that are cut in every way give one version of the file, or none.

Some forty cuts here; `campaign.py` (`nox -s cuts`) makes a thousand and more.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from . import life
from .campaign import Tally, Verdict, _judge, campaign, main
from .life import End
from .scenarios import HARSH, PLAIN, Scenario, scenario_of

SEED = 10
CUTS = 20


@pytest.fixture(scope="module", autouse=True)
def processes() -> None:
    """Others are forked quickly, before there is a loop."""
    life.prepare()


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
async def test_whatever_is_cut_the_file_is_one_version_of_it_or_not_there(
    tmp_path: Path, seed: int
) -> None:
    """Lies, changes, faults of the line, cancellations and kills, as the seed has them."""
    scenarios = (scenario_of(seed, number) for number in itertools.count())
    tally = await campaign(scenarios, tmp_path, CUTS, together=2)
    assert tally.cuts >= CUTS
    assert tally.wrong == 0
    assert tally.whole > 0


async def test_a_file_of_a_server_that_never_lies_is_always_whole_at_last(tmp_path: Path) -> None:
    """And nothing lies beside it."""
    right = (scenario_of(SEED, number) for number in itertools.count())
    honest = (each for each in right if not each.lies and not each.always and each.faults)
    chosen = [each for each in itertools.islice(honest, 6) if each.validators == "strong"]
    tally = await campaign(chosen, tmp_path, 1000, together=2)
    assert tally.downloads == len(chosen) > 1
    assert (tally.wrong, tally.littered) == (0, 0)


# -- the campaign itself ---------------------------------------------------------------------------


def test_a_scenario_depends_on_the_seed_and_its_number_alone() -> None:
    scenarios = [scenario_of(SEED, number) for number in range(100)]
    assert scenarios == [scenario_of(SEED, number) for number in range(100)]
    assert scenarios != [scenario_of(SEED + 1, number) for number in range(100)]


def test_the_campaign_comes_to_everything() -> None:
    """Every lie, every fault of the line, every kind of validator and of life."""
    scenarios = [scenario_of(SEED, number) for number in range(1500)]
    lies = Counter(name for each in scenarios for name in (*each.lies.values(), each.always))
    assert {*PLAIN, *HARSH} <= {*lies}
    faults = {type(fault).__name__ for each in scenarios for fault in each.faults if fault}
    assert faults == {"Reset", "Close", "Stall", "Refuse", "Trickle", "Corrupt"}
    assert {each.validators for each in scenarios} == {"strong", "modified", "weak", "none", "same"}
    lives = [life for each in scenarios for life in each.lives]
    assert {each.segments for each in lives} >= {1, 2, 3, 4, 5, 6, "auto"}
    assert any(each.is_process and each.ends_after is not None for each in lives)
    assert any(not each.is_process and each.ends_after is not None for each in lives)


def test_nothing_that_only_a_digest_helps_against_happens_without_one() -> None:
    """Else a wrong file would be nobody's fault."""
    for number in range(1500):
        each = scenario_of(SEED, number)
        faults = {type(fault).__name__ for fault in each.faults}
        if each.digest is None:
            assert not {*each.lies.values(), each.always} & {*HARSH}
            assert "Corrupt" not in faults
            assert each.validators != "same" or len({*each.sizes}) == len(each.sizes)


def scenario(*, digest: bool) -> Scenario:
    """One with two small versions."""
    return replace(
        scenario_of(SEED, 0), sizes=(2000, 3000), digest="md5" if digest else None, expected=1
    )


def judged(each: Scenario, body: bytes | None, end: End | None, folder: Path) -> list[str]:
    verdict = Verdict(each)
    if body is not None:
        (folder / "backup.zip").write_bytes(body)
    _judge(verdict, end, folder / "backup.zip")
    return verdict.wrong


def saved(body: bytes) -> End:
    return End(size=len(body), sha256=hashlib.sha256(body).hexdigest())


def test_every_version_is_right_unless_a_digest_says_which(tmp_path: Path) -> None:
    each = scenario(digest=False)
    for body in each.right():
        assert judged(each, body, saved(body), tmp_path) == []
    each = scenario(digest=True)
    (right,) = each.right()
    wrong = next(version.body for version in each.versions() if version.body != right)
    assert judged(each, right, saved(right), tmp_path) == []
    assert judged(each, wrong, saved(wrong), tmp_path) != []


def test_what_is_wrong_is_seen(tmp_path: Path) -> None:
    """A mixture, a part, a hole, a lie about it, an error beside it, and one that is not ours."""
    each = scenario(digest=False)
    one, two = each.right()
    mixture = one[:500] + two[500:]
    hole = one[:500] + bytes(100) + one[600:]
    for body in (mixture, one[:-1], one + b"x", hole, b""):
        (said,) = judged(each, body, saved(body), tmp_path)
        assert said.startswith("a wrong file")
    assert judged(each, one, saved(two), tmp_path) != []
    assert judged(each, one, End("NetworkError"), tmp_path) != []
    (tmp_path / "backup.zip").unlink()
    assert judged(each, None, saved(one), tmp_path) != []
    assert judged(each, None, End("KeyError", is_ours=False), tmp_path) != []
    assert judged(each, None, End("NetworkError"), tmp_path) == []
    assert judged(each, None, None, tmp_path) == []


def test_verdicts_are_added_up() -> None:
    each = scenario_of(SEED, 0)
    tally = Tally()
    tally.add(Verdict(each, cuts=2, ends=[End(size=1, resumed_from=1)], is_whole=True))
    tally.add(Verdict(each, cuts=1, ends=[End("NetworkError")], wrong=["x"]))
    assert (tally.cuts, tally.downloads, tally.whole, tally.resumed, tally.wrong) == (3, 2, 1, 1, 1)
    assert "1 NetworkError" in str(tally)


def test_a_case_can_be_repeated_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", str(SEED), "--case", "3", "--together", "1"]) == 0
    said = capsys.readouterr().out
    assert " 1 downloads" in said
    assert " 0 wrong" in said
    assert f"seed {SEED}" in said
