"""Tests of your own code against the sandbox: fixtures come with af10-async.

Copied to a folder of yours: pytest test_with_sandbox.py -o asyncio_mode=auto
"""

from __future__ import annotations

from pathlib import Path

import pytest

from af10_async import AF10Client, CallbackTimeoutError, ServerError
from af10_async.sandbox import Fault, Sandbox


async def nightly(folder: Path) -> Path:
    """The code under test: it takes its account from the environment."""
    async with AF10Client.from_env() as af10:
        backup = await af10.backup_owner()
        return (await backup.save(folder)).path


async def cheapest(af10: AF10Client) -> str | None:
    """Some more code under test."""
    vehicles = [each async for each in af10.vehicles() if each.sell_price is not None]
    return min(vehicles, key=lambda each: each.sell_price or 0).license_plate


@pytest.mark.usefixtures("af10_env")
async def test_the_nightly_backup_is_saved(tmp_path: Path, af10_sandbox: Sandbox) -> None:
    path = await nightly(tmp_path)
    assert path.read_bytes() == af10_sandbox.archive(af10_sandbox.jobs[0])


@pytest.mark.af10_sandbox(vehicles=250)
async def test_the_cheapest_vehicle_is_found_on_any_page(
    af10_client: AF10Client, af10_sandbox: Sandbox
) -> None:
    assert await cheapest(af10_client)
    pages = [seen.query["page"] for seen in af10_sandbox.requests if seen.path == "/vehicle"]
    assert pages == ["1", "2", "3"]


@pytest.mark.af10_faults(Fault.reset_after(on="start"), Fault.late(0.2), Fault.truncated(1000))
async def test_a_backup_survives_a_bad_night(
    af10_client: AF10Client, af10_sandbox: Sandbox
) -> None:
    """The answer to the POST is lost, the callback is late, the file is cut once."""
    backup = await af10_client.backup_owner()
    assert await backup.read() == af10_sandbox.archive(af10_sandbox.jobs[0])
    assert af10_sandbox.count("POST", "/backup/owner") == 1


@pytest.mark.af10_client(callback_timeout=0.2)
async def test_a_callback_that_never_comes_is_a_timeout_with_a_ticket(
    af10_client: AF10Client, af10_sandbox: Sandbox
) -> None:
    with af10_sandbox.faults.during(Fault.never()), pytest.raises(CallbackTimeoutError) as caught:
        await af10_client.backup_owner()
    assert caught.value.ticket is not None


@pytest.mark.af10_faults(Fault.status(500, on="vehicle", times=None))
async def test_a_server_that_stays_sick_is_an_error(af10_client: AF10Client) -> None:
    with pytest.raises(ServerError):
        await cheapest(af10_client)
