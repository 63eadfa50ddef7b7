"""Types are a promise: mypy, which `nox -s types` runs over this file, holds it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from typing import Any, assert_type

import httpx
import httpx2

from af10_async import AF10Client, Job, JobEvent, JobState, RemoteFile, SavedFile


async def promises(af10: AF10Client, group: asyncio.TaskGroup) -> None:
    job = af10.backup_owner()
    assert_type(job, Job[RemoteFile])
    assert_type(await job, RemoteFile)
    assert_type(await job.start(), Job[RemoteFile])
    assert_type(job.state, JobState)
    assert_type(job.events(), AsyncGenerator[JobEvent, None])
    assert_type(af10.job(job.key), Job[Any])
    assert_type(group.create_task(job), asyncio.Task[RemoteFile])
    assert_type(await asyncio.gather(job, job), tuple[RemoteFile, RemoteFile])
    assert_type(await asyncio.wait_for(job, 1), RemoteFile)
    file = af10.file("https://example.com/x")
    assert_type(await file.save("folder/"), SavedFile)
    assert_type(await file.read(limit=5), bytes)
    assert_type(aiter(file), AsyncGenerator[bytes, None])


def handed_in(url: str) -> list[AF10Client]:
    def make(http_client: httpx.AsyncClient | httpx2.AsyncClient) -> AF10Client:
        return AF10Client(
            base_url=url, api_key="k", username="u", password="p", http_client=http_client
        )

    return [make(httpx.AsyncClient()), make(httpx2.AsyncClient())]


def test_a_client_of_either_library_may_be_handed_in() -> None:
    assert len(handed_in("https://api.example.com/v2")) == 2


def test_a_saved_file_is_a_path() -> None:
    assert issubclass(SavedFile, os.PathLike)
