"""Redeeming: the secrets of one job, tried in turn until one gives the payload."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import replace
from typing import assert_never

from .errors import AF10Error, APIError, BadResponseError
from .events import trace_of_job
from .job_record import LiveRecord
from .job_services import Services, labelled
from .protocol import wire
from .protocol.lifecycle import MAX_SECRETS, PayloadReceived, SecretRefused
from .protocol.retry import MAX_RETRY_AFTER

logger = logging.getLogger("af10_async.jobs")

REDEEM_TRIES = 8
"""How often an id that AF10 does not know (yet) is tried before it may make room for others."""


class Redeemer:
    """Exchanges what came by callback for the payload."""

    __slots__ = ("_live", "_services")

    def __init__(self, services: Services, live: LiveRecord) -> None:
        self._services = services
        self._live = live

    async def redeem(self) -> None:
        """Try the secrets in turn, each a few times, until one gives the payload."""
        trace_of_job.set(self._live.known.trace)  # the task is this run's own
        tries: Counter[str] = Counter()
        troubles = 0
        while self._live.known.secrets and not self._live.known.is_done:
            trouble: AF10Error | None = None
            for secret in self._live.known.secrets:
                try:
                    if await self._give_in(secret, attempt=tries[secret] + troubles + 1):
                        return
                    tries[secret] += 1
                except AF10Error as error:
                    # It may be this secret's own, which may be forged: the others get their turn.
                    self._live.trouble = trouble = error
            pause = await self._next_round(tries)
            if trouble is not None:
                troubles += 1
                pause = max(pause, self._patience(trouble, troubles))
            await self._pause(pause)

    async def fresh_url(self) -> str | None:
        """The address of the file, asked for again; None when that is not possible."""
        record = await self._live.read()
        if record is None or not record.secrets:
            return None
        secret = record.secrets[0]
        marker = trace_of_job.set(record.trace)
        try:
            outcome = await self._ask(secret)
        finally:
            trace_of_job.reset(marker)
        if not isinstance(outcome, wire.Payload):
            return None
        await self._live.apply(PayloadReceived(self._now(), outcome.json, secret))
        return wire.file_url(outcome.json)

    async def _give_in(self, secret: str, attempt: int) -> bool:
        outcome = await self._ask(secret, attempt)
        match outcome:
            case wire.Payload(json=payload):
                record = self._live.known
                is_file = record.expects_file or record.account is None
                is_file = is_file and wire.file_url(payload) is not None
                await self._live.apply(PayloadReceived(self._now(), payload, secret, is_file))
                return True
            case wire.NotRedeemable(reason=reason):
                self._live.trouble = reason
                await self._drop(secret)
            case wire.NotReady(reason=reason):
                self._live.trouble = reason
            case _:
                assert_never(outcome)
        return False

    async def _ask(
        self, secret: str, attempt: int = 1
    ) -> wire.Payload | wire.NotReady | wire.NotRedeemable:
        call = replace(wire.redeem_call(secret), attempt=attempt)
        reply = await self._services.requester.request(call)
        return wire.read_redeem(reply, (*self._services.requester.secrets(), secret))

    async def _next_round(self, tries: Counter[str]) -> float:
        """Drop what was tried often enough; the pause for what is left."""
        pauses = [0.0]
        for secret in self._live.known.secrets:
            # An id that AF10 does not know may be known later: it goes only when room is needed.
            is_crowded = len(self._live.known.secrets) > MAX_SECRETS // 2
            if is_crowded and tries[secret] >= REDEEM_TRIES:
                await self._drop(secret)
            if tries[secret] and secret in self._live.known.secrets:
                chance = self._services.runtime.chance()
                pauses.append(self._services.policy.backoff(tries[secret], chance))
        return max(pauses)

    async def _drop(self, secret: str) -> None:
        if self._live.known.account is None:
            return  # an orphan's secret may be good for another account than this one
        logger.warning("job %s: AF10 refused an id that came by callback", self._live.key)
        await self._live.apply(SecretRefused(self._now(), secret))

    def _patience(self, error: AF10Error, troubles: int) -> float:
        chance = self._services.runtime.chance()
        if not error.retryable and not isinstance(error, BadResponseError):
            raise labelled(error, self._live.key, "redeem")
        asked = (error.retry_after if isinstance(error, APIError) else None) or 0.0
        if asked > MAX_RETRY_AFTER:
            raise labelled(error, self._live.key, "redeem")
        pause = max(self._services.policy.backoff(troubles, chance), asked)
        logger.info("job %s not redeemed, again in %.1f s: %s", self._live.key, pause, error)
        return pause

    async def _pause(self, seconds: float) -> None:
        """Wait a while, or until something happens to the record."""
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._live.next()
        except TimeoutError:
            return

    def _now(self) -> float:
        return self._services.runtime.now()
