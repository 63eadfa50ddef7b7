"""Taking secrets out of text that comes from elsewhere before anybody sees it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

REDACTED = "[redacted]"
_LEFT_ALONE = "!$'()*,/:;=?@"
"""Characters that may stand in the query of a URL as they are, or encoded."""
_URL = re.compile(r"https?(?::|%3a)[^\s\"<>]+", re.IGNORECASE)
_IDENTIFIER = re.compile(r"[0-9A-Fa-f]{8}-?(?:[0-9A-Fa-f]{4}-?){3}[0-9A-Fa-f]{12}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def redact(text: str, secrets: Iterable[str]) -> str:
    """`text` on one line, without the given secrets, without URLs and without UUIDs.

    AF10 and whatever stands in front of it may repeat a request in an error message or page:
    the secrets are looked for as they are and in their URL, JSON and HTML spellings, in either
    case (`%2f` is `%2F`).
    """
    spellings = {spelling for secret in secrets for spelling in _spellings(secret)}
    if spellings:
        longest_first = sorted(spellings, key=len, reverse=True)
        pattern = "|".join(re.escape(spelling) for spelling in longest_first)
        text = re.sub(pattern, REDACTED, text, flags=re.IGNORECASE)
    text = _IDENTIFIER.sub(REDACTED, _URL.sub("[url]", text))
    text = text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate cannot be printed
    return _CONTROL.sub(" ", text).strip()


def _spellings(secret: str) -> set[str]:
    if not secret:
        return set()
    in_json = json.dumps(secret)[1:-1]
    return {
        secret,
        quote(secret, safe="", errors="replace"),
        quote(secret, safe=_LEFT_ALONE, errors="replace"),
        quote_plus(secret, errors="replace"),
        in_json,
        in_json.replace("/", "\\/"),
        json.dumps(secret, ensure_ascii=False)[1:-1],
        html.escape(secret),
    }
