"""The front: every request comes in here, is noted, meets its fault, and is passed on."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web

from .accounts import AccountBook
from .api import Api
from .calls import Call, error_answer, json_answer, not_authorized
from .connection import Gone, Line
from .delivery import Delivery
from .endpoints import Endpoints
from .faults import FaultPlan, Step
from .faults.acts import Echo, Expire, Hang, Reply, Reset, Slow
from .jobs import JobBook
from .records import RequestLog, Seen, Where
from .traffic import Gate, Traffic

__all__ = ["API_PATH", "BOOTSTRAP_PATH", "FILE_PATH", "RESERVED_PATHS", "Front"]

logger = logging.getLogger("af10_async.sandbox")

BOOTSTRAP_PATH = "/v2"
API_PATH = "/api/v2"
FILE_PATH = "/files"

_BOOTSTRAP_STEPS: dict[str, Step] = {
    "/authenticate": "authenticate",
    "/util/environment": "environment",
}
_API_STEPS: dict[str, Step] = {**_BOOTSTRAP_STEPS, "/webhook": "redeem", "/vehicle": "vehicle"}
RESERVED_PATHS = ("/authenticate", "/util/environment", "/webhook")
"""Those whose answers are never the user's own."""


class Front:
    """Takes requests in.

    Args:
        accounts: Tells whose a token is.
        jobs: Tells whose a file is.
        faults: What is to go wrong.
        log: Where every request is noted.
        api: Answers the API's own addresses.
        delivery: Answers the addresses of files.
        endpoints: Which endpoints the user has added.
        traffic: Told of each request of the API for as long as it is under way.
        gate: Turns requests of the API away.
        webhook_paths: The paths of the API whose POST starts a job.

    """

    def __init__(
        self,
        accounts: AccountBook,
        jobs: JobBook,
        faults: FaultPlan,
        log: RequestLog,
        api: Api,
        delivery: Delivery,
        endpoints: Endpoints,
        traffic: Traffic,
        gate: Gate,
        webhook_paths: tuple[str, ...],
    ) -> None:
        self._accounts = accounts
        self._jobs = jobs
        self._faults = faults
        self._log = log
        self._api = api
        self._delivery = delivery
        self._endpoints = endpoints
        self._traffic = traffic
        self._gate = gate
        self._steps: dict[str, Step] = {**_API_STEPS, **dict.fromkeys(webhook_paths, "start")}
        self._closing = asyncio.Event()
        self._lines: set[Line] = set()
        self._tasks: set[asyncio.Task[object]] = set()

    def app(self) -> web.Application:
        """The application that a runner serves."""
        app = web.Application()
        app.router.add_route("*", "/{anything:.*}", self._handle)
        return app

    def hang_up(self) -> None:
        """Answer nothing more, and break what is under way."""
        self._closing.set()
        for line in list(self._lines):
            line.reset()

    async def gone(self) -> None:
        """Wait until the last handler has ended: aiohttp forgets those whose peer has left."""
        tasks = list(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- one request -------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        line = Line(request, self._closing)
        self._lines.add(line)
        self._hold_task()
        try:
            return await self._noted(request, line)
        except (Gone, ConnectionError):
            line.reset()
            return web.Response()  # goes nowhere
        finally:
            self._lines.discard(line)

    def _hold_task(self) -> None:
        task = asyncio.current_task()
        if task is not None and task not in self._tasks:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _noted(self, request: web.Request, line: Line) -> web.StreamResponse:
        if not line.is_open:
            raise Gone
        call = await self._read(request, line)
        if call.step == "file":
            answer = await self._answer(call)
        else:
            with self._traffic.under_way(call.seen.account, line):
                answer = self._gate.refusal(call) or await self._answer(call)
        if answer is None:  # written by hand, and the connection closed
            return web.Response()
        call.seen.status = answer.status
        return answer

    async def _read(self, request: web.Request, line: Line) -> Call:
        where, path, step = self._route(request.method, request.path)
        body = await request.read() if request.body_exists else b""
        seen = Seen(
            request.method,
            path,
            where,
            dict(request.query),
            {name.lower(): value for name, value in request.headers.items()},
            body,
        )
        call = Call(request, line, seen, step)
        self._identify(call)
        self._log.add(seen)
        return call

    def _route(self, method: str, path: str) -> tuple[Where, str, Step | None]:
        if path.startswith(API_PATH + "/"):
            path = path.removeprefix(API_PATH)
            return "api", path, self._api_step(method, path)
        if path.startswith(BOOTSTRAP_PATH + "/"):
            path = path.removeprefix(BOOTSTRAP_PATH)
            return "bootstrap", path, _BOOTSTRAP_STEPS.get(path)
        if path.startswith(FILE_PATH + "/"):
            return "file", path, "file"
        return "elsewhere", path, None

    def _api_step(self, method: str, path: str) -> Step | None:
        step = self._steps.get(path)
        if step in (None, "vehicle") and self._endpoints.knows(method, path):
            return "call"
        return "vehicle" if path.startswith("/vehicle/") else step

    def _identify(self, call: Call) -> None:
        seen = call.seen
        if call.step == "file":
            call.link = self._jobs.of_link(seen.path.split("/")[2])
            seen.account = None if call.link is None else call.link.job.account
            return
        if call.step in ("authenticate", "environment"):
            found = self._accounts.named(seen.query.get("username"))
        else:
            found = call.account = self._accounts.of_token(seen.headers.get("token"))
        seen.account = None if found is None else found.username

    async def _answer(self, call: Call) -> web.StreamResponse | None:
        fault = self._faults.take(call.step, call.seen.account)
        call.act = None if fault is None else fault.act
        try:
            return await self._play(call)
        except (Gone, ConnectionError, web.HTTPException):
            raise
        except Exception:
            logger.exception("the sandbox failed at the step %s", call.step)
            return error_answer(500, "The sandbox itself failed")

    async def _play(self, call: Call) -> web.StreamResponse | None:
        match call.act:
            case Slow(seconds):
                await call.line.pause(seconds)
                return await self._normal(call)
            case Reply(status, headers, body, after):
                if after:
                    await self._effect(call)
                return web.Response(status=status, headers=headers, body=body)
            case Echo(status):
                return _echo(call, status)
            case Expire(status):
                self._accounts.expire(call.seen.headers.get("token"))
                return not_authorized(status)
            case Reset(after):
                if after:
                    await self._effect(call)
                raise Gone
            case Hang():
                await self._effect(call)
                await call.line.hold()
                raise Gone
            case _:  # no fault, or one that the part concerned understands
                return await self._normal(call)

    async def _normal(self, call: Call) -> web.StreamResponse | None:
        if call.step == "file":
            return await self._delivery.answer(call)
        if call.seen.where in ("bootstrap", "elsewhere") and call.step is None:
            return error_answer(404, "Endpoint not found")
        return await self._api.answer(call)

    async def _effect(self, call: Call) -> None:
        if call.step != "file":  # sending a file has no effect beside the answer
            await self._normal(call)


def _echo(call: Call, status: int) -> web.Response:
    request = call.request
    headers = "; ".join(f"{name}: {value}" for name, value in request.headers.items())
    message = f"Cannot {request.method} {request.url} with {headers}"
    if call.seen.body:
        message += f" and {call.seen.body.decode('utf-8', 'replace')}"
    return json_answer({"errorCode": status, "errorMessage": message}, status)
