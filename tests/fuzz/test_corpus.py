"""What the fuzzer begins with, and what it has found, each time that the suite runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from af10_async.protocol.callbacks import Callback, Probe, Rejection

from .invariants import ID, KEY, METHODS, PREFIXES, PROBE, STRANGE_KEY, WORDS, check

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
SEEDS = [each.read_bytes() for each in CORPUS]


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_what_the_fuzzer_knows_breaks_nothing(file: Path) -> None:
    found = check(file.read_bytes())
    kind = {Callback: "callback", Probe: "probe"}.get(type(found))
    expected = file.name.partition("-")[0]
    assert expected == (kind or str(found.status if isinstance(found, Rejection) else None))


def test_the_corpus_leads_everywhere() -> None:
    """To each answer, under each prefix, so that a fuzzer need not guess keys."""
    found = {(file.name.partition("-")[0]) for file in CORPUS}
    assert found == {"callback", "probe", "400", "404", "405"}
    assert {data[0] // 8 % len(PREFIXES) for data in SEEDS} == set(range(len(PREFIXES)))
    for short, word in WORDS.items():
        assert any(short.encode() in data for data in SEEDS), word


pieces = st.lists(
    st.sampled_from(
        [*WORDS, KEY, PROBE, STRANGE_KEY, ID, "?", "&", "=", "id=", "/", "%", "%2", "%2D", "%ff"]
    )
    | st.text(max_size=4),
    max_size=10,
).map("".join)


@example(0, "\x05\x01?id=\x04")
@given(choice=st.integers(0, len(METHODS) * len(PREFIXES) - 1), text=pieces)
def test_neither_does_anything_made_of_its_words(choice: int, text: str) -> None:
    check(bytes([choice]) + text.encode("utf-8", "surrogatepass"))
