"""The record of one job as this process sees it: read, changed, waited for, claimed, leased."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from .errors import AF10Error, StoreError
from .events import JobEnded, JobEvent
from .job_services import Services
from .protocol.lifecycle import (
    DONE_LIFETIME,
    Adopted,
    CalledBack,
    Effect,
    Event,
    JobRecord,
    LifeEnded,
    Transition,
    advance,
)

logger = logging.getLogger("af10_async.jobs")

T = TypeVar("T")


Listener = Callable[[JobEvent], None]


class LiveRecord:
    """The record of one job, kept up to date, and what this process has to do with it.

    A store that cannot be reached is asked again, with growing pauses, for as long as whoever asks
    has time.
    """

    __slots__ = (
        "_history",
        "_is_claimed",
        "_is_leased",
        "_is_listening",
        "_listeners",
        "_services",
        "key",
        "on_start_proven",
        "record",
        "trouble",
    )

    def __init__(self, services: Services, key: str) -> None:
        self.key = key
        self.record: JobRecord | None = None
        self.trouble: AF10Error | None = None
        """What went wrong last, while it was tried again."""
        self.on_start_proven: Callable[[], None] | None = None
        """Called when AF10 is known to have accepted the job, whoever finds out."""
        self._services = services
        # Tuples, because there are very many jobs and few changes and listeners of each.
        self._history: tuple[JobEvent, ...] = ()
        self._listeners: tuple[Listener, ...] = ()
        self._is_claimed = False
        self._is_leased = False
        self._is_listening = False

    # -- knowing -----------------------------------------------------------------------------------

    @property
    def known(self) -> JobRecord:
        """The record, of which it is certain that there is one."""
        assert self.record is not None  # every path here has registered it or taken it up
        return self.record

    @property
    def is_certain(self) -> bool:
        """Whether AF10 is known to have accepted the job."""
        return self.record is not None and self.record.start_certain

    def saw(self, record: JobRecord) -> None:
        """Take note of a record, unless a newer one is known."""
        known = self.record
        if known is not None and record.version <= known.version:
            return
        self.record = record
        if record.start_certain and self.on_start_proven is not None:
            self.on_start_proven()
        if known is None or known.state is not record.state:
            self._tell(record)

    def forget(self) -> None:
        """The record was taken back: nothing has happened."""
        self.record = None
        self._history = ()
        self.release()

    # -- the store ---------------------------------------------------------------------------------

    async def add(self, record: JobRecord) -> None:
        """Keep a new record, leased to this process; raises `KeyError`, and StoreError at once."""
        await self._services.store.add(record)
        self._is_leased = True
        self.saw(record)

    async def read(self) -> JobRecord | None:
        """What the store has; taken note of."""
        record = await self._persistently(lambda: self._services.store.get(self.key))
        if record is not None:
            await self._note(record)
        return record

    async def apply(self, event: Event) -> None:
        """Let an event happen to the record."""
        apply = functools.partial(self._services.store.apply, self.key, event)
        was_done = self.known.is_done
        while (transition := await self._persistently(apply)) is None:
            if self._is_over:
                # The store has forgotten it in due time: what comes of it now is for this process.
                self.saw(advance(self.known, event).record)
                return
            await self._restore()
        self._tell_end(was_done, transition)
        await self._note(transition.record)

    async def apply_once(self, event: Event) -> None:
        """As `apply`, where a store that cannot be reached is no reason to wait or to fail."""
        was_done = self.known.is_done
        try:
            transition = await self._services.store.apply(self.key, event)
        except AF10Error as error:
            logger.warning("job %s: the store was not told: %s", self.key, error.message)
            return
        if transition is not None:
            self._tell_end(was_done, transition)
            self.saw(transition.record)
        elif self._is_over:
            self.saw(advance(self.known, event).record)

    async def next(self) -> None:
        """Wait until the record changes."""
        # Not through `_persistently`: each frame counts where very many wait.
        version, tries = self.known.version, 0
        while self.known.version == version:  # it may be heard of from elsewhere meanwhile
            try:
                record = await self._services.store.changed(self.key, version)
            except StoreError as error:
                tries += 1
                await self._bear(error, tries)
                continue
            if record is None:
                await self._restore()
            else:
                await self._note(record)
            return

    async def add_or_adopt(self, record: JobRecord) -> None:
        """Put a record (back) into the store; an orphan that is there under its key becomes it."""
        account = record.account or self._services.account
        while True:
            try:
                await self._persistently(lambda: self._services.store.add(record))
            except KeyError:
                pass
            else:
                self._is_leased = True
                self.saw(record)
                return
            event = Adopted(
                self._services.runtime.now(),
                account,
                record.method,
                record.path,
                record.expects_file,
            )
            apply = functools.partial(self._services.store.apply, self.key, event)
            adopted = await self._persistently(apply)
            if adopted is not None:
                self._became(adopted.record)
                await self._add_secrets(record)
                await self.lease()
                return

    async def _restore(self) -> None:
        """The store has lost the job (it restarted without its newest writes): give it back."""
        record, now = self.known, self._services.runtime.now()
        if self._is_over and not record.secrets:
            self.saw(advance(record, LifeEnded(now)).record)
            return
        if self._is_over:
            # There is a secret in hand: it gets the time to be redeemed.
            record = replace(record, expires_at=now + DONE_LIFETIME, version=record.version + 1)
        logger.warning("the store had lost job %s: it is put back", self.key)
        await self.add_or_adopt(record)

    @property
    def _is_over(self) -> bool:
        """Whether the record's own time is over."""
        return self.known.expires_at <= self._services.runtime.now()

    async def _note(self, record: JobRecord) -> None:
        """Take note of what the store says, also when it says less than it did before."""
        known = self.record
        if known is None:
            self.saw(record)
        elif self._is_orphan_of(record):
            await self._restore()
        elif record.version <= known.version and record != known:
            await self._look_back()
        else:
            self.saw(record)

    def _is_orphan_of(self, record: JobRecord) -> bool:
        """Whether a callback has come for the job after the store had lost it."""
        known = self.record
        return known is not None and known.account is not None and record.account is None

    async def _look_back(self) -> None:
        """What was said is older than what is known: it came late, or the store went back."""
        known = self.known
        record = await self._persistently(lambda: self._services.store.get(self.key))
        if record is None or self._is_orphan_of(record):
            await self._restore()
            return
        if record.version > known.version or record == known:
            self.saw(record)
            return
        logger.warning("the store had lost the newest of job %s: it is put back", self.key)
        self._became(record)
        await self._add_secrets(known)

    async def _add_secrets(self, before: JobRecord) -> None:
        """What was acknowledged to AF10 and the store no longer has."""
        for secret in before.secrets:
            if secret not in self.known.secrets:
                await self.apply(CalledBack(self._services.runtime.now(), secret))

    def _became(self, record: JobRecord) -> None:
        """Take note of a record whose versions count anew."""
        known, self.record = self.record, None
        self.saw(record)
        if known is not None and known.state is record.state:
            self._history = self._history[:-1]

    async def _persistently(self, ask: Callable[[], Awaitable[T]]) -> T:
        tries = 0
        while True:
            try:
                return await ask()
            except StoreError as error:
                tries += 1
                await self._bear(error, tries)

    async def _bear(self, error: StoreError, tries: int) -> None:
        """Wait before the store is asked again; or raise, when that has no point."""
        error.key = self.key
        if not error.retryable:
            raise error
        self.trouble = error
        pause = self._services.policy.backoff(tries, self._services.runtime.chance())
        # Very many may wait for the same store, whose own log says what is wrong with it.
        level = logging.INFO if tries == 1 else logging.DEBUG
        logger.log(level, "job %s: store asked again in %.1f s: %s", self.key, pause, error.message)
        await self._services.runtime.sleep(pause)

    # -- telling -----------------------------------------------------------------------------------

    @property
    def history(self) -> tuple[JobEvent, ...]:
        """Each step so far."""
        return self._history

    def listen(self, listener: Listener) -> None:
        """Call `listener` with each step from now on."""
        self._listeners += (listener,)

    def unlisten(self, listener: Listener) -> None:
        """Undo `listen`."""
        self._listeners = tuple(each for each in self._listeners if each != listener)

    def _tell(self, record: JobRecord) -> None:
        events = self._services.requester.events
        event = JobEvent(
            self.key,
            record.state,
            self._services.runtime.now(),
            record.failure,
            events.account,
            record.method,
            record.path,
            record.trace,
        )
        self._history += (event,)
        for listener in self._listeners:
            listener(event)
        events.tell(event)

    def _tell_end(self, was_done: bool, transition: Transition) -> None:
        """Tell that the job has ended, where that was recorded."""
        events, record = self._services.requester.events, transition.record
        is_news = transition.effect is Effect.CHANGED and record.is_done and not was_done
        if is_news and events.are_wanted:
            now = self._services.runtime.now()
            ended = JobEnded(
                account=events.account,
                key=self.key,
                method=record.method,
                path=record.path,
                state=record.state,
                at=now,
                seconds=max(0.0, now - record.created_at),
                trace=record.trace,
            )
            events.tell(ended)

    # -- claiming ----------------------------------------------------------------------------------

    def claim(self) -> None:
        """Somebody here waits for the callback."""
        self._is_claimed = True
        if self._services.receiver is not None and not self._is_listening:
            self._is_listening = True
            self._services.receiver.claim(self.key, self._heard)

    def leave_alone(self) -> None:
        """Nobody here waits for the callback any more; changes are seen all the same."""
        self._is_claimed = False
        if self.record is None or not self.record.is_done:
            self.release()

    def let_go(self) -> None:
        """Nobody here is interested in the job any more."""
        self._is_claimed = False
        if self._is_listening and self._services.receiver is not None:
            self._is_listening = False
            self._services.receiver.unclaim(self.key, self._heard)

    async def lease(self) -> None:
        """Keep the job from being given to others as unfinished, if nobody else has it."""
        if self._is_leased:
            return
        try:
            self._is_leased = await self._services.store.lease(self.key)
        except StoreError as error:
            # It only keeps others from doing the same once more.
            logger.debug("job %s not leased: %s", self.key, error.message)

    def was_leased(self, record: JobRecord) -> None:
        """Whoever made this has read the record, and has the lease."""
        self._is_leased = True
        self.saw(record)

    def release(self) -> None:
        """End the lease, if there is one."""
        was_leased, self._is_leased = self._is_leased, False
        # Nobody can lease a finished job anyway.
        if was_leased and (self.record is None or self.record.is_unfinished):
            self._services.store.release(self.key)

    def _heard(self, record: JobRecord) -> bool:
        """The callback server shows the record after a callback; whether somebody claims it."""
        if not self._is_orphan_of(record):  # whoever waits will find it, and adopt it
            self.saw(record)
        return self._is_claimed
