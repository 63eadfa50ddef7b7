"""Jobs, their secrets, and the addresses of their files."""

from __future__ import annotations

import secrets
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from .archives import Archive, make_archive

__all__ = ["CallbackAttempt", "JobBook", "Link", "SandboxJob"]


@dataclass(frozen=True, slots=True)
class CallbackAttempt:
    """One callback that was made.

    Attributes:
        url: The whole URL, with the id in it.
        method: GET, unless a fault asked for another.
        status: What the receiver answered; None when it did not.
        error: The name of the exception's class when there was no answer.

    """

    url: str = field(repr=False)
    method: str = "GET"
    status: int | None = None
    error: str | None = None


@dataclass(slots=True, eq=False)
class SandboxJob:
    """A job that was posted.

    Attributes:
        id: What the sandbox calls it.
        secret: The id that the callback brings, and that is redeemed.
        webhook_url: The URL that was posted.
        account: The username whose job it is.
        number: The how-manieth of that account, from 1; the file depends on it.
        filename: The name in the file's Content-Disposition.
        ready: Whether its secret can be redeemed.
        callbacks: The callbacks made so far, failed ones included.

    """

    id: str
    secret: str = field(repr=False)
    webhook_url: str = field(repr=False)
    account: str
    number: int
    filename: str
    ready: bool = False
    ready_at: float | None = None
    """Unix seconds; the file's Last-Modified."""
    callbacks: list[CallbackAttempt] = field(default_factory=list)
    link: Link | None = field(default=None, repr=False)
    body: Any = field(default=None, repr=False)
    """The JSON that was posted."""

    def become_ready(self) -> None:
        """From now on its secret can be redeemed."""
        if not self.ready:
            self.ready, self.ready_at = True, time.time()


@dataclass(slots=True, eq=False)
class Link:
    """One address of a job's file."""

    job: SandboxJob
    token: str
    good_until: float | None
    stale_status: int | None = None

    def refused_with(self) -> int | None:
        """The status with which it is refused, or None while it is good."""
        is_old = self.good_until is not None and time.monotonic() >= self.good_until
        if self.stale_status is None and is_old:
            self.stale_status = 403
        return self.stale_status


class JobBook:
    """All jobs.

    Args:
        file_size: The size of each job's archive, in bytes.
        file_seconds: How long an address of a file is good; None for ever.

    """

    def __init__(self, file_size: int, file_seconds: float | None) -> None:
        self._file_size = file_size
        self._file_seconds = file_seconds
        self._by_secret: dict[str, SandboxJob] = {}
        self._links: dict[str, Link] = {}
        self._numbers: Counter[str] = Counter()
        make_archive("", 1, file_size)  # a size that cannot be is refused now

    @property
    def jobs(self) -> list[SandboxJob]:
        """In the order in which they were posted."""
        return list(self._by_secret.values())

    def add(self, account: str, webhook_url: str, body: Any) -> SandboxJob:
        """A new job."""
        self._numbers[account] += 1
        number = self._numbers[account]
        job = SandboxJob(
            id=f"job-{len(self._by_secret) + 1}",
            secret=str(uuid.uuid4()),
            webhook_url=webhook_url,
            account=account,
            number=number,
            filename=make_archive(account, number, self._file_size).filename,
            body=body,
        )
        self._by_secret[job.secret] = job
        return job

    def of_secret(self, secret: str) -> SandboxJob | None:
        """The job whose secret this is."""
        return self._by_secret.get(secret)

    def archive(self, job: SandboxJob) -> Archive:
        """The job's file."""
        return make_archive(job.account, job.number, self._file_size)

    def good_link(self, job: SandboxJob) -> Link:
        """An address of its file: a new one when addresses age or the last was refused."""
        link = job.link
        if link is None or self._file_seconds is not None or link.stale_status is not None:
            link = job.link = self._new_link(job)
        return link

    def of_link(self, token: str) -> Link | None:
        """What the unguessable part of an address leads to."""
        return self._links.get(token)

    def _new_link(self, job: SandboxJob) -> Link:
        seconds = self._file_seconds
        until = None if seconds is None else time.monotonic() + seconds
        link = Link(job, secrets.token_urlsafe(24), until)
        self._links[link.token] = link
        return link
