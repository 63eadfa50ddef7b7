"""Everything that can go wrong, as one tree with one root.

```
AF10Error
├── ConfigurationError            a setting is missing or malformed (also a ValueError)
├── MissingExtraError             an optional dependency is not installed (also an ImportError)
├── ClosedError                   used before it was entered, after it was left, or elsewhere
├── APIError                      AF10 answered, and said no
│   ├── AuthenticationError       wrong credentials, or a token that stays refused
│   ├── NotFoundError             there is no such thing (404)
│   ├── RateLimitError            too many requests (429)
│   └── ServerError               AF10 itself failed (5xx)
├── BadResponseError              an answer that is not what the wire promises
├── NetworkError                  no answer at all
│   ├── ConnectFailedError        no connection was made: nothing was sent
│   ├── TLSError                  the certificate or the handshake was refused: nothing was sent
│   └── RequestTimeoutError       no answer in time (also a TimeoutError)
├── JobError                      a job did not give its result
│   ├── JobNotFoundError          no job of this account is known under this key
│   ├── JobExpiredError           the job's own life is over
│   ├── JobInterruptedError       the client or the callback server closed while the job waited
│   ├── JobTimeoutError           waiting ran out of time (also a TimeoutError)
│   │   ├── StartTimeoutError     ... for AF10 to accept the job
│   │   └── CallbackTimeoutError  ... for AF10 to call back and hand over the payload
│   └── UnexpectedPayloadError    the job is done, but its payload is not a file
├── DownloadError                 a file did not arrive
│   ├── UnsafeURLError            the address of the file is one we must not fetch
│   ├── DownloadRefusedError      the file server said no
│   ├── IncompleteDownloadError   shorter or longer than promised, or cut
│   ├── DownloadTimeoutError      not there in time (also a TimeoutError)
│   ├── FileTooLargeError         larger than the caller's limit
│   ├── FileChangedError          another version each time that it is gone on with
│   ├── ChecksumMismatchError     whole, but not what was expected
│   ├── StorageError              object storage refused it, or could not be reached
│   └── SaveError                 the file could not be written (also an OSError)
│       ├── TargetExistsError     something is there already (also a FileExistsError)
│       └── DiskFullError         no space left
├── StoreError                    the store could not keep or find a job
└── CallbackServerError           the callback server could not do its work
    ├── PortInUseError            its port is taken
    ├── PublicURLError            it has no public address, or none for now
    └── UnreachableError          a request to its public address does not arrive
```

Every error says in `str()` what happened and what to do next, and carries `key` (of the job it
belongs to, so that the job can be picked up again), `ticket` (the same for where the store does not
know the job), `step`, `sent` and `retryable`; and, as far as there was a call to AF10, its `method`
and `path` (never the query), and of the answer `status`, `error_code` and `error_message`.
No error text holds credentials, tokens, secrets or payload URLs.
"""

from __future__ import annotations

import copy
from enum import StrEnum
from typing import Self

__all__ = [
    "AF10Error",
    "APIError",
    "AuthenticationError",
    "BadResponseError",
    "CallbackServerError",
    "CallbackTimeoutError",
    "ChecksumMismatchError",
    "ClosedError",
    "ConfigurationError",
    "ConnectFailedError",
    "DiskFullError",
    "DownloadError",
    "DownloadRefusedError",
    "DownloadTimeoutError",
    "FileChangedError",
    "FileTooLargeError",
    "IncompleteDownloadError",
    "JobError",
    "JobExpiredError",
    "JobInterruptedError",
    "JobNotFoundError",
    "JobTimeoutError",
    "MissingExtraError",
    "NetworkError",
    "NotFoundError",
    "PortInUseError",
    "PublicURLError",
    "RateLimitError",
    "RequestTimeoutError",
    "SaveError",
    "ServerError",
    "StartTimeoutError",
    "StorageError",
    "StoreError",
    "TLSError",
    "TargetExistsError",
    "UnexpectedPayloadError",
    "UnreachableError",
    "UnsafeURLError",
]


class AF10Error(Exception):
    """The root of everything this library raises on its own account."""

    key: str | None
    """The job this error belongs to; `client.job(key)` picks it up again."""
    step: str | None
    """Where it happened: `authenticate`, `start`, `callback`, `redeem`, `download` or `save`."""
    sent: bool | None
    """Whether a request left this machine: yes, no, or (None) nobody can tell."""
    retryable: bool
    """Whether the same call may be made again as it is, with hope and without harm."""
    ticket: str | None = None
    """What `client.job(ticket)` restores the job with, also where the store does not know it. Holds
    no credentials."""
    method: str = ""
    """The method of the call to AF10 that failed; empty when it was none."""
    path: str = ""
    """Its path, never its query."""
    status: int | None = None
    """The HTTP status of the answer, if there was one."""
    error_code: int | str | None = None
    """`errorCode` of the answer's body, if there was one."""
    error_message: str | None = None
    """`errorMessage` of the answer's body, with anything secret taken out."""
    retry_after: float | None = None
    """Seconds that the server asked us to wait, if it did."""

    def __init__(
        self,
        message: str = "",
        *,
        key: str | None = None,
        step: str | None = None,
        sent: bool | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.key = key
        self.step = step
        self.sent = sent
        self.retryable = retryable

    @property
    def message(self) -> str:
        """The sentence without the job's key."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        return f"{self.message} [job {self.key}]" if self.key else self.message

    def fresh(self) -> Self:
        """A copy with a traceback of its own, so that many waiters can raise the same error."""
        twin = copy.copy(self)
        twin.__cause__ = self.__cause__
        twin.__suppress_context__ = self.__suppress_context__
        if hasattr(self, "__notes__"):
            twin.__notes__ = list(self.__notes__)
        return twin


class ConfigurationError(AF10Error, ValueError):
    """A setting is missing or malformed; nothing was sent. The text names it."""


class MissingExtraError(AF10Error, ImportError):  # type: ignore[misc]  # both have a path
    """An optional part is not installed; the text holds the pip line."""


class ClosedError(AF10Error):
    """Something was used before it was entered, after it was left, or in another loop."""


class APIError(AF10Error):
    """AF10 answered, and said no: a `status` of 4xx or 5xx, or an `errorCode` in the body."""

    status: int
    """The HTTP status."""

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 0,
        error_code: int | str | None = None,
        error_message: str | None = None,
        method: str = "",
        path: str = "",
        retry_after: float | None = None,
        key: str | None = None,
        step: str | None = None,
        sent: bool | None = True,
        retryable: bool = False,
    ) -> None:
        super().__init__(message, key=key, step=step, sent=sent, retryable=retryable)
        self.status = status
        self.error_code = error_code
        self.error_message = error_message
        self.method = method
        self.path = path
        self.retry_after = retry_after


class AuthenticationError(APIError):
    """AF10 does not accept the credentials, or refuses a token it has only just given."""


class NotFoundError(APIError):
    """AF10 knows no such thing (404): check the path, or the id in it."""


class RateLimitError(APIError):
    """AF10 asks for fewer requests (429)."""


class ServerError(APIError):
    """AF10 itself failed (5xx)."""


class BadResponseError(AF10Error):
    """Something answered, but not with what the wire promises (HTML, too large, encoded, ...)."""

    status: int
    excerpt: str
    """The first 200 characters of the body, with anything secret taken out."""

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 0,
        method: str = "",
        path: str = "",
        excerpt: str = "",
        key: str | None = None,
        step: str | None = None,
        sent: bool | None = True,
        retryable: bool = False,
    ) -> None:
        super().__init__(message, key=key, step=step, sent=sent, retryable=retryable)
        self.status = status
        self.method = method
        self.path = path
        self.excerpt = excerpt


class NetworkError(AF10Error):
    """No answer: the connection broke. `sent` says whether the request may have arrived."""


class ConnectFailedError(NetworkError):
    """No connection could be made, so nothing was sent."""


class TLSError(NetworkError):
    """The certificate or the TLS handshake was refused, so nothing was sent."""


class RequestTimeoutError(NetworkError, TimeoutError):
    """No answer in time."""


class JobError(AF10Error):
    """A job did not give its result."""


class JobNotFoundError(JobError):
    """No job of this account is known under this key."""


class JobExpiredError(JobError):
    """The job's life is over; AF10 did not call back while it lasted."""


class JobInterruptedError(JobError):
    """The client or the callback server closed while the job waited; the job itself lives on."""


class JobTimeoutError(JobError, TimeoutError):
    """Waiting ran out of time; the job itself lives on and can be awaited again by its key."""

    start_certain: bool
    """True when AF10 is known to have accepted the job, False when nobody can tell."""

    def __init__(
        self,
        message: str = "",
        *,
        start_certain: bool = False,
        key: str | None = None,
        step: str | None = None,
        sent: bool | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message, key=key, step=step, sent=sent, retryable=retryable)
        self.start_certain = start_certain


class StartTimeoutError(JobTimeoutError):
    """AF10 did not accept the job within `start_timeout`."""


class CallbackTimeoutError(JobTimeoutError):
    """AF10 did not call back and hand over the payload within `callback_timeout`."""


class UnexpectedPayloadError(JobError):
    """The job is done, but its payload is not a file; `payload` is what AF10 sent."""

    payload: object

    def __init__(
        self,
        message: str = "",
        *,
        payload: object = None,
        key: str | None = None,
        step: str | None = None,
        sent: bool | None = True,
        retryable: bool = False,
    ) -> None:
        super().__init__(message, key=key, step=step, sent=sent, retryable=retryable)
        self.payload = payload


class DownloadError(AF10Error):
    """A file did not arrive whole."""


class UnsafeURLError(DownloadError):
    """The address of the file is one we must not fetch; nothing was sent to it."""


class DownloadRefusedError(DownloadError):
    """The file server said no; `status` is its answer."""

    status: int

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 0,
        retry_after: float | None = None,
        key: str | None = None,
        step: str | None = None,
        sent: bool | None = True,
        retryable: bool = False,
    ) -> None:
        super().__init__(message, key=key, step=step, sent=sent, retryable=retryable)
        self.status = status
        self.retry_after = retry_after


class IncompleteDownloadError(DownloadError):
    """The body was shorter or longer than promised, or was cut."""


class DownloadTimeoutError(DownloadError, TimeoutError):
    """The file was not there within `download_timeout`, or the server fell silent."""


class FileTooLargeError(DownloadError):
    """The file is larger than the caller's limit."""


class StorageError(DownloadError):
    """Object storage refused the file or could not be reached; no part of it is to be seen there.

    The bytes came from AF10 well enough: it is the other end that failed.
    """

    status: int
    """The store's HTTP status; 0 when there was no answer."""
    code: str
    """What the store calls the problem, such as `NoSuchBucket`; empty when it does not say."""

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 0,
        code: str = "",
        key: str | None = None,
        step: str | None = None,
        sent: bool | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message, key=key, step=step, sent=sent, retryable=retryable)
        self.status = status
        self.code = code


class FileChangedError(DownloadError):
    """The file changed on its server while it was fetched, again and again."""


class ChecksumMismatchError(DownloadError):
    """The file is whole, but its checksum is not the expected one; nothing was left behind."""


class SaveError(DownloadError, OSError):
    """The file could not be written; nothing was left behind."""

    def __str__(self) -> str:
        return AF10Error.__str__(self)


class TargetExistsError(SaveError, FileExistsError):
    """Something is there already, and `overwrite=True` was not given."""


class DiskFullError(SaveError):
    """No space left on the device."""


class StoreError(AF10Error):
    """The store could not keep or find a job; nothing was half-written.

    `retryable` says whether it may pass by itself (a server that restarts, a full disk, a lock) or
    needs somebody (a file that is no store, a wrong password).
    """


class CallbackServerError(AF10Error):
    """The callback server could not do its work."""


class PortInUseError(CallbackServerError):
    """Something else listens on the port that the callback server should use."""


class PublicURLError(CallbackServerError):
    """There is no public address: a tunnel did not start, or is gone for now (then `retryable`)."""


class UnreachableProblem(StrEnum):
    """Which link between AF10 and the callback server is broken."""

    NAME_NOT_FOUND = "name_not_found"
    """Its name has no address."""
    CONNECTION_REFUSED = "connection_refused"
    """Nothing listens there, or the way there is closed."""
    TIMEOUT = "timeout"
    """No answer in time."""
    NOT_HTTPS = "not_https"
    """What listens there speaks plain http, or no TLS that anybody understands."""
    UNTRUSTED_CERTIFICATE = "untrusted_certificate"
    """Its certificate is not signed by an authority that is trusted, or the chain is incomplete."""
    WRONG_HOST = "wrong_host"
    """Its certificate is for another name."""
    EXPIRED_CERTIFICATE = "expired_certificate"
    """Its certificate is not valid any more, or not yet."""
    OTHER_SERVER = "other_server"
    """Somebody else answered."""
    LOST_PREFIX = "lost_prefix"
    """It arrived here, but under another path."""
    LOST_QUERY = "lost_query"
    """It arrived here, but without its query."""
    OTHER_RECEIVER = "other_receiver"
    """A callback server with the same callback secret answered, which keeps its jobs elsewhere."""


class UnreachableError(CallbackServerError):
    """What was sent to the public address did not arrive at this callback server."""

    problem: UnreachableProblem
    """Which link is broken."""
    url: str
    """The public address that was tried."""

    def __init__(
        self,
        message: str = "",
        *,
        problem: UnreachableProblem = UnreachableProblem.OTHER_SERVER,
        url: str = "",
        status: int | None = None,
        key: str | None = None,
        step: str | None = None,
        sent: bool | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message, key=key, step=step, sent=sent, retryable=retryable)
        self.problem = problem
        self.url = url
        self.status = status
