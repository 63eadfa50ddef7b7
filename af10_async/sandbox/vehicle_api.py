"""What AF10 answers at `/vehicle`: lists, one vehicle, and changes."""

from __future__ import annotations

from aiohttp import web

from .accounts import Account
from .calls import (
    Call,
    error_answer,
    json_answer,
    method_not_allowed,
    not_found,
    read_json,
)
from .faults.acts import RepeatPage
from .stocks import Stocks
from .vehicles import list_vehicles

__all__ = ["VehicleApi"]


class VehicleApi:
    """Answers `/vehicle` and all below it.

    Args:
        stocks: What each account has.

    """

    def __init__(self, stocks: Stocks) -> None:
        self._stocks = stocks

    def answer(self, call: Call, account: Account) -> web.Response:
        """The answer to one request; a change has been made by then."""
        _, _, vehicle_id = call.seen.path.removeprefix("/").partition("/")
        if not vehicle_id:
            return self._answer_all(call, account.username)
        if vehicle_id not in self._stocks.rows(account.username):
            return not_found("Vehicle")
        return self._answer_one(call, account.username, vehicle_id)

    def _answer_all(self, call: Call, username: str) -> web.Response:
        match call.seen.method:
            case "GET":
                return self._list(call, username)
            case "POST":
                return self._add(call, username)
            case _:
                return method_not_allowed("GET", "POST")

    def _answer_one(self, call: Call, username: str, vehicle_id: str) -> web.Response:
        match call.seen.method:
            case "GET":
                return json_answer({"data": self._stocks.rows(username)[vehicle_id]})
            case "PUT":
                return self._change(call, username, vehicle_id)
            case "DELETE":
                self._stocks.own(username).remove(vehicle_id)
                return json_answer({"successCode": 200, "successMessage": "Vehicle removed"})
            case _:
                return method_not_allowed("GET", "PUT", "DELETE")

    def _list(self, call: Call, username: str) -> web.Response:
        repeats = isinstance(call.act, RepeatPage)
        query = {**call.seen.query, "page": "1"} if repeats else call.seen.query
        try:
            found = list_vehicles(self._stocks.rows(username).values(), query)
        except (ValueError, TypeError):
            return error_answer(400, "page or filter is not understood")
        return json_answer({**found, "nextpage": True} if repeats else found)

    def _add(self, call: Call, username: str) -> web.Response:
        fields = read_json(call.seen.body)
        if not isinstance(fields, dict):
            return error_answer(400, "The body is not a JSON object")
        return json_answer({"data": self._stocks.own(username).add(fields)})

    def _change(self, call: Call, username: str, vehicle_id: str) -> web.Response:
        fields = read_json(call.seen.body)
        if not isinstance(fields, dict):
            return error_answer(400, "The body is not a JSON object")
        return json_answer({"data": self._stocks.own(username).change(vehicle_id, fields)})
