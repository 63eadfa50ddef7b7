"""Runs a command, and says how it ended."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence

from .. import AF10Error
from . import commands
from .arguments import parse
from .commands import Context
from .exit_codes import INTERRUPTED, REFUSED, exit_code, exit_code_of_many
from .output import JsonOutput, PeopleOutput

_COMMANDS: dict[str, Callable[[argparse.Namespace, Context], Awaitable[None]]] = {
    "demo": commands.demo,
    "backup": commands.backup_owner,
    "receive": commands.receive,
    "jobs": commands.jobs,
    "resume": commands.resume,
    "sandbox": commands.sandbox,
}


def run(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` name, and return its exit code."""
    if sys.stdout is None:  # it was closed before we began
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - as long as the process
    try:
        return _run(arguments)
    except AF10Error:
        raise
    except OSError as error:
        # Nobody reads any more, or what is written to is full. Without the null device, Python
        # would complain once more while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            PeopleOutput().error(type(error).__name__, f"cannot write: {error}", None, REFUSED)
        return REFUSED


def _run(arguments: Sequence[str]) -> int:
    context = Context(JsonOutput() if "--json" in arguments else PeopleOutput())
    try:
        parsed = parse(arguments)
        asyncio.run(_cancelled_by_sigterm(_COMMANDS[parsed.command](parsed, context)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        if context.ends_by_interrupt:
            return INTERRUPTED
        text = "interrupted"
        if context.key:
            text += f"; AF10 may go on with the job [job {context.key}]"
        context.output.error(
            "KeyboardInterrupt", text, context.key, INTERRUPTED, ticket=context.ticket
        )
        return INTERRUPTED
    except AF10Error as error:
        context.report(error)
        return exit_code(error)
    return exit_code_of_many(context.failures)


async def _cancelled_by_sigterm(command: Awaitable[None]) -> None:
    task = asyncio.current_task()
    assert task is not None  # this is a coroutine
    # asyncio has no signal handlers on Windows, where nobody sends SIGTERM; Ctrl-C works there too.
    with contextlib.suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await command
