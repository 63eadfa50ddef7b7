"""Operations: everything that can be asked of AF10 for one account."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, overload
from urllib.parse import quote

from .calls import checked_model
from .downloader import checked_seconds
from .errors import ConfigurationError
from .job_operations import JobOperations
from .paging import FetchedPage, Pages
from .parts import Options, retry_policy
from .protocol import wire
from .protocol.pages import PageError, read_page
from .protocol.retry import RetryPolicy

if TYPE_CHECKING:
    from .models import Environment, Vehicle

T = TypeVar("T")


class Operations(JobOperations):
    """What can be asked of AF10 for one account."""

    def with_options(
        self,
        *,
        timeout: float | None = None,
        retries: RetryPolicy | int | None = None,
        start_timeout: float | None = None,
        callback_timeout: float | None = None,
        download_timeout: float | None = None,
    ) -> Operations:
        """The same account with other options; those not given stay as they are.

        `timeout` is for each attempt of a quick call, in seconds; `retries` is a policy, or how
        often a failed request is sent again at most.

        Raises:
            ConfigurationError: a value makes no sense.

        """
        now = self._options
        policy = now.retries if retries is None else retry_policy(retries, now.retries)
        return Operations(
            self._host,
            Options(
                checked_seconds("timeout", timeout, now.timeout),
                policy,
                checked_seconds("start_timeout", start_timeout, now.start_timeout),
                checked_seconds("callback_timeout", callback_timeout, now.callback_timeout),
                checked_seconds("download_timeout", download_timeout, now.download_timeout),
            ),
        )

    # -- known endpoints ---------------------------------------------------------------------------

    @overload
    def pages(
        self,
        path: str,
        *,
        fields: Sequence[str] | None = None,
        filter: str | None = None,
        search: str | None = None,
        sort: str | None = None,
        params: Mapping[str, wire.Param] | None = None,
        model: None = None,
    ) -> Pages[Any]: ...
    @overload
    def pages(
        self,
        path: str,
        *,
        fields: Sequence[str] | None = None,
        filter: str | None = None,
        search: str | None = None,
        sort: str | None = None,
        params: Mapping[str, wire.Param] | None = None,
        model: type[T],
    ) -> Pages[T]: ...
    def pages(
        self,
        path: str,
        *,
        fields: Sequence[str] | None = None,
        filter: str | None = None,
        search: str | None = None,
        sort: str | None = None,
        params: Mapping[str, wire.Param] | None = None,
        model: type[T] | None = None,
    ) -> Pages[Any]:
        """The rows of a list, from all of its pages: `async for row in af10.pages("/vehicle")`.

        The next page is fetched while the rows of this one are being used; it ends where AF10 says
        so.

        Args:
            path: Such as `/vehicle`.
            fields: The columns that are wanted; all when not given.
            filter: As AF10 takes it.
            search: A text to look for.
            sort: As AF10 takes it.
            params: More of the query; `page` is ours.
            model: What each row is to be: a pydantic model, or any type that pydantic can validate.

        Raises:
            ConfigurationError: there is no such call.

        Raises, when iterated over: see `Pages`.

        """
        named = {"fields": fields, "filter": filter, "search": search, "sort": sort}
        given: dict[str, wire.Param] = {k: v for k, v in named.items() if v is not None}
        twice = sorted(given.keys() & (params or {}).keys())
        if twice:
            raise ConfigurationError(f"{twice[0]} is given twice: once more in params")
        asked = {**(params or {}), **given}
        if "page" in asked:
            raise ConfigurationError("params must not name a page: all of them are fetched")
        call = wire.quick_call("GET", path, asked)
        if model is not None:
            checked_model(model)
        return Pages(functools.partial(self._page, call, model))

    async def _page(self, call: wire.Call, model: type[T] | None, number: int) -> FetchedPage[Any]:
        calls = self._host.open_parts().calls

        def read(reply: wire.Reply) -> FetchedPage[Any]:
            try:
                page = read_page(calls.value(reply))
            except PageError as error:
                calls.refuse(reply, str(error))
            rows = page.rows
            if model is not None:
                many: Any = list[model]  # type: ignore[valid-type]
                rows = calls.fitting(reply, rows, many)
            refuse = functools.partial(calls.refuse, reply)
            return FetchedPage(rows, page.is_last, page.rows, refuse)

        return await calls.ask(
            replace(call, params={**call.params, "page": str(number)}),
            read,
            timeout=self._options.timeout,
            policy=self._options.retries,
        )

    async def environment(self) -> Environment:
        """Which environment the account belongs to (`GET /util/environment`, without a token).

        Raises: as `request`.
        """
        from .models import Environment

        parts = self._host.open_parts()
        return await parts.calls.ask(
            wire.environment_call(parts.username),
            lambda reply: parts.calls.fitting(reply, parts.calls.value(reply), Environment),
            timeout=self._options.timeout,
            policy=self._options.retries,
            without_token=True,
        )

    def vehicles(
        self,
        *,
        fields: Sequence[str] | None = None,
        filter: str | None = None,
        search: str | None = None,
        sort: str | None = None,
    ) -> Pages[Vehicle]:
        """The dealer's vehicles (`GET /vehicle`): `async for vehicle in af10.vehicles()`.

        See `pages`.
        """
        from .models import Vehicle

        return self.pages(
            "/vehicle", fields=fields, filter=filter, search=search, sort=sort, model=Vehicle
        )

    async def vehicle(self, vehicle_id: int | str) -> Vehicle:
        """One vehicle (`GET /vehicle/{id}`).

        Raises: as `request`; `NotFoundError` when there is none with this id.
        """
        from .models import Vehicle

        if not str(vehicle_id).strip():
            raise ConfigurationError("the id of a vehicle must not be empty")
        call = wire.quick_call("GET", f"/vehicle/{quote(str(vehicle_id), safe='')}")
        calls = self._host.open_parts().calls

        def read(reply: wire.Reply) -> Vehicle:
            return calls.fitting(reply, wire.only_row(calls.value(reply)), Vehicle)

        return await calls.ask(
            call, read, timeout=self._options.timeout, policy=self._options.retries
        )
