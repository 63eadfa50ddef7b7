"""What AF10 sends, read tolerantly: unknown fields are kept out of the way, not refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints


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
