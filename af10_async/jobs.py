"""Job: the awaitable handle of one long-running AF10 request."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

from .errors import JobError
from .events import JobEvent
from .job_work import JobWork
from .protocol.lifecycle import JobState

__all__ = ["Job", "JobEvent", "JobState"]

T_co = TypeVar("T_co", covariant=True)


class Job(Coroutine[Any, Any, T_co], Generic[T_co]):
    """One long-running AF10 request, and what comes of it.

    Nothing is sent until it is awaited or started. `await job` gives the result; any number of
    tasks may await it, any number of times, and it goes wherever a coroutine goes
    (`asyncio.create_task`, `TaskGroup.create_task`, `asyncio.gather`, `asyncio.wait_for`).
    Cancelling one that waits never cancels the job: AF10 goes on, and `await job` or
    `await client.job(job.key)` takes up the wait again.

    Raises, when awaited:
        StartTimeoutError: nothing could be sent within `start_timeout`.
        CallbackTimeoutError: AF10 did not call back and hand over the payload within
            `callback_timeout`; `start_certain` says whether it is known to have accepted the job.
        JobInterruptedError: the client or its callback server closed while this waited.
        APIError, NetworkError, BadResponseError: AF10 refused, or could not be reached.
        UnexpectedPayloadError: a file was expected and something else came.
        JobNotFoundError, JobExpiredError: for a job taken up by its key or ticket.
        StoreError: the store cannot be used. One that cannot be reached for a while is waited for.
    """

    __slots__ = (
        "__weakref__",
        "_callback_timeout",
        "_driver",
        "_driving",
        "_is_used",
        "_more_drivers",
        "_read",
        "_start_timeout",
        "_work",
    )

    def __init__(
        self,
        work: JobWork,
        *,
        start_timeout: float,
        callback_timeout: float,
        read: Callable[[Any], T_co] | None = None,
    ) -> None:
        self._work = work
        self._read = read
        work.take()
        self._start_timeout = start_timeout
        self._callback_timeout = callback_timeout
        self._is_used = False
        self._driving: asyncio.Task[Any] | None = None
        self._driver: Coroutine[Any, Any, None] | None = None
        # Mostly one task drives a job, and there may be very many jobs.
        self._more_drivers: dict[asyncio.Task[Any], Coroutine[Any, Any, None]] | None = None

    @property
    def key(self) -> str:
        """The job's name, with which `client.job(key)` picks it up again."""
        return self._work.key

    @property
    def state(self) -> JobState:
        """How far it has come, as far as this process knows."""
        record = self._work.live.record
        return JobState.NEW if record is None else record.state

    @property
    def ticket(self) -> str:
        """A short plain text with which `client.job(ticket)` restores the job anywhere.

        Unlike the key it does not need a store that knows the job: what AF10 sends to the job's
        webhook is recognised wherever the same callback secret is in use. It holds no credentials,
        and only the job's own account can use it.

        Raises:
            JobError: only the job's key is known here: await it first.

        """
        ticket = self._work.ticket
        if ticket is None:
            raise JobError("only the key of this job is known here: await it first", key=self.key)
        return ticket

    async def start(self) -> Self:
        """Send the request, once; return when AF10 has accepted it.

        Raises:
            StartTimeoutError: not accepted within `start_timeout`. When `sent` is not False, AF10
                may have started it all the same: `await job` goes on waiting for its callback.
            APIError, NetworkError, BadResponseError: AF10 refused, or could not be reached.

        """
        self._is_used = True
        await self._work.start(self._start_timeout)
        return self

    async def events(self) -> AsyncGenerator[JobEvent, None]:
        """Each step of the job's life, from its first to its last, as it happens.

        Listening is a way of waiting: it starts the job, and drives it on, as `await job` would,
        and raises the same errors for a wait that ends before the job does.
        """
        self._is_used = True
        queue: asyncio.Queue[JobEvent | None] = asyncio.Queue()
        live = self._work.live
        for event in live.history:
            queue.put_nowait(event)
        live.listen(queue.put_nowait)
        waiter = asyncio.create_task(self._wait(), name="af10_async events")
        waiter.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (event_or_end := await queue.get()) is not None:
                yield event_or_end
            await waiter
        finally:
            live.unlisten(queue.put_nowait)
            waiter.cancel()
            await asyncio.wait([waiter])
            if not waiter.cancelled():
                waiter.exception()  # who left early does not want to hear of it

    def __await__(self) -> Generator[Any, Any, T_co]:
        self._is_used = True
        yield from self._wait().__await__()
        return self._result()

    def __repr__(self) -> str:
        return f"<Job {self.key} {self.state}>"

    def __del__(self) -> None:
        if not hasattr(self, "_more_drivers"):
            return
        if not self._is_used and self._work.is_untouched:
            warnings.warn(
                f"job {self.key} ({self._work.title}) was never awaited",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )
        self._work.let_go()

    def _result(self) -> T_co:
        result = self._work.result()
        found: T_co = self._read(result) if self._read is not None else result
        return found

    def _wait(self) -> Coroutine[Any, Any, None]:
        return self._work.wait(self._start_timeout, self._callback_timeout)

    # -- as a coroutine ----------------------------------------------------------------------------
    #
    # asyncio makes tasks of coroutines only, so a job is one. Each task that drives it has a wait
    # of its own.

    def send(self, value: Any, /) -> Any:
        """Drive the wait of the current task."""
        return self._drive(lambda driver: driver.send(value))

    @overload
    def throw(
        self,
        typ: type[BaseException],
        val: BaseException | object = None,
        tb: TracebackType | None = None,
        /,
    ) -> Any: ...
    @overload
    def throw(
        self, typ: BaseException, val: None = None, tb: TracebackType | None = None, /
    ) -> Any: ...
    def throw(self, typ: Any, val: Any = None, tb: Any = None, /) -> Any:
        """Raise an error in the wait of the current task."""
        error = typ if isinstance(typ, BaseException) else val if val is not None else typ()
        return self._drive(lambda driver: driver.throw(error))

    def close(self) -> None:
        """End the wait of the current task; those of others, and the job itself, live on."""
        self._is_used = True
        try:
            task = asyncio.current_task()
        except RuntimeError:
            return  # outside a loop nobody waits
        driver = self._pop_driver(task)
        if driver is not None:
            driver.close()

    def _drive(self, step: Callable[[Coroutine[Any, Any, None]], Any]) -> Any:
        self._is_used = True
        task = asyncio.current_task()
        driver = self._driver_of(task)
        try:
            return step(driver)
        except StopIteration:
            self._pop_driver(task)
            raise StopIteration(self._result()) from None
        except BaseException:
            self._pop_driver(task)
            raise

    def _driver_of(self, task: asyncio.Task[Any] | None) -> Coroutine[Any, Any, None]:
        if task is None:
            raise RuntimeError("a job is driven by tasks only: await it")
        if self._driver is not None and self._driving is task:
            return self._driver
        if self._driver is None and not (self._more_drivers and task in self._more_drivers):
            self._driving, self._driver = task, self._wait()
            return self._driver
        if self._more_drivers is None:
            self._more_drivers = {}
        if task not in self._more_drivers:
            self._more_drivers[task] = self._wait()
        return self._more_drivers[task]

    def _pop_driver(self, task: asyncio.Task[Any] | None) -> Coroutine[Any, Any, None] | None:
        if self._driver is not None and self._driving is task:
            driver, self._driver, self._driving = self._driver, None, None
            return driver
        return self._more_drivers.pop(task, None) if self._more_drivers and task else None
