"""What each account has in stock: the same vehicles, until it changes its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .vehicles import Vehicle, make_vehicles

__all__ = ["Stock", "Stocks"]


@dataclass(slots=True)
class Stock:
    """The vehicles of one account. Rows are shared with other accounts: replaced, never altered."""

    rows: dict[str, Vehicle]
    """By the text of their id."""
    next_id: int

    def copy(self) -> Stock:
        """One that can be changed by itself."""
        return Stock(dict(self.rows), self.next_id)

    def add(self, fields: Mapping[str, Any]) -> Vehicle:
        """A new vehicle; its id is one that was never used here."""
        row = {**fields, "vehicle_id": self.next_id}
        self.rows[str(self.next_id)] = row
        self.next_id += 1
        return row

    def change(self, vehicle_id: str, fields: Mapping[str, Any]) -> Vehicle:
        """The vehicle with these fields instead of its own; it keeps its id."""
        row = self.rows[vehicle_id]
        self.rows[vehicle_id] = {**row, **fields, "vehicle_id": row["vehicle_id"]}
        return self.rows[vehicle_id]

    def remove(self, vehicle_id: str) -> None:
        """Have it no more."""
        del self.rows[vehicle_id]


class Stocks:
    """The stock of every account.

    Args:
        count: How many vehicles each has to begin with.

    """

    def __init__(self, count: int) -> None:
        rows = {str(row["vehicle_id"]): row for row in make_vehicles(count)}
        self._common = Stock(rows, count + 1)
        self._own: dict[str, Stock] = {}

    def rows(self, username: str) -> Mapping[str, Vehicle]:
        """The account's vehicles, by the text of their id."""
        return self._own.get(username, self._common).rows

    def own(self, username: str) -> Stock:
        """The account's stock, apart from the others' from now on."""
        if username not in self._own:
            self._own[username] = self._common.copy()
        return self._own[username]
