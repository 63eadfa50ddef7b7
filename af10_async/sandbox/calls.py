"""One request under way, and the answers that every part of the sandbox gives."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from .accounts import Account
from .connection import Line
from .faults import Step
from .faults.acts import Act
from .jobs import Link
from .records import Seen

__all__ = [
    "Call",
    "error_answer",
    "json_answer",
    "method_not_allowed",
    "not_authorized",
    "not_found",
    "read_json",
]


@dataclass(slots=True)
class Call:
    """A request with all that is known about it before it is answered."""

    request: web.Request
    line: Line
    seen: Seen
    step: Step | None = None
    account: Account | None = None
    """Who is logged in with the token that it brought."""
    link: Link | None = None
    """The address of a file that it asks for."""
    act: Act | None = None
    """What goes wrong this time."""


def json_answer(value: Any, status: int = 200) -> web.Response:
    """An answer in JSON."""
    return web.Response(
        body=json.dumps(value).encode(),
        status=status,
        headers={"Content-Type": "application/json; charset=utf-8"},
    )


def error_answer(status: int, message: str) -> web.Response:
    """An error as AF10 words it, with the status as its code."""
    return json_answer({"errorCode": status, "errorMessage": message}, status)


def not_found(what: str) -> web.Response:
    """404."""
    return error_answer(404, f"{what} not found")


def method_not_allowed(*allowed: str) -> web.Response:
    """405, with the methods that are allowed."""
    answer = error_answer(405, "Method not allowed")
    answer.headers["Allow"] = ", ".join(allowed)
    return answer


def not_authorized(status: int = 401) -> web.Response:
    """The token or the credentials are refused; `status` can be 200."""
    return json_answer({"errorCode": 401, "errorMessage": "Not authorized"}, status)


def read_json(body: bytes) -> Any:
    """The value in a body; None when it is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
