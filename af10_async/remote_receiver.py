"""What receivers have in common, and one that stands for a receiver in another process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from .callback_claims import Listener
from .receiving import ProbeArrival
from .runtime import Runtime
from .stores import Store

logger = logging.getLogger("af10_async.callback_server")

DEFAULT_PREFIX = "af10"
"""The path in front of the keys."""


class RemoteReceiver:
    """Stands for a receiver in another process over the same store.

    Args:
        public_url: The https address under which AF10 reaches it.
        callback_secret: What keys are signed with.
        prefix: The path in front of the keys.

    """

    is_running = True
    is_elsewhere = True
    keeps_elsewhere = True

    def __init__(
        self, public_url: str, callback_secret: bytes, prefix: str = DEFAULT_PREFIX
    ) -> None:
        self.public_url = public_url
        self.callback_secret = callback_secret
        self._prefix = prefix

    def webhook_url(self, key: str) -> str:
        """The address that AF10 calls for the job with this key."""
        return webhook_url(self.public_url, self._prefix, key)

    def claim(self, key: str, listener: Listener) -> None:
        """Nothing is heard here: the store tells of each change."""

    def unclaim(self, key: str, listener: Listener) -> None:
        """Nothing to take back."""

    @contextmanager
    def expecting(self, probe: str) -> Iterator[ProbeArrival]:
        """It will not arrive in this process."""
        yield ProbeArrival()


def webhook_url(public_url: str, prefix: str, key: str) -> str:
    """The address that AF10 calls for the job with this key."""
    return f"{public_url}/{prefix}/{key}" if prefix else f"{public_url}/{key}"


async def shared_secret(store: Store, given: str | None, runtime: Runtime) -> bytes:
    """What keys are signed with: as configured, or at random and kept with the jobs."""
    if given is None:
        return await store.callback_secret(runtime.random_bytes(32))
    secret = given.encode()
    if store.is_shared and await store.callback_secret(secret) != secret:
        logger.warning(
            "AF10_CALLBACK_SECRET is not what others over the same store sign keys with: callbacks"
            " for jobs of theirs are turned away here, and the reverse"
        )
    return secret
