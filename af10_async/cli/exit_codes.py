"""What the exit codes mean."""

from __future__ import annotations

from collections.abc import Iterable

from .. import AF10Error, CallbackServerError, ConfigurationError, MissingExtraError, StoreError
from ..errors import DownloadTimeoutError, JobTimeoutError

DONE, REFUSED, MISUSED, TIMED_OUT, INTERRUPTED = 0, 1, 2, 3, 130


def exit_code(error: AF10Error) -> int:
    """The exit code that an error means."""
    if isinstance(error, JobTimeoutError | DownloadTimeoutError):
        return TIMED_OUT
    if isinstance(error, ConfigurationError | MissingExtraError | CallbackServerError):
        return MISUSED
    if isinstance(error, StoreError) and not error.retryable:
        return MISUSED
    return REFUSED


def exit_code_of_many(errors: Iterable[AF10Error]) -> int:
    """That of the worst of several; 0 when there are none."""
    codes = {exit_code(error) for error in errors}
    return next((code for code in (REFUSED, MISUSED, TIMED_OUT) if code in codes), DONE)
