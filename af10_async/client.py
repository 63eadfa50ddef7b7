"""AF10Client: one AF10 account, and what can be asked of it."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from .callback_receiver import CallbackReceiver, Orphan, OrphanHandler
from .calls import QuickCalls
from .download_source import MIN_SPEED, STALL_TIMEOUT, Fetcher, Limits
from .downloader import DOWNLOAD_TIMEOUT, checked_seconds, host_names
from .errors import ClosedError, ConfigurationError
from .events import EventHandler, Events
from .job_operations import no_receiver
from .job_services import Services
from .limits import PER_ACCOUNT
from .operations import Operations
from .parts import Options, Parts, retry_policy, running_here
from .protocol.addresses import is_private_host
from .protocol.retry import RetryBudget, RetryPolicy
from .requester import REQUEST_TIMEOUT, Credentials, Requester
from .resources import RETRY_BURST, RETRY_RATE, Resources
from .runtime import Runtime
from .transport import HTTPClient, Transport
from .waits import Waits

if TYPE_CHECKING:
    from .public_url import PublicURL
    from .reachability import Reached

__all__ = ["AF10Client"]

START_TIMEOUT = 60.0
CALLBACK_TIMEOUT = 3600.0


class AF10Client(Operations):
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
            (`AF10_PUBLIC_URL`); goes with `listen_port`. Or the tunnel that leads to it: `ngrok`,
            `ngrok-agent`, `cloudflared` or any `PublicURL`. Not needed when the server has a
            certificate and AF10 reaches it directly.
        listen_host: The address that the callback server binds (`AF10_LISTEN_HOST`).
        listen_port: Its port (`AF10_LISTEN_PORT`); any free one when not given.
        tls_cert: A PEM file with the callback server's certificate chain (`AF10_TLS_CERT`).
        tls_key: A PEM file with its private key (`AF10_TLS_KEY`).
        ca_file: A PEM file with certificates to trust beside the usual ones (`AF10_CA_FILE`).
        trusted_proxies: Addresses or networks of the proxies in front (`AF10_TRUSTED_PROXIES`, with
            commas): only what they say of where a callback comes from is believed.
        callback_secret: What the job keys are signed with (`AF10_CALLBACK_SECRET`); at random, and
            kept where the jobs are kept, when not given.
        store: Where jobs are kept (`AF10_STORE`): `memory:`, `sqlite:PATH`, `redis://…` or
            `valkey://…`. With a store that processes share and a `public_url` but no `listen_port`,
            another process receives the callbacks (`af10 receive`), and this one only waits.
        preflight: On entry, see whether the public address leads here (`check_reachable`).
        callback_server: A server of your own that is running, perhaps shared by many clients, or a
            `CallbackReceiver` inside an app of yours; it replaces the arguments from `public_url`
            to `tls_key`, and from `trusted_proxies` to `store`, and is left running.
        http_client: An `httpx.AsyncClient` or `httpx2.AsyncClient` of your own; it is used for
            everything and left open. Its own proxies, certificates and limits then count, and the
            addresses that the names of files lead to are not checked.
        on_orphan: Called (or awaited) with an `Orphan` when a genuine callback arrives that no
            living job claims; `job(orphan.key)` takes it up.
        timeout: Seconds for each attempt of a quick call.
        start_timeout: Seconds for AF10 to accept a job.
        callback_timeout: Seconds for AF10 to call back and hand over the payload.
        download_timeout: Seconds for a whole download.
            For these, `math.inf` means no limit. Each job may have its own, and so may each call
            (`with_options`).
        stall_timeout: Seconds without a byte of a file after which its connection counts as broken.
        min_speed: Bytes a second, on the average over `stall_timeout`, below which it does, too.
        allowed_hosts: The hosts (and what is below them) that files may come from; others are
            refused before anything is sent. None: any host.
        allow_private_files: Fetch files from addresses of private networks too, and over http.
            Always so when AF10 itself is at a private address, as the sandbox is.
        retries: How often, and after what pauses, a failed request is sent again where that is
            harmless: a policy, or a number of repetitions.
        max_concurrency: Most requests that this client has under way at a time. All clients of an
            event loop together have at most 200, and take turns.
        name: What events and logs call this client.
        on_event: Called with each event of its calls, jobs, callbacks and downloads (see
            `af10_async.events`); or several to be called.
        runtime: Time, chance and sleep, for tests.

    Raises:
        ConfigurationError: a value is missing or malformed; nothing was sent.
        PortInUseError: on entry, when the callback server's port is taken.
        PublicURLError: on entry, when a tunnel gives no address.
        UnreachableError: on entry with `preflight`, when callbacks would not arrive.

    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        username: str,
        password: str,
        organization_name: str | None = None,
        public_url: str | PublicURL | None = None,
        listen_host: str | None = None,
        listen_port: int | None = None,
        tls_cert: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        trusted_proxies: Sequence[str] | None = None,
        callback_secret: str | None = None,
        store: str | None = None,
        preflight: bool = False,
        callback_server: CallbackReceiver | None = None,
        http_client: HTTPClient | None = None,
        on_orphan: OrphanHandler | None = None,
        timeout: float = REQUEST_TIMEOUT,
        start_timeout: float = START_TIMEOUT,
        callback_timeout: float = CALLBACK_TIMEOUT,
        download_timeout: float = DOWNLOAD_TIMEOUT,
        stall_timeout: float = STALL_TIMEOUT,
        min_speed: float = MIN_SPEED,
        allowed_hosts: Sequence[str] | None = None,
        allow_private_files: bool = False,
        retries: RetryPolicy | int | None = None,
        max_concurrency: int = PER_ACCOUNT,
        name: str | None = None,
        on_event: EventHandler | Sequence[EventHandler] | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        # Imported when it is needed: pydantic costs more than all of this package.
        from .settings import OF_THE_SERVER, Settings

        self._settings = Settings.from_arguments(
            without=OF_THE_SERVER if callback_server is not None else (),
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
            trusted_proxies=trusted_proxies,
            callback_secret=callback_secret,
            store=store,
        )
        self._preflight = preflight
        self._credentials = Credentials(
            self._settings.api_key.get_secret_value(),
            self._settings.username.get_secret_value(),
            self._settings.password.get_secret_value(),
            self._settings.organization_name,
        )
        self._account = _account_of(self._credentials)
        self._name = name
        self._given_server = callback_server
        self._http_client = http_client
        self._on_orphan = on_orphan
        self._on_event = on_event
        self._events = Events(on_event, name)
        self._limits = Limits(stall_timeout, min_speed).checked()
        self._allowed_hosts = host_names(allowed_hosts)
        self._allow_private_files = allow_private_files
        self._max_concurrency = _checked_concurrency(max_concurrency)
        self._runtime = runtime or Runtime()
        self._shared: Resources | None = None
        self._parts: Parts | None = None
        self._stack: AsyncExitStack | None = None
        self._is_leaving = False
        options = Options(
            checked_seconds("timeout", timeout),
            retry_policy(retries, RetryPolicy()) if retries is not None else RetryPolicy(),
            checked_seconds("start_timeout", start_timeout),
            checked_seconds("callback_timeout", callback_timeout),
            checked_seconds("download_timeout", download_timeout),
        )
        super().__init__(self, options)

    @classmethod
    def from_env(cls, **arguments: Any) -> Self:
        """A client from `AF10_*` variables, over which keyword arguments win.

        Each secret may also be given as `..._FILE`, a file that holds it.

        Raises:
            ConfigurationError: names the variable that is missing or malformed, and says what it
                expects.

        """
        from .settings import OF_THE_SERVER, Settings

        settings = {name: arguments.pop(name) for name in Settings.model_fields.keys() & arguments}
        without = OF_THE_SERVER if arguments.get("callback_server") is not None else ()
        found = Settings.from_env(without=without, **settings).model_dump(exclude_none=True)
        return cls(**found, **arguments)

    def __repr__(self) -> str:
        name = f" {self._name}" if self._name else ""
        return f"<AF10Client{name} of {self._settings.base_url}>"

    @property
    def name(self) -> str | None:
        """What events and logs call it."""
        return self._name

    @property
    def account(self) -> str:
        """What stores and tickets call its account: a digest that says nothing."""
        return self._account

    # -- its life ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise ClosedError("this client was entered before; make a new one", sent=False)
        self._stack = AsyncExitStack()
        try:
            self._parts = await self._assemble(self._stack)
            if self._preflight:
                await self.check_reachable()
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

    async def _assemble(self, stack: AsyncExitStack) -> Parts:
        resources = self._shared
        if resources is None:
            resources = await stack.enter_async_context(self._make_resources())
        transport = resources.transport(self._settings.ca_file)
        requester = self._make_requester(resources, transport)
        stack.push_async_callback(requester.close)
        calls, downloads, jobs = Waits(), Waits(), Waits()
        for waits in (calls, downloads, jobs):
            stack.push_async_callback(waits.close)
        await self._enter_server(stack, resources, jobs)
        return Parts(
            loop=asyncio.get_running_loop(),
            process=os.getpid(),
            requester=requester,
            calls=QuickCalls(requester, calls, self._runtime),
            fetcher=Fetcher(
                transport,
                downloads,
                self._options.retries,
                self._runtime,
                self._limits,
                self._allowed_hosts,
                self._events,
                self._account,
                self._max_concurrency,
            ),
            services=Services(
                account=self._account,
                store=resources.store,
                receiver=resources.receiver,
                requester=requester,
                waits=jobs,
                policy=self._options.retries,
                runtime=self._runtime,
            ),
            username=self._credentials.username,
            trusts_private_files=self._allow_private_files or self._is_near(),
            works=WeakValueDictionary(),
        )

    def _make_resources(self) -> Resources:
        return Resources(
            self._settings,
            runtime=self._runtime,
            callback_server=self._given_server,
            http_client=self._http_client,
            on_event=self._on_event,
        )

    def _make_requester(self, resources: Resources, transport: Transport) -> Requester:
        return Requester(
            self._credentials,
            self._settings.base_url,
            transport,
            account=self._account,
            policy=self._options.retries,
            budgets=(RetryBudget(RETRY_RATE, RETRY_BURST), resources.budget),
            events=self._events,
            runtime=self._runtime,
            most_at_once=self._max_concurrency,
        )

    async def _enter_server(self, stack: AsyncExitStack, resources: Resources, jobs: Waits) -> None:
        server = resources.server
        if server is None:
            return
        # Before it is entered: it tells those who wait before it closes its store.
        on_orphan = self._orphan_handler()
        server.attach(jobs.close, on_orphan)
        stack.callback(server.detach, jobs.close, on_orphan)
        if self._shared is None:
            await resources.enter_server(stack)
        resources.warn_of_unreachable(self._is_near())

    def _orphan_handler(self) -> OrphanHandler | None:
        handler, account = self._on_orphan, self._account
        if handler is None:
            return None

        def tell(orphan: Orphan) -> object:
            # A server that many clients share tells each of its own, and of those of nobody.
            return handler(orphan) if orphan.account in (None, account) else None

        return tell

    def open_parts(self) -> Parts:
        """What it works with.

        Raises:
            ClosedError: it is not entered, or not here.

        """
        parts = self._parts
        if parts is None:
            raise ClosedError("enter the client first: `async with client:`", sent=False)
        if self._is_leaving:
            raise ClosedError("the client is closed", sent=False)
        running_here(parts)
        return parts

    @property
    def callback_url(self) -> str | None:
        """The public https address at which callbacks arrive; None when there is none."""
        receiver = self.open_parts().services.receiver
        return receiver.public_url if receiver else None

    async def check_reachable(self, *, timeout: float = 10.0) -> Reached:
        """Ask the public address for a fresh nonce, and see whether it arrives at the receiver.

        What `ca_file` holds is trusted beside the usual authorities.

        Args:
            timeout: Seconds for all of it.

        Raises:
            UnreachableError: callbacks would not arrive; says which link is broken (`problem`), and
                what to do.
            PublicURLError: a tunnel is down for now.
            ConfigurationError: there is neither a public address nor a certificate.

        """
        from .reachability import check_reachable

        receiver = self.open_parts().services.receiver
        if receiver is None:
            raise no_receiver()
        return await check_reachable(
            receiver, timeout=timeout, ca_file=self._settings.ca_file, runtime=self._runtime
        )

    async def authenticate(self) -> None:
        """Make sure that there is a good token. Every call does so by itself.

        Raises:
            AuthenticationError: AF10 does not accept the credentials.
            NetworkError, APIError, BadResponseError: it could not be asked.

        """
        await self.open_parts().requester.session()

    def _is_near(self) -> bool:
        """Whether AF10 is at a private address, as the sandbox is."""
        base = urlsplit(self._settings.base_url)
        return base.scheme == "http" or is_private_host(base.hostname or "")


def client_over(resources: Resources, **arguments: Any) -> AF10Client:
    """A client over resources that it shares with others, and that outlive it."""
    client = AF10Client(**arguments)
    client._shared = resources
    return client


def _account_of(credentials: Credentials) -> str:
    """Tells accounts apart in a store without naming them there."""
    names = (credentials.api_key, credentials.username, credentials.organization_name or "")
    return hashlib.sha256("\0".join(names).encode()).hexdigest()[:32]


def _checked_concurrency(most: int) -> int:
    if most < 1:
        raise ConfigurationError("max_concurrency must be at least 1")
    return most
