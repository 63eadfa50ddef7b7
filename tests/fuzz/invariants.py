"""What must hold for whatever a callback's request line is, and how bytes become one.

Bytes of a corpus are mostly text. The first says the method and where keys stand; some control
characters stand for what no fuzzer could guess, such as a genuine key.
"""

from __future__ import annotations

import re

from af10_async.protocol.callbacks import (
    MAX_TARGET_LENGTH,
    Callback,
    Probe,
    Rejection,
    callback_prefixes,
    read_callback,
)
from af10_async.protocol.keys import (
    KEY_LENGTH,
    RANDOM_BYTES,
    is_genuine,
    is_probe,
    make_key,
    make_probe,
)

SECRET = b"the callback secret of the fuzzer"
OTHER_SECRET = b"the callback secret of somebody else"
KEY = make_key(b"k" * RANDOM_BYTES, SECRET)
PROBE = make_probe(b"p" * RANDOM_BYTES, SECRET)
STRANGE_KEY = make_key(b"k" * RANDOM_BYTES, OTHER_SECRET)
ID = "0b8e6a3c-7a51-4d0e-9a65-9f6d2c1e4b77"
METHODS = ("GET", "GET", "GET", "GET", "HEAD", "POST", "get", "")
PREFIXES = (
    callback_prefixes("", "af10"),
    callback_prefixes("/outer", "hooks/af10"),
    callback_prefixes("", ""),
)
WORDS = {
    "\x01": KEY,
    "\x02": PROBE,
    "\x03": STRANGE_KEY,
    "\x04": ID,
    "\x05": "/af10/",
    "\x06": "/outer/hooks/af10/",
    "\x07": "x" * 1000,
}
"""What these characters stand for."""
_KEY = re.compile(r"[A-Za-z0-9_-]{48}", re.ASCII)
_SECRET = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_REASON = re.compile(r"[A-Za-z ,]{1,80}", re.ASCII)
_UNRESERVED = re.compile(r"[A-Za-z0-9_.~-]", re.ASCII)
_PARTS = re.compile(r"([?&])")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}", re.ASCII)
_TOKENS = re.compile(r"%[0-9A-Fa-f]{0,2}|.", re.ASCII | re.DOTALL)

Found = Callback | Probe | Rejection


def check(data: bytes) -> Found:
    """Read what these bytes say, and see that everything holds; what was found."""
    method, prefixes, target = request_in(data)
    found = read(method, target, prefixes)
    _check_answer(found)
    if isinstance(found, Callback):
        _check_callback(found, method, target, prefixes)
    if isinstance(found, Probe):
        assert method == "GET"
        assert is_probe(found.key, SECRET)
        assert not is_genuine(found.key, SECRET)
    _check_spellings(found, method, target, prefixes)
    _check_keys(target)
    return found


def request_in(data: bytes) -> tuple[str, tuple[str, ...], str]:
    """The method, the prefixes and the target that these bytes say."""
    choice, text = data[:1] or b"\x00", data[1:].decode("utf-8", "surrogateescape")
    for short, word in WORDS.items():
        text = text.replace(short, word)
    return METHODS[choice[0] % 8], PREFIXES[choice[0] // 8 % len(PREFIXES)], text


def read(method: str, target: str, prefixes: tuple[str, ...]) -> Found:
    """As the receiver does."""
    return read_callback(method, target, prefixes=prefixes, callback_secret=SECRET)


def _check_answer(found: Found) -> None:
    if isinstance(found, Rejection):
        assert found.status in (400, 404, 405)
        assert _REASON.fullmatch(found.reason)
        return
    assert _KEY.fullmatch(found.key)
    secret = found.secret if isinstance(found, Callback) else found.id
    assert secret is None or _SECRET.fullmatch(secret)
    if isinstance(found, Callback):
        assert repr(found) == f"Callback(key={found.key!r}, secret=...)"


def _check_callback(found: Callback, method: str, target: str, prefixes: tuple[str, ...]) -> None:
    assert method == "GET"
    assert len(target) <= MAX_TARGET_LENGTH
    assert is_genuine(found.key, SECRET)
    path = _unescaped(_PARTS.split(target)[0])
    assert path.removesuffix("/") in {prefix + found.key for prefix in prefixes}
    values = _values_in(target)
    assert values
    assert {_unescaped(value) for value in values} == {found.secret}


def _values_in(target: str) -> list[str]:
    _, *parts = re.split(r"[?&]", target)
    return [part.removeprefix("id=") for part in parts if part.startswith("id=")]


def _unescaped(text: str) -> str:
    """Escapes of ASCII characters undone: all that may stand in what is found."""
    return _ESCAPE.sub(lambda escape: _character(escape.group()), text)


def _character(escape: str) -> str:
    value = int(escape[1:], 16)
    return chr(value) if value < 128 else escape


# -- the same in other letters ---------------------------------------------------------------------


def _check_spellings(found: Found, method: str, target: str, prefixes: tuple[str, ...]) -> None:
    for other in spellings(target):
        if len(other) <= MAX_TARGET_LENGTH or len(target) > MAX_TARGET_LENGTH:
            assert _told(read(method, other, prefixes)) == _told(found), other


def spellings(target: str) -> list[str]:
    """The same address in other letters (RFC 3986, 6.2.2): what a proxy may make of it."""
    path, *rest = _PARTS.split(target)
    every_other = [_escaped(path, 2), *(_in_value(part, 2) for part in rest)]
    everything = [_escaped(path, 1), *(_in_value(part, 1) for part in rest)]
    return ["".join(every_other), "".join(everything), _lower(target), _upper(target)]


def _in_value(part: str, every: int) -> str:
    name, equals, value = part.partition("=")
    return f"{name}{equals}{_escaped(value, every)}"


def _escaped(text: str, every: int) -> str:
    """Each so-manieth unreserved character escaped that is not part of an escape."""
    found = []
    for number, token in enumerate(_TOKENS.findall(text)):
        is_meant = number % every == 0 and _UNRESERVED.fullmatch(token)
        found.append(f"%{ord(token):02X}" if is_meant else token)
    return "".join(found)


def _lower(text: str) -> str:
    return _ESCAPE.sub(lambda escape: escape.group().lower(), text)


def _upper(text: str) -> str:
    return _ESCAPE.sub(lambda escape: escape.group().upper(), text)


def _told(found: Found) -> tuple[object, ...]:
    if isinstance(found, Rejection):
        return (found.status,)
    return (found.key, found.secret if isinstance(found, Callback) else found.id)


# -- keys ------------------------------------------------------------------------------------------


def _check_keys(text: str) -> None:
    """No text that was not made with the secret is a key, and none is two things."""
    last = text.rpartition("/")[2]
    for key in (text, last, last[:KEY_LENGTH]):
        genuine, probe = is_genuine(key, SECRET), is_probe(key, SECRET)
        assert not (genuine and probe)
        assert not genuine or key == KEY
        assert not probe or key == PROBE
    _check_made(text)


def _check_made(text: str) -> None:
    random = text.encode("utf-8", "surrogateescape").ljust(RANDOM_BYTES, b"\x00")[:RANDOM_BYTES]
    for made in (make_key(random, SECRET), make_probe(random, SECRET)):
        assert _KEY.fullmatch(made)
        assert is_genuine(made, SECRET) != is_probe(made, SECRET)
        assert not is_genuine(made, OTHER_SECRET)
        assert not is_probe(made, OTHER_SECRET)
        assert not is_genuine(made.swapcase(), SECRET)
