"""The aiohttp server that receives callbacks.

Nothing but `GET /<prefix>/<key>?id=<secret>` changes anything, and only when the key is genuine.
What a request means is decided in `protocol.callbacks`, what it does to a job in
`protocol.lifecycle`. The order is: keep the secret in the store, wake whoever waits, and only then
answer 200. When the store fails, the answer is 503, so that nothing is acknowledged and lost.
"""

from __future__ import annotations

import asyncio
import errno
import inspect
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from .callback_backlog import Backlog
from .errors import (
    CallbackServerError,
    ClosedError,
    ConfigurationError,
    PortInUseError,
    StoreError,
)
from .events import CallbackReceived, EventHandler, Events
from .protocol import lifecycle
from .protocol.callbacks import Callback, Rejection, read_callback
from .protocol.lifecycle import CalledBack, Effect, JobRecord, Transition
from .runtime import Runtime
from .stores import Store, open_store

if TYPE_CHECKING:
    from .callback_http import Listening

__all__ = ["CallbackServer", "Orphan", "OrphanHandler"]

logger = logging.getLogger("af10_async.callback_server")

DEFAULT_PREFIX = "af10"
ORPHAN_LIFETIME = 7 * 24 * 3600.0
"""Seconds that an orphan waits for somebody to adopt it."""
STORE_TIMEOUT = 5.0
"""Seconds that the store has to keep a secret before the caller is told to come back."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A genuine callback that no living job of this process claims; `client.job(key)` adopts it."""

    key: str
    account: str | None
    """Whose job it is, as far as the store knows."""


OrphanHandler = Callable[[Orphan], Awaitable[object] | object]
Listener = Callable[[JobRecord], bool]


class RemoteReceiver:
    """Stands for a callback server of another process over the same store.

    Args:
        public_url: The https address under which AF10 reaches it.
        callback_secret: What keys are signed with.
        prefix: The path in front of the keys.

    """

    is_running = True
    is_elsewhere = True

    def __init__(
        self, public_url: str, callback_secret: bytes, prefix: str = DEFAULT_PREFIX
    ) -> None:
        self.public_url = public_url
        self.callback_secret = callback_secret
        self._prefix = prefix

    def webhook_url(self, key: str) -> str:
        """The address that AF10 calls for the job with this key."""
        return _webhook_url(self.public_url, self._prefix, key)

    def claim(self, key: str, listener: Listener) -> None:
        """Nothing is heard here: the store tells of each change."""

    def unclaim(self, key: str, listener: Listener) -> None:
        """Nothing to take back."""


class CallbackServer:
    """Receives callbacks, for one client or for many.

    Args:
        host: The address to bind, such as `127.0.0.1` or `0.0.0.0`.
        port: The port to bind; 0 takes any free one.
        public_url: The https address under which AF10 reaches this server, without a query.
            Without it, the server must have a certificate, and its own address is used.
        prefix: The path in front of the keys.
        tls_cert: A PEM file with the certificate chain; together with `tls_key` it turns TLS on.
        tls_key: A PEM file with the private key.
        store: Where the jobs are kept: a URL as `AF10Client` takes it, or a store; in memory when
            not given.
        callback_secret: What the keys are signed with. The same on every replica; when not given,
            it is made at random and kept in the store.
        on_orphan: Called (or awaited) with an `Orphan` when a genuine callback arrives that no
            living job claims.
        on_event: Called with a `CallbackReceived` for each callback that was kept; or several to be
            called.

    Raises:
        ConfigurationError: on a public URL or certificate that cannot be used.
        PortInUseError: on entry, when the port is taken.

    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        public_url: str | None = None,
        prefix: str = DEFAULT_PREFIX,
        tls_cert: str | Path | None = None,
        tls_key: str | Path | None = None,
        store: str | Store | None = None,
        callback_secret: str | None = None,
        on_orphan: OrphanHandler | None = None,
        on_event: EventHandler | Sequence[EventHandler] | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self._events = Events(on_event)
        self._host = host
        self._port = port
        self._prefix = _checked_prefix(prefix)
        self._tls = _server_context(tls_cert, tls_key)
        self._public_url = _checked_public_url(public_url, self._tls is not None, host)
        self._runtime = runtime or Runtime()
        self.store: Store = _made_store(store, self._runtime)
        self._given_secret = _checked_secret(callback_secret)
        self._secret = b""
        self._listening: Listening | None = None
        self._orphan_handlers: list[OrphanHandler] = [on_orphan] if on_orphan else []
        self._claims: dict[str, tuple[Listener, ...]] = {}
        self._interruptions: list[Callable[[], Awaitable[None]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._backlog = Backlog(self._record, self._kept, self._runtime)

    @classmethod
    def from_env(
        cls,
        *,
        on_orphan: OrphanHandler | None = None,
        on_event: EventHandler | Sequence[EventHandler] | None = None,
    ) -> Self:
        """A server from `AF10_*` variables, without the credentials of an account.

        It reads `AF10_PUBLIC_URL`, `AF10_LISTEN_HOST`, `AF10_LISTEN_PORT`, `AF10_TLS_CERT`,
        `AF10_TLS_KEY`, `AF10_CALLBACK_SECRET` and `AF10_STORE`.

        Raises:
            ConfigurationError: names the variable that is missing or malformed.

        """
        # Imported when it is needed: pydantic costs more than all of this package.
        from .settings import ReceiverSettings

        settings = ReceiverSettings.from_env()
        secret = settings.callback_secret
        return cls(
            host=settings.listen_host,
            port=settings.listen_port or 0,
            public_url=settings.public_url,
            tls_cert=settings.tls_cert,
            tls_key=settings.tls_key,
            store=settings.store.get_secret_value(),
            callback_secret=secret.get_secret_value() if secret else None,
            on_orphan=on_orphan,
            on_event=on_event,
        )

    # -- its life ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._listening is not None:
            raise ClosedError("the callback server is running already")
        await self.store.open()
        try:
            self._secret = await shared_secret(self.store, self._given_secret, self._runtime)
            self._backlog.open()
            self._listening = await self._listen()
        except BaseException:
            await self.store.close()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        listening, self._listening = self._listening, None
        if listening is None:
            return
        self._backlog.stop()
        # Unwound in reverse: requests under way are finished and recorded first; then what could
        # not be recorded; then those who wait are told and leave; and then the store is closed.
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.store.close)
            for interrupt in reversed(self._interruptions):
                stack.push_async_callback(interrupt)
            stack.push_async_callback(self._end_tasks)
            stack.push_async_callback(self._backlog.close)
            stack.push_async_callback(listening.close)

    async def _end_tasks(self) -> None:
        tasks = self._tasks - {asyncio.current_task()}  # an orphan handler may close it
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def is_running(self) -> bool:
        """Whether it listens."""
        return self._listening is not None

    is_elsewhere = False

    @property
    def port(self) -> int:
        """The port that it listens on."""
        if self._listening is None:
            raise ClosedError("the callback server is not running: enter it with `async with`")
        return self._listening.port

    @property
    def public_url(self) -> str:
        """The address under which AF10 reaches it, without the prefix."""
        if self._public_url is not None:
            return self._public_url
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"https://{host}:{self.port}"

    def webhook_url(self, key: str) -> str:
        """The address that AF10 calls for the job with this key."""
        return _webhook_url(self.public_url, self._prefix, key)

    async def _listen(self) -> Listening:
        # Imported by who listens only: with aiohttp it costs more than all of this package.
        from .callback_http import Listening

        listening = Listening(self._handle)
        try:
            await listening.start(self._host, self._port, self._tls)
        except OSError as error:
            raise _bind_error(error, self._host, self._port) from None
        return listening

    # -- for the clients ---------------------------------------------------------------------------

    @property
    def callback_secret(self) -> bytes:
        """What the keys of its jobs are signed with."""
        return self._secret

    def claim(self, key: str, listener: Listener) -> None:
        """Show each change by a callback to `listener`, which says whether somebody claims it."""
        self._claims[key] = (*self._claims.get(key, ()), listener)

    def unclaim(self, key: str, listener: Listener) -> None:
        """Take a claim back, if there is one."""
        left = tuple(each for each in self._claims.pop(key, ()) if each != listener)
        if left:
            self._claims[key] = left

    def attach(
        self, interrupt: Callable[[], Awaitable[None]], on_orphan: OrphanHandler | None
    ) -> None:
        """Tell a client when this server closes, and about orphans if it wants to know.

        `interrupt` is awaited: the store is closed when nobody waits any more.
        """
        self._interruptions.append(interrupt)
        if on_orphan is not None:
            self._orphan_handlers.append(on_orphan)

    def detach(
        self, interrupt: Callable[[], Awaitable[None]], on_orphan: OrphanHandler | None
    ) -> None:
        """Undo `attach`."""
        self._interruptions.remove(interrupt)
        if on_orphan is not None:
            self._orphan_handlers.remove(on_orphan)

    # -- requests ----------------------------------------------------------------------------------

    async def _handle(self, method: str, target: str) -> int:
        found = read_callback(method, target, prefix=self._prefix, callback_secret=self._secret)
        if isinstance(found, Rejection):
            logger.debug("turned away with %d: %s", found.status, found.reason)
            return found.status
        return await self._keep(found)

    async def _keep(self, callback: Callback) -> int:
        started = self._runtime.monotonic()
        try:
            transition = await self._record(callback)
        except Exception as error:
            # Whatever it was: what is not kept must not be acknowledged.
            logger.error("callback for job %s not kept: %s", callback.key, type(error).__name__)
            self._backlog.hold(callback)
            return 503
        if transition.effect is Effect.FULL:
            logger.warning("job %s has too many untried ids just now", callback.key)
            self._backlog.hold(callback)
            return 503
        self._kept(callback, transition, started)
        return 200

    def _kept(
        self, callback: Callback, transition: Transition, started: float | None = None
    ) -> None:
        if transition.effect is not Effect.CHANGED:
            return
        logger.info("callback for job %s", callback.key)
        if self._events.are_wanted:
            self._events.tell(self._event_of(transition.record, started))
        self._tell(transition.record)

    def _event_of(self, record: JobRecord, started: float | None) -> CallbackReceived:
        return CallbackReceived(
            key=record.key,
            at=self._runtime.now(),
            seconds=self._runtime.monotonic() - started if started is not None else 0.0,
            is_orphan=record.account is None,
            trace=record.trace,
        )

    async def _record(self, callback: Callback) -> Transition:
        async with asyncio.timeout(STORE_TIMEOUT):
            now = self._runtime.now()
            known = await self.store.apply(callback.key, CalledBack(now, callback.secret))
            if known is not None:
                return known
            record = lifecycle.orphan(callback.key, callback.secret, now, ORPHAN_LIFETIME)
            return await self.store.add_orphan(record)

    def _tell(self, record: JobRecord) -> None:
        claims = [listener(record) for listener in self._claims.get(record.key, ())]
        if not any(claims) and self._orphan_handlers:
            self._do(self._tell_of_orphan(record))

    async def _tell_of_orphan(self, record: JobRecord) -> None:
        # Over a shared store, whoever waits for it may be elsewhere, and then has the lease.
        try:
            if record.account is not None and not await self.store.lease(record.key):
                return
        except StoreError as error:
            logger.warning("whether job %s is an orphan is not known: %s", record.key, error)
            return
        self.store.release(record.key)
        logger.warning("nobody waits for job %s: its callback is kept as an orphan", record.key)
        orphan = Orphan(record.key, record.account)
        handlers = (_call(handler, orphan) for handler in self._orphan_handlers)
        await asyncio.gather(*handlers)

    def _do(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def shared_secret(store: Store, given: str | None, runtime: Runtime) -> bytes:
    """What keys are signed with: as configured, or at random and kept with the jobs."""
    if given is None:
        return await store.callback_secret(runtime.random_bytes(32))
    secret = given.encode()
    if store.is_shared and await store.callback_secret(secret) != secret:
        logger.warning(
            "AF10_CALLBACK_SECRET is not what others over the same store sign keys with: callbacks"
            " for jobs of theirs are turned away here, and the reverse"
        )
    return secret


def _made_store(store: str | Store | None, runtime: Runtime) -> Store:
    if not isinstance(store, str | None):
        return store
    try:
        return open_store(store or "memory:", now=runtime.now)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _webhook_url(public_url: str, prefix: str, key: str) -> str:
    return f"{public_url}/{prefix}/{key}" if prefix else f"{public_url}/{key}"


async def _call(handler: OrphanHandler, orphan: Orphan) -> None:
    try:
        result = handler(orphan)
        if inspect.isawaitable(result):
            await result
    except Exception:
        logger.exception("on_orphan failed for job %s", orphan.key)


def _checked_prefix(prefix: str) -> str:
    prefix = prefix.strip("/")
    # `.` and `..` would be taken out by the caller, who would then call another path.
    parts = prefix.split("/") if prefix else []
    if not all(re.fullmatch(r"(?!\.\.?$)[A-Za-z0-9_.~-]+", part) for part in parts):
        raise ConfigurationError(
            "prefix must be a path of letters, digits and . _ ~ -, such as hooks/af10"
        )
    return prefix


def _checked_public_url(public_url: str | None, has_tls: bool, host: str) -> str | None:
    if public_url is None:
        if not has_tls:
            raise ConfigurationError(
                "public_url is not set: AF10 calls back over https, so give either the public"
                " address (public_url, AF10_PUBLIC_URL) or a certificate (tls_cert and tls_key)"
            )
        if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
            raise ConfigurationError(
                "public_url is not set, and the server listens on all addresses: give the one that"
                " AF10 can reach (public_url, AF10_PUBLIC_URL)"
            )
        return None
    if not _is_plain_https(public_url):
        raise ConfigurationError(
            "public_url must be an https address without a query, such as https://hooks.example.com"
        )
    return public_url.rstrip("/")


def _is_plain_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
        is_reachable = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or half an IPv6 address
        return False
    has_more = parts.query or parts.fragment or parts.username is not None
    return is_reachable and not has_more and re.fullmatch(r"[!-~]+", url) is not None


def _checked_secret(callback_secret: str | None) -> str | None:
    if callback_secret is not None and len(callback_secret) < 16:
        raise ConfigurationError(
            "callback_secret must be at least 16 characters that nobody can guess, the same on"
            " every replica"
        )
    return callback_secret


def _server_context(
    tls_cert: str | Path | None, tls_key: str | Path | None
) -> ssl.SSLContext | None:
    if tls_cert is None and tls_key is None:
        return None
    if tls_cert is None or tls_key is None:
        raise ConfigurationError("TLS needs both: tls_cert and tls_key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls_cert, tls_key, password=_no_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ConfigurationError(
            f"tls_cert and tls_key cannot be used: {getattr(error, 'strerror', None) or error};"
            " they must be PEM files that belong together, the key without a passphrase"
        ) from None
    return context


def _no_password() -> str:
    """Without this, OpenSSL would ask for the passphrase of an encrypted key at the terminal."""
    return ""


def _bind_error(error: OSError, host: str, port: int) -> CallbackServerError:
    if error.errno == errno.EADDRINUSE:
        return PortInUseError(
            f"port {port} on {host} is in use: stop what listens there, or choose another"
            " listen_port (AF10_LISTEN_PORT)"
        )
    return CallbackServerError(
        f"cannot listen on {host} port {port}: {error.strerror}; check listen_host and listen_port"
    )
