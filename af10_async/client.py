"""AF10Client: one AF10 account, and what can be asked of it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from .auth import Authenticator, Session
from .callback_server import (
    CallbackServer,
    Orphan,
    OrphanHandler,
    RemoteReceiver,
    shared_secret,
)
from .download import RemoteFile
from .download_source import MIN_SPEED, STALL_TIMEOUT, Fetcher, Limits
from .downloader import DOWNLOAD_TIMEOUT, checked_seconds, host_names
from .errors import ClosedError, ConfigurationError
from .job_services import Order, Receiver, Services
from .job_work import FileMaker, JobWork
from .jobs import Job
from .protocol import keys, wire
from .protocol.addresses import is_private_host
from .protocol.retry import RetryPolicy
from .protocol.tickets import Ticket, TicketError, is_ticket, read_ticket
from .runtime import Runtime
from .stores import Store, open_store
from .transport import Departure, HTTPClient, Transport
from .waits import Waits

if TYPE_CHECKING:
    from .settings import Settings

__all__ = ["AF10Client"]

logger = logging.getLogger("af10_async.client")

START_TIMEOUT = 60.0
CALLBACK_TIMEOUT = 3600.0
REQUEST_TIMEOUT = 60.0
"""Seconds for one request and its whole answer."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """What lives while the client is entered."""

    loop: asyncio.AbstractEventLoop
    process: int
    authenticator: Authenticator
    transport: Transport
    fetcher: Fetcher
    services: Services


class AF10Client:
    """One AF10 account: an async context manager that owns a callback server and an HTTP client.

    Each argument has an environment variable of the same meaning, which `from_env` reads.

    Args:
        base_url: The bootstrap address of AF10's API (`AF10_BASE_URL`); AF10 itself names the
            address for everything after authentication.
        api_key: The API key (`AF10_API_KEY`).
        username: The user name (`AF10_USERNAME`).
        password: The password (`AF10_PASSWORD`).
        organization_name: The organization, where AF10 asks for it (`AF10_ORGANIZATION_NAME`).
        public_url: The https address under which AF10 reaches the callback server
            (`AF10_PUBLIC_URL`); goes with `listen_port`. Not needed when the server has a
            certificate and AF10 reaches it directly.
        listen_host: The address that the callback server binds (`AF10_LISTEN_HOST`).
        listen_port: Its port (`AF10_LISTEN_PORT`); any free one when not given.
        tls_cert: A PEM file with the callback server's certificate chain (`AF10_TLS_CERT`).
        tls_key: A PEM file with its private key (`AF10_TLS_KEY`).
        ca_file: A PEM file with certificates to trust beside the usual ones (`AF10_CA_FILE`).
        callback_secret: What the job keys are signed with (`AF10_CALLBACK_SECRET`); at random, and
            kept where the jobs are kept, when not given.
        store: Where jobs are kept (`AF10_STORE`): `memory:`, `sqlite:PATH`, `redis://…` or
            `valkey://…`. With a store that processes share and a `public_url` but no `listen_port`,
            another process receives the callbacks (`af10 receive`), and this one only waits.
        callback_server: A server of your own that is running, perhaps shared by many clients; it
            replaces the six arguments from `public_url` to `tls_key`, `callback_secret` and
            `store`, and is left running.
        http_client: An `httpx.AsyncClient` or `httpx2.AsyncClient` of your own; it is used for
            everything and left open. Its own proxies, certificates and limits then count, and the
            addresses that the names of files lead to are not checked.
        on_orphan: Called (or awaited) with an `Orphan` when a genuine callback arrives that no
            living job claims; `job(orphan.key)` takes it up.
        start_timeout: Seconds for AF10 to accept a job.
        callback_timeout: Seconds for AF10 to call back and hand over the payload.
        download_timeout: Seconds for a whole download.
            For these three, `math.inf` means no limit. Each job may have its own.
        stall_timeout: Seconds without a byte of a file after which its connection counts as broken.
        min_speed: Bytes a second, on the average over `stall_timeout`, below which it does, too.
        allowed_hosts: The hosts (and what is below them) that files may come from; others are
            refused before anything is sent. None: any host.
        allow_private_files: Fetch files from addresses of private networks too, and over http.
            Always so when AF10 itself is at a private address, as the sandbox is.
        retries: How often, and after what pauses, a failed request is sent again where that is
            harmless.
        runtime: Time, chance and sleep, for tests.

    Raises:
        ConfigurationError: a value is missing or malformed; nothing was sent.
        PortInUseError: on entry, when the callback server's port is taken.

    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        username: str,
        password: str,
        organization_name: str | None = None,
        public_url: str | None = None,
        listen_host: str | None = None,
        listen_port: int | None = None,
        tls_cert: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        callback_secret: str | None = None,
        store: str | None = None,
        callback_server: CallbackServer | None = None,
        http_client: HTTPClient | None = None,
        on_orphan: OrphanHandler | None = None,
        start_timeout: float = START_TIMEOUT,
        callback_timeout: float = CALLBACK_TIMEOUT,
        download_timeout: float = DOWNLOAD_TIMEOUT,
        stall_timeout: float = STALL_TIMEOUT,
        min_speed: float = MIN_SPEED,
        allowed_hosts: Sequence[str] | None = None,
        allow_private_files: bool = False,
        retries: RetryPolicy | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        # Imported when it is needed: pydantic costs more than all of this package.
        from .settings import Settings

        self._settings = Settings.from_arguments(
            base_url=base_url,
            api_key=api_key,
            username=username,
            password=password,
            organization_name=organization_name,
            public_url=public_url,
            listen_host=listen_host,
            listen_port=listen_port,
            tls_cert=tls_cert,
            tls_key=tls_key,
            ca_file=ca_file,
            callback_secret=callback_secret,
            store=store,
        )
        self._given_server = callback_server
        self._http_client = http_client
        self._on_orphan = on_orphan
        self._start_timeout = checked_seconds("start_timeout", start_timeout)
        self._callback_timeout = checked_seconds("callback_timeout", callback_timeout)
        self._download_timeout = checked_seconds("download_timeout", download_timeout)
        self._limits = Limits(stall_timeout, min_speed).checked()
        self._allowed_hosts = host_names(allowed_hosts)
        self._allow_private_files = allow_private_files
        self._retries = retries or RetryPolicy()
        self._runtime = runtime or Runtime()
        self._works: WeakValueDictionary[str, JobWork] = WeakValueDictionary()
        self._parts: _Parts | None = None
        self._stack: AsyncExitStack | None = None
        self._is_leaving = False

    @classmethod
    def from_env(cls, **arguments: Any) -> Self:
        """A client from `AF10_*` variables, over which keyword arguments win.

        Each secret may also be given as `..._FILE`, a file that holds it.

        Raises:
            ConfigurationError: names the variable that is missing or malformed, and says what it
                expects.

        """
        from .settings import Settings

        settings = {name: arguments.pop(name) for name in Settings.model_fields.keys() & arguments}
        found = Settings.from_env(**settings).model_dump(exclude_none=True)
        return cls(**found, **arguments)

    def __repr__(self) -> str:
        return f"<AF10Client of {self._settings.base_url}>"

    # -- its life ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise ClosedError("this client was entered before; make a new one", sent=False)
        self._stack = AsyncExitStack()
        try:
            self._parts = await self._assemble(self._stack)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Unwound in reverse: no more callbacks, then everybody who waits is told and leaves, and
        # only then the connections that they used are closed.
        self._is_leaving = True
        if self._stack is not None:
            await self._stack.aclose()

    async def _assemble(self, stack: AsyncExitStack) -> _Parts:
        transport = Transport(
            self._http_client, ca_file=self._settings.ca_file, runtime=self._runtime
        )
        stack.push_async_callback(transport.close)
        authenticator = self._make_authenticator(transport)
        stack.push_async_callback(authenticator.close)
        server = self._given_server or self._make_server()
        # Closed after everybody who uses it has left; a server does so with its own.
        store = server.store if server is not None else await self._enter_store(stack)
        downloads, jobs = Waits(), Waits()
        stack.push_async_callback(downloads.close)
        stack.push_async_callback(jobs.close)
        receiver: Receiver | None = server
        if server is not None:
            await self._enter_server(stack, server, jobs)
        elif self._settings.receives_elsewhere:
            receiver = await self._remote_receiver(store)
        return _Parts(
            loop=asyncio.get_running_loop(),
            process=os.getpid(),
            authenticator=authenticator,
            transport=transport,
            fetcher=Fetcher(
                transport,
                downloads,
                self._retries,
                self._runtime,
                self._limits,
                self._allowed_hosts,
            ),
            services=Services(
                account=self._account(),
                store=store,
                receiver=receiver,
                requester=_Requester(self._settings, transport, authenticator),
                waits=jobs,
                policy=self._retries,
                runtime=self._runtime,
            ),
        )

    async def _enter_server(
        self, stack: AsyncExitStack, server: CallbackServer, jobs: Waits
    ) -> None:
        if server is self._given_server and not server.is_running:
            raise ClosedError(
                "the callback server is not running: enter it before the client", sent=False
            )
        # Before it is entered: it tells those who wait before it closes its store.
        on_orphan = self._orphan_handler()
        server.attach(jobs.close, on_orphan)
        stack.callback(server.detach, jobs.close, on_orphan)
        if server is not self._given_server:
            await stack.enter_async_context(server)
        self._warn_of_unreachable(server)

    async def _enter_store(self, stack: AsyncExitStack) -> Store:
        store = self._make_store()
        await store.open()
        stack.push_async_callback(store.close)
        return store

    async def _remote_receiver(self, store: Store) -> RemoteReceiver:
        given = self._settings.callback_secret
        secret = await shared_secret(
            store, given.get_secret_value() if given else None, self._runtime
        )
        assert self._settings.public_url is not None  # else nothing is received elsewhere
        logger.info("callbacks are received by another process over the same store")
        return RemoteReceiver(self._settings.public_url, secret)

    def _make_store(self) -> Store:
        return open_store(self._settings.store.get_secret_value(), now=self._runtime.now)

    def _warn_of_unreachable(self, server: CallbackServer) -> None:
        """Not an error: in tests, something on this machine may play a public AF10."""
        host = urlsplit(server.public_url).hostname or ""
        if is_private_host(host) and not self._is_near():
            logger.warning(
                "AF10 is told to call back to %s, which is no public address: set AF10_PUBLIC_URL",
                server.public_url,
            )

    def _orphan_handler(self) -> OrphanHandler | None:
        handler, account = self._on_orphan, self._account()
        if handler is None:
            return None

        def tell(orphan: Orphan) -> object:
            # A server that many clients share tells each of its own, and of those of nobody.
            return handler(orphan) if orphan.account in (None, account) else None

        return tell

    def _make_server(self) -> CallbackServer | None:
        listens = self._settings.public_url or self._settings.tls_cert
        if not listens or self._settings.receives_elsewhere:
            return None
        secret = self._settings.callback_secret
        return CallbackServer(
            host=self._settings.listen_host,
            port=self._settings.listen_port or 0,
            public_url=self._settings.public_url,
            tls_cert=self._settings.tls_cert,
            tls_key=self._settings.tls_key,
            store=self._make_store(),
            callback_secret=secret.get_secret_value() if secret else None,
            runtime=self._runtime,
        )

    def _make_authenticator(self, transport: Transport) -> Authenticator:
        async def exchange(call: wire.Call, base_url: str, timeout: float) -> wire.Reply:
            return await transport.send(call, base_url, {}, timeout=timeout)

        return Authenticator(
            wire.authenticate_call(
                self._settings.api_key.get_secret_value(),
                self._settings.username.get_secret_value(),
                self._settings.password.get_secret_value(),
                self._settings.organization_name,
            ),
            self._settings.base_url,
            exchange,
            runtime=self._runtime,
            policy=self._retries,
            secrets=_credentials(self._settings),
            timeout=REQUEST_TIMEOUT,
        )

    def _account(self) -> str:
        """Tells accounts apart in a store without naming them there."""
        who = "\0".join((*_credentials(self._settings)[:2], self._settings.organization_name or ""))
        return hashlib.sha256(who.encode()).hexdigest()[:32]

    def _open_parts(self) -> _Parts:
        parts = self._parts
        if parts is None:
            raise ClosedError("enter the client first: `async with client:`", sent=False)
        if self._is_leaving:
            raise ClosedError("the client is closed", sent=False)
        if parts.process != os.getpid():
            raise ClosedError("the client belongs to the process that entered it", sent=False)
        if parts.loop is not _running_loop():
            raise ClosedError("the client belongs to the event loop that entered it", sent=False)
        return parts

    @property
    def callback_url(self) -> str | None:
        """The public https address at which callbacks arrive; None when there is none."""
        receiver = self._open_parts().services.receiver
        return receiver.public_url if receiver else None

    # -- operations --------------------------------------------------------------------------------

    async def authenticate(self) -> None:
        """Make sure that there is a good token. Every call does so by itself.

        Raises:
            AuthenticationError: AF10 does not accept the credentials.
            NetworkError, APIError, BadResponseError: it could not be asked.

        """
        await self._open_parts().authenticator.session()

    def backup_owner(
        self,
        *,
        start_timeout: float | None = None,
        callback_timeout: float | None = None,
        download_timeout: float | None = None,
    ) -> Job[RemoteFile]:
        """A backup of everything that the dealer has in AF10 (`POST /backup/owner`).

        Nothing is sent until the job is awaited or started. Its result is the backup's file, still
        to be saved. Timeouts are in seconds; those not given are the client's.

        Raises:
            ConfigurationError: the client has no callback server.

        """
        parts = self._open_parts()
        receiver = parts.services.receiver
        if receiver is None:
            raise ConfigurationError(
                "AF10_PUBLIC_URL (public_url) is not set: it must be the https address under which"
                " AF10 reaches the callback server, such as https://hooks.example.com; or set"
                " AF10_TLS_CERT and AF10_TLS_KEY when AF10 can reach this machine directly"
            )
        key = keys.make_key(self._runtime.random_bytes(keys.RANDOM_BYTES), receiver.callback_secret)
        work = JobWork(
            parts.services,
            key,
            self._file_maker(parts, download_timeout),
            order=Order("POST", "/backup/owner", None, expects_file=True),
        )
        self._works[key] = work
        return self._handle(work, start_timeout, callback_timeout)

    def job(
        self,
        key: str,
        *,
        callback_timeout: float | None = None,
        download_timeout: float | None = None,
    ) -> Job[Any]:
        """The job with this key or ticket, to be awaited once more, here or anywhere else.

        A key leads to what the store knows of the job. A ticket (`Job.ticket`) restores the job
        also where the store does not know it.

        Raises:
            ConfigurationError: the ticket is damaged, or of a newer release.

        Raises, when awaited:
            JobNotFoundError: this account has no such job; or it expired long ago.

        """
        ticket = _read_ticket(key) if is_ticket(key) else None
        key = ticket.key if ticket else key
        parts = self._open_parts()
        work = self._works.get(key)
        if work is None:
            make_file = self._file_maker(parts, download_timeout)
            work = self._works[key] = JobWork(parts.services, key, make_file, ticket=ticket)
        elif download_timeout is not None:
            work.make_files_with(self._file_maker(parts, download_timeout))
        return self._handle(work, None, callback_timeout)

    async def unfinished(
        self, *, callback_timeout: float | None = None, download_timeout: float | None = None
    ) -> AsyncGenerator[Job[Any], None]:
        """Jobs of this account in which something is left to do, and that nobody works on.

        To wait for the callback, to redeem it, or to save the file. Each is leased to this client,
        so of many processes that ask only one gets it: until it is done, or given up, or the
        process dies. After a death on the same machine it is free at once, after one elsewhere
        within half a minute.

        Raises:
            StoreError: the store cannot be used.

        """
        parts = self._open_parts()
        store = parts.services.store
        async for record in store.unfinished(parts.services.account):
            if not await store.lease(record.key):
                continue
            work = self._works.get(record.key)
            if work is None:
                make_file = self._file_maker(parts, download_timeout)
                work = JobWork(parts.services, record.key, make_file, leased=record)
                self._works[record.key] = work
            else:
                work.live.was_leased(record)
            yield self._handle(work, None, callback_timeout)

    def file(self, url: str, *, download_timeout: float | None = None) -> RemoteFile:
        """The file at any http or https address; no credentials of AF10 are sent to it."""
        fetcher = self._open_parts().fetcher
        return RemoteFile(
            fetcher,
            url,
            is_trusted=True,
            download_timeout=self._download_seconds(download_timeout),
        )

    def _file_maker(self, parts: _Parts, download_timeout: float | None) -> FileMaker:
        seconds = self._download_seconds(download_timeout)
        return _FileMaker(parts.fetcher, self._trusts_private_files(), seconds)

    def _handle(
        self, work: JobWork, start_timeout: float | None, callback_timeout: float | None
    ) -> Job[Any]:
        return Job(
            work,
            start_timeout=checked_seconds("start_timeout", start_timeout, self._start_timeout),
            callback_timeout=checked_seconds(
                "callback_timeout", callback_timeout, self._callback_timeout
            ),
        )

    def _download_seconds(self, given: float | None) -> float:
        return checked_seconds("download_timeout", given, self._download_timeout)

    def _trusts_private_files(self) -> bool:
        return self._allow_private_files or self._is_near()

    def _is_near(self) -> bool:
        """Whether AF10 is at a private address, as the sandbox is."""
        base = urlsplit(self._settings.base_url)
        return base.scheme == "http" or is_private_host(base.hostname or "")


@dataclass(frozen=True, slots=True)
class _FileMaker:
    """Makes the result of a job whose payload is the address of a file."""

    fetcher: Fetcher
    is_trusted: bool
    download_timeout: float

    def __call__(self, url: str, work: JobWork) -> RemoteFile:
        return RemoteFile(
            self.fetcher,
            url,
            is_trusted=self.is_trusted,
            download_timeout=self.download_timeout,
            owner=work,
        )


class _Requester:
    """Sends one account's calls, and renews its token once when AF10 refuses it."""

    def __init__(
        self, settings: Settings, transport: Transport, authenticator: Authenticator
    ) -> None:
        self._credentials = _credentials(settings)
        self._api_key = settings.api_key.get_secret_value()
        self._transport = transport
        self._authenticator = authenticator
        self._token = ""

    async def session(self) -> Session:
        session = await self._authenticator.session()
        self._token = session.token
        return session

    def secrets(self) -> tuple[str, ...]:
        return (*self._credentials, self._token)

    async def request(self, call: wire.Call, departure: Departure | None = None) -> wire.Reply:
        session = await self.session()
        reply = await self._send(call, session, departure)
        if not wire.is_token_refused(reply):
            return reply
        logger.debug("the token was refused; renewing it")
        if departure is not None:
            departure.sent = False  # what was refused for its token has not happened
        session = await self._authenticator.session(refused=session)
        self._token = session.token
        return await self._send(call, session, departure)

    async def _send(
        self, call: wire.Call, session: Session, departure: Departure | None
    ) -> wire.Reply:
        headers = {"token": session.token, "apikey": self._api_key}
        return await self._transport.send(
            call, session.api_url, headers, timeout=REQUEST_TIMEOUT, departure=departure
        )


def _read_ticket(text: str) -> Ticket:
    try:
        return read_ticket(text)
    except TicketError as error:
        raise ConfigurationError(str(error)) from None


def _credentials(settings: Settings) -> tuple[str, ...]:
    found = (settings.api_key, settings.username, settings.password)
    return tuple(each.get_secret_value() for each in found)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
