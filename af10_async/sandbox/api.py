"""What AF10 answers when nothing goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard
from urllib.parse import urlsplit

from aiohttp import web

from .accounts import Account, AccountBook
from .caller import Caller
from .calls import (
    Call,
    error_answer,
    json_answer,
    method_not_allowed,
    not_authorized,
    not_found,
    read_json,
)
from .endpoints import Endpoints
from .faults import FaultPlan
from .faults.acts import Come, Data, Direct
from .jobs import JobBook, SandboxJob
from .vehicle_api import VehicleApi

__all__ = ["Api"]

ENVIRONMENT = "sandbox"


class Api:
    """The endpoints.

    Args:
        accounts: Who may log in.
        jobs: Where jobs are kept.
        caller: Who makes the callbacks.
        faults: Asked, at each POST, how the callback is to be made.
        vehicles: Answers `/vehicle`.
        endpoints: Answers what the user has added.
        api_url: Gives the address of the API.
        file_url: Gives the address of a job's file.

    """

    def __init__(
        self,
        accounts: AccountBook,
        jobs: JobBook,
        caller: Caller,
        faults: FaultPlan,
        vehicles: VehicleApi,
        endpoints: Endpoints,
        api_url: Callable[[], str],
        file_url: Callable[[SandboxJob], str],
    ) -> None:
        self._accounts = accounts
        self._jobs = jobs
        self._caller = caller
        self._faults = faults
        self._vehicles = vehicles
        self._endpoints = endpoints
        self._api_url = api_url
        self._file_url = file_url

    async def answer(self, call: Call) -> web.Response:
        """The answer to one request; whatever it starts has been started."""
        match call.step:
            case "authenticate":
                return self._only("GET", call) or self._authenticate(call)
            case "environment":
                return self._only("GET", call) or self._environment(call)
            case _ if call.account is None:
                return not_authorized()
            case "start":
                return self._only("POST", call) or await self._start(call, call.account)
            case "redeem":
                return self._only("GET", call) or self._redeem(call, call.account)
            case "vehicle":
                return self._vehicles.answer(call, call.account)
            case "call":
                return await self._endpoints.answer(call.seen)
            case _:
                return not_found("Endpoint")

    def _only(self, method: str, call: Call) -> web.Response | None:
        return None if call.seen.method == method else method_not_allowed(method)

    def _authenticate(self, call: Call) -> web.Response:
        query = call.seen.query
        account = self._accounts.log_in(
            query.get("api_key", ""),
            query.get("username", ""),
            query.get("password", ""),
            query.get("organization_name"),
        )
        if account is None:
            return not_authorized()
        return json_answer(
            {
                "token": self._accounts.new_token(account),
                "api_url": self._api_url(),
                "user_id": self._accounts.user_id(account),
                "environment": ENVIRONMENT,
                "token_valid_until": self._accounts.valid_until(),
            }
        )

    def _environment(self, call: Call) -> web.Response:
        key = call.seen.headers.get("apikey", "")
        account = self._accounts.with_api_key(key, call.seen.query.get("username"))
        if account is None:
            return not_authorized()
        call.seen.account = account.username
        return json_answer({"environment": ENVIRONMENT, "api_url": self._api_url()})

    async def _start(self, call: Call, account: Account) -> web.Response:
        body = read_json(call.seen.body)
        url = body.get("webhook_url") if isinstance(body, dict) else None
        if not isinstance(body, dict):
            return error_answer(400, "The body is not a JSON object")
        if not _is_webhook_url(url):
            return error_answer(400, "webhook_url must be an address that starts with https")
        job = self._jobs.add(account.username, url, body)
        if isinstance(call.act, Direct):
            job.become_ready()
            data = {"url": self._file_url(job)} if call.act.data is None else call.act.data
            return json_answer({"data": data})
        await self._have_called_back(job)
        return json_answer(
            {"successCode": 202, "successMessage": "Accepted: webhook_url is called when ready"},
            202,
        )

    async def _have_called_back(self, job: SandboxJob) -> None:
        fault = self._faults.take("callback", job.account)
        come = fault.act if fault is not None and isinstance(fault.act, Come) else Come()
        if come.early:
            await self._caller.now(job, come)
        else:
            self._caller.schedule(job, come)

    def _redeem(self, call: Call, account: Account) -> web.Response:
        job = self._jobs.of_secret(call.seen.query.get("id", ""))
        if job is None or job.account != account.username or not job.ready:
            return not_found("Webhook")
        if isinstance(call.act, Data):
            return json_answer({"data": call.act.value})
        return json_answer({"data": {"url": self._file_url(job)}})


def _is_webhook_url(url: Any) -> TypeGuard[str]:
    if not isinstance(url, str) or not url.startswith("https://"):
        return False
    try:
        return bool(urlsplit(url).hostname)
    except ValueError:
        return False
