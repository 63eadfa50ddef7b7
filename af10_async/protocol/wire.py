"""The wire of AF10: how requests are built, and what its answers mean.

Sources: (W) AF10's own page about webhooks; (P) what two public clients of the API rely on.
`decipher` turns any answer into a value or the right error; the other readers build on it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from ..errors import (
    AF10Error,
    APIError,
    AuthenticationError,
    BadResponseError,
    ConfigurationError,
    NotFoundError,
    RateLimitError,
    ServerError,
)
from .redaction import redact
from .retry import MAX_RETRY_AFTER, parse_retry_after

MAX_JSON_BYTES = 1024 * 1024
"""Largest answer that is read, in bytes, where it can only be small."""
MAX_REPLY_BYTES = 32 * 1024 * 1024
"""Largest answer to a quick call, a page of a list among them."""
TOKEN_CAP_SECONDS = 25 * 60.0
"""Longest time that a token is used: it lives about 30 minutes (P)."""
SOONEST = 0.1
"""Seconds after which anything is asked for again at the soonest, whatever a server says."""
USUAL_WAIT = 5.0
"""Seconds until one comes back where AF10 does not say when."""
EXCERPT_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Call:
    """A request to AF10, before the token is added."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict, repr=False)
    json: Any = field(default=None, repr=False)
    attempt: int = 1
    """1, or more when it is sent again."""
    most_bytes: int = MAX_JSON_BYTES
    """Largest answer that is read."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, read whole. Header names are in lower case."""

    method: str
    path: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    received_at: float = 0.0
    """Unix seconds; `Retry-After` as a date is relative to it."""


# -- what goes out ---------------------------------------------------------------------------------


def authenticate_call(
    api_key: str, username: str, password: str, organization_name: str | None = None
) -> Call:
    """`GET /authenticate` (W), optionally with `organization_name` (P)."""
    params = {"api_key": api_key, "username": username, "password": password}
    if organization_name:
        params["organization_name"] = organization_name
    return Call("GET", "/authenticate", params)


def webhook_call(
    method: str,
    path: str,
    webhook_url: str,
    body: Mapping[str, Any] | None = None,
    params: Mapping[str, str] | None = None,
) -> Call:
    """A request to a webhook-type endpoint with the address to call back (W: a `POST`)."""
    return Call(method, path, params or {}, {**(body or {}), "webhook_url": webhook_url})


def environment_call(username: str) -> Call:
    """`GET /util/environment?username=`, which needs no token (P)."""
    return Call("GET", "/util/environment", {"username": username})


Param = str | int | float | bool | None | Sequence[str] | Sequence[int]
"""What a parameter may be: None is left out, several are joined by commas, as `fields` is (P)."""
_METHOD = re.compile(r"[A-Za-z]{1,20}", re.ASCII)


def quick_call(
    method: str, path: str, params: Mapping[str, Param] | None = None, json: Any = None
) -> Call:
    """A call that AF10 answers at once. Raises `ConfigurationError` for what is none."""
    return Call(
        checked_method(method),
        checked_path(path),
        query(params or {}),
        checked_json(json),
        most_bytes=MAX_REPLY_BYTES,
    )


def checked_method(method: str) -> str:
    """The method in capitals. Raises `ConfigurationError`."""
    if not _METHOD.fullmatch(str(method)):
        raise ConfigurationError(f"the method must be one of HTTP, such as GET, not {method!r}")
    return method.upper()


def checked_path(path: str) -> str:
    """A path below the API's address. Raises `ConfigurationError`.

    It must not lead anywhere else, and what belongs into the query must not stand in it, because
    the path is told in errors and logs, and the query is not.
    """
    if not str(path).startswith("/") or path.startswith("//"):
        raise ConfigurationError(
            "the path must begin with one slash, such as /vehicle: AF10 itself names the host"
        )
    if "?" in path or "#" in path:
        raise ConfigurationError("the path must have no query: give that as params={...}")
    is_plain = path.isascii() and path.isprintable() and not set(path) & set(' "<>\\^`{|}')
    # As a server may read it: some decode a part before they look, and some drop what a semicolon
    # begins.
    parts = [unquote(part).partition(";")[0] for part in path[1:].split("/")]
    leads_elsewhere = any(part in (".", "..") or set(part) & {"/", "\\"} for part in parts)
    if not is_plain or leads_elsewhere or "" in parts[:-1]:
        raise ConfigurationError(
            "the path must be a plain one, without empty parts: put what a user typed through"
            " urllib.parse.quote first"
        )
    return path


def query(params: Mapping[str, Param]) -> dict[str, str]:
    """The parameters as text. Raises `ConfigurationError` for what has no clear one."""
    return {name: _param(name, value) for name, value in params.items() if value is not None}


def _param(name: str, value: Param) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list | tuple) and all(isinstance(each, str | int) for each in value):
        return ",".join(map(str, value))
    raise ConfigurationError(f"the parameter {name!r} must be text, a number or a list of them")


def checked_json(value: Any) -> Any:
    """A copy of a body that can be sent, whatever becomes of it. Raises `ConfigurationError`."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"json must be what JSON can hold: {error}") from None


def redeem_call(secret: str) -> Call:
    """`GET /webhook?id=<secret>` (W)."""
    return Call("GET", "/webhook", {"id": secret})


# -- what comes in ---------------------------------------------------------------------------------


def decipher(reply: Reply, secrets: Collection[str] = ()) -> Any:
    """The JSON value of an answer, or the error that it means.

    An error can come with any status: a body with `errorCode` is one even when the status is 200
    (P). `secrets` are taken out of whatever text of AF10's ends up in the error.
    """
    value = _json(reply)
    if isinstance(value, dict) and value.get("errorCode") not in (None, "", 0, "0"):
        raise _refusal(reply, value, secrets)
    if not 200 <= reply.status < 300:
        raise _refusal(reply, value if isinstance(value, dict) else {}, secrets)
    if value is _NOT_JSON:
        raise not_promised(reply, "is not JSON", secrets)
    return value


def not_promised(reply: Reply, what: str, secrets: Collection[str] = ()) -> BadResponseError:
    """The error for an answer that breaks the wire's promise."""
    # Redacted before it is cut: half a secret would not be recognised.
    excerpt = redact(reply.body.decode("utf-8", "replace"), secrets)[:EXCERPT_LENGTH]
    return BadResponseError(
        f"the answer to {reply.method} {reply.path} (HTTP {reply.status}) {what}; check that the"
        f" base URL is AF10's and that nothing in between answers for it"
        + (f". It begins: {excerpt!r}" if excerpt else ""),
        status=reply.status,
        method=reply.method,
        path=reply.path,
        excerpt=excerpt,
    )


def read_quick(reply: Reply, secrets: Collection[str] = ()) -> Any:
    """The JSON value of an answer to a quick call; None where it has no body (204, say)."""
    if 200 <= reply.status < 300 and not reply.body.strip():
        return None
    return decipher(reply, secrets)


def only_row(value: Any) -> Any:
    """The row of an answer to a call for one (`GET /vehicle/{id}`), in `data` or by itself (P)."""
    row = value["data"] if isinstance(value, dict) and "data" in value else value
    return row[0] if isinstance(row, list) and len(row) == 1 else row


def check_quick(reply: Reply, secrets: Collection[str] = ()) -> None:
    """Raise the error that an answer to a quick call means, if it is one; it need not be JSON."""
    if not 200 <= reply.status < 300 or b"errorCode" in reply.body:
        try:
            decipher(reply, secrets)
        except BadResponseError:
            return  # it is no JSON, and no refusal either


def is_token_refused(reply: Reply) -> bool:
    """Whether an answer means that the token is not (or no longer) good (W, P)."""
    if reply.status == 401:
        return True
    if b"errorCode" not in reply.body:
        return False
    try:
        decipher(reply)
    except APIError as error:
        return str(error.error_code) == "401" or _is_not_authorized(error.error_message)
    except AF10Error:
        return False
    return False


def _is_not_authorized(message: str | None) -> bool:
    """Whether that is all that a message says (P); one that only mentions it says something else.

    A message may repeat credentials behind a colon.
    """
    said = (message or "").partition(":")[0]
    return said.strip().rstrip(".!").lower() == "not authorized"


_NOT_JSON = object()


def _json(reply: Reply) -> Any:
    try:
        return json.loads(reply.body)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _refusal(reply: Reply, body: Mapping[str, Any], secrets: Collection[str]) -> APIError:
    error_code = _error_code(body.get("errorCode"), secrets)
    said = body.get("errorMessage")
    message = redact(said, secrets)[:EXCERPT_LENGTH] if isinstance(said, str) else None
    error_class, advice = _meaning(reply.status, error_code, message)
    text = f"AF10 refused {reply.method} {reply.path} (HTTP {reply.status}"
    text += f", errorCode {error_code})" if error_code is not None else ")"
    text += f": {message}" if message else ""
    return error_class(
        f"{text}; {advice}",
        status=reply.status,
        error_code=error_code,
        error_message=message,
        method=reply.method,
        path=reply.path,
        retry_after=_asked_wait(reply, body),
        retryable=error_class in (RateLimitError, ServerError)
        or (error_class is APIError and reply.status in (408, 425)),
    )


def _asked_wait(reply: Reply, body: Mapping[str, Any]) -> float | None:
    """Seconds to wait, by `Retry-After` or by AF10's own `retry` in milliseconds (P)."""
    asked = parse_retry_after(reply.headers.get("retry-after"), reply.received_at)
    return asked if asked is not None else _milliseconds(body.get("retry"))


def _milliseconds(retry: Any) -> float | None:
    """AF10's `retry` as seconds, however many; None for what is no wait."""
    try:
        milliseconds = float(retry) if not isinstance(retry, bool) else -1.0
    except OverflowError:
        return math.inf if retry > 0 else None
    except (TypeError, ValueError):
        return None
    return milliseconds / 1000 if milliseconds >= 0 else None  # NaN is neither


def _error_code(code: Any, secrets: Collection[str]) -> int | str | None:
    """`errorCode` as AF10 gave it, unless it is no code at all, or repeats something secret."""
    if isinstance(code, float) and code.is_integer():
        code = int(code)
    if not isinstance(code, int | str):
        return None
    clean = redact(str(code), secrets)[:EXCERPT_LENGTH]
    return code if clean == str(code) else clean


def _meaning(
    status: int, error_code: int | str | None, message: str | None
) -> tuple[type[APIError], str]:
    codes = {str(status), str(error_code)}
    if codes & {"401", "403"} or _is_not_authorized(message):
        return AuthenticationError, "check api_key, username and password"
    if "429" in codes:
        return RateLimitError, "send fewer requests, or later"
    if "404" in codes:
        return NotFoundError, "check the path, and the id in it"
    if status >= 500 or re.fullmatch("5[0-9]{2}", str(error_code)):
        return ServerError, "try again later"
    if 300 <= status < 400:
        return APIError, "it redirects, which is not followed: check the base URL"
    return APIError, "the request itself must change"


# -- authenticate ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ComeBack:
    """Answer 202 with `retry`: the same request is welcome after this many seconds (P)."""

    seconds: float


def read_come_back(reply: Reply) -> ComeBack | None:
    """Whether an answer to `/authenticate` is 202 with `retry` in milliseconds (P)."""
    if reply.status != 202:
        return None
    value = _json(reply)
    asked = _milliseconds(value.get("retry")) if isinstance(value, dict) else None
    if asked is None or asked > MAX_RETRY_AFTER:
        return ComeBack(USUAL_WAIT)
    return ComeBack(max(SOONEST, asked))


def read_quick_come_back(reply: Reply) -> ComeBack | None:
    """Whether an answer to any other GET says so: 202 with `retry` and no `data` (P, by analogy).

    A 202 without it is an answer like any other: AF10 has taken something on.
    """
    if reply.status != 202 or reply.method != "GET":
        return None
    value = _json(reply)
    if not isinstance(value, dict) or "retry" not in value or value.get("data") is not None:
        return None
    asked = _milliseconds(value["retry"])
    return ComeBack(USUAL_WAIT if asked is None else max(SOONEST, asked))


def token_life(valid_until: str | None, now: float) -> float:
    """Seconds that a fresh token may be used.

    `token_valid_until` has no time zone (P). Read as UTC and as Dutch winter and summer time, the
    shortest remaining time that is positive counts, less a tenth of it so that it is renewed before
    it ends, and never more than the cap.
    """
    try:
        stated = datetime.strptime(valid_until or "", "%Y%m%dT%H%M%S")  # noqa: DTZ007 - it has none
    except ValueError:
        return TOKEN_CAP_SECONDS
    moment = datetime.fromtimestamp(now, UTC).replace(tzinfo=None)
    left = [(stated - moment).total_seconds() - 3600.0 * zone for zone in (0, 1, 2)]
    return min([0.9 * seconds for seconds in left if seconds > 0] + [TOKEN_CAP_SECONDS])


# -- start a job -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """AF10 accepted the job and will call back."""


@dataclass(frozen=True, slots=True)
class Finished:
    """AF10 answered with the payload at once (JSON text): there will be no callback."""

    payload: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unclear:
    """AF10 may have started the job, or not; only a callback can tell. Never to be repeated."""

    reason: AF10Error


@dataclass(frozen=True, slots=True)
class NotNow:
    """AF10 did not start the job because it is busy: the same request is welcome later."""

    reason: APIError


StartOutcome = Started | Finished | Unclear | NotNow


def read_start(reply: Reply, secrets: Collection[str] = ()) -> StartOutcome:
    """What an answer to a webhook-type POST means; raises `APIError` for a clear refusal.

    Clear is what AF10 itself says: a 4xx, or a body with `errorCode`. A 5xx without one, or a page
    from something in between, leaves it open whether the job runs.
    """
    try:
        value = decipher(reply, secrets)
    except RateLimitError as error:
        return NotNow(error)
    except ServerError as error:
        if error.error_code is None:
            return Unclear(error)
        if "503" in {str(error.status), str(error.error_code)}:
            return NotNow(error)
        raise
    except BadResponseError as error:
        return Started() if reply.status == 202 else Unclear(error)
    if reply.status != 202 and isinstance(value, dict) and value.get("data") is not None:
        return Finished(json.dumps(value["data"]))
    return Started()


# -- redeem a secret -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Payload:
    """What redeeming a secret gave (JSON text)."""

    json: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NotReady:
    """Not found, not yet, or not with this token: worth a few more tries right after the callback.

    A token that AF10 has only just given is rarely at fault, so "Not authorized" is about the id.
    """

    reason: APIError | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class NotRedeemable:
    """AF10 refuses this secret for good."""

    reason: APIError | None = field(default=None, compare=False, repr=False)


def read_redeem(reply: Reply, secrets: Collection[str] = ()) -> Payload | NotReady | NotRedeemable:
    """What an answer to `GET /webhook?id=` means.

    Raises `APIError` or `BadResponseError` for what says nothing about the secret itself (5xx,
    429, a redirect, a page instead of JSON).
    """
    try:
        value = decipher(reply, secrets)
    except (RateLimitError, ServerError):
        raise
    except AuthenticationError as error:
        return NotReady(error)
    except APIError as error:
        if 300 <= error.status < 400:
            raise
        if {str(error.status), str(error.error_code)} & {"404", "408", "409", "425"}:
            return NotReady(error)
        if error.error_code is None and error.error_message is None:
            return NotReady(error)  # a page of something in between, not AF10's own word
        return NotRedeemable(error)
    if reply.status == 202:
        return NotReady()
    if not isinstance(value, dict) or "data" not in value:
        raise not_promised(reply, "has no data", secrets)
    return Payload(json.dumps(value["data"]))


def payload_url(payload: Any) -> str | None:
    """The address of the file, when a payload is one (W)."""
    url = payload.get("url") if isinstance(payload, dict) else None
    return url if isinstance(url, str) and url else None


def file_url(payload: str) -> str | None:
    """The address of the file, when a payload, as JSON text, is one."""
    return payload_url(json.loads(payload))
