"""Accounts and their tokens."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

__all__ = ["Account", "AccountBook"]

_DUTCH_WINTER = timezone(timedelta(hours=1))
"""The wire states no zone; this one is wrong for half the year."""


def _made_up_username() -> str:
    return f"dealer-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True)
class Account:
    """One set of AF10 credentials; what is not given is made up.

    Attributes:
        api_key: The key of the API's user.
        username: Who logs in; different for each account of a sandbox.
        password: The password of that user.
        organization_name: When set, an `organization_name` in the request must be equal to it.

    """

    api_key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    username: str = field(default_factory=_made_up_username)
    password: str = field(default_factory=lambda: secrets.token_urlsafe(12), repr=False)
    organization_name: str | None = None


@dataclass(frozen=True, slots=True)
class _Token:
    account: Account
    good_until: float


class AccountBook:
    """Who may log in, and which tokens are good.

    Args:
        accounts: At least one; their usernames differ.
        token_seconds: How long a token is good.

    """

    def __init__(self, accounts: Sequence[Account], token_seconds: float) -> None:
        self.accounts = tuple(accounts)
        self._token_seconds = token_seconds
        self._tokens: dict[str, _Token] = {}
        self._by_username = {account.username: account for account in self.accounts}
        self._by_api_key = {account.api_key: account for account in reversed(self.accounts)}
        self._user_ids = {name: number for number, name in enumerate(self._by_username, start=1)}
        if not self.accounts:
            raise ValueError("accounts is empty: a sandbox has at least one Account")
        if len(self._by_username) != len(self.accounts):
            raise ValueError("two accounts have the same username: give each one of its own")

    def named(self, username: str | None) -> Account | None:
        """The account of that username, without asking for its password."""
        return self._by_username.get(username or "")

    def log_in(
        self, api_key: str, username: str, password: str, organization_name: str | None
    ) -> Account | None:
        """The account that these credentials belong to, or None."""
        account = self.named(username)
        if account is None:
            return None
        right = _same(account.api_key, api_key) and _same(account.password, password)
        organization = account.organization_name
        if organization is not None and organization_name is not None:
            right = right and organization == organization_name
        return account if right else None

    def with_api_key(self, api_key: str, username: str | None) -> Account | None:
        """The account with this key, and this username if one is given."""
        if username is None:
            return self._by_api_key.get(api_key)
        account = self.named(username)
        return account if account is not None and _same(account.api_key, api_key) else None

    def user_id(self, account: Account) -> int:
        """A number for the account: stable, from 1."""
        return self._user_ids[account.username]

    def new_token(self, account: Account) -> str:
        """A token that is good from now on."""
        token = secrets.token_hex(24)
        self._tokens[token] = _Token(account, time.monotonic() + self._token_seconds)
        return token

    def valid_until(self) -> str:
        """Until when a token of now is good: `YYYYMMDDTHHMMSS`, Dutch winter time, no zone."""
        moment = datetime.now(_DUTCH_WINTER) + timedelta(seconds=self._token_seconds)
        return moment.strftime("%Y%m%dT%H%M%S")

    def of_token(self, token: str | None) -> Account | None:
        """Whose token it is, when it is still good."""
        found = self._tokens.get(token or "")
        if found is None:
            return None
        if time.monotonic() >= found.good_until:
            self.expire(token)
            return None
        return found.account

    def expire(self, token: str | None) -> None:
        """Refuse this token from now on."""
        self._tokens.pop(token or "", None)

    def expire_all(self) -> None:
        """Refuse every token given so far."""
        self._tokens.clear()


def _same(ours: str, theirs: str) -> bool:
    return hmac.compare_digest(ours.encode(), theirs.encode("utf-8", "replace"))
