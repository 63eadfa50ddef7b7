"""Addresses that are known beforehand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..errors import ConfigurationError
from ..protocol.public_url import read_public_url
from .base import LocalServer, PublicURL, Tell


class FixedURL(PublicURL):
    """An address that leads here by itself, or by a proxy that somebody else has set up.

    Args:
        url: https, without a query; it may have a path, which the proxy may take off or leave on.

    Raises:
        ConfigurationError: it is no such address.

    """

    may_change = False

    def __init__(self, url: str) -> None:
        self.url = _checked(url)

    @asynccontextmanager
    async def open(self, local: LocalServer, tell: Tell) -> AsyncIterator[str]:
        """Nothing needs to be done."""
        yield self.url


class OwnAddress(PublicURL):
    """The server's own address, for one that has a certificate and is reached directly."""

    may_change = False

    @asynccontextmanager
    async def open(self, local: LocalServer, tell: Tell) -> AsyncIterator[str]:
        """Nothing needs to be done."""
        yield local.url


def _checked(url: str) -> str:
    try:
        found = read_public_url(url)
    except ValueError:
        found = None
    if not isinstance(found, str):
        raise ConfigurationError(
            "public_url must be an https address without a query, such as https://hooks.example.com"
        )
    return found
