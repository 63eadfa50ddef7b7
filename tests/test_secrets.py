"""No secret leaves memory but over the wire: not in logs, errors, reprs or output."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from af10_async import AF10Client, AF10Error
from af10_async.sandbox import Account, Fault, Sandbox

from .conftest import ClientMaker, Tls, secrets_of

CANARY = Account(
    api_key="canary-api-key-77",
    username="canary user é",
    password="canary/pass word&77",
)


@pytest.fixture
async def sandbox(tls: Tls) -> AsyncIterator[Sandbox]:
    async with Sandbox(callback_ca=tls.ca, accounts=[CANARY]) as running:
        yield running


FAULTS: dict[str, list[Fault]] = {
    "success": [],
    "wrong credentials": [Fault.status(401, {"errorCode": 401}, on="authenticate", times=None)],
    "echo": [Fault.echo(on="authenticate", times=None)],
    "echo start": [Fault.echo(on="start", times=None)],
    "echo redeem": [Fault.echo(500, on="redeem", times=None)],
    "echo refused": [Fault.echo(410, on="redeem", times=None)],
    "echo file": [Fault.echo(500, on="file", times=None)],
    "html": [Fault.html(on="authenticate", times=None)],
    "html redeem": [Fault.html(on="redeem", times=None)],
    "reset": [Fault.reset_before(on="authenticate", times=None)],
    "reset start": [Fault.reset_after(on="start", times=None), Fault.never()],
    "reset redeem": [Fault.reset_after(on="redeem", times=None)],
    "hang": [Fault.hang(on="start"), Fault.never()],
    "never": [Fault.never()],
    "forged": [Fault.forged_first()],
    "not a file": [Fault.payload({"canary": "canary-payload"})],
    "unsafe url": [Fault.payload({"url": "ftp://canary-host/canary-path"})],
    "truncated": [Fault.truncated(100, times=None)],
    "stall": [Fault.stall(100)],
    "stale": [Fault.stale_file(times=None)],
    "redirect": [Fault.redirect("https://canary-host.invalid/canary", times=None)],
    "huge": [Fault.huge(on="redeem", times=None)],
    "bomb": [Fault.encoded(on="start", times=None, layers=2), Fault.never()],
    "429": [Fault.rate_limited("99999999", on="start")],
}


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "aiohttp", "asyncio", "af10_async", "hpack"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


@pytest.mark.parametrize("case", FAULTS)
async def test_no_secret_stands_in_any_text(
    sandbox: Sandbox,
    make_client: ClientMaker,
    everything_logged: pytest.LogCaptureFixture,
    tmp_path: Path,
    case: str,
) -> None:
    sandbox.faults.add(*FAULTS[case])
    texts: list[str] = []
    async with make_client(start_timeout=0.3, callback_timeout=0.3, download_timeout=0.3) as af10:
        job = af10.backup_owner()
        texts.append(repr(job))
        try:
            file = await job
            texts += [repr(file), str(file)]
            texts.append(repr(await file.save(tmp_path / "saved.zip")))
        except AF10Error as error:
            texts += all_of(error)
        texts += [repr(af10), repr(job), repr(vars(af10))]
        texts += [repr(event) for event in await history(af10, job.key)]
    texts.append(everything_logged.text)
    texts += [repr(vars(record)) for record in everything_logged.records]
    text = "\n".join(texts)
    forbidden = secrets_of(sandbox) | {
        "username": CANARY.username,
        "password in a URL": "canary%2Fpass",
        "username in a URL": "canary%20user",
        "a piece of something": "canary",
        "file address": "/files/",
    }
    leaked = [name for name, secret in forbidden.items() if secret in text]
    assert not leaked, [
        line for line in text.splitlines() if any(forbidden[name] in line for name in leaked)
    ]


async def history(af10: AF10Client, key: str) -> list[object]:
    job = af10.job(key)
    try:
        async with asyncio.timeout(0.1):
            return [event async for event in job.events()]
    except (AF10Error, TimeoutError):
        return []


def all_of(error: BaseException) -> list[str]:
    """Its text, its repr, and its whole traceback with causes, as a log would show it."""
    public = {name: value for name, value in vars(error).items() if name != "payload"}
    return [str(error), repr(error), repr(public), *traceback.format_exception(error)]
