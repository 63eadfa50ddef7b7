"""Taking secrets out of text that comes from elsewhere before anybody sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

REDACTED = "[redacted]"
_URL = re.compile(r"\bhttps?:[^\s\"'<>]+", re.IGNORECASE)
_IDENTIFIER = re.compile(r"[0-9A-Fa-f]{8}-?(?:[0-9A-Fa-f]{4}-?){3}[0-9A-Fa-f]{12}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def redact(text: str, secrets: Iterable[str]) -> str:
    """`text` on one line, without the given secrets, without URLs and without UUIDs.

    AF10 and whatever stands in front of it may repeat a request in an error message or page:
    the secrets are looked for as they are and in their URL and JSON spellings.
    """
    for secret in sorted(secrets, key=len, reverse=True):
        for spelling in _spellings(secret):
            text = text.replace(spelling, REDACTED)
    text = _IDENTIFIER.sub(REDACTED, _URL.sub("[url]", text))
    return _CONTROL.sub(" ", text).strip()


def _spellings(secret: str) -> list[str]:
    if not secret:
        return []
    spellings = {secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]}
    return sorted(spellings, key=len, reverse=True)
