"""What AF10 sends, read tolerantly: unknown fields are kept out of the way, not refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints

Text = Annotated[
    str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)
]
HeaderText = Annotated[str, StringConstraints(pattern=r"^[!-~]+$", max_length=4096)]
"""Visible ASCII: anything else could not be sent in a header, and would end up in an error text."""


class Authentication(BaseModel):
    """The answer to `GET /authenticate`."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    token: HeaderText
    api_url: str | None = None
    user_id: Text | None = None
    environment: Text | None = None
    token_valid_until: Text | None = None
