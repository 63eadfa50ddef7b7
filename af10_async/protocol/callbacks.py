"""What an HTTP request to the callback server means.

AF10 sends a plain GET to the webhook URL with `id=<secret uuid>` added (its own webhook page).
Whether it appends `?id=` or `&id=`, after a trailing slash or not, and with which other
parameters, is not documented: all of these are understood, and so are paths and ids that a proxy
has percent-encoded (RFC 3986, section 6.2.2.2: the same address in other letters). The characters
of key and id are strict, because both are stored and the id is sent on to AF10.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from .keys import is_genuine, is_probe

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
class Probe:
    """A request that one of us sent to see whether callbacks arrive."""

    key: str
    id: str | None
    """None when it was lost on the way."""
    path: str
    """Where it arrived."""
    is_at_home: bool
    """Whether that is where callbacks are read."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Not a callback: the HTTP status to answer, and why (for the log; holds no input)."""

    status: int
    reason: str


_NO_PATH = Rejection(404, "not a callback path")
_NO_KEY = Rejection(404, "not a key of ours")


def callback_prefixes(public_path: str, prefix: str) -> tuple[str, ...]:
    """The paths under which keys stand, each with a slash at both ends.

    A proxy in front may take the path of the public address off, or leave it on. They are written
    without percent-encoding, as `read_callback` reads what arrives.
    """
    own = f"/{prefix}/" if prefix else "/"
    public = unquote(public_path, errors="replace").rstrip("/")
    return tuple(dict.fromkeys((own, f"{public}{own}")))


def read_callback(
    method: str, target: str, *, prefixes: tuple[str, ...], callback_secret: bytes
) -> Callback | Probe | Rejection:
    """Read the request line `method` and raw `target` (path and query, still percent-encoded).

    `prefixes` are the paths under which keys stand, as `callback_prefixes` makes them.
    """
    if method != "GET":
        return Rejection(405, "only GET is understood")
    if len(target) > MAX_TARGET_LENGTH or not target.startswith("/"):
        return _NO_PATH
    path, _, query = target.partition("?")
    if "&" in path:
        path, query = _split(target)
    if "%" in path:
        path = unquote(path, errors="replace")
    folder, _, key = path.removesuffix("/").rpartition("/")
    is_at_home = f"{folder}/" in prefixes
    is_ours = is_at_home and is_genuine(key, callback_secret)
    if not is_ours and not is_probe(key, callback_secret):
        return _NO_KEY if is_at_home else _NO_PATH
    secret = _secret_in(query)
    if not is_ours:
        return Probe(key, secret if isinstance(secret, str) else None, path, is_at_home)
    return Callback(key, secret) if isinstance(secret, str) else secret


def _split(target: str) -> tuple[str, str]:
    """Path and query of one whose query may have begun with `&`."""
    path, _, _ = target.replace("?", "&").partition("&")
    return path, target[len(path) + 1 :]


def _secret_in(query: str) -> str | Rejection:
    if query.startswith("id=") and _SECRET.fullmatch(query, 3):
        return query[3:]  # as AF10 sends it: the rest is for what others make of it
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
    return secret
