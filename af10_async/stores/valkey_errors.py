"""What the failures of a Valkey server, or of redis-py, mean to the caller of a store."""

from __future__ import annotations

import re
import ssl
from typing import Any

from ..errors import StoreError
from .valkey_address import Address

_PASSING = (
    "BUSY",
    "BUSYKEY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "ASK",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "UNKILLABLE",
)
"""Refusals that pass by themselves."""


class Closed(Exception):  # noqa: N818 - never raised
    """The answer to what is asked of a store that is not open."""


def is_unknown_script(answer: Any) -> bool:
    """Whether the server must be given the script itself."""
    import redis

    return isinstance(answer, redis.exceptions.NoScriptError)


def is_lost(answer: Any) -> bool:
    """Whether a node of a cluster could not be asked."""
    import redis

    if not isinstance(answer, Exception):
        return False
    lost = (redis.ConnectionError, redis.TimeoutError, redis.exceptions.ClusterDownError, OSError)
    return isinstance(answer, lost)


def is_timeout(error: Exception) -> bool:
    """Whether the server was silent for too long."""
    import redis

    return isinstance(error, TimeoutError | redis.TimeoutError)


def store_error(error: Exception, address: Address) -> StoreError:
    """What to tell the caller of a store. Never quotes a command, for it may hold a secret."""
    import redis

    if isinstance(error, StoreError):
        return error
    if isinstance(error, Closed):
        return StoreError(
            "the store is not open in this event loop: open it first", retryable=False
        )
    text = str(error)
    found = redis.exceptions
    if isinstance(error, found.AuthenticationError | found.AuthorizationError):
        says = "does not accept user and password: check those in the store's URL"
    elif isinstance(error, found.NoPermissionError):
        says = (
            f"lets this user not do everything that is needed: give it ~{address.prefix}:* "
            f"&{address.prefix}:* +@all -@dangerous"
        )
    elif _is_certificate(error):
        says = (
            "shows a certificate that is not trusted: name its authority by ssl_ca_certs= in the "
            "store's URL"
        )
    elif isinstance(error, TypeError | ValueError):
        says = "cannot be reached with these settings: check the parameters in the store's URL"
    elif "cluster mode is not enabled" in text.lower():
        says = "is no cluster: leave cluster=true out of the store's URL"
    elif isinstance(error, found.MovedError | found.AskError) and not address.is_cluster:
        says = "is a cluster: add cluster=true to the store's URL"
    elif isinstance(error, found.ResponseError) and not _passes(error):
        says = f"refused a command ({_code(text)}): check that the store's URL is the right one"
    else:
        return StoreError(
            f"{address.shown} cannot be used just now ({_reason(error)})", retryable=True
        )
    return StoreError(f"{address.shown} {says}", retryable=False)


def _passes(error: Exception) -> bool:
    import redis

    found = redis.exceptions
    known = (
        found.ReadOnlyError,
        found.ClusterDownError,
        found.TryAgainError,
        found.OutOfMemoryError,
        found.ClusterError,
        found.MovedError,
        found.AskError,
    )
    return isinstance(error, known) or _code(str(error)) in _PASSING


def _code(text: str) -> str:
    """The first word of a refusal, which says what kind it is."""
    word = text.partition(" ")[0]
    return word if re.fullmatch(r"[A-Z]{2,20}", word) else "ERR"


def _reason(error: Exception) -> str:
    import redis

    if isinstance(error, redis.exceptions.ResponseError):
        code = _code(str(error))
        return type(error).__name__ if code == "ERR" else code
    if is_timeout(error):
        return "no answer in time"
    if isinstance(error, OSError | redis.RedisError):
        return str(error)[:200] or type(error).__name__
    return type(error).__name__


def _is_certificate(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
