"""The key of a job: unguessable, URL-safe, and recognisable as ours without asking the store.

A key is 24 random characters followed by 24 characters of HMAC-SHA256 over them, made with the
callback secret of the receiver. Somebody who does not know that secret cannot make one, so a
made-up key is turned away before anything is looked up.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

RANDOM_BYTES = 18
"""144 bits: 24 URL-safe characters with none wasted, hence only one spelling of each key."""
KEY_LENGTH = 48
KEY_PATTERN = re.compile(rf"[A-Za-z0-9_-]{{{KEY_LENGTH}}}", re.ASCII)


def make_key(random: bytes, callback_secret: bytes) -> str:
    """The key made of 18 random bytes, signed with `callback_secret`."""
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"a key is made of {RANDOM_BYTES} random bytes, not {len(random)}")
    name = base64.urlsafe_b64encode(random)
    return (name + _signature(name, callback_secret)).decode("ascii")


def is_genuine(key: str, callback_secret: bytes) -> bool:
    """Whether `key` was made with `callback_secret`; takes the same time for every wrong one."""
    if not KEY_PATTERN.fullmatch(key):
        return False
    name, signature = key[:24].encode("ascii"), key[24:].encode("ascii")
    return hmac.compare_digest(signature, _signature(name, callback_secret))


def _signature(name: bytes, callback_secret: bytes) -> bytes:
    digest = hmac.digest(callback_secret, b"af10_async job key v1:" + name, hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:RANDOM_BYTES])
