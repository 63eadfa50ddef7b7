"""A stand-in for an ngrok agent's local API, with the JSON that real ones give."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

_NO_TRAFFIC = {"count": 0, "rate1": 0, "rate5": 0, "rate15": 0, "p50": 0, "p90": 0, "p95": 0}


def described(name: str, url: str, addr: str, inspect: bool = True) -> dict[str, Any]:
    """One tunnel in the agent's words."""
    return {
        "name": name,
        "ID": "5c2aa1d5d0bb1eef3d6f5ea3f35b9a5b",
        "uri": f"/api/tunnels/{name}",
        "public_url": url,
        "proto": url.partition(":")[0],
        "config": {"addr": addr, "inspect": inspect},
        "metrics": {"conns": {**_NO_TRAFFIC, "gauge": 0}, "http": dict(_NO_TRAFFIC)},
    }


class Agent:
    """It may be stopped and started again, on the same port."""

    def __init__(self) -> None:
        self.tunnels: dict[str, dict[str, Any]] = {}
        self.wanted: list[dict[str, Any]] = []
        """Definitions it was asked for."""
        self.removed: list[str] = []
        self.looks = 0
        self.refusal: tuple[int, dict[str, Any]] | None = None
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        """Without it, the agent thinks about what it is asked for."""
        self.may_answer.set()
        self.port = 0
        self._numbers = itertools.count(1)
        self._runner: web.AppRunner | None = None

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, name: str, url: str, addr: str) -> None:
        """Begin a tunnel that somebody else wants."""
        self.tunnels[name] = described(name, url, addr)

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/api/tunnels", self._list)
        app.router.add_post("/api/tunnels", self._start)
        app.router.add_delete("/api/tunnels/{name}", self._stop)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """End, with all tunnels."""
        self.tunnels.clear()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _list(self, _: web.Request) -> web.Response:
        self.looks += 1
        return web.json_response({"tunnels": list(self.tunnels.values()), "uri": "/api/tunnels"})

    async def _start(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        self.wanted.append(wanted)
        self.asked.set()
        if unknown := set(wanted) - {"name", "proto", "addr", "schemes", "inspect"}:
            return _error(400, 102, "invalid tunnel configuration", f"unknown field {unknown}")
        if self.refusal is not None:
            status, body = self.refusal
            return web.json_response(body, status=status)
        await asyncio.shield(asyncio.ensure_future(self.may_answer.wait()))
        name = wanted["name"]
        if name in self.tunnels:
            return _error(400, 102, "invalid tunnel configuration", "the name is taken")
        url = f"https://made-{next(self._numbers)}.ngrok-free.app"
        self.tunnels[name] = described(name, url, wanted["addr"], wanted["inspect"])
        return web.json_response(self.tunnels[name], status=201)

    async def _stop(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self.removed.append(name)
        if self.tunnels.pop(name, None) is None:
            return _error(404, 100, "tunnel not found", name)
        return web.Response(status=204)


def _error(status: int, code: int, message: str, error: str) -> web.Response:
    body = {"error_code": code, "status_code": status, "msg": message, "details": {"err": error}}
    return web.json_response(body, status=status)


@asynccontextmanager
async def running_agent() -> AsyncIterator[Agent]:
    agent = Agent()
    await agent.start()
    try:
        yield agent
    finally:
        agent.may_answer.set()
        await agent.stop()
