"""One session of ngrok's Python SDK, as the event loop sees it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import importlib
import logging
import os
import time
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

from ..errors import MissingExtraError, PublicURLError
from ..protocol.ngrok import advice, error_code, https_address, reason
from ..runtime import Runtime
from ..shelter import ended
from .base import LocalServer
from .deadlines import within

logger = logging.getLogger("af10_async.public_url")

TOKEN_VARIABLE = "NGROK_AUTHTOKEN"  # noqa: S105 - the name of the variable that the SDK reads
MAX_SECONDS = 30.0
"""Time for a session and a listener."""
MAX_CLOSE_SECONDS = 5.0
"""Time for ending one of them."""
PATIENCE = 60.0
"""How long the SDK may take to connect again by itself. Its pauses become fifty times as long with
each attempt: the fifth comes after an hour and three quarters."""
STEADY_SECONDS = 2.0
"""How long a connection must hold to count: ngrok answers heartbeats before it refuses a token."""
_EXIT_PAUSE = 0.1


def ngrok_sdk() -> ModuleType:
    """The SDK; raises `MissingExtraError`."""
    try:
        sdk = importlib.import_module("ngrok")
    except ImportError:
        raise MissingExtraError(
            'a public address by ngrok needs its SDK: pip install "af10-async[ngrok]"'
        ) from None
    _pause_at_exit()
    return sdk


@functools.cache
def _pause_at_exit() -> None:
    """Let the process end a moment later.

    The SDK's threads let go of Python's objects just after a result is here. When the interpreter
    ends within that moment, the process aborts.
    """
    atexit.register(time.sleep, _EXIT_PAUSE)


class NgrokSession:
    """A session with its listener: opened, looked after, closed.

    The SDK tells of what happens in threads of its own; here it is seen in the event loop only.
    """

    def __init__(
        self,
        sdk: ModuleType,
        local: LocalServer,
        authtoken: str | None,
        domain: str | None,
        runtime: Runtime,
    ) -> None:
        self._sdk = sdk
        self._local = local
        self._authtoken = authtoken
        self._domain = domain
        self._runtime = runtime
        self._session: Any = None
        self._listener: Any = None
        self._ending: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._is_up = True
        self._is_over = False
        """Whether the SDK has given up."""
        self._breaks = 0
        self._why = ""

    async def open(self) -> str:
        """Connect, and give the public address. Raises `PublicURLError`."""
        try:
            await within(MAX_SECONDS, self._connect(), self._runtime)
        except TimeoutError:
            raise PublicURLError(
                f"ngrok did not answer within {MAX_SECONDS:g} seconds: {advice('')}",
                retryable=True,
            ) from None
        except Exception as error:  # the SDK raises ValueError, but does not promise it
            raise self._refused(error) from None
        address = https_address(self._listener.url())
        if address is None:
            raise PublicURLError("ngrok gave an address that is not https: name another domain")
        self._ending = asyncio.create_task(self._wait_for_end(self._listener))
        return address

    async def broken(self) -> str:
        """Wait until the connection breaks, and say why."""
        while self._is_up and not self._is_over:
            await self._change()
        return self._why

    async def mended(self) -> bool:
        """Whether the SDK makes the connection again, in reasonable time."""
        try:
            await within(PATIENCE, self._steady(), self._runtime)
        except TimeoutError:
            return False
        return not self._is_over

    async def close(self) -> None:
        """End listener and session, also when ngrok does not answer."""
        if self._ending is not None:
            await ended(self._ending)
        for part in (self._listener, self._session):
            if part is not None:
                try:
                    await within(MAX_CLOSE_SECONDS, _wait_for(part.close()), self._runtime)
                except Exception as error:
                    logger.debug("ngrok did not close well: %s", self._reason(error))
        self._listener = self._session = None

    async def _connect(self) -> None:
        await _wait_for(self._session_builder().connect(), self._keep_session)
        endpoint = self._session.http_endpoint()
        if self._domain:
            endpoint.domain(self._domain)
        if self._local.is_tls:
            endpoint.verify_upstream_tls(False)  # the certificate is for another name
        await _wait_for(endpoint.listen_and_forward(self._local.url), self._keep_listener)

    def _session_builder(self) -> Any:
        builder = self._sdk.SessionBuilder()
        if self._authtoken is None:
            builder.authtoken_from_env()
        else:
            builder.authtoken(self._authtoken)
        builder.handle_disconnection(self._in_loop(self._break))
        builder.handle_heartbeat(self._in_loop(self._beat))
        return builder

    def _keep_session(self, session: Any) -> None:
        self._session = session

    def _keep_listener(self, listener: Any) -> None:
        self._listener = listener

    def _in_loop(self, work: Callable[..., None]) -> Callable[..., None]:
        loop = asyncio.get_running_loop()

        def hand_over(*arguments: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(work, *arguments)

        return hand_over

    def _break(self, _address: object = None, error: object = "") -> None:
        self._is_up = False
        self._breaks += 1
        self._why = self._reason(ValueError(error))
        self._changed.set()

    def _beat(self, _latency: object = None) -> None:
        self._is_up = True
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _steady(self) -> None:
        """Wait until heartbeats are answered and the connection holds, or it is all over."""
        while not self._is_over:
            if self._is_up:
                breaks = self._breaks
                await self._runtime.sleep(STEADY_SECONDS)
                if breaks == self._breaks:
                    return
            else:
                await self._change()

    async def _wait_for_end(self, listener: Any) -> None:
        """Wait until the SDK gives up, which it should not."""
        try:
            await _wait_for(listener.join())
            self._why = "it has ended the listener"
        except Exception as error:
            self._why = self._reason(error)
        self._is_over = True
        self._changed.set()

    def _reason(self, error: Exception) -> str:
        return reason(error.args, filter(None, [self._authtoken, os.environ.get(TOKEN_VARIABLE)]))

    def _refused(self, error: Exception) -> PublicURLError:
        why = self._reason(error)
        return PublicURLError(
            f"ngrok gives no public address ({why}): {advice(why)}",
            retryable=error_code(why) is None,
        )


async def _wait_for(result: Awaitable[Any], keep: Callable[[Any], None] | None = None) -> None:
    """Wait for one of the SDK's futures. Its result is kept also if we are cancelled meanwhile.

    Else what was just opened could not be closed.
    """
    future = asyncio.ensure_future(result)
    try:
        await future
    finally:
        is_good = future.done() and not future.cancelled() and future.exception() is None
        if is_good and keep is not None:
            keep(future.result())
