"""The processes that are killed, forked from one that has imported everything already.

`python -m tests.crash.child`. Each line of its input is an order, `{"fork": NUMBER, "life": {...}}`
or `{"kill": NUMBER}`; each line of its output is what a process says, or that it has ended.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import importlib
import json
import logging
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from af10_async import (
    AF10Client,
    CallbackServer,
    CallbackTimeoutError,
    Job,
    JobNotFoundError,
    Progress,
    RetryPolicy,
)
from af10_async.stores import open_store

from .life import Life, deadly, die, is_of_store, watch

# What the package imports when it is used, so that no process that is forked has to.
LATER = (
    *(
        "_strptime",
        "aiohttp.web",
        "anyio._backends._asyncio",
        "certifi",
        "httpcore",
        "redis.asyncio",
    ),
    *(f"af10_async.{each}" for each in ("callback_http", "models", "settings")),
    *(f"af10_async.stores.{each}" for each in ("sqlite", "valkey")),
)
QUICK = RetryPolicy(attempts=6, first_pause=0.01, longest_pause=0.1)


# -- one client ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Client:
    """An ordinary script: order a backup, or take up what is unfinished, and save it."""

    number: int
    life: Life

    def say(self, what: str, **details: Any) -> None:
        """Tell the campaign. One write, which a kill cannot cut in two."""
        line = json.dumps({"number": self.number, "said": what, **details}) + "\n"
        os.write(1, line.encode())

    async def run(self) -> None:
        """Do what the orders say."""
        async with self.entered() as af10:
            self.say("listening")
            if not self.life.take_up:
                await self.order(af10)
            else:
                found = await self.take_up(af10)
                if not found and not self.life.waits_on:
                    await self.order(af10)
            self.say("end", left=[job.key async for job in af10.unfinished()])

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[AF10Client]:
        """The client, with the store as it is, or as one that kills."""
        life = self.life
        usual: Any = {**life.account, "retries": QUICK, "callback_timeout": life.patience}
        tls: Any = {"tls_cert": life.tls_cert, "tls_key": life.tls_key}
        if not is_of_store(life.die_at):
            client = AF10Client(**usual, **tls, listen_port=life.port, store=life.store)
            async with client:
                yield client
            return
        store = deadly(open_store(life.store), life.die_at, self.say)
        async with (
            CallbackServer(port=life.port, **tls, store=store) as server,
            AF10Client(**usual, callback_server=server) as client,
        ):
            yield client

    async def order(self, af10: AF10Client) -> None:
        """A backup from the beginning."""
        job = af10.backup_owner(callback_timeout=60)
        self.say("ordered", key=job.key, ticket=job.ticket)
        await job.start()
        self.say("accepted")
        await self.save(job)

    async def take_up(self, af10: AF10Client) -> bool:
        """What an earlier process left; whether it was saved."""
        life = self.life
        if life.take_up == "unfinished" or life.may_be_done:
            jobs = [job async for job in af10.unfinished() if job.key == life.key]
            if life.take_up == "unfinished" or not jobs:
                return bool([await self.resume(af10, job) for job in jobs])
        name = life.key if life.take_up == "key" else life.ticket
        return await self.resume(af10, af10.job(name))

    async def resume(self, af10: AF10Client, job: Job[Any]) -> bool:
        """Wait for one job and save its file; whether there was one."""
        try:
            await job
        except JobNotFoundError:
            self.say("not found")
            return False
        except CallbackTimeoutError as error:
            self.say("timeout", key=error.key, start_certain=error.start_certain)
            if not self.life.waits_on:
                await self.order(af10)
                return True
            job = af10.job(job.key, callback_timeout=60)
        await self.save(job)
        return True

    async def save(self, job: Job[Any]) -> None:
        """The file, on disk."""
        file = await job
        saved = await file.save(
            self.life.target, overwrite=self.life.overwrite, progress=self.progress
        )
        self.say("saved", path=str(saved.path), sha256=saved.sha256)

    def progress(self, progress: Progress) -> None:
        """Hears of each piece, and of the last."""
        if self.life.die_at == "received" and progress.received == progress.total:
            die()


def live(number: int, life: Life) -> NoReturn:
    """One process, from its fork to its end."""
    logging.basicConfig(filename=life.log, format="%(process)d %(name)s: %(message)s")
    logging.getLogger("af10_async").setLevel(logging.DEBUG)
    # It calls nobody over https, so it need not read all the authorities of the world.
    os.environ["SSL_CERT_FILE"] = life.tls_cert
    if life.die_at.startswith("os."):
        watch(life.die_at)
    if not life.has_links:
        os.link = _no_link
    client, code = Client(number, life), 0
    try:
        asyncio.run(client.run())
    except BaseException:
        client.say("failed", error=traceback.format_exc()[-2000:])
        code = 1
    os._exit(code)


def _no_link(*arguments: object, **options: object) -> None:
    raise OSError(errno.EPERM, "no hard links here")


# -- where they come from --------------------------------------------------------------------------


class Nursery:
    """Forks them, and sees each of them end. Has no loop, no thread, no store and no client."""

    def __init__(self) -> None:
        self._pids: dict[int, int] = {}
        """By number, of those that have not been waited for: their numbers are nobody else's."""
        self._lifelines: dict[int, int] = {}
        """By descriptor; each is closed at its other end when its process ends."""
        self._rest = b""

    def serve(self) -> None:
        """Obey until there are no more orders."""
        while True:
            ready, _, _ = select.select([0, *self._lifelines], [], [])
            for descriptor in ready:
                if descriptor:
                    self._bury(descriptor)
            if 0 in ready and not self._read():
                break
        for number in list(self._pids):
            self._kill(number)

    def _read(self) -> bool:
        found = os.read(0, 65536)
        *lines, self._rest = (self._rest + found).split(b"\n")
        for line in lines:
            order = json.loads(line)
            if "kill" in order:
                self._kill(order["kill"])
            else:
                self._fork(order["fork"], Life.of(order["life"]))
        return bool(found)

    def _fork(self, number: int, life: Life) -> None:
        assert threading.active_count() == 1
        near, far = os.pipe()
        pid = os.fork()
        if not pid:
            for descriptor in (0, near, *self._lifelines):
                os.close(descriptor)
            os.open(os.devnull, os.O_RDONLY)  # the lowest number that is free: 0
            live(number, life)
        os.close(far)
        self._pids[number], self._lifelines[near] = pid, number

    def _kill(self, number: int) -> None:
        if number in self._pids:  # else it was faster
            os.kill(self._pids[number], signal.SIGKILL)

    def _bury(self, lifeline: int) -> None:
        number = self._lifelines.pop(lifeline)
        os.close(lifeline)
        _, status = os.waitpid(self._pids.pop(number), 0)
        code = os.waitstatus_to_exitcode(status)
        sys.stdout.write(json.dumps({"number": number, "said": "ended", "code": code}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    for name in LATER:
        importlib.import_module(name)
    gc.freeze()  # else each process would copy all of this when it first collects
    Nursery().serve()
