"""The way that a callback takes: listening port, public address, certificate, round trip."""

from __future__ import annotations

from contextlib import AsyncExitStack
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
from ..protocol.public_url import Tunnel
from ..public_url import LocalServer
from ..public_url.choose import chosen
from ..reachability import Reached
from ..receiving import Probed
from ..remote_receiver import RemoteReceiver
from ..runtime import Runtime
from ..settings import ConnectionSettings
from .certificate import check_certificate
from .configuration import Configuration
from .findings import Finding, State, because_of, failed, failed_with, passed, skipped
from .keeping import Keeping
from .later import Later
from .neighbours import Neighbours, is_taken, known_address

_NEAR = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound
_RECOGNISED = (
    "if it is your own service, let both share AF10_STORE and AF10_CALLBACK_SECRET: then it is"
    " recognised"
)
_NO_WAY = "neither AF10_PUBLIC_URL nor a certificate (AF10_TLS_CERT, AF10_TLS_KEY) is set"


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
        ca_file = None if self._settings is None else self._settings.ca_file
        self._neighbours = Neighbours(keeping, ca_file, timeout, runtime)
        self._later = Later()
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
        if self._keeping.store is not None:
            self._receiver = await self._neighbours.at(settings.fixed_url or "")
        return skipped(
            "another process receives the callbacks: neither AF10_LISTEN_PORT nor a certificate is"
            " set",
            "examine that one (`af10 receive`) where it runs",
        )

    async def _listened(self, settings: ConnectionSettings) -> Finding:
        # With a handle of its own on the store: a server that cannot start closes what it opened.
        arguments = settings.server_arguments() | {"store": self._keeping.another_handle()}
        if arguments["store"] is None:
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
        for url in (self._local.url, known_address(settings)):
            if url is not None and await self._is_ours(settings, url):
                return passed(
                    f"port {settings.listen_port} is in use by a callback server of yours: it has"
                    " the same callback secret",
                    port=settings.listen_port,
                    is_in_use=True,
                )
        finding = failed_with(error, "", separators=(": ",))
        advice = f"{finding.advice}\n{_RECOGNISED}"
        return failed(finding.message, advice, port=settings.listen_port, **finding.details)

    async def _is_ours(self, settings: ConnectionSettings, url: str) -> bool:
        if self._keeping.store is None:
            return False
        try:
            reached = await self._neighbours.found_at(url)
        except UnreachableError:
            return False
        known = known_address(settings)
        self._receiver = await self._neighbours.at(known or url)
        self._reached = reached if url == known else None
        return True

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
        tunnel = settings.tunnel
        if tunnel is not None and (finding := await self._left_alone(settings, tunnel)):
            return finding
        try:
            url = await self._opened(settings)
        except (PublicURLError, MissingExtraError, ConfigurationError) as error:
            return failed_with(error, "correct AF10_PUBLIC_URL")
        self._url = url
        if tunnel is not None and self._is_beside:
            self._receiver = await self._neighbours.at(url)
        return self._judged(settings, url)

    def _has_something_behind(self, settings: ConnectionSettings) -> bool:
        """A tunnel leads to a server of ours only."""
        if settings.fixed_url is not None:
            return True
        return (self._local if settings.public_url is None else self._receiver) is not None

    @property
    def _is_beside(self) -> bool:
        """Whether the service that is examined runs already, and so has a tunnel of its own."""
        return isinstance(self._receiver, RemoteReceiver)

    async def _left_alone(self, settings: ConnectionSettings, tunnel: Tunnel) -> Finding | None:
        """Do not open a tunnel that is open already: part of the callbacks would come here."""
        url = known_address(settings)
        if url is not None:
            return await self._held(tunnel, url)
        if not self._is_beside or tunnel.kind == "ngrok-agent":  # which has one for all who ask
            return None
        return skipped(
            "only the callback server of yours that runs already knows the address of its tunnel",
            "ask it (`await af10.check_reachable()`), or stop it and examine once more",
        )

    async def _held(self, tunnel: Tunnel, url: str) -> Finding | None:
        advice = ""
        try:
            self._reached = self._reached or await self._neighbours.found_at(url)
            whose = "by the tunnel of a callback server of yours that runs already"
        except UnreachableError as error:
            if self._is_beside:
                whose = "by the tunnel of your callback server at the listening port"
            elif is_taken(tunnel, error):
                whose, advice = "where a server answers already", _RECOGNISED
            else:
                return None
        self._url, self._receiver = url, await self._neighbours.at(url)
        message = f"{url}, {whose}; none was opened here"
        return passed(message, advice, url=url, kind="tunnel", is_in_use=True)

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
            reached = self._reached or await self._neighbours.asked(self._receiver)
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


def _local(settings: ConnectionSettings, port: int) -> LocalServer:
    host = _NEAR.get(settings.listen_host, settings.listen_host)
    return LocalServer(host, port, settings.tls_cert is not None)
