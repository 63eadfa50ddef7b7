"""Faults in the answers to requests."""

from __future__ import annotations

import gzip
import json
from typing import Any, Self, Unpack

from .acts import Data, Direct, Echo, Expire, Hang, RepeatPage, Reply, Reset, Slow
from .base import BaseFault, When

__all__ = ["AnswerFaults"]

_JSON = "application/json; charset=utf-8"
_HTML = "text/html; charset=utf-8"
_PAGE = "<!doctype html><title>Please sign in</title><h1>Please sign in to this network</h1>"


class AnswerFaults(BaseFault):
    """The kinds that can strike any request; `on` is `any` when not given."""

    __slots__ = ()

    @classmethod
    def slow(cls, seconds: float, **when: Unpack[When]) -> Self:
        """The request takes effect, and is answered, so much later."""
        return cls._of(Slow(seconds), "any", when)

    @classmethod
    def status(
        cls,
        status: int,
        body: Any = b"",
        *,
        headers: dict[str, str] | None = None,
        after: bool = False,
        **when: Unpack[When],
    ) -> Self:
        """Answer with a status, and no body, text, bytes, or anything else as JSON.

        With `after`, the request takes effect first.
        """
        content, kind = _content(body)
        return cls._of(Reply(status, {**kind, **(headers or {})}, content, after), "any", when)

    @classmethod
    def rate_limited(
        cls, retry_after: str | None = "1", retry_ms: Any = None, **when: Unpack[When]
    ) -> Self:
        """429, with this text as `Retry-After`: seconds, an HTTP date, or nonsense.

        With `retry_ms`, there is a `retry` in the body as well, in milliseconds.
        """
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        body = {"errorCode": 429, "errorMessage": "Too many requests"}
        if retry_ms is not None:
            body["retry"] = retry_ms
        return cls.status(429, body, headers=headers, **when)

    @classmethod
    def come_back(cls, retry_ms: Any = 5000, **when: Unpack[When]) -> Self:
        """202 with `retry` in milliseconds; on `authenticate` when not given."""
        when.setdefault("on", "authenticate")
        return cls.status(202, {"retry": retry_ms}, **when)

    @classmethod
    def error_in_200(
        cls, code: Any = 500, message: str = "Something went wrong", **when: Unpack[When]
    ) -> Self:
        """An `errorCode` and `errorMessage` with HTTP 200."""
        return cls.status(200, {"errorCode": code, "errorMessage": message}, **when)

    @classmethod
    def html(
        cls, status: int = 200, page: str = _PAGE, *, after: bool = False, **when: Unpack[When]
    ) -> Self:
        """A web page, as something in between may answer; on the file too."""
        return cls.status(status, page, headers={"Content-Type": _HTML}, after=after, **when)

    @classmethod
    def huge(cls, size: int = 1024 * 1024 + 1, **when: Unpack[When]) -> Self:
        """Valid JSON of `size` bytes, over 1 MiB when not given."""
        frame = len('{"data": ""}')
        return cls.status(200, {"data": "x" * max(0, size - frame)}, **when)

    @classmethod
    def encoded(cls, size: int = 16 * 1024 * 1024, layers: int = 1, **when: Unpack[When]) -> Self:
        """JSON that grows to `size` bytes when its gzip `layers` are undone."""
        body = b'{"data": "' + b"0" * size + b'"}'
        for _ in range(layers):
            body = gzip.compress(body, mtime=0)
        headers = {"Content-Type": _JSON, "Content-Encoding": ", ".join(["gzip"] * layers)}
        return cls.status(200, body, headers=headers, **when)

    @classmethod
    def wrong_type(cls, value: Any = (), **when: Unpack[When]) -> Self:
        """Valid JSON, but not the object that was promised: an empty list when not given."""
        return cls.status(200, json.dumps(value).encode(), headers={"Content-Type": _JSON}, **when)

    @classmethod
    def echo(cls, status: int = 400, **when: Unpack[When]) -> Self:
        """An error that repeats the whole URL and all headers of the request."""
        return cls._of(Echo(status), "any", when)

    @classmethod
    def reset_before(cls, **when: Unpack[When]) -> Self:
        """The connection is reset, and the request has no effect."""
        return cls._of(Reset(after=False), "any", when)

    @classmethod
    def reset_after(cls, **when: Unpack[When]) -> Self:
        """The request takes effect, and the connection is closed without an answer."""
        return cls._of(Reset(after=True), "any", when)

    @classmethod
    def hang(cls, **when: Unpack[When]) -> Self:
        """The request takes effect, and is never answered."""
        return cls._of(Hang(), "any", when)

    @classmethod
    def expired_token(cls, status: int = 401, **when: Unpack[When]) -> Self:
        """The token of the request is refused now and ever after.

        With `status` 200, this answer says "Not authorized" with HTTP 200.
        """
        return cls._of(Expire(status), "any", when)

    @classmethod
    def direct(cls, data: Any = None, **when: Unpack[When]) -> Self:
        """The POST is answered 200 with `data` at once: the file when not given; no callback."""
        return cls._of(Direct(data), "start", when)

    @classmethod
    def payload(cls, data: Any, **when: Unpack[When]) -> Self:
        """Redeeming gives this `data` instead of a file."""
        return cls._of(Data(data), "redeem", when)

    @classmethod
    def repeats_page(cls, **when: Unpack[When]) -> Self:
        """Lists give page 1 again and again, with `nextpage` true; for ever when not given."""
        when.setdefault("times", None)
        return cls._of(RepeatPage(), "vehicle", when)

    @classmethod
    def refused_secret(cls, status: int = 404, **when: Unpack[When]) -> Self:
        """A genuine secret is refused when it is redeemed, with this status and `errorCode`."""
        when.setdefault("on", "redeem")
        return cls.status(status, {"errorCode": status, "errorMessage": "Unknown id"}, **when)


def _content(body: Any) -> tuple[bytes, dict[str, str]]:
    if isinstance(body, bytes):
        return body, {}
    if isinstance(body, str):
        return body.encode(), {"Content-Type": "text/plain; charset=utf-8"}
    return json.dumps(body).encode(), {"Content-Type": _JSON}
