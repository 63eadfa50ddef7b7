"""What a fault does, as plain values. Whoever carries one out matches on its type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "Act",
    "AnyAct",
    "Body",
    "Come",
    "Data",
    "Direct",
    "Echo",
    "Encode",
    "Expire",
    "FileAct",
    "Hang",
    "RepeatPage",
    "Reply",
    "Reset",
    "Slow",
    "Stale",
    "Whole",
]


@dataclass(frozen=True, slots=True)
class Slow:
    """Wait, then go on as usual."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer with this; when `after`, the request takes effect first."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    after: bool = False


@dataclass(frozen=True, slots=True)
class Echo:
    """Repeat the request in an error."""

    status: int


@dataclass(frozen=True, slots=True)
class Reset:
    """Break the connection, before or after the request took effect."""

    after: bool


@dataclass(frozen=True, slots=True)
class Hang:
    """Take effect, then never answer."""


@dataclass(frozen=True, slots=True)
class Expire:
    """Refuse the token."""

    status: int


@dataclass(frozen=True, slots=True)
class Direct:
    """Be done at once, without a callback."""

    data: Any


@dataclass(frozen=True, slots=True)
class Data:
    """Redeem to this instead of a file."""

    value: Any


@dataclass(frozen=True, slots=True)
class RepeatPage:
    """List the first page, and promise another, whichever was asked for."""


@dataclass(frozen=True, slots=True)
class Come:
    """How the callback is made."""

    early: bool = False
    late_seconds: float = 0.0
    times: int = 1
    style: Literal["query", "ampersand", "trailing_slash"] = "query"
    extra: Mapping[str, str] = field(default_factory=dict)
    forged_first: bool = False
    method_first: str | None = None
    genuine: bool = True


@dataclass(frozen=True, slots=True)
class Stale:
    """The file's address is no longer good."""

    status: int


@dataclass(frozen=True, slots=True)
class Body:
    """A file's body that is not as promised.

    Attributes:
        sent: How many bytes are sent; negative counts from the end, None is half.
        promised: What is added to the true length in Content-Length; None leaves it out.
        then: What happens when they are sent.
        piece: Bytes sent at a time.
        pause: Seconds between the pieces.

    """

    sent: int | None = None
    promised: int | None = 0
    then: Literal["close", "reset", "stall"] = "close"
    piece: int = 256 * 1024
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class Encode:
    """The file, compressed."""


@dataclass(frozen=True, slots=True)
class Whole:
    """The file with a wrong idea of what was asked.

    Attributes:
        partial: A plain GET is answered with 206 and the first half.
        ignore_range: A range is answered with 200 and the whole.
        shift: A range is answered with one that begins so many bytes later.
        changed: The file is another one, with an ETag of its own.

    """

    partial: bool = False
    ignore_range: bool = False
    shift: int = 0
    changed: bool = False


FileAct = Stale | Body | Encode | Whole
AnyAct = Slow | Reply | Echo | Reset | Hang | Expire
Act = AnyAct | Direct | Data | RepeatPage | Come | FileAct
