"""Commands to a Valkey or Redis server: what is asked at the same time travels together."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from ..errors import MissingExtraError, StoreError
from .valkey_address import Address
from .valkey_errors import Closed, is_lost, is_timeout, is_unknown_script, store_error

T = TypeVar("T")

CONNECT_SECONDS = 3.0
COMMAND_SECONDS = 4.0
"""Longest time of a command, connecting included; who answers a callback has 5 seconds."""
_BATCH = 500
"""Most commands that travel together."""
_BATCH_SIZE = 1_000_000
"""Characters after which no further command joins the others."""


class Script:
    """What the server does in one atomic step, with one key."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class _Asked(NamedTuple):
    command: tuple[Any, ...]
    answer: asyncio.Future[Any]
    """Its result may be an exception: a caller who was cancelled fetches none."""
    script: Script | None = None

    @property
    def size(self) -> int:
        return sum(len(each) for each in self.command if isinstance(each, str | bytes))


class Client:
    """A connection that everybody of one store shares, and one more for messages.

    Whatever is asked while a batch is on its way goes with the next. Nobody's cancelling touches
    the connection: the answer comes and is thrown away.
    """

    def __init__(self, address: Address, on_return: Callable[[], None]) -> None:
        self.address = address
        self.is_down = False
        """Whether the last batch came to nothing."""
        self._on_return = on_return
        self._redis: Any = None
        self._asked: deque[_Asked] = deque()
        self._ready = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send; the first command connects."""
        try:
            self._redis = _connect(self.address)
        except (TypeError, ValueError) as error:
            raise self.error(error) from None
        self._worker = asyncio.create_task(self._work(), name="af10_async valkey commands")

    async def close(self) -> None:
        """Drop what was not sent, and the connections."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await end(worker)
        self._fail(Closed())
        if self._redis is not None:
            with contextlib.suppress(Exception):  # it is given up, however it ends
                await self._redis.aclose()

    def submit(self, *command: Any, script: Script | None = None) -> asyncio.Future[Any]:
        """Send a command with the next batch. The answer may be an exception as a value."""
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        if self._worker is None or self._worker.get_loop() is not loop:
            answer.set_result(Closed())
        else:
            self._asked.append(_Asked(command, answer, script))
            self._ready.set()
        return answer

    def submit_script(self, script: Script, key: str, *values: Any) -> asyncio.Future[Any]:
        """The same for a script."""
        return self.submit("EVALSHA", script.sha, 1, key, *values, script=script)

    async def run(self, *command: Any) -> Any:
        """The answer to a command. Raises `StoreError`."""
        return self.answer(await self.submit(*command))

    async def run_script(self, script: Script, key: str, *values: Any) -> Any:
        """The answer of a script. Raises `StoreError`."""
        return self.answer(await self.submit_script(script, key, *values))

    def answer(self, value: Any) -> Any:
        """`value`, the result of what was submitted. Raises `StoreError` if it is an error."""
        if isinstance(value, Exception):
            raise self.error(value) from None
        return value

    async def scan(self, pattern: str) -> AsyncIterator[str]:
        """The names of all keys like `pattern`, of every node; some may come twice."""
        for node in self._redis.get_primaries() if self.address.is_cluster else [None]:
            cursor = None
            while cursor != 0:
                try:
                    cursor, names = await apart(self._scan(node, cursor or 0, pattern))
                except Exception as error:
                    raise self.error(error) from None
                for name in names:
                    yield name.decode()

    async def memory(self) -> dict[str, Any]:
        """What the server (one of them) says about its memory; empty when it does not say."""
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                found: dict[str, Any] = await apart(self._redis.info("memory"))
        except Exception:  # it only serves a warning, and not everybody may ask
            return {}
        return found

    def pubsub(self) -> Any:
        """A subscriber with a connection of its own; to be closed by `aclose`."""
        return self._redis.pubsub()

    def error(self, error: Exception) -> StoreError:
        """What to tell the caller. Never quotes a command, for it may hold a secret."""
        return store_error(error, self.address)

    async def _scan(self, node: Any, cursor: int, pattern: str) -> tuple[int, list[bytes]]:
        found: tuple[Any, list[bytes]]
        if node is None:
            found = await self._redis.scan(cursor, match=pattern, count=200)
            return found
        command = self._redis.scan(cursor, match=pattern, count=200, target_nodes=node)
        found = await command
        return found[0][node.name], found[1]

    async def _work(self) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            while batch := self._take():
                await self._send(batch)

    def _take(self) -> list[_Asked]:
        batch: list[_Asked] = []
        size = 0
        while self._asked and len(batch) < _BATCH and size < _BATCH_SIZE:
            asked = self._asked.popleft()
            if not asked.answer.done():  # else its caller was cancelled
                batch.append(asked)
                size += asked.size
        return batch

    async def _send(self, batch: list[_Asked]) -> None:
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                pipeline = self._redis.pipeline(transaction=False)
                for asked in batch:
                    pipeline.execute_command(*asked.command)
                answers = await pipeline.execute(raise_on_error=False)
        except asyncio.CancelledError:
            self._asked.extendleft(reversed(batch))  # `close` tells them
            raise
        except Exception as error:  # whatever it is, those who asked must hear of it
            self.is_down = True
            answers = [error] * len(batch)
            if is_timeout(error):
                self._fail(error)  # else the last in the queue would wait once more for each batch
        else:
            await self._look_at(answers)
        again = [
            once_more
            for asked, answer in zip(batch, answers, strict=True)
            if (once_more := _given(asked, answer)) is not None
        ]
        # Before what was asked later: releasing a lease, say, before taking it anew.
        self._asked.extendleft(reversed(again))

    async def _look_at(self, answers: list[Any]) -> None:
        """Notice that the server is back, or that nodes of a cluster are not where they were."""
        was_down, self.is_down = self.is_down, any(map(is_lost, answers))
        if self.is_down:
            with contextlib.suppress(Exception):
                await self._redis.aclose()  # the next batch asks which nodes there are
        elif was_down:
            self._on_return()

    def _fail(self, error: Exception) -> None:
        while self._asked:
            asked = self._asked.popleft()
            if not asked.answer.done():
                asked.answer.set_result(error)


def _given(asked: _Asked, answer: Any) -> _Asked | None:
    """Tell who asked; or what to ask again, when the server does not know the script."""
    if asked.answer.done():
        return None
    if asked.script is not None and is_unknown_script(answer):
        return _Asked(("EVAL", asked.script.text, *asked.command[2:]), asked.answer)
    asked.answer.set_result(answer)
    return None


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and wait until they are over.

    More than once if need be: `asyncio.wait_for`, which redis-py uses, may lose a cancellation
    before Python 3.12.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)


async def apart(step: Coroutine[Any, Any, T]) -> T:
    """What `step` of redis-py gives, in a task of its own: the caller loses no cancellation."""
    task = asyncio.create_task(step)
    try:
        await asyncio.wait([task])
    finally:
        await end(*({task} if not task.done() else ()))
    return task.result()


def check_installed() -> None:
    """Raises `MissingExtraError` without redis-py."""
    try:
        import redis.asyncio  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            'this store needs redis-py: pip install "af10-async[valkey]"'
        ) from None


def _connect(address: Address) -> Any:
    import redis.asyncio
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    kind: Any = redis.asyncio.RedisCluster if address.is_cluster else redis.asyncio.Redis
    # Sent once more at once over a new connection, which each of our steps can bear. Not after a
    # timeout: there is no time left for it.
    retry = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
    return kind.from_url(
        address.url,
        protocol=2,
        client_name="af10_async",
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=COMMAND_SECONDS,
        retry=retry,
    )
