"""The certificate that a callback server shows, read again when it has been renewed.

A listening socket is given one context, once. Each handshake asks that context which certificate to
show (its `sni_callback`, which OpenSSL calls whether or not the client names a host), and is moved
over to the newest context. So a renewal needs no new socket, and connections that are there stay as
they are. Session tickets belong to the context of the socket: they outlive a renewal.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import ClosedError, ConfigurationError
from ..runtime import Runtime
from .certificate_facts import CertificateFacts, covers, covers_for, read_facts, warn_of_doubt
from .certificate_loading import Pair, load_pair, stamp_of, warn_of_open_key

__all__ = ["CertificateFacts", "CertificateFiles", "certificate_files", "covers", "read_facts"]

logger = logging.getLogger("af10_async.public_url")

POLL_SECONDS = 30.0
"""Seconds between two looks at the files."""
DAY = 24 * 3600.0
SHORTLY = 14 * DAY
"""Seconds before its end from which on a certificate is warned about."""


class CertificateFiles:
    """A certificate chain and its private key in PEM files, followed through their renewals.

    It is an async context manager: entered, it looks at the files again and again. What cannot be
    used when it is entered is an error. What cannot be used afterwards (half renewed, weak,
    unreadable) leaves the certificate before it in use and is tried again at each look; a warning
    is logged once when it is still so at the second.

    Args:
        cert: The certificate chain, the server's own certificate first.
        key: The private key, without a passphrase.
        runtime: Where time comes from.
        poll_seconds: Seconds between two looks at the files.

    Raises:
        ConfigurationError: on entry, when the files cannot be used. Says why, and what to do.

    """

    def __init__(
        self,
        cert: str | Path,
        key: str | Path,
        *,
        runtime: Runtime | None = None,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        if not poll_seconds > 0:
            raise ConfigurationError("poll_seconds must be more than 0")
        self._cert = Path(cert)
        self._key = Path(key)
        self._runtime = runtime or Runtime()
        self._poll_seconds = poll_seconds
        self._task: asyncio.Task[None] | None = None
        self._context: ssl.SSLContext
        self._pair: Pair
        self._expiry = _Expiry(self._cert)
        self._trouble = _Trouble()

    def check(self) -> None:
        """Read the files now, and keep nothing of them.

        Raises:
            ConfigurationError: they cannot be used.

        """
        load_pair(self._cert, self._key)

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise ClosedError("the certificate files are in use already: enter them only once")
        self._expiry = _Expiry(self._cert)
        self._trouble = _Trouble()
        self._take(load_pair(self._cert, self._key))
        self._context = self._pair.context
        self._context.sni_callback = self._choose
        self._task = asyncio.create_task(self._watch(), name="af10_async certificate files")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    @property
    def context(self) -> ssl.SSLContext:
        """For listening sockets: it always shows the newest certificate that can be used."""
        self._check_entered()
        return self._context

    @property
    def facts(self) -> CertificateFacts:
        """What the certificate in use says of itself."""
        self._check_entered()
        return self._pair.facts

    def covers(self, host: str) -> bool:
        """Whether the certificate in use is for `host`: a name, or an address."""
        self._check_entered()
        return covers_for(self._pair.trust, self._pair.context, host)

    async def reload(self) -> bool:
        """Look at the files now; True when a renewed certificate was taken."""
        self._check_entered()
        return self._look()

    def _check_entered(self) -> None:
        if self._task is None:
            raise ClosedError("the certificate files are not in use: enter them with `async with`")

    def _choose(self, handshake: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        # Also after leaving: a socket may be open for a while yet.
        handshake.context = self._pair.context

    async def _watch(self) -> None:
        while True:
            await self._runtime.sleep(self._poll_seconds)
            try:
                self._look()
            except Exception as error:  # the next look may go better, and must come
                logger.error("cannot look at the certificate files: %s", type(error).__name__)

    def _look(self) -> bool:
        # On the loop: a look is two calls of stat, a renewal about 3 ms.
        renewed = self._renewed()
        if renewed is None:
            self._expiry.tell(self._pair.facts, self._runtime.now())
            return False
        self._take(renewed)
        logger.info("the certificate in %s was renewed, and is in use", self._cert)
        return True

    def _renewed(self) -> Pair | None:
        try:
            if stamp_of(self._cert, self._key) == self._pair.stamp:
                self._trouble.end()
                return None
            pair = load_pair(self._cert, self._key)
            _check_not_worse(self._pair, pair, self._runtime.now())
        except ConfigurationError as error:
            self._trouble.tell(f"{error}; the certificate before it stays in use")
            return None
        self._trouble.end()
        return pair

    def _take(self, pair: Pair) -> None:
        self._pair = pair
        warn_of_open_key(self._key)
        if pair.doubt:
            warn_of_doubt(self._cert, pair.doubt)
        self._expiry.tell(pair.facts, self._runtime.now())


def certificate_files(
    cert: str | Path | None, key: str | Path | None, *, runtime: Runtime | None = None
) -> CertificateFiles | None:
    """What `tls_cert` and `tls_key` ask for, checked; None without both.

    Raises:
        ConfigurationError: only one is given, or they cannot be used.

    """
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise ConfigurationError("TLS needs both: tls_cert and tls_key")
    files = CertificateFiles(cert, key, runtime=runtime)
    files.check()
    return files


def _check_not_worse(old: Pair, new: Pair, now: float) -> None:
    if old.facts.is_valid_at(now) and not new.facts.is_valid_at(now):
        raise ConfigurationError("what tls_cert holds now has expired already, or is not valid yet")
    if new.doubt and not old.doubt:
        raise ConfigurationError(f"clients would refuse what tls_cert holds now: {new.doubt}")


class _Expiry:
    """Tells when a certificate is about to expire or has expired, at most once a day."""

    def __init__(self, cert: Path) -> None:
        self._cert = cert
        self._told: tuple[int, float | None] | None = None
        self._told_at = 0.0

    def tell(self, facts: CertificateFacts, now: float) -> None:
        level, text = _verdict(facts, now)
        verdict = (level, facts.not_after)
        if verdict == self._told and 0 <= now - self._told_at < DAY:
            return
        self._told, self._told_at = verdict, now
        if text:
            logger.log(level, "the certificate in %s %s", self._cert, text)


def _verdict(facts: CertificateFacts, now: float) -> tuple[int, str]:
    begin, end = facts.not_before, facts.not_after
    if begin is None or end is None:
        return logging.DEBUG, ""
    if now >= end:
        return logging.ERROR, f"expired on {_shown(end)}: AF10 cannot call back until it is renewed"
    if now < begin:
        return logging.ERROR, f"is not valid before {_shown(begin)}: renew it, or set the clock"
    # Those that live for days only are renewed with a third of their life left.
    if end - now < min(SHORTLY, (end - begin) / 3):
        return logging.WARNING, f"expires on {_shown(end)}: renew it, it is picked up by itself"
    return logging.DEBUG, ""


def _shown(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


class _Trouble:
    """Tells of each thing that is wrong with renewed files once, from the second look on."""

    def __init__(self) -> None:
        self._looks = 0
        self._told: set[str] = set()

    def tell(self, text: str) -> None:
        self._looks += 1
        if self._looks > 1 and text not in self._told:
            self._told.add(text)
            logger.warning("%s", text)

    def end(self) -> None:
        self._looks = 0
        self._told.clear()
