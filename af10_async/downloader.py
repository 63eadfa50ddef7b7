"""Downloader: files from anywhere, without an AF10 account."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from .download import RemoteFile
from .download_source import MIN_SPEED, STALL_TIMEOUT, Fetcher, Limits
from .errors import ClosedError, ConfigurationError
from .protocol.retry import RetryPolicy
from .runtime import Runtime
from .transport import HTTPClient, Transport
from .waits import Waits

__all__ = ["Downloader"]

DOWNLOAD_TIMEOUT = 6 * 3600.0


class Downloader:
    """Fetches files, as AF10Client does, from any address and without AF10.

    ```python
    async with Downloader() as downloads:
        saved = await downloads.file("https://example.com/large.zip").save("files/")
    ```

    Args:
        ca_file: PEM file of a certificate authority to trust beside the system's.
        http_client: An `httpx.AsyncClient` or `httpx2.AsyncClient` of your own; left open.
        download_timeout: Seconds for a whole download (`math.inf`: no limit).
        stall_timeout: Seconds without a byte after which a connection counts as broken.
        min_speed: Bytes a second, on the average over `stall_timeout`, below which it does, too.
        allowed_hosts: The hosts (and what is below them) that files may come from; None: any.
        retries: How often, and after what pauses, it is tried again without any progress.
        runtime: Time, chance and sleep, for tests.

    Raises:
        ConfigurationError: a value is malformed.

    """

    def __init__(
        self,
        *,
        ca_file: str | os.PathLike[str] | None = None,
        http_client: HTTPClient | None = None,
        download_timeout: float = DOWNLOAD_TIMEOUT,
        stall_timeout: float = STALL_TIMEOUT,
        min_speed: float = MIN_SPEED,
        allowed_hosts: Sequence[str] | None = None,
        retries: RetryPolicy | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self._ca_file = Path(ca_file) if ca_file is not None else None
        self._http_client = http_client
        self._timeout = checked_seconds("download_timeout", download_timeout)
        self._limits = Limits(stall_timeout, min_speed).checked()
        self._allowed_hosts = host_names(allowed_hosts)
        self._retries = retries or RetryPolicy()
        self._runtime = runtime or Runtime()
        self._fetcher: Fetcher | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        if self._fetcher is not None:
            raise ClosedError("the downloader is entered already", sent=False)
        transport = Transport(self._http_client, ca_file=self._ca_file, runtime=self._runtime)
        self._stack.push_async_callback(transport.close)
        waits = Waits()
        self._stack.push_async_callback(waits.close)
        self._fetcher = Fetcher(
            transport, waits, self._retries, self._runtime, self._limits, self._allowed_hosts
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._fetcher = None
        await self._stack.aclose()

    def file(self, url: str, *, download_timeout: float | None = None) -> RemoteFile:
        """The file at an address that you trust; it may be one of a private network.

        Raises:
            ClosedError: the downloader is not entered.

        """
        if self._fetcher is None:
            raise ClosedError("the downloader is not entered: use `async with`", sent=False)
        seconds = checked_seconds("download_timeout", download_timeout, self._timeout)
        return RemoteFile(self._fetcher, url, is_trusted=True, download_timeout=seconds)


def checked_seconds(name: str, value: float | None, default: float = math.inf) -> float:
    """`value`, or the default when it is None.

    Raises `ConfigurationError` when it is no time that something can take.
    """
    if value is None:
        return default
    if not value > 0:  # also turns NaN away
        raise ConfigurationError(
            f"{name} must be a number of seconds greater than 0 (math.inf for no limit)"
        )
    return value


def host_names(given: Sequence[str] | None) -> tuple[str, ...] | None:
    """The names of allowed hosts in the form in which they are compared.

    Raises `ConfigurationError` for what is no name of a host.
    """
    if given is None:
        return None
    several = [given] if isinstance(given, str) else given
    names = [each.strip().strip(".").lower() for each in several]
    for name in names:
        if not re.fullmatch(r"[a-z0-9_.-]+|\[?[0-9a-f:.]+\]?", name):
            raise ConfigurationError(
                f"allowed_hosts must be names of hosts, without scheme, port or path, not {name!r}"
            )
    return tuple(name.strip("[]") for name in names)
