"""Requester: sends the calls of one account, with its token, in its turn, and tells of each."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from .auth import Authenticator, Session
from .errors import AF10Error, NetworkError
from .events import CallBegan, CallEnded, Events, TokenRenewed, trace_of_job
from .protocol import wire
from .protocol.retry import RetryBudget, RetryPolicy
from .runtime import Runtime
from .transport import Departure, Transport

logger = logging.getLogger("af10_async.client")

REQUEST_TIMEOUT = 60.0
"""Seconds for one request and its whole answer."""
LONGEST_QUEUE = 30.0
"""Seconds that a repetition waits at most for its turn."""
_TOKENS = 4
"""How many of the latest tokens are kept out of texts: a slow answer may repeat an older one."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What AF10 knows an account by."""

    api_key: str
    username: str
    password: str
    organization_name: str | None = None

    def __repr__(self) -> str:
        return "Credentials()"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must stand in no text."""
        return (self.api_key, self.username, self.password)


class Requester:
    """Sends one account's calls, and renews its token once when AF10 refuses it.

    A call that is sent again waits until the budgets, of the account and of all together, have room
    for it.
    """

    def __init__(
        self,
        credentials: Credentials,
        base_url: str,
        transport: Transport,
        *,
        account: str,
        policy: RetryPolicy,
        budgets: Sequence[RetryBudget],
        events: Events,
        runtime: Runtime,
        most_at_once: int,
    ) -> None:
        self.events = events
        self._credentials = credentials
        self._base_url = base_url
        self._transport = transport
        self._account = account
        self._budgets = tuple(budgets)
        self._runtime = runtime
        self._most_at_once = most_at_once
        self._tokens: deque[str] = deque(maxlen=_TOKENS)
        self._authenticator = Authenticator(
            wire.authenticate_call(
                credentials.api_key,
                credentials.username,
                credentials.password,
                credentials.organization_name,
            ),
            base_url,
            self._exchange,
            runtime=runtime,
            policy=policy,
            secrets=credentials.secrets,
            timeout=REQUEST_TIMEOUT,
        )

    async def close(self) -> None:
        """End an authentication that is under way; whoever waits for it gets a `ClosedError`."""
        await self._authenticator.close()

    @property
    def has_session(self) -> bool:
        """Whether there is a token that is good as far as we know."""
        return self._authenticator.has_session

    async def session(self, *, refused: Session | None = None) -> Session:
        """Make sure that there is a token, and not the one that AF10 has just refused."""
        session = await self._authenticator.session(refused=refused)
        if session.token not in self._tokens:
            self._tokens.append(session.token)
            if self.events.are_wanted:
                self.events.tell(TokenRenewed(account=self.events.account, at=self._runtime.now()))
        return session

    def secrets(self) -> tuple[str, ...]:
        """What must stand in no text."""
        return (*self._credentials.secrets, *self._tokens)

    async def request(
        self,
        call: wire.Call,
        departure: Departure | None = None,
        *,
        timeout: float = REQUEST_TIMEOUT,
    ) -> wire.Reply:
        """Send one call; an answer that refuses a fresh token too is returned as it is."""
        session = await self.session()
        reply = await self._send(call, session, departure, timeout)
        if not wire.is_token_refused(reply):
            return reply
        logger.debug("the token was refused; renewing it")
        if departure is not None:
            departure.sent = False  # what was refused for its token has not happened
        session = await self.session(refused=session)
        return await self._send(call, session, departure, timeout)

    async def request_without_token(
        self, call: wire.Call, *, timeout: float = REQUEST_TIMEOUT
    ) -> wire.Reply:
        """Send one call to the bootstrap URL, with the API key alone."""
        headers = {"apikey": self._credentials.api_key}
        return await self._told(call, self._base_url, headers, None, timeout)

    async def _send(
        self, call: wire.Call, session: Session, departure: Departure | None, timeout: float
    ) -> wire.Reply:
        headers = {"token": session.token, "apikey": self._credentials.api_key}
        return await self._told(call, session.api_url, headers, departure, timeout)

    async def _exchange(self, call: wire.Call, base_url: str, timeout: float) -> wire.Reply:
        return await self._told(call, base_url, {}, None, timeout)

    async def _told(
        self,
        call: wire.Call,
        base_url: str,
        headers: dict[str, str],
        departure: Departure | None,
        timeout: float,
    ) -> wire.Reply:
        """Send a call, and tell of its beginning and its end."""
        if call.attempt > 1:
            await self._in_budget(call)
        if not self.events.are_wanted:
            return await self._forward(call, base_url, headers, departure, timeout)
        began = CallBegan(
            id=self.events.new_id(),
            account=self.events.account,
            method=call.method,
            path=call.path,
            host=urlsplit(base_url).netloc,
            attempt=call.attempt,
            at=self._runtime.now(),
            trace=trace_of_job.get(),
        )
        self.events.tell(began)
        started = self._runtime.monotonic()
        status, failure = None, None
        try:
            reply = await self._forward(call, base_url, headers, departure, timeout)
            status = reply.status
            return reply
        except AF10Error as error:
            failure = error
            raise
        finally:
            self._tell_end(began, self._runtime.monotonic() - started, status, failure)

    def _tell_end(
        self, began: CallBegan, seconds: float, status: int | None, error: AF10Error | None
    ) -> None:
        self.events.tell(
            CallEnded(
                id=began.id,
                account=began.account,
                method=began.method,
                path=began.path,
                host=began.host,
                attempt=began.attempt,
                at=self._runtime.now(),
                seconds=seconds,
                status=status,
                error=error,
            )
        )

    async def _forward(
        self,
        call: wire.Call,
        base_url: str,
        headers: dict[str, str],
        departure: Departure | None,
        timeout: float,
    ) -> wire.Reply:
        return await self._transport.send(
            call,
            base_url,
            headers,
            timeout=timeout,
            departure=departure,
            account=self._account,
            most_at_once=self._most_at_once,
        )

    async def _in_budget(self, call: wire.Call) -> None:
        """Wait until there is room for one more repetition; nobody waits very long."""
        taken: list[RetryBudget] = []
        try:
            for budget in self._budgets:
                seconds = budget.reserve(self._runtime.monotonic(), LONGEST_QUEUE)
                if seconds is None:
                    raise NetworkError(
                        f"{call.method} {call.path} was not sent again: too many repetitions wait"
                        " already; try again later",
                        sent=False,
                        retryable=True,
                    )
                taken.append(budget)
                if seconds > 0:
                    logger.info("too many calls are sent again: this one waits %.1f s", seconds)
                    await self._runtime.sleep(seconds)
        except BaseException:
            for budget in taken:
                budget.give_back()
            raise


def again(call: wire.Call) -> wire.Call:
    """The same call, as its next attempt."""
    return replace(call, attempt=call.attempt + 1)
