"""Going on where a download stopped: what to ask for, and what each answer means (RFC 9110, 13-14).

A part of a file may be put beside another part only when both are of the same version. A strong
ETag tells versions apart; so does Last-Modified together with the length, unless the file was
changed in the very second in which it was sent. Without either nothing is resumed.

| answer to `Range` with `If-Range` | what it is here | what is done |
|---|---|---|
| 206, the start that was asked for, the same version and length | `Part` | go on |
| 206 of another start, version or length, of unknown length, in several parts, or nonsense | `Mismatch` | start over |
| 200 | `FileHead` | start over, with this answer; it is a new version, or the server has no ranges |
| 416 | `Beyond` | start over: the file is shorter than it was |
| 3xx, 401/403/404/410, 429/5xx | as for a whole file | |
"""  # noqa: E501 - a table

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .files import (
    Busy,
    FileHead,
    Moved,
    NotAFile,
    Stale,
    Version,
    is_encoded,
    media_type,
    read_file_head,
)

_CONTENT_RANGE = re.compile(r"bytes +([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.IGNORECASE)
_UNSATISFIED = re.compile(r"bytes +\*/([0-9]{1,18})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Some bytes of a known version of a file: those from `start` up to, not including, `stop`."""

    version: Version
    start: int
    stop: int | None
    """None: to its end."""


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from `start` up to, not including, `stop`, of the version that was asked for."""

    start: int
    stop: int
    total: int


@dataclass(frozen=True, slots=True)
class Beyond:
    """The file has no bytes there; it has `total` of them, if the server says so."""

    total: int | None


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An answer that cannot be put beside what is here."""

    reason: str


def range_headers(wanted: Wanted) -> dict[str, str]:
    """What asks for these bytes, or for the whole file when it has changed."""
    condition = wanted.version.etag or wanted.version.last_modified
    assert condition is not None  # only what can be resumed is asked for so
    stop = "" if wanted.stop is None else str(wanted.stop - 1)
    return {"range": f"bytes={wanted.start}-{stop}", "if-range": condition}


def read_range_answer(
    status: int, headers: Mapping[str, str], url: str, wanted: Wanted
) -> Part | Beyond | Mismatch | FileHead | Moved | Stale | Busy | NotAFile:
    """What the head of an answer to a request for `wanted` means.

    Header names are in lower case.
    """
    if status == 416:
        found = _UNSATISFIED.fullmatch(headers.get("content-range", "").strip())
        if _tag(headers) not in (None, wanted.version.etag):
            return Mismatch("the file has changed")
        return Beyond(int(found[1]) if found else None)
    if status != 206:
        return read_file_head(status, headers, url)
    return _read_part(headers, wanted)


def _read_part(headers: Mapping[str, str], wanted: Wanted) -> Part | Mismatch | NotAFile:
    if is_encoded(headers):
        return NotAFile("it is encoded, although that was not asked for")
    if media_type(headers).startswith("multipart/"):
        return Mismatch("it came in several parts")
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if found is None or found[3] == "*":
        return Mismatch("it does not say which part of the file it is")
    start, stop, total = int(found[1]), int(found[2]) + 1, int(found[3])
    if start != wanted.start or not start < stop <= min(total, wanted.stop or total):
        return Mismatch("it is not the part that was asked for")
    if not _is_same(headers, total, wanted.version):
        return Mismatch("the file has changed")
    if not _has_length(headers, stop - start):
        return Mismatch("its length is not that of the part that it claims to be")
    return Part(start, stop, total)


def _is_same(headers: Mapping[str, str], total: int, version: Version) -> bool:
    if version.length not in (None, total):
        return False
    if version.etag is not None:
        return _tag(headers) == version.etag
    return headers.get("last-modified", "").strip() == version.last_modified


def _has_length(headers: Mapping[str, str], length: int) -> bool:
    said = headers.get("content-length", "").strip()
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return True
    return said == str(length)


def _tag(headers: Mapping[str, str]) -> str | None:
    return headers.get("etag", "").strip() or None
