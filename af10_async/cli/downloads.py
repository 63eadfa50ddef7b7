"""The commands that bring a file: backup, resume and fetch."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import time
from collections.abc import AsyncIterator
from typing import Any

from .. import (
    AF10Client,
    AF10Error,
    CopiedFile,
    Downloader,
    Job,
    RemoteFile,
    SavedFile,
    UnexpectedPayloadError,
)
from ..outcomes import PATIENCE, Turns
from ..protocol.addresses import check_file_url
from ..retention import keep_in
from ..settings import StoreSettings
from .arguments import UsageError
from .context import Context, UnderWay
from .destination import Destination, destination
from .output import AccountOutput

NO_KEEPING = "--keep is for folders: object storage has rules of its own for old objects"
_AGAIN = "the same command goes on from where it stopped"


async def backup_owner(arguments: argparse.Namespace, context: Context) -> None:
    """The main job, against the AF10 that the environment names."""
    if arguments.account:
        raise UsageError("--account goes with --accounts, the file that names them")
    client = AF10Client.from_env(**timeouts(arguments, "start", "callback", "download"))
    out = await destination(arguments, is_folder=True)
    if arguments.keep is not None and out.path is None:
        raise UsageError(NO_KEEPING)
    is_lasting = StoreSettings.from_env().store.get_secret_value() != "memory:"
    async with client:
        await back_up(client, out, arguments, context, is_lasting=is_lasting)


async def back_up(
    client: AF10Client,
    out: Destination,
    arguments: argparse.Namespace,
    context: Context,
    *,
    is_lasting: bool = False,
) -> None:
    """A backup, told step by step; `is_lasting` says whether the job outlives this process."""
    job = client.backup_owner()
    async for event in job.events():
        context.key, context.ticket = job.key, job.ticket
        context.output.job(event)
    file = await job
    command = f"`af10 resume {job.key} --out {shlex.quote(str(arguments.out))}`"
    advice = f"{command} goes on from where it stopped" if is_lasting else None
    saved = await deliver(file, UnderWay(job.key, out, advice), arguments, context, context.output)
    await keep_newest(saved, getattr(arguments, "keep", None), client, context.output)


async def keep_newest(
    saved: object, many: int | None, client: AF10Client, output: AccountOutput
) -> None:
    """Remove older backups of the account, when so many are to be kept."""
    if many is not None and isinstance(saved, SavedFile):
        output.removed(await keep_in(saved, many, client.account, time.time()))


async def resume(arguments: argparse.Namespace, context: Context) -> None:
    """Jobs that were started before, whoever started them."""
    if bool(arguments.keys) == arguments.all:
        raise UsageError("name the jobs to resume by their keys or tickets, or say --all")
    if arguments.account:
        raise UsageError("--account goes with --accounts, the file that names them")
    client = AF10Client.from_env(**timeouts(arguments, "callback", "download"))
    keys = list(dict.fromkeys(arguments.keys))
    out = await destination(arguments, is_folder=True, several=len(keys) != 1)
    async with client:
        named = [client.job(key) for key in keys]
        turns = Turns(arguments.jobs, PATIENCE)
        try:
            async with asyncio.TaskGroup() as group:
                async for job in _each(named) if named else client.unfinished():
                    turn = turns.turn()
                    await turn.take()
                    task = group.create_task(_resume_one(job, out, arguments, context))
                    task.add_done_callback(turn.give_back)
                    context.attempts += 1
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
    if not context.attempts:
        context.output.step("nothing", "there is nothing to resume that nobody works on")


async def _each(jobs: list[Job[Any]]) -> AsyncIterator[Job[Any]]:
    for job in jobs:
        yield job


async def _resume_one(
    job: Job[Any], out: Destination, arguments: argparse.Namespace, context: Context
) -> None:
    context.output.step("resuming", job.key, key=job.key)
    download = UnderWay(job.key, out, _AGAIN)
    try:
        name = job.key[:13] + "…"
        file = await file_of(job)
        await deliver(file, download, arguments, context, context.output, name=name)
    except AF10Error as error:
        context.failed(error, download)


async def file_of(job: Job[Any]) -> RemoteFile:
    """The file that a job brings. Raises `UnexpectedPayloadError` for one that brings none."""
    found = await job
    if isinstance(found, RemoteFile):
        return found
    raise UnexpectedPayloadError(
        "the job is done, but its result is no file: take it with client.job(key) in Python",
        payload=found,
        key=job.key,
    )


async def fetch(arguments: argparse.Namespace, context: Context) -> None:
    """A file from any address, without AF10."""
    problem = check_file_url(arguments.url, trusted=True)
    if problem is not None:
        raise UsageError(f"the URL cannot be fetched: {problem}")
    out = await destination(arguments, is_folder=False)
    async with Downloader(
        ca_file=arguments.ca_file, allowed_hosts=arguments.allowed_host
    ) as downloader:
        file = downloader.file(arguments.url, download_timeout=arguments.download_timeout)
        download = UnderWay(arguments.url, out, _AGAIN)
        await deliver(file, download, arguments, context, context.output)


async def deliver(
    file: RemoteFile,
    download: UnderWay,
    arguments: argparse.Namespace,
    context: Context,
    output: AccountOutput,
    *,
    name: str = "download",
) -> SavedFile | CopiedFile:
    """Bring a file to where it goes, and say so."""
    with context.downloading(download), output.download(file.key, name=name) as progress:
        done = await download.destination.deliver(file, arguments, progress)
    output.done(done, file.key)
    return done


def timeouts(arguments: argparse.Namespace, *names: str) -> dict[str, float]:
    """The timeouts that were given."""
    return {
        f"{name}_timeout": value
        for name in names
        if (value := getattr(arguments, f"{name}_timeout")) is not None
    }
