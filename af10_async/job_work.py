"""What all handles of one job share: starting it once, waiting for it, what comes of it.

Nothing here runs by itself. Those who wait drive the job on: each of them watches its record, and
the two things that must happen once for all of them (the start, and redeeming) are single flights.
"""

from __future__ import annotations

import asyncio
import json
import logging
import weakref
from typing import Any, Protocol

from .errors import (
    AF10Error,
    CallbackTimeoutError,
    ClosedError,
    JobError,
    JobExpiredError,
    JobInterruptedError,
    JobNotFoundError,
    StartTimeoutError,
    StoreError,
    UnexpectedPayloadError,
)
from .job_record import LiveRecord
from .job_redeem import Redeemer
from .job_services import Order, Services
from .job_start import JobStart
from .protocol import wire
from .protocol.keys import is_genuine
from .protocol.lifecycle import (
    JOB_LIFETIME,
    Collected,
    FileComplete,
    FileOnDisk,
    JobRecord,
    JobState,
    LifeEnded,
)
from .protocol.tickets import Ticket, ticket_of
from .single_flight import SingleFlight
from .waits import Interrupted, OutOfTime

logger = logging.getLogger("af10_async.jobs")

_LATE = 0.05
_LONGEST_GRACE = 5.0


class FileMaker(Protocol):
    """Makes the result of a job whose payload is the address of a file."""

    def __call__(self, url: str, work: JobWork) -> object:
        """The file at `url`; `work` knows how to ask for a fresh address."""


class JobWork:
    """One job, as this process sees it. It is also what its file belongs to."""

    __slots__ = (
        "__weakref__",
        "_file",
        "_handles",
        "_live",
        "_make_file",
        "_redeeming",
        "_services",
        "_start",
        "_ticket",
        "_waiters",
    )

    def __init__(
        self,
        services: Services,
        key: str,
        make_file: FileMaker,
        *,
        order: Order | None = None,
        ticket: Ticket | None = None,
        leased: JobRecord | None = None,
    ) -> None:
        self._services = services
        self._live = LiveRecord(services, key)
        self._start = JobStart(services, self._live, order) if order else None
        self._ticket = ticket
        self._make_file = make_file
        self._file: weakref.ref[object] | None = None
        self._handles = 0
        self._waiters = 0
        self._redeeming: SingleFlight[None] | None = None
        if leased is not None:
            self._live.was_leased(leased)

    def __del__(self) -> None:
        if hasattr(self, "_live"):
            self._live.release()

    # -- for the handles ---------------------------------------------------------------------------

    @property
    def key(self) -> str:
        """The job's name."""
        return self._live.key

    @property
    def live(self) -> LiveRecord:
        """Its record."""
        return self._live

    @property
    def title(self) -> str:
        """The request, in words."""
        start = self._start
        return f"{start.order.method} {start.order.path}" if start else "taken up by its key"

    @property
    def is_untouched(self) -> bool:
        """Whether there is a request that nobody has asked to send."""
        return self._start is not None and not self._start.is_over and self._live.record is None

    @property
    def ticket(self) -> str | None:
        """What restores the job where the store does not know it; None when too little is known."""
        ticket = self._make_ticket()
        return str(ticket) if ticket is not None else None

    async def lease(self) -> None:
        """Keep others from doing the same, if that is possible."""
        if self._live.known.is_unfinished:
            await self._live.lease()

    def release(self) -> None:
        """Leave it to others."""
        if not self._waiters:
            self._live.release()

    async def start(self, timeout: float) -> None:
        """Send the request, once, and wait until AF10 is known to have accepted it."""
        self._check_open()
        self._live.claim()
        try:
            await self._accepted_within(timeout)
        except BaseException as error:
            self._leave_alone()
            self._give_ticket(error)
            raise
        self._raise_failure()

    async def wait(self, start_timeout: float, callback_timeout: float) -> None:
        """Wait until the job is done, and drive it on meanwhile."""
        if self._live.record is not None and self._live.record.state is JobState.READY:
            return
        self._check_open()
        self._waiters += 1
        self._live.claim()
        try:
            await self._begin(start_timeout)
            await self._live.lease()
            clock = asyncio.get_running_loop().time
            until = clock() + callback_timeout
            is_done = await self._done_within(callback_timeout)
            # When the event loop itself was late, the callback may stand at the door.
            late = clock() - until
            if not is_done and late > _LATE:
                is_done = await self._done_within(min(late, _LONGEST_GRACE))
            if not is_done:
                raise self._callback_timeout(callback_timeout) from self._last_trouble()
        except Interrupted:
            raise self._interrupted() from None
        except AF10Error as error:
            self._give_ticket(error)
            raise
        finally:
            self._waiters -= 1
            self._leave_alone()

    def result(self) -> Any:
        """What came of the job that is done."""
        self._raise_failure()
        record = self._live.known
        payload = json.loads(record.payload or "null")
        url = wire.payload_url(payload)
        if url is not None and (record.expects_file or record.account is None):
            # Weakly, because the file belongs to this: when nobody has it any more, the lease ends.
            file = self._file() if self._file is not None else None
            if file is None:
                file = self._make_file(url, self)
                self._file = weakref.ref(file)
            return file
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

    def take(self) -> None:
        """Count one more handle."""
        self._handles += 1

    def let_go(self) -> None:
        """A handle is gone: after the last, nobody claims the callback or listens any more."""
        self._handles -= 1
        if not self._handles and not self._waiters:
            self._live.let_go()

    # -- for its file ------------------------------------------------------------------------------

    async def fresh_url(self) -> str | None:
        """The address of the file, asked for again; None when that is not possible."""
        return await Redeemer(self._services, self._live).fresh_url()

    @property
    def trace(self) -> str | None:
        """Where its trace goes on, if it has one."""
        record = self._live.record
        return record.trace if record is not None else None

    @property
    def saved_file(self) -> FileOnDisk | None:
        """The file as somebody saved it, or nearly so, and perhaps did not live to say so."""
        record = self._live.record
        return record.file if record is not None else None

    async def file_complete(self, file: FileOnDisk) -> None:
        """The file is whole and flushed to disk, and gets its name now."""
        record = self._live.record
        if record is not None and record.uncollected:
            await self._live.apply_once(FileComplete(self._services.runtime.now(), file))

    async def collected(self) -> None:
        """The file is safe with whoever asked for it."""
        record = self._live.record
        if record is not None and record.uncollected:
            await self._live.apply_once(Collected(self._services.runtime.now()))

    # -- before the callback -----------------------------------------------------------------------

    async def _accepted_within(self, timeout: float) -> None:
        clock = asyncio.get_running_loop().time
        until = clock() + timeout
        try:
            await self._begin(timeout)
            async with self._services.waits.limit(until - clock()):
                while not self._live.known.start_certain and not self._live.known.is_done:
                    await self._live.next()
        except OutOfTime:
            raise self._start_timeout(timeout) from self._last_trouble()
        except Interrupted:
            raise self._interrupted() from None

    async def _begin(self, timeout: float) -> None:
        """See to it that the request has been sent, for certain or perhaps."""
        start = self._start
        if start is not None and start.is_over:
            return
        try:
            async with self._services.waits.limit(timeout):
                await (start.join() if start is not None else self._take_up())
        except OutOfTime:
            # What may have been sent is waited for: the callback can still prove that it runs.
            if start is None:
                raise self._not_found_in_time(timeout) from self._last_trouble()
            if not start.may_run:
                raise self._start_timeout(timeout) from self._last_trouble()

    async def _take_up(self) -> None:
        record = await self._live.read()
        if self._ticket is not None and (record is None or record.account is None):
            await self._restore(self._ticket)
            record = self._live.known
        if record is None or record.account not in (None, self._services.account):
            raise JobNotFoundError(
                "this account has no job under this key; check the key, and whether the store that"
                " held the job is the one in use",
                key=self.key,
            )
        await self._live.lease()

    async def _restore(self, ticket: Ticket) -> None:
        """Put into the store what the ticket says of the job."""
        now = self._services.runtime.now()
        record = JobRecord(
            key=ticket.key,
            account=ticket.account,
            method=ticket.method,
            path=ticket.path,
            expects_file=ticket.expects_file,
            created_at=ticket.created_at,
            expires_at=ticket.created_at + JOB_LIFETIME,
            state=JobState.ACCEPTED if ticket.start_certain else JobState.REGISTERED,
            start_certain=ticket.start_certain,
        )
        self._refuse_hopeless(ticket, record.expires_at - now)
        await self._live.add_or_adopt(record)

    def _refuse_hopeless(self, ticket: Ticket, seconds_left: float) -> None:
        if ticket.account != self._services.account:
            raise JobNotFoundError("this ticket is for a job of another account", key=self.key)
        if seconds_left <= 0:
            raise JobExpiredError(
                "this ticket is too old, and the store no longer knows its job; start a new one",
                key=self.key,
                step="callback",
            )
        receiver = self._services.receiver
        if receiver is None:
            raise JobNotFoundError(
                "the store does not know the job of this ticket, and nothing here receives its"
                " callback: give the store that knows it (AF10_STORE), or the address under which"
                " the callback arrives (AF10_PUBLIC_URL)",
                key=self.key,
            )
        if not is_genuine(ticket.key, receiver.callback_secret):
            raise JobNotFoundError(
                "the store does not know the job of this ticket, and its callback would not be"
                " recognised here: set AF10_CALLBACK_SECRET to what it was when the job was made",
                key=self.key,
            )

    # -- after it ----------------------------------------------------------------------------------

    async def _done_within(self, seconds: float) -> bool:
        live = self._live
        left = live.known.expires_at - self._services.runtime.now()
        try:
            async with self._services.waits.limit(min(seconds, left)):
                while not live.known.is_done:
                    if live.known.secrets:
                        await self._redeem()
                    else:
                        await live.next()
        except OutOfTime:
            if left > seconds:
                return False
            await live.apply_once(LifeEnded(self._services.runtime.now()))
            return live.known.is_done
        return True

    async def _redeem(self) -> None:
        if self._redeeming is None:
            redeemer = Redeemer(self._services, self._live)
            self._redeeming = SingleFlight(redeemer.redeem, "af10_async redeem")
        await self._redeeming.join()

    def _leave_alone(self) -> None:
        if not self._waiters:
            self._live.leave_alone()

    # -- errors ------------------------------------------------------------------------------------

    def _raise_failure(self) -> None:
        record = self._live.known
        if record.state is JobState.FAILED:
            if self._start is not None and self._start.failure is not None:
                raise self._start.failure.fresh()
            raise JobError(record.failure or "AF10 refused the job", key=self.key, step="start")
        if record.state is JobState.EXPIRED:
            raise JobExpiredError(
                "the job's life ended before AF10 called back; start a new one",
                key=self.key,
                step="callback",
            )

    def _last_trouble(self) -> AF10Error | None:
        return self._live.trouble or (self._start.doubt if self._start else None)

    def _sent(self) -> bool | None:
        if self._live.is_certain:
            return True
        if self._start is None:
            return None
        return self._start.sent if self._live.record is not None else False

    def _start_timeout(self, seconds: float) -> StartTimeoutError:
        sent = self._sent()
        if sent is False:
            text = "nothing was sent, so it can simply be tried again"
            if self._live.trouble is not None:
                text += f"; the last trouble was: {self._live.trouble.message}"
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

    def _not_found_in_time(self, seconds: float) -> StoreError:
        return StoreError(
            f"the store did not answer within {seconds:g} s; the job lives on: try again",
            key=self.key,
            step="start",
            retryable=True,
        )

    def _callback_timeout(self, seconds: float) -> CallbackTimeoutError:
        record = self._live.known
        if record.secrets:
            what = f"the payload could not be redeemed within {seconds:g} s"
        else:
            what = f"AF10 did not call back within {seconds:g} s"
        if record.refused:
            what += f" (it refused {len(record.refused)} id(s) that came by callback)"
        if self._live.trouble is not None:
            what += f"; the last trouble was: {self._live.trouble.message}"
        receiver = self._services.receiver
        if not record.secrets and (receiver is None or receiver.is_elsewhere):
            what += " (this process does not receive callbacks itself: is `af10 receive` running?)"
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
            sent=self._sent(),
        )

    def _check_open(self) -> None:
        """Begin nothing where every wait is over before it begins."""
        if self.is_untouched and self._services.waits.is_closed:
            raise ClosedError(
                "the client or its callback server is closed, or closing: the job was not started,"
                " and nothing was sent",
                key=self.key,
                step="start",
                sent=False,
            )

    def _interrupted(self) -> JobInterruptedError:
        error = JobInterruptedError(
            "the client or its callback server was closed while the job was waited for; the job"
            " lives on: client.job(key) takes it up again where its store is still there, and"
            " client.job(ticket) anywhere",
            key=self.key,
            step="callback" if self._live.is_certain else "start",
            sent=self._sent(),
        )
        self._give_ticket(error)
        return error

    def _give_ticket(self, error: BaseException) -> None:
        if isinstance(error, AF10Error) and self._live.record is not None:
            error.ticket = self.ticket

    def _make_ticket(self) -> Ticket | None:
        record = self._live.record
        if record is not None and record.account is not None:
            return ticket_of(record)
        if self._ticket is not None:
            return self._ticket
        if self._start is None:
            return None  # only its key is known
        order = self._start.order
        return Ticket(
            key=self.key,
            account=self._services.account,
            expects_file=order.expects_file,
            start_certain=False,
            created_at=self._services.runtime.now(),
            method=order.method,
            path=order.path,
        )
