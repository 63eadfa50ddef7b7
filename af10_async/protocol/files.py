"""What the answer to a file request promises: its length, its name, and whether it is the file."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, unquote_to_bytes, urlsplit

MAX_NAME_BYTES = 200
"""Longest file name, in bytes, with room left for the partial file's suffix (limit: 255)."""
MAX_REDIRECTS = 5
MAX_ERROR_BYTES = 64 * 1024
"""A body that is not smaller than this is taken for the file without another look."""
FALLBACK_NAME = "download"

_DEVICE_NAMES = re.compile(
    r"(con|prn|aux|nul|com[\d¹²³]|lpt[\d¹²³]|conin\$|conout\$) *(\..*)?", re.IGNORECASE
)
_UNSAFE = re.compile(
    r'[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff<>:"|?*]'
)
_STRONG_TAG = re.compile(r'"[\x21\x23-\x7e]*"')  # others are legal, but hard to send back
_SHA256 = re.compile(r"(?:^|[\s,])sha-256\s*=\s*:?([A-Za-z0-9+/]{43}=)", re.IGNORECASE)
_NAME = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_PARAMETER = re.compile(rf';\s*({_NAME})\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)')


@dataclass(frozen=True, slots=True)
class Version:
    """What tells one version of a file from another, as far as its server says it."""

    etag: str | None = None
    """A strong one, quotes included."""
    last_modified: str | None = None
    """When it can be relied on: it is older than the answer, and the length is known."""
    length: int | None = None

    @property
    def is_known(self) -> bool:
        """Whether a part of it can be told from a part of another version."""
        return self.etag is not None or (self.last_modified is not None and self.length is not None)


@dataclass(frozen=True, slots=True)
class FileHead:
    """A good answer to a file request."""

    length: int | None
    """Bytes to come; None when the server does not say."""
    ends_clearly: bool
    """Whether a cut can be told from the end: by a length, or by chunked encoding."""
    name: str
    """One safe path component."""
    may_be_error: bool = field(default=False, compare=False)
    """Whether it is small text, which may be AF10's error message instead of the file."""
    version: Version = field(default=Version(), compare=False)
    has_ranges: bool = field(default=False, compare=False)
    """Whether parts of it may be asked for."""
    sha256: str | None = field(default=None, compare=False)
    """Of the whole file, in hexadecimal, when the server says it (RFC 9530)."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A redirect to this address."""

    location: str


@dataclass(frozen=True, slots=True)
class Stale:
    """The address is not (or no longer) good: redeeming again may give a fresh one."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Not now; the same request may do later."""


@dataclass(frozen=True, slots=True)
class NotAFile:
    """Not the file, and no hope that it will be."""

    reason: str


def read_file_head(
    status: int, headers: Mapping[str, str], url: str
) -> FileHead | Moved | Stale | Busy | NotAFile:
    """What the head of an answer to a plain GET on the URL of a file means.

    Header names are in lower case.
    """
    if status in (301, 302, 303, 307, 308):
        location = headers.get("location")
        return Moved(location) if location else NotAFile("it redirects to nowhere")
    if status in (401, 403, 404, 410):
        return Stale()
    if status == 429 or status >= 500:
        return Busy()
    if status != 200:
        return NotAFile(f"HTTP {status} does not answer a plain GET")
    if is_encoded(headers):
        return NotAFile("it is encoded, although that was not asked for")
    kind = media_type(headers)
    if kind == "text/html":
        return NotAFile("it is a web page")
    length = headers.get("content-length")
    if length is not None and not (length.isascii() and length.isdigit() and len(length) < 19):
        return NotAFile("its Content-Length is nonsense")
    chunked = "chunked" in headers.get("transfer-encoding", "").lower()
    if chunked and length is not None:
        return NotAFile("it says in two ways where it ends")
    known = None if length is None or chunked else int(length)
    version = _version(headers, known)
    return FileHead(
        length=known,
        ends_clearly=chunked or length is not None,
        name=file_name(headers.get("content-disposition"), url),
        may_be_error=(known is None or known < MAX_ERROR_BYTES)
        and (kind in ("", "text/plain") or "json" in kind),
        version=version,
        has_ranges=version.is_known and headers.get("accept-ranges", "").strip().lower() != "none",
        sha256=_digest(headers),
    )


def is_encoded(headers: Mapping[str, str]) -> bool:
    """Whether the body would have to be decoded to become the file."""
    return headers.get("content-encoding", "identity").strip().lower() not in ("", "identity")


def media_type(headers: Mapping[str, str]) -> str:
    """The Content-Type without its parameters, in lower case; empty when there is none."""
    return headers.get("content-type", "").split(";")[0].strip().lower()


def _version(headers: Mapping[str, str], length: int | None) -> Version:
    tag = headers.get("etag", "").strip()
    changed = headers.get("last-modified", "").strip()
    return Version(
        etag=tag if _STRONG_TAG.fullmatch(tag) else None,
        last_modified=changed if _is_older(changed, headers.get("date", "")) else None,
        length=length,
    )


def _is_older(changed: str, sent: str) -> bool:
    """Whether a file of that date was no longer being changed when it was sent (RFC 9110, 8.8.2.2).

    Within one second there may be two versions of the same date.
    """
    try:
        age = parsedate_to_datetime(sent) - parsedate_to_datetime(changed)
    except (ValueError, TypeError, OverflowError, IndexError):
        return False
    return age.total_seconds() >= 1


def _digest(headers: Mapping[str, str]) -> str | None:
    for name in ("repr-digest", "digest"):  # RFC 9530, and RFC 3230 before it
        found = _SHA256.search(headers.get(name, ""))
        if found is not None:
            with contextlib.suppress(ValueError):
                value = base64.b64decode(found[1], validate=True)
                return value.hex() if len(value) == 32 else None
    return None


def read_file_error(body: bytes) -> Stale | Busy | NotAFile | None:
    """What the whole body means when it is AF10's error message, which can come with HTTP 200 (P).

    None when it is not one.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("errorCode") in (None, "", 0):
        return None
    code = str(value["errorCode"]).partition(".")[0]
    if code in ("401", "403", "404", "410"):
        return Stale()
    if "not authorized" in str(value.get("errorMessage")).lower():
        return Stale()
    if code == "429" or re.fullmatch("5[0-9]{2}", code):
        return Busy()
    return NotAFile("it is an error message of AF10")


def file_name(content_disposition: str | None, url: str) -> str:
    """A safe name for the file: from Content-Disposition (RFC 6266), else from the URL's path."""
    try:
        url_name = unquote(urlsplit(url).path.rsplit("/", 1)[-1])
    except ValueError:
        url_name = ""
    for candidate in (_disposition_name(content_disposition or ""), url_name):
        name = safe_name(candidate)
        if name:
            return name
    return FALLBACK_NAME


def safe_name(name: str) -> str:
    """`name` reduced to one path component that is harmless on any system; may be empty."""
    last = re.split(r"[/\\]", name)[-1]
    clean = _UNSAFE.sub("_", last.encode("utf-8", "replace").decode("utf-8"))
    short = _shortened(clean.lstrip(" .-~").rstrip(" ."))
    return _shortened(f"_{short}") if _DEVICE_NAMES.fullmatch(short) else short


def _shortened(name: str) -> str:
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    stem, dot, extension = name.rpartition(".")
    keep = dot + extension if stem and len(extension.encode()) <= 16 else ""
    room = MAX_NAME_BYTES - len(keep.encode())
    return (name.encode()[:room].decode("utf-8", "ignore") + keep).rstrip(" .")


def _disposition_name(header: str) -> str:
    found: list[tuple[str, str]] = _PARAMETER.findall(header)
    parameters = {name.lower(): value.strip() for name, value in found}
    extended = parameters.get("filename*", "")
    charset, _, encoded = extended.partition("'")
    if charset.lower() in ("utf-8", "iso-8859-1") and "'" in encoded:
        text = unquote_to_bytes(encoded.partition("'")[2].encode("utf-8", "replace"))
        return text.decode(charset, "replace")
    plain = parameters.get("filename", "")
    if plain.startswith('"'):
        plain = re.sub(r"\\(.)", r"\1", plain[1:].removesuffix('"'))
    return plain
