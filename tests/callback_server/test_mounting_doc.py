"""The examples of docs/mounting.md, as processes of their own with the commands that it gives."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import ssl
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from af10_async.sandbox import Sandbox
from tests.conftest import Tls
from tests.ports import free_port

DOC = Path(__file__).parents[2] / "docs" / "mounting.md"
EXAMPLE = re.compile(r"^```python\n# (\w+)\.py\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLES = dict(EXAMPLE.findall(DOC.read_text()))

AIOHTTP = """
import logging, ssl, sys, runpy
from aiohttp import web

logging.basicConfig(level=logging.INFO)
cert, key, port = sys.argv[1:]
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(cert, key)
run_app = web.run_app

def run_here(app, **options):
    run_app(app, host="127.0.0.1", port=int(port), ssl_context=context, **options)

web.run_app = run_here
runpy.run_path("aiohttp_app.py", run_name="__main__")
"""
"""`python aiohttp_app.py`, with TLS at a port of the test's, and its log on the terminal."""


def command(name: str, tls: Tls, port: int) -> list[str]:
    """How the example is started."""
    if name == "aiohttp_app":
        return ["-c", AIOHTTP, str(tls.cert), str(tls.key), str(port)]
    certificate = ("--ssl-certfile", str(tls.cert), "--ssl-keyfile", str(tls.key))
    return ["-m", "uvicorn", f"{name}:app", "--port", str(port), *certificate]


@asynccontextmanager
async def started(
    arguments: list[str], folder: Path, env: Mapping[str, str]
) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error::DeprecationWarning:__main__", *arguments),
        cwd=folder,
        env=env,
        stdout=PIPE,
        stderr=STDOUT,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def until_it_listens(process: Process, port: int) -> None:
    while process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            await writer.wait_closed()
            return
    assert process.stdout is not None
    raise AssertionError((await process.stdout.read()).decode())


def test_there_is_an_example_for_each_framework() -> None:
    assert sorted(EXAMPLES) == ["aiohttp_app", "fastapi_app", "litestar_app", "starlette_app"]


@pytest.mark.parametrize("name", sorted(EXAMPLES))
async def test_an_example_makes_a_backup_keeps_the_secret_out_of_its_log_and_stops(
    name: str, tls: Tls, sandbox: Sandbox, tmp_path: Path
) -> None:
    (tmp_path / f"{name}.py").write_text(EXAMPLES[name])
    port = free_port()
    here = {each: value for each, value in os.environ.items() if not each.startswith("AF10_")}
    env = {
        **here,
        "AF10_BASE_URL": sandbox.base_url,
        "AF10_API_KEY": sandbox.api_key,
        "AF10_USERNAME": sandbox.username,
        "AF10_PASSWORD": sandbox.password,
        "AF10_PUBLIC_URL": f"https://127.0.0.1:{port}/webhooks",
        "AF10_STORE": "sqlite:jobs.db",
        "PYTHONUNBUFFERED": "1",
    }
    async with started(command(name, tls, port), tmp_path, env) as process:
        await until_it_listens(process, port)
        trust = ssl.create_default_context(cafile=str(tls.ca))
        async with httpx.AsyncClient(verify=trust, timeout=30) as client:
            answer = await client.post(f"https://127.0.0.1:{port}/backups")
        process.send_signal(signal.SIGINT)
        printed = (await process.communicate())[0].decode()

    (job,) = sandbox.jobs
    assert answer.is_success, printed
    assert (tmp_path / "backups" / answer.json()["file"]).read_bytes() == sandbox.archive(job)
    assert (
        f"/af10/{job.webhook_url.rpartition('/')[2]}" in printed
    )  # of Litestar, without the mount
    assert job.secret not in printed
    assert "Traceback" not in printed.partition("KeyboardInterrupt")[0]
    assert process.returncode in (0, -signal.SIGINT, 130)
