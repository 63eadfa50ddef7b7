"""What an entered client works with, and how patient it is."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field, replace
from typing import Protocol
from weakref import WeakValueDictionary

from .calls import QuickCalls
from .download_source import Fetcher
from .errors import ClosedError
from .job_services import Services
from .job_work import JobWork
from .protocol.retry import RetryPolicy
from .requester import Requester


@dataclass(frozen=True, slots=True)
class Options:
    """How patient a client is; times in seconds."""

    timeout: float
    retries: RetryPolicy
    start_timeout: float
    callback_timeout: float
    download_timeout: float


@dataclass(frozen=True, slots=True)
class Parts:
    """What lives while a client is entered."""

    loop: asyncio.AbstractEventLoop
    process: int
    requester: Requester
    calls: QuickCalls
    fetcher: Fetcher
    services: Services
    username: str = field(repr=False)
    trusts_private_files: bool
    works: WeakValueDictionary[str, JobWork]
    """The jobs that somebody holds, by their keys."""


class Host(Protocol):
    """The client that operations belong to."""

    def open_parts(self) -> Parts:
        """What it works with. Raises `ClosedError` unless it is entered, and here."""
        ...


def retry_policy(given: RetryPolicy | int, base: RetryPolicy) -> RetryPolicy:
    """A policy, or `base` with so many repetitions."""
    return given if isinstance(given, RetryPolicy) else replace(base, attempts=given + 1)


def running_here(parts: Parts) -> None:
    """Raise `ClosedError` in another process or event loop than the one that entered them."""
    if parts.process != os.getpid():
        raise ClosedError("the client belongs to the process that entered it", sent=False)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    if parts.loop is not loop:
        raise ClosedError("the client belongs to the event loop that entered it", sent=False)
