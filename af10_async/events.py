"""Events: what the library does, told to whoever wants to know (`on_event=`).

Each is a small frozen dataclass. What takes time has two, `...Began` and `...Ended`, with the same
`id`. They hold no secrets: no query, no credentials, no address of a file. `trace` is the W3C
`traceparent` of a job, when a tracer is among the handlers: it is kept with the job, so it is the
same in every process.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Protocol, TypeAlias, runtime_checkable

from .errors import AF10Error, ConfigurationError
from .protocol.lifecycle import JobState

__all__ = [
    "CallbackReceived",
    "CallBegan",
    "CallEnded",
    "CallRetried",
    "DownloadBegan",
    "DownloadEnded",
    "Event",
    "EventHandler",
    "JobEnded",
    "JobEvent",
    "StartBegan",
    "StartEnded",
    "TokenRenewed",
]

logger = logging.getLogger("af10_async.events")


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One step in the life of a job, as this process sees it."""

    key: str
    state: JobState
    at: float
    """Unix seconds."""
    failure: str | None = None
    """Why it failed, if it did."""
    account: str | None = None
    """The name of the client, if it has one."""
    method: str = ""
    path: str = ""
    trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnded:
    """A job has its result, or never will; told once, by the process that recorded it."""

    account: str | None
    key: str
    method: str
    path: str
    state: JobState
    """`READY`, `FAILED` or `EXPIRED`."""
    at: float
    seconds: float
    """Since the job was made."""
    trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallBegan:
    """A request to AF10 is about to be sent."""

    id: int
    account: str | None
    method: str
    path: str
    host: str
    attempt: int
    """1, or more when it is sent again."""
    at: float
    """Unix seconds."""
    trace: str | None = None
    """Of the job that it is for, if it is for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded:
    """A request to AF10 was answered, or failed."""

    id: int
    account: str | None
    method: str
    path: str
    host: str
    attempt: int
    at: float
    seconds: float
    status: int | None
    """The HTTP status; None without a whole answer."""
    error: AF10Error | None
    """Why there was no answer; one that AF10 answered with has a `status` instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRetried:
    """A call failed, and will be sent again after a pause."""

    account: str | None
    method: str
    path: str
    attempt: int
    """The one that failed, from 1."""
    pause: float
    """Seconds."""
    error: AF10Error | None
    """None when AF10 asked to come back later."""
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRenewed:
    """AF10 gave the account a token."""

    account: str | None
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StartBegan:
    """A job is about to be registered and sent."""

    id: int
    account: str | None
    key: str
    method: str
    path: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StartEnded:
    """AF10 accepted the job, or may have (`sent` and no certain answer), or it was not started."""

    id: int
    account: str | None
    key: str
    method: str
    path: str
    at: float
    seconds: float
    sent: bool | None
    error: AF10Error | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackReceived:
    """A callback came and was kept; told where the callback server is, perhaps another process."""

    key: str
    at: float
    seconds: float
    """From its request to the store's word that it is kept."""
    is_orphan: bool
    """Whether the store knows no job under this key."""
    trace: str | None = None
    sender: str | None = None
    """The address that it came from, as far as trusted proxies tell; None when that is not known,
    because it was kept later than it came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadBegan:
    """A file is about to be fetched."""

    id: int
    account: str | None
    key: str | None
    """The job that it belongs to."""
    at: float
    trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadEnded:
    """A file is here, or it failed, or its reader left (neither `size` nor `error`)."""

    id: int
    account: str | None
    key: str | None
    at: float
    seconds: float
    size: int | None
    """Bytes of the whole file."""
    attempts: int
    error: AF10Error | None


Event: TypeAlias = (
    JobEvent
    | JobEnded
    | CallBegan
    | CallEnded
    | CallRetried
    | TokenRenewed
    | StartBegan
    | StartEnded
    | CallbackReceived
    | DownloadBegan
    | DownloadEnded
)
EventHandler: TypeAlias = Callable[[Event], object]


@runtime_checkable
class Tracer(Protocol):
    """A handler that also gives jobs a trace."""

    def trace_of(self, start: StartBegan) -> str | None:
        """The `traceparent` for a job whose start it was just told of."""
        ...


trace_of_job: ContextVar[str | None] = ContextVar("af10_async_trace", default=None)
"""The trace of the job that the current task works for."""


class Events:
    """Tells the handlers of one client, or of one callback server.

    A handler that fails is logged and does no harm; it must be quick, since the event loop waits.
    """

    __slots__ = ("_handlers", "account")

    def __init__(
        self,
        handlers: EventHandler | Sequence[EventHandler] | None = None,
        account: str | None = None,
    ) -> None:
        given = () if handlers is None else (handlers,) if callable(handlers) else tuple(handlers)
        for handler in given:
            if iscoroutinefunction(handler) or iscoroutinefunction(type(handler).__call__):
                raise ConfigurationError(
                    "on_event must be a plain function: put the event into a queue, or start a task"
                )
        self._handlers: tuple[EventHandler, ...] = given
        self.account = account

    @property
    def are_wanted(self) -> bool:
        """Whether anybody listens: making an event for nobody is a waste."""
        return bool(self._handlers)

    def new_id(self) -> int:
        """What the two events of one thing have in common."""
        return next(_numbers)

    def tell(self, event: Event) -> None:
        """Call each handler."""
        for handler in self._handlers:
            try:
                handler(event)
            except Exception:
                logger.exception("on_event failed for a %s", type(event).__name__)

    def trace_of(self, start: StartBegan) -> str | None:
        """The trace that a handler gives to a job."""
        for handler in self._handlers:
            if isinstance(handler, Tracer):
                try:
                    return handler.trace_of(start)
                except Exception:
                    logger.exception("on_event gave no trace")
        return None


_numbers = itertools.count(1)
NOBODY = Events()
"""Where nobody listens."""
