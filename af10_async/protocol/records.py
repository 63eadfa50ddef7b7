"""A job record as text, the same in every store that outlives a process.

Compact JSON with what differs from the defaults, so that a store of a million jobs stays small.
Several releases may share a store while one replaces the other: a field that this one does not know
is carried along, and only a higher major version is refused.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from typing import Any

from .lifecycle import FileOnDisk, JobRecord, JobState

FORMAT = 1
"""The major version: goes up only when an older release could no longer do justice to a record."""
_NAMES = {
    "key": "k",
    "account": "a",
    "method": "m",
    "path": "p",
    "expects_file": "e",
    "created_at": "c",
    "expires_at": "x",
    "state": "s",
    "start_certain": "t",
    "secrets": "i",
    "refused": "r",
    "payload": "d",
    "failure": "f",
    "uncollected": "u",
    "file": "n",
    "trace": "o",
    "version": "v",
}
"""Each field, by a letter."""
_DEFAULTS = {each.name: each.default for each in fields(JobRecord)} | {"secrets": (), "refused": ()}


class RecordError(ValueError):
    """What is stored is not a record that this release understands."""


def encode(record: JobRecord) -> str:
    """The text of a record."""
    found: dict[str, Any] = json.loads(record.extra) if record.extra else {}
    found["1"] = FORMAT
    for name, letter in _NAMES.items():
        value = getattr(record, name)
        if value != _DEFAULTS[name]:
            found[letter] = value
    if record.file is not None:
        found["n"] = [record.file.path, record.file.size, record.file.sha256]
    return json.dumps(found, separators=(",", ":"))


def decode(text: str | bytes) -> JobRecord:
    """The record of a text. Raises `RecordError`."""
    try:
        found = json.loads(text)
        version = found.pop("1")
        if version > FORMAT:
            raise RecordError("a job was stored by a newer release of af10-async: upgrade this one")
        values = {name: found.pop(letter) for name, letter in _NAMES.items() if letter in found}
        return _record(values, json.dumps(found) if found else None)
    except RecordError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError):
        raise RecordError("what is stored under a job's key is not a job") from None


def _record(values: dict[str, Any], extra: str | None) -> JobRecord:
    values["state"] = JobState(values.get("state", JobState.REGISTERED))
    for name in ("account", "method", "path"):
        # Very many records may be in memory, and few differ in these.
        if isinstance(values.get(name), str):
            values[name] = sys.intern(values[name])
    for name in ("secrets", "refused"):
        values[name] = tuple(values.get(name, ()))
    if "file" in values:
        values["file"] = FileOnDisk(*values["file"])
    return JobRecord(**values, extra=extra)
