"""Resume states: what was written is read again, and nothing else is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from af10_async.protocol.files import Version, safe_name
from af10_async.protocol.resume import ResumeState, decode_state, encode_state

STATE = ResumeState(
    version=Version('"v1"', "Sun, 06 Nov 1994 08:49:37 GMT", 1000),
    name="backup.zip",
    expected="ab" * 32,
    done=((0, 400), (600, 700)),
    hashed=300,
    sha256="cd" * 32,
)
RIGHT: dict[str, Any] = json.loads(encode_state(STATE))


def changed(**values: Any) -> bytes:
    return json.dumps(RIGHT | values).encode()


@st.composite
def states(draw: st.DrawFn) -> ResumeState:
    bounds = sorted(draw(st.sets(st.integers(0, 2**50), min_size=2, max_size=20)))
    done = tuple(zip(bounds[::2], bounds[1::2], strict=False))
    front = done[0][1] if done[0][0] == 0 else 0
    length = draw(st.none() | st.integers(done[-1][1], 2**60))
    date = draw(st.none() | st.text())
    tag = draw(st.text() if length is None or date is None else st.none() | st.text())
    return ResumeState(
        Version(tag, date, length),
        draw(st.text(min_size=1).map(safe_name).filter(bool)),
        draw(st.none() | st.text()),
        done,
        draw(st.integers(0, front)),
        draw(st.text()),
    )


@given(states())
def test_what_was_written_is_read_again(state: ResumeState) -> None:
    assert decode_state(encode_state(state)) == state
    assert state.size == state.done[-1][1]


@given(states(), st.data())
def test_a_state_that_was_written_by_half_is_none(state: ResumeState, data: st.DataObject) -> None:
    text = encode_state(state)
    assert decode_state(text[: data.draw(st.integers(0, len(text) - 1))]) is None


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_garbage_is_none(text: bytes) -> None:
    assert decode_state(text) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@given(JSON, st.sampled_from([*RIGHT]))
def test_any_other_json_is_none_or_sound(value: Any, name: str) -> None:
    assert decode_state(json.dumps(value).encode()) is None
    found = decode_state(changed(**{name: value}))
    if found is not None:
        assert found.version.is_known
        assert all(0 <= start < stop <= 1000 or start == stop for start, stop in found.done)
        assert 0 <= found.hashed <= found.size <= (found.version.length or found.size)


@pytest.mark.parametrize("name", [*RIGHT])
def test_a_state_with_a_field_missing_is_none(name: str) -> None:
    assert decode_state(json.dumps({k: v for k, v in RIGHT.items() if k != name}).encode()) is None


@pytest.mark.parametrize("number", [0, 2, "1", None, [1]])
def test_a_state_of_another_format_is_none(number: Any) -> None:
    assert decode_state(changed(format=number)) is None


@pytest.mark.parametrize(
    "values",
    [
        {"etag": None, "last_modified": None},
        {"etag": None, "length": None},
        {"done": []},
        {"done": [[0, 400], [300, 700]]},
        {"done": [[600, 700], [0, 400]]},
        {"done": [[400, 0]]},
        {"done": [[-1, 400]]},
        {"done": [[0, 1001]]},
        {"done": [[0]]},
        {"done": [[0, 1, 2]]},
        {"done": "everything"},
        {"done": [[2 * n, 2 * n + 1] for n in range(10_001)], "length": 10**6},
        {"hashed": 401},
        {"hashed": -1},
        {"hashed": 1, "done": [[1, 400]]},
        {"length": 699},
        {"etag": 5},
        {"expected": 5},
        {"hashed": None},
    ],
    ids=str,
)
def test_a_state_that_cannot_be_true_is_none(values: dict[str, Any]) -> None:
    if len(str(values)) > 1000:
        assert decode_state(changed(**(values | {"done": values["done"][:-1], "hashed": 0})))
        values = values | {"hashed": 0}
    assert decode_state(changed(**values)) is None


@pytest.mark.parametrize("name", ["length", "hashed", "done"])
@pytest.mark.parametrize("number", ["Infinity", "1e999"])
def test_a_state_with_an_infinite_number_is_none(name: str, number: str) -> None:
    value = "[[0, @]]" if name == "done" else "@"
    text = changed(**{name: "@@"}).replace(b'"@@"', value.replace("@", number).encode())
    assert decode_state(text) is None


def test_a_name_with_a_path_in_it_is_reduced_to_a_safe_one() -> None:
    """Whoever can write the state must not choose where the file goes."""
    for name, expected in (("../../etc/passwd", "passwd"), ("", "download"), ("/", "download")):
        found = decode_state(changed(name=name))
        assert found is not None
        assert found.name == expected
