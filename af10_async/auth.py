"""One account's token: fetched once for however many ask, renewed before it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from pydantic import ValidationError

from .errors import AF10Error, APIError, ClosedError, NetworkError
from .models import Authentication
from .protocol.addresses import check_api_url
from .protocol.retry import RetryPolicy
from .protocol.wire import (
    Call,
    Reply,
    decipher,
    not_promised,
    read_come_back,
    token_life,
)
from .runtime import Runtime

logger = logging.getLogger("af10_async.auth")


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """A token and where it is good for."""

    token: str = field(repr=False)
    api_url: str
    renew_at: float
    """On the monotonic clock."""


class Authenticator:
    """Keeps the session of one account.

    `exchange` sends the authentication call to the bootstrap URL. However many callers want a
    session, or report the same one as refused, one `/authenticate` is under way at a time, in a
    task of its own, so that no caller's cancellation hurts the others.
    """

    def __init__(
        self,
        call: Call,
        base_url: str,
        exchange: Callable[[Call, str, float], Awaitable[Reply]],
        *,
        runtime: Runtime,
        policy: RetryPolicy,
        secrets: tuple[str, ...],
        timeout: float,
    ) -> None:
        self._call = call
        self._base_url = base_url
        self._exchange = exchange
        self._runtime = runtime
        self._policy = policy
        self._secrets = secrets
        self._timeout = timeout
        self._session: Session | None = None
        self._flight: asyncio.Task[Session | AF10Error] | None = None
        self._closed = False

    async def session(self, *, refused: Session | None = None) -> Session:
        """A session that is good as far as we know; not the one that AF10 has just refused.

        Raises `AuthenticationError`, `NetworkError` or `BadResponseError`, with nothing but the
        authentication sent.
        """
        current = self._session
        if current is not None and current is not refused:
            if self._runtime.monotonic() < current.renew_at:
                return current
        if self._closed:
            raise ClosedError("the client is closed", step="authenticate", sent=False)
        if self._flight is None:
            self._flight = asyncio.create_task(self._fly(), name="af10_async authenticate")
        outcome = await asyncio.shield(self._flight)
        if isinstance(outcome, AF10Error):
            raise outcome.fresh()
        return outcome

    async def close(self) -> None:
        """End what is under way; whoever waits for it gets a `ClosedError`."""
        self._closed = True
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait([self._flight])

    async def _fly(self) -> Session | AF10Error:
        try:
            self._session = await self._authenticate()
            return self._session
        except AF10Error as error:
            error.step = "authenticate"
            return error
        except asyncio.CancelledError:
            return ClosedError("the client was closed", step="authenticate", sent=False)
        finally:
            self._flight = None

    async def _authenticate(self) -> Session:
        attempt = 0
        while True:
            attempt += 1
            try:
                reply = await self._exchange(self._call, self._base_url, self._timeout)
                come_back = read_come_back(reply)
                if come_back is None:
                    return self._read(reply)
                await self._runtime.sleep(come_back.seconds)
                continue
            except (NetworkError, APIError) as error:
                if not error.retryable:
                    raise
                asked = error.retry_after if isinstance(error, APIError) else None
                pause = self._policy.pause(attempt, self._runtime.chance(), asked)
                if pause is None:
                    raise
                logger.info("authentication failed, again in %.1f s: %s", pause, error)
            await self._runtime.sleep(pause)

    def _read(self, reply: Reply) -> Session:
        value = decipher(reply, self._secrets)
        try:
            answer = Authentication.model_validate(value)
        except ValidationError:
            raise not_promised(reply, "has no usable token", self._secrets) from None
        life = token_life(answer.token_valid_until, self._runtime.now())
        logger.debug("authenticated; the token is used for %.0f s", life)
        return Session(
            token=answer.token,
            api_url=self._adopted(answer.api_url, reply),
            renew_at=self._runtime.monotonic() + life,
        )

    def _adopted(self, api_url: str | None, reply: Reply) -> str:
        if not api_url:
            return self._base_url
        if check_api_url(api_url, self._base_url):
            return api_url.rstrip("/")
        raise not_promised(reply, "names an api_url that is not a safe address", self._secrets)
