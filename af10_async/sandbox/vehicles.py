"""The dealer's stock: made-up vehicles, the same ones every time."""

from __future__ import annotations

import json
import string
from collections.abc import Collection, Mapping
from datetime import date, timedelta
from typing import Any

__all__ = ["PAGE_ROWS", "Vehicle", "list_vehicles", "make_vehicles"]

PAGE_ROWS = 100

Vehicle = dict[str, Any]

_MODELS = (
    ("Volkswagen", "Golf"),
    ("Volvo", "V60"),
    ("Toyota", "Yaris"),
    ("Kia", "Niro"),
    ("Peugeot", "208"),
    ("Renault", "Clio"),
    ("Škoda", "Octavia"),
)
_COLORS = ("zwart", "wit", "grijs", "blauw", "rood")
_LETTERS = [letter for letter in string.ascii_uppercase if letter not in "AEIOUCMQWY"]
"""Dutch plates have no vowels, and leave out what is misread."""


def make_vehicles(count: int) -> list[Vehicle]:
    """The first `count` vehicles, numbered from 1."""
    return [_vehicle(number) for number in range(1, count + 1)]


def _vehicle(number: int) -> Vehicle:
    brand, model = _MODELS[number % len(_MODELS)]
    price = 4000 + number * 137 % 30000
    bought = date(2024, 1, 1) + timedelta(days=number % 600)
    return {
        "vehicle_id": number,
        "license_plate": _plate(number),
        "brand": brand,
        "model": model,
        "v_display_name": f"{brand} {model}",
        "color": _COLORS[number % len(_COLORS)],
        # AF10 is not strict about types: some prices are text, some dates are missing.
        "purchase_price": f"{price}.00" if number % 4 == 0 else price,
        "sell_price": price + 1500,
        "purchase_date": "" if number % 5 == 0 else bought.isoformat(),
        "mileage": number * 7919 % 220000,
        "is_sold": int(number % 3 == 0),
        "is_occasion": int(number % 7 != 0),
    }


def _plate(number: int) -> str:
    base = len(_LETTERS)
    first, second, third = number // base**2 % base, number // base % base, number % base
    letters = f"{_LETTERS[first]}{_LETTERS[second]}{_LETTERS[third]}"
    return f"{_LETTERS[number * 7 % base]}-{number * 37 % 1000:03d}-{letters[1:]}"


def list_vehicles(vehicles: Collection[Vehicle], query: Mapping[str, str]) -> dict[str, Any]:
    """One page of the list.

    Args:
        vehicles: All of them.
        query: `page` counts from 1; `fields` picks columns (`vehicle_id` is always there);
            `search` is text to find in any text column, upper or lower case; `filter` is either
            `field=value`, several separated by commas, or a JSON object; `sort` is a field, with
            a minus before it or ` desc` after it for the other way round.

    Raises:
        ValueError: when the page is no number from 1, or the filter is not understood.

    """
    page = int(query.get("page") or "1")
    if page < 1:
        raise ValueError("page counts from 1")
    rows = _searched(vehicles, query.get("search", ""))
    rows = _filtered(rows, _read_filter(query.get("filter", "")))
    rows = _sorted(rows, query.get("sort", ""))
    start = (page - 1) * PAGE_ROWS
    picked = [_pick(row, query.get("fields", "")) for row in rows[start : start + PAGE_ROWS]]
    return {"data": picked, "nextpage": start + PAGE_ROWS < len(rows)}


def _searched(rows: Collection[Vehicle], search: str) -> list[Vehicle]:
    text = search.casefold()
    return [row for row in rows if not text or _has(row, text)]


def _has(row: Vehicle, text: str) -> bool:
    return any(text in value.casefold() for value in row.values() if isinstance(value, str))


def _filtered(rows: list[Vehicle], wanted: Mapping[str, Any]) -> list[Vehicle]:
    if not wanted:
        return rows
    return [row for row in rows if all(_equal(row.get(k), v) for k, v in wanted.items())]


def _read_filter(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    if text.lstrip().startswith("{"):
        return dict(json.loads(text))
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(sign for _, sign, _ in pairs):
        raise ValueError("filter is field=value, or a JSON object")
    return {field.strip(): value.strip() for field, _, value in pairs}


def _equal(ours: Any, asked: Any) -> bool:
    return str(ours).casefold() == str(asked).casefold()


def _sorted(rows: list[Vehicle], sort: str) -> list[Vehicle]:
    field, _, direction = sort.strip().partition(" ")
    if not field:
        return rows
    backwards = field.startswith("-") or direction.strip().lower() == "desc"
    return sorted(rows, key=lambda row: _order(row.get(field.lstrip("-"))), reverse=backwards)


def _order(value: Any) -> tuple[int, float, str]:
    try:
        return (0, float(value), "")
    except (TypeError, ValueError):
        return (1, 0.0, str(value))


def _pick(row: Vehicle, fields: str) -> Vehicle:
    names = [name.strip() for name in fields.split(",") if name.strip()]
    if not names:
        return row
    return {name: row[name] for name in ["vehicle_id", *names] if name in row}
