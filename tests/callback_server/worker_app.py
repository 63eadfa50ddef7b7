"""What each worker of `uvicorn --workers 2` serves in `test_workers.py`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from af10_async import AF10Client, CallbackReceiver, Job, RemoteFile

receiver = CallbackReceiver(
    public_url=os.environ["AF10_PUBLIC_URL"], store=os.environ["AF10_STORE"]
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with receiver, AF10Client.from_env(callback_server=receiver) as app.state.af10:
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/webhooks", receiver.asgi_app())
jobs: dict[str, Job[RemoteFile]] = {}


@app.get("/worker")
async def tell_worker() -> int:
    return os.getpid()


@app.post("/jobs")
async def start() -> str:
    job = app.state.af10.backup_owner()
    jobs[job.key] = job
    await job.start()
    return str(job.key)


@app.get("/jobs/{key}")
async def wait(key: str) -> str:
    """The digest of the file, however long it takes; in whatever worker."""
    file = await (jobs.get(key) or app.state.af10.job(key))
    saved = await file.save(os.environ["FOLDER"])
    return str(saved.sha256)
