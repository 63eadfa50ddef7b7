"""What a caller of the public address is shown, and whether it is to be trusted."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import UnreachableProblem as Problem
from ..reachability import handshake_problem
from ..transport import ssl_context
from .findings import Finding, failed, passed, skipped

DAY = 86400.0
SHORTLY = 14
"""Days before its end from which on a certificate is warned about."""
_ADVICE = {
    Problem.NOT_HTTPS: "turn TLS on there (AF10_TLS_CERT and AF10_TLS_KEY), or in the proxy",
    Problem.UNTRUSTED_CERTIFICATE: "have it signed by an authority that AF10 trusts, and serve the"
    " whole chain; if it is of an authority of your own, name that with AF10_CA_FILE",
    Problem.WRONG_HOST: "get one for this name, or use the name that it is for",
    Problem.EXPIRED_CERTIFICATE: "renew it, and check the clock",
}

_UNREACHED = "check the name, start the proxy or the tunnel, and open the port"


@dataclass(frozen=True, slots=True)
class _Shown:
    """What was shown in a handshake that succeeded."""

    not_before: float
    not_after: float
    issuer: str
    version: str | None
    """Of TLS."""


async def check_certificate(
    url: str, *, ca_file: Path | None, is_near: bool, timeout: float, now: Callable[[], float]
) -> Finding:
    """Shake hands with the public address as a caller would.

    Args:
        url: The public address.
        ca_file: Certificates to trust beside the usual ones.
        is_near: Whether AF10 is a stand-in, which may trust them as well.
        timeout: Seconds for each handshake.
        now: The time, in Unix seconds.

    """
    host = urlsplit(url).hostname or ""
    is_own = False
    try:
        try:
            shown = await _shown_at(url, ssl_context(None), timeout)
        except ssl.SSLCertVerificationError as error:
            if ca_file is None or handshake_problem(error)[0] is not Problem.UNTRUSTED_CERTIFICATE:
                raise
            shown, is_own = await _shown_at(url, ssl_context(ca_file), timeout), True
    except ssl.SSLError as error:
        problem, what = handshake_problem(error)
        return failed(f"{url} {what}", _ADVICE[problem], problem=str(problem))
    except ConnectionResetError:
        what = "hangs up during the TLS handshake"
        return failed(f"{url} {what}", _ADVICE[Problem.NOT_HTTPS], problem=str(Problem.NOT_HTTPS))
    except OSError as error:  # TimeoutError among them
        reason = error.strerror or "no answer in time"
        return skipped(f"no connection can be made to {url} ({reason})", _UNREACHED)
    except UnicodeError:  # of no name that DNS could know
        return skipped(f"{url} has a name that cannot have an address", _UNREACHED)
    return _judged(host, shown, (shown.not_after - now()) / DAY, is_own and not is_near)


async def _shown_at(url: str, context: ssl.SSLContext, timeout: float) -> _Shown:
    parts = urlsplit(url)
    async with asyncio.timeout(timeout):
        _, writer = await asyncio.open_connection(
            parts.hostname, parts.port or 443, ssl=context, server_hostname=parts.hostname
        )
    try:
        peer: Mapping[str, Any] = writer.get_extra_info("peercert")
        version = writer.get_extra_info("ssl_object").version()
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    begin, end = (ssl.cert_time_to_seconds(peer[name]) for name in ("notBefore", "notAfter"))
    return _Shown(begin, end, _issuer(peer), version)


def _issuer(peer: Mapping[str, Any]) -> str:
    names = {name: value for part in peer.get("issuer", ()) for name, value in part}
    return str(names.get("organizationName") or names.get("commonName") or "unknown")


def _judged(host: str, shown: _Shown, days: float, is_own: bool) -> Finding:
    until = f"{datetime.fromtimestamp(shown.not_after, UTC):%Y-%m-%d}"
    # Those that live for days only are renewed with a third of their life left.
    limit = min(SHORTLY, (shown.not_after - shown.not_before) / DAY / 3)
    remarks = ["renew it soon"] if days < limit else []
    if is_own:
        remarks.append("AF10 must trust it, too: here only AF10_CA_FILE does")
    return passed(
        f"trusted, for {host}, {days:.0f} days left ({until})",
        "\n".join(remarks),
        days_left=round(days, 1),
        valid_until=until,
        issuer=shown.issuer,
        tls=shown.version,
    )
