"""Changing the stock."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from af10_async.sandbox import Account, Sandbox
from af10_async.sandbox.stocks import Stocks

from .conftest import Wire, wired


async def test_a_vehicle_can_be_added(wire: Wire) -> None:
    """It gets an id that none has had, whatever the body says, and is in lists from then on."""
    answer = await wire.send("POST", "/vehicle", {"brand": "Saab", "vehicle_id": 3})
    assert (answer.status_code, answer.json()) == (
        200,
        {"data": {"brand": "Saab", "vehicle_id": 251}},
    )
    assert (await wire.get("/vehicle/251")).json() == answer.json()
    assert (await wire.get("/vehicle", search="saab")).json()["data"] == [answer.json()["data"]]
    assert (await wire.send("POST", "/vehicle", {})).json()["data"]["vehicle_id"] == 252


async def test_a_vehicle_can_be_changed(wire: Wire) -> None:
    """In the fields that are named; its id stays, and so does its place."""
    before = (await wire.get("/vehicle/12")).json()["data"]
    answer = await wire.send("PUT", "/vehicle/12", {"sell_price": 17950, "vehicle_id": 1})
    assert answer.json() == {"data": {**before, "sell_price": 17950}}
    assert (await wire.get("/vehicle/12")).json() == answer.json()
    rows = (await wire.get("/vehicle")).json()["data"]
    assert rows[11] == answer.json()["data"]


async def test_a_vehicle_can_be_removed(wire: Wire) -> None:
    """After that it is unknown, and its id is not given again."""
    await wire.send("POST", "/vehicle", {})
    assert (await wire.send("DELETE", "/vehicle/251")).status_code == 200
    statuses = [
        (await wire.send(method, "/vehicle/251", {})).status_code
        for method in ("GET", "PUT", "DELETE")
    ]
    assert statuses == [404, 404, 404]
    assert (await wire.send("POST", "/vehicle", {})).json()["data"]["vehicle_id"] == 252


async def test_a_change_is_of_one_account_only() -> None:
    """Others keep the vehicles that all begin with."""
    accounts = [Account(username="one"), Account(username="two")]
    async with wired(accounts=accounts, vehicles=3) as wire:
        await wire.send("PUT", "/vehicle/1", {"color": "roze"})
        await wire.send("DELETE", "/vehicle/2")
        await wire.send("POST", "/vehicle", {"color": "paars"})
        one, two = wire.sandbox.vehicles(), wire.sandbox.vehicles("two")
        assert [row["vehicle_id"] for row in one] == [1, 3, 4]
        assert [row["vehicle_id"] for row in two] == [1, 2, 3]
        assert (one[0]["color"], one[2]["color"]) == ("roze", "paars")
        assert "roze" not in {row["color"] for row in two}
        await wire.log_in(accounts[1])
        assert (await wire.get("/vehicle")).json() == {"data": two, "nextpage": False}


async def test_what_a_test_does_with_the_rows_changes_nothing(wire: Wire) -> None:
    """They are copies; and a name that nobody has is a mistake, and not an empty stock."""
    wire.sandbox.vehicles()[0]["color"] = "roze"
    assert wire.sandbox.vehicles()[0]["color"] != "roze"
    with pytest.raises(ValueError, match="no account of this sandbox"):
        wire.sandbox.vehicles("nobody")


@pytest.mark.parametrize("body", [[], "text", 1])
async def test_a_body_that_is_no_object_is_400(wire: Wire, body: Any) -> None:
    """And nothing changes."""
    before = wire.sandbox.vehicles()
    for method, path in (("POST", "/vehicle"), ("PUT", "/vehicle/1")):
        answer = await wire.send(method, path, body)
        assert (answer.status_code, answer.json()["errorCode"]) == (400, 400)
    assert wire.sandbox.vehicles() == before


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("PUT", "/vehicle", "GET, POST"), ("POST", "/vehicle/1", "GET, PUT, DELETE")],
)
async def test_a_method_that_makes_no_sense_is_405(
    wire: Wire, method: str, path: str, allowed: str
) -> None:
    """And says which do."""
    answer = await wire.send(method, path, {})
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


async def test_changing_needs_a_token(wire: Wire) -> None:
    """Without one, nothing changes."""
    before = wire.sandbox.vehicles()
    wire.token = "wrong"
    for method, path in (("POST", "/vehicle"), ("PUT", "/vehicle/1"), ("DELETE", "/vehicle/1")):
        assert (await wire.send(method, path, {})).status_code == 401
    assert wire.sandbox.vehicles() == before


def test_the_odd_values_are_kept() -> None:
    """Prices as text, dates that are empty, flags that are numbers."""
    rows = Sandbox().vehicles()
    assert len(rows) == 250
    assert {type(row["purchase_price"]) for row in rows} == {int, str}
    assert "" in {row["purchase_date"] for row in rows}
    assert {row["is_sold"] for row in rows} == {0, 1}


def test_many_accounts_share_what_they_have_not_changed() -> None:
    """One row of 500 accounts with 250 vehicles each costs far less than as many stocks."""
    stocks = Stocks(250)
    tracemalloc.start()
    try:
        for number in range(500):
            stocks.own(str(number)).change("1", {"color": "roze"})
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 16 * 2**20
    shared = {id(stocks.rows(str(number))["2"]) for number in range(501)}
    assert len(shared) == 1
