"""The URL of a Valkey store."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit

from ..errors import ConfigurationError

_SCHEMES = {
    "redis": "redis",
    "rediss": "rediss",
    "valkey": "redis",
    "valkeys": "rediss",
    "unix": "unix",
    "redis+unix": "unix",
    "valkey+unix": "unix",
}
_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Address:
    """Where the server is, and which part of it is ours."""

    url: str = field(repr=False)
    """As redis-py wants it; may hold a password."""
    shown: str
    """The same for the eyes of people."""
    prefix: str
    is_cluster: bool


def read_address(url: str) -> Address:
    """The address of a store's URL. Raises `ConfigurationError`, which quotes nothing of it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(
            "the store's URL cannot be read: percent-encode what is special in its password"
        ) from None
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or parts.fragment:
        raise ConfigurationError(
            "the store's URL must be like valkey://user:password@host:6379/0 (valkeys:// with TLS)"
        )
    if scheme != "unix" and not re.fullmatch(r"/?\d*", parts.path):
        raise ConfigurationError("the path of the store's URL must be the number of a database")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    prefix, cluster = query.pop("prefix", "af10"), query.pop("cluster", "false")
    if not _PREFIX.fullmatch(prefix):
        raise ConfigurationError("prefix= in the store's URL: letters, digits and _ . : - only")
    if cluster.lower() not in _TRUTH:
        raise ConfigurationError("cluster= in the store's URL must be true or false")
    where = "" if scheme == "unix" else f"{host or 'localhost'}:{port or 6379}"
    return Address(
        f"{scheme}://{parts.netloc}{parts.path}?{urlencode(query)}",
        f"{parts.scheme}://{where}{parts.path}",
        prefix,
        _TRUTH[cluster.lower()],
    )
