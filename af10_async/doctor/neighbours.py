"""Callback servers in other processes, which may be those of the service that is examined."""

from __future__ import annotations

import os

from ..errors import UnreachableError, UnreachableProblem
from ..protocol.public_url import Tunnel
from ..reachability import Reached, check_reachable
from ..receiving import Probed
from ..remote_receiver import RemoteReceiver
from ..runtime import Runtime
from ..settings import ConnectionSettings
from .keeping import Keeping

_NO_TUNNEL = 530
"""What Cloudflare answers at the name of a tunnel that nobody has open."""


class Neighbours:
    """Asks at addresses whether a callback server of ours answers there.

    Args:
        keeping: The store, from which it is known what ours sign with.
        ca_file: Certificates to trust beside the usual ones.
        timeout: Seconds for each question.
        runtime: Time and chance.

    """

    def __init__(
        self,
        keeping: Keeping,
        ca_file: str | os.PathLike[str] | None,
        timeout: float,
        runtime: Runtime,
    ) -> None:
        self._keeping = keeping
        self._ca_file = ca_file
        self._timeout = timeout
        self._runtime = runtime

    async def at(self, url: str) -> RemoteReceiver:
        """One of ours at that address, whether it is there or not."""
        return RemoteReceiver(url, await self._keeping.callback_secret())

    async def found_at(self, url: str) -> Reached:
        """Find one of ours there, in so short a time that a check may ask twice.

        Raises:
            UnreachableError: none answers.

        """
        return await self.asked(await self.at(url), self._timeout / 3)

    async def asked(self, receiver: Probed, timeout: float | None = None) -> Reached:
        """Ask the public address of a receiver, here or elsewhere. Raises `UnreachableError`."""
        return await check_reachable(
            receiver,
            timeout=timeout or self._timeout,
            ca_file=self._ca_file,
            runtime=self._runtime,
        )


def known_address(settings: ConnectionSettings) -> str | None:
    """The public address, where it is known before anything is opened."""
    tunnel = settings.tunnel
    if tunnel is None or tunnel.host is None:
        return settings.fixed_url
    return f"https://{tunnel.host.lower()}"


def is_taken(tunnel: Tunnel, error: UnreachableError) -> bool:
    """Whether a tunnel at whose name none of ours was found may be open all the same.

    Opened once more, one of cloudflared would get half of the callbacks; ngrok refuses that.
    """
    answers = error.problem is UnreachableProblem.OTHER_SERVER
    return tunnel.kind == "cloudflared" and answers and error.status != _NO_TUNNEL
