"""From what is configured to the way that the world takes to a callback server."""

from __future__ import annotations

from ipaddress import ip_address

from ..errors import ConfigurationError
from ..protocol.public_url import EXPECTED, Tunnel, read_public_url
from ..runtime import Runtime
from .base import PublicURL
from .fixed import FixedURL, OwnAddress


def chosen(
    public_url: str | PublicURL | None, *, has_tls: bool, host: str, runtime: Runtime
) -> PublicURL:
    """The way that is meant.

    Raises:
        ConfigurationError: nothing that can be one, or nothing that AF10 could reach.

    """
    if public_url is None:
        return _own_address(has_tls, host)
    if not isinstance(public_url, str):
        return public_url
    try:
        found = read_public_url(public_url)
    except ValueError:
        raise ConfigurationError(f"public_url must be {EXPECTED}") from None
    return FixedURL(found) if isinstance(found, str) else _tunnel(found, runtime)


def _own_address(has_tls: bool, host: str) -> PublicURL:
    if not has_tls:
        raise ConfigurationError(
            "public_url is not set: AF10 calls back over https, so give the public address"
            " (public_url, AF10_PUBLIC_URL), or a tunnel (ngrok, ngrok-agent, cloudflared), or a"
            " certificate (tls_cert and tls_key)"
        )
    if _means_all(host):
        raise ConfigurationError(
            "public_url is not set, and the server listens on all addresses: give the one that"
            " AF10 can reach (public_url, AF10_PUBLIC_URL)"
        )
    return OwnAddress()


def _means_all(host: str) -> bool:
    try:
        return not host or ip_address(host).is_unspecified
    except ValueError:
        return False  # a name


def _tunnel(tunnel: Tunnel, runtime: Runtime) -> PublicURL:
    # Each is imported by who uses it: they start programs and speak to services.
    if tunnel.kind == "ngrok":
        from .ngrok import Ngrok

        return Ngrok(domain=tunnel.host, runtime=runtime)
    if tunnel.kind == "ngrok-agent":
        from .ngrok_agent import NgrokAgent

        return NgrokAgent(runtime=runtime)
    from .cloudflared import Cloudflared

    return Cloudflared(hostname=tunnel.host, tunnel=tunnel.tunnel, runtime=runtime)
