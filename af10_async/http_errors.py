"""What the errors of httpx, httpx2 and httpcore mean to us.

They are told apart by name, because the client may be the user's, of either library.
"""

from __future__ import annotations

import ssl
from typing import NoReturn

from .errors import (
    ClosedError,
    ConnectFailedError,
    NetworkError,
    RequestTimeoutError,
    TLSError,
)

_NOT_SENT = {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"}
_TIMEOUTS = {"TimeoutException", "ReadTimeout", "WriteTimeout", "ConnectTimeout", "PoolTimeout"}
_LIBRARIES = {"httpx", "httpx2", "httpcore", "httpcore2"}


def raise_translated(error: Exception, what: str, sent: bool | None) -> NoReturn:
    """Raise what a failed request means to us; `what` names it without its query."""
    names = {each.__name__ for each in type(error).__mro__}
    library = type(error).__module__.partition(".")[0]
    if library not in _LIBRARIES and not isinstance(error, OSError | RuntimeError):
        raise error
    maybe = sent or None  # whoever waits for an answer has sent something
    reason = _tls_reason(error)
    if reason is not None and names & _NOT_SENT:
        raise TLSError(
            f"{what}: the TLS handshake failed: {reason}; if the certificate is of a CA of your"
            " own, name it with ca_file",
            sent=False,
        ) from error
    if names & _TIMEOUTS:
        left = False if names & _NOT_SENT else maybe
        raise RequestTimeoutError(
            f"{what}: no answer in time", sent=left, retryable=True
        ) from error
    if names & _NOT_SENT:
        raise ConnectFailedError(
            f"{what}: no connection could be made; check the address and the network",
            sent=False,
            retryable=True,
        ) from error
    if library not in _LIBRARIES and isinstance(error, RuntimeError):
        raise ClosedError(f"{what}: the HTTP client is closed", sent=False) from error
    # The text of other errors may quote what was sent or received, so they are not chained.
    raise NetworkError(
        f"{what}: the connection broke before the whole answer was here",
        sent=maybe,
        retryable=True,
    ) from None


def is_bad_url(error: Exception) -> bool:
    """Whether httpx could not read an address, of ours or in a `Location`."""
    names = {each.__name__ for each in type(error).__mro__}
    return (
        isinstance(error, ValueError)  # idna's among them
        or bool(names & {"InvalidURL", "UnsupportedProtocol"})
        or ("RemoteProtocolError" in names and "location header" in str(error).lower())
    )


def _tls_reason(error: BaseException) -> str | None:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return seen.verify_message
        if isinstance(seen, ssl.SSLError):
            return seen.reason or "the other side does not speak TLS"
        seen = seen.__cause__ or seen.__context__
    return None
