"""Where files go besides folders: URLs of object storage, and of files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from ..errors import ConfigurationError

ENVIRONMENTS = {
    "s3": "AWS",
    "s3a": "AWS",
    "gs": "GOOGLE",
    "az": "AZURE",
    "azure": "AZURE",
    "abfs": "AZURE",
    "abfss": "AZURE",
}
"""How the environment variables of each kind of store begin."""
_FORMS = "s3://bucket/key, gs://bucket/key, az://container/key or file:///path"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class StorageTarget:
    """An object: of which store, and under which key."""

    scheme: str
    root: str
    """The URL up to its bucket or container."""
    key: str

    @property
    def url(self) -> str:
        """All of it, with special characters of the key percent-encoded."""
        return f"{self.root}/{quote(self.key)}"


def is_storage_url(url: str) -> bool:
    """Whether it is one of these; it may still be malformed."""
    scheme, mark, _ = url.partition("://")
    return bool(mark) and (scheme.lower() == "file" or scheme.lower() in ENVIRONMENTS)


def read_storage_url(url: str, name: str) -> StorageTarget:
    """What a URL means, whose key is `name` where it ends in none. Raises `ConfigurationError`."""
    try:
        parts = urlsplit(url)
        key = unquote(parts.path.removeprefix("/"), errors="strict")
    except ValueError:
        raise _bad_url("it is malformed") from None
    if parts.scheme not in ENVIRONMENTS:
        raise _bad_url("it is of another kind")
    if "?" in url or "#" in url:
        raise _bad_url("it has a query or a fragment; in a key, ? is %3F and # is %23")
    if ":" in parts.netloc or ("@" in parts.netloc and not parts.scheme.startswith("abfs")):
        raise _bad_url("it holds credentials or a port; these belong in the options")
    if not parts.netloc:
        raise _bad_url("it names no bucket")
    if not key or key.endswith("/"):
        key += name
    _check_key(key)
    return StorageTarget(parts.scheme, f"{parts.scheme}://{parts.netloc}", key)


def _check_key(key: str) -> None:
    if not key or key.endswith("/"):
        raise _bad_url("it names no key")
    if {"", ".", ".."} & set(key.split("/")):
        raise _bad_url("its key has a part that is empty, . or ..")
    if _CONTROL.search(key):
        raise _bad_url("its key has control characters")


def file_path(url: str) -> str:
    """The path that a `file:` URL means; a `ConfigurationError` when it is malformed."""
    try:
        parts = urlsplit(url)
        path = unquote(parts.path, errors="strict")
    except ValueError:
        raise _bad_url("it is malformed") from None
    if "?" in url or "#" in url:
        raise _bad_url("it has a query or a fragment; in a path, ? is %3F and # is %23")
    if parts.netloc not in {"", "localhost"} or not path.startswith("/"):
        raise _bad_url("it names another machine, or no absolute path")
    if ".." in path.split("/") or _CONTROL.search(path):
        raise _bad_url("its path has .. or control characters")
    if os.name == "nt":
        path = path.removeprefix("/")
    return path


def _bad_url(problem: str) -> ConfigurationError:
    return ConfigurationError(f"the target must be {_FORMS}, but {problem}")
