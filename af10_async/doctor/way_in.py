"""The way that a callback takes: listening port, public address, certificate, round trip."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast
from urllib.parse import urlsplit

from ..callback_server import CallbackServer
from ..errors import (
    AF10Error,
    CallbackServerError,
    ConfigurationError,
    MissingExtraError,
    PortInUseError,
    PublicURLError,
    StoreError,
    UnreachableError,
)
from ..protocol.addresses import is_private_host
from ..public_url import LocalServer, PublicURL, Tell
from ..public_url.choose import chosen
from ..reachability import Reached, check_reachable
from ..receiving import Probed
from ..remote_receiver import RemoteReceiver, shared_secret
from ..runtime import Runtime
from ..settings import ConnectionSettings
from ..stores import Store
from .certificate import check_certificate
from .configuration import Configuration
from .findings import Finding, State, because_of, failed, failed_with, passed, skipped
from .keeping import Keeping

_NEAR = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound
_NO_WAY = "neither AF10_PUBLIC_URL nor a certificate (AF10_TLS_CERT, AF10_TLS_KEY) is set"


class _Later(PublicURL):
    """Opened when the server has listened for a while, so that one can be told from the other."""

    may_change = False

    def __init__(self) -> None:
        self.tell: Tell = lambda url: None

    @asynccontextmanager
    async def open(self, local: LocalServer, tell: Tell) -> AsyncIterator[str]:
        """There is no address yet."""
        self.tell = tell
        yield cast(str, None)


class WayIn:
    """From the public address to a callback server, here or in another process.

    Args:
        configuration: What the environment says.
        keeping: The store.
        stack: Ends what is started here.
        timeout: Seconds for each question that is asked over the network.
        runtime: Time and chance.

    """

    def __init__(
        self,
        configuration: Configuration,
        keeping: Keeping,
        stack: AsyncExitStack,
        timeout: float,
        runtime: Runtime,
    ) -> None:
        self._settings = configuration.receiving
        self._base_url: str | None = configuration.values.get("base_url")
        self._keeping = keeping
        self._stack = stack
        self._timeout = timeout
        self._runtime = runtime
        self._later = _Later()
        self._local: LocalServer | None = None
        self._receiver: Probed | None = None
        self._reached: Reached | None = None
        self._url: str | None = None
        self._is_trusted = True
        """Unless the certificate at the address is known to be no good."""

    # -- listening port ----------------------------------------------------------------------------

    async def port(self) -> Finding:
        """Listen, and go on doing so until the examination ends."""
        settings = self._settings
        if settings is None:
            return because_of("configuration", "the settings of the receiver are not complete")
        if settings.receives_elsewhere:
            return await self._elsewhere(settings)
        if settings.public_url is None and settings.tls_cert is None:
            return because_of("public URL", "there is nothing to listen for")
        try:
            return await self._listened(settings)
        except PortInUseError as error:
            return await self._in_use(settings, error)
        except StoreError:
            return because_of("store", "the callback server cannot do without its store")
        except (ConfigurationError, CallbackServerError) as error:
            return failed_with(error, "correct AF10_LISTEN_HOST and AF10_LISTEN_PORT")

    async def _elsewhere(self, settings: ConnectionSettings) -> Finding:
        store = self._keeping.store
        if store is not None:
            self._receiver = await self._remote(settings, settings.fixed_url or "", store)
        return skipped(
            "another process receives the callbacks: neither AF10_LISTEN_PORT nor a certificate is"
            " set",
            "examine that one (`af10 receive`) where it runs",
        )

    async def _listened(self, settings: ConnectionSettings) -> Finding:
        # With a handle of its own on the store: a server that cannot start closes what it opened.
        arguments = settings.server_arguments() | {"store": self._keeping.place}
        if self._keeping.place is None:
            # Another secret, too: a genuine callback that came now must be turned away rather than
            # be taken and lost.
            arguments["callback_secret"] = None
        server = CallbackServer(**arguments | {"public_url": self._later}, runtime=self._runtime)
        await self._stack.enter_async_context(server)
        self._receiver, self._local = server, _local(settings, server.port)
        host, port = settings.listen_host, server.port
        how = "with TLS" if settings.tls_cert else "without TLS, for a proxy or a tunnel in front"
        return passed(
            f"{host} port {port}, {how}",
            host=host,
            port=port,
            is_tls=settings.tls_cert is not None,
        )

    async def _in_use(self, settings: ConnectionSettings, error: PortInUseError) -> Finding:
        """It is no fault when the service that is examined is what listens there."""
        self._local = _local(settings, settings.listen_port or 0)
        for url in (self._local.url, settings.fixed_url):
            if url is not None and await self._is_ours(settings, url):
                return passed(
                    f"port {settings.listen_port} is in use by a callback server of yours: it has"
                    " the same callback secret",
                    port=settings.listen_port,
                    is_in_use=True,
                )
        finding = failed_with(error, "", separators=(": ",))
        advice = f"{finding.advice}\nif it is your own service, let both share AF10_STORE and"
        advice += " AF10_CALLBACK_SECRET: then it is recognised"
        return failed(finding.message, advice, port=settings.listen_port, **finding.details)

    async def _is_ours(self, settings: ConnectionSettings, url: str) -> bool:
        store = self._keeping.store
        if store is None:
            return False
        receiver = await self._remote(settings, url, store)
        try:
            # Two of them must end before the check is cut off.
            reached = await self._asked(settings, receiver, self._timeout / 3)
        except UnreachableError:
            return False
        self._receiver = receiver
        self._reached = reached if url == settings.fixed_url else None
        if self._reached is None and settings.fixed_url is not None:
            self._receiver = await self._remote(settings, settings.fixed_url, store)
        return True

    async def _remote(self, settings: ConnectionSettings, url: str, store: Store) -> RemoteReceiver:
        given = settings.callback_secret
        secret = await shared_secret(
            store, given.get_secret_value() if given else None, self._runtime
        )
        return RemoteReceiver(url, secret)

    # -- public URL --------------------------------------------------------------------------------

    async def address(self) -> Finding:
        """Find the public address, or open the tunnel."""
        settings = self._settings
        if settings is None:
            return because_of("configuration", "the settings of the receiver are not complete")
        if settings.public_url is None and settings.tls_cert is None:
            return failed(
                f"AF10 has nothing to call back: {_NO_WAY}",
                "set AF10_PUBLIC_URL to the https address that leads here, or to a tunnel (ngrok,"
                " cloudflared)",
            )
        if not self._has_something_behind(settings):
            return because_of("listening port", "there is no server here that it could lead to")
        try:
            url = await self._opened(settings)
        except (PublicURLError, MissingExtraError, ConfigurationError) as error:
            return failed_with(error, "correct AF10_PUBLIC_URL")
        self._url = url
        return self._judged(settings, url)

    def _has_something_behind(self, settings: ConnectionSettings) -> bool:
        """A tunnel leads to a server of ours only; one that runs elsewhere has its own."""
        if settings.fixed_url is not None:
            return True
        if settings.public_url is not None:
            return isinstance(self._receiver, CallbackServer)
        return self._local is not None

    async def _opened(self, settings: ConnectionSettings) -> str:
        if settings.receives_elsewhere:
            return settings.fixed_url or ""
        way = chosen(
            settings.public_url,
            has_tls=settings.tls_cert is not None,
            host=settings.listen_host,
            runtime=self._runtime,
        )
        local = self._local or _local(settings, settings.listen_port or 0)
        url = await self._stack.enter_async_context(way.open(local, self._later.tell))
        self._later.tell(url)
        return url

    def _judged(self, settings: ConnectionSettings, url: str) -> Finding:
        if is_private_host(urlsplit(url).hostname or "") and not self._is_near():
            return failed(
                f"{url} is an address of this machine or of a private network, which AF10 cannot"
                " reach",
                "set AF10_PUBLIC_URL to a public address, or to a tunnel (ngrok, cloudflared)",
                url=url,
            )
        kind = "tunnel" if settings.public_url and settings.fixed_url is None else "address"
        return passed(f"{url}, by a tunnel" if kind == "tunnel" else url, url=url, kind=kind)

    def _is_near(self) -> bool:
        """Whether AF10 is at a private address, as the sandbox is."""
        base = urlsplit(self._base_url or "")
        return base.scheme == "http" or is_private_host(base.hostname or "")

    # -- certificate and round trip ----------------------------------------------------------------

    async def certificate(self) -> Finding:
        """See what a caller of the public address is shown."""
        if self._url is None or self._settings is None:
            return because_of("public URL", "there is no address to ask")
        finding = await check_certificate(
            self._url,
            ca_file=self._settings.ca_file,
            is_near=self._is_near(),
            timeout=self._timeout,
            now=self._runtime.now,
        )
        self._is_trusted = finding.state is not State.FAILED
        return finding

    async def round_trip(self) -> Finding:
        """Ask the public address for a nonce, as AF10 would call back."""
        if self._url is None or self._settings is None:
            return because_of("public URL", "there is no address to ask")
        if not self._is_trusted:
            return because_of("certificate", "no caller would trust the address")
        if self._receiver is None:
            check = "store" if self._settings.receives_elsewhere else "listening port"
            return because_of(check, "there is nobody who could answer")
        try:
            reached = self._reached or await self._asked(self._settings, self._receiver)
        except UnreachableError as error:
            finding = failed_with(error, "", separators=(": ",))
            return failed(
                finding.message, finding.advice, problem=str(error.problem), url=error.url
            )
        except AF10Error as error:
            return failed_with(error, "mend the public URL first")
        who = "this server" if reached.is_here else "another server over the same store"
        return passed(
            f"{who} answers at the public URL, in {reached.seconds * 1000:.0f} ms",
            is_here=reached.is_here,
            sender=reached.sender,
            milliseconds=round(reached.seconds * 1000, 1),
        )

    async def _asked(
        self, settings: ConnectionSettings, receiver: Probed, timeout: float | None = None
    ) -> Reached:
        return await check_reachable(
            receiver,
            timeout=timeout or self._timeout,
            ca_file=settings.ca_file,
            runtime=self._runtime,
        )


def _local(settings: ConnectionSettings, port: int) -> LocalServer:
    host = _NEAR.get(settings.listen_host, settings.listen_host)
    return LocalServer(host, port, settings.tls_cert is not None)
