"""A record survives being text, also that of a release that is a little newer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from af10_async.protocol.lifecycle import (
    Accepted,
    FileOnDisk,
    JobRecord,
    JobState,
    advance,
    orphan,
)
from af10_async.protocol.records import FORMAT, RecordError, decode, encode

TEXT = st.text(max_size=20)
RECORDS = st.builds(
    JobRecord,
    key=TEXT,
    account=st.none() | TEXT,
    method=TEXT,
    path=TEXT,
    expects_file=st.booleans(),
    created_at=st.floats(0, 1e12),
    expires_at=st.floats(0, 1e12),
    state=st.sampled_from(JobState),
    start_certain=st.booleans(),
    secrets=st.lists(TEXT, max_size=3).map(tuple),
    refused=st.lists(TEXT, max_size=3).map(tuple),
    payload=st.none() | TEXT,
    failure=st.none() | TEXT,
    uncollected=st.booleans(),
    file=st.none() | st.builds(FileOnDisk, TEXT, st.integers(0), TEXT),
    version=st.integers(0),
)


@given(RECORDS)
def test_a_record_is_read_as_it_was_written(record: JobRecord) -> None:
    assert decode(encode(record)) == record
    assert decode(encode(record).encode()) == record


def test_a_waiting_job_takes_little_room() -> None:
    record = JobRecord("k" * 48, "a" * 32, "POST", "/backup/owner", True, 1.7e9, 1.7e9 + 604800)
    assert len(encode(record)) < 220


def test_what_a_newer_release_adds_is_carried_along() -> None:
    """Two releases share a store while one replaces the other."""
    record = orphan("key", "secret", 1.0, 60.0)
    newer = json.loads(encode(record)) | {"z": {"new": [1, 2]}}
    read = decode(json.dumps(newer))
    assert read.secrets == record.secrets
    changed = advance(decode(json.dumps(newer)), Accepted(2.0)).record
    assert json.loads(encode(changed))["z"] == {"new": [1, 2]}


def test_a_newer_major_version_is_refused() -> None:
    newer = json.loads(encode(orphan("key", "secret", 1.0, 60.0))) | {"1": FORMAT + 1}
    with pytest.raises(RecordError, match=r"newer release.*upgrade"):
        decode(json.dumps(newer))


@pytest.mark.parametrize("text", ["", "[]", "1", "{}", '{"1":1}', '{"1":1,"k":"x","s":"odd"}', "{"])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(RecordError, match="not a job"):
        decode(text)
