"""The life of a job: what an event makes of its record.

    registered ──▶ accepted ──▶ called_back ──▶ ready
        └──────────────┴─────────────┴────────▶ failed, expired

`advance` is the only place where a record changes. It is pure, so every store applies it inside
whatever makes a step atomic there. A callback may come in any state: before the POST was
answered, twice, forged, or after everybody stopped waiting.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from operator import attrgetter
from typing import Any, assert_never

MAX_SECRETS = 8
"""Most secrets of one job that wait to be tried, and most refused ones that are remembered.

A webhook URL is public, so anybody who sees it can call it with a made-up id; keeping a few beside
the genuine one is enough, since a refused one makes room again.
"""
JOB_LIFETIME = 7 * 24 * 3600.0
"""Seconds that a job waits for its callback before it expires, and its file for being saved."""
DONE_LIFETIME = 24 * 3600.0
"""Seconds that a finished record is kept, so that late duplicates are recognised as such."""

CALLBACK_STEP = 1000
ORPHAN_VERSION = 1_000_000
"""Where the versions of an orphan begin: no job that it may have been has come so far."""


class JobState(StrEnum):
    """How far a job has come."""

    NEW = "new"
    """Nothing was sent yet; such a job is in no store."""
    REGISTERED = "registered"
    """Known to the store; the request is about to leave, or its outcome is not known."""
    ACCEPTED = "accepted"
    """AF10 has accepted it, and will call back."""
    CALLED_BACK = "called_back"
    """A secret is there to be redeemed."""
    READY = "ready"
    """The payload is there."""
    FAILED = "failed"
    """AF10 refused it."""
    EXPIRED = "expired"
    """Its life ended before AF10 called back."""


@dataclass(frozen=True, slots=True)
class FileOnDisk:
    """Where the file of a job was saved, and what is in it."""

    path: str
    """Absolute, on the machine that saved it."""
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What a store keeps of one job. Times are Unix seconds."""

    key: str
    account: str | None
    """Whose job it is; None for an orphan that came from before the store's memory."""
    method: str
    path: str
    expects_file: bool
    created_at: float
    expires_at: float
    state: JobState = JobState.REGISTERED
    start_certain: bool = False
    """Whether AF10 is known to have accepted it."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Secrets still to be tried, in order of arrival; the redeemed one stays."""
    refused: tuple[str, ...] = field(default=(), repr=False)
    """Secrets that AF10 did not accept."""
    payload: str | None = field(default=None, repr=False)
    """The payload as JSON text."""
    failure: str | None = None
    """Why it failed; holds no secret."""
    uncollected: bool = False
    """Whether the payload is a file that nobody has saved yet."""
    file: FileOnDisk | None = None
    """The file that was complete and about to get this name, or has it."""
    trace: str | None = None
    """Where its trace goes on: a W3C `traceparent`."""
    version: int = 0
    """Goes up with each change: by `CALLBACK_STEP` when a callback came, else by one.

    So a record that has lost its newest changes and got a callback since does not pass for the one
    that it was.
    """
    extra: str | None = field(default=None, repr=False)
    """What a later release of ours wrote beside these, as JSON: kept as it is."""

    @property
    def is_done(self) -> bool:
        """Whether nothing can come after this state but a late callback."""
        return self.state in (JobState.READY, JobState.FAILED, JobState.EXPIRED)

    @property
    def is_unfinished(self) -> bool:
        """Whether there is something left to do: to wait, to redeem, or to save the file."""
        return not self.is_done or self.uncollected


@dataclass(frozen=True, slots=True)
class Accepted:
    """AF10 answered the POST: it will call back."""

    at: float


@dataclass(frozen=True, slots=True)
class CalledBack:
    """A callback came with this secret."""

    at: float
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SecretRefused:
    """AF10 does not know this secret (any more)."""

    at: float
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PayloadReceived:
    """The payload (JSON text) is here; by way of this secret, or directly (None)."""

    at: float
    payload: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    is_file: bool = False
    """Whether it is a file that somebody has to save."""


@dataclass(frozen=True, slots=True)
class FileComplete:
    """The file is whole and on disk, and is about to get its name."""

    at: float
    file: FileOnDisk


@dataclass(frozen=True, slots=True)
class Collected:
    """The payload is safe with whoever asked for it."""

    at: float


@dataclass(frozen=True, slots=True)
class Adopted:
    """The account whose job it is has come with a ticket for it."""

    at: float
    account: str
    method: str
    path: str
    expects_file: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """AF10 said no to the job."""

    at: float
    failure: str


@dataclass(frozen=True, slots=True)
class LifeEnded:
    """The record's own time is over."""

    at: float


Event = (
    Accepted
    | CalledBack
    | SecretRefused
    | PayloadReceived
    | FileComplete
    | Collected
    | Adopted
    | Refused
    | LifeEnded
)


class Effect(StrEnum):
    """What an event did to the record."""

    CHANGED = "changed"
    UNCHANGED = "unchanged"
    """A repetition, or too late to matter."""
    FULL = "full"
    """No room for one more secret just now: the caller must not be told that it is kept."""


@dataclass(frozen=True, slots=True)
class Transition:
    """The record after an event, and whether it changed."""

    record: JobRecord
    effect: Effect


def orphan(key: str, secret: str, at: float, lifetime: float) -> JobRecord:
    """The record of a callback whose key is genuine but whose job is not in the store."""
    return JobRecord(
        key=key,
        account=None,
        method="",
        path="",
        expects_file=False,
        created_at=at,
        expires_at=at + lifetime,
        state=JobState.CALLED_BACK,
        start_certain=True,
        secrets=(secret,),
        version=ORPHAN_VERSION,
    )


def advance(record: JobRecord, event: Event) -> Transition:
    """What `event` makes of `record`."""
    changed = _next(record, event)
    if isinstance(changed, Effect):
        return Transition(record, changed)
    step = CALLBACK_STEP if isinstance(event, CalledBack) else 1
    object.__setattr__(changed, "version", record.version + step)  # as in `_changed`
    return Transition(changed, Effect.CHANGED)


_values = attrgetter(*(each.name for each in fields(JobRecord)))


def _changed(record: JobRecord, **changes: Any) -> JobRecord:
    """As `dataclasses.replace`, in a third of the time: a receiver does little else."""
    made = JobRecord(*_values(record))
    for name, value in changes.items():
        object.__setattr__(made, name, value)  # nobody else has seen it yet
    return made


def _next(record: JobRecord, event: Event) -> JobRecord | Effect:
    match event:
        case Accepted():
            return _accepted(record)
        case CalledBack(at=at, secret=secret):
            return _called_back(record, at, secret)
        case SecretRefused(secret=secret):
            return _secret_refused(record, secret)
        case PayloadReceived():
            return _payload_received(record, event)
        case FileComplete(file=file):
            return _file_complete(record, file)
        case Collected(at=at):
            return _collected(record, at)
        case Adopted():
            return _adopted(record, event)
        case Refused(at=at, failure=failure):
            return _ended(record, JobState.FAILED, at, failure)
        case LifeEnded(at=at):
            return _ended(record, JobState.EXPIRED, at, None)
        case _:
            assert_never(event)


def _accepted(record: JobRecord) -> JobRecord | Effect:
    if record.start_certain or record.is_done:
        return Effect.UNCHANGED  # the callback overtook this answer
    return _changed(record, state=JobState.ACCEPTED, start_certain=True)


def _called_back(record: JobRecord, at: float, secret: str) -> JobRecord | Effect:
    if secret in record.secrets:
        return Effect.UNCHANGED
    if record.state is JobState.READY:
        return Effect.UNCHANGED  # the payload is here: whoever comes now is late or forged
    if len(record.secrets) >= MAX_SECRETS:
        return Effect.FULL
    # A job that had failed or expired comes to life again: the callback proves that it ran.
    return _changed(
        record,
        state=JobState.CALLED_BACK,
        start_certain=True,
        secrets=(*record.secrets, secret),
        # One that was refused and comes again may be good by now.
        refused=tuple(each for each in record.refused if each != secret),
        failure=None,
        # What was acknowledged is kept for as long as what was just begun.
        expires_at=max(record.expires_at, at + JOB_LIFETIME),
    )


def _secret_refused(record: JobRecord, secret: str) -> JobRecord | Effect:
    if secret not in record.secrets or record.state is JobState.READY:
        return Effect.UNCHANGED
    left = tuple(each for each in record.secrets if each != secret)
    state = JobState.CALLED_BACK if left else JobState.ACCEPTED
    refused = (*record.refused, secret)[-MAX_SECRETS:]
    return _changed(record, state=state, secrets=left, refused=refused)


def _payload_received(record: JobRecord, event: PayloadReceived) -> JobRecord | Effect:
    if record.state is JobState.READY:
        is_fresher = event.secret in record.secrets and event.payload != record.payload
        return _changed(record, payload=event.payload) if is_fresher else Effect.UNCHANGED
    return _changed(
        record,
        state=JobState.READY,
        start_certain=True,
        payload=event.payload,
        # Kept with the payload: a payload URL that has gone stale is asked for again with it.
        secrets=() if event.secret is None else (event.secret,),
        failure=None,
        uncollected=event.is_file,
        expires_at=event.at + (JOB_LIFETIME if event.is_file else DONE_LIFETIME),
    )


def _file_complete(record: JobRecord, file: FileOnDisk) -> JobRecord | Effect:
    if record.state is not JobState.READY or record.file == file:
        return Effect.UNCHANGED
    return _changed(record, file=file)


def _collected(record: JobRecord, at: float) -> JobRecord | Effect:
    if not record.uncollected:
        return Effect.UNCHANGED
    return _changed(record, uncollected=False, expires_at=at + DONE_LIFETIME)


def _adopted(record: JobRecord, event: Adopted) -> JobRecord | Effect:
    if record.account is not None:
        return Effect.UNCHANGED
    return _changed(
        record,
        account=event.account,
        method=event.method,
        path=event.path,
        expects_file=event.expects_file,
    )


def _ended(
    record: JobRecord, state: JobState, at: float, failure: str | None
) -> JobRecord | Effect:
    if record.is_done or record.secrets:
        return Effect.UNCHANGED  # a secret in hand is worth more than a refusal
    return _changed(record, state=state, failure=failure, expires_at=at + DONE_LIFETIME)
