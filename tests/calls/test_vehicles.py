"""Vehicles and the environment: known endpoints, read tolerantly."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from af10_async import (
    AF10Client,
    AuthenticationError,
    BadResponseError,
    ClosedError,
    ConfigurationError,
    Environment,
    NotFoundError,
    Vehicle,
)
from af10_async.sandbox import Answer, Fault, Sandbox

from ..conftest import ClientMaker

# -- vehicles --------------------------------------------------------------------------------------


async def test_all_vehicles_come_in_order_with_what_is_known_of_them(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    found = [vehicle async for vehicle in caller.vehicles()]
    assert [vehicle.vehicle_id for vehicle in found] == list(range(1, 251))
    for vehicle, row in zip(found, sandbox.vehicles(), strict=True):
        assert vehicle.unread == {}
        assert vehicle.sell_price == row["sell_price"]
        assert vehicle.license_plate == row["license_plate"]
        assert vehicle.is_sold is bool(row["is_sold"])


async def test_prices_as_text_and_dates_that_are_empty_are_read(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    rows = sandbox.vehicles()
    priced, undated = rows[3], rows[4]
    assert isinstance(priced["purchase_price"], str)
    assert undated["purchase_date"] == ""
    found = await caller.vehicle(4)
    assert found.purchase_price == Decimal(priced["purchase_price"])
    assert found.purchase_date == date.fromisoformat(priced["purchase_date"])
    assert (await caller.vehicle(5)).purchase_date is None


async def test_search_filter_and_sort_are_af10s_to_apply(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    found = await caller.vehicles(search="volvo", filter="color=wit", sort="-sell_price").all()
    expected = [
        row for row in sandbox.vehicles() if (row["brand"], row["color"]) == ("Volvo", "wit")
    ]
    expected.sort(key=lambda row: -row["sell_price"])
    assert [each.vehicle_id for each in found] == [row["vehicle_id"] for row in expected]
    assert len(found) > 1


async def test_fields_that_were_not_asked_for_are_none(caller: AF10Client) -> None:
    found = await caller.vehicles(fields=["brand"], search="golf").all()
    assert {each.brand for each in found} == {"Volkswagen"}
    assert {each.sell_price for each in found} == {None}
    assert {each.model for each in found} == {None}


@pytest.mark.parametrize("vehicle_id", [12, "12"])
async def test_one_vehicle_by_its_id(
    caller: AF10Client, sandbox: Sandbox, vehicle_id: int | str
) -> None:
    found = await caller.vehicle(vehicle_id)
    assert isinstance(found, Vehicle)
    assert (found.vehicle_id, found.brand) == (12, sandbox.vehicles()[11]["brand"])
    assert sandbox.count("GET", "/vehicle/12") == 1


async def test_a_vehicle_that_is_not_there_is_not_found(caller: AF10Client) -> None:
    with pytest.raises(NotFoundError) as caught:
        await caller.vehicle(9999)
    assert (caught.value.path, caught.value.retryable) == ("/vehicle/9999", False)


@pytest.mark.parametrize("vehicle_id", ["", " ", ".", "..", "../backup", "a/b", "%2e%2e\\"])
async def test_an_id_that_leads_elsewhere_is_refused_before_anything_is_sent(
    caller: AF10Client, sandbox: Sandbox, vehicle_id: str
) -> None:
    with pytest.raises(ConfigurationError):
        await caller.vehicle(vehicle_id)
    assert sandbox.requests == []


@pytest.mark.parametrize("vehicle_id", ["1?page=2", "1#x", "a b", "caf\u00e9", "1&2", "%41"])
async def test_an_odd_id_is_one_part_of_the_path(
    caller: AF10Client, sandbox: Sandbox, vehicle_id: str
) -> None:
    with pytest.raises(NotFoundError):
        await caller.vehicle(vehicle_id)
    seen = sandbox.requests[-1]
    assert (seen.path, dict(seen.query)) == (f"/vehicle/{vehicle_id}", {})


async def test_a_change_is_seen_afterwards(caller: AF10Client, sandbox: Sandbox) -> None:
    await caller.put("/vehicle/12", json={"sell_price": "17.950,00", "note": "as new"})
    found = await caller.vehicle(12)
    assert found.sell_price == Decimal("17950.00")
    assert found.model_extra == {"note": "as new"}
    made = await caller.post("/vehicle", json={"brand": "Volvo"})
    assert (await caller.vehicle(made["data"]["vehicle_id"])).brand == "Volvo"
    await caller.delete("/vehicle/12")
    with pytest.raises(NotFoundError):
        await caller.vehicle(12)


ROW: dict[str, Any] = {"vehicle_id": 12, "brand": "Volvo"}


@pytest.mark.parametrize("value", [{"data": ROW}, {"data": [ROW]}, ROW, [ROW]])
async def test_the_row_may_stand_in_data_or_by_itself(
    caller: AF10Client, sandbox: Sandbox, value: Any
) -> None:
    sandbox.answers("GET", "/vehicle/12", value)
    assert (await caller.vehicle(12)).brand == "Volvo"


@pytest.mark.parametrize("value", [{"data": None}, {"data": []}, {"data": [ROW, ROW]}, "x", 7])
async def test_what_is_no_vehicle_is_a_bad_response(
    caller: AF10Client, sandbox: Sandbox, value: Any
) -> None:
    sandbox.answers("GET", "/vehicle/12", Answer(200, value))
    with pytest.raises(BadResponseError, match="Vehicle"):
        await caller.vehicle(12)


async def test_what_cannot_be_read_is_kept_and_spoils_nothing_else(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.answers("GET", "/vehicle", {"data": [{**ROW, "sell_price": "ask us", "is_sold": 7}]})
    (found,) = await caller.vehicles().all()
    assert (found.brand, found.sell_price, found.is_sold) == ("Volvo", None, None)
    assert found.unread == {"sell_price": "ask us", "is_sold": 7}


# -- the environment -------------------------------------------------------------------------------


async def test_the_environment_needs_no_token(caller: AF10Client, sandbox: Sandbox) -> None:
    found = await caller.environment()
    assert isinstance(found, Environment)
    assert (found.environment, found.api_url) == ("sandbox", sandbox.api_url)
    (seen,) = sandbox.requests
    assert (seen.where, seen.path, dict(seen.query)) == (
        "bootstrap",
        "/util/environment",
        {"username": sandbox.username},
    )
    assert seen.headers["apikey"] == sandbox.api_key
    assert "token" not in seen.headers


async def test_the_environment_is_asked_for_again_like_any_get(
    caller: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.status(503, on="environment", times=3))
    assert (await caller.environment()).environment == "sandbox"
    assert sandbox.count("GET", "/util/environment") == 4


async def test_a_wrong_key_is_refused_at_once(make_caller: ClientMaker, sandbox: Sandbox) -> None:
    async with make_caller(api_key="wrong-key-0815") as client:
        with pytest.raises(AuthenticationError) as caught:
            await client.environment()
    assert sandbox.count("GET", "/util/environment") == 1
    assert sandbox.username not in str(caught.value)
    assert "wrong-key-0815" not in str(caught.value)


@pytest.mark.parametrize("value", [[], "x", 7, None])
async def test_what_is_no_environment_is_a_bad_response(
    caller: AF10Client, sandbox: Sandbox, value: Any
) -> None:
    sandbox.faults.add(Fault.wrong_type(value, on="environment"))
    with pytest.raises(BadResponseError, match="Environment"):
        await caller.environment()


async def test_a_client_that_is_not_entered_has_neither(make_caller: ClientMaker) -> None:
    client = make_caller()
    with pytest.raises(ClosedError):
        await client.environment()
    with pytest.raises(ClosedError):
        await client.vehicles().all()
