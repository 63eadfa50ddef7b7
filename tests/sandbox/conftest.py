"""A client of the wire that knows nothing of this library, and a callback server of its own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from aiohttp import web

from af10_async.sandbox import Account, Sandbox, SandboxJob


class Callbacks:
    """A callback server with TLS, as a user of AF10 would have it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.calls: list[tuple[str, str]] = []
        self.ids: asyncio.Queue[str] = asyncio.Queue()
        self.answer = 200
        self.base = ""
        self._sandbox = sandbox

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[Callbacks]:
        cert, key = self._sandbox.issue_certificate("127.0.0.1", "localhost")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(cert, key)
        app = web.Application()
        app.router.add_route("*", "/{anything:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        self.base = f"https://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        self.calls.append((request.method, request.raw_path))
        if "id" in request.query:
            self.ids.put_nowait(request.query["id"])
        return web.Response(status=self.answer)


class Wire:
    """Plain httpx calls against a sandbox, and nothing else."""

    def __init__(self, sandbox: Sandbox, http: httpx.AsyncClient, callbacks: Callbacks) -> None:
        self.sandbox = sandbox
        self.http = http
        self.callbacks = callbacks
        self.api = ""
        self.token = ""

    @property
    def webhook_url(self) -> str:
        return f"{self.callbacks.base}/hooks/key"

    async def authenticate(
        self, account: Account | None = None, changes: Mapping[str, str] | None = None
    ) -> httpx.Response:
        account = account or self.sandbox.accounts[0]
        params = {
            "api_key": account.api_key,
            "username": account.username,
            "password": account.password,
        }
        url = self.sandbox.base_url + "/authenticate"
        return await self.http.get(url, params={**params, **(changes or {})})

    async def log_in(self, account: Account | None = None) -> Wire:
        answer = (await self.authenticate(account)).json()
        self.api, self.token = answer["api_url"], answer["token"]
        return self

    async def get(self, path: str, **params: Any) -> httpx.Response:
        return await self.http.get(self.api + path, params=params, headers={"token": self.token})

    async def send(self, method: str, path: str, value: Any = None) -> httpx.Response:
        """A request with a JSON body, unless `value` is None."""
        headers = {"token": self.token}
        return await self.http.request(method, self.api + path, json=value, headers=headers)

    async def post(self, webhook_url: str | None = None) -> httpx.Response:
        body = {"webhook_url": webhook_url or self.webhook_url}
        url = self.api + "/backup/owner"
        return await self.http.post(url, json=body, headers={"token": self.token})

    async def start(self) -> SandboxJob:
        """POST, and wait for the callback."""
        assert (await self.post()).status_code == 202
        await self.sandbox.settled()
        return self.sandbox.jobs[-1]

    async def redeem(self, job: SandboxJob) -> str:
        answer = await self.get("/webhook", id=job.secret)
        url: str = answer.json()["data"]["url"]
        return url


@asynccontextmanager
async def wired(**options: Any) -> AsyncIterator[Wire]:
    """A sandbox with a callback server and an HTTP client; logged in. Nothing of it may stay."""
    before = asyncio.all_tasks()
    async with Sandbox(**options) as sandbox, Callbacks(sandbox).listen() as callbacks:
        verify: Any = True
        if sandbox.ca_file is not None:
            verify = ssl.create_default_context(cafile=sandbox.ca_file)
        async with httpx.AsyncClient(timeout=5, verify=verify) as http:
            yield await Wire(sandbox, http, callbacks).log_in()
    for _ in range(3):  # a cancelled task ends in the next round of the loop
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"the sandbox left tasks behind: {left}"


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with wired() as found:
        yield found
