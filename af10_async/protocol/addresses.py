"""Which addresses a file may come from.

AF10 names the file by a URL inside JSON. Whoever can influence that answer must not be able to
point us inside the network (`http://169.254.169.254/...`), so a payload URL is https and its host
is public, unless AF10 itself lives at a private address, as the sandbox does.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_PLAIN_HOST = re.compile(r"[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]+", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)
_URL_CHARACTERS = re.compile(r"[^\x00-\x1f\x7f-\x9f\\\ud800-\udfff]+")


def is_public_address(address: str) -> bool:
    """Whether an IP address is one of the public internet.

    IPv4 addresses inside IPv6 ones (mapped, 6to4, Teredo, NAT64) are judged by what is inside:
    `ipaddress` calls some of these global. Other IPv6 addresses must be in the one block that is
    given out: not all that `ipaddress` calls global is (`::127.0.0.1`, `fec0::/10`).
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public_address(str(inner))
        if ip not in _GLOBAL_UNICAST:
            return False
    return ip.is_global and not ip.is_multicast


def is_private_host(host: str) -> bool:
    """Whether a host is one of this machine or of a private network, as far as its name tells."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return not is_public_address(name)
    except ValueError:
        return False


def check_file_url(url: str, *, trusted: bool) -> str | None:
    """What is wrong with the URL of a file, or None. The text never holds the URL itself.

    `trusted` allows http and private addresses: for a URL that the caller gave, and for an AF10
    that is itself at a private address.
    """
    if len(url) > 8192 or not _URL_CHARACTERS.fullmatch(url):
        return "it is too long or has characters that no URL has"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "it is malformed"
    return _check_parts(parts, port, trusted)


def is_allowed_host(url: str, allowed: Iterable[str] | None) -> bool:
    """Whether the host of a URL is, or is below, one of these; None allows every host."""
    if allowed is None:
        return True
    host = (urlsplit(url).hostname or "").rstrip(".").lower()
    return any(host == name or host.endswith(f".{name}") for name in allowed)


def _check_parts(parts: SplitResult, port: int | None, trusted: bool) -> str | None:
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        return "it is not an http or https address"
    if parts.username is not None or parts.password is not None:
        return "it holds a user name or a password"
    if not _PLAIN_HOST.fullmatch(host):
        return "its host name is malformed"
    if trusted:
        return None
    if parts.scheme != "https":
        return "it is not https"
    if port is not None and port < 1024 and port != 443:
        return "it names a port that belongs to another service"
    if is_private_host(host) or _is_disguised(host.rstrip(".")):
        return "it points inside a private network"
    return None


def _is_disguised(host: str) -> bool:
    """Whether a host is a number that only some resolvers read as an address (`0x7f.1`)."""
    if not _NUMBER.fullmatch(host.rpartition(".")[2]):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


def check_api_url(url: str, base_url: str) -> bool:
    """Whether the token may be sent to the `api_url` that AF10 named when asked at `base_url`.

    It may be on another host (P), but never falls from https to http, nor from a public address
    to a private one.
    """
    if not _URL_CHARACTERS.fullmatch(url) or "?" in url or "#" in url:
        return False
    try:
        parts, base = urlsplit(url), urlsplit(base_url)
        parts.port  # noqa: B018 - raises when it is not a number
    except ValueError:
        return False
    trusted = base.scheme == "http" or is_private_host(base.hostname or "")
    if base.scheme == "https" and parts.scheme != "https":
        return False
    return _check_parts(parts, None, trusted) is None
