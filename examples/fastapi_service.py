"""A web service that makes backups for many dealers, over one public callback address.

    POST /dealers/{dealer}/backups   starts a backup and answers with its key at once
    GET  /backups/{key}              tells how far it is
    GET  /backups/{key}/file         streams the file on as it comes in; nothing is kept here

Who the dealers are stands in a TOML file (see the README); the rest comes from AF10_* variables:

    export ACCOUNTS=accounts.toml
    export AF10_PUBLIC_URL=https://hooks.example.com AF10_LISTEN_PORT=8080
    uvicorn --app-dir examples fastapi_service:app

Without an AF10 account, in one terminal:

    python -m trustme -i 127.0.0.1                  # server.pem, server.key and client.pem
    af10 sandbox --callback-ca client.pem --accounts 5 --accounts-file accounts.toml

and in another:

    export ACCOUNTS=accounts.toml AF10_TLS_CERT=server.pem AF10_TLS_KEY=server.key
    uvicorn --app-dir examples fastapi_service:app
    curl -X POST localhost:8000/dealers/dealer-1/backups
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse

from af10_async import AF10Error, Fleet, Job, JobState, RemoteFile

jobs: dict[str, Job[RemoteFile]] = {}
"""By key. A job that somebody holds claims its callback; let go of those that are done with."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep one callback server and one client a dealer for as long as the service runs."""
    async with Fleet.from_env(os.environ["ACCOUNTS"]) as app.state.dealers:
        yield
        jobs.clear()


app = FastAPI(title="Backups", lifespan=lifespan)


@app.exception_handler(AF10Error)
async def af10_said_no(_: Request, error: Exception) -> JSONResponse:
    """Pass the sentence on: no error of the library holds anything secret."""
    return JSONResponse({"detail": str(error)}, status_code=502)


@app.post("/dealers/{dealer}/backups", status_code=202)
async def start_backup(dealer: str) -> dict[str, str]:
    """Start one, and do not wait for it."""
    dealers: Fleet = app.state.dealers
    if dealer not in list(dealers):
        raise HTTPException(404, "no such dealer")
    job = dealers[dealer].backup_owner()
    jobs[job.key] = job  # before it starts: when AF10's answer is lost, the callback still finds it
    await job.start()
    return {"key": job.key, "state": job.state}


@app.get("/backups/{key}")
async def tell_state(key: str) -> dict[str, str]:
    """Tell how far it is."""
    return {"key": key, "state": find(key).state}


@app.get("/backups/{key}/file")
async def stream_file(key: str) -> StreamingResponse:
    """Stream the file from AF10 to whoever asks, with constant memory."""
    job = find(key)
    if job.state not in (JobState.CALLED_BACK, JobState.READY):
        raise HTTPException(409, f"there is no file yet: the job is {job.state}")
    file = await job
    chunks = aiter(file)
    first = await anext(chunks, b"")  # what goes wrong so far is a clear answer, not a cut one

    async def body() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    return StreamingResponse(
        body(),
        media_type="application/zip",
        headers={"Content-Disposition": 'attachment; filename="backup.zip"'},
    )


def find(key: str) -> Job[RemoteFile]:
    """The job with this key, if it is one of ours."""
    if key not in jobs:
        raise HTTPException(404, "no such backup")
    return jobs[key]
