"""What all handles of one job share: starting it once, waiting for it, redeeming its secrets.

Nothing here runs by itself. Those who wait drive the job on: each of them watches its record, and
the two things that must happen once for all of them (the start, and redeeming) are single flights.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, assert_never

from .callback_server import CallbackServer
from .errors import (
    AF10Error,
    APIError,
    BadResponseError,
    CallbackTimeoutError,
    ClosedError,
    JobError,
    JobExpiredError,
    JobInterruptedError,
    JobNotFoundError,
    StartTimeoutError,
    UnexpectedPayloadError,
)
from .protocol import wire
from .protocol.lifecycle import (
    JOB_LIFETIME,
    MAX_SECRETS,
    Accepted,
    Event,
    JobRecord,
    JobState,
    LifeEnded,
    PayloadReceived,
    Refused,
    SecretRefused,
)
from .protocol.retry import MAX_RETRY_AFTER, RetryPolicy
from .runtime import Runtime
from .single_flight import SingleFlight
from .stores import Store
from .transport import Departure
from .waits import Interrupted, OutOfTime, Waits

logger = logging.getLogger("af10_async.jobs")

EARLY_CALLBACK_GRACE = 1.0
"""Seconds that the answer to the POST may still take when the callback has overtaken it."""
REDEEM_TRIES = 8
"""How often an id that AF10 does not know (yet) is tried before it may make room for others."""
_LATE = 0.05
_LONGEST_GRACE = 5.0


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One step in the life of a job."""

    key: str
    state: JobState
    at: float
    """Unix seconds."""
    failure: str | None = None
    """Why it failed, if it did."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be asked of AF10."""

    method: str
    path: str
    body: Mapping[str, Any] | None
    expects_file: bool


class Requester(Protocol):
    """Sends calls of one account, renewing its token when need be."""

    async def session(self) -> object:
        """Make sure that there is a token."""

    async def request(self, call: wire.Call, departure: Departure | None = None) -> wire.Reply:
        """Send one call; an answer that refuses a fresh token too is returned as it is."""
        ...

    def secrets(self) -> tuple[str, ...]:
        """What must stand in no text."""
        ...


FileMaker = Callable[[str, str, Callable[[], Awaitable[str | None]]], object]


@dataclass(frozen=True, slots=True)
class Services:
    """What the jobs of one client work with."""

    account: str
    store: Store
    server: CallbackServer | None
    requester: Requester
    waits: Waits
    policy: RetryPolicy
    runtime: Runtime


@dataclass(frozen=True, slots=True)
class _NotStarted:
    """AF10 did not start the job, for certain."""

    error: AF10Error
    is_refusal: bool
    may_repeat: bool


def _labelled(error: AF10Error, key: str, step: str) -> AF10Error:
    error.key, error.step = key, error.step or step
    return error


class JobWork:
    """One job, as this process sees it."""

    __slots__ = (
        "__weakref__",
        "_departure",
        "_doubt",
        "_failure",
        "_file",
        "_handles",
        "_is_claimed",
        "_is_listening",
        "_is_started",
        "_make_file",
        "_order",
        "_post_scope",
        "_redeeming",
        "_services",
        "_starting",
        "_trouble",
        "_waiters",
        "history",
        "key",
        "listeners",
        "record",
    )

    def __init__(
        self, services: Services, key: str, order: Order | None, make_file: FileMaker
    ) -> None:
        self.key = key
        self.record: JobRecord | None = None
        self.history: list[JobEvent] = []
        self.listeners: list[Callable[[JobEvent], None]] = []
        self._services = services
        self._order = order
        self._make_file = make_file
        self._is_started = False
        self._departure = Departure()
        self._post_scope: asyncio.Timeout | None = None
        self._doubt: AF10Error | None = None
        self._trouble: AF10Error | None = None
        self._failure: AF10Error | None = None
        self._file: object = None
        self._is_claimed = False
        self._is_listening = False
        self._handles = 0
        self._waiters = 0
        self._starting = SingleFlight(self._start, "af10_async start")
        self._redeeming = SingleFlight(self._redeem, "af10_async redeem")

    @property
    def title(self) -> str:
        """The request, in words."""
        return f"{self._order.method} {self._order.path}" if self._order else "taken up by its key"

    # -- for the handles ---------------------------------------------------------------------------

    async def start(self, timeout: float) -> None:
        """Send the request, once, and wait until AF10 is known to have accepted it."""
        self._claim()
        try:
            await self._accepted_within(timeout)
        except BaseException:
            self._leave_alone()
            raise
        self._raise_failure()

    async def wait(self, start_timeout: float, callback_timeout: float) -> None:
        """Wait until the job is done, and drive it on meanwhile."""
        if self.record is not None and self.record.state is JobState.READY:
            return
        self._waiters += 1
        self._claim()
        try:
            await self._begin(start_timeout)
            await self._end(callback_timeout)
        except Interrupted:
            raise self._interrupted() from None
        finally:
            self._waiters -= 1
            self._leave_alone()

    def result(self) -> Any:
        """What came of the job that is done."""
        self._raise_failure()
        record = self._known()
        payload = json.loads(record.payload or "null")
        url = wire.payload_url(payload)
        if url is not None and (record.expects_file or record.account is None):
            if self._file is None:
                self._file = self._make_file(url, self.key, self._fresh_url)
            return self._file
        if record.expects_file:
            raise UnexpectedPayloadError(
                "the job is done, but AF10 sent something else than the address of a file; it is in"
                " the error's `payload`",
                payload=payload,
                key=self.key,
                step="redeem",
            )
        return payload

    def make_files_with(self, make_file: FileMaker) -> None:
        """From now on the result, when it is a file, is made by this."""
        self._make_file = make_file
        self._file = None

    @property
    def is_started(self) -> bool:
        """Whether the request has left, for certain or perhaps."""
        return self._is_started

    def take(self) -> None:
        """Count one more handle."""
        self._handles += 1

    def let_go(self) -> None:
        """A handle is gone: after the last, nobody claims the callback or listens any more."""
        self._handles -= 1
        if self._handles or self._waiters:
            return
        self._is_claimed = False
        if self._is_listening and self._services.server is not None:
            self._is_listening = False
            self._services.server.unclaim(self.key, self._heard)

    # -- before the callback -----------------------------------------------------------------------

    async def _accepted_within(self, timeout: float) -> None:
        clock = asyncio.get_running_loop().time
        until = clock() + timeout
        try:
            await self._begin(timeout)
            async with self._services.waits.limit(until - clock()):
                while not self._known().start_certain and not self._known().is_done:
                    await self._next()
        except OutOfTime:
            raise self._start_timeout(timeout) from self._doubt
        except Interrupted:
            raise self._interrupted() from None

    async def _begin(self, timeout: float) -> None:
        """See to it that the request has been sent, for certain or perhaps."""
        if self._is_started or self._order is None:
            await self._take_up()
            return
        try:
            async with self._services.waits.limit(timeout):
                await self._starting.join()
        except OutOfTime:
            # What may have been sent is waited for: the callback can still prove that it runs.
            may_run = self.record is not None and (
                self._departure.sent is not False or self.record.start_certain
            )
            if not may_run:
                raise self._start_timeout(timeout) from None

    async def _take_up(self) -> None:
        record = await self._services.store.get(self.key)
        if record is None or record.account not in (None, self._services.account):
            raise JobNotFoundError(
                "this account has no job under this key; check the key, and whether the store that"
                " held the job is the one in use",
                key=self.key,
            )
        self._is_started = True
        self._saw(record)

    async def _start(self) -> None:
        if self._is_started:
            return  # an earlier run, whose end this one waited for, may have sent it
        attempt = 0
        try:
            while True:
                await self._services.requester.session()
                self._ensure_listening()
                await self._register()
                attempt += 1
                outcome = await self._post()
                if not isinstance(outcome, _NotStarted):
                    break
                self._departure = Departure()
                pause = await self._pause_or_give_up(outcome, attempt)
                if await self._is_proven_within(pause):
                    outcome = wire.Started()  # whatever AF10 said, its callback says otherwise
                    break
        except BaseException as error:
            await self._abandon(error)
            raise
        await self._settle(outcome)

    def _ensure_listening(self) -> None:
        """Start nothing whose callback would find nobody."""
        if self._services.server is None or not self._services.server.is_running:
            raise ClosedError("the callback server is closed, or closing", sent=False)

    async def _register(self) -> None:
        if self.record is not None:
            return
        assert self._order is not None  # else there is nothing to start
        now = self._services.runtime.now()
        record = JobRecord(
            key=self.key,
            account=self._services.account,
            method=self._order.method,
            path=self._order.path,
            expects_file=self._order.expects_file,
            created_at=now,
            expires_at=now + JOB_LIFETIME,
        )
        await self._services.store.add(record)
        self._saw(record)

    async def _post(self) -> wire.Started | wire.Finished | wire.Unclear | _NotStarted:
        secrets = self._services.requester.secrets()
        try:
            outcome = wire.read_start(await self._answer(), secrets)
        except (AF10Error, TimeoutError) as error:
            if self._known().start_certain:
                return wire.Started()  # the callback was here first
            return self._unanswered(error)
        if self._known().start_certain and not isinstance(outcome, wire.Finished):
            return wire.Started()  # whatever this answer says: the callback has proven it
        if isinstance(outcome, wire.NotNow):
            return _NotStarted(outcome.reason, is_refusal=True, may_repeat=True)
        return outcome

    async def _answer(self) -> wire.Reply:
        server = self._services.server
        assert self._order is not None  # else there is nothing to start
        assert server is not None  # the client makes no job to start without one
        webhook_url = server.webhook_url(self.key)
        call = wire.webhook_call(self._order.path, webhook_url, self._order.body)
        async with self._ended_by_callback():
            return await self._services.requester.request(call, self._departure)

    @asynccontextmanager
    async def _ended_by_callback(self) -> AsyncIterator[None]:
        """Raise `TimeoutError` in the block a moment after a callback has proven the start."""
        try:
            async with asyncio.timeout(None) as self._post_scope:
                yield
        finally:
            self._post_scope = None

    def _unanswered(self, error: BaseException) -> wire.Unclear | _NotStarted:
        assert isinstance(error, AF10Error)
        if error.step == "authenticate" or error.sent is False:
            return _NotStarted(error, is_refusal=False, may_repeat=error.retryable)
        if isinstance(error, APIError):
            return _NotStarted(error, is_refusal=True, may_repeat=False)
        return wire.Unclear(error)

    async def _pause_or_give_up(self, outcome: _NotStarted, attempt: int) -> float:
        error = outcome.error
        asked = error.retry_after if isinstance(error, APIError) else None
        chance = self._services.runtime.chance()
        pause = self._services.policy.pause(attempt, chance, asked)
        if outcome.may_repeat and pause is not None:
            logger.info("job %s not started, again in %.1f s: %s", self.key, pause, error)
            return pause
        if outcome.is_refusal:
            self._is_started = True  # there is nothing left to start
            self._failure = _labelled(error, self.key, "start")
            await self._apply(Refused(self._services.runtime.now(), error.message))
        raise error

    async def _is_proven_within(self, seconds: float) -> bool:
        """Sleep, and look whether a callback has proven the start meanwhile, here or elsewhere."""
        with contextlib.suppress(TimeoutError):
            async with self._ended_by_callback():
                await self._services.runtime.sleep(seconds)
        self._saw(self._not_gone(await self._services.store.get(self.key)))
        return self._known().start_certain

    async def _abandon(self, error: BaseException) -> None:
        """Leave the start: what cannot have been sent is forgotten, what can have been is kept."""
        if isinstance(error, AF10Error):
            _labelled(error, self.key, "start")
        if self.record is None or self.record.is_done:
            return
        is_unsent = self._departure.sent is False and not self._known().start_certain
        if is_unsent and await self._forget():
            return
        self._is_started = True
        if self._known().start_certain:
            return  # a callback came in between: it is kept, and there is nothing left to send
        self._doubt = error if isinstance(error, AF10Error) else None
        logger.warning("job %s: the start was abandoned; AF10 may have started it", self.key)

    async def _forget(self) -> bool:
        """Take the record back, unless a callback has come for it."""
        if not await self._services.store.remove(self.key, self._known().version):
            record = await self._services.store.get(self.key)
            if record is not None:
                self._saw(record)
                return False
        self.record = None
        self.history.clear()
        return True

    async def _settle(self, outcome: wire.Started | wire.Finished | wire.Unclear) -> None:
        self._is_started = True
        now = self._services.runtime.now()
        match outcome:
            case wire.Started():
                await self._apply(Accepted(now))
            case wire.Finished(payload=payload):
                await self._apply(PayloadReceived(now, payload))
            case wire.Unclear(reason=reason):
                self._doubt = reason
                logger.warning("job %s may have started: %s", self.key, reason)
            case _:
                assert_never(outcome)

    # -- after it ----------------------------------------------------------------------------------

    async def _end(self, timeout: float) -> None:
        clock = asyncio.get_running_loop().time
        until = clock() + timeout
        if await self._done_within(timeout):
            return
        # When the event loop itself was late, the callback may stand at the door.
        late = clock() - until
        if late > _LATE and await self._done_within(min(late, _LONGEST_GRACE)):
            return
        raise self._callback_timeout(timeout) from self._trouble or self._doubt

    async def _done_within(self, seconds: float) -> bool:
        left = self._known().expires_at - self._services.runtime.now()
        try:
            async with self._services.waits.limit(min(seconds, left)):
                await self._until_done()
        except OutOfTime:
            if left > seconds:
                return False
            await self._apply(LifeEnded(self._services.runtime.now()))
            return self._known().is_done
        return True

    async def _until_done(self) -> None:
        while not self._known().is_done:
            if self._known().secrets:
                await self._redeeming.join()
            else:
                await self._next()

    async def _next(self) -> None:
        known = self._known()
        record = await self._services.store.changed(self.key, known.version)
        self._saw(self._not_gone(record))

    async def _redeem(self) -> None:
        """Try the secrets in turn, each a few times, until one gives the payload."""
        tries: Counter[str] = Counter()
        troubles = 0
        while self._known().secrets and not self._known().is_done:
            trouble: AF10Error | None = None
            for secret in self._known().secrets:
                try:
                    if await self._give_in(secret):
                        return
                    tries[secret] += 1
                except AF10Error as error:
                    # It may be this secret's own, which may be forged: the others get their turn.
                    self._trouble = trouble = error
            pause = await self._next_round(tries)
            if trouble is not None:
                troubles += 1
                pause = max(pause, self._patience(trouble, troubles))
            await self._pause(pause)

    async def _give_in(self, secret: str) -> bool:
        outcome = await self._ask(secret)
        now = self._services.runtime.now()
        match outcome:
            case wire.Payload(json=payload):
                await self._apply(PayloadReceived(now, payload, secret))
                return True
            case wire.NotRedeemable(reason=reason):
                self._trouble = reason
                await self._drop(secret)
            case wire.NotReady(reason=reason):
                self._trouble = reason
            case _:
                assert_never(outcome)
        return False

    async def _ask(self, secret: str) -> wire.Payload | wire.NotReady | wire.NotRedeemable:
        reply = await self._services.requester.request(wire.redeem_call(secret))
        return wire.read_redeem(reply, (*self._services.requester.secrets(), secret))

    async def _next_round(self, tries: Counter[str]) -> float:
        """Drop what was tried often enough; the pause for what is left."""
        pauses = [0.0]
        for secret in self._known().secrets:
            # An id that AF10 does not know may be known later: it goes only when room is needed.
            is_crowded = len(self._known().secrets) > MAX_SECRETS // 2
            if is_crowded and tries[secret] >= REDEEM_TRIES:
                await self._drop(secret)
            if tries[secret] and secret in self._known().secrets:
                chance = self._services.runtime.chance()
                pauses.append(self._services.policy.backoff(tries[secret], chance))
        return max(pauses)

    async def _drop(self, secret: str) -> None:
        if self._known().account is None:
            return  # an orphan's secret may be good for another account than this one
        logger.warning("job %s: AF10 refused an id that came by callback", self.key)
        await self._apply(SecretRefused(self._services.runtime.now(), secret))

    def _patience(self, error: AF10Error, troubles: int) -> float:
        chance = self._services.runtime.chance()
        if not error.retryable and not isinstance(error, BadResponseError):
            raise _labelled(error, self.key, "redeem")
        asked = (error.retry_after if isinstance(error, APIError) else None) or 0.0
        if asked > MAX_RETRY_AFTER:
            raise _labelled(error, self.key, "redeem")
        pause = max(self._services.policy.backoff(troubles, chance), asked)
        logger.info("job %s not redeemed, again in %.1f s: %s", self.key, pause, error)
        return pause

    async def _pause(self, seconds: float) -> None:
        """Wait a while, or until something happens to the record."""
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._next()
        except TimeoutError:
            return

    async def _fresh_url(self) -> str | None:
        """The address of the file, asked for again; None when that is not possible."""
        record = await self._services.store.get(self.key)
        if record is None or not record.secrets:
            return None
        secret = record.secrets[0]
        outcome = await self._ask(secret)
        if not isinstance(outcome, wire.Payload):
            return None
        now = self._services.runtime.now()
        await self._services.store.apply(self.key, PayloadReceived(now, outcome.json, secret))
        return wire.payload_url(json.loads(outcome.json))

    # -- the record --------------------------------------------------------------------------------

    def _known(self) -> JobRecord:
        assert self.record is not None  # every path here has registered it or taken it up
        return self.record

    def _not_gone(self, record: JobRecord | None) -> JobRecord:
        if record is None:
            raise JobNotFoundError("the store no longer knows this job", key=self.key)
        return record

    async def _apply(self, event: Event) -> None:
        transition = await self._services.store.apply(self.key, event)
        self._saw(self._not_gone(transition.record if transition else None))

    def _saw(self, record: JobRecord) -> None:
        known = self.record
        if known is not None and record.version <= known.version:
            return
        self.record = record
        if record.start_certain and self._post_scope and not self._post_scope.expired():
            now = asyncio.get_running_loop().time()
            self._post_scope.reschedule(now + EARLY_CALLBACK_GRACE)
        if known is None or known.state is not record.state:
            self._tell(record)

    def _tell(self, record: JobRecord) -> None:
        event = JobEvent(self.key, record.state, self._services.runtime.now(), record.failure)
        self.history.append(event)
        for listener in list(self.listeners):
            listener(event)

    def _claim(self) -> None:
        self._is_claimed = True
        if self._services.server is not None and not self._is_listening:
            self._is_listening = True
            self._services.server.claim(self.key, self._heard)

    def _leave_alone(self) -> None:
        if not self._waiters:
            self._is_claimed = False

    def _heard(self, record: JobRecord) -> bool:
        """The callback server shows the record after a callback; whether somebody claims it."""
        self._saw(record)
        return self._is_claimed

    # -- errors ------------------------------------------------------------------------------------

    def _raise_failure(self) -> None:
        record = self._known()
        if record.state is JobState.FAILED:
            if self._failure is not None:
                raise self._failure.fresh()
            raise JobError(record.failure or "AF10 refused the job", key=self.key, step="start")
        if record.state is JobState.EXPIRED:
            raise JobExpiredError(
                "the job's life ended before AF10 called back; start a new one",
                key=self.key,
                step="callback",
            )

    def _is_certain(self) -> bool:
        return self.record is not None and self.record.start_certain

    def _start_timeout(self, seconds: float) -> StartTimeoutError:
        sent = self._departure.sent if self.record is not None else False
        if sent is False:
            text = "nothing was sent, so it can simply be tried again"
        else:
            text = (
                "it may have started: await the job, or client.job(key), to wait for its callback"
            )
        return StartTimeoutError(
            f"AF10 did not accept {self.title} within {seconds:g} s; {text}",
            key=self.key,
            step="start",
            sent=sent,
            retryable=sent is False,
        )

    def _callback_timeout(self, seconds: float) -> CallbackTimeoutError:
        record = self._known()
        if record.secrets:
            what = f"the payload could not be redeemed within {seconds:g} s"
        else:
            what = f"AF10 did not call back within {seconds:g} s"
        if record.refused:
            what += f" (it refused {len(record.refused)} id(s) that came by callback)"
        if self._trouble is not None:
            what += f"; the last trouble was: {self._trouble.message}"
        start = (
            "the job was accepted"
            if record.start_certain
            else "whether the job was started is uncertain"
        )
        return CallbackTimeoutError(
            f"{what}; {start}, and client.job(key) goes on waiting for it",
            start_certain=record.start_certain,
            key=self.key,
            step="redeem" if record.secrets else "callback",
            sent=True if record.start_certain else self._departure.sent,
        )

    def _interrupted(self) -> JobInterruptedError:
        return JobInterruptedError(
            "the client or its callback server was closed while the job was waited for; the job"
            " lives on, and client.job(key) takes it up again where its store is still there",
            key=self.key,
            step="callback" if self._is_certain() else "start",
            sent=True if self._is_certain() else self._departure.sent,
        )
