"""What receivers of callbacks are given, checked before anything is made of it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .errors import ConfigurationError
from .protocol.forwarded import Networks, networks
from .runtime import Runtime
from .stores import Store, open_store


def made_store(store: str | Store | None, runtime: Runtime) -> Store:
    """The store that is meant: as it is, of a URL, or in memory."""
    if not isinstance(store, str | None):
        return store
    try:
        return open_store(store or "memory:", now=runtime.now)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def checked_prefix(prefix: str) -> str:
    """The path in front of the keys, without slashes around it."""
    prefix = prefix.strip("/")
    # `.` and `..` would be taken out by the caller, who would then call another path.
    parts = prefix.split("/") if prefix else []
    if not all(re.fullmatch(r"(?!\.\.?$)[A-Za-z0-9_.~-]+", part) for part in parts):
        raise ConfigurationError(
            "prefix must be a path of letters, digits and . _ ~ -, such as hooks/af10"
        )
    return prefix


def checked_networks(addresses: Iterable[str]) -> Networks:
    """The networks of proxies; one text may hold several addresses, with commas."""
    try:
        return networks(addresses.split(",") if isinstance(addresses, str) else addresses)
    except ValueError:
        raise ConfigurationError(
            "trusted_proxies must be addresses or networks, such as 127.0.0.1 or 10.0.0.0/8"
        ) from None


def checked_secret(callback_secret: str | None) -> str | None:
    """The callback secret, when it is one that nobody guesses."""
    if callback_secret is not None and len(callback_secret) < 16:
        raise ConfigurationError(
            "callback_secret must be at least 16 characters that nobody can guess, the same on"
            " every replica"
        )
    return callback_secret
