"""The commands that work with a store alone: receive and jobs."""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path

from .. import CallbackServer, ConfigurationError
from ..settings import StoreSettings
from ..stores import Store, open_store
from .context import Context


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
