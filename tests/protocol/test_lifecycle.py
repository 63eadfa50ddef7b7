"""The life of a job, as a table and as invariants over any sequence of events."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from af10_async.protocol.lifecycle import (
    DONE_LIFETIME,
    MAX_SECRETS,
    Accepted,
    CalledBack,
    Effect,
    Event,
    JobRecord,
    JobState,
    LifeEnded,
    PayloadReceived,
    Refused,
    SecretRefused,
    advance,
    orphan,
)

NEW = JobRecord(
    key="k",
    account="a",
    method="POST",
    path="/backup/owner",
    expects_file=True,
    created_at=100.0,
    expires_at=1000.0,
)


def after(*events: Event, record: JobRecord = NEW) -> JobRecord:
    for event in events:
        record = advance(record, event).record
    return record


STATES = {
    "registered": after(),
    "accepted": after(Accepted(110)),
    "called_back": after(Accepted(110), CalledBack(120, "s")),
    "ready": after(CalledBack(120, "s"), PayloadReceived(130, '"p"', "s")),
    "failed": after(Refused(110, "no")),
    "expired": after(LifeEnded(1000)),
}
EVENTS: dict[str, Event] = {
    "accepted": Accepted(2000),
    "secret": CalledBack(2000, "t"),
    "same-secret": CalledBack(2000, "s"),
    "refuses-secret": SecretRefused(2000, "s"),
    "refuses-unknown": SecretRefused(2000, "u"),
    "payload": PayloadReceived(2000, '"p"', "s"),
    "new-payload": PayloadReceived(2000, '"q"', "s"),
    "payload-at-once": PayloadReceived(2000, '"d"'),
    "refused": Refused(2000, "no"),
    "life-ended": LifeEnded(2000),
}
# What comes out: the next state and the secrets kept; "-" when nothing changes.
TABLE = {
    "registered": {
        "accepted": "accepted",
        "secret": "called_back t",
        "same-secret": "called_back s",
        "refuses-secret": "-",
        "refuses-unknown": "-",
        "payload": "ready s",
        "new-payload": "ready s",
        "payload-at-once": "ready",
        "refused": "failed",
        "life-ended": "expired",
    },
    "accepted": {
        "accepted": "-",
        "secret": "called_back t",
        "same-secret": "called_back s",
        "refuses-secret": "-",
        "refuses-unknown": "-",
        "payload": "ready s",
        "new-payload": "ready s",
        "payload-at-once": "ready",
        "refused": "failed",
        "life-ended": "expired",
    },
    "called_back": {
        "accepted": "-",
        "secret": "called_back s t",
        "same-secret": "-",
        "refuses-secret": "accepted",
        "refuses-unknown": "-",
        "payload": "ready s",
        "new-payload": "ready s",
        "payload-at-once": "ready",
        "refused": "-",
        "life-ended": "-",
    },
    "ready": {
        "accepted": "-",
        "secret": "-",
        "same-secret": "-",
        "refuses-secret": "-",
        "refuses-unknown": "-",
        "payload": "-",
        "new-payload": "ready s",
        "payload-at-once": "-",
        "refused": "-",
        "life-ended": "-",
    },
    "failed": {
        "accepted": "-",
        "secret": "called_back t",
        "same-secret": "called_back s",
        "refuses-secret": "-",
        "refuses-unknown": "-",
        "payload": "ready s",
        "new-payload": "ready s",
        "payload-at-once": "ready",
        "refused": "-",
        "life-ended": "-",
    },
    "expired": {
        "accepted": "-",
        "secret": "called_back t",
        "same-secret": "called_back s",
        "refuses-secret": "-",
        "refuses-unknown": "-",
        "payload": "ready s",
        "new-payload": "ready s",
        "payload-at-once": "ready",
        "refused": "-",
        "life-ended": "-",
    },
}


def test_the_table_is_complete() -> None:
    assert set(TABLE) == set(STATES) == {state.value for state in JobState} - {"new"}
    assert all(set(row) == set(EVENTS) for row in TABLE.values())


@pytest.mark.parametrize(
    ("state", "event", "expected"),
    [
        pytest.param(state, event, expected, id=f"{state}+{event}")
        for state, row in TABLE.items()
        for event, expected in row.items()
    ],
)
def test_every_event_in_every_state_does_what_the_table_says(
    state: str, event: str, expected: str
) -> None:
    before = STATES[state]
    assert before.state.value == state
    result = advance(before, EVENTS[event])
    if expected == "-":
        assert result.effect is Effect.UNCHANGED
        assert result.record is before
        return
    next_state, *secrets = expected.split()
    assert result.effect is Effect.CHANGED
    assert result.record.version > before.version
    assert result.record.state.value == next_state
    assert result.record.secrets == tuple(secrets)


def test_a_callback_proves_the_start_that_the_post_left_open() -> None:
    assert not STATES["registered"].start_certain
    assert after(CalledBack(120, "s")).start_certain
    assert after(Accepted(120)).start_certain


def test_an_answer_overtaken_by_the_callback_does_not_take_the_job_back() -> None:
    assert after(CalledBack(1, "s"), Accepted(2)).state is JobState.CALLED_BACK


@pytest.mark.parametrize("state", ["failed", "expired"])
def test_a_late_callback_brings_a_job_given_up_back_to_life(state: str) -> None:
    again = after(CalledBack(2000, "late"), record=STATES[state])
    assert (again.state, again.failure, again.is_done) == (JobState.CALLED_BACK, None, False)
    assert after(PayloadReceived(2001, "1", "late"), record=again).payload == "1"


def test_a_refusal_keeps_its_reason_and_the_record_for_late_callbacks() -> None:
    failed = after(Refused(500.0, "no such dealer"))
    assert failed.failure == "no such dealer"
    assert failed.expires_at == 500.0 + DONE_LIFETIME


def test_the_redeemed_secret_stays_with_its_payload_and_the_others_go() -> None:
    ready = after(CalledBack(1, "f"), CalledBack(2, "s"), PayloadReceived(3.0, "7", "s"))
    assert (ready.secrets, ready.payload) == (("s",), "7")
    assert ready.expires_at == 3.0 + DONE_LIFETIME


def test_only_the_redeemed_secret_can_refresh_the_payload() -> None:
    ready = STATES["ready"]
    assert after(PayloadReceived(9, '"new"', "s"), record=ready).payload == '"new"'
    assert after(PayloadReceived(9, '"forged"', "other"), record=ready) is ready


def test_secrets_are_tried_in_order_of_arrival() -> None:
    assert after(*(CalledBack(n, f"s{n}") for n in range(3))).secrets == ("s0", "s1", "s2")


def test_a_full_record_refuses_one_more_secret_without_changing() -> None:
    full = after(*(CalledBack(n, f"s{n}") for n in range(MAX_SECRETS)))
    result = advance(full, CalledBack(99, "one more"))
    assert (result.effect, result.record) == (Effect.FULL, full)
    assert advance(full, CalledBack(99, "s0")).effect is Effect.UNCHANGED


def test_forged_secrets_can_be_dropped_and_the_genuine_one_still_redeems() -> None:
    record = after(Accepted(1), *(CalledBack(n, f"forged{n}") for n in range(MAX_SECRETS)))
    assert advance(record, CalledBack(50, "genuine")).effect is Effect.FULL
    record = after(SecretRefused(60, "forged0"), CalledBack(61, "genuine"), record=record)
    assert "genuine" in record.secrets
    for n in range(1, MAX_SECRETS):
        record = after(SecretRefused(70, f"forged{n}"), record=record)
    assert record.state is JobState.CALLED_BACK
    ready = after(PayloadReceived(80, '{"url": "u"}', "genuine"), record=record)
    assert (ready.state, ready.payload) == (JobState.READY, '{"url": "u"}')


def test_a_refused_secret_that_comes_again_is_to_be_tried_again() -> None:
    record = after(CalledBack(1, "f"), SecretRefused(2, "f"), CalledBack(3, "f"))
    assert (record.state, record.secrets, record.refused) == (JobState.CALLED_BACK, ("f",), ())


def test_only_the_latest_refused_secrets_are_remembered() -> None:
    record = NEW
    for n in range(MAX_SECRETS + 1):
        record = after(CalledBack(n, f"f{n}"), SecretRefused(n, f"f{n}"), record=record)
    assert record.refused == tuple(f"f{n}" for n in range(1, MAX_SECRETS + 1))


def test_an_orphan_is_called_back_owned_by_nobody_and_can_be_redeemed() -> None:
    found = orphan("k", "s", 100.0, 50.0)
    assert (found.account, found.state, found.secrets) == (None, JobState.CALLED_BACK, ("s",))
    assert (found.created_at, found.expires_at, found.start_certain) == (100.0, 150.0, True)
    assert after(PayloadReceived(110, "1", "s"), record=found).state is JobState.READY


def test_no_repr_shows_a_secret_or_a_payload() -> None:
    record = after(CalledBack(1, "canary-f"), SecretRefused(2, "canary-f"))
    record = after(CalledBack(3, "canary-s"), PayloadReceived(4, "canary-p", "canary-s"))
    events: list[Event] = [
        CalledBack(1, "canary-s"),
        SecretRefused(1, "canary-s"),
        PayloadReceived(1, "canary-p", "canary-s"),
    ]
    assert "canary" not in repr(record) + repr(events) + repr(advance(record, events[0]))


# -- invariants ------------------------------------------------------------------------------------

names = st.sampled_from([f"s{n}" for n in range(MAX_SECRETS + 3)])
times = st.integers(0, 5000).map(float)
any_event: st.SearchStrategy[Event] = st.one_of(
    st.builds(Accepted, times),
    st.builds(CalledBack, times, names),
    st.builds(CalledBack, times, names),
    st.builds(SecretRefused, times, names),
    st.builds(PayloadReceived, times, st.sampled_from(["1", "2"]), st.none() | names),
    st.builds(Refused, times, st.just("no")),
    st.builds(LifeEnded, times),
)


@given(events=st.lists(any_event, max_size=30))
def test_any_sequence_of_events_keeps_the_invariants(events: list[Event]) -> None:
    record = NEW
    for event in events:
        before, (record, effect) = record, _apart(record, event)
        assert (record.version > before.version) is (effect is Effect.CHANGED)
        assert (record == before) is (effect is not Effect.CHANGED)
        if before.state is JobState.READY:
            assert record.state is JobState.READY
            assert record.secrets == before.secrets
            assert record.payload is not None
        lost = set(before.secrets) - set(record.secrets)
        if isinstance(event, SecretRefused):
            assert lost <= {event.secret}
        elif not isinstance(event, PayloadReceived):
            assert not lost
        assert len(record.secrets) == len(set(record.secrets)) <= MAX_SECRETS
        assert len(record.refused) <= MAX_SECRETS
        assert (record.state is JobState.READY) is (record.payload is not None)
        assert (record.state is JobState.FAILED) is (record.failure is not None)
        if record.state is JobState.CALLED_BACK:
            assert record.secrets
        elif record.secrets:
            assert record.state is JobState.READY
        assert _identity(record) == _identity(NEW)
        assert record.start_certain >= before.start_certain


@given(events=st.lists(any_event, max_size=20), last=any_event)
def test_the_same_event_twice_changes_nothing_the_second_time(
    events: list[Event], last: Event
) -> None:
    once = after(*events, last)
    assert advance(once, last).record is once


@given(events=st.lists(any_event, max_size=15), forged=st.lists(names, max_size=15))
@settings(max_examples=60)
def test_forged_callbacks_and_their_refusals_never_resolve_nor_fail_a_job(
    events: list[Event], forged: list[str]
) -> None:
    before = after(*events)
    record = before
    for secret in forged:
        name = f"forged-{secret}"
        record = after(CalledBack(1, name), SecretRefused(2, name), record=record)
        record = after(CalledBack(3, name + "-untried"), record=record)
    if before.state in (JobState.READY, JobState.FAILED, JobState.EXPIRED):
        assert record.state is before.state or not record.is_done
    else:
        assert not record.is_done
    assert record.payload == before.payload
    assert set(before.secrets) <= set(record.secrets)


def _apart(record: JobRecord, event: Event) -> tuple[JobRecord, Effect]:
    result = advance(record, event)
    return result.record, result.effect


def _identity(record: JobRecord) -> tuple[object, ...]:
    kept = replace(record, secrets=(), refused=())
    return kept.key, kept.account, kept.method, kept.path, kept.expects_file, kept.created_at
