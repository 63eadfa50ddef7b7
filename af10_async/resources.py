"""Resources: what clients work with and may share, and its lifetime.

HTTP connections, the callback server, the store, the limit of requests at a time, the budget of
repetitions. A client makes its own; a fleet makes one for all of its clients.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit
from weakref import WeakSet

from .callback_receiver import CallbackReceiver
from .callback_server import CallbackServer
from .errors import ClosedError, PublicURLError
from .events import EventHandler
from .job_services import Receiver
from .limits import ConcurrencyLimit
from .protocol.addresses import is_private_host
from .protocol.retry import RetryBudget
from .remote_receiver import RemoteReceiver, shared_secret
from .runtime import Runtime
from .stores import Store, open_store
from .transport import HTTPClient, Transport

if TYPE_CHECKING:
    from .settings import ConnectionSettings

logger = logging.getLogger("af10_async.client")

RETRY_RATE, RETRY_BURST = 50.0, 200.0
"""How many requests a second may be repetitions, of all that share these, and how many at once."""

_warned: WeakSet[CallbackReceiver] = WeakSet()
"""Servers of which it was said that AF10 cannot reach them."""


class Resources:
    """An async context manager; what was handed in is left alone."""

    def __init__(
        self,
        settings: ConnectionSettings,
        *,
        runtime: Runtime,
        callback_server: CallbackReceiver | None = None,
        http_client: HTTPClient | None = None,
        limit: ConcurrencyLimit | None = None,
        on_event: EventHandler | Sequence[EventHandler] | None = None,
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._given_server = callback_server
        self._http_client = http_client
        self._given_limit = limit
        self._on_event = on_event
        self._stack = AsyncExitStack()
        self._transports: dict[Path | None, Transport] = {}
        self.budget = RetryBudget(RETRY_RATE, RETRY_BURST)
        """Of all repetitions."""
        self.server: CallbackReceiver | None = None
        """The callback server, when it is in this process."""
        self.receiver: Receiver | None = None
        """Where callbacks arrive, here or elsewhere; None for nowhere."""

    async def __aenter__(self) -> Self:
        try:
            await self._enter()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _enter(self) -> None:
        self.limit = self._given_limit or ConcurrencyLimit.of_this_loop()
        self._stack.push_async_callback(self._close_transports)
        self.transport(self._settings.ca_file)  # what is wrong with the file is said now
        self.server = self._given_server or self._make_server()
        if self.server is not None:
            # Entered with the client that it tells before it closes its store.
            self.store, self.receiver = self.server.store, self.server
            return
        self.store = self._make_store()
        await self.store.open()
        self._stack.push_async_callback(self.store.close)
        if self._settings.receives_elsewhere:
            self.receiver = await self._remote_receiver(self.store)

    def transport(self, ca_file: Path | None) -> Transport:
        """The connections of those who trust these certificates."""
        if ca_file not in self._transports:
            self._transports[ca_file] = Transport(
                self._http_client, ca_file=ca_file, runtime=self._runtime, limit=self.limit
            )
        return self._transports[ca_file]

    async def enter_server(self, stack: AsyncExitStack) -> None:
        """Start the callback server if it is ours; one that was handed in must be running."""
        server = self.server
        if server is None:
            return
        if server is self._given_server:
            if not server.is_running:
                _ = server.public_url  # which may say more of why it does not run
                raise ClosedError(
                    "the callback server is not running: enter it before the client", sent=False
                )
        else:
            await stack.enter_async_context(server)

    def warn_of_unreachable(self, is_near: bool) -> None:
        """Not an error: in tests, something on this machine may play a public AF10."""
        server = self.server
        if server is None or is_near or server in _warned:
            return
        with suppress(PublicURLError):  # a tunnel that is down for now leads to no such place
            url = server.public_url
            if is_private_host(urlsplit(url).hostname or ""):
                _warned.add(server)
                logger.warning(
                    "AF10 is told to call back to %s, which is no public address: set"
                    " AF10_PUBLIC_URL",
                    url,
                )

    async def _close_transports(self) -> None:
        async with AsyncExitStack() as stack:
            for transport in self._transports.values():
                stack.push_async_callback(transport.close)

    async def _remote_receiver(self, store: Store) -> RemoteReceiver:
        given = self._settings.callback_secret
        secret = await shared_secret(
            store, given.get_secret_value() if given else None, self._runtime
        )
        assert self._settings.fixed_url is not None  # else nothing is received elsewhere
        logger.info("callbacks are received by another process over the same store")
        return RemoteReceiver(self._settings.fixed_url, secret)

    def _make_store(self) -> Store:
        return open_store(self._settings.store.get_secret_value(), now=self._runtime.now)

    def _make_server(self) -> CallbackReceiver | None:
        settings = self._settings
        listens = settings.public_url is not None or settings.tls_cert is not None
        if not listens or settings.receives_elsewhere:
            return None
        arguments = settings.server_arguments() | {"store": self._make_store()}
        return CallbackServer(**arguments, on_event=self._on_event, runtime=self._runtime)
