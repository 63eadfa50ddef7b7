"""Reading a callback: tolerant about where the id stands, strict about its characters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from af10_async.protocol.callbacks import (
    MAX_TARGET_LENGTH,
    Callback,
    Probe,
    Rejection,
    callback_prefixes,
    read_callback,
)
from af10_async.protocol.keys import make_key

SIGNER = b"the receiver's own secret"
KEY = make_key(b"r" * 18, SIGNER)
STRANGE_KEY = make_key(b"r" * 18, b"somebody else's secret")
ID = "0b8e6a3c-7a51-4d0e-9a65-9f6d2c1e4b77"
OTHER = "11111111-2222-4333-8444-555555555555"


def read(target: str, method: str = "GET", prefix: str = "hooks") -> Callback | Probe | Rejection:
    return read_callback(
        method, target, prefixes=callback_prefixes("", prefix), callback_secret=SIGNER
    )


def status(found: Callback | Probe | Rejection) -> int:
    assert isinstance(found, Rejection), found
    return found.status


@pytest.mark.parametrize(
    "rest",
    [
        f"?id={ID}",
        f"&id={ID}",
        f"/?id={ID}",
        f"/&id={ID}",
        f"?a=1&id={ID}&b=2",
        f"?a=1?id={ID}",
        f"&a=1&id={ID}",
        f"?&&id={ID}&",
        f"?id={ID}&id={ID}",
        f"?ID=no&xid=no&id={ID}",
        f"?id={ID.replace('-', '%2D')}",
        f"?id={ID.replace('-', '%2d')}",
        f"?a=b=c&flag&id={ID}",
        f"?note=%FF&id={ID}",
    ],
    ids=[
        "question-mark",
        "ampersand",
        "slash-question-mark",
        "slash-ampersand",
        "between-others",
        "blindly-appended-to-a-query",
        "after-another-with-ampersand",
        "empty-parameters",
        "twice-the-same",
        "similar-names",
        "percent-encoded",
        "percent-encoded-lower",
        "odd-neighbours",
        "bad-utf-8-elsewhere",
    ],
)
def test_the_id_is_found_wherever_af10_may_put_it(rest: str) -> None:
    assert read(f"/hooks/{KEY}{rest}") == Callback(KEY, ID)


@pytest.mark.parametrize(
    "path",
    [
        f"/hooks/%{ord(KEY[0]):02X}{KEY[1:]}",
        f"/hooks/{''.join(f'%{ord(each):02x}' for each in KEY)}",
        f"/%68ooks/{KEY}",
        f"/hooks/{KEY}%2F",
    ],
    ids=["one-letter", "all-letters", "prefix", "slash-at-the-end"],
)
def test_a_path_that_a_proxy_has_encoded_is_the_same_path(path: str) -> None:
    """RFC 3986, section 6.2.2.2."""
    assert read(f"{path}?id={ID}") == Callback(KEY, ID)


@pytest.mark.parametrize("length", [1, 128])
def test_an_id_need_not_be_a_uuid(length: int) -> None:
    assert read(f"/hooks/{KEY}?id={'x' * length}") == Callback(KEY, "x" * length)


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "/",
        "?",
        "?id",
        "?id=",
        f"?id={ID}&id={OTHER}",
        f"?id={ID}&id=",
        f"?ID={ID}",
        f"?%69d={ID}",
        f"?id={ID}%0D%0A",
        f"?id=%0D%0ASet-Cookie:x{ID}",
        f"?id={ID}\r\n",
        f"?id={ID}%00",
        f"?id={ID}\x00",
        f"?id={ID}%20",
        f"?id={ID}+",
        "?id=%FF%FE",
        "?id=%C3%28",
        "?id=%ED%A0%80",
        "?id=\udcff",
        "?id=%EF%BC%91%EF%BC%92",
        "?id=\uff11\uff12",
        f"?id=%7B{ID}%7D",
        f"?id={{{ID}}}",
        f"?id=urn:uuid:{ID}",
        f"?id={ID}#part",
        f"?id={ID}/",
        f"?id={ID}%252D",
        "?id=../../vehicle",
        "?id=" + "x" * 129,
        "?id=" + "x" * 3000,
    ],
    ids=[
        "nothing",
        "slash-only",
        "empty-query",
        "name-only",
        "empty",
        "two-different",
        "one-and-an-empty",
        "upper-case-name",
        "encoded-name",
        "encoded-crlf",
        "header-injection",
        "raw-crlf",
        "encoded-nul",
        "raw-nul",
        "space",
        "plus",
        "bad-utf-8",
        "cut-utf-8",
        "surrogate-utf-8",
        "raw-byte",
        "full-width-digits-encoded",
        "full-width-digits",
        "encoded-braces",
        "braces",
        "urn",
        "fragment",
        "slash",
        "twice-encoded",
        "path",
        "129-characters",
        "3000-characters",
    ],
)
def test_an_id_that_is_missing_ambiguous_or_odd_is_a_bad_request(rest: str) -> None:
    assert status(read(f"/hooks/{KEY}{rest}")) == 400


@pytest.mark.parametrize(
    "target",
    [
        f"/hooks/{STRANGE_KEY}?id={ID}",
        f"/hooks/{KEY[:-1]}?id={ID}",
        f"/hooks/{KEY}x?id={ID}",
        f"/hooks/{KEY}//?id={ID}",
        f"/hooks//{KEY}?id={ID}",
        f"/hooks/{KEY}/more?id={ID}",
        f"/hooks/%25{ord(KEY[0]):02X}{KEY[1:]}?id={ID}",
        f"/hooks/../hooks/{KEY}?id={ID}",
        f"/hooks/?id={ID}",
        f"/hooks?id={ID}",
        f"/{KEY}?id={ID}",
        f"/HOOKS/{KEY}?id={ID}",
        f"hooks/{KEY}?id={ID}",
        f"//hooks/{KEY}?id={ID}",
        f"http://evil.example/hooks/{KEY}?id={ID}",
        f"https://evil.example/hooks/{KEY}?id={ID}",
        "*",
        "",
        f"/hooks/{KEY}?id=" + "x" * 8192,
        f"/hooks/{KEY}?id={ID}&pad=" + "x" * MAX_TARGET_LENGTH,
    ],
    ids=[
        "signed-by-somebody-else",
        "short-key",
        "long-key",
        "two-slashes-after",
        "two-slashes-before",
        "deeper",
        "twice-encoded-key",
        "dot-dot",
        "no-key",
        "prefix-only",
        "without-prefix",
        "upper-case-prefix",
        "no-slash",
        "double-slash",
        "absolute-http",
        "absolute-https",
        "asterisk",
        "empty",
        "8-kilobytes",
        "padded",
    ],
)
def test_whatever_is_not_the_path_of_a_genuine_key_is_not_found(target: str) -> None:
    assert status(read(target)) == 404


def test_a_target_of_the_longest_length_is_still_read() -> None:
    target = f"/hooks/{KEY}?id={ID}&pad="
    longest = target + "x" * (MAX_TARGET_LENGTH - len(target))
    assert read(longest) == Callback(KEY, ID)
    assert status(read(longest + "x")) == 404


@pytest.mark.parametrize(
    "method", ["HEAD", "POST", "PUT", "OPTIONS", "DELETE", "CONNECT", "get", "", "GET "]
)
def test_no_method_but_get_resolves_anything(method: str) -> None:
    assert status(read(f"/hooks/{KEY}?id={ID}", method)) == 405


@pytest.mark.parametrize("prefix", ["", "a", "a/b", "deep/er/still"])
def test_the_prefix_may_be_empty_or_nested(prefix: str) -> None:
    start = f"/{prefix}" if prefix else ""
    assert read(f"{start}/{KEY}?id={ID}", prefix=prefix) == Callback(KEY, ID)
    assert status(read(f"/x{start}/{KEY}?id={ID}", prefix=prefix)) == 404


def test_neither_repr_nor_reason_repeats_the_id() -> None:
    callback = read(f"/hooks/{KEY}?id={ID}")
    assert ID not in repr(callback)
    assert KEY in repr(callback)
    turned_away = read(f"/hooks/{KEY}?id={ID}&id={OTHER}")
    assert ID not in repr(turned_away)
    assert OTHER not in repr(turned_away)


pieces = st.lists(
    st.one_of(
        st.sampled_from(
            ["/hooks/", "/", "?", "&", "=", "id", "id=", KEY, STRANGE_KEY, ID, "%", "%FF", "\r\n"]
        ),
        st.text(st.characters(exclude_categories=()), max_size=8),
    ),
    max_size=8,
).map("".join)


@given(method=st.sampled_from(["GET", "GET", "GET", "POST"]), target=pieces)
def test_no_text_raises_and_none_is_a_callback_without_a_genuine_key(
    method: str, target: str
) -> None:
    found = read(target, method)
    if isinstance(found, Callback):
        assert method == "GET"
        assert found.key == KEY
        assert target.startswith(f"/hooks/{KEY}")
        assert found.secret.isascii()
        assert found.secret.replace("-", "").replace("_", "").isalnum()
    else:
        assert isinstance(found, Rejection)
        assert found.status in (400, 404, 405)


@given(rest=st.text(st.characters(exclude_categories=()), max_size=40))
def test_a_genuine_key_with_any_query_gives_a_clean_secret_or_a_bad_request(rest: str) -> None:
    found = read(f"/hooks/{KEY}?id={rest}")
    if isinstance(found, Callback):
        assert 1 <= len(found.secret) <= 128
        assert found.secret.isascii()
        assert found.secret.isprintable()
    else:
        assert isinstance(found, Rejection)
        assert found.status == 400


@pytest.mark.parametrize(
    ("public_path", "arrives"),
    [
        ("/caf%C3%A9", "/caf%C3%A9"),
        ("/%7Edealers/", "/~dealers"),
        ("/~dealers", "/%7edealers"),
        ("/a%20b", "/a%20b"),
    ],
)
def test_the_path_of_the_public_address_is_known_in_whatever_letters(
    public_path: str, arrives: str
) -> None:
    prefixes = callback_prefixes(public_path, "hooks")
    for path in ("", arrives):
        target = f"{path}/hooks/{KEY}?id={ID}"
        found = read_callback("GET", target, prefixes=prefixes, callback_secret=SIGNER)
        assert found == Callback(KEY, ID)
