"""One account's token: fetched once for however many ask, renewed before it ends."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from .errors import AF10Error, APIError, ClosedError, NetworkError, NotFoundError
from .protocol.addresses import check_api_url
from .protocol.retry import RetryPolicy
from .protocol.wire import (
    Call,
    ComeBack,
    Reply,
    decipher,
    not_promised,
    read_come_back,
    token_life,
)
from .runtime import Runtime
from .single_flight import SingleFlight

logger = logging.getLogger("af10_async.auth")

MAX_COME_BACKS = 60
"""How often AF10 may say "come back later" (202) to one authentication."""


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
    session, or report the same one as refused, one `/authenticate` is under way at a time.
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
        self._flight = SingleFlight(self._renew, "af10_async authenticate")
        self._closed = False

    async def session(self, *, refused: Session | None = None) -> Session:
        """A session that is good as far as we know; not the one that AF10 has just refused.

        Raises `AuthenticationError`, `NetworkError` or `BadResponseError`, with nothing but the
        authentication sent.
        """
        current = self._session
        now = self._runtime.monotonic()
        if current is not None and current is not refused and now < current.renew_at:
            return current
        if self._closed:
            raise ClosedError("the client is closed", step="authenticate", sent=False)
        return await self._flight.join()

    @property
    def has_session(self) -> bool:
        """Whether there is a session that is good as far as we know."""
        current = self._session
        return current is not None and self._runtime.monotonic() < current.renew_at

    async def close(self) -> None:
        """End what is under way; whoever waits for it gets a `ClosedError`."""
        self._closed = True
        await self._flight.abort()

    async def _renew(self) -> Session:
        try:
            self._session = await self._authenticate()
        except AF10Error as error:
            error.step = "authenticate"
            if isinstance(error, NotFoundError):
                error.args = (f"{error.message}; is the base URL (AF10_BASE_URL) the right one?",)
            raise
        return self._session

    async def _authenticate(self) -> Session:
        attempt = come_backs = 0
        started = self._runtime.monotonic()
        while True:
            try:
                call = replace(self._call, attempt=attempt + come_backs + 1)
                reply = await self._exchange(call, self._base_url, self._timeout)
                come_back = read_come_back(reply)
                if come_back is None:
                    return self._read(reply)
            except (NetworkError, APIError) as error:
                attempt += 1
                pause = self._pause(error, attempt, self._runtime.monotonic() - started)
            else:
                come_backs += 1
                left = self._policy.longest_total - (self._runtime.monotonic() - started)
                pause = self._wait_asked(come_back, come_backs, reply, left)
            await self._runtime.sleep(pause)

    def _pause(self, error: NetworkError | APIError, attempt: int, elapsed: float) -> float:
        chance = self._runtime.chance()
        pause = self._policy.pause_of_call(error, self._call.method, attempt, elapsed, chance)
        if pause is None:
            raise error
        logger.info("authentication failed, again in %.1f s: %s", pause, error)
        return pause

    def _wait_asked(self, come_back: ComeBack, times: int, reply: Reply, left: float) -> float:
        if times > MAX_COME_BACKS or come_back.seconds > left:
            raise not_promised(reply, "asks to come back later, again and again", self._secrets)
        return come_back.seconds

    def _read(self, reply: Reply) -> Session:
        # pydantic costs more to import than all of this package: not before it is needed.
        from pydantic import ValidationError

        from .models import Authentication

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
