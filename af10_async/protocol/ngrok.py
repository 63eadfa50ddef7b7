"""What an ngrok agent's local API and ngrok's SDK say: which tunnel leads here, why there is none.

Source: ngrok's documentation of the agent's API, and answers of real agents that people have
published. The agent refuses definitions with a field that it does not know.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from .redaction import redact

MAX_REASON = 200
"""Longest reason of ngrok's that is repeated, in characters."""
_CODE = re.compile(r"ERR_NGROK_\d{1,6}")
_BAD_TOKEN = {"ERR_NGROK_105", "ERR_NGROK_106", "ERR_NGROK_107", "ERR_NGROK_4018"}
_TOO_MANY = {"ERR_NGROK_108", "ERR_NGROK_324", "ERR_NGROK_334"}


@dataclass(frozen=True, slots=True)
class Target:
    """The local server that a tunnel should lead to."""

    host: str
    port: int
    is_tls: bool


def addresses_to(listing: object, target: Target) -> tuple[str, ...] | None:
    """The https addresses in the agent's list of tunnels that lead to `target`.

    None when it is no such list.
    """
    tunnels = listing.get("tunnels") if isinstance(listing, Mapping) else None
    if not isinstance(tunnels, Sequence) or isinstance(tunnels, str):
        return None
    leading = (public_address(each) for each in tunnels if _tunnel_leads_to(each, target))
    return tuple(address for address in leading if address is not None)


def chosen(addresses: Sequence[str], current: str | None) -> str | None:
    """The one to use: what is in use already stays, if it can."""
    if current in addresses:
        return current
    return addresses[0] if addresses else None


def public_address(tunnel: object) -> str | None:
    """The https address of one tunnel as the agent describes it; None when it has none."""
    url = tunnel.get("public_url") if isinstance(tunnel, Mapping) else None
    return https_address(url)


def https_address(url: object) -> str | None:
    """`url` without a slash at its end, if it is an https address and nothing more."""
    parts = _split(url) if isinstance(url, str) else None
    if parts is None or parts.scheme != "https" or "@" in parts.netloc:
        return None
    has_more = parts.path.strip("/") or parts.query or parts.fragment
    return None if has_more or not parts.hostname else f"https://{parts.netloc}"


def _tunnel_leads_to(tunnel: object, target: Target) -> bool:
    config = tunnel.get("config") if isinstance(tunnel, Mapping) else None
    addr = config.get("addr") if isinstance(config, Mapping) else None
    return leads_to(addr, target)


def leads_to(addr: object, target: Target) -> bool:
    """Whether a tunnel with this `config.addr` reaches the server, and in the way that it speaks.

    Forms: `http://localhost:8443`, `https://127.0.0.1:8443`, `localhost:8443`, `8443`. Without a
    scheme ngrok speaks plain http.
    """
    text = str(addr).strip() if isinstance(addr, str | int) else ""
    if text.isascii() and text.isdigit():
        text = f"localhost:{text}"
    parts = _split(text if "://" in text else f"http://{text}")
    if parts is None or parts.scheme != ("https" if target.is_tls else "http"):
        return False
    port = parts.port or (443 if target.is_tls else 80)
    return port == target.port and _is_same_host(parts.hostname or "", target.host)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises when it is none
    except ValueError:
        return None
    return parts


def _is_same_host(host: str, ours: str) -> bool:
    return host == ours.lower() or (_is_this_machine(host) and _is_this_machine(ours))


def _is_this_machine(host: str) -> bool:
    """Whether it is one of the names of the loopback interface, where one is as good as another."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def definition(name: str, local_url: str) -> dict[str, object]:
    """What to ask the agent for: an https tunnel to a local server.

    The agent does not check the certificate of a local https server. What passes is not kept for
    its web page (`inspect`): that would be the secrets of all callbacks.
    """
    return {
        "name": name,
        "proto": "http",
        "addr": local_url,
        "schemes": ["https"],
        "inspect": False,
    }


def refusal(body: object) -> str | None:
    """The reason that the agent's error body gives, on one line; None when it is no such body."""
    message = body.get("msg") if isinstance(body, Mapping) else None
    if not isinstance(message, str):
        return None
    details = body.get("details") if isinstance(body, Mapping) else None
    error = details.get("err") if isinstance(details, Mapping) else None
    return reason([message, error], ())


def reason(parts: Iterable[object], secrets: Iterable[str]) -> str:
    """What ngrok says, on one line and not too long; its code comes first, if there is one."""
    given, hidden = [str(part) for part in parts if part], tuple(secrets)
    code = error_code(" ".join(given))
    said = (_CODE.sub("", redact(part, hidden)) for part in given)
    text = ": ".join(" ".join(part.split()).rstrip(":.") for part in said if part)
    return f"{code}: {text}"[:MAX_REASON] if code else text[:MAX_REASON]


def error_code(text: str) -> str | None:
    """The first of ngrok's own codes in a text, such as `ERR_NGROK_105`."""
    found = _CODE.search(text)
    return found[0] if found else None


def advice(text: str) -> str:
    """What to do about a reason that ngrok gave."""
    code = error_code(text)
    if code in _BAD_TOKEN:
        return "check the authtoken: it is shown at dashboard.ngrok.com"
    if code in _TOO_MANY:
        return "end what else runs on this ngrok account, or let this use a tunnel that exists"
    if code is not None:
        return f"ngrok.com/docs/errors explains {code.lower()}"
    return "check that this machine reaches connect.ngrok-agent.com:443"
