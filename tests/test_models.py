"""Models read what AF10 sends: odd values sensibly, unknown fields whole, nothing lost."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from af10_async import Environment, Vehicle
from af10_async.models import Count, Day, Flag, Money, Text

FIELDS = list(Vehicle.model_fields)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (12500, "12500"),
        (0, "0"),
        (0.1, "0.1"),
        (1e21, "1E+21"),
        ("12500.00", "12500.00"),
        ("12500,00", "12500.00"),
        ("12.500,00", "12500.00"),
        ("12.500", "12500"),
        ("1.234.567", "1234567"),
        ("12.50", "12.50"),
        ("€ 1.250", "1250"),
        ("EUR 99,95", "99.95"),
        ("1.250,-", "1250"),
        ("-17", "-17"),
        ("", None),
        (" ", None),
        (None, None),
    ],
)
def test_money_is_exact_however_it_is_written(sent: object, read: str | None) -> None:
    found = Vehicle.model_validate({"sell_price": sent})
    assert found.sell_price == (None if read is None else Decimal(read))
    assert found.unread == {}


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("2024-05-01", date(2024, 5, 1)),
        ("20240501", date(2024, 5, 1)),
        (20240501, date(2024, 5, 1)),
        ("20240501T101500", date(2024, 5, 1)),
        ("2024-05-01T10:15:00", date(2024, 5, 1)),
        ("2024-05-01T10:15:00+02:00", date(2024, 5, 1)),
        ("2024-05-01 10:15", date(2024, 5, 1)),
        ("01-05-2024", date(2024, 5, 1)),
        ("1-5-2024", date(2024, 5, 1)),
        ("01/05/2024 10:15", date(2024, 5, 1)),
        ("", None),
        ("0000-00-00", None),
        ("00000000T000000", None),
        (None, None),
    ],
)
def test_a_date_is_one_whichever_way_round(sent: object, read: date | None) -> None:
    found = Vehicle.model_validate({"purchase_date": sent})
    assert found.purchase_date == read
    assert found.unread == {}


@pytest.mark.parametrize("sent", [1, True, "1", "true", "J", "ja", "Yes", 1.0])
def test_yes_is_yes(sent: object) -> None:
    assert Vehicle.model_validate({"is_sold": sent}).is_sold is True


@pytest.mark.parametrize("sent", [0, False, "0", "false", "N", "nee", "No", 0.0])
def test_no_is_no(sent: object) -> None:
    assert Vehicle.model_validate({"is_sold": sent}).is_sold is False


@pytest.mark.parametrize(
    ("field", "sent", "read"),
    [
        ("mileage", "15.000", 15000),
        ("mileage", "15000", 15000),
        ("mileage", 15000.0, 15000),
        ("mileage", "", None),
        ("model", 208, "208"),
        ("model", 2.5, "2.5"),
        ("vehicle_id", "12", 12),
        ("vehicle_id", "A-12", "A-12"),
        ("is_sold", "", None),
    ],
)
def test_numbers_and_texts_are_taken_for_each_other(field: str, sent: object, read: object) -> None:
    found = Vehicle.model_validate({field: sent})
    assert getattr(found, field) == read
    assert type(getattr(found, field)) is type(read)
    assert found.unread == {}


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        ("sell_price", "on request"),
        ("sell_price", True),
        ("sell_price", "1.2.3"),
        ("sell_price", "NaN"),
        ("sell_price", float("inf")),
        pytest.param("sell_price", "9" * 100_000, id="100,000 digits"),
        pytest.param("sell_price", 10**5000, id="a price of 5,000 digits"),
        ("sell_price", [1]),
        ("purchase_date", "2024-13-45"),
        ("purchase_date", "soon"),
        ("purchase_date", {"year": 2024}),
        ("purchase_date", True),
        ("is_sold", "perhaps"),
        ("is_sold", 2),
        ("mileage", "12.5"),
        ("mileage", True),
        ("brand", ["Volvo"]),
        ("brand", False),
        ("vehicle_id", {"id": 1}),
    ],
)
def test_what_cannot_be_read_is_none_and_not_lost(field: str, sent: object) -> None:
    found = Vehicle.model_validate({field: sent, "color": "red"})
    assert getattr(found, field) is None
    assert found.unread == {field: sent}
    assert found.color == "red"


def test_every_other_field_is_kept_and_reachable() -> None:
    found = Vehicle.model_validate({"vehicle_id": 1, "doors": 5, "model_year": 2024, "x y": [1]})
    assert found.doors == 5  # type: ignore[attr-defined]
    assert found.model_extra == {"doors": 5, "model_year": 2024, "x y": [1]}
    assert found.model_dump(exclude_unset=True) == {
        "vehicle_id": 1,
        "doors": 5,
        "model_year": 2024,
        "x y": [1],
    }


def test_a_row_that_is_none_is_an_error() -> None:
    with pytest.raises(ValidationError):
        Vehicle.model_validate([1])


@given(row=st.dictionaries(st.sampled_from([*FIELDS, "other", "unread"]), ANYTHING))
def test_no_row_whatsoever_is_refused_and_nothing_is_lost(row: dict[str, Any]) -> None:
    found = Vehicle.model_validate(row)
    found.model_dump(mode="json")
    assert set(found.unread) <= row.keys() & set(FIELDS)
    for name in FIELDS:
        if name in row and name not in found.unread and getattr(found, name) is None:
            assert is_empty(row[name])
    if "other" in row:
        assert (found.model_extra or {})["other"] is not ...


def is_empty(sent: object) -> bool:
    """Whether it says nothing: no letter but those of a currency, no digit but zero."""
    return sent is None or not re.search(r"[^\W0_]", str(sent).replace("EUR", "").replace("T", ""))


def test_it_goes_there_and_back_as_json() -> None:
    row = {"vehicle_id": 7, "sell_price": "12.500,00", "purchase_date": "01-05-2024", "is_sold": 1}
    found = Vehicle.model_validate(row)
    text = json.dumps(found.model_dump(mode="json"))
    assert Vehicle.model_validate(json.loads(text)) == found


def test_the_tolerant_types_serve_models_of_the_users_own() -> None:
    class Row(BaseModel):
        price: Money = None
        day: Day = None
        sold: Flag = None
        count: Count = None
        name: Text = None

    row = Row.model_validate({"price": "1,5", "day": "20240501", "sold": "J", "count": "3"})
    assert row == Row(price=Decimal("1.5"), day=date(2024, 5, 1), sold=True, count=3)
    with pytest.raises(ValidationError):
        Row.model_validate({"price": "much"})
    assert Row(day=datetime(2024, 5, 1, 10, 15, tzinfo=UTC)).day == date(2024, 5, 1)


def test_an_environment_is_read_tolerantly() -> None:
    found = Environment.model_validate({"environment": "prod", "api_url": None, "more": 1})
    assert (found.environment, found.api_url) == ("prod", None)
