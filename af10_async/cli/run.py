"""Runs a command, and says how it ended."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from .. import AF10Error
from . import downloads, fleets, stores
from .arguments import parse
from .context import Context
from .exit_codes import INTERRUPTED, REFUSED, exit_code, exit_code_of_many
from .json_output import JsonOutput
from .output import Failure
from .people_output import PeopleOutput

Command = Callable[[argparse.Namespace, Context], Awaitable[None]]


_COMMANDS: dict[str, Command] = {
    "receive": stores.receive,
    "jobs": stores.jobs,
    "fetch": downloads.fetch,
}
_OF_ONE: dict[str, Command] = {"backup": downloads.backup_owner, "resume": downloads.resume}
_OF_MANY: dict[str, Command] = {"backup": fleets.backup_owner, "resume": fleets.resume}
"""The same for a file of accounts."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
            failure = Failure(type(error).__name__, f"cannot write: {error}", REFUSED)
            PeopleOutput().failed(failure)
        return REFUSED


def _run(arguments: Sequence[str]) -> int:
    context = Context(JsonOutput() if "--json" in arguments else PeopleOutput())
    try:
        parsed = parse(arguments)
        code = asyncio.run(_ended(_command(parsed)(parsed, context), context))
    except AF10Error as error:
        context.report(error)
        return exit_code(error)
    except KeyboardInterrupt:  # when all was done and said
        code = INTERRUPTED
    return code


def _command(parsed: argparse.Namespace) -> Command:
    name = parsed.command
    # Imported by who runs it: these alone take as long as all the others.
    if name == "doctor":
        from .doctor import doctor

        return doctor
    if name in ("demo", "sandbox"):
        from . import sandboxes

        return sandboxes.demo if name == "demo" else sandboxes.sandbox
    if name in _OF_ONE:
        return (_OF_ONE if parsed.accounts is None else _OF_MANY)[name]
    return _COMMANDS[name]


@contextlib.contextmanager
def _cancelled_by_signals(task: asyncio.Task[Any]) -> Iterator[None]:
    """Not by the loop's own handlers: closing, it would restore those that raise an exception."""
    loop = asyncio.get_running_loop()

    def cancel(*_: object) -> None:
        loop.call_soon_threadsafe(task.cancel)

    before = {number: signal.signal(number, cancel) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is cancel:
                signal.signal(number, handler)


def _ignore_signals() -> None:
    """The process ends, and nothing should disturb that."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


async def _ended(command: Awaitable[None], context: Context) -> int:
    """How a command ended; that is also said.

    A second signal is one more cancellation: as an exception in the midst of something it would
    leave partial files half-written, and tracebacks.
    """
    task = asyncio.current_task()
    assert task is not None  # this is a coroutine
    with _cancelled_by_signals(task):
        try:
            await command
        except asyncio.CancelledError:
            _ignore_signals()
            if not context.ends_by_interrupt:
                context.interrupted()
            return INTERRUPTED
        except AF10Error as error:
            context.report(error)
            return exit_code(error)
        return exit_code_of_many(context.failures)
