"""Receives callbacks, whoever serves the requests.

Nothing but `GET /<prefix>/<key>?id=<secret>` changes anything, and only when the key is genuine.
What a request means is decided in `protocol.callbacks`, what it does to a job in
`protocol.lifecycle`. The order is: keep the secret in the store, wake whoever waits, and only then
answer 200. When the store fails, the answer is 503, so that nothing is acknowledged and lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from .callback_arguments import checked_networks, checked_prefix, checked_secret, made_store
from .callback_backlog import Backlog
from .callback_claims import Claims, Listener, Orphan, OrphanHandler
from .callback_log import Seldom, Troubles, TurnedAway
from .errors import ClosedError
from .events import CallbackReceived, EventHandler, Events
from .protocol import keys, lifecycle
from .protocol.answers import Answer, answer, proof
from .protocol.callbacks import Callback, Probe, callback_prefixes, read_callback
from .protocol.forwarded import came_in_the_clear, sender
from .protocol.lifecycle import CalledBack, Effect, JobRecord, Transition
from .public_url.fixed import FixedURL
from .receiving import Incoming, ProbeArrival
from .remote_receiver import DEFAULT_PREFIX, shared_secret, webhook_url
from .runtime import Runtime
from .stores import Store

if TYPE_CHECKING:
    from aiohttp import web

    from .callback_asgi import ASGIApp
    from .reachability import Reached

__all__ = ["CallbackReceiver", "Orphan", "OrphanHandler"]

logger = logging.getLogger("af10_async.callback_server")

ORPHAN_LIFETIME = 7 * 24 * 3600.0
"""Seconds that an orphan waits for somebody to adopt it."""
STORE_TIMEOUT = 5.0
"""Seconds that the store has to keep a secret before the caller is told to come back."""

_MOST_PATHS = 8
"""Most paths under which callbacks are read: of the present address, and of those before it."""


class CallbackReceiver:
    """Receives callbacks inside an app of yours, for one client or for many.

    Enter it, and mount `aiohttp_app()` or `asgi_app()`. `CallbackServer` is one that listens by
    itself.

    Args:
        public_url: The https address under which AF10 reaches what it is mounted at, without a
            query, such as `https://www.example.com/webhooks`.
        prefix: The path in front of the keys, below that address.
        store: Where the jobs are kept: a URL as `AF10Client` takes it, or a store; in memory when
            not given.
        callback_secret: What the keys are signed with. The same on every replica; when not given,
            it is made at random and kept in the store.
        trusted_proxies: Addresses or networks (`10.0.0.0/8`) of the proxies in front. Only what
            they say in `X-Forwarded-For` and `X-Forwarded-Proto` is believed. One text may hold
            several, with commas.
        on_orphan: Called (or awaited) with an `Orphan` when a genuine callback arrives that no
            living job claims.
        on_event: Called with a `CallbackReceived` for each callback that was kept; or several to be
            called.

    Raises:
        ConfigurationError: on a value that cannot be used.

    """

    is_elsewhere = False
    _ca_file: str | os.PathLike[str] | None = None

    def __init__(
        self,
        *,
        public_url: str,
        prefix: str = DEFAULT_PREFIX,
        store: str | Store | None = None,
        callback_secret: str | None = None,
        trusted_proxies: Iterable[str] = (),
        on_orphan: OrphanHandler | None = None,
        on_event: EventHandler | Sequence[EventHandler] | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self._set_up(prefix, store, callback_secret, trusted_proxies, on_orphan, on_event, runtime)
        self._has_address(FixedURL(public_url).url)

    @classmethod
    def from_env(
        cls,
        *,
        on_orphan: OrphanHandler | None = None,
        on_event: EventHandler | Sequence[EventHandler] | None = None,
    ) -> Self:
        """A receiver from `AF10_*` variables.

        It reads `AF10_PUBLIC_URL`, `AF10_TRUSTED_PROXIES`, `AF10_CALLBACK_SECRET` and `AF10_STORE`.

        Raises:
            ConfigurationError: names the variable that is missing or malformed.

        """
        # Imported when it is needed: pydantic costs more than all of this package.
        from .settings import MountedSettings

        found = MountedSettings.from_env().receiver_arguments()
        return cls(**found, on_orphan=on_orphan, on_event=on_event)

    def _set_up(
        self,
        prefix: str,
        store: str | Store | None,
        callback_secret: str | None,
        trusted_proxies: Iterable[str],
        on_orphan: OrphanHandler | None,
        on_event: EventHandler | Sequence[EventHandler] | None,
        runtime: Runtime | None,
    ) -> None:
        self._events = Events(on_event)
        self._prefix = checked_prefix(prefix)
        self._prefixes = callback_prefixes("", self._prefix)
        self._runtime = runtime or Runtime()
        self.store: Store = made_store(store, self._runtime)
        self._given_secret = checked_secret(callback_secret)
        self._trusted = checked_networks(trusted_proxies)
        self._secret = b""
        self._public_url: str | None = None
        self._life: AsyncExitStack | None = None
        self._is_entered = False  # or somebody is on the way in or out
        self._takes_requests = False
        self._claims = Claims(self.store, self._do)
        if on_orphan is not None:
            self._claims.orphan_handlers.append(on_orphan)
        self._interruptions: list[Callable[[], Awaitable[None]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._backlog = Backlog(self._record, self._kept_at_last, self._runtime)
        self._turned_away = TurnedAway(self._runtime)
        self._not_kept = Troubles("not kept yet, and tried again", self._runtime)
        self._warnings = Seldom(self._runtime)
        self._arrivals: dict[str, ProbeArrival] = {}
        self._warned_of_clear_text = False

    def _has_address(self, url: str | None) -> None:
        self._public_url = url
        if url is not None:
            # AF10 calls the address that a job was given, also when there is another by now.
            found = (*callback_prefixes(urlsplit(url).path, self._prefix), *self._prefixes)
            self._prefixes = tuple(dict.fromkeys(found))[:_MOST_PATHS]

    # -- its life ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._is_entered:
            raise ClosedError("the callback server is running already")
        self._is_entered = True
        try:
            self._life = await self._entered()
        except BaseException:
            self._is_entered = False
            raise
        return self

    async def _entered(self) -> AsyncExitStack:
        async with AsyncExitStack() as stack:
            await self.store.open()
            stack.push_async_callback(self.store.close)
            self._secret = await shared_secret(self.store, self._given_secret, self._runtime)
            # Unwound in reverse: requests under way are finished and recorded first; then what
            # could not be recorded; then those who wait are told and leave; then the store closes.
            stack.push_async_callback(self._interrupt)
            stack.push_async_callback(self._end_tasks)
            self._backlog.open()
            stack.push_async_callback(self._backlog.close)
            stack.enter_context(self._taking_requests())
            await self._begin(stack)
            stack.callback(self._backlog.stop)
            return stack.pop_all()

    @contextmanager
    def _taking_requests(self) -> Iterator[None]:
        self._takes_requests = True
        try:
            yield
        finally:
            self._takes_requests = False

    async def _begin(self, stack: AsyncExitStack) -> None:
        """Begin to receive, until `stack` is left."""

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        life, self._life = self._life, None
        if life is not None:
            try:
                await life.aclose()
            finally:
                self._is_entered = False

    async def _interrupt(self) -> None:
        """Tell those who wait, and have them leave."""
        async with AsyncExitStack() as stack:
            for interrupt in reversed(self._interruptions):
                stack.push_async_callback(interrupt)

    async def _end_tasks(self) -> None:
        tasks = self._tasks - {asyncio.current_task()}  # an orphan handler may close it
        for task in tasks:
            task.cancel()
        if tasks:
            # Not `gather`, whose cancellation goes on to those that it waits for: one of them may
            # be waiting for this, when a handler closes the server within a timeout.
            await asyncio.wait(tasks)

    @property
    def is_running(self) -> bool:
        """Whether it receives."""
        return self._life is not None

    def closed_error(self) -> ClosedError:
        """What to raise for who needs it to run, when it does not."""
        return ClosedError("the callback server is not running: enter it with `async with`")

    @property
    def keeps_elsewhere(self) -> bool:
        """Whether other receivers may keep callbacks for jobs of this one."""
        return self.store.is_shared

    @property
    def public_url(self) -> str:
        """The address under which AF10 reaches it, without the prefix.

        Raises:
            ClosedError: it is not known before the server is entered.
            PublicURLError: a tunnel is down for now.

        """
        if self._public_url is None:
            raise self.closed_error()
        return self._public_url

    def webhook_url(self, key: str) -> str:
        """The address that AF10 calls for the job with this key."""
        return webhook_url(self.public_url, self._prefix, key)

    # -- inside an app -----------------------------------------------------------------------------

    def aiohttp_app(self) -> web.Application:
        """An aiohttp application for `app.add_subapp("/webhooks", ...)`.

        It enters this receiver when the app starts, unless it is running already, and leaves it
        when the app ends.
        """
        from .callback_aiohttp import application

        return application(self)

    def asgi_app(self) -> ASGIApp:
        """An ASGI application to mount in FastAPI, Starlette, Litestar, ..., or to serve as it is.

        Frameworks do not tell the lifespan to what is mounted in them: enter this receiver in the
        lifespan of your app. Served as it is, it enters itself.
        """
        from .callback_asgi import ASGIApp

        return ASGIApp(self)

    # -- for the clients ---------------------------------------------------------------------------

    @property
    def callback_secret(self) -> bytes:
        """What the keys of its jobs are signed with."""
        return self._secret

    def claim(self, key: str, listener: Listener) -> None:
        """Show each change by a callback to `listener`, which says whether somebody claims it."""
        self._claims.add(key, listener)

    def unclaim(self, key: str, listener: Listener) -> None:
        """Take a claim back, if there is one."""
        self._claims.remove(key, listener)

    def attach(
        self, interrupt: Callable[[], Awaitable[None]], on_orphan: OrphanHandler | None
    ) -> None:
        """Tell a client when this server closes, and about orphans if it wants to know.

        `interrupt` is awaited: the store is closed when nobody waits any more.
        """
        self._interruptions.append(interrupt)
        if on_orphan is not None:
            self._claims.orphan_handlers.append(on_orphan)

    def detach(
        self, interrupt: Callable[[], Awaitable[None]], on_orphan: OrphanHandler | None
    ) -> None:
        """Undo `attach`."""
        self._interruptions.remove(interrupt)
        if on_orphan is not None:
            self._claims.orphan_handlers.remove(on_orphan)

    # -- whether it can be reached -----------------------------------------------------------------

    async def check_reachable(
        self, *, timeout: float = 10.0, ca_file: str | os.PathLike[str] | None = None
    ) -> Reached:
        """Ask the public address for a fresh nonce, and see whether it arrives here.

        Args:
            timeout: Seconds for all of it.
            ca_file: A PEM file with certificates to trust beside the usual ones.

        Raises:
            UnreachableError: says which link is broken (`problem`), and what to do.
            ClosedError: it is not running.

        """
        from .reachability import check_reachable

        ca_file = ca_file or self._ca_file
        return await check_reachable(self, timeout=timeout, ca_file=ca_file, runtime=self._runtime)

    @contextmanager
    def expecting(self, probe: str) -> Iterator[ProbeArrival]:
        """Note how the probe with this key arrives, if it does."""
        arrival = self._arrivals[probe] = ProbeArrival()
        try:
            yield arrival
        finally:
            del self._arrivals[probe]
            self._heard_of(probe)

    def _probed(self, probe: Probe, incoming: Incoming) -> Answer:
        arrival = self._arrivals.get(probe.key)
        if arrival is not None:
            arrival.probe, arrival.sender = probe, self._sender(incoming)
        if not probe.is_at_home:
            return answer(404)
        if probe.id is None:
            return answer(400)
        return proof(keys.probe_answer(probe.key, probe.id, self._secret))

    # -- requests ----------------------------------------------------------------------------------

    async def handle(self, incoming: Incoming) -> Answer:
        """What to answer to a request; a callback is kept before."""
        if not self._takes_requests:
            return answer(503)
        found = read_callback(
            incoming.method,
            incoming.target,
            prefixes=self._prefixes,
            callback_secret=self._secret,
        )
        if isinstance(found, Callback):
            return answer(await self._keep(found, incoming))
        if isinstance(found, Probe):
            return self._probed(found, incoming)
        self._turned_away.note(found)
        return answer(found.status)

    async def _keep(self, callback: Callback, incoming: Incoming) -> int:
        started = self._runtime.monotonic()
        try:
            transition = await self._record(callback)
        except asyncio.CancelledError:
            self._backlog.hold(callback)  # whoever serves the request gives it up; we do not
            raise
        except Exception as error:
            # Whatever it was: what is not kept must not be acknowledged.
            self._not_kept.note(callback.key, type(error).__name__)
            self._backlog.hold(callback)
            return 503
        if transition.effect is Effect.FULL:
            if self._warnings.may_come():
                logger.warning("job %s has too many untried ids just now", callback.key)
            self._backlog.hold(callback)
            return 503
        self._kept(callback, transition, started, incoming)
        return 200

    def _kept(
        self,
        callback: Callback,
        transition: Transition,
        started: float | None = None,
        incoming: Incoming | None = None,
    ) -> None:
        if transition.effect is not Effect.CHANGED:
            return
        logger.info("callback for job %s", callback.key)
        if incoming is not None and self._trusted:
            self._look_at_scheme(incoming)
        if self._events.are_wanted:
            self._events.tell(self._event_of(transition.record, started, incoming))
        self._heard_of(callback.key)
        self._claims.tell(transition.record)

    def _kept_at_last(self, callback: Callback, transition: Transition) -> None:
        record = transition.record
        # A store whose answer came too late has kept it then, and nobody was told.
        is_late = not self.store.is_immediate and callback.secret in record.secrets
        if is_late and transition.effect is Effect.UNCHANGED:
            transition = Transition(record, Effect.CHANGED)
        self._kept(callback, transition)

    def _heard_of(self, key: str) -> None:
        """No callback for this key is waited for any more."""

    def _event_of(
        self, record: JobRecord, started: float | None, incoming: Incoming | None
    ) -> CallbackReceived:
        return CallbackReceived(
            key=record.key,
            at=self._runtime.now(),
            seconds=self._runtime.monotonic() - started if started is not None else 0.0,
            is_orphan=record.account is None,
            trace=record.trace,
            sender=self._sender(incoming) if incoming is not None else None,
        )

    def _sender(self, incoming: Incoming) -> str | None:
        return sender(incoming.peer(), incoming.header("X-Forwarded-For"), self._trusted)

    def _look_at_scheme(self, incoming: Incoming) -> None:
        protocols = incoming.header("X-Forwarded-Proto")
        if not self._warned_of_clear_text and came_in_the_clear(
            incoming.peer(), protocols, self._trusted
        ):
            self._warned_of_clear_text = True
            logger.warning(
                "the proxy in front took a callback over plain http, so that everybody on the way"
                " could read its id: have it answer https only"
            )

    async def _record(self, callback: Callback) -> Transition:
        if self.store.is_immediate:
            return await self._put(callback)
        async with asyncio.timeout(STORE_TIMEOUT):
            transition = await self._put(callback)
        if transition.effect is Effect.CHANGED:
            self._backlog.drop(callback)  # which would take it for one that nobody was told of
        return transition

    async def _put(self, callback: Callback) -> Transition:
        now = self._runtime.now()
        known = await self.store.apply(callback.key, CalledBack(now, callback.secret))
        if known is not None:
            return known
        record = lifecycle.orphan(callback.key, callback.secret, now, ORPHAN_LIFETIME)
        return await self.store.add_orphan(record)

    def _do(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
