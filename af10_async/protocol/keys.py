"""The key of a job: unguessable, URL-safe, and recognisable as ours without asking the store.

A key is 24 random characters followed by 24 characters of HMAC-SHA256 over them, made with the
callback secret of the receiver. Somebody who does not know that secret cannot make one, so a
made-up key is turned away before anything is looked up.

The key of a probe looks the same and is signed for another purpose: who looks whether callbacks
arrive uses one, and no job can have it.
"""

from __future__ import annotations

import base64
import functools
import hmac
import re

RANDOM_BYTES = 18
"""144 bits: 24 URL-safe characters with none wasted, hence only one spelling of each key."""
KEY_LENGTH = 48
KEY_PATTERN = re.compile(rf"[A-Za-z0-9_-]{{{KEY_LENGTH}}}", re.ASCII)
_JOB = b"af10_async job key v1:"
_PROBE = b"af10_async probe v1:"
_PROOF = b"af10_async probe answer v1:"


def make_key(random: bytes, callback_secret: bytes) -> str:
    """The key made of 18 random bytes, signed with `callback_secret`."""
    return _made(random, _JOB, callback_secret)


def is_genuine(key: str, callback_secret: bytes) -> bool:
    """Whether `key` was made with `callback_secret`; takes the same time for every wrong one."""
    return _is_signed(key, _JOB, callback_secret)


def make_probe(random: bytes, callback_secret: bytes) -> str:
    """The key of a probe, made of 18 random bytes."""
    return _made(random, _PROBE, callback_secret)


def is_probe(key: str, callback_secret: bytes) -> bool:
    """Whether `key` is that of a probe; takes the same time for every other one."""
    return _is_signed(key, _PROBE, callback_secret)


def probe_answer(key: str, id: str, callback_secret: bytes) -> str:
    """What only a receiver with this callback secret can answer to a probe."""
    return _signature(f"{key}:{id}".encode(), _PROOF, callback_secret).decode("ascii")


def _made(random: bytes, purpose: bytes, callback_secret: bytes) -> str:
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"a key is made of {RANDOM_BYTES} random bytes, not {len(random)}")
    name = base64.urlsafe_b64encode(random)
    return (name + _signature(name, purpose, callback_secret)).decode("ascii")


def _is_signed(key: str, purpose: bytes, callback_secret: bytes) -> bool:
    if not KEY_PATTERN.fullmatch(key):
        return False
    text = key.encode("ascii")
    return hmac.compare_digest(text[24:], _signature(text[:24], purpose, callback_secret))


def _signature(name: bytes, purpose: bytes, callback_secret: bytes) -> bytes:
    signer = _signer(purpose, callback_secret).copy()
    signer.update(name)
    return base64.urlsafe_b64encode(signer.digest()[:RANDOM_BYTES])


@functools.lru_cache(maxsize=64)
def _signer(purpose: bytes, callback_secret: bytes) -> hmac.HMAC:
    """To be copied: OpenSSL takes five times as long to begin from a secret."""
    return hmac.new(callback_secret, purpose, "sha256")
