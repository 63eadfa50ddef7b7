"""An asyncio SDK for the Autoflex10 (AF10) REST/API, whose webhooks you simply await.

```python
async with AF10Client.from_env() as af10:
    backup = await af10.backup_owner()
    saved = await backup.save("backups/")
```
"""

from ._version import __version__
from .callback_server import CallbackServer, Orphan
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
from .jobs import Job, JobEvent, JobState
from .progress import Progress
from .protocol.retry import RetryPolicy

__all__ = [
    "__version__",
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
    "FileChangedError",
    "FileTooLargeError",
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
    "PortInUseError",
    "Progress",
    "RateLimitError",
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
]
