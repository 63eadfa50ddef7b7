"""Loads a certificate chain and its private key, and refuses what is weak or does not fit."""

from __future__ import annotations

import logging
import os
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ..errors import ConfigurationError
from .certificate_facts import UNKNOWN, CertificateFacts, facts_for, harden, trusting, unusable

logger = logging.getLogger("af10_async.public_url")

_WEAK = {
    "EE_KEY_TOO_SMALL": "the certificate's key is too short",
    "CA_KEY_TOO_SMALL": "the key of a certificate further up the chain is too short",
    "CA_MD_TOO_WEAK": "a certificate of the chain is signed with SHA-1 or MD5",
}
_NOT_A_PAIR = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}

Stamp: TypeAlias = tuple[tuple[int, int, int, int], ...]
"""What differs after either file, or a link that leads to it, was changed."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A chain and its key, as they were loaded."""

    context: ssl.SSLContext
    trust: ssl.SSLContext
    """A client's, which trusts nothing but this chain."""
    facts: CertificateFacts
    doubt: str
    """Why clients will refuse the certificate, whoever signed it; empty when they will not."""
    stamp: Stamp


def load_pair(cert: Path, key: Path) -> Pair:
    """Read both files into a context of their own, and see that a client can connect to it.

    Raises:
        ConfigurationError: they cannot be used, or are too weak.

    """
    stamp = stamp_of(cert, key)  # before all else, so that a change meanwhile is seen next time
    _check_readable("tls_cert", cert)
    _check_readable("tls_key", key)
    trust = trusting(cert)
    context = _server_context(cert, key)
    facts, doubt = _facts_or_doubt(trust, context)
    return Pair(context, trust, facts, doubt, stamp)


def stamp_of(cert: Path, key: Path) -> Stamp:
    """Whether the files are those that were loaded is told by this alone.

    Raises:
        ConfigurationError: one of them is not there, or is no file.

    """
    return _stamp("tls_cert", cert), _stamp("tls_key", key)


def warn_of_open_key(key: Path) -> None:
    """Log it when somebody beside its owner may read the private key."""
    try:
        mode = key.stat().st_mode
    except OSError:
        return
    if os.name == "posix" and mode & 0o077:
        logger.warning("others may read the private key in %s: chmod 600 %s", key, key)


def _stamp(setting: str, path: Path) -> tuple[int, int, int, int]:
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(setting, path, error) from None
    if not stat.S_ISREG(found.st_mode):
        raise unusable(f"{setting} ({path}) is not a file")
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


def _check_readable(setting: str, path: Path) -> None:
    """OpenSSL would not say which of the two it cannot read."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise _unreadable(setting, path, error) from None


def _unreadable(setting: str, path: Path, error: OSError | ValueError) -> ConfigurationError:
    return unusable(f"{setting} ({path}): {getattr(error, 'strerror', None) or error}")


def _server_context(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    harden(context)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise _refusal(error) from None
    return context


def _facts_or_doubt(trust: ssl.SSLContext, context: ssl.SSLContext) -> tuple[CertificateFacts, str]:
    try:
        return facts_for(trust, context), ""
    except ssl.SSLCertVerificationError as error:
        return UNKNOWN, error.verify_message


def _no_password() -> str:
    """Without this, OpenSSL would ask for the passphrase of an encrypted key at the terminal."""
    raise ValueError("the key in tls_key has a passphrase")


def _refusal(error: OSError | ValueError) -> ConfigurationError:
    reason = getattr(error, "reason", None)
    if reason in _WEAK:
        return ConfigurationError(
            f"tls_cert and tls_key are too weak: {_WEAK[reason]}; what is asked for is RSA of at"
            " least 2048 bits or ECDSA P-256, signed with SHA-256 or better"
        )
    if reason in _NOT_A_PAIR:
        return unusable("the key does not belong to the certificate")
    if isinstance(error, ssl.SSLError) and reason is None:
        return unusable("tls_key holds no private key that can be read")
    return unusable(reason or getattr(error, "strerror", None) or str(error))
