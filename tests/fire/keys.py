"""The keys and ids of these tests, genuine and not."""

from __future__ import annotations

from af10_async.protocol.keys import make_key

SECRET = "the-callback-secret-under-fire"
PREFIX = "/af10/"
ID = "0ca11bac-0000-4000-8000-00000000000a"
TELL_TALE = 9_000_000
"""The number of the job whose callback is only ever smuggled: its record must stay as it is."""
STOLEN = 9_000_001
"""The number of the job whose webhook URL the attacker knows."""
FIRST_UNKNOWN = 5_000_000
"""Jobs from this number on are genuine, and in no store."""


def key_of(number: int) -> str:
    """The genuine key of the job with this number."""
    return make_key(number.to_bytes(18), SECRET.encode())


def wrong_key(number: int) -> str:
    """A key that looks right; the receiver did not sign it."""
    return make_key(number.to_bytes(18), b"another secret of some length")


def target_of(key: str, id: str = ID) -> str:
    """Path and query of a callback."""
    return f"{PREFIX}{key}?id={id}"


def request_of(key: str, id: str = ID) -> bytes:
    """A callback that keeps its connection."""
    return f"GET {target_of(key, id)} HTTP/1.1\r\nHost: hooks.example.com\r\n\r\n".encode()


def _changed(key: str, place: int) -> str:
    other = "A" if key[place] != "A" else "B"
    return key[:place] + other + key[place:][1:]


def wrong_kinds(number: int = 1) -> dict[str, str]:
    """One key of each kind that is not ours, beside the genuine one with this number."""
    key = key_of(number)
    return {
        "signed by somebody else": wrong_key(number),
        "unknown, well-formed": wrong_key(FIRST_UNKNOWN + number),
        "signature's first character wrong": _changed(key, 24),
        "signature's last character wrong": _changed(key, 47),
        "name's first character wrong": _changed(key, 0),
        "name's last character wrong": _changed(key, 23),
        "signature of another job": key[:24] + key_of(number + 1)[24:],
        "all the same letter": "A" * 48,
        "one character short": key[:-1],
        "one character long": key + "A",
        "a character that no key has": key[:-1] + ".",
    }
