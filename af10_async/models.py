"""What AF10 sends, read tolerantly: odd values are no errors, and unknown fields are kept.

`Money`, `Day`, `Flag`, `Count` and `Text` may stand in models of your own: each reads what can be
read, and is None for what is empty. What cannot be read is an error there; `LenientModel` makes it
None instead, and keeps it in `unread`.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Self, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    model_validator,
)

__all__ = [
    "Authentication",
    "Count",
    "Day",
    "Environment",
    "Flag",
    "LenientModel",
    "Money",
    "Text",
    "Vehicle",
]


def _text_or_nothing(value: object) -> str | None:
    return str(value) if isinstance(value, str | int) else None


OddText = Annotated[str | None, BeforeValidator(_text_or_nothing)]
"""Something that we can do without: an odd value is as good as none."""
HeaderText = Annotated[str, StringConstraints(pattern=r"^[!-~]+$", max_length=4096)]
"""Visible ASCII: anything else could not be sent in a header, and would end up in an error text."""


class Authentication(BaseModel):
    """The answer to `GET /authenticate`."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    token: HeaderText
    api_url: str | None = None
    token_valid_until: OddText = None


# -- odd values ------------------------------------------------------------------------------------

_LONGEST = 64
"""Longest text that is taken for a number or a date."""
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+", re.ASCII)
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?", re.ASCII)
_YEAR_FIRST = re.compile(r"([0-9]{4})-?([0-9]{2})-?([0-9]{2})(?:[T ][0-9:.,+Z-]*)?", re.ASCII)
_DAY_FIRST = re.compile(r"([0-9]{1,2})[-/]([0-9]{1,2})[-/]([0-9]{4})(?: [0-9:.]*)?", re.ASCII)
_TRUE = {"1", "true", "yes", "y", "ja", "j"}
_FALSE = {"0", "false", "no", "n", "nee"}


def _money(value: object) -> object:
    """An amount: a number, or text with a dot or (Dutch) a comma before the cents."""
    if value is None or isinstance(value, Decimal):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("not an amount")
    # By its text, because 0.1 as a float is not a tenth.
    text = _plain(value).removeprefix("EUR").strip("€ \u00a0").removesuffix(",-").removesuffix(".-")
    if not text:
        return None
    if "," in text and text.rfind(".") > text.rfind(","):
        text = text.replace(",", "")  # 12,500.00, as in English
    elif "," in text:
        text = text.replace(".", "").replace(",", ".")
    elif isinstance(value, str) and _THOUSANDS.fullmatch(text):
        text = text.replace(".", "")
    try:
        found = Decimal(text)
    except InvalidOperation:
        raise ValueError("not an amount") from None
    if not found.is_finite():
        raise ValueError("not an amount")
    return found


def _day(value: object) -> object:
    """A date: year first, or (Dutch) day first with four digits for the year; a time is dropped."""
    if isinstance(value, datetime):
        return value.date()
    if value is None or isinstance(value, date):
        return value
    text = _plain(value) if isinstance(value, int | str) and not isinstance(value, bool) else "?"
    if not text.strip("0-:T "):
        return None  # also 0000-00-00
    if found := _YEAR_FIRST.fullmatch(text):
        return date(int(found[1]), int(found[2]), int(found[3]))
    if found := _DAY_FIRST.fullmatch(text):
        return date(int(found[3]), int(found[2]), int(found[1]))
    raise ValueError("not a date")


def _flag(value: object) -> object:
    """Yes or no: true and false, 1 and 0, and Dutch or English words."""
    if value is None or isinstance(value, bool):
        return value
    text = _plain(value).lower() if isinstance(value, int | float | str) else "?"
    if not text:
        return None
    if text.removesuffix(".0") in _TRUE:
        return True
    if text.removesuffix(".0") in _FALSE:
        return False
    raise ValueError("neither yes nor no")


def _count(value: object) -> object:
    """A whole number, or text that is one, perhaps with dots between thousands."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("not a number")
    text = _plain(value)
    if isinstance(value, str) and _THOUSANDS.fullmatch(text):
        text = text.replace(".", "")
    if not text:
        return None
    if not _NUMBER.fullmatch(text) or text.partition(".")[2].strip("0"):
        raise ValueError("not a whole number")
    return int(text.partition(".")[0])


def _identity(value: object) -> object:
    """An id: a number, also as text, or else text."""
    try:
        return _count(value)
    except ValueError:
        return _words(value)


def _words(value: object) -> object:
    """Text; a number is as good (a Peugeot 208)."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not text")
    return _plain(value)


def _plain(value: float | str) -> str:
    """The text of a value, unless it is absurdly long."""
    is_long = len(value) > _LONGEST if isinstance(value, str) else abs(value) >= 10**_LONGEST
    if is_long:
        raise ValueError("far too long")
    return str(value).strip()


Money: TypeAlias = Annotated[Decimal | None, BeforeValidator(_money)]
"""An amount of money, exactly: 12500, "12500.00", "12.500,00", "€ 12.500"; "" is None."""
Day: TypeAlias = Annotated[date | None, BeforeValidator(_day)]
"""A date: "2024-05-01", "20240501T101500", "01-05-2024"; "" and "0000-00-00" are None."""
Flag: TypeAlias = Annotated[bool | None, BeforeValidator(_flag)]
"""Yes or no: true, 1, "1", "J", "ja"; "" is None."""
Count: TypeAlias = Annotated[int | None, BeforeValidator(_count)]
"""A whole number: 15000, "15000", "15.000"; "" is None."""
Text: TypeAlias = Annotated[str | None, BeforeValidator(_words)]
"""Text; a number becomes one."""
Identity: TypeAlias = Annotated[int | str | None, BeforeValidator(_identity)]
"""An id as AF10 gives it; a number in text becomes a number."""


class LenientModel(BaseModel):
    """A row of AF10's: unknown fields are kept as attributes, and unreadable ones in `unread`."""

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True, protected_namespaces=())

    _unread: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def unread(self) -> dict[str, Any]:
        """What AF10 sent for fields that are None because it could not be read."""
        return self._unread

    @model_validator(mode="wrap")
    @classmethod
    def _leniently(cls, data: Any, handler: ValidatorFunctionWrapHandler) -> Self:
        try:
            found: Self = handler(data)
            return found
        except ValidationError as error:
            if not isinstance(data, dict):
                raise
            wrong = {str(each["loc"][0]) for each in error.errors(include_url=False) if each["loc"]}
            unread = {name: data[name] for name in wrong if name in data}
            if not unread:
                raise
            found = handler({name: value for name, value in data.items() if name not in unread})
            found._unread.update(unread)
            return found


class Environment(LenientModel):
    """The answer to `GET /util/environment`: where an account belongs."""

    environment: Text = None
    api_url: Text = None


class Vehicle(LenientModel):
    """A vehicle: the fields whose names are publicly known; all others are kept, too.

    Any of them may be missing, when `fields=` asked for others.
    """

    vehicle_id: Identity = None
    license_plate: Text = None
    brand: Text = None
    model: Text = None
    v_display_name: Text = None
    color: Text = None
    purchase_price: Money = None
    sell_price: Money = None
    mileage: Count = None
    purchase_date: Day = None
    is_sold: Flag = None
    is_occasion: Flag = None
