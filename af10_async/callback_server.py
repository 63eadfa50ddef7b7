"""A receiver of callbacks that listens by itself, and sees to it that the world can reach it."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from .callback_claims import Orphan, OrphanHandler
from .callback_receiver import CallbackReceiver
from .errors import (
    CallbackServerError,
    ClosedError,
    ConfigurationError,
    PortInUseError,
    PublicURLError,
    StoreError,
)
from .events import EventHandler
from .public_url import LocalServer, PublicURL
from .public_url.certificates import certificate_files
from .public_url.choose import chosen
from .public_url.fixed import FixedURL, OwnAddress
from .remote_receiver import DEFAULT_PREFIX
from .runtime import Runtime
from .stores import Store

if TYPE_CHECKING:
    from .callback_http import Listening

__all__ = ["CallbackServer", "Orphan", "OrphanHandler"]

logger = logging.getLogger("af10_async.callback_server")
certificate_logger = logging.getLogger("af10_async.public_url")

KEEP_ALIVE = 15.0
"""Seconds that a connection may be idle, or take over the head of a request."""
KEEP_ALIVE_BEHIND_PROXY = 75.0
"""Longer than proxies keep connections that they do not use (60 s for most)."""
_MOST_REMEMBERED = 100_000
"""Most jobs of which it is known which address they were given."""
_MOST_NAMED = 20
"""Most jobs that one warning names."""


class CallbackServer(CallbackReceiver):
    """Receives callbacks at a port of its own, for one client or for many.

    Args:
        host: The address to bind, such as `127.0.0.1` or `0.0.0.0`.
        port: The port to bind; 0 takes any free one.
        public_url: The https address under which AF10 reaches this server, without a query; or the
            tunnel that leads to it: `ngrok`, `ngrok-agent`, `cloudflared` or any `PublicURL` (see
            docs/reachability.md). Without it, the server must have a certificate, and its own
            address is used.
        prefix: The path in front of the keys.
        tls_cert: A PEM file with the certificate chain; together with `tls_key` it turns TLS on.
            Both are picked up again when they are renewed.
        tls_key: A PEM file with the private key.
        store: Where the jobs are kept: a URL as `AF10Client` takes it, or a store; in memory when
            not given.
        callback_secret: What the keys are signed with. The same on every replica; when not given,
            it is made at random and kept in the store.
        trusted_proxies: Addresses or networks (`10.0.0.0/8`) of the proxies in front. Only what
            they say in `X-Forwarded-For` and `X-Forwarded-Proto` is believed.
        keep_alive: Seconds that a connection may be idle, or take over the head of a request: 15
            when not given, 75 when there are trusted proxies. It must be longer than a proxy keeps
            connections to this server.
        max_connections: Most connections at a time, above which idle ones are closed; when not
            given, half of the open files that this process may have, and at most 1,000, of which
            200 are served at a time with TLS.
        preflight: On entry, see whether the public address leads here.
        ca_file: Certificates that the preflight trusts beside the usual ones, a PEM file.
        on_orphan: Called (or awaited) with an `Orphan` when a genuine callback arrives that no
            living job claims.
        on_event: Called with a `CallbackReceived` for each callback that was kept; or several to be
            called.

    Raises:
        ConfigurationError: on a public URL or certificate that cannot be used.
        PortInUseError: on entry, when the port is taken.
        PublicURLError: on entry, when a tunnel gives no address.
        UnreachableError: on entry with `preflight`, when the address does not lead here.

    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        public_url: str | PublicURL | None = None,
        prefix: str = DEFAULT_PREFIX,
        tls_cert: str | Path | None = None,
        tls_key: str | Path | None = None,
        store: str | Store | None = None,
        callback_secret: str | None = None,
        trusted_proxies: Iterable[str] = (),
        keep_alive: float | None = None,
        max_connections: int | None = None,
        preflight: bool = False,
        ca_file: str | Path | None = None,
        on_orphan: OrphanHandler | None = None,
        on_event: EventHandler | Sequence[EventHandler] | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        if not isinstance(trusted_proxies, str):
            trusted_proxies = tuple(trusted_proxies)
        self._set_up(prefix, store, callback_secret, trusted_proxies, on_orphan, on_event, runtime)
        self._host = host
        self._port = port
        # What looks at something again and again does so for ever: its sleep must be a real one.
        watching = replace(self._runtime, sleep=asyncio.sleep)
        self._certificate = certificate_files(tls_cert, tls_key, runtime=watching)
        self._way = chosen(
            public_url,
            has_tls=self._certificate is not None,
            host=host,
            runtime=watching,
        )
        if isinstance(self._way, FixedURL):
            self._has_address(self._way.url)
        self._keep_alive = keep_alive or (
            KEEP_ALIVE_BEHIND_PROXY if trusted_proxies else KEEP_ALIVE
        )
        self._max_connections = max_connections
        self._preflight = preflight
        self._ca_file = ca_file
        self._listening: Listening | None = None
        self._is_down = self._is_dead = self._is_told = False
        self._addressed: dict[str, str] = {}
        """The address that each job was given, where it may become another."""

    @classmethod
    def from_env(
        cls,
        *,
        on_orphan: OrphanHandler | None = None,
        on_event: EventHandler | Sequence[EventHandler] | None = None,
        preflight: bool = False,
    ) -> Self:
        """A server from `AF10_*` variables, without the credentials of an account.

        It reads `AF10_PUBLIC_URL`, `AF10_LISTEN_HOST`, `AF10_LISTEN_PORT`, `AF10_TLS_CERT`,
        `AF10_TLS_KEY`, `AF10_CA_FILE`, `AF10_TRUSTED_PROXIES`, `AF10_CALLBACK_SECRET` and
        `AF10_STORE`.

        Raises:
            ConfigurationError: names the variable that is missing or malformed.

        """
        # Imported when it is needed: pydantic costs more than all of this package.
        from .settings import ServerSettings

        return cls(
            **ServerSettings.from_env().server_arguments(),
            on_orphan=on_orphan,
            on_event=on_event,
            preflight=preflight,
        )

    # -- its life ----------------------------------------------------------------------------------

    async def _begin(self, stack: AsyncExitStack) -> None:
        stack.callback(self._forget)
        if self._certificate is not None:
            await stack.enter_async_context(self._certificate)
        # Left in reverse: requests under way are finished before the way to here is closed.
        self._listening = listening = await self._listen()
        async with AsyncExitStack() as way:
            try:
                given = await way.enter_async_context(self._way.open(self._local(), self._tell))
                if not self._is_told:  # else what was told meanwhile is newer
                    self._is_at(given)
                self._look_at_name()
                if self._preflight:
                    await self._see_whether_reached()
            except BaseException:
                await listening.close()
                raise
            stack.push_async_exit(way.pop_all())
        stack.push_async_callback(listening.close)

    async def _see_whether_reached(self) -> None:
        # It takes requests by now, but is not running before all of its entry is done.
        from .reachability import reached

        await reached(self, ca_file=self._ca_file, runtime=self._runtime)

    def _look_at_name(self) -> None:
        """Say so when callers would refuse the certificate for the name that they are given."""
        certificate, way = self._certificate, self._way
        if certificate is None or not isinstance(way, FixedURL | OwnAddress):
            return
        host = urlsplit(self.public_url).hostname or ""
        if not certificate.covers(host):
            # Behind a proxy that speaks TLS by itself, nobody else sees this certificate.
            certificate_logger.log(
                logging.INFO if self._trusted else logging.WARNING,
                "the certificate (tls_cert) is not for %s, the host of the public address: AF10"
                " refuses it when it connects to this server directly; get one for this name, or"
                " name the proxy in front (trusted_proxies)",
                host,
            )

    def _forget(self) -> None:
        self._listening = None
        self._is_down = self._is_dead = self._is_told = False
        if self._way.may_change or isinstance(self._way, OwnAddress):
            self._has_address(None)
        self._addressed.clear()

    async def _listen(self) -> Listening:
        # Imported by who listens only: with aiohttp it costs more than all of this package.
        from .callback_http import Listening

        listening = Listening(
            self.handle,
            keep_alive=self._keep_alive,
            most=self._max_connections,
            on_death=self._has_died,
            runtime=self._runtime,
        )
        tls = self._certificate.context if self._certificate is not None else None
        try:
            await listening.start(self._host, self._port, tls)
        except OSError as error:
            raise _bind_error(error, self._host, self._port) from None
        return listening

    def _has_died(self) -> None:
        """Nobody waits for what cannot come any more."""
        self._is_dead = True
        self._do(self._interrupt())

    @property
    def is_running(self) -> bool:
        """Whether it receives."""
        return super().is_running and not self._is_dead

    def closed_error(self) -> ClosedError:
        """What to raise for who needs it to run, when it does not."""
        if self._is_dead:
            return ClosedError(
                "the callback server cannot listen any more (the log says why): leave it, and enter"
                " it again",
                sent=False,
            )
        return super().closed_error()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        if self._listening is None:
            raise self.closed_error()
        return self._listening.port

    def _local(self) -> LocalServer:
        near = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - not bound
        host = near.get(self._host, self._host)
        return LocalServer(host, self.port, self._certificate is not None)

    # -- its address -------------------------------------------------------------------------------

    @property
    def public_url(self) -> str:
        """The address under which AF10 reaches it, without the prefix.

        Raises:
            ClosedError: it is not known before the server is entered; or nothing listens any more.
            PublicURLError: a tunnel is down for now.

        """
        if self._is_dead:
            raise self.closed_error()
        if self._is_down:
            raise PublicURLError(
                "the tunnel to the callback server is down for now: try again when it is back, or"
                " see in the log why it is",
                sent=False,
                retryable=True,
            )
        return super().public_url

    def webhook_url(self, key: str) -> str:
        """The address that AF10 calls for the job with this key."""
        url = super().webhook_url(key)
        if self._way.may_change and key not in self._arrivals:  # a probe is no job
            self._addressed[key] = self.public_url
            if len(self._addressed) > _MOST_REMEMBERED:
                del self._addressed[next(iter(self._addressed))]
        return url

    def _tell(self, url: str | None) -> None:
        """As `_is_at`, for what the way to here says by itself."""
        if self._takes_requests:  # else it has been closed
            self._is_told = self._is_told or url is not None
            self._is_at(url)

    def _is_at(self, url: str | None) -> None:
        """From now on, the world reaches it there; None: not at all, for now."""
        self._is_down = True
        if url is None:
            return
        new, old = self._checked_address(url), self._public_url
        self._is_down = False
        if new == old:
            return
        self._has_address(new)
        if old is not None:
            lost = [key for key, address in self._addressed.items() if address == old]
            self._do(self._warn_of_old_address(old, new, lost))

    def _checked_address(self, url: str) -> str:
        try:
            return FixedURL(url).url
        except ConfigurationError:
            raise PublicURLError(
                f"{type(self._way).__name__} gives an address that AF10 cannot call: it must be"
                " https, and have no query",
                sent=False,
            ) from None

    async def _warn_of_old_address(self, old: str, new: str, keys: Sequence[str]) -> None:
        waiting = await self._expected(keys)
        named = ", ".join(waiting[:_MOST_NAMED]) or "none"
        more = f" and {len(waiting) - _MOST_NAMED} more" if len(waiting) > _MOST_NAMED else ""
        logger.warning(
            "the public address has changed from %s to %s: AF10 calls the old one for jobs that"
            " were started before, and their callbacks may not arrive: %s%s",
            *(old, new, named, more),
        )

    async def _expected(self, keys: Sequence[str]) -> list[str]:
        """Those of these jobs that wait for a callback; when the store does not say, the rest."""
        found: list[str] = []
        for number, key in enumerate(keys):
            self._addressed.pop(key, None)
            try:
                record = await self.store.get(key)
            except StoreError:
                return [*found, *keys[number:]]
            if record is not None and not record.is_done and not record.secrets:
                found.append(key)
        return found

    def _heard_of(self, key: str) -> None:
        self._addressed.pop(key, None)


def _bind_error(error: OSError, host: str, port: int) -> CallbackServerError:
    if error.errno == errno.EADDRINUSE:
        return PortInUseError(
            f"port {port} on {host} is in use: stop what listens there, or choose another"
            " listen_port (AF10_LISTEN_PORT)"
        )
    return CallbackServerError(
        f"cannot listen on {host} port {port}: {error.strerror}; check listen_host and listen_port"
    )
