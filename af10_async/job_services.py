"""What the jobs of one client work with, and what is to be asked of AF10."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from .errors import AF10Error
from .events import Events
from .protocol import wire
from .protocol.lifecycle import JobRecord
from .protocol.retry import RetryPolicy
from .receiving import Probed
from .runtime import Runtime
from .stores import Store
from .transport import Departure
from .waits import Waits


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be asked of AF10."""

    method: str
    path: str
    body: Mapping[str, Any] | None = field(repr=False)
    params: Mapping[str, str] | None = field(repr=False)
    expects_file: bool


class Requester(Protocol):
    """Sends calls of one account, renewing its token when need be."""

    @property
    def events(self) -> Events:
        """Who is told of what happens to this account."""
        ...

    async def session(self) -> object:
        """Make sure that there is a token."""

    async def request(self, call: wire.Call, departure: Departure | None = None) -> wire.Reply:
        """Send one call; an answer that refuses a fresh token too is returned as it is."""
        ...

    def secrets(self) -> tuple[str, ...]:
        """What must stand in no text."""
        ...


Listener = Callable[[JobRecord], bool]


class Receiver(Probed, Protocol):
    """Where the callbacks arrive."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether another process receives them, so that this one cannot know that it does."""
        ...

    def claim(self, key: str, listener: Listener) -> None:
        """Show each change by a callback to `listener`, which says whether somebody claims it."""

    def unclaim(self, key: str, listener: Listener) -> None:
        """Take a claim back, if there is one."""


@dataclass(frozen=True, slots=True)
class Services:
    """What the jobs of one client work with."""

    account: str
    store: Store
    receiver: Receiver | None
    requester: Requester
    waits: Waits
    policy: RetryPolicy
    runtime: Runtime


def labelled(error: AF10Error, key: str, step: str) -> AF10Error:
    """The error, with the job that it belongs to."""
    error.key, error.step = key, error.step or step
    return error
