"""Quick calls: asked, asked again where that is harmless, and read."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, get_origin

from .errors import (
    AF10Error,
    BadResponseError,
    ClosedError,
    ConfigurationError,
    RequestTimeoutError,
)
from .events import CallRetried
from .protocol import wire
from .protocol.redaction import redact
from .protocol.retry import MAX_RETRY_AFTER, RetryPolicy, may_repeat
from .requester import Requester, again
from .runtime import Runtime
from .transport import Departure
from .waits import Interrupted, Waits

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["RawResponse"]

T = TypeVar("T")
logger = logging.getLogger("af10_async.client")


@dataclass(frozen=True, slots=True)
class RawResponse:
    """An answer of AF10 that is no refusal, as it came."""

    method: str
    path: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case."""
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: it is none.

        """
        return json.loads(self.body)


class QuickCalls:
    """Asks AF10, and asks again within a policy."""

    def __init__(self, requester: Requester, waits: Waits, runtime: Runtime) -> None:
        self._requester = requester
        self._waits = waits
        self._runtime = runtime

    async def ask(
        self,
        call: wire.Call,
        read: Callable[[wire.Reply], T],
        *,
        timeout: float,
        policy: RetryPolicy,
        without_token: bool = False,
    ) -> T:
        """What `read` makes of the answer; `timeout` (seconds) is for each attempt."""
        asking = _Asking(policy, self._runtime.monotonic())
        departure = Departure()
        try:
            async with self._waits.limit(float("inf")):
                while True:
                    if not without_token:
                        await self._logged_in(call, timeout, asking)
                    ask = self._ask(call, timeout, departure, without_token)
                    found = await self._attempt(call, read, ask, asking)
                    if not isinstance(found, _Pause):
                        return found
                    await self._runtime.sleep(found.seconds)
                    call = again(call)
        except Interrupted:
            raise ClosedError(
                f"{call.method} {call.path}: the client was closed before the answer was here",
                step="call",
                sent=departure.sent,
            ) from None

    async def _logged_in(self, call: wire.Call, timeout: float, asking: _Asking) -> None:
        """Have a token; whoever does not want to wait does not wait for that either."""
        if self._requester.has_session:
            return
        patience = timeout if asking.policy.attempts == 1 else asking.policy.longest_total
        try:
            async with asyncio.timeout(max(timeout, patience)):
                await self._requester.session()
        except TimeoutError as error:
            if isinstance(error, AF10Error):
                raise
            raise RequestTimeoutError(
                f"{call.method} {call.path}: no token within {max(timeout, patience):g} s",
                step="authenticate",
                sent=False,
                retryable=True,
            ) from None

    def _ask(
        self, call: wire.Call, timeout: float, departure: Departure, without_token: bool
    ) -> Awaitable[wire.Reply]:
        if without_token:
            return self._requester.request_without_token(call, timeout=timeout)
        return self._requester.request(call, departure, timeout=timeout)

    async def _attempt(
        self,
        call: wire.Call,
        read: Callable[[wire.Reply], T],
        ask: Awaitable[wire.Reply],
        asking: _Asking,
    ) -> T | _Pause:
        try:
            reply = await ask
            come_back = wire.read_quick_come_back(reply)
            if come_back is None:
                return read(reply)
            return self._pause_asked(come_back.seconds, reply, call, asking)
        except AF10Error as error:
            return self._pause_or_give_up(error, call, asking)

    def _pause_asked(
        self, seconds: float, reply: wire.Reply, call: wire.Call, asking: _Asking
    ) -> _Pause:
        elapsed = self._runtime.monotonic() - asking.since
        if seconds > MAX_RETRY_AFTER or elapsed + seconds > asking.policy.longest_total:
            what = "asks to come back later than the retry policy waits"
            raise wire.not_promised(reply, what, self._requester.secrets())
        # A server that says "at once", again and again, must not keep us busy.
        return self._told(call, max(seconds, asking.policy.first_pause), None)

    def _pause_or_give_up(self, error: AF10Error, call: wire.Call, asking: _Asking) -> _Pause:
        if error.step == "authenticate":
            raise error  # that was tried again already
        error.step = "call"
        asking.failures += 1
        asking.sent = error.sent if error.sent is not False else asking.sent
        elapsed, chance = self._runtime.monotonic() - asking.since, self._runtime.chance()
        pause = asking.policy.pause_of_call(error, call.method, asking.failures, elapsed, chance)
        if pause is None:
            error.sent = asking.sent  # an earlier attempt counts as much as the last
            error.retryable = may_repeat(error, call.method)
            raise error
        return self._told(call, pause, error)

    def _told(self, call: wire.Call, pause: float, error: AF10Error | None) -> _Pause:
        reason = error.message if error is not None else "AF10 asks to come back later"
        logger.info("%s %s again in %.1f s: %s", call.method, call.path, pause, reason)
        events = self._requester.events
        if events.are_wanted:
            event = CallRetried(
                account=events.account,
                method=call.method,
                path=call.path,
                attempt=call.attempt,
                pause=pause,
                error=error,
                at=self._runtime.now(),
            )
            events.tell(event)
        return _Pause(pause)

    # -- what answers mean -------------------------------------------------------------------------

    def value(self, reply: wire.Reply) -> Any:
        """The deciphered JSON."""
        return wire.read_quick(reply, self._requester.secrets())

    def raw(self, reply: wire.Reply) -> RawResponse:
        """The answer as it came, unless it is a refusal; it need not be JSON."""
        wire.check_quick(reply, self._requester.secrets())
        return RawResponse(reply.method, reply.path, reply.status, reply.headers, reply.body)

    def fitting(self, reply: wire.Reply, value: Any, model: type[T]) -> T:
        """The value as the caller's model."""
        problem, found = fitted(value, model)
        if problem is not None:
            self.refuse(reply, problem)
        return found

    def refuse(self, reply: wire.Reply, problem: str) -> NoReturn:
        """Raise the error for an answer that is not what was expected."""
        clean = redact(problem, self._requester.secrets())
        raise BadResponseError(
            f"the answer to {reply.method} {reply.path} (HTTP {reply.status}) {clean}",
            status=reply.status,
            method=reply.method,
            path=reply.path,
            step="call",
        )


@dataclass(slots=True)
class _Asking:
    """One call over all of its attempts."""

    policy: RetryPolicy
    since: float
    """When it was sent first, on the monotonic clock."""
    failures: int = 0
    """Attempts that failed; "come back later" is no failure."""
    sent: bool | None = False
    """Whether any of them may have left."""


@dataclass(frozen=True, slots=True)
class _Pause:
    seconds: float


_TELLS_VALUES = {"union_tag_invalid"}
"""Kinds of misfits in whose words pydantic quotes what it was given."""


def fitted(value: Any, model: type[T]) -> tuple[str | None, T]:
    """The value as a model; and, when it does not fit, the problem in words, without the value."""
    # Imported when it is needed: pydantic costs more than all of this package.
    from pydantic import ValidationError

    try:
        return None, _adapter(model).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        said = "no known kind" if first["type"] in _TELLS_VALUES else first["msg"]
        more = error.error_count() - 1
        others = f" (and {more} more)" if more else ""
        return f"does not fit {_name_of(model)}: {where}: {said}{others}", value


def checked_model(model: Any) -> None:
    """Raise `ConfigurationError` for a model of which pydantic can make nothing."""
    # Imported when it is needed: pydantic costs more than all of this package.
    from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

    try:
        _adapter(model)
    except (PydanticUserError, PydanticUndefinedAnnotation, NameError) as error:
        raise ConfigurationError(
            f"the model {_name_of(model)} is nothing that pydantic can validate"
        ) from error


def _name_of(model: Any) -> str:
    is_class = isinstance(model, type) and get_origin(model) is None
    return model.__name__ if is_class else str(model)


def _adapter(model: Any) -> TypeAdapter[Any]:
    try:
        return _cached_adapter(model)
    except TypeError:  # not hashable: an Annotated with a list in it, say
        return _new_adapter(model)


def _new_adapter(model: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(model)


_cached_adapter = functools.lru_cache(maxsize=256)(_new_adapter)
