"""An asyncio SDK for the Autoflex10 (AF10) REST/API, whose webhooks you simply await.

```python
async with AF10Client.from_env() as af10:
    backup = await af10.backup_owner()
    saved = await backup.save("backups/")
```
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from ._version import __version__
from .accounts import Account
from .callback_server import CallbackServer, Orphan
from .calls import RawResponse
from .client import AF10Client
from .download import CopiedFile, RemoteFile, SavedFile, Sink
from .downloader import Downloader
from .errors import (
    AF10Error,
    APIError,
    AuthenticationError,
    BadResponseError,
    CallbackServerError,
    CallbackTimeoutError,
    ChecksumMismatchError,
    ClosedError,
    ConfigurationError,
    ConnectFailedError,
    DiskFullError,
    DownloadError,
    DownloadRefusedError,
    DownloadTimeoutError,
    FileChangedError,
    FileTooLargeError,
    IncompleteDownloadError,
    JobError,
    JobExpiredError,
    JobInterruptedError,
    JobNotFoundError,
    JobTimeoutError,
    MissingExtraError,
    NetworkError,
    NotFoundError,
    PortInUseError,
    RateLimitError,
    RequestTimeoutError,
    SaveError,
    ServerError,
    StartTimeoutError,
    StorageError,
    StoreError,
    TargetExistsError,
    TLSError,
    UnexpectedPayloadError,
    UnsafeURLError,
)
from .events import JobEvent
from .fleet import Fleet, Outcome
from .jobs import Job
from .paging import Pages
from .progress import Progress
from .protocol.lifecycle import JobState
from .protocol.retry import RetryPolicy

if _TYPE_CHECKING:
    from .models import Environment, Vehicle

__all__ = [
    "__version__",
    "Account",
    "AF10Client",
    "AF10Error",
    "APIError",
    "AuthenticationError",
    "BadResponseError",
    "CallbackServer",
    "CallbackServerError",
    "CallbackTimeoutError",
    "ChecksumMismatchError",
    "ClosedError",
    "ConfigurationError",
    "ConnectFailedError",
    "CopiedFile",
    "DiskFullError",
    "Downloader",
    "DownloadError",
    "DownloadRefusedError",
    "DownloadTimeoutError",
    "Environment",
    "FileChangedError",
    "FileTooLargeError",
    "Fleet",
    "IncompleteDownloadError",
    "Job",
    "JobError",
    "JobEvent",
    "JobExpiredError",
    "JobInterruptedError",
    "JobNotFoundError",
    "JobState",
    "JobTimeoutError",
    "MissingExtraError",
    "NetworkError",
    "NotFoundError",
    "Orphan",
    "Outcome",
    "Pages",
    "PortInUseError",
    "Progress",
    "RateLimitError",
    "RawResponse",
    "RemoteFile",
    "RequestTimeoutError",
    "RetryPolicy",
    "SavedFile",
    "SaveError",
    "ServerError",
    "Sink",
    "StartTimeoutError",
    "StorageError",
    "StoreError",
    "TargetExistsError",
    "TLSError",
    "UnexpectedPayloadError",
    "UnsafeURLError",
    "Vehicle",
]


def __getattr__(name: str) -> object:
    # pydantic costs more to import than all of this package: not before a model is named.
    if name in ("Environment", "Vehicle"):
        from . import models

        return getattr(models, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
