"""Calling back: a plain GET on the webhook URL, once."""

from __future__ import annotations

import asyncio
import logging
import ssl
import uuid
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlencode, urlsplit, urlunsplit

import aiohttp
from yarl import URL

from .faults.acts import Come
from .jobs import CallbackAttempt, SandboxJob

__all__ = ["Caller", "callback_url"]

logger = logging.getLogger("af10_async.sandbox")

CALL_SECONDS = 10.0
"""How long one callback may take in all."""


class Caller:
    """Makes the callbacks that are due.

    Args:
        job_seconds: From the accepted POST to the callback.
        trust: Makes the TLS context for https webhooks; asked once, at the first callback.

    """

    def __init__(self, job_seconds: float, trust: Callable[[], ssl.SSLContext]) -> None:
        self._job_seconds = job_seconds
        self._trust = trust
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def schedule(self, job: SandboxJob, come: Come) -> None:
        """Have the job become ready and called back in due time."""
        self._spawn(job, come, self._job_seconds + come.late_seconds)

    async def now(self, job: SandboxJob, come: Come) -> None:
        """Have it called back at once, and wait for that."""
        # A task, so that closing finds it; and `wait`, which does not raise when it is cancelled.
        await asyncio.wait([self._spawn(job, come, 0.0)])

    def _spawn(self, job: SandboxJob, come: Come, seconds: float) -> asyncio.Task[None]:
        task = asyncio.create_task(self._later(job, come, seconds))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def make(self, job: SandboxJob, come: Come) -> None:
        """The job is ready: make all its callbacks now."""
        job.become_ready()
        for method, secret in _calls(job, come):
            await self.call(job, method, callback_url(job.webhook_url, secret, come))

    async def call(self, job: SandboxJob, method: str, url: str) -> int | None:
        """Make one callback and note how it went; the status, None when there was no answer."""
        status, error = None, None
        try:
            async with self._opened().request(
                method, URL(url, encoded=True), allow_redirects=False
            ) as response:
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as failure:
            error = type(failure).__name__
        logger.debug("callback for %s: %s", job.id, error or status)
        if error is not None:
            _warn(job, error)
        job.callbacks.append(CallbackAttempt(url, method, status, error))
        return status

    async def settled(self) -> None:
        """Wait until no callback is due or under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Make no more callbacks, and drop those under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _later(self, job: SandboxJob, come: Come, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.make(job, come)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._trust(), limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=CALL_SECONDS),
                headers={"User-Agent": "AF10-sandbox"},
            )
        return self._session


def _warn(job: SandboxJob, error: str) -> None:
    """Say that nobody was reached: who waits for a callback would see nothing but silence."""
    host = urlsplit(job.webhook_url).netloc
    hint = "; is its certificate trusted (callback_ca, --callback-ca)?" if "Cert" in error else ""
    logger.warning("the callback for %s did not reach %s: %s%s", job.id, host, error, hint)


def _calls(job: SandboxJob, come: Come) -> Iterator[tuple[str, str]]:
    if come.forged_first:
        yield "GET", str(uuid.uuid4())
    if come.method_first is not None:
        yield come.method_first, job.secret
    if come.genuine:
        for _ in range(come.times):
            yield "GET", job.secret


def callback_url(webhook_url: str, secret: str, come: Come | None = None) -> str:
    """The webhook URL with `id` added, in the way that `come` says."""
    come = come or Come()
    parts = urlsplit(webhook_url)
    added = _query(secret, come.extra)
    if come.style == "ampersand":
        return urlunsplit(parts._replace(fragment="")) + "&" + added
    path = parts.path
    if come.style == "trailing_slash" and not path.endswith("/"):
        path += "/"
    query = f"{parts.query}&{added}" if parts.query else added
    return urlunsplit(parts._replace(path=path, query=query, fragment=""))


def _query(secret: str, extra: Mapping[str, str]) -> str:
    pairs = list(extra.items())
    half = (len(pairs) + 1) // 2
    return urlencode([*pairs[:half], ("id", secret), *pairs[half:]])
