"""Several workers of one app, each with a receiver, over one store."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from af10_async.sandbox import Sandbox, SandboxJob
from tests.ports import free_port

ROOT = Path(__file__).parents[2]


@dataclass
class Worker:
    """One worker, by a connection of its own that is kept."""

    pid: int
    client: httpx.AsyncClient

    async def start(self) -> str:
        answer = await self.client.post("/jobs")
        return str(answer.raise_for_status().json())

    async def result(self, key: str) -> str:
        answer = await self.client.get(f"/jobs/{key}")
        return str(answer.raise_for_status().json())

    async def call_back(self, job: SandboxJob) -> int:
        job.become_ready()
        path = job.webhook_url.partition("/webhooks/")[2]
        answer = await self.client.get(f"/webhooks/{path}", params={"id": job.secret})
        return answer.status_code


@dataclass
class Service:
    port: int
    process: Process
    stack: AsyncExitStack

    async def worker(self, *others: Worker) -> Worker:
        """One that is none of these: the connection that it has accepted stays with it."""
        not_these = {other.pid for other in others}
        while self.process.returncode is None:
            # Several at once: one alone goes to the same worker again and again.
            for found in await asyncio.gather(*(self._any_worker() for _ in range(4))):
                if found is not None and found.pid not in not_these:
                    return found
            await asyncio.sleep(0.05)
        raise AssertionError("the service has ended")

    async def _any_worker(self) -> Worker | None:
        client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}",
            limits=httpx.Limits(max_connections=1),
            timeout=30,
            verify=False,  # there is no TLS here, and a context for it takes its time
        )
        await self.stack.enter_async_context(client)
        with suppress(httpx.TransportError):  # nobody listens yet, or the one that did is dead
            return Worker((await client.get("/worker")).json(), client)
        return None


async def _run(port: int, env: dict[str, str]) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "tests.callback_server.worker_app:app"),
        *("--workers", "2", "--port", str(port), "--timeout-keep-alive", "60"),
        cwd=ROOT,
        env=env,
        stdout=PIPE,
        stderr=STDOUT,
    )


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """It calls nobody back by itself within the test."""
    async with Sandbox(job_seconds=3600) as found:
        yield found


@asynccontextmanager
async def serving(sandbox: Sandbox, folder: Path) -> AsyncIterator[Service]:
    here = {each: value for each, value in os.environ.items() if not each.startswith("AF10_")}
    port = free_port()
    env = {
        **here,
        "AF10_BASE_URL": sandbox.base_url,
        "AF10_API_KEY": sandbox.api_key,
        "AF10_USERNAME": sandbox.username,
        "AF10_PASSWORD": sandbox.password,
        "AF10_PUBLIC_URL": "https://hooks.example.com/webhooks",
        "AF10_STORE": f"sqlite:{folder / 'jobs.db'}",
        "FOLDER": f"{folder}/files/",
    }
    process = await _run(port, env)
    printed = asyncio.create_task(process.communicate())
    try:
        async with AsyncExitStack() as stack:
            yield Service(port, process, stack)
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        out = (await printed)[0].decode()
        print(out)  # for who reads what went wrong  # noqa: T201
    assert not [job.secret for job in sandbox.jobs if job.secret in out]


async def test_a_callback_may_come_to_another_worker_and_one_that_dies_loses_nothing(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    async with serving(sandbox, tmp_path) as service:
        one = await service.worker()
        other = await service.worker(one)

        # Keys made by either are genuine at both, and who waits hears of a callback elsewhere.
        for here, there in ((one, other), (other, one)):
            key = await here.start()
            waiting = asyncio.create_task(here.result(key))
            assert await there.call_back(sandbox.jobs[-1]) == 200
            assert await waiting == sandbox.archive_sha256(sandbox.jobs[-1])

        # One job has been called back, the other not yet, when their worker is killed.
        keys = [await one.start(), await one.start()]
        called, uncalled = sandbox.jobs[-2:]
        assert await one.call_back(called) == 200
        os.kill(one.pid, signal.SIGKILL)

        assert await other.result(keys[0]) == sandbox.archive_sha256(called)
        waiting = asyncio.create_task(other.result(keys[1]))
        another = await service.worker(one, other)  # which uvicorn has started in its place
        assert await another.call_back(uncalled) == 200
        assert await waiting == sandbox.archive_sha256(uncalled)
