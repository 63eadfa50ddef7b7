"""What a TLS client says first."""

from __future__ import annotations

import ssl
from contextlib import suppress


def client_hello(name: str = "127.0.0.1") -> bytes:
    """A whole ClientHello, for a server of that name."""
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()
