"""What an HTTP request to the callback server means.

AF10 sends a plain GET to the webhook URL with `id=<secret uuid>` added (its own webhook page).
Whether it appends `?id=` or `&id=`, after a trailing slash or not, and with which other
parameters, is not documented: all of these are understood. The characters of key and id are
strict, because both are stored and the id is sent on to AF10.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from .keys import KEY_PATTERN, is_genuine

MAX_TARGET_LENGTH = 4096
"""Longest request target that is read at all, in characters."""
_SECRET = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_SEPARATOR = re.compile(r"[?&]")


@dataclass(frozen=True, slots=True)
class Callback:
    """A well-formed callback for a genuine key."""

    key: str
    secret: str

    def __repr__(self) -> str:
        return f"Callback(key={self.key!r}, secret=...)"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Not a callback: the HTTP status to answer, and why (for the log; holds no input)."""

    status: int
    reason: str


def read_callback(
    method: str, target: str, *, prefix: str, callback_secret: bytes
) -> Callback | Rejection:
    """Read the request line `method` and raw `target` (path and query, still percent-encoded)."""
    if method != "GET":
        return Rejection(405, "only GET is understood")
    start = f"/{prefix}/" if prefix else "/"
    if len(target) > MAX_TARGET_LENGTH or not target.startswith(start):
        return Rejection(404, "not a callback path")
    path, _, query = _split(target[len(start) :])
    key = path.removesuffix("/")
    if not KEY_PATTERN.fullmatch(key) or not is_genuine(key, callback_secret):
        return Rejection(404, "not a key of ours")
    return _with_secret(key, query)


def _split(text: str) -> tuple[str, str, str]:
    found = _SEPARATOR.search(text)
    if found is None:
        return text, "", ""
    return text[: found.start()], found.group(), text[found.end() :]


def _with_secret(key: str, query: str) -> Callback | Rejection:
    try:
        secrets = {
            unquote(value, errors="strict")
            for name, _, value in (part.partition("=") for part in _SEPARATOR.split(query))
            if name == "id"
        }
    except UnicodeDecodeError:
        return Rejection(400, "the id is not text")
    if not secrets:
        return Rejection(400, "there is no id")
    if len(secrets) > 1:
        return Rejection(400, "there are several different ids")
    secret = secrets.pop()
    if not _SECRET.fullmatch(secret):
        return Rejection(400, "the id has characters that no secret has, or a wrong length")
    return Callback(key, secret)
