"""The stand-in AF10: its life, its addresses, and what a test may ask it."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from .accounts import Account, AccountBook
from .api import Api
from .caller import Caller, callback_url
from .delivery import Delivery
from .faults import FaultPlan
from .front import API_PATH, BOOTSTRAP_PATH, FILE_PATH, Front
from .jobs import JobBook, SandboxJob
from .records import RequestLog, Seen
from .tls import Authority
from .vehicles import make_vehicles

__all__ = ["Sandbox"]

logger = logging.getLogger("af10_async.sandbox")

_KEEP_ALIVE_SECONDS = 75.0
_SHUTDOWN_SECONDS = 1.0


class _AiohttpLog(logging.LoggerAdapter[logging.Logger]):
    """aiohttp logs the request when it is malformed, secrets and all: not here."""

    def log(self, level: int, msg: object, *args: object, **kwargs: object) -> None:
        logger.debug("aiohttp had something to say about a request")


class Sandbox:
    """A stand-in AF10 on this machine; an async context manager.

    Args:
        host: The address to bind.
        port: The port to bind; 0 takes any free one.
        tls: Serve https, with a certificate of its own authority (`ca_file`).
        job_seconds: From the accepted POST to the callback.
        file_size: The exact size of each zip archive, in bytes.
        accounts: Who may log in; one made-up account when not given.
        token_seconds: How long a token is good.
        file_seconds: How long after redeeming a file's address is good; None for ever.
        vehicles: How many vehicles each account has in stock.
        callback_ca: A PEM file that is trusted, beside the system and its own authority, when an
            https webhook is called.
        max_requests: How many of the latest requests it remembers.
        webhook_paths: The paths whose POST starts a job.

    Raises:
        ValueError: when an argument makes no sense.
        ImportError: when a certificate is needed and the extra `sandbox` is not installed.

    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: bool = False,
        job_seconds: float = 0.0,
        file_size: int = 64 * 1024,
        accounts: Sequence[Account] | None = None,
        token_seconds: float = 1800.0,
        file_seconds: float | None = None,
        vehicles: int = 250,
        callback_ca: str | Path | None = None,
        max_requests: int = 100_000,
        webhook_paths: Sequence[str] = ("/backup/owner",),
    ) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._authority = Authority(callback_ca)
        self._accounts = AccountBook((Account(),) if accounts is None else accounts, token_seconds)
        self._jobs = JobBook(file_size, file_seconds)
        self._log = RequestLog(max_requests)
        self.faults = FaultPlan()
        self._caller = Caller(job_seconds, self._authority.client_context)
        self._stock = make_vehicles(vehicles)
        self._webhook_paths = tuple(webhook_paths)
        self._front: Front | None = None
        self._runner: web.AppRunner | None = None
        self._origin: str | None = None

    # -- its life ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._runner is not None:
            raise RuntimeError("the sandbox is running already")
        try:
            await self._listen()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    async def _listen(self) -> None:
        self._front = self._new_front()
        context = self._authority.server_context(self._host) if self._tls else None
        self._runner = web.AppRunner(
            self._front.app(),
            access_log=None,
            logger=_AiohttpLog(logger),
            handle_signals=False,
            keepalive_timeout=_KEEP_ALIVE_SECONDS,
            lingering_time=0.0,
            auto_decompress=False,
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port, ssl_context=context)
        await site.start()
        self._origin = _origin(self._host, int(self._runner.addresses[0][1]), context)

    def _new_front(self) -> Front:
        api = Api(
            self._accounts,
            self._jobs,
            self._caller,
            self.faults,
            self._stock,
            lambda: self.api_url,
            self._file_url,
        )
        delivery = Delivery(self._jobs)
        known = (self._accounts, self._jobs, self.faults, self._log)
        return Front(*known, api, delivery, self._webhook_paths)

    async def _close(self) -> None:
        runner, self._runner = self._runner, None
        front, self._front = self._front, None
        if front is not None:
            front.hang_up()
        try:
            await self._caller.close()
            if runner is not None:
                await runner.cleanup()
            if front is not None:
                await front.gone()
        finally:
            self._authority.close()

    # -- where it is -------------------------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """The bootstrap URL: only for `/authenticate` and `/util/environment`."""
        return self._running_origin() + BOOTSTRAP_PATH

    @property
    def api_url(self) -> str:
        """Where all other calls live; `/authenticate` says so."""
        return self._running_origin() + API_PATH

    @property
    def ca_file(self) -> Path | None:
        """The PEM file to trust when it serves https; None when it does not."""
        return self._authority.ca_pem if self._tls else None

    @property
    def ca_pem(self) -> Path:
        """The PEM file of its authority, made when first asked for; removed when it closes."""
        return self._authority.ca_pem

    def issue_certificate(self, *names: str) -> tuple[Path, Path]:
        """A certificate for a server of yours, which the sandbox trusts when it calls back.

        Args:
            names: Host names or addresses, such as `127.0.0.1` and `localhost`.

        Returns:
            The PEM files of the certificate chain and of its key; removed when it closes.

        """
        return self._authority.issue(*names)

    # -- who may log in ----------------------------------------------------------------------------

    @property
    def accounts(self) -> tuple[Account, ...]:
        """All accounts."""
        return self._accounts.accounts

    @property
    def api_key(self) -> str:
        """The first account's key."""
        return self.accounts[0].api_key

    @property
    def username(self) -> str:
        """The first account's username."""
        return self.accounts[0].username

    @property
    def password(self) -> str:
        """The first account's password."""
        return self.accounts[0].password

    def expire_tokens(self) -> None:
        """Refuse every token given so far."""
        self._accounts.expire_all()

    # -- what happened -----------------------------------------------------------------------------

    @property
    def requests(self) -> list[Seen]:
        """The requests that arrived, oldest first."""
        return self._log.seen

    def count(self, method: str, path: str) -> int:
        """How many requests arrived with this method and path, such as `/backup/owner`."""
        return self._log.count(method, path)

    @property
    def jobs(self) -> list[SandboxJob]:
        """The jobs that were posted, oldest first."""
        return self._jobs.jobs

    def archive(self, job: SandboxJob) -> bytes:
        """The job's file, whole in memory."""
        archive = self._jobs.archive(job)
        return archive.read(0, archive.size)

    def archive_sha256(self, job: SandboxJob) -> str:
        """The digest of the job's file, in hexadecimal."""
        return self._jobs.archive(job).sha256

    # -- callbacks ---------------------------------------------------------------------------------

    async def call_back(
        self,
        job: SandboxJob,
        *,
        secret: str | None = None,
        url: str | None = None,
        method: str = "GET",
    ) -> int | None:
        """Make a callback for this job now; it is ready from now on.

        Args:
            job: One of `jobs`.
            secret: The id to bring; the genuine one when not given.
            url: The whole URL to call, instead of the webhook URL with `id` added.
            method: The method to call it with.

        Returns:
            The HTTP status of the answer; None when there was none (see `job.callbacks`).

        """
        if secret is None:
            job.become_ready()
        return await self._caller.call(
            job, method, url or callback_url(job.webhook_url, secret or job.secret)
        )

    async def settled(self) -> None:
        """Wait until no callback is due or under way."""
        await self._caller.settled()

    # -- inside ------------------------------------------------------------------------------------

    def _running_origin(self) -> str:
        if self._origin is None:
            raise RuntimeError("the sandbox is not running: enter it with `async with`")
        return self._origin

    def _file_url(self, job: SandboxJob) -> str:
        link = self._jobs.good_link(job)
        return f"{self._running_origin()}{FILE_PATH}/{link.token}/{job.filename}"


def _origin(host: str, port: int, context: ssl.SSLContext | None) -> str:
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    host = f"[{host}]" if ":" in host else host
    return f"{'http' if context is None else 'https'}://{host}:{port}"
