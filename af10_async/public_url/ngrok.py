"""A public address by ngrok, through its own Python SDK (the extra `ngrok`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from ..errors import PublicURLError
from ..runtime import Runtime
from ..shelter import ended, to_its_end
from .base import LocalServer, PublicURL, Tell
from .ngrok_session import NgrokSession, ngrok_sdk

__all__ = ["Ngrok"]

logger = logging.getLogger("af10_async.public_url")

RETRY_SECONDS = 20.0
"""Pause before another attempt at a new session."""


class Ngrok(PublicURL):
    """ngrok, without a program of its own: the SDK forwards to the callback server.

    When the connection breaks, the SDK makes it again, with the same address. When it does not
    succeed within a minute, a new session is made, which may have another one.

    ngrok lets a free account have few sessions at a time, and notices the end of one only when its
    heartbeats stay away, some seconds later.

    Args:
        authtoken: Of the ngrok account; the environment's `NGROK_AUTHTOKEN` when not given.
        domain: A domain of that account's, for an address that stays the same.
        runtime: Where time comes from.

    """

    def __init__(
        self,
        *,
        authtoken: str | None = None,
        domain: str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self._authtoken = authtoken
        self._domain = domain and domain.removeprefix("https://").strip("/")
        self._runtime = runtime or Runtime()

    def __repr__(self) -> str:
        token = "None" if self._authtoken is None else "'...'"
        return f"Ngrok(authtoken={token}, domain={self._domain!r})"

    def open(self, local: LocalServer, tell: Tell) -> AbstractAsyncContextManager[str]:
        """Begin a session with ngrok; see `PublicURL.open`."""
        return self._open(local, tell)

    @asynccontextmanager
    async def _open(self, local: LocalServer, tell: Tell) -> AsyncGenerator[str]:
        sdk = ngrok_sdk()

        def make_session() -> NgrokSession:
            return NgrokSession(sdk, local, self._authtoken, self._domain, self._runtime)

        way = _Way(make_session, tell, self._runtime)
        try:
            yield await way.open()
        finally:
            await to_its_end(way.close())


class _Way:
    """One server's way through ngrok: opened, watched, and opened anew when it is lost for good."""

    def __init__(
        self, make_session: Callable[[], NgrokSession], tell: Tell, runtime: Runtime
    ) -> None:
        self._make_session = make_session
        self._tell = tell
        self._runtime = runtime
        self._session = make_session()
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> str:
        """Connect; from then on the connection is watched."""
        address = await self._session.open()
        self._watching = asyncio.create_task(self._watch(address), name="af10_async ngrok")
        return address

    async def close(self) -> None:
        """Watch no longer, and end the session."""
        if self._watching is not None:
            await ended(self._watching)
        await self._session.close()

    async def _watch(self, address: str) -> None:
        while True:
            why = await self._session.broken()
            logger.warning("there is no public address for now: ngrok lost its connection: %s", why)
            self._tell(None)
            if not await self._session.mended():
                address = await self._renewed()
            logger.info("ngrok is connected again")
            self._tell(address)

    async def _renewed(self) -> str:
        """The address of a new session, when one succeeds."""
        while True:
            await self._session.close()
            self._session = self._make_session()
            try:
                return await self._session.open()
            except PublicURLError as error:
                logger.debug("ngrok is still away: %s", error)
            await self._runtime.sleep(RETRY_SECONDS)
