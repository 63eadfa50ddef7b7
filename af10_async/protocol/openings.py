"""Whether a peer has said enough to be served: the first bytes of a connection.

Each function says how many bytes there must be before it is worth looking again; when that is no
more than there are, it is enough. Enough is also whatever cannot become right any more: who serves
it says so to the peer.
"""

from __future__ import annotations

import re

from .callbacks import MAX_TARGET_LENGTH

_END_OF_HEAD = re.compile(rb"\n\r?\n")
_LONGEST_WAIT = MAX_TARGET_LENGTH
"""Bytes of a head that are waited for; heads of honest callers are shorter."""
_RECORD = 5
"""Bytes before the content of a TLS record (RFC 8446, section 5.1)."""
_HANDSHAKE = 0x16
_LONGEST_RECORD = 2**14 + 256
MOST = _RECORD + _LONGEST_RECORD
"""Bytes that need ever be looked at."""


def head_needs(data: bytes) -> int:
    """Bytes for the head of an HTTP/1 request (RFC 9112, section 2.1), at least."""
    if not data[:1].isupper() or len(data) > _LONGEST_WAIT or _END_OF_HEAD.search(data):
        return 0
    return len(data) + 1


def hello_needs(data: bytes) -> int:
    """Bytes for the first record of a TLS handshake."""
    if data[0] != _HANDSHAKE:
        return 0
    if len(data) < _RECORD:
        return _RECORD
    length = int.from_bytes(data[3:_RECORD])
    return _RECORD + length if length <= _LONGEST_RECORD else 0
