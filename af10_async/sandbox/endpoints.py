"""Endpoints of the user's own, for code that calls what the sandbox does not know."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from .calls import json_answer, not_found
from .records import Seen

__all__ = ["Answer", "Endpoints"]

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is more than a JSON value with status 200.

    Attributes:
        status: The HTTP status.
        value: Bytes are sent as they are, anything else as JSON.
        headers: Added to those that it has anyway.

    """

    status: int = 200
    value: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Endpoints:
    """Which endpoints there are, and what they answer."""

    def __init__(self) -> None:
        self._exact: dict[tuple[str, str], Any] = {}
        self._below: dict[tuple[str, str], Any] = {}

    def add(self, method: str, path: str, answer: Any) -> None:
        """Answer this from now on, whatever was answered before.

        Raises:
            ValueError: when no request can have this method or path.

        """
        method = method.upper()
        if method not in _METHODS:
            raise ValueError(f"method={method!r} is none of {', '.join(_METHODS)}")
        if not path.startswith("/") or "?" in path or "*" in path[:-1]:
            raise ValueError(
                f"path={path!r} must begin with a slash, have no query, and a * at its end only"
            )
        known = self._below if path.endswith("*") else self._exact
        known[method, path.removesuffix("*")] = answer

    def knows(self, method: str, path: str) -> bool:
        """Whether there is one for this request."""
        return self._key(method, path) is not None

    async def answer(self, seen: Seen) -> web.Response:
        """What it answers to this request."""
        key = self._key(seen.method, seen.path)
        if key is None:
            return not_found("Endpoint")
        answer = self._exact[key] if key in self._exact else self._below[key]
        if callable(answer):
            answer = answer(seen)
        if inspect.isawaitable(answer):
            answer = await answer
        return _response(answer if isinstance(answer, Answer) else Answer(value=answer))

    def _key(self, method: str, path: str) -> tuple[str, str] | None:
        if (method, path) in self._exact:
            return method, path
        above = [key for key in self._below if key[0] == method and path.startswith(key[1])]
        return max(above, key=lambda key: len(key[1]), default=None)


def _response(answer: Answer) -> web.Response:
    if isinstance(answer.value, bytes):
        return web.Response(status=answer.status, body=answer.value, headers=answer.headers)
    response = json_answer(answer.value, answer.status)
    response.headers.update(answer.headers)
    return response
