"""The stand-in AF10: its life, its addresses, and what a test may ask it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .accounts import Account, AccountBook
from .accounts_file import write_accounts_file
from .api import Api
from .caller import Caller, callback_url
from .delivery import Delivery
from .endpoints import Endpoints
from .faults import FaultPlan
from .front import API_PATH, BOOTSTRAP_PATH, FILE_PATH, RESERVED_PATHS, Front
from .jobs import JobBook, SandboxJob
from .listener import Listener
from .records import RequestLog, Seen
from .stocks import Stocks
from .tls import Authority
from .traffic import Gate, Quota, Traffic
from .vehicle_api import VehicleApi
from .vehicles import Vehicle

__all__ = ["Sandbox"]


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
        vehicles: How many vehicles each account has in stock to begin with.
        quota: How many requests each account may send, files aside, in any `quota_seconds`; what
            is over gets 429, and is told when to come back. None for any number.
        quota_seconds: See `quota`.
        max_concurrent: How many requests each account may have under way, files aside; what is
            over gets 429. None for any number.
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
        quota: int | None = None,
        quota_seconds: float = 60.0,
        max_concurrent: int | None = None,
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
        self._stocks = Stocks(vehicles)
        self._endpoints = Endpoints()
        self._traffic = Traffic()
        self._gate = Gate(Quota(quota, quota_seconds), self._traffic, max_concurrent)
        self._webhook_paths = tuple(webhook_paths)
        self._front: Front | None = None
        self._listener: Listener | None = None
        self._origin: str | None = None

    # -- its life ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._listener is not None:
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
        self._listener = Listener(self._front.app(), context)
        self._origin = await self._listener.listen(self._host, self._port)

    def _new_front(self) -> Front:
        api = Api(
            self._accounts,
            self._jobs,
            self._caller,
            self.faults,
            VehicleApi(self._stocks),
            self._endpoints,
            lambda: self.api_url,
            self._file_url,
        )
        known = (self._accounts, self._jobs, self.faults, self._log)
        answering = (api, Delivery(self._jobs), self._endpoints)
        return Front(*known, *answering, self._traffic, self._gate, self._webhook_paths)

    async def _close(self) -> None:
        listener, self._listener = self._listener, None
        front, self._front = self._front, None
        if front is not None:
            front.hang_up()
        try:
            await self._caller.close()
            if listener is not None:
                await listener.close()
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

    def write_accounts(self, path: str | Path) -> None:
        """Write a TOML file of all accounts, for clients; readable by its owner only.

        It has `base_url` (and `ca_file`), and for each account a table `[accounts.NAME]` with
        `api_key`, `username` and `password`. The name is the username; when one of these cannot be
        a name, they are all `account-1`, `account-2` and so on. The file outlives the sandbox.

        Raises:
            FileExistsError: when there is something there that no sandbox wrote.
            OSError: when it cannot be written; nothing has changed then.

        """
        write_accounts_file(Path(path), self.base_url, self.ca_file, self.accounts)

    # -- what it answers ---------------------------------------------------------------------------

    def answers(self, method: str, path: str, answer: Any) -> None:
        """Have an endpoint of your own, for accounts that are logged in.

        Saying it again changes the answer. `/vehicle` can be taken over; what logs in and what
        works with webhooks cannot (`webhook_paths` is for more of these).

        Args:
            method: Such as `POST`.
            path: Relative to the API, such as `/customer/12`. A `*` at the end stands for anything;
                of several that fit, one without it goes first, then the longest.
            answer: A JSON value, an `Answer`, or a function of the request (`Seen`) that gives one
                of these; it may be async.

        Raises:
            ValueError: when there can be no such endpoint.

        Example:
            `sandbox.answers("GET", "/customer/*", lambda seen: {"data": {"path": seen.path}})`

        """
        if path in (*RESERVED_PATHS, *self._webhook_paths):
            raise ValueError(
                f"path={path!r} is the sandbox's own: use faults to change its answers"
            )
        self._endpoints.add(method, path, answer)

    def vehicles(self, account: str | None = None) -> list[Vehicle]:
        """What the account of this username has in stock now: copies; of the first one if None."""
        rows = self._stocks.rows(self._known(account) or self.username)
        return [dict(row) for row in rows.values()]

    # -- what happened -----------------------------------------------------------------------------

    @property
    def requests(self) -> list[Seen]:
        """The requests that arrived, oldest first."""
        return self._log.seen

    def count(self, method: str, path: str) -> int:
        """How many requests arrived with this method and path, such as `/backup/owner`."""
        return self._log.count(method, path)

    def most_concurrent(self, account: str | None = None) -> int:
        """How many requests, files aside, were under way at the same time, at most.

        Those of this username, or of all when not given; what was turned away counts as well.
        """
        return self._traffic.most(self._known(account))

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

    def _known(self, username: str | None) -> str | None:
        if username is not None and self._accounts.named(username) is None:
            raise ValueError(f"no account of this sandbox has the username {username!r}")
        return username

    def _file_url(self, job: SandboxJob) -> str:
        link = self._jobs.good_link(job)
        return f"{self._running_origin()}{FILE_PATH}/{link.token}/{job.filename}"
