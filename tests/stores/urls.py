"""Stores that processes can share, by URL."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from . import valkey_server


def _sqlite(folder: Path) -> str:
    return f"sqlite:{folder / 'jobs.db'}"


def _valkey(folder: Path) -> str:
    return f"{valkey_server.shared().url}?prefix=t{secrets.token_hex(4)}"


SHARED_URLS: dict[str, Callable[[Path], str]] = {"sqlite": _sqlite, "valkey": _valkey}
"""For each kind, what makes the URL of a new empty one; the folder is for its files."""
