"""The calls that two public clients of AF10 make."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from .conftest import Wire


async def test_the_environment_is_asked_with_only_the_apikey_header(wire: Wire) -> None:
    """It answers environment and api_url, at the bootstrap URL and at the API's."""
    for base in (wire.sandbox.base_url, wire.sandbox.api_url):
        answer = await wire.http.get(
            base + "/util/environment",
            params={"username": wire.sandbox.username},
            headers={"apikey": wire.sandbox.api_key},
        )
        assert answer.json().keys() == {"environment", "api_url"}
        assert answer.json()["api_url"] == wire.sandbox.api_url


async def test_the_environment_needs_the_right_key(wire: Wire) -> None:
    """And the username that belongs to it."""
    url, key = wire.sandbox.base_url + "/util/environment", wire.sandbox.api_key
    wrong_key = await wire.http.get(url, headers={"apikey": "wrong"})
    wrong_user = await wire.http.get(url + "?username=wrong", headers={"apikey": key})
    no_user = await wire.http.get(url, headers={"apikey": key})
    statuses = [answer.status_code for answer in (wrong_key, wrong_user, no_user)]
    assert statuses == [401, 401, 200]


@pytest.mark.parametrize("with_key", [True, False])
async def test_the_token_may_come_with_the_apikey_or_without(wire: Wire, with_key: bool) -> None:
    """One client sends both, the other the token alone, and a Content-Type on a GET."""
    headers = {"token": wire.token, "Content-Type": "application/json"}
    if with_key:
        headers["apikey"] = wire.sandbox.api_key
    answer = await wire.http.get(wire.api + "/vehicle", headers=headers)
    assert answer.status_code == 200


async def test_vehicles_come_in_pages_until_there_is_no_next(wire: Wire) -> None:
    """250 of them are three pages."""
    pages = [(await wire.get("/vehicle", page=page)).json() for page in (1, 2, 3, 4)]

    assert [len(page["data"]) for page in pages] == [100, 100, 50, 0]
    assert [page["nextpage"] for page in pages] == [True, True, False, False]
    ids = [row["vehicle_id"] for page in pages for row in page["data"]]
    assert len(set(ids)) == 250


async def test_one_vehicle_is_asked_by_its_id(wire: Wire) -> None:
    """Its row is the `data`."""
    row = (await wire.get("/vehicle/7")).json()["data"]
    assert row["vehicle_id"] == 7
    assert re.fullmatch(r"[A-Z]-\d{3}-[A-Z]{2}", row["license_plate"])
    assert (await wire.get("/vehicle/251")).status_code == 404


async def test_vehicles_are_as_loose_about_types_as_af10(wire: Wire) -> None:
    """Some prices are text and some dates are empty."""
    rows = (await wire.get("/vehicle")).json()["data"]
    assert {type(row["purchase_price"]) for row in rows} == {str, int}
    assert "" in {row["purchase_date"] for row in rows}


async def _rows(wire: Wire, **params: Any) -> list[dict[str, Any]]:
    answer = await wire.get("/vehicle", **params)
    rows: list[dict[str, Any]] = answer.json()["data"]
    return rows


async def test_fields_pick_columns(wire: Wire) -> None:
    """The id is always there; an unknown one is ignored."""
    rows = await _rows(wire, fields="brand, model,nonsense")
    assert {tuple(row) for row in rows} == {("vehicle_id", "brand", "model")}


async def test_search_finds_text_in_upper_or_lower_case(wire: Wire) -> None:
    """In any text column."""
    rows = await _rows(wire, search="VOLVO")
    assert {row["brand"] for row in rows} == {"Volvo"}


@pytest.mark.parametrize(
    "text", ["brand=volvo,is_sold=1", json.dumps({"brand": "Volvo", "is_sold": 1})]
)
async def test_a_filter_is_pairs_or_json(wire: Wire, text: str) -> None:
    """All of them must hold."""
    rows = await _rows(wire, filter=text)
    assert {(row["brand"], row["is_sold"]) for row in rows} == {("Volvo", 1)}


@pytest.mark.parametrize(
    ("sort", "backwards"),
    [("purchase_price", False), ("-purchase_price", True), ("purchase_price desc", True)],
)
async def test_sort_orders_by_a_field(wire: Wire, sort: str, backwards: bool) -> None:
    """Prices that are text count as numbers."""
    prices = [float(row["purchase_price"]) for row in await _rows(wire, sort=sort)]
    assert prices == sorted(prices, reverse=backwards)


@pytest.mark.parametrize(
    "params", [{"page": "x"}, {"page": 0}, {"filter": "nonsense"}, {"filter": "{"}]
)
async def test_what_is_not_understood_is_400(wire: Wire, params: dict[str, Any]) -> None:
    """In JSON."""
    answer = await wire.get("/vehicle", **params)
    assert (answer.status_code, answer.json()["errorCode"]) == (400, 400)
