"""The commands that run a sandbox: demo and sandbox."""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from .. import AF10Client, ConfigurationError, MissingExtraError
from ..sandbox import Account, Sandbox
from .context import Context
from .destination import Destination, prepare
from .downloads import back_up


async def demo(arguments: argparse.Namespace, context: Context) -> None:
    """The main job, with everything that it needs on this machine."""
    prepare(arguments.out)
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
        await back_up(client, Destination(str(arguments.out), None), arguments, context)


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
                accounts=_dealers(arguments.accounts),
                vehicles=arguments.vehicles,
                quota=arguments.quota,
            ),
        )
        # Before the first line: whoever has read that may use the file.
        _write_accounts(running, arguments.accounts_file)
        sys.stdout.write(_as_json(running) if arguments.json else _as_exports(running))
        sys.stdout.flush()
        if not arguments.json:
            context.output.step("sandbox", "a stand-in AF10 is running; Ctrl-C ends it")
            if arguments.accounts_file is not None:
                many = f"{arguments.accounts} account(s): {arguments.accounts_file}"
                context.output.step("accounts", f"the credentials of {many}")
        context.ends_by_interrupt = True
        if arguments.json:  # its one line is a contract
            await asyncio.get_running_loop().create_future()
        with context.output.logs("af10_async.sandbox"):
            await asyncio.get_running_loop().create_future()


def _dealers(count: int) -> list[Account] | None:
    if count == 1:
        return None
    return [Account(username=f"dealer-{number}") for number in range(1, count + 1)]


def _write_accounts(sandbox: Sandbox, path: Path | None) -> None:
    if path is None:
        return
    try:
        sandbox.write_accounts(path)
    except OSError as error:
        raise ConfigurationError(
            f"the accounts cannot be written to {path}: {error.strerror or error}; choose another"
            " --accounts-file"
        ) from None


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
