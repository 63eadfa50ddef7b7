"""Calls that AF10 answers later, as jobs, and the files that come of them."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .calls import checked_model, fitted
from .download import RemoteFile
from .download_source import Fetcher
from .downloader import checked_seconds
from .errors import ConfigurationError, UnexpectedPayloadError
from .job_services import Order, Services
from .job_work import FileMaker, JobWork
from .jobs import Job
from .parts import Parts
from .protocol import keys, wire
from .protocol.tickets import Ticket, TicketError, is_ticket, read_ticket
from .quick_operations import QuickOperations

if TYPE_CHECKING:
    pass

T = TypeVar("T")


class JobOperations(QuickOperations):
    """What can be asked of any endpoint, whether it answers at once or later."""

    @overload
    def call(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        params: Mapping[str, wire.Param] | None = None,
        model: None = None,
        start_timeout: float | None = None,
        callback_timeout: float | None = None,
        download_timeout: float | None = None,
    ) -> Job[Any]: ...
    @overload
    def call(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        params: Mapping[str, wire.Param] | None = None,
        model: type[T],
        start_timeout: float | None = None,
        callback_timeout: float | None = None,
        download_timeout: float | None = None,
    ) -> Job[T]: ...
    def call(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        params: Mapping[str, wire.Param] | None = None,
        model: type[T] | None = None,
        start_timeout: float | None = None,
        callback_timeout: float | None = None,
        download_timeout: float | None = None,
    ) -> Job[Any]:
        """A call that AF10 answers later, at our webhook: a `Job` for any webhook-type endpoint.

        Nothing is sent until the job is awaited or started.

        Args:
            method: Mostly `POST`; not GET, because the webhook's address goes into the body.
            path: Such as `/backup/owner`.
            json: The body, to which `webhook_url` is added.
            params: The query.
            model: What the result is to be: `RemoteFile` for a file that is still to be saved, a
                pydantic model (or any type that pydantic can validate), or None for the payload as
                AF10 sent it.
            start_timeout: Seconds for AF10 to accept it; the client's when not given.
            callback_timeout: Seconds for AF10 to call back and hand over the payload.
            download_timeout: Seconds for the whole download of a file.

        Raises:
            ConfigurationError: the client has no callback server, or there is no such call.

        """
        parts = self._host.open_parts()
        services = self._services(parts)
        receiver = services.receiver
        if receiver is None:
            raise no_receiver()
        order = Order(
            _with_body(method),
            wire.checked_path(path),
            _without_webhook(json),
            wire.query(params or {}),
            expects_file=model is RemoteFile,
        )
        make_file = self._file_maker(parts, download_timeout)
        read = _reader(model, make_file)
        random = services.runtime.random_bytes(keys.RANDOM_BYTES)
        key = keys.make_key(random, receiver.callback_secret)
        work = parts.works[key] = JobWork(services, key, make_file, order=order)
        return self._handle(work, start_timeout, callback_timeout, read)

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
        return self.call(
            "POST",
            "/backup/owner",
            model=RemoteFile,
            start_timeout=start_timeout,
            callback_timeout=callback_timeout,
            download_timeout=download_timeout,
        )

    @overload
    def job(
        self,
        key: str,
        *,
        model: None = None,
        callback_timeout: float | None = None,
        download_timeout: float | None = None,
    ) -> Job[Any]: ...
    @overload
    def job(
        self,
        key: str,
        *,
        model: type[T],
        callback_timeout: float | None = None,
        download_timeout: float | None = None,
    ) -> Job[T]: ...
    def job(
        self,
        key: str,
        *,
        model: type[T] | None = None,
        callback_timeout: float | None = None,
        download_timeout: float | None = None,
    ) -> Job[Any]:
        """The job with this key or ticket, to be awaited once more, here or anywhere else.

        A key leads to what the store knows of the job. A ticket (`Job.ticket`) restores the job
        also where the store does not know it. `model` is as for `call`; a file is one in any case.

        Raises:
            ConfigurationError: the ticket is damaged, or of a newer release.

        Raises, when awaited:
            JobNotFoundError: this account has no such job; or it expired long ago.

        """
        ticket = ticket_from(key) if is_ticket(key) else None
        key = ticket.key if ticket else key
        parts = self._host.open_parts()
        make_file = self._file_maker(parts, download_timeout)
        read = _reader(model, make_file)
        work = parts.works.get(key)
        if work is None:
            services = self._services(parts)
            work = parts.works[key] = JobWork(services, key, make_file, ticket=ticket)
        elif download_timeout is not None:
            work.make_files_with(make_file)
        return self._handle(work, None, callback_timeout, read)

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
        parts = self._host.open_parts()
        store = parts.services.store
        async for record in store.unfinished(parts.services.account):
            if not await store.lease(record.key):
                continue
            work = parts.works.get(record.key)
            if work is None:
                make_file = self._file_maker(parts, download_timeout)
                work = JobWork(self._services(parts), record.key, make_file, leased=record)
                parts.works[record.key] = work
            else:
                work.live.was_leased(record)
            yield self._handle(work, None, callback_timeout, None)

    def file(self, url: str, *, download_timeout: float | None = None) -> RemoteFile:
        """The file at any http or https address; no credentials of AF10 are sent to it."""
        return RemoteFile(
            self._fetcher(self._host.open_parts()),
            url,
            is_trusted=True,
            download_timeout=self._download_seconds(download_timeout),
        )

    # -- how ---------------------------------------------------------------------------------------

    def _services(self, parts: Parts) -> Services:
        services = parts.services
        if services.policy is self._options.retries:
            return services
        return replace(services, policy=self._options.retries)

    def _file_maker(self, parts: Parts, download_timeout: float | None) -> FileMaker:
        seconds = self._download_seconds(download_timeout)
        return _FileMaker(self._fetcher(parts), parts.trusts_private_files, seconds)

    def _fetcher(self, parts: Parts) -> Fetcher:
        fetcher = parts.fetcher
        if fetcher.policy is self._options.retries:
            return fetcher
        return replace(fetcher, policy=self._options.retries)

    def _handle(
        self,
        work: JobWork,
        start_timeout: float | None,
        callback_timeout: float | None,
        read: Callable[[JobWork, Any], Any] | None,
    ) -> Job[Any]:
        options = self._options
        return Job(
            work,
            start_timeout=checked_seconds("start_timeout", start_timeout, options.start_timeout),
            callback_timeout=checked_seconds(
                "callback_timeout", callback_timeout, options.callback_timeout
            ),
            read=functools.partial(read, work) if read is not None else None,
        )

    def _download_seconds(self, given: float | None) -> float:
        return checked_seconds("download_timeout", given, self._options.download_timeout)


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


def _reader(model: type[Any] | None, make_file: FileMaker) -> Callable[[JobWork, Any], Any] | None:
    """What makes the result of a job what the caller wants. Raises `ConfigurationError`."""
    if model is None:
        return None
    if model is RemoteFile:
        return functools.partial(_as_file, make_file)
    checked_model(model)
    return functools.partial(_as_model, model)


def _as_file(make_file: FileMaker, work: JobWork, payload: Any) -> Any:
    """The payload of a job as a file, though nobody expected one when it was started."""
    if isinstance(payload, RemoteFile):
        return payload
    url = wire.payload_url(payload)
    if url is None:
        raise UnexpectedPayloadError(
            "the job is done, but its payload is not the address of a file; it is in the error's"
            " `payload`",
            payload=payload,
            key=work.key,
            step="redeem",
        )
    return make_file(url, work)


def _as_model(model: type[T], work: JobWork, payload: Any) -> T:
    """The payload of a job as a model."""
    if isinstance(payload, RemoteFile):
        raise UnexpectedPayloadError(
            "the job is done, and its result is a file: ask for it with model=RemoteFile",
            payload=None,
            key=work.key,
            step="redeem",
        )
    problem, found = fitted(payload, model)
    if problem is not None:
        raise UnexpectedPayloadError(
            f"the job is done, but its payload {problem}; it is in the error's `payload`",
            payload=payload,
            key=work.key,
            step="redeem",
        )
    return found


def _with_body(method: str) -> str:
    method = wire.checked_method(method)
    if method in ("GET", "HEAD", "OPTIONS"):
        raise ConfigurationError(
            f"a {method} cannot be called back: the webhook's address goes into the body of a POST"
        )
    return method


def _without_webhook(json: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if json is not None and not isinstance(json, Mapping):
        raise ConfigurationError("the body of a call that is called back must be an object")
    if json is not None and "webhook_url" in json:
        raise ConfigurationError("webhook_url must not be given: it is each job's own")
    copy: Mapping[str, Any] | None = wire.checked_json(json)
    return copy


def no_receiver() -> ConfigurationError:
    """The error for a job whose callback could not arrive anywhere."""
    return ConfigurationError(
        "AF10_PUBLIC_URL (public_url) is not set: it must be the https address under which AF10"
        " reaches the callback server, such as https://hooks.example.com; or set AF10_TLS_CERT and"
        " AF10_TLS_KEY when AF10 can reach this machine directly"
    )


def ticket_from(text: str) -> Ticket:
    """What a ticket says. Raises `ConfigurationError`."""
    try:
        return read_ticket(text)
    except TicketError as error:
        raise ConfigurationError(str(error)) from None
