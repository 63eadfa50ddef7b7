"""What those who serve requests and those who receive callbacks know of each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, TypeAlias

from .protocol.answers import Answer
from .protocol.callbacks import Probe


class Incoming(Protocol):
    """A request, as whoever serves it knows it. What is not asked for is not read."""

    @property
    def method(self) -> str:
        """In capitals."""
        ...

    @property
    def target(self) -> str:
        """Path and query as they were sent."""
        ...

    def peer(self) -> str | None:
        """The address at the other end of the connection."""
        ...

    def header(self, name: str) -> Sequence[str]:
        """All values of a header, in order."""
        ...


Handle: TypeAlias = Callable[[Incoming], Awaitable[Answer]]


class Receives(Protocol):
    """An async context manager that answers requests while it is entered."""

    @property
    def is_running(self) -> bool:
        """Whether it is entered."""
        ...

    async def handle(self, incoming: Incoming) -> Answer:
        """What to answer to a request; a callback is kept before."""
        ...

    async def __aenter__(self) -> object:
        """Begin."""
        ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End."""
        ...


class ProbeArrival:
    """How a probe has arrived, if it has."""

    probe: Probe | None = None
    sender: str | None = None
    """The address that it came from."""


class Probed(Protocol):
    """What has a public address at which it, or its like, may be found."""

    @property
    def is_running(self) -> bool:
        """Whether a callback would be received."""
        ...

    @property
    def keeps_elsewhere(self) -> bool:
        """Whether another receiver may keep callbacks for its jobs: they share a store."""
        ...

    @property
    def public_url(self) -> str:
        """The https address at which callbacks arrive, without prefix and key.

        Raises:
            PublicURLError: there is none for now.

        """
        ...

    @property
    def callback_secret(self) -> bytes:
        """What the keys of its jobs are signed with."""
        ...

    def webhook_url(self, key: str) -> str:
        """The address that AF10 calls for the job with this key."""
        ...

    def expecting(self, probe: str) -> AbstractContextManager[ProbeArrival]:
        """Note how the probe with this key arrives here, if it does."""
        ...
