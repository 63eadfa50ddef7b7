"""Fleet: many accounts over one callback server, one store and one set of connections."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from .accounts import Account, read_accounts
from .callback_receiver import CallbackReceiver
from .client import AF10Client, client_over
from .download import RemoteFile, SavedFile
from .errors import AF10Error, ClosedError, ConfigurationError, JobNotFoundError
from .events import EventHandler
from .job_operations import no_receiver, ticket_from
from .job_services import Receiver
from .jobs import Job
from .limits import ConcurrencyLimit
from .outcomes import CONCURRENCY, PATIENCE, Outcome, outcomes_of
from .protocol.tickets import is_ticket
from .resources import Resources
from .retention import keep_in
from .runtime import Runtime
from .shelter import in_thread
from .transport import HTTPClient

if TYPE_CHECKING:
    from .public_url import PublicURL
    from .reachability import Reached
    from .settings import ConnectionSettings

__all__ = ["Fleet"]

T = TypeVar("T")

_NOBODY: dict[str, Any] = {"api_key": "x", "username": "x", "password": "x"}
MAX_REQUESTS = 100
"""Most requests of the whole fleet that are under way at a time."""
MAX_REQUESTS_EACH = 16
"""Most of one account."""


class Fleet:
    """The clients of many accounts: an async context manager.

    What one account does (a wrong password, an answer that never comes, a huge file) neither delays
    nor breaks another.

    ```python
    async with Fleet.from_env("accounts.toml") as fleet:
        async for outcome in fleet.backup_owner(save_to="backups/"):
            print(outcome.account, outcome.error or outcome.result.path)
    ```

    Args:
        accounts: A TOML file (see `af10_async.accounts`), or accounts.
        public_url: As for `AF10Client`, and so are the others up to `store`: they are for all.
        listen_host: As for `AF10Client`.
        listen_port: As for `AF10Client`.
        tls_cert: As for `AF10Client`.
        tls_key: As for `AF10Client`.
        ca_file: As for `AF10Client`; an account may have its own.
        trusted_proxies: As for `AF10Client`.
        callback_secret: As for `AF10Client`.
        store: As for `AF10Client`.
        preflight: On entry, see whether the public address leads here.
        callback_server: A server of your own that is running; left running.
        http_client: An HTTP client of your own for all accounts; left open.
        max_requests: Most requests to AF10 that are under way at a time, of all accounts.
        max_requests_each: Most of one account.
        on_event: Called with each event of each account.
        runtime: Time, chance and sleep, for tests.
        options: More keyword arguments of `AF10Client`, for each: timeouts, `retries`, ...

    Raises:
        ConfigurationError: a value is malformed, or the file of accounts is. What is wrong with one
            account alone is that account's outcome.
        PortInUseError: on entry, when the callback server's port is taken.

    """

    def __init__(
        self,
        accounts: str | os.PathLike[str] | Iterable[Account],
        *,
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
        max_requests: int = MAX_REQUESTS,
        max_requests_each: int = MAX_REQUESTS_EACH,
        on_event: EventHandler | Sequence[EventHandler] | None = None,
        runtime: Runtime | None = None,
        **options: Any,
    ) -> None:
        # Imported when it is needed: pydantic costs more than all of this package.
        from .settings import OF_THE_SERVER, ConnectionSettings

        settings = ConnectionSettings.from_arguments(
            without=OF_THE_SERVER if callback_server is not None else (),
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
        self._accounts = _checked_accounts(accounts)
        self._runtime = runtime or Runtime()
        self._limit = ConcurrencyLimit(max_requests)
        self._resources = functools.partial(
            self._make_resources, settings, callback_server, http_client, on_event
        )
        self._options = {
            **options,
            "max_concurrency": max_requests_each,
            "on_event": on_event,
            "runtime": self._runtime,
        }
        # What would be wrong for each account is said now, and once.
        AF10Client(base_url="https://x.invalid", **_NOBODY, **self._options)
        self._ca_file = ca_file
        self._clients: dict[str, AF10Client] = {}
        self._broken: dict[str, AF10Error] = {}
        self._receiver: Receiver | None = None
        self._stack: AsyncExitStack | None = None

    @classmethod
    def from_env(
        cls, accounts: str | os.PathLike[str] | Iterable[Account], **arguments: Any
    ) -> Self:
        """A fleet whose common settings come from `AF10_*` variables.

        Keyword arguments win over them. The variables of one account (`AF10_API_KEY`, ...) are not
        read.

        Raises:
            ConfigurationError: names the variable that is malformed, and says what it expects.

        """
        from .settings import OF_THE_SERVER, ConnectionSettings

        names = ConnectionSettings.model_fields.keys() & arguments
        given = {name: arguments.pop(name) for name in names}
        without = OF_THE_SERVER if arguments.get("callback_server") is not None else ()
        found = ConnectionSettings.from_env(without=without, **given)
        return cls(accounts, **found.model_dump(exclude_none=True), **arguments)

    def _make_resources(
        self,
        settings: ConnectionSettings,
        callback_server: CallbackReceiver | None,
        http_client: HTTPClient | None,
        on_event: EventHandler | Sequence[EventHandler] | None,
    ) -> Resources:
        return Resources(
            settings,
            runtime=self._runtime,
            callback_server=callback_server,
            http_client=http_client,
            limit=self._limit,
            on_event=on_event,
        )

    # -- its life ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise ClosedError("this fleet was entered before; make a new one", sent=False)
        self._stack = AsyncExitStack()
        try:
            resources = await self._stack.enter_async_context(self._resources())
            await resources.enter_server(self._stack)
            self._receiver = resources.receiver
            if self._preflight:
                await self.check_reachable()
            # The keyring of the system may ask somebody, or take its time.
            found = await in_thread(lambda: [_resolved(each) for each in self._accounts])
            for account, arguments in zip(self._accounts, found, strict=True):
                await self._enter(account.name, resources, arguments)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _enter(
        self, name: str, resources: Resources, arguments: dict[str, Any] | AF10Error
    ) -> None:
        assert self._stack is not None  # it is being entered
        if isinstance(arguments, AF10Error):
            self._broken[name] = arguments
            return
        ca_file = arguments.pop("ca_file", None) or self._ca_file
        try:
            client = client_over(
                resources, name=name, ca_file=ca_file, **arguments, **self._options
            )
            self._refuse_twin(client)
            self._clients[name] = await self._stack.enter_async_context(client)
        except ConfigurationError as error:
            self._broken[name] = ConfigurationError(f"account {name}: {error.message}")
        except AF10Error as error:
            self._broken[name] = error
        except Exception as error:  # whatever it is, the others go on
            self._broken[name] = _unusable(name, error)

    def _refuse_twin(self, client: AF10Client) -> None:
        """A store could not tell their jobs apart, and would give those of one to the other."""
        for name, other in self._clients.items():
            if other.account == client.account:
                raise ConfigurationError(
                    f"it has the credentials of {name}: put it into a fleet with a store of its own"
                )

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._stack is not None:
            await self._stack.aclose()

    def __repr__(self) -> str:
        return f"<Fleet of {len(self._accounts)} accounts>"

    def __len__(self) -> int:
        return len(self._accounts)

    def __iter__(self) -> Iterator[str]:
        return (account.name for account in self._accounts)

    def __getitem__(self, name: str) -> AF10Client:
        """The client of one account.

        Raises:
            KeyError: there is no account of this name.
            ConfigurationError: its settings cannot be used.
            ClosedError: the fleet is not entered.

        """
        if name in self._broken:
            raise self._broken[name].fresh()
        if name in self._clients:
            return self._clients[name]
        if name in iter(self):
            raise ClosedError("enter the fleet first: `async with fleet:`", sent=False)
        raise KeyError(name)

    async def check_reachable(self, *, timeout: float = 10.0) -> Reached:
        """As `AF10Client.check_reachable`, for the address that all accounts share."""
        from .reachability import check_reachable

        return await check_reachable(
            self._entered_receiver(), timeout=timeout, ca_file=self._ca_file, runtime=self._runtime
        )

    @property
    def callback_url(self) -> str:
        """The public https address at which the callbacks of all accounts arrive.

        Raises:
            ClosedError: the fleet is not entered.
            ConfigurationError: there is none, so no job can be started.

        """
        return self._entered_receiver().public_url

    async def unfinished(
        self, *, accounts: Iterable[str] | None = None
    ) -> AsyncGenerator[tuple[str, Job[Any]], None]:
        """The unfinished jobs of all accounts, or of those named, each with the account's name.

        See `AF10Client.unfinished`. Accounts whose settings cannot be used are passed over.
        """
        self._check_entered()
        wanted = None if accounts is None else set(accounts)
        for name, client in self._clients.items():
            if wanted is not None and name not in wanted:
                continue
            async for job in client.unfinished():
                yield name, job

    def _entered_receiver(self) -> Receiver:
        self._check_entered()
        if self._receiver is None:
            raise no_receiver()
        return self._receiver

    def _check_entered(self) -> None:
        if self._stack is None:
            raise ClosedError("enter the fleet first: `async with fleet:`", sent=False)

    async def owner_of(self, key: str) -> AF10Client:
        """The client whose job this key or ticket names.

        Raises:
            JobNotFoundError: none of these accounts has such a job.
            ConfigurationError: the ticket is damaged, or of a newer release.
            StoreError: the store cannot be used.

        """
        self._check_entered()
        account = await self._account_of(key)
        for client in self._clients.values():
            if client.account == account:
                return client
        raise JobNotFoundError(
            "none of these accounts has a job under this key; check the key, and whether the store"
            " that held the job is the one in use"
        )

    async def _account_of(self, key: str) -> str | None:
        if is_ticket(key):
            return ticket_from(key).account
        client = next(iter(self._clients.values()), None)
        record = await client.open_parts().services.store.get(key) if client else None
        return record.account if record is not None else None

    # -- all at once -------------------------------------------------------------------------------

    def each(
        self,
        work: Callable[[AF10Client], Awaitable[T]],
        *,
        concurrency: int = CONCURRENCY,
        patience: float = PATIENCE,
        accounts: Iterable[str] | None = None,
    ) -> AsyncGenerator[Outcome[T], None]:
        """Do something for each account; the outcomes as they come.

        Leaving the loop early cancels what is under way.

        Args:
            work: What to do with a client; whatever it raises is that account's outcome.
            concurrency: How many accounts are worked on at a time.
            patience: Seconds after which one that is still not done no longer counts among these,
                so that those which hang do not keep the others from their turn.
            accounts: The names of those it is for; all when not given.

        Raises:
            KeyError: there is no account of such a name.
            ConfigurationError: `concurrency` is less than 1.

        """
        if concurrency < 1:
            raise ConfigurationError("concurrency must be at least 1")
        known = dict.fromkeys(self)
        names = list(known if accounts is None else dict.fromkeys(accounts))
        for name in names:
            if name not in known:
                raise KeyError(name)

        async def one(name: str) -> T:
            return await work(self[name])

        return outcomes_of(names, one, concurrency=concurrency, patience=patience)

    @overload
    def backup_owner(
        self,
        *,
        concurrency: int = ...,
        patience: float = ...,
        accounts: Iterable[str] | None = ...,
        save_to: None = None,
    ) -> AsyncGenerator[Outcome[RemoteFile], None]: ...
    @overload
    def backup_owner(
        self,
        *,
        concurrency: int = ...,
        patience: float = ...,
        accounts: Iterable[str] | None = ...,
        save_to: str | os.PathLike[str],
        keep: int | None = ...,
    ) -> AsyncGenerator[Outcome[SavedFile], None]: ...
    def backup_owner(
        self,
        *,
        concurrency: int = CONCURRENCY,
        patience: float = PATIENCE,
        accounts: Iterable[str] | None = None,
        save_to: str | os.PathLike[str] | None = None,
        keep: int | None = None,
    ) -> AsyncGenerator[Outcome[Any], None]:
        """A backup of each account (`POST /backup/owner`); the outcomes as they come.

        Args:
            concurrency: As for `each`.
            patience: As for `each`.
            accounts: As for `each`.
            save_to: A folder, in which each account's file is saved in a folder of its name; the
                results are then `SavedFile`s. Without it they are `RemoteFile`s, still to be saved.
            keep: Of each account, keep this many of its newest backups there and remove older ones,
                once the new one is complete. Only files that were saved with `keep` are removed.

        Raises:
            KeyError, ConfigurationError: as `each`; or nothing here receives callbacks.

        """
        _ = self.callback_url  # without one, each account would fail for the same reason
        if keep is not None and keep < 1:
            raise ConfigurationError("keep must be at least 1: the newest backup always stays")

        async def back_up(client: AF10Client) -> RemoteFile | SavedFile:
            file = await client.backup_owner()
            if save_to is None:
                return file
            assert client.name is not None  # a fleet's clients have names
            saved = await file.save(f"{Path(save_to) / client.name}/")
            if keep is not None:
                await keep_in(saved, keep, client.account, self._runtime.now())
            return saved

        return self.each(back_up, concurrency=concurrency, patience=patience, accounts=accounts)


def _checked_accounts(
    given: str | os.PathLike[str] | Iterable[Account],
) -> tuple[Account, ...]:
    found = read_accounts(given) if isinstance(given, str | os.PathLike) else tuple(given)
    names = Counter(account.name for account in found)
    for name, count in names.items():
        if count > 1:
            raise ConfigurationError(f"{count} accounts are called {name}: names must differ")
    if not names:
        raise ConfigurationError("there is no account: a fleet needs at least one")
    return tuple(found)


def _resolved(account: Account) -> dict[str, Any] | AF10Error:
    try:
        return account.resolve()
    except AF10Error as error:
        return error
    except Exception as error:  # a keyring may raise anything
        return _unusable(account.name, error)


def _unusable(name: str, error: Exception) -> ConfigurationError:
    kind = type(error).__name__
    return ConfigurationError(f"account {name}: its settings cannot be used ({kind})")
