"""Calls that AF10 answers at once, whatever the endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, overload

from .calls import RawResponse, checked_model
from .parts import Host, Options
from .protocol import wire

T = TypeVar("T")
Json = Any


class QuickOperations:
    """What can be asked of any endpoint that answers at once."""

    def __init__(self, host: Host, options: Options) -> None:
        self._host = host
        self._options = options

    @overload
    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, wire.Param] | None = None,
        json: Json = None,
        model: None = None,
    ) -> Any: ...
    @overload
    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, wire.Param] | None = None,
        json: Json = None,
        model: type[T],
    ) -> T: ...
    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, wire.Param] | None = None,
        json: Json = None,
        model: type[T] | None = None,
    ) -> Any:
        """A call that AF10 answers at once: the JSON of its answer, or None when it has no body.

        It is sent again where that is harmless: GET, PUT and DELETE when they failed in a way that
        may pass, others only when they cannot have had an effect.

        Args:
            method: Such as `GET`.
            path: Below the API's address, such as `/vehicle/12`, without a query.
            params: The query. None is left out; a list is joined by commas.
            json: The body.
            model: A pydantic model, or any type that pydantic can validate (`list[Model]`, a
                dataclass): the answer as one.

        Raises:
            AuthenticationError, NotFoundError, RateLimitError, ServerError, APIError: AF10 said no.
            BadResponseError: the answer is not AF10's, or does not fit the model.
            ConnectFailedError, TLSError, RequestTimeoutError, NetworkError: there was none.
            ConfigurationError: there is no such call; nothing was sent.
            ClosedError: the client is not entered, or was closed meanwhile.

        """
        call = wire.quick_call(method, path, params, json)
        if model is not None:
            checked_model(model)
        calls = self._host.open_parts().calls

        def read(reply: wire.Reply) -> Any:
            value = calls.value(reply)
            return value if model is None else calls.fitting(reply, value, model)

        return await calls.ask(
            call, read, timeout=self._options.timeout, policy=self._options.retries
        )

    @overload
    async def get(
        self, path: str, *, params: Mapping[str, wire.Param] | None = None, model: None = None
    ) -> Any: ...
    @overload
    async def get(
        self, path: str, *, params: Mapping[str, wire.Param] | None = None, model: type[T]
    ) -> T: ...
    async def get(
        self,
        path: str,
        *,
        params: Mapping[str, wire.Param] | None = None,
        model: type[T] | None = None,
    ) -> Any:
        """GET: see `request`."""
        return await self.request("GET", path, params=params, model=model)

    @overload
    async def post(
        self,
        path: str,
        *,
        json: Json = None,
        params: Mapping[str, wire.Param] | None = None,
        model: None = None,
    ) -> Any: ...
    @overload
    async def post(
        self,
        path: str,
        *,
        json: Json = None,
        params: Mapping[str, wire.Param] | None = None,
        model: type[T],
    ) -> T: ...
    async def post(
        self,
        path: str,
        *,
        json: Json = None,
        params: Mapping[str, wire.Param] | None = None,
        model: type[T] | None = None,
    ) -> Any:
        """POST to an endpoint that answers at once: see `request`; for the others there is `call`.

        It is never sent again when it may have had an effect.
        """
        return await self.request("POST", path, params=params, json=json, model=model)

    @overload
    async def put(
        self,
        path: str,
        *,
        json: Json = None,
        params: Mapping[str, wire.Param] | None = None,
        model: None = None,
    ) -> Any: ...
    @overload
    async def put(
        self,
        path: str,
        *,
        json: Json = None,
        params: Mapping[str, wire.Param] | None = None,
        model: type[T],
    ) -> T: ...
    async def put(
        self,
        path: str,
        *,
        json: Json = None,
        params: Mapping[str, wire.Param] | None = None,
        model: type[T] | None = None,
    ) -> Any:
        """PUT: see `request`."""
        return await self.request("PUT", path, params=params, json=json, model=model)

    @overload
    async def delete(
        self, path: str, *, params: Mapping[str, wire.Param] | None = None, model: None = None
    ) -> Any: ...
    @overload
    async def delete(
        self, path: str, *, params: Mapping[str, wire.Param] | None = None, model: type[T]
    ) -> T: ...
    async def delete(
        self,
        path: str,
        *,
        params: Mapping[str, wire.Param] | None = None,
        model: type[T] | None = None,
    ) -> Any:
        """DELETE: see `request`."""
        return await self.request("DELETE", path, params=params, model=model)

    @property
    def with_raw_response(self) -> RawOperations:
        """The same calls, with status, headers and body of the answer instead of its JSON."""
        return RawOperations(self._host, self._options)


class RawOperations:
    """Quick calls whose answers are wanted as they came; see `Operations.request`."""

    def __init__(self, host: Host, options: Options) -> None:
        self._host = host
        self._options = options

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, wire.Param] | None = None,
        json: Json = None,
    ) -> RawResponse:
        """A call that AF10 answers at once, with anything; a refusal is raised all the same."""
        call = wire.quick_call(method, path, params, json)
        calls = self._host.open_parts().calls
        return await calls.ask(
            call, calls.raw, timeout=self._options.timeout, policy=self._options.retries
        )

    async def get(
        self, path: str, *, params: Mapping[str, wire.Param] | None = None
    ) -> RawResponse:
        """GET."""
        return await self.request("GET", path, params=params)

    async def post(
        self, path: str, *, json: Json = None, params: Mapping[str, wire.Param] | None = None
    ) -> RawResponse:
        """POST."""
        return await self.request("POST", path, json=json, params=params)

    async def put(
        self, path: str, *, json: Json = None, params: Mapping[str, wire.Param] | None = None
    ) -> RawResponse:
        """PUT."""
        return await self.request("PUT", path, json=json, params=params)

    async def delete(
        self, path: str, *, params: Mapping[str, wire.Param] | None = None
    ) -> RawResponse:
        """DELETE."""
        return await self.request("DELETE", path, params=params)
