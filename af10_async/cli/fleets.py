"""The commands for many accounts: a backup of each, and taking up what was interrupted."""

from __future__ import annotations

import argparse
import asyncio
import shlex
from collections.abc import Sequence
from typing import Any

from .. import AF10Client, AF10Error, Fleet, Job, JobNotFoundError
from ..outcomes import PATIENCE, Turns
from ..settings import StoreSettings
from .arguments import UsageError
from .context import Context, UnderWay
from .destination import Destination, destination
from .downloads import NO_KEEPING, deliver, file_of, keep_newest, timeouts
from .output import AccountOutput


async def backup_owner(arguments: argparse.Namespace, context: Context) -> None:
    """A backup of each account of a file."""
    if arguments.sha256 or arguments.md5:
        raise UsageError("--sha256 and --md5 are for one file: not with --accounts")
    fleet = Fleet.from_env(
        arguments.accounts, **timeouts(arguments, "start", "callback", "download")
    )
    names = _chosen(fleet, arguments.account)
    out = await destination(arguments, is_folder=True)
    if arguments.keep is not None and out.path is None:
        raise UsageError(NO_KEEPING)
    is_lasting = StoreSettings.from_env().store.get_secret_value() != "memory:"
    advice = _resuming(arguments) if is_lasting else None
    async with fleet:
        _ = fleet.callback_url  # without one, each account would fail for the same reason
        with context.output.board(names) as board:

            async def back_up(client: AF10Client) -> None:
                assert client.name is not None  # a fleet's clients have names
                output = board.account(client.name)
                place = out.below(client.name)
                await _back_up(client, place, advice, output, arguments, context)

            async for outcome in fleet.each(back_up, concurrency=arguments.jobs, accounts=names):
                if isinstance(outcome.error, AF10Error):  # it has no client: see its settings
                    context.failed(outcome.error, output=board.account(outcome.account))
                elif outcome.error is not None:
                    raise outcome.error  # a mistake of ours: it must not pass for one of AF10's
    _note_failures(context)


async def _back_up(
    client: AF10Client,
    place: Destination,
    advice: str | None,
    output: AccountOutput,
    arguments: argparse.Namespace,
    context: Context,
) -> None:
    job = client.backup_owner()
    download = UnderWay(job.key, place, advice)
    try:
        with context.having(job.key, advice):
            async for event in job.events():
                output.job(event)
            saved = await deliver(await job, download, arguments, context, output)
            await keep_newest(saved, arguments.keep, client, output)
    except AF10Error as error:
        context.failed(error, download, output)


async def resume(arguments: argparse.Namespace, context: Context) -> None:
    """Jobs of many accounts that were started before."""
    fleet = Fleet.from_env(arguments.accounts, **timeouts(arguments, "callback", "download"))
    names = _chosen(fleet, arguments.account)
    out = await destination(arguments, is_folder=True)
    async with fleet:
        found: list[tuple[str, Job[Any]]] = []
        for key in dict.fromkeys(arguments.keys):
            try:
                client = await fleet.owner_of(key)
                found.append((client.name or "", client.job(key)))
            except JobNotFoundError as error:
                error.key = key
                context.failed(error)
        if arguments.all:
            found = [each async for each in fleet.unfinished(accounts=names)]
        context.attempts = len(found)
        await _take_up(found, out, arguments, context)
    _note_failures(context)


async def _take_up(
    found: Sequence[tuple[str, Job[Any]]],
    out: Destination,
    arguments: argparse.Namespace,
    context: Context,
) -> None:
    if not found and not context.failures:
        context.output.step("nothing", "there is nothing to resume that nobody works on")
    if not found:
        return
    turns = Turns(arguments.jobs, PATIENCE)
    # Several may be of one account: each has a line of its own.
    titles = [f"{name} {job.key[:6]}…" for name, job in found]
    with context.output.board(titles) as board:

        async def one(title: str, name: str, job: Job[Any]) -> None:
            async with turns.turn():
                advice, output = _resuming(arguments), board.account(title)
                download = UnderWay(job.key, out.below(name), advice)
                try:
                    with context.having(job.key, advice):
                        await deliver(await file_of(job), download, arguments, context, output)
                except AF10Error as error:
                    context.failed(error, download, output)

        try:
            async with asyncio.TaskGroup() as group:
                for title, (name, job) in zip(titles, found, strict=True):
                    group.create_task(one(title, name, job))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None


def _note_failures(context: Context) -> None:
    """Whatever each of them failed for: the exit code is 1."""
    if context.failures:
        context.failures.append(AF10Error("some accounts failed"))


def _chosen(fleet: Fleet, names: Sequence[str] | None) -> list[str]:
    known = list(fleet)
    for name in names or ():
        if name not in known:
            raise UsageError(f"--account {name}: there is no account of that name in the file")
    return [name for name in known if not names or name in names]


def _resuming(arguments: argparse.Namespace) -> str:
    accounts, out = (shlex.quote(str(each)) for each in (arguments.accounts, arguments.out))
    return f"`af10 resume --all --accounts {accounts} --out {out}` goes on from where it stopped"
