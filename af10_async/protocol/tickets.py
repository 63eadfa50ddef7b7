"""A job's ticket: a short plain text that restores the job where no store knows it.

`af10-1.<key>.<account>.<flags>.<created>.<method>.<path>`: the version, the key, whose job it is
(the digest that stores use too), `f` when a file is expected and `s` when AF10 is known to have
accepted it, the Unix second of its making in hexadecimal, and what was asked of AF10. There is
nothing in it that lets anybody in. A newer release may add fields at the end of version 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from .keys import KEY_PATTERN
from .lifecycle import JobRecord

VERSION = 1
_ACCOUNT = re.compile(r"[0-9a-f]{32}", re.ASCII)
_PREFIX = re.compile(r"af10-([0-9]{1,6})", re.ASCII)
_FLAGS = re.compile(r"f?s?|-", re.ASCII)
_CREATED = re.compile(r"[0-9a-f]{1,12}", re.ASCII)
_METHOD = re.compile(r"[A-Z]{1,10}", re.ASCII)


class TicketError(ValueError):
    """A text that is not a ticket that this release understands."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a ticket says."""

    key: str
    account: str
    expects_file: bool
    start_certain: bool
    created_at: float
    method: str
    path: str

    def __str__(self) -> str:
        flags = ("f" if self.expects_file else "") + ("s" if self.start_certain else "")
        # Dots part the fields, so none may stand in the path.
        path = quote(self.path, safe="/").replace(".", "%2E")
        created = f"{int(self.created_at):x}"
        head = f"af10-{VERSION}.{self.key}.{self.account}"
        return f"{head}.{flags or '-'}.{created}.{self.method}.{path}"


def ticket_of(record: JobRecord) -> Ticket:
    """The ticket of a job that is on record, and whose account is known."""
    assert record.account is not None  # an orphan has none: nobody knows what it is
    return Ticket(
        key=record.key,
        account=record.account,
        expects_file=record.expects_file,
        start_certain=record.start_certain,
        created_at=record.created_at,
        method=record.method,
        path=record.path,
    )


def is_ticket(text: str) -> bool:
    """Whether a text is meant as a ticket, rather than as a key."""
    return text.startswith("af10-") and "." in text


def read_ticket(text: str) -> Ticket:
    """What a ticket says. Raises `TicketError`."""
    version, *fields = text.strip().split(".")
    found = _PREFIX.fullmatch(version)
    if found is None:
        raise TicketError("this is not a ticket: one begins with af10-1 and holds no spaces")
    if int(found[1]) > VERSION:
        raise TicketError(
            f"this ticket has version {found[1]}, and this release of af10-async understands"
            f" version {VERSION}: upgrade it"
        )
    key, account, flags, created, method, path = (*fields, *[""] * 6)[:6]
    if not path or not _is_sound(key, account, flags, created, method):
        raise TicketError("this ticket is damaged: copy the whole of it, without spaces or breaks")
    return Ticket(
        key=key,
        account=account,
        expects_file="f" in flags,
        start_certain="s" in flags,
        created_at=float(int(created, 16)),
        method=method,
        path=unquote(path),
    )


def _is_sound(key: str, account: str, flags: str, created: str, method: str) -> bool:
    pairs = (
        (KEY_PATTERN, key),
        (_ACCOUNT, account),
        (_FLAGS, flags),
        (_CREATED, created),
        (_METHOD, method),
    )
    return all(pattern.fullmatch(value) for pattern, value in pairs)
