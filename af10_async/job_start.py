"""The start of one job: registered first, then sent, once; and what to make of the answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import assert_never

from .errors import AF10Error, APIError, ClosedError, PublicURLError, StoreError
from .events import StartBegan, StartEnded, trace_of_job
from .job_record import LiveRecord
from .job_services import Order, Receiver, Services, labelled
from .protocol import wire
from .protocol.lifecycle import JOB_LIFETIME, Accepted, JobRecord, PayloadReceived, Refused
from .single_flight import SingleFlight
from .transport import Departure

logger = logging.getLogger("af10_async.jobs")

EARLY_CALLBACK_GRACE = 1.0
"""Seconds that the answer to the POST may still take when the callback has overtaken it."""


@dataclass(frozen=True, slots=True)
class _NotStarted:
    """AF10 did not start the job, for certain."""

    error: AF10Error
    is_refusal: bool
    may_repeat: bool


class JobStart:
    """Sends the request of one job, once for however many ask for it."""

    __slots__ = (
        "_departure",
        "_flight",
        "_live",
        "_post_scope",
        "_services",
        "_trace",
        "doubt",
        "failure",
        "is_over",
        "order",
    )

    def __init__(self, services: Services, live: LiveRecord, order: Order) -> None:
        self.order = order
        self.is_over = False
        """Whether the request has left, for certain or perhaps."""
        self.doubt: AF10Error | None = None
        """Why it is not known whether AF10 has it."""
        self.failure: AF10Error | None = None
        """How AF10 refused it."""
        self._services = services
        self._live = live
        self._departure = Departure()
        self._trace: str | None = None
        self._post_scope: asyncio.Timeout | None = None
        self._flight: SingleFlight[None] | None = None

    @property
    def sent(self) -> bool | None:
        """Whether the request left: yes, no, or (None) nobody can tell."""
        return self._departure.sent

    @property
    def may_run(self) -> bool:
        """Whether AF10 may have it."""
        return self._live.record is not None and (self.sent is not False or self._live.is_certain)

    async def join(self) -> None:
        """See to it that the request has been sent, for certain or perhaps."""
        if self._flight is None:
            self._flight = SingleFlight(self._start, "af10_async start")
        await self._flight.join()
        if self.is_over:
            self._flight = None

    async def _start(self) -> None:
        if self.is_over:
            return  # an earlier run, whose end this one waited for, may have sent it
        with self._told():
            await self._send()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Tell of the start and of its end; between them, its trace is the current one."""
        events, runtime = self._services.requester.events, self._services.runtime
        if not events.are_wanted:
            yield
            return
        began = StartBegan(
            id=events.new_id(),
            account=events.account,
            key=self._live.key,
            method=self.order.method,
            path=self.order.path,
            at=runtime.now(),
        )
        events.tell(began)
        self._trace = events.trace_of(began)
        trace_of_job.set(self._trace)  # this task is the start's own
        started, failure = runtime.monotonic(), None
        try:
            yield
        except AF10Error as error:
            failure = error
            raise
        finally:
            ended = StartEnded(
                id=began.id,
                account=began.account,
                key=began.key,
                method=began.method,
                path=began.path,
                at=runtime.now(),
                seconds=runtime.monotonic() - started,
                sent=self.sent,
                error=failure or self.doubt,
            )
            events.tell(ended)

    async def _send(self) -> None:
        attempt = 0
        self._live.on_start_proven = self._hurry
        try:
            while True:
                await self._services.requester.session()
                receiver = await self._reachable_receiver()
                await self._register()
                attempt += 1
                outcome = await self._post(receiver, attempt)
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
        finally:
            self._live.on_start_proven = None
        await self._settle(outcome)

    def _receiver(self) -> Receiver:
        """Start nothing whose callback would find nobody."""
        receiver = self._services.receiver
        if receiver is None or not receiver.is_running:
            raise ClosedError("the callback server is closed, or closing", sent=False)
        return receiver

    async def _reachable_receiver(self) -> Receiver:
        """Start nothing while AF10 could call nobody: a tunnel that is down comes back."""
        policy, runtime, tries = self._services.policy, self._services.runtime, 0
        while True:
            receiver = self._receiver()
            try:
                _ = receiver.public_url
            except PublicURLError as error:
                tries += 1
                if not error.retryable or policy.attempts == 1:
                    raise
                self._live.trouble = error
                pause = policy.backoff(tries, runtime.chance())
                level = logging.INFO if tries == 1 else logging.DEBUG
                logger.log(level, "job %s not started yet: %s", self._live.key, error.message)
            else:
                if tries:
                    self._live.trouble = None
                return receiver
            await runtime.sleep(pause)

    async def _register(self) -> None:
        if self._live.record is not None:
            return
        now = self._services.runtime.now()
        record = JobRecord(
            key=self._live.key,
            account=self._services.account,
            method=self.order.method,
            path=self.order.path,
            expects_file=self.order.expects_file,
            created_at=now,
            expires_at=now + JOB_LIFETIME,
            trace=self._trace,
        )
        try:
            await self._add(record)
        except BaseException:
            await self._take_back(record.version)  # it may have been kept all the same
            raise

    async def _add(self, record: JobRecord) -> None:
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._live.add(record)
            except KeyError:
                self._live.saw(record)  # the answer to an earlier attempt was lost
                return await self._live.lease()
            except StoreError as error:
                error.sent = False
                pause = self._services.policy.pause(attempt, self._services.runtime.chance())
                if not error.retryable or pause is None:
                    raise
                logger.info("job %s not registered, again in %.1f s: %s", record.key, pause, error)
            await self._services.runtime.sleep(pause)

    async def _take_back(self, version: int) -> bool:
        """Remove the record of a request that was not sent; whether it is certainly gone."""
        try:
            return await self._services.store.remove(self._live.key, version)
        except StoreError as error:
            logger.warning("job %s, never sent, may stay in the store: %s", self._live.key, error)
            return False

    async def _post(
        self, receiver: Receiver, attempt: int
    ) -> wire.Started | wire.Finished | wire.Unclear | _NotStarted:
        try:
            reply = await self._answer(receiver, attempt)
            outcome = wire.read_start(reply, self._services.requester.secrets())
        except (AF10Error, TimeoutError) as error:
            if self._live.is_certain:
                return wire.Started()  # the callback was here first
            return self._unanswered(error)
        if self._live.is_certain and not isinstance(outcome, wire.Finished):
            return wire.Started()  # whatever this answer says: the callback has proven it
        if isinstance(outcome, wire.NotNow):
            return _NotStarted(outcome.reason, is_refusal=True, may_repeat=True)
        return outcome

    async def _answer(self, receiver: Receiver, attempt: int) -> wire.Reply:
        order, webhook_url = self.order, receiver.webhook_url(self._live.key)
        call = wire.webhook_call(order.method, order.path, webhook_url, order.body, order.params)
        call = replace(call, attempt=attempt)
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

    def _hurry(self) -> None:
        if self._post_scope is not None and not self._post_scope.expired():
            now = asyncio.get_running_loop().time()
            self._post_scope.reschedule(now + EARLY_CALLBACK_GRACE)

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
            logger.info("job %s not started, again in %.1f s: %s", self._live.key, pause, error)
            return pause
        if outcome.is_refusal:
            self.is_over = True  # there is nothing left to start
            self.failure = labelled(error, self._live.key, "start")
            await self._live.apply(Refused(self._services.runtime.now(), error.message))
        raise error

    async def _is_proven_within(self, seconds: float) -> bool:
        """Sleep, and look whether a callback has proven the start meanwhile, here or elsewhere."""
        with contextlib.suppress(TimeoutError):
            async with self._ended_by_callback():
                await self._services.runtime.sleep(seconds)
        await self._live.read()
        return self._live.is_certain

    async def _abandon(self, error: BaseException) -> None:
        """Leave the start: what cannot have been sent is forgotten, what can have been is kept."""
        if isinstance(error, AF10Error):
            labelled(error, self._live.key, "start")
        if self._live.record is None or self._live.record.is_done:
            return
        is_unsent = self.sent is False and not self._live.is_certain
        if is_unsent and await self._forget():
            return
        self.is_over = True
        if self._live.is_certain:
            return  # a callback came in between: it is kept, and there is nothing left to send
        self.doubt = error if isinstance(error, AF10Error) else None
        logger.warning("job %s: the start was abandoned; AF10 may have started it", self._live.key)

    async def _forget(self) -> bool:
        """Take the record back, unless a callback has come for it."""
        if not await self._take_back(self._live.known.version):
            try:
                record = await self._services.store.get(self._live.key)
            except StoreError:
                record = None  # it was not sent, wherever its record is
            if record is not None:
                self._live.saw(record)
                return False
        self._live.forget()
        return True

    async def _settle(self, outcome: wire.Started | wire.Finished | wire.Unclear) -> None:
        self.is_over = True
        now = self._services.runtime.now()
        match outcome:
            case wire.Started():
                await self._live.apply(Accepted(now))
            case wire.Finished(payload=payload):
                is_file = self.order.expects_file and wire.file_url(payload) is not None
                await self._live.apply(PayloadReceived(now, payload, is_file=is_file))
            case wire.Unclear(reason=reason):
                self.doubt = reason
                logger.warning("job %s may have started: %s", self._live.key, reason)
            case _:
                assert_never(outcome)
