"""An asyncio SDK for the Autoflex10 (AF10) REST/API, whose webhooks you simply await.

```python
async with AF10Client.from_env() as af10:
    backup = await af10.backup_owner()
    saved = await backup.save("backups/")
```
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from ._version import __version__

if _TYPE_CHECKING:
    from .accounts import Account
    from .callback_receiver import CallbackReceiver, Orphan
    from .callback_server import CallbackServer
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
        PublicURLError,
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
        UnreachableError,
        UnreachableProblem,
        UnsafeURLError,
    )
    from .events import JobEvent
    from .fleet import Fleet
    from .jobs import Job
    from .models import Environment, Vehicle
    from .outcomes import Outcome
    from .paging import Pages
    from .progress import Progress
    from .protocol.lifecycle import JobState
    from .protocol.retry import RetryPolicy
    from .public_url import PublicURL
    from .reachability import Reached

__all__ = [
    "__version__",
    "Account",
    "AF10Client",
    "AF10Error",
    "APIError",
    "AuthenticationError",
    "BadResponseError",
    "CallbackReceiver",
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
    "PublicURL",
    "PublicURLError",
    "RateLimitError",
    "RawResponse",
    "Reached",
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
    "UnreachableError",
    "UnreachableProblem",
    "UnsafeURLError",
    "Vehicle",
]

_WHERE = {
    "Account": "accounts",
    "AF10Client": "client",
    "CallbackReceiver": "callback_receiver",
    "CallbackServer": "callback_server",
    "CopiedFile": "download",
    "Downloader": "downloader",
    "Environment": "models",
    "Fleet": "fleet",
    "Job": "jobs",
    "JobEvent": "events",
    "JobState": "protocol.lifecycle",
    "Orphan": "callback_receiver",
    "Outcome": "outcomes",
    "Pages": "paging",
    "Progress": "progress",
    "PublicURL": "public_url",
    "RawResponse": "calls",
    "Reached": "reachability",
    "RemoteFile": "download",
    "RetryPolicy": "protocol.retry",
    "SavedFile": "download",
    "Sink": "download",
    "Vehicle": "models",
}
"""The module of each public name that is not an error."""

if not _TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # Whoever imports the package may want little of it: the pytest plugin, say, which each run
        # of pytest loads. What httpx, aiohttp and pydantic take is paid by who uses them.
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(_import_module(f".{_WHERE.get(name, 'errors')}", __name__), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
