"""One `save`, in this process or in one of its own that can be killed."""

from __future__ import annotations

import asyncio
import multiprocessing
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from af10_async import AF10Client, AF10Error, RetryPolicy
from af10_async.runtime import Runtime

LONGEST_PAUSE = 0.005
STALL = 0.25
"""Seconds of silence that are taken for a stall."""
FOREVER = 3600.0


@dataclass(frozen=True, slots=True)
class Order:
    """What to save, and where."""

    url: str
    target: str
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class End:
    """How it ended."""

    error: str = ""
    """The name of its class."""
    text: str = ""
    is_ours: bool = True
    """Whether the error is an `AF10Error`."""
    size: int = 0
    sha256: str = ""
    resumed_from: int = 0


async def save(order: Order) -> End:
    """Do it."""
    try:
        async with AF10Client(
            base_url="http://127.0.0.1:9/v2",  # nothing is asked of it
            api_key="a",
            username="u",
            password="p",
            download_timeout=FOREVER,
            retries=RetryPolicy(first_pause=0.001, longest_pause=LONGEST_PAUSE),
            runtime=Runtime(sleep=_sleep),
        ) as af10:
            saved = await af10.file(order.url).save(order.target, **order.options)
            return End(size=saved.size, sha256=saved.sha256, resumed_from=saved.resumed_from)
    except AF10Error as error:
        return End(type(error).__name__, str(error))
    except Exception as error:
        return End(type(error).__name__, traceback.format_exc()[-3000:], is_ours=False)


async def _sleep(seconds: float) -> None:
    """Nobody waits for what a server asks for."""
    await asyncio.sleep(min(seconds, LONGEST_PAUSE))


# -- processes -------------------------------------------------------------------------------------

_LATER = ("af10_async.settings", "anyio._backends._asyncio", "certifi", "httpcore")
"""What is imported when it is first needed."""
_CONTEXT = multiprocessing.get_context("forkserver")


def prepare() -> None:
    """Have a process from which others are forked quickly; before there is a loop or a thread."""
    _CONTEXT.set_forkserver_preload([__name__, *_LATER])
    first = _CONTEXT.Process(target=int)
    first.start()
    first.join()


class Process:
    """`save` in a process of its own."""

    def __init__(self, order: Order) -> None:
        self._near, far = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(target=_live, args=(order, far))
        self._process.start()
        far.close()

    async def ended(self) -> End | None:
        """Wait; how it ended, None when it was killed. Kills it when cancelled."""
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._process.sentinel, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(self._process.sentinel)
            self._process.kill()
            self._process.join()
            end = self._heard()
            self._near.close()
            self._process.close()
        return end

    def kill(self) -> None:
        """`kill -9`."""
        self._process.kill()

    def _heard(self) -> End | None:
        try:
            end: End = self._near.recv()
        except EOFError:
            return None
        return end


def _live(order: Order, far: Connection) -> None:
    far.send(asyncio.run(save(order)))
