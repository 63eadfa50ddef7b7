"""What the program `cloudflared` says, and what that means.

Its log is one line for each entry, as text (`2024-01-31T12:00:00Z INF message key=value`) or, with
`--output json`, as objects. Errors on which it ends are lines without a level.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from .redaction import REDACTED, redact

__all__ = [
    "Address",
    "Connected",
    "Heard",
    "LineSplitter",
    "Other",
    "RemoteRules",
    "Rule",
    "Trouble",
    "advice",
    "misled_to",
    "presentable",
    "read",
]

LONGEST_LINE = 64 * 1024
"""Bytes of a line that are kept; a remote configuration is a line of several thousand."""
LONGEST_TEXT = 200
"""Characters of what it said that people get to see."""

_TEXT = re.compile(r"(?:\S+ )?(TRC|DBG|INF|WRN|ERR|FTL|PNC)\b ?(.*)", re.DOTALL)
_IS_ERROR = {"ERR", "FTL", "PNC", "error", "fatal", "panic"}
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_QUICK = re.compile(r"https://(?!api\.)[a-z0-9-]+\.trycloudflare\.com(?![\w.:/@?#-])")
_REGISTERED = re.compile(r"Registered tunnel connection\b|Connection \S+ registered\b")
_CONFIGURED = "Updated to new configuration"
_CONFIG = re.compile(r'config=("(?:\\.|[^"\\])*")')
_HARMLESS = re.compile(
    r"Configuration file \S+ was empty"  # we gave it that one
    r"|Cannot determine default origin certificate path"  # a quick tunnel needs none
)
_NO_ERROR = re.compile(r"See '|\s*$")
_FINAL = re.compile(r"Incorrect Usage|panic:|fatal error:")
_LONG_TOKEN = re.compile(r"[A-Za-z0-9+/_-]{40,}=*")


# -- what it says ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a quick tunnel, which does not lead anywhere before it is connected."""

    url: str


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection to Cloudflare is registered: requests arrive from now on."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Which service requests for a hostname go to; no hostname means any."""

    hostname: str
    service: str


@dataclass(frozen=True, slots=True)
class RemoteRules:
    """The rules that are configured at Cloudflare; they go before what stood in the arguments."""

    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error, in its own words."""

    text: str
    is_certain: bool
    """Whether it was marked as an error. Any other line without a level may be one."""


@dataclass(frozen=True, slots=True)
class Other:
    """Anything else."""


Event: TypeAlias = Address | Connected | RemoteRules | Trouble | Other


def read(line: str) -> Event:
    """What a line of its output means."""
    line = _COLOUR.sub("", line).strip()
    level, message, fields = _parts(line)
    if level in _IS_ERROR:
        return Other() if _HARMLESS.match(message) else Trouble(_joined(message, fields), True)
    if level:
        return _told(message, fields)
    if _NO_ERROR.match(line):
        return Other()
    return _address(line) or Trouble(line, bool(_FINAL.match(line)))


def _parts(line: str) -> tuple[str, str, dict[str, Any]]:
    """Level, message, and the fields where they stand apart; no level when it is no log line."""
    if line.startswith("{"):
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            return "", line, {}
        return str(fields.get("level", "info")), str(fields.get("message", "")), fields
    found = _TEXT.match(line)
    return (found[1], found[2], {}) if found else ("", line, {})


def _joined(message: str, fields: dict[str, Any]) -> str:
    error = fields.get("error")
    status = fields.get("status_code")
    return ": ".join(str(part) for part in (message, error, status) if part)


def _told(message: str, fields: dict[str, Any]) -> Event:
    if message.startswith(_CONFIGURED):
        return _remote_rules(message, fields)
    if _REGISTERED.match(message):
        return Connected()
    return _address(message) or Other()


def _address(text: str) -> Address | None:
    found = _QUICK.search(text)
    return Address(found[0]) if found else None


def _remote_rules(message: str, fields: dict[str, Any]) -> Event:
    """The rules of a configuration, which is JSON inside a string; other shapes mean nothing."""
    try:
        config: Any = fields.get("config")
        if config is None and (found := _CONFIG.search(message)):
            config = json.loads(found[1])
        if isinstance(config, str):
            config = json.loads(config)
        rules = [_rule(rule) for rule in config["ingress"]]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Other()
    return RemoteRules(tuple(rules))


def _rule(entry: Any) -> Rule:
    return Rule(str(entry.get("hostname", "")), str(entry["service"]))


@dataclass(frozen=True, slots=True)
class Heard:
    """What a run of it has said so far."""

    url: str | None = None
    """The address; given from the beginning when the tunnel has a hostname of its own."""
    is_connected: bool = False
    trouble: Trouble | None = None
    """The error that tells most: the last one that is certain, or else the last one."""
    is_limited: bool = False
    """Whether Cloudflare refused a quick tunnel because too many were asked for."""

    @property
    def is_ready(self) -> bool:
        """Whether requests to the address arrive."""
        return self.url is not None and self.is_connected

    def with_event(self, event: Event) -> Heard:
        """The same after one more line."""
        match event:
            case Address(url):
                return replace(self, url=self.url or url)
            case Connected():
                return replace(self, is_connected=True)
            case Trouble():
                return self._with_trouble(event)
            case _:
                return self

    def _with_trouble(self, new: Trouble) -> Heard:
        is_limited = self.is_limited or "429 Too Many" in new.text or "error code: 1015" in new.text
        if self.trouble and self.trouble.is_certain and not new.is_certain:
            new = self.trouble
        return replace(self, trouble=new, is_limited=is_limited)


_ADVICE = (
    (
        re.compile(r"token is not valid", re.IGNORECASE),
        "check TUNNEL_TOKEN: it is the long text of the connector's command in Cloudflare's "
        "dashboard, not the tunnel's id",
    ),
    (
        re.compile(r"Unauthorized|tunnel secret|Tunnel not found|credentials", re.IGNORECASE),
        "check that the tunnel exists, and that its token or its credentials file belong to it",
    ),
    (
        re.compile(r"--url flag .*ingress", re.IGNORECASE),
        "its config.yml has ingress rules, which exclude another address: take them out",
    ),
    (
        re.compile(r"failed to (?:dial|serve)|edge|quic|7844", re.IGNORECASE),
        "it has to reach Cloudflare on port 7844 by UDP or TCP: check the firewall",
    ),
    (
        re.compile(r"Incorrect Usage", re.IGNORECASE),
        "update cloudflared: this one does not know an option that it needs",
    ),
)
_LIMITED = (
    "Cloudflare limits how many quick tunnels may be asked for: wait some minutes, or use a tunnel "
    "of your own account"
)
_ANY = "run it by hand to see more, or set another public URL"


def advice(heard: Heard) -> str:
    """What to do about a run that brought no address."""
    if heard.is_limited:
        return _LIMITED
    text = heard.trouble.text if heard.trouble else ""
    return next((what for pattern, what in _ADVICE if pattern.search(text)), _ANY)


def presentable(text: str, secrets: Iterable[str]) -> str:
    """Its words as people may see them: no addresses, ids, tokens; cut to 200 characters.

    Addresses are those of callbacks, too, which hold an id that AF10 gives out only once.
    """
    text = _LONG_TOKEN.sub(REDACTED, redact(text, secrets))
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


# -- where requests go -----------------------------------------------------------------------------


def misled_to(rules: Sequence[Rule], hostname: str, port: int) -> list[str] | None:
    """Where requests for `hostname` go, if to no service on `port`; None when one leads there."""
    services = [rule.service for rule in rules if _is_for(rule.hostname.lower(), hostname)]
    if any(_port_of(service) == port for service in services):
        return None
    return [_without_path(service) for service in services]


def _is_for(pattern: str, hostname: str) -> bool:
    if pattern.startswith("*."):
        return hostname.endswith(pattern[1:])
    return pattern in ("", "*", hostname)


def _port_of(service: str) -> int | None:
    try:
        parts = urlsplit(service)
        return parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None


def _without_path(service: str) -> str:
    """`http://name:80`, or what is no URL (`http_status:404`); never a user name or a path."""
    scheme, separator, rest = service.partition("://")
    return scheme + separator + rest.partition("/")[0].rpartition("@")[2]


# -- lines -----------------------------------------------------------------------------------------


class LineSplitter:
    """Makes lines of what is read; the rest of a line that is too long is dropped."""

    def __init__(self) -> None:
        self._begun = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that are complete now. An empty `data` is the end, and completes the last."""
        *complete, begun = (self._begun + data).split(b"\n")
        if not data and begun:
            complete.append(begun)
            begun = b""
        self._begun = begun[:LONGEST_LINE]
        return [line[:LONGEST_LINE].decode("utf-8", "replace") for line in complete]
