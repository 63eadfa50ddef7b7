"""The commands."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

from .. import (
    AF10Client,
    AF10Error,
    CallbackServer,
    ConfigurationError,
    Job,
    MissingExtraError,
    RemoteFile,
    UnexpectedPayloadError,
)
from ..sandbox import Sandbox
from ..settings import StoreSettings
from ..stores import Store, open_store
from .arguments import UsageError
from .exit_codes import exit_code
from .output import Output


class Context:
    """What the commands share with the code that reports how they ended."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.key: str | None = None
        """The job under way."""
        self.ticket: str | None = None
        """What restores it anywhere."""
        self.ends_by_interrupt = False
        """Whether an interrupt is how the command is meant to end."""
        self.attempts = 0
        """How many jobs were tried."""
        self.failures: list[AF10Error] = []
        """Those of jobs that did not keep the others from going on."""

    def failed(self, error: AF10Error) -> None:
        """One of several jobs has failed."""
        self.failures.append(error)
        self.report(error)

    def report(self, error: AF10Error) -> None:
        """Say what went wrong."""
        name, code = type(error).__name__, exit_code(error)
        self.output.error(name, str(error), error.key, code, ticket=error.ticket)


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
    client = AF10Client.from_env(**_timeouts(arguments, "start", "callback", "download"))
    out = _prepared(arguments.out)
    async with client:
        await _backup(client, out, context)


async def resume(arguments: argparse.Namespace, context: Context) -> None:
    """Jobs that were started before, whoever started them."""
    if bool(arguments.keys) == arguments.all:
        raise UsageError("name the jobs to resume by their keys or tickets, or say --all")
    client = AF10Client.from_env(**_timeouts(arguments, "callback", "download"))
    out = _prepared(arguments.out)
    async with client:
        named = [client.job(key) for key in dict.fromkeys(arguments.keys)]
        slots = asyncio.Semaphore(arguments.jobs)
        try:
            async with asyncio.TaskGroup() as group:
                async for job in _each(named) if named else client.unfinished():
                    await slots.acquire()
                    task = group.create_task(_resume_one(job, out, context))
                    task.add_done_callback(lambda _: slots.release())
                    context.attempts += 1
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
    if not context.attempts:
        context.output.step("nothing", "there is nothing to resume that nobody works on")


async def _each(jobs: list[Job[Any]]) -> AsyncIterator[Job[Any]]:
    for job in jobs:
        yield job


async def _resume_one(job: Job[Any], out: Path, context: Context) -> None:
    context.output.step("resuming", job.key, key=job.key)
    try:
        saved = await (await _file_of(job)).save(out)
    except AF10Error as error:
        context.failed(error)
        return
    context.output.saved(saved, job.key)


async def _file_of(job: Job[Any]) -> RemoteFile:
    found = await job
    if isinstance(found, RemoteFile):
        return found
    raise UnexpectedPayloadError(
        "the job is done, but its result is no file: take it with client.job(key) in Python",
        payload=found,
        key=job.key,
    )


async def receive(arguments: argparse.Namespace, context: Context) -> None:
    """The callback server alone; workers wait elsewhere, over the same store."""
    server = CallbackServer.from_env()
    if not server.store.is_shared:
        raise ConfigurationError(
            "AF10_STORE must be a store that those who wait can reach: sqlite:PATH on the same"
            " machine, redis://… or valkey://… from anywhere"
        )
    with context.output.logs("af10_async.callback_server"):
        async with server:
            context.output.step(
                "listening",
                f"port {server.port}; AF10 reaches it at {server.public_url}",
                port=server.port,
                callback_url=server.public_url,
            )
            context.ends_by_interrupt = True
            await asyncio.get_running_loop().create_future()


async def jobs(arguments: argparse.Namespace, context: Context) -> None:
    """What is in the store, or (prune) less of it."""
    url = StoreSettings.from_env().store.get_secret_value()
    _check_there(url)
    store = open_store(url)
    if not store.is_shared:
        raise ConfigurationError(
            "AF10_STORE is not set to a store that outlives a process: sqlite:PATH, redis://… or"
            " valkey://…"
        )
    await store.open()
    try:
        if arguments.action == "prune":
            await _prune(store, time.time() - arguments.older_than, context)
        else:
            found = [record async for record in store.records()]
            context.output.jobs(sorted(found, key=lambda record: record.created_at))
    finally:
        await store.close()


def _check_there(url: str) -> None:
    """To look into a store is no reason to make one."""
    path = url.removeprefix("sqlite:")
    if path != url and not Path(path).expanduser().exists():
        raise ConfigurationError(f"AF10_STORE names {path}, and there is no such file")


async def _prune(store: Store, before: float, context: Context) -> None:
    count = 0
    async for record in store.records():
        if record.created_at < before and not record.is_unfinished:
            count += await store.remove(record.key, record.version)
    context.output.step("pruned", f"{count} finished job(s) forgotten", count=count)


def _timeouts(arguments: argparse.Namespace, *names: str) -> dict[str, float]:
    return {
        f"{name}_timeout": value
        for name in names
        if (value := getattr(arguments, f"{name}_timeout")) is not None
    }


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
        context.key, context.ticket = job.key, job.ticket
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
