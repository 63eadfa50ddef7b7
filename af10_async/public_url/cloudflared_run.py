"""One run of the program `cloudflared`, from its start until it is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import PublicURLError
from ..protocol.cloudflared import (
    Heard,
    RemoteRules,
    Trouble,
    advice,
    misled_to,
    presentable,
    read,
)
from ..runtime import Runtime
from ..shelter import to_its_end
from .deadlines import done_within
from .program import ProgramRun

logger = logging.getLogger("af10_async.public_url")

ERRORS_PER_HOUR = 10
"""Most of its error lines that are logged as warnings; the rest goes to DEBUG."""


@dataclass(frozen=True)
class TunnelPlan:
    """What is started, and what for."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    hostname: str | None
    port: int
    """Where the callback server listens."""

    @property
    def secrets(self) -> list[str]:
        """What must stand in no text."""
        return [self.environment.get("TUNNEL_TOKEN", "")]

    def shown(self, text: str) -> str:
        """Words of the program as people may see them."""
        return presentable(text, self.secrets)


class CloudflaredRun:
    """One run of the program, and what it has said."""

    def __init__(self, plan: TunnelPlan, runtime: Runtime) -> None:
        self._plan = plan
        self._runtime = runtime
        self._heard = Heard(f"https://{plan.hostname}" if plan.hostname else None)
        self._program = ProgramRun(plan.command, plan.environment, self._hear, runtime)
        self._news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when it is ready, or has ended."""
        self._end: asyncio.Task[int] | None = None
        self._log = _ErrorLog(runtime)

    async def begin(self, start_timeout: float) -> str:
        """Start it, and wait until it is connected. Gives its address.

        Raises:
            PublicURLError: It did not start, ended, or was not ready in time. `end` is needed.

        """
        try:
            await to_its_end(self._start())
        except OSError as error:
            raise PublicURLError(
                f"cloudflared did not start: {error.strerror}; is the system out of processes or "
                "files?",
                retryable=True,
            ) from error
        await done_within(self._news, start_timeout, self._runtime)
        if self._end is not None and self._end.done():
            raise self._ended_early(self._end.result())
        if self._heard.url is None or not self._heard.is_connected:
            raise self._late(start_timeout)
        return self._heard.url

    async def _start(self) -> None:
        self._end = await self._program.start()
        self._end.add_done_callback(lambda _: self._settle())

    async def end(self) -> None:
        """End the program, if it runs. Must not be cancelled."""
        await self._program.end()

    async def reason_of_end(self) -> str:
        """Wait until the program ends by itself, and say how."""
        assert self._end is not None  # it has begun
        await asyncio.wait([self._end])
        return f"cloudflared has ended{self._how(self._end.result())}"

    def _settle(self) -> None:
        if not self._news.done():
            self._news.set_result(None)

    def _hear(self, line: str) -> None:
        event = read(line)
        self._log.line(self._plan, line, is_error=self._is_error(event))
        self._heard = self._heard.with_event(event)
        if isinstance(event, RemoteRules):
            self._check(event)
        if self._heard.is_ready:
            self._settle()

    def _is_error(self, event: object) -> bool:
        """Whether somebody should know now; until it is ready, who waits for it gets told."""
        return isinstance(event, Trouble) and event.is_certain and self._heard.is_ready

    def _check(self, remote: RemoteRules) -> None:
        if self._plan.hostname is None:
            return
        services = misled_to(remote.rules, self._plan.hostname, self._plan.port)
        if services is not None:
            logger.warning(
                "callbacks will not arrive: requests for %s go to %s by the tunnel's rules at "
                "Cloudflare, but the callback server listens on port %d; let the one lead to the "
                "other",
                self._plan.hostname,
                " or ".join(map(self._plan.shown, services)) or "no service at all",
                self._plan.port,
            )

    def _ended_early(self, status: int) -> PublicURLError:
        return PublicURLError(
            f"cloudflared ended before it was connected{self._how(status)}; {advice(self._heard)}",
            retryable=self._heard.is_limited,
        )

    def _late(self, start_timeout: float) -> PublicURLError:
        what = "gave no address" if self._heard.url is None else "was not connected to Cloudflare"
        return PublicURLError(
            f"cloudflared {what} within {start_timeout:g} s{self._words()}; {advice(self._heard)}",
            retryable=True,
        )

    def _how(self, status: int) -> str:
        return f" with exit status {status}{self._words()}"

    def _words(self) -> str:
        trouble = self._heard.trouble
        return f" ({self._plan.shown(trouble.text)})" if trouble else ""


class _ErrorLog:
    """Logs what the program prints: its errors as warnings, but not without end."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._since = runtime.monotonic()
        self._count = 0

    def line(self, plan: TunnelPlan, line: str, *, is_error: bool) -> None:
        """Log one line, without what nobody should see."""
        level = logging.WARNING if is_error and self._may_warn() else logging.DEBUG
        if logger.isEnabledFor(level):
            logger.log(level, "cloudflared says: %s", plan.shown(line))

    def _may_warn(self) -> bool:
        now = self._runtime.monotonic()
        if now - self._since >= 3600:
            self._since, self._count = now, 0
        self._count += 1
        return self._count <= ERRORS_PER_HOUR
