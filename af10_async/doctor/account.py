"""AF10 itself: whether it accepts the credentials, and what time it has."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from ..client import AF10Client
from ..errors import AF10Error, AuthenticationError, NetworkError, TLSError
from ..protocol.wire import Reply, environment_call
from ..runtime import Runtime
from .configuration import Configuration
from .findings import Finding, because_of, failed, failed_with, passed, skipped

MOST_APART = 60.0
"""Seconds between two clocks from which on tokens and certificates suffer."""
_HALF_A_SECOND = 0.5
"""`Date` says whole seconds, cut off."""


class Account:
    """One account at AF10, without anything that receives callbacks.

    Args:
        configuration: What the environment says.
        stack: Closes the client.
        timeout: Seconds for each request.
        runtime: Time.

    """

    def __init__(
        self, configuration: Configuration, stack: AsyncExitStack, timeout: float, runtime: Runtime
    ) -> None:
        self._arguments = configuration.account
        self._stack = stack
        self._timeout = timeout
        self._runtime = runtime
        self._client: AF10Client | None = None

    async def credentials(self) -> Finding:
        """Authenticate."""
        if self._arguments is None:
            return because_of("configuration", "the settings of the account are not complete")
        try:
            client = await self._entered()
            await client.authenticate()
        except AuthenticationError as error:
            finding = failed_with(error, "")
            advice = "check AF10_API_KEY, AF10_USERNAME and AF10_PASSWORD"
            return failed(finding.message, advice, status=error.status, **finding.details)
        except TLSError as error:
            return failed_with(error, "check AF10_BASE_URL, AF10_CA_FILE and the clock")
        except NetworkError as error:
            finding = failed_with(error, "")
            advice = "check AF10_BASE_URL, the network, and the proxy if there is one"
            return failed(finding.message, advice, **finding.details)
        except AF10Error as error:
            return failed_with(error, "check AF10_BASE_URL")
        return passed("AF10 accepts them, and gave a token")

    async def clock(self) -> Finding:
        """Compare this machine's clock with that of AF10."""
        if self._arguments is None:
            return because_of("configuration", "the settings of the account are not complete")
        sent_at = self._runtime.now()
        try:
            reply = await self._asked(await self._entered())
        except AF10Error:
            return because_of("credentials", "AF10 cannot be asked for the time")
        date = _date_of(reply)
        if date is None:
            return skipped("AF10 does not say what time it has", "compare the clock by hand")
        # Its date is from some moment between the two of ours.
        middle, half_way = (sent_at + reply.received_at) / 2, (reply.received_at - sent_at) / 2
        return _compared(middle - (date + _HALF_A_SECOND), half_way + _HALF_A_SECOND)

    async def _entered(self) -> AF10Client:
        if self._client is None:
            assert self._arguments is not None  # whoever calls this has looked
            client = AF10Client(
                **self._arguments, retries=0, timeout=self._timeout, runtime=self._runtime
            )
            self._client = await self._stack.enter_async_context(client)
        return self._client

    async def _asked(self, client: AF10Client) -> Reply:
        """Any answer will do, so none is an error."""
        parts = client.open_parts()
        return await parts.requester.request_without_token(
            environment_call(parts.username), timeout=self._timeout
        )


def _date_of(reply: Reply) -> float | None:
    try:
        found = parsedate_to_datetime(reply.headers.get("date", ""))
    except (TypeError, ValueError):
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _compared(ahead: float, margin: float) -> Finding:
    """Say how far apart two clocks are, of which this one is ahead by so many seconds."""
    way = "ahead of" if ahead > 0 else "behind"
    details: dict[str, Any] = {"seconds_ahead": round(ahead, 1)}
    if abs(ahead) - margin > MOST_APART:
        return failed(
            f"this machine's clock is {_spoken(abs(ahead))} {way} that of AF10",
            "set it, and keep it right by NTP (`timedatectl set-ntp true`): tokens and certificates"
            " would count as expired, or as not valid yet",
            **details,
        )
    if abs(ahead) <= margin + _HALF_A_SECOND:
        return passed("the same as that of AF10, to the second", **details)
    return passed(f"{_spoken(abs(ahead))} {way} that of AF10, which does no harm", **details)


def _spoken(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
