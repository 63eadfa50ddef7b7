"""Sockets that listen, on every address that a host has."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Sequence

_QUEUE = 4096
"""Connections that the system keeps for us until they are accepted; it may allow fewer."""
_ATTEMPTS = 10
"""How often a port is chosen that all addresses must have free."""
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""A machine without IPv6, whose localhost has such an address."""

Address = tuple[int, tuple[object, ...]]
"""Family, and what the socket is bound to."""


async def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """One for each address of the host, all with the same port; an empty host is all addresses.

    Raises:
        OSError: on the first that cannot be bound; then none is left open. Addresses that this
            machine lacks do not count, as long as there is another.

    """
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    for _ in range(_ATTEMPTS - 1 if port == 0 else 0):
        try:
            return _all_bound(addresses)
        except OSError as error:
            # A port that is free on the first address may be taken on the second.
            if error.errno != errno.EADDRINUSE:
                raise
    return _all_bound(addresses)


def _all_bound(addresses: Sequence[Address]) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    missing = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    try:
        for family, address in addresses:
            try:
                sockets.append(bound(family, _with_port(address, sockets)))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
    except BaseException:
        for each in sockets:
            each.close()
        raise
    if not sockets:
        raise missing
    return sockets


def _with_port(address: Sequence[object], sockets: Sequence[socket.socket]) -> tuple[object, ...]:
    port = sockets[0].getsockname()[1] if sockets else address[1]
    return (address[0], port, *address[2:])


def bound(family: int, address: Sequence[object]) -> socket.socket:
    """A socket that listens there; raises `OSError`, whose text is the system's alone."""
    try:
        made = socket.create_server(tuple(address), family=family, backlog=_QUEUE)
    except OSError as error:
        code = error.errno or errno.EADDRNOTAVAIL
        raise OSError(code, os.strerror(code)) from None
    made.setblocking(False)
    return made


async def readable(listening: socket.socket) -> None:
    """Wait until it has a connection to accept, or is broken.

    Unlike `loop.sock_accept`, it never holds a connection that a cancellation would lose.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(listening, _is_ready, ready)
    try:
        await ready
    finally:
        loop.remove_reader(listening)


def _is_ready(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
