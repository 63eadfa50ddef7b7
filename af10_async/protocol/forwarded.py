"""Who sent a request that came through a proxy, as far as that can be believed.

`X-Forwarded-For` and `X-Forwarded-Proto` can be written by anybody; they are believed only when
they come from a proxy that was named, and only as far back as such proxies go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

_WITH_PORT = re.compile(r"\[(?P<v6>[^]]+)\](?::\d+)?|(?P<v4>[^:]+):\d+", re.ASCII)
Networks: TypeAlias = "tuple[IPv4Network | IPv6Network, ...]"


def networks(addresses: Iterable[str]) -> Networks:
    """The networks of proxies: `127.0.0.1`, `10.0.0.0/8`, `fd00::/8`. Raises `ValueError`."""
    return tuple(ip_network(each.strip()) for each in addresses)


def sender(peer: str | None, forwarded_for: Sequence[str], trusted: Networks) -> str | None:
    """The address of whoever sent a request that came from `peer`.

    `forwarded_for` are the values of `X-Forwarded-For`. Read from its end, the first address that
    is no trusted proxy is the sender: whatever stands before it, the sender may have written.
    """
    address = peer
    hops = [hop.strip() for value in forwarded_for for hop in value.split(",")]
    while hops and is_trusted(address, trusted):
        hop = _without_port(hops.pop())
        if _parsed(hop) is None:
            return address  # `unknown`, or nothing that an address looks like
        address = hop
    return address


def came_in_the_clear(peer: str | None, protocols: Sequence[str], trusted: Networks) -> bool:
    """Whether a trusted proxy says, by `X-Forwarded-Proto`, that it was asked over plain http."""
    named = [each.strip().lower() for value in protocols for each in value.split(",")]
    return named[-1:] == ["http"] and is_trusted(peer, trusted)


def is_trusted(address: str | None, trusted: Networks) -> bool:
    """Whether an address is one of the named proxies."""
    parsed = _parsed(address) if address is not None else None
    return parsed is not None and any(parsed in network for network in trusted)


def _without_port(hop: str) -> str:
    """Some proxies add it: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    found = _WITH_PORT.fullmatch(hop)
    return (found["v6"] or found["v4"]) if found else hop


def _parsed(text: str) -> IPv6Address | object | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)  # how a socket for both families tells of IPv4
    return mapped or address
