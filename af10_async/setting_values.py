"""What a single setting may be, apart from the others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr, StringConstraints

from .protocol.forwarded import networks
from .protocol.public_url import read_public_url
from .stores import is_store_url


def _http_url(value: str) -> str:
    if any(not character.isprintable() or character in " \\?#" for character in value):
        raise ValueError("more than scheme, host, port and path")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("not a URL")
    if parts.username is not None:
        raise ValueError("more than scheme, host, port and path")
    return value.rstrip("/")


def _public_url(value: str) -> str:
    found = read_public_url(value)
    return found if isinstance(found, str) else value


def _fixed_url(value: str) -> str:
    found = read_public_url(value)
    if not isinstance(found, str):
        raise ValueError("a tunnel, which leads to no app of somebody else's")
    return found


def _proxies(value: object) -> object:
    """A variable is one text, with commas between the addresses."""
    texts = value.split(",") if isinstance(value, str) else value
    return [each.strip() for each in texts] if isinstance(texts, list) else texts


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    networks(value)
    return value


def _header_secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text or any(not "!" <= character <= "~" for character in text):
        raise ValueError("not visible ASCII")
    return value


def _readable_file(value: Path) -> Path:
    if not value.is_file() or not os.access(value, os.R_OK):
        raise ValueError("no such file")
    return value


def _present(value: SecretStr) -> SecretStr:
    if not value.get_secret_value():
        raise ValueError("empty")
    return value


def _long_enough(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < 16:
        raise ValueError("too short")
    return value


def _store_url(value: SecretStr) -> SecretStr:
    if not is_store_url(value.get_secret_value()):
        raise ValueError("not a store")
    return value


HttpUrl = Annotated[str, AfterValidator(_http_url)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]
FixedUrl = Annotated[str, AfterValidator(_fixed_url)]
Proxies = Annotated[tuple[str, ...], BeforeValidator(_proxies), AfterValidator(_networks)]
ReadableFile = Annotated[Path, AfterValidator(_readable_file)]
Name = Annotated[str, StringConstraints(min_length=1)]
CallbackSecret = Annotated[SecretStr, AfterValidator(_long_enough)]
HeaderSecret = Annotated[SecretStr, AfterValidator(_header_secret)]
Secret = Annotated[SecretStr, AfterValidator(_present)]
StoreUrl = Annotated[SecretStr, AfterValidator(_store_url)]
