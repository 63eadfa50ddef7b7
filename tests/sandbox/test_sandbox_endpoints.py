"""Endpoints of the user's own."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from af10_async.sandbox import Account, Answer, Fault, Sandbox, Seen

from .conftest import Wire, wired


@pytest.mark.parametrize("value", [{"name": "Jan"}, [1, 2], "text", 7, None, True])
async def test_an_endpoint_answers_any_json_value(wire: Wire, value: Any) -> None:
    """As it is, with 200."""
    wire.sandbox.answers("GET", "/customer/12", value)
    answer = await wire.get("/customer/12")
    assert (answer.status_code, answer.json()) == (200, value)
    assert answer.headers["content-type"].startswith("application/json")


async def test_an_endpoint_answers_what_a_function_makes_of_the_request(wire: Wire) -> None:
    """Which knows the body, the query and whose it is; it may be async."""

    def add(seen: Seen) -> Any:
        return Answer(201, {"data": seen.json(), "by": seen.account}, {"X-Rows": "1"})

    async def find(seen: Seen) -> Any:
        return {"found": seen.query["name"]}

    wire.sandbox.answers("POST", "/customer", add)
    wire.sandbox.answers("GET", "/customer", find)
    added = await wire.send("POST", "/customer", {"name": "Jan"})
    assert (added.status_code, added.headers["x-rows"]) == (201, "1")
    assert added.json() == {"data": {"name": "Jan"}, "by": wire.sandbox.username}
    assert (await wire.get("/customer", name="Jan")).json() == {"found": "Jan"}


async def test_an_answer_can_be_bytes_and_no_bytes(wire: Wire) -> None:
    """Which are sent as they are, with the headers that are given."""
    wire.sandbox.answers("GET", "/pdf", Answer(200, b"%PDF", {"Content-Type": "application/pdf"}))
    wire.sandbox.answers("DELETE", "/pdf", Answer(204))
    answer = await wire.get("/pdf")
    assert (answer.content, answer.headers["content-type"]) == (b"%PDF", "application/pdf")
    gone = await wire.send("DELETE", "/pdf")
    assert (gone.status_code, gone.content) == (204, b"")


async def test_a_star_stands_for_what_is_below(wire: Wire) -> None:
    """A whole path goes first, then the longest; another method is another endpoint."""
    wire.sandbox.answers("GET", "/customer/*", lambda seen: seen.path)
    wire.sandbox.answers("GET", "/customer/12/*", "longer")
    wire.sandbox.answers("GET", "/customer/12/cars", "whole")
    paths = ("/customer/1", "/customer/12", "/customer/12/x", "/customer/12/cars")
    found = [(await wire.get(path)).json() for path in paths]
    assert found == ["/customer/1", "/customer/12", "longer", "whole"]
    assert (await wire.get("/customer")).status_code == 404
    assert (await wire.send("PUT", "/customer/1", {})).status_code == 404


async def test_an_endpoint_is_for_those_who_are_logged_in(wire: Wire) -> None:
    """Others get 401, and the function is not asked."""
    asked: list[Seen] = []
    wire.sandbox.answers("GET", "/customer", asked.append)
    wire.token = "wrong"
    answer = await wire.get("/customer")
    assert (answer.status_code, answer.json()["errorMessage"]) == (401, "Not authorized")
    assert asked == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_an_unknown_endpoint_is_404_whatever_the_method(wire: Wire, method: str) -> None:
    """In JSON."""
    answer = await wire.send(method, "/customer/12", {})
    assert (answer.status_code, answer.json()["errorCode"]) == (404, 404)


async def test_the_latest_answer_counts_and_vehicles_can_be_taken_over(wire: Wire) -> None:
    """For the methods that were named; the others stay the sandbox's."""
    wire.sandbox.answers("get", "/vehicle/1", 1)
    wire.sandbox.answers("GET", "/vehicle/1", 2)
    assert (await wire.get("/vehicle/1")).json() == 2
    assert (await wire.get("/vehicle/2")).json()["data"]["vehicle_id"] == 2
    assert (await wire.send("PUT", "/vehicle/1", {})).json()["data"]["vehicle_id"] == 1


async def test_the_step_call_is_for_these_endpoints_only() -> None:
    """A fault on it passes by what the sandbox knows, and what nobody knows."""
    accounts = [Account(username="one"), Account(username="two")]
    async with wired(accounts=accounts) as wire:
        wire.sandbox.answers("GET", "/customer/*", {})
        wire.sandbox.faults.add(
            Fault.status(503, on="call", skip=1), Fault.expired_token(on="call", account="two")
        )
        paths = ("/vehicle", "/nonsense", "/customer/1", "/customer/2", "/customer/3")
        statuses = [(await wire.get(path)).status_code for path in paths]
        assert statuses == [200, 404, 200, 503, 200]
        await wire.log_in(accounts[1])
        assert (await wire.get("/customer/1")).status_code == 401


async def test_the_effect_can_come_before_a_lost_answer(wire: Wire) -> None:
    """The function has been asked although nobody hears what it said."""
    asked: list[Seen] = []
    wire.sandbox.answers("POST", "/sale", asked.append)
    wire.sandbox.faults.add(Fault.reset_after(on="call"), Fault.status(502, after=True, on="call"))
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await wire.send("POST", "/sale", {"price": 1})
    assert (await wire.send("POST", "/sale", {"price": 2})).status_code == 502
    assert [seen.json() for seen in asked] == [{"price": 1}, {"price": 2}]


async def test_a_function_that_fails_is_500_and_told_in_the_log(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    """With its traceback, for the one who wrote it."""

    def fail(seen: Seen) -> Any:
        raise LookupError("no such customer")

    wire.sandbox.answers("GET", "/customer", fail)
    assert (await wire.get("/customer")).status_code == 500
    assert "no such customer" in caplog.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("FETCH", "/customer"),
        ("GET", "customer"),
        ("GET", "/customer?page=1"),
        ("GET", "/*/cars"),
        ("GET", "/authenticate"),
        ("GET", "/util/environment"),
        ("GET", "/webhook"),
        ("POST", "/report"),
    ],
)
def test_an_endpoint_that_cannot_be_is_refused(method: str, path: str) -> None:
    """When it is said, and not by an answer that never comes."""
    with pytest.raises(ValueError, match=r"is none of|must begin|sandbox's own"):
        Sandbox(webhook_paths=["/report"]).answers(method, path, {})


async def test_a_star_does_not_take_over_what_logs_in(wire: Wire) -> None:
    """Nor what works with webhooks."""
    wire.sandbox.answers("GET", "/*", "mine")
    wire.sandbox.answers("POST", "/*", "mine")
    assert "token" in (await wire.authenticate()).json()
    assert (await wire.send("POST", "/backup/owner", {})).status_code == 400
    assert (await wire.get("/webhook", id="x")).status_code == 404
    assert (await wire.get("/anything/else")).json() == "mine"
