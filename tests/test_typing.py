"""Types are a promise: mypy, which `nox -s types` runs over this file, holds it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, assert_type

import httpx
import httpx2
from pydantic import BaseModel

from af10_async import (
    AF10Client,
    Environment,
    Job,
    JobEvent,
    JobState,
    Pages,
    RawResponse,
    RemoteFile,
    SavedFile,
    Vehicle,
)


class Row(BaseModel):
    brand: str


@dataclass
class Record:
    brand: str


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


async def promises_of_calls(af10: AF10Client) -> None:
    assert_type(await af10.get("/x"), Any)
    assert_type(await af10.get("/x", model=Row), Row)
    assert_type(await af10.get("/x", model=list[Row]), list[Row])
    assert_type(await af10.get("/x", model=Record), Record)
    assert_type(await af10.post("/x", json={}), Any)
    assert_type(await af10.post("/x", json={}, model=Row), Row)
    assert_type(await af10.put("/x", json=[1]), Any)
    assert_type(await af10.put("/x", model=Row), Row)
    assert_type(await af10.delete("/x"), Any)
    assert_type(await af10.delete("/x", model=int), int)
    assert_type(await af10.request("PATCH", "/x"), Any)
    assert_type(await af10.request("PATCH", "/x", model=Row), Row)
    assert_type(await af10.with_options(timeout=5, retries=0).get("/x", model=Row), Row)
    assert_type(await af10.with_raw_response.get("/x"), RawResponse)
    assert_type(await af10.vehicle(12), Vehicle)
    assert_type(await af10.environment(), Environment)


async def promises_of_lists(af10: AF10Client) -> None:
    assert_type(af10.pages("/x"), Pages[Any])
    assert_type(af10.pages("/x", fields=["a"], model=Row), Pages[Row])
    assert_type(await af10.pages("/x", model=Row).all(), list[Row])
    assert_type(af10.vehicles(search="volvo"), Pages[Vehicle])
    assert_type(aiter(af10.vehicles()), AsyncGenerator[Vehicle, None])
    assert_type(af10.vehicles().by_page(), AsyncGenerator[list[Vehicle], None])


async def promises_of_later_calls(af10: AF10Client) -> None:
    assert_type(af10.call("POST", "/x"), Job[Any])
    assert_type(af10.call("POST", "/x", model=Row), Job[Row])
    assert_type(await af10.call("POST", "/x", model=RemoteFile), RemoteFile)
    assert_type(await af10.call("POST", "/x", model=list[Row]), list[Row])
    assert_type(af10.job("key", model=Row), Job[Row])
    assert_type(await af10.job("key", model=RemoteFile), RemoteFile)
    assert_type(af10.unfinished(), AsyncGenerator[Job[Any], None])


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
