"""Whether the world can reach a receiver of callbacks: it asks its own public address.

A probe is a callback with a key that is signed for this purpose only. Any receiver with the same
callback secret answers it with a proof that nobody else can make; the receiver that asked also sees
whether, how and from where it arrived.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

from .errors import ClosedError, UnreachableError
from .errors import UnreachableProblem as Problem
from .protocol import keys
from .protocol.callbacks import Probe
from .protocol.ngrok import error_code
from .receiving import Probed
from .runtime import Runtime
from .transport import ssl_context

__all__ = ["Reached", "check_reachable", "handshake_problem", "reached"]

_NOT_VALID = (9, 10)
"""OpenSSL's words for a certificate that is not valid yet, or not any more."""
_WRONG_NAME = (62, 64)
"""... and for one that is for another name, or another address."""
_MOST_OF_AN_ANSWER = 4096
_FROM_HERE = (
    "(asked from here: a router that does not lead its own network to its public address makes this"
    " fail although AF10 may get through)"
)


@dataclass(frozen=True, slots=True)
class Reached:
    """A probe has arrived."""

    url: str
    """The public address."""
    is_here: bool
    """Whether it arrived at this very receiver, and not at another one over the same store."""
    sender: str | None
    """The address that it came from, as this receiver sees it."""
    seconds: float
    """From the question to the answer."""


async def check_reachable(
    receiver: Probed,
    *,
    timeout: float,
    ca_file: str | os.PathLike[str] | None = None,
    runtime: Runtime,
) -> Reached:
    """Ask the public address of `receiver` for a fresh nonce, and see whether it arrives.

    Raises:
        UnreachableError: it does not; `problem` says why.
        ClosedError: the receiver is not running.
        PublicURLError: a tunnel is down for now.

    """
    _ = receiver.public_url  # which may say more of why it does not run
    if not receiver.is_running:
        raise ClosedError("the callback server is not running: enter it with `async with`")
    return await reached(receiver, timeout=timeout, ca_file=ca_file, runtime=runtime)


async def reached(
    receiver: Probed,
    *,
    timeout: float = 10.0,
    ca_file: str | os.PathLike[str] | None = None,
    runtime: Runtime,
) -> Reached:
    """As `check_reachable`, for a receiver that may still be on its way to running."""
    url, context = receiver.public_url, ssl_context(ca_file)
    key = keys.make_probe(runtime.random_bytes(keys.RANDOM_BYTES), receiver.callback_secret)
    nonce = runtime.random_bytes(16).hex()
    target, started = f"{receiver.webhook_url(key)}?id={nonce}", runtime.monotonic()
    with receiver.expecting(key) as arrival:
        failure, answer = await _asked(url, target, context, timeout)
        seconds = runtime.monotonic() - started
    if arrival.probe is not None:  # whatever became of the answer
        _check_whole(arrival.probe, nonce, url, urlsplit(target).path)
        return Reached(url, True, arrival.sender, seconds)
    if failure is not None:
        raise failure
    if keys.probe_answer(key, nonce, receiver.callback_secret) != answer.text:
        raise _somebody_else(url, answer)
    if not receiver.keeps_elsewhere:
        raise UnreachableError(
            f"another callback server answers at {url}: it has the same callback secret, but it"
            " does not know the jobs of this one; give both the same store (AF10_STORE), or each an"
            " address of its own",
            problem=Problem.OTHER_RECEIVER,
            url=url,
        )
    return Reached(url, False, None, seconds)


def _check_whole(probe: Probe, nonce: str, url: str, path: str) -> None:
    if not probe.is_at_home:
        raise UnreachableError(
            f"the path is changed on the way from {url}: what was sent to {_cut(path, probe.key)}"
            f" arrived as {_cut(probe.path, probe.key)}; have the proxy in front pass the path on"
            " as it is, or take off nothing but the path of the public address",
            problem=Problem.LOST_PREFIX,
            url=url,
        )
    if probe.id != nonce:
        raise UnreachableError(
            f"the query is lost on the way from {url}: the id that AF10 adds would not arrive; have"
            " the proxy in front pass the query on as it is",
            problem=Problem.LOST_QUERY,
            url=url,
        )


def _cut(path: str, key: str) -> str:
    return path.replace(key, "...")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int = 0
    text: str = ""
    leads_to: str | None = None
    """Whereto it sends its callers on."""
    ngrok_code: str | None = None


def _somebody_else(url: str, answer: _Answer) -> UnreachableError:
    what = f"status {answer.status}"
    if answer.leads_to is not None:
        what += f", sending its callers on to {answer.leads_to}"
    if answer.ngrok_code is not None:
        what += f", {answer.ngrok_code} of ngrok"
    return UnreachableError(
        f"somebody else's server answers at {url} ({what}): have it lead to this callback server,"
        " with path and query; a tunnel or proxy answers by itself when it finds nothing behind it,"
        " and so does a callback server with another callback secret",
        problem=Problem.OTHER_SERVER,
        url=url,
        status=answer.status,
    )


# -- asking ----------------------------------------------------------------------------------------


async def _asked(
    url: str, target: str, context: ssl.SSLContext, timeout: float
) -> tuple[UnreachableError | None, _Answer]:
    try:
        async with asyncio.timeout(timeout):
            return None, await _answer_of(target, context)
    except TimeoutError:
        problem, what = Problem.TIMEOUT, f"does not answer within {timeout:g} s"
    except (aiohttp.InvalidURL, UnicodeError):  # of no name that DNS could know
        problem, what = Problem.NAME_NOT_FOUND, "has a name that cannot have an address"
    except (aiohttp.ClientError, OSError) as error:
        problem, what = _why(error)
    return _unreachable(url, problem, what), _Answer()


async def _answer_of(target: str, context: ssl.SSLContext) -> _Answer:
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    async with (
        aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        ) as session,
        session.get(
            target,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(),
            headers={"Accept-Encoding": "identity", "User-Agent": "af10_async"},
        ) as response,
    ):
        text = await _beginning(response.content)
        headers = response.headers
        return _Answer(
            response.status,
            text.decode("latin-1"),
            _host_of(headers.get("Location")),
            error_code(headers.get("Ngrok-Error-Code", "")),
        )


async def _beginning(content: aiohttp.StreamReader) -> bytes:
    """The body, or as much of it as tells whose it is; it may come in pieces."""
    found = b""
    while len(found) < _MOST_OF_AN_ANSWER:
        part = await content.read(_MOST_OF_AN_ANSWER - len(found))
        if not part:
            break
        found += part
    return found


def _host_of(location: str | None) -> str | None:
    """Without its path and query, which may repeat what was asked."""
    if location is None:
        return None
    try:
        return urlsplit(location).hostname or "another path"
    except ValueError:
        return "an address that is none"


def _why(error: aiohttp.ClientError | OSError) -> tuple[Problem, str]:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return Problem.NAME_NOT_FOUND, "has a name without an address"
        case aiohttp.ClientConnectorCertificateError():
            return handshake_problem(error.certificate_error)
        case aiohttp.ClientConnectorError():
            return _no_connection(error.os_error)
        case aiohttp.ClientOSError() | aiohttp.ServerDisconnectedError():
            return Problem.OTHER_SERVER, "hangs up without an answer"
        case aiohttp.ClientError():
            return Problem.OTHER_SERVER, "gives an answer that is not HTTP"
    return _no_connection(error)


def _no_connection(error: BaseException) -> tuple[Problem, str]:
    if isinstance(error, ssl.SSLError):
        return handshake_problem(error)
    if isinstance(error, ConnectionRefusedError):
        return Problem.CONNECTION_REFUSED, "refuses connections: nothing listens there"
    if isinstance(error, ConnectionResetError):
        return Problem.NOT_HTTPS, "hangs up during the TLS handshake"
    if isinstance(error, TimeoutError):
        return Problem.TIMEOUT, "does not answer"
    reason = getattr(error, "strerror", None) or type(error).__name__
    return Problem.CONNECTION_REFUSED, f"cannot be connected to ({reason})"


def handshake_problem(error: BaseException) -> tuple[Problem, str]:
    """Which problem a failed TLS handshake is, and what to say of the address."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        reason = getattr(error, "reason", None) or type(error).__name__
        if "ALERT" in reason or reason.startswith("TLSV1_"):  # it speaks TLS, but not to us
            return Problem.NOT_HTTPS, f"refuses the TLS handshake ({reason})"
        return Problem.NOT_HTTPS, f"does not speak https ({reason})"
    said = error.verify_message.rstrip(".")
    if error.verify_code in _NOT_VALID:
        return Problem.EXPIRED_CERTIFICATE, f"has a certificate that is not valid now ({said})"
    if error.verify_code in _WRONG_NAME:
        return Problem.WRONG_HOST, f"has a certificate for another name ({said})"
    return Problem.UNTRUSTED_CERTIFICATE, f"has a certificate that is not trusted ({said})"


_ADVICE = {
    Problem.NAME_NOT_FOUND: "check its spelling and its DNS record; a new record takes its time",
    Problem.CONNECTION_REFUSED: "start the proxy or the tunnel, or open the port",
    Problem.TIMEOUT: "open the port in the firewall, and lead it to this machine",
    Problem.NOT_HTTPS: "turn TLS on there (tls_cert and tls_key, or in the proxy), at this port"
    " and for this name",
    Problem.UNTRUSTED_CERTIFICATE: "have it signed by an authority that AF10 trusts, and serve the"
    " whole chain; ca_file (AF10_CA_FILE) is trusted by this check, not by AF10",
    Problem.WRONG_HOST: "get one for this name, or use the name that it is for",
    Problem.EXPIRED_CERTIFICATE: "renew it, and check the clock",
    Problem.OTHER_SERVER: "see whose server that is, and have it lead to this callback server",
}


def _unreachable(url: str, problem: Problem, what: str) -> UnreachableError:
    from_here = f" {_FROM_HERE}" if problem in _MAYBE_ONLY_HERE else ""
    return UnreachableError(
        f"{url} {what}: {_ADVICE[problem]}{from_here}", problem=problem, url=url, retryable=True
    )


_MAYBE_ONLY_HERE = (Problem.TIMEOUT, Problem.CONNECTION_REFUSED)
