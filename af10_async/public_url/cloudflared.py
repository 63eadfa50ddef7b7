"""An address at Cloudflare, by the program `cloudflared`, which is started and watched."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..errors import ConfigurationError, PublicURLError
from ..runtime import Runtime
from ..shelter import ended, to_its_end
from .base import LocalServer, PublicURL, Tell
from .cloudflared_run import CloudflaredRun, TunnelPlan

__all__ = ["Cloudflared"]

logger = logging.getLogger("af10_async.public_url")

FIRST_PAUSE = 1.0
"""Seconds before it is started again; twice as many each time, until it has run well."""
LONGEST_PAUSE = 60.0
"""Most of them; and how long a run lasts that went well."""

# At "warn", which the environment or a file may ask for, it would not say that it is connected;
# at "debug" it would print the headers of every request.
_ALWAYS = ("tunnel", "--no-autoupdate", "--loglevel", "info")
_TOKEN_VARIABLES = frozenset({"TUNNEL_TOKEN", "TUNNEL_TOKEN_FILE"})
_WHICH_TUNNEL = frozenset(
    {
        *("TUNNEL_NAME", "TUNNEL_HOSTNAME", "TUNNEL_URL", "TUNNEL_UNIX_SOCKET"),
        *("TUNNEL_HELLO_WORLD", "TUNNEL_SOCKS", "TUNNEL_BASTION"),
    }
)
"""Variables by which it would run something else than what it is told to."""
_HOSTNAME = re.compile(r"(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]*")
_INSTALL = (
    "install it (https://developers.cloudflare.com/cloudflare-one/networks/connectors/"
    "cloudflare-tunnel/downloads/), give its path as program=, or set another public URL"
)


class Cloudflared(PublicURL):
    """A tunnel of Cloudflare: a quick one, which needs no account, or one with a hostname.

    A quick tunnel has a new address each time it starts; Cloudflare means it for trying things out.
    A tunnel with a hostname is one that was created on this machine (then give its name or id), or
    one that is managed in Cloudflare's dashboard, whose token is in the environment variable
    `TUNNEL_TOKEN`. The rules of the latter lead to a port, so the callback server needs that one.

    The program ends with us, however we end. When it ends by itself, it is started again.

    Args:
        hostname: The public name, such as `af10.example.com`; without it, a quick tunnel.
        tunnel: Name or id of the tunnel that the name leads to; without it, that of the token.
        program: What is started; a name that is looked for on PATH, or a path.
        start_timeout: Seconds until it must be connected.
        runtime: Where pauses come from.

    Raises:
        ConfigurationError: The hostname is none, or there is a tunnel without one.

    """

    def __init__(
        self,
        *,
        hostname: str | None = None,
        tunnel: str | None = None,
        program: str = "cloudflared",
        start_timeout: float = 30.0,
        runtime: Runtime | None = None,
    ) -> None:
        self._hostname = hostname.lower() if hostname is not None else None
        self._tunnel = tunnel
        self._program = program
        self._start_timeout = start_timeout
        self._runtime = runtime or Runtime()
        self.may_change = hostname is None
        self._check()

    def _check(self) -> None:
        if self._hostname is not None and not _HOSTNAME.fullmatch(self._hostname):
            raise ConfigurationError(
                "hostname= of a tunnel must be a name such as af10.example.com, without https:// "
                "in front and without port or path"
            )
        if self._tunnel is None:
            return
        if self._hostname is None:
            raise ConfigurationError("a named tunnel needs hostname=, the public name it has")
        if not self._tunnel or self._tunnel.startswith("-"):
            raise ConfigurationError("tunnel= must be the name or the id of a tunnel")

    def __repr__(self) -> str:
        return f"Cloudflared(hostname={self._hostname!r}, tunnel={self._tunnel!r})"

    @asynccontextmanager
    async def open(self, local: LocalServer, tell: Tell) -> AsyncIterator[str]:
        """See `PublicURL.open`."""
        tunnel = _Tunnel(self._plan(local), tell, self._start_timeout, self._runtime)
        try:
            yield await tunnel.open()
        finally:
            await to_its_end(tunnel.close())

    def _plan(self, local: LocalServer) -> TunnelPlan:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("AF10_")  # credentials that are no concern of it
            and name not in _WHICH_TUNNEL
            and (self._has_token or name not in _TOKEN_VARIABLES)
        }
        if self._has_token and not environment.keys() & _TOKEN_VARIABLES:
            raise PublicURLError(
                f"no tunnel for {self._hostname}: give its name as tunnel=, or set TUNNEL_TOKEN to "
                "the token that Cloudflare's dashboard shows for it"
            )
        command = (self._found(), *self._arguments(local))
        return TunnelPlan(command, environment, self._hostname, local.port)

    @property
    def _has_token(self) -> bool:
        return self._hostname is not None and self._tunnel is None

    def _found(self) -> str:
        found = shutil.which(self._program)
        if found is None:
            raise PublicURLError(
                f"cloudflared is not installed: there is no program {self._program!r}; {_INSTALL}"
            )
        return found

    def _arguments(self, local: LocalServer) -> list[str]:
        # The local certificate is for the public name, while it asks for the local one.
        target = ["--url", local.url, *(["--no-tls-verify"] if local.is_tls else [])]
        if self._hostname is None:
            # A config.yml of the user is for other tunnels; by its rules, the address of this one
            # would answer 404. So an empty file takes its place.
            return [*_ALWAYS, "--config", os.devnull, *target]
        if self._tunnel is None:
            return [*_ALWAYS, "run"]
        return [*_ALWAYS, "run", *target, self._tunnel]


class _Tunnel:
    """One tunnel that is open: its run, and who starts it again."""

    def __init__(
        self, plan: TunnelPlan, tell: Tell, start_timeout: float, runtime: Runtime
    ) -> None:
        self._plan = plan
        self._tell = tell
        self._start_timeout = start_timeout
        self._runtime = runtime
        self._pause = FIRST_PAUSE
        self._run = CloudflaredRun(plan, runtime)
        self._keeper: asyncio.Task[None] | None = None

    async def open(self) -> str:
        """Start the program, and see to it from then on. Gives its address."""
        url = await self._run.begin(self._start_timeout)
        self._keeper = asyncio.create_task(self._keep(), name="af10_async cloudflared")
        return url

    async def close(self) -> None:
        """End everything. Must not be cancelled."""
        if self._keeper is not None:
            await ended(self._keeper)
        await self._run.end()

    async def _keep(self) -> None:
        while True:
            since = self._runtime.monotonic()
            reason = await self._run.reason_of_end()
            self._tell(None)
            await to_its_end(self._run.end())
            logger.warning("%s; the public address is gone until it runs again", reason)
            if self._runtime.monotonic() - since >= LONGEST_PAUSE:
                self._pause = FIRST_PAUSE
            url = await self._again()
            logger.warning("cloudflared runs again")
            self._tell(url)

    async def _again(self) -> str:
        while True:
            await self._runtime.sleep(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._run = CloudflaredRun(self._plan, self._runtime)
            try:
                return await self._run.begin(self._start_timeout)
            except PublicURLError as error:
                await to_its_end(self._run.end())
                logger.warning("%s; tried again in %g s", error, self._pause)
