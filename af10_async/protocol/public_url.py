"""What may be said of how the world reaches a callback server.

An https address, or the name of a tunnel: `ngrok`, `ngrok:DOMAIN`, `ngrok-agent`, `cloudflared`, or
`cloudflared:[TUNNEL@]HOST` for a tunnel with a name of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

EXPECTED = (
    "an https address without a query, such as https://hooks.example.com, or a tunnel: ngrok,"
    " ngrok:DOMAIN, ngrok-agent, cloudflared or cloudflared:[TUNNEL@]HOST"
)
_TUNNEL = re.compile(
    r"(?P<kind>ngrok-agent|ngrok|cloudflared)"
    r"(?::(?:(?P<tunnel>[A-Za-z0-9_-]+)@)?(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*))?",
    re.ASCII,
)

_PLAIN = re.compile(r"https://(?:(?![?#\\])[!-~])+", re.ASCII | re.IGNORECASE)
"""Visible ASCII, with nothing that begins a query or a fragment, or that some read as a slash."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A tunnel, as its name in the configuration says."""

    kind: str
    """`ngrok`, `ngrok-agent` or `cloudflared`."""
    host: str | None = None
    tunnel: str | None = None


def read_public_url(text: str) -> str | Tunnel:
    """An https address, without a slash at its end, or a tunnel. Raises `ValueError`.

    The scheme is in small letters: AF10 asks for an address that starts with `https`.
    """
    found = _TUNNEL.fullmatch(text)
    if found is not None:
        kind, host, tunnel = found["kind"], found["host"], found["tunnel"]
        if (host and kind == "ngrok-agent") or (tunnel and kind != "cloudflared"):
            raise ValueError("more than this kind of tunnel takes")
        return Tunnel(kind, host, tunnel)
    if not _is_plain_https(text):
        raise ValueError("not an https address")
    return f"https{text[5:]}".rstrip("/")


def _is_plain_https(url: str) -> bool:
    if not _PLAIN.fullmatch(url):
        return False
    parts = urlsplit(url)  # which raises ValueError for half an IPv6 address
    is_reachable = bool(parts.hostname) and parts.port != 0 and not parts.netloc.endswith(":")
    # Whoever calls takes `.` and `..` out, and so calls another path.
    has_dots = not {".", ".."}.isdisjoint(unquote(parts.path).split("/"))
    return is_reachable and parts.username is None and not has_dots
