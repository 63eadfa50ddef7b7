"""HTTP/2 as an attacker speaks it: no rule of the protocol is kept on this side."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress

import h2.config
import h2.connection
import h2.events
import h2.exceptions

Headers = list[tuple[bytes, bytes]]


async def attack(port: int, trust: ssl.SSLContext, headers: Headers, body: bytes) -> int | None:
    """Send one request whatever it looks like; the status, or None when it was cut off."""
    trust.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=trust, server_hostname="127.0.0.1"
    )
    try:
        # What comes after a goodbye is an error to h2.
        async with asyncio.timeout(5):
            with suppress(h2.exceptions.ProtocolError):
                return await _exchange(reader, writer, headers, body)
        return None
    finally:
        writer.transport.abort()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: Headers, body: bytes
) -> int | None:
    connection = h2.connection.H2Connection(
        h2.config.H2Configuration(
            validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding=None
        )
    )
    connection.initiate_connection()
    connection.send_headers(1, headers)
    connection.send_data(1, body, end_stream=True)
    writer.write(connection.data_to_send())
    while data := await _read(reader):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                return int(dict(event.headers)[b":status"])
            if isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                return None
        writer.write(connection.data_to_send())
    return None


async def _read(reader: asyncio.StreamReader) -> bytes:
    with suppress(ConnectionError, ssl.SSLError):
        return await reader.read(65536)
    return b""
