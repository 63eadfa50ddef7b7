"""The commands."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from .. import AF10Client, ConfigurationError, MissingExtraError
from ..sandbox import Sandbox
from .output import Output


class Context:
    """What the commands share with the code that reports how they ended."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.key: str | None = None
        """The job under way."""
        self.ends_by_interrupt = False
        """Whether an interrupt is how the command is meant to end."""


async def demo(arguments: argparse.Namespace, context: Context) -> None:
    """The main job, with everything that it needs on this machine."""
    out = _prepared(arguments.out)
    say = context.output.step
    async with AsyncExitStack() as stack:
        sandbox = await _enter_sandbox(stack, Sandbox(job_seconds=1.0, file_size=5 * 2**20))
        say("sandbox", f"a stand-in AF10 at {sandbox.base_url}", base_url=sandbox.base_url)
        with _needing_extras():
            cert, key = sandbox.issue_certificate("127.0.0.1", "localhost")
        client = await stack.enter_async_context(
            AF10Client(
                base_url=sandbox.base_url,
                api_key=sandbox.api_key,
                username=sandbox.username,
                password=sandbox.password,
                tls_cert=cert,
                tls_key=key,
            )
        )
        url = client.callback_url or ""
        say("listening", f"a callback server with TLS at {url}", callback_url=url)
        await client.authenticate()
        say("authenticated", "AF10 accepted the credentials, and gave a token")
        await _backup(client, out, context)


async def backup_owner(arguments: argparse.Namespace, context: Context) -> None:
    """The main job, against the AF10 that the environment names."""
    timeouts = {
        f"{name}_timeout": value
        for name in ("start", "callback", "download")
        if (value := getattr(arguments, f"{name}_timeout")) is not None
    }
    client = AF10Client.from_env(**timeouts)
    out = _prepared(arguments.out)
    async with client:
        await _backup(client, out, context)


async def sandbox(arguments: argparse.Namespace, context: Context) -> None:
    """A stand-in AF10, until interrupted."""
    async with AsyncExitStack() as stack:
        running = await _enter_sandbox(
            stack,
            Sandbox(
                host=arguments.host,
                port=arguments.port,
                tls=arguments.tls,
                job_seconds=arguments.job_seconds,
                file_size=arguments.file_size,
                callback_ca=arguments.callback_ca,
            ),
        )
        sys.stdout.write(_as_json(running) if arguments.json else _as_exports(running))
        sys.stdout.flush()
        if not arguments.json:
            context.output.step("sandbox", "a stand-in AF10 is running; Ctrl-C ends it")
        context.ends_by_interrupt = True
        await asyncio.get_running_loop().create_future()


async def _backup(client: AF10Client, out: Path, context: Context) -> None:
    job = client.backup_owner()
    async for event in job.events():
        context.key = job.key
        context.output.job(event)
    backup = await job
    with context.output.download() as progress:
        saved = await backup.save(out, progress=progress)
    context.output.saved(saved, job.key)


async def _enter_sandbox(stack: AsyncExitStack, sandbox: Sandbox) -> Sandbox:
    try:
        with _needing_extras():
            return await stack.enter_async_context(sandbox)
    except OSError as error:
        raise ConfigurationError(
            f"the sandbox cannot listen there: {error.strerror or error}; choose another --host or"
            " --port"
        ) from None


@contextmanager
def _needing_extras() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError:
        raise
    except ImportError as error:
        raise MissingExtraError(str(error)) from None


def _prepared(out: Path) -> Path:
    """Find out before anything is sent whether the file can be saved."""
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigurationError(f"--out {out} cannot be used: it is no folder") from None
    except OSError as error:
        raise ConfigurationError(f"--out {out} cannot be used: {error.strerror}") from None
    if not os.access(out, os.W_OK | os.X_OK):
        raise ConfigurationError(f"--out {out} cannot be used: no permission to write there")
    return out


def _as_json(sandbox: Sandbox) -> str:
    ca_file = str(sandbox.ca_file) if sandbox.ca_file else None
    found = {
        "base_url": sandbox.base_url,
        "api_key": sandbox.api_key,
        "username": sandbox.username,
        "password": sandbox.password,
        "ca_file": ca_file,
    }
    return json.dumps(found) + "\n"


def _as_exports(sandbox: Sandbox) -> str:
    values = json.loads(_as_json(sandbox))
    lines = [
        f"export AF10_{name.upper()}={shlex.quote(value)}\n"
        for name, value in values.items()
        if value is not None
    ]
    return "".join(lines)
