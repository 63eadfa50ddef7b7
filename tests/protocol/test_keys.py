"""Keys: only the holder of the callback secret can make one, and there is one spelling of each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from af10_async.protocol.keys import KEY_LENGTH, KEY_PATTERN, RANDOM_BYTES, is_genuine, make_key

SECRET = b"sixteen or more bytes"
KEY = make_key(bytes(range(RANDOM_BYTES)), SECRET)

eighteen = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)


@given(random=eighteen, secret=st.binary(min_size=1, max_size=40))
def test_every_key_made_is_genuine_and_fits_a_url(random: bytes, secret: bytes) -> None:
    key = make_key(random, secret)
    assert is_genuine(key, secret)
    assert len(key) == KEY_LENGTH
    assert KEY_PATTERN.fullmatch(key)


@given(random=eighteen)
def test_a_key_is_not_genuine_for_another_receiver(random: bytes) -> None:
    assert not is_genuine(make_key(random, SECRET), b"another callback secret")


@given(one=eighteen, other=eighteen)
def test_keys_differ_exactly_when_their_random_bytes_do(one: bytes, other: bytes) -> None:
    assert (make_key(one, SECRET) == make_key(other, SECRET)) is (one == other)


@given(
    place=st.integers(0, KEY_LENGTH - 1),
    letter=st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
)
def test_a_key_with_any_one_character_changed_is_turned_away(place: int, letter: str) -> None:
    changed = KEY[:place] + letter + KEY[place + 1 :]
    assert is_genuine(changed, SECRET) is (changed == KEY)


@given(text=st.text(max_size=60))
def test_made_up_text_is_never_genuine(text: str) -> None:
    assert not is_genuine(text, SECRET)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        KEY[:-1],
        KEY + "A",
        KEY + "\n",
        KEY + "=",
        " " + KEY[1:],
        "é" + KEY[1:],
        "\uff11" + KEY[1:],
    ],
    ids=["empty", "short", "long", "newline", "padding", "space", "accent", "full-width-digit"],
)
def test_a_key_of_the_wrong_shape_is_turned_away(wrong: str) -> None:
    assert is_genuine(KEY, SECRET)
    assert not is_genuine(wrong, SECRET)


@pytest.mark.parametrize("length", [0, RANDOM_BYTES - 1, RANDOM_BYTES + 1])
def test_a_key_needs_all_its_random_bytes(length: int) -> None:
    with pytest.raises(ValueError, match=f"18 random bytes, not {length}"):
        make_key(bytes(length), SECRET)
