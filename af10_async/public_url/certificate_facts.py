"""What stands in a certificate, learnt by a handshake in memory.

The standard library shows a certificate's content only to a client that trusts it. So there is one
which trusts exactly this certificate. A certificate with which no handshake succeeds is found out
in this way as well, before anybody depends on it.
"""

from __future__ import annotations

import ipaddress
import logging
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError

logger = logging.getLogger("af10_async.public_url")

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"
"""For TLS 1.2: forward secrecy always, authenticated encryption first."""
SECURITY_LEVEL = 2
"""OpenSSL's: 112 bits, so no RSA below 2048, no SHA-1, no MD5."""
_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME: an expired certificate still tells when it expired."""
_MOST_ROUNDS = 4
"""A handshake of TLS 1.2, and one of TLS 1.3 with a second hello, take three."""


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says of itself."""

    not_before: float | None
    """Unix seconds; None when unknown."""
    not_after: float | None
    """Unix seconds; None when unknown."""
    names: tuple[str, ...]
    """The host names, with wildcards, and the addresses that it is for."""

    def is_valid_at(self, now: float) -> bool:
        """Whether it has begun and not expired, as far as is known."""
        has_begun = self.not_before is None or self.not_before <= now
        return has_begun and (self.not_after is None or now < self.not_after)


UNKNOWN = CertificateFacts(None, None, ())


def read_facts(context: ssl.SSLContext, cert_file: str | Path) -> CertificateFacts:
    """What the certificate of `context`, loaded from `cert_file`, says of itself.

    Nothing is known, and a warning is logged, when even a client that trusts it refuses it, because
    it was made for another purpose, say.

    Raises:
        ConfigurationError: no client can connect to a server with this context.

    """
    try:
        return facts_for(trusting(cert_file), context)
    except ssl.SSLCertVerificationError as error:
        warn_of_doubt(cert_file, error.verify_message)
        return UNKNOWN


def covers(context: ssl.SSLContext, cert_file: str | Path, host: str) -> bool:
    """Whether the certificate of `context`, loaded from `cert_file`, is for this name or address.

    OpenSSL decides, by the subject's alternative names alone.
    """
    return covers_for(trusting(cert_file), context, host)


def harden(context: ssl.SSLContext) -> None:
    """TLS 1.2 and security level 2, or more where the system's configuration asks for more."""
    level = max(SECURITY_LEVEL, context.security_level)
    context.set_ciphers(f"{CIPHERS}:@SECLEVEL={level}")
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)


def unusable(why: str) -> ConfigurationError:
    """The error for files that no server can show."""
    return ConfigurationError(
        f"tls_cert and tls_key cannot be used: {why}; they must be PEM files that belong together,"
        " the key without a passphrase"
    )


def trusting(cert_file: str | Path) -> ssl.SSLContext:
    """A client that trusts nothing but the certificates of this file, whatever the date."""
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    harden(trust)
    trust.hostname_checks_common_name = False
    trust.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    try:
        trust.load_verify_locations(cert_file)
    except (OSError, ValueError):
        raise unusable(f"tls_cert ({cert_file}) holds no certificate that can be read") from None
    return trust


def warn_of_doubt(cert_file: str | Path, why: str) -> None:
    """Log that a certificate works, but hardly for anybody."""
    logger.warning("clients will refuse the certificate in %s: %s", cert_file, why)


def facts_for(trust: ssl.SSLContext, context: ssl.SSLContext) -> CertificateFacts:
    """What `read_facts` gives, by a client that is there already.

    Raises:
        ssl.SSLCertVerificationError: this client refuses the certificate, though it trusts it.
        ConfigurationError: no client can connect.

    """
    try:
        found = _handshake(trust, context)
    except ssl.SSLCertVerificationError:
        raise
    except ssl.SSLError as error:
        raise unusable(f"no client can connect with them ({error.reason or error})") from None
    return CertificateFacts(
        not_before=float(ssl.cert_time_to_seconds(found["notBefore"])),
        not_after=float(ssl.cert_time_to_seconds(found["notAfter"])),
        names=tuple(_plain(name) for _, name in found.get("subjectAltName", ())),
    )


def covers_for(trust: ssl.SSLContext, context: ssl.SSLContext, host: str) -> bool:
    """What `covers` gives, by a client that is there already."""
    try:
        _handshake(trust, context, host.strip("[]").removesuffix("."))
    except (ssl.SSLCertVerificationError, ValueError, TypeError):  # no host has such a name
        return False
    return True


def _plain(name: str) -> str:
    """An address as it is usually written; any other name as it is."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def _handshake(
    trust: ssl.SSLContext, context: ssl.SSLContext, host: str | None = None
) -> dict[str, Any]:
    """The certificate as a client that asks for `host`, or for nobody, gets to see it."""
    trust.check_hostname = host is not None
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust.wrap_bio(down, up, server_hostname=host)
    server = context.wrap_bio(up, down, server_side=True)
    for _ in range(_MOST_ROUNDS):
        with suppress(ssl.SSLWantReadError):
            client.do_handshake()
            return client.getpeercert() or {}
        with suppress(ssl.SSLWantReadError):
            server.do_handshake()
    raise ssl.SSLError("the handshake does not come to an end")
