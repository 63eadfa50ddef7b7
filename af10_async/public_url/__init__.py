"""How the world reaches a callback server.

`PublicURL` is the contract. `FixedURL` and `OwnAddress` are addresses that are known; `Ngrok`,
`NgrokAgent` and `Cloudflared` are tunnels. `CertificateFiles` is what a server with TLS shows.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from .base import LocalServer, PublicURL, Tell
from .fixed import FixedURL, OwnAddress

if _TYPE_CHECKING:
    from .certificates import CertificateFiles
    from .cloudflared import Cloudflared
    from .ngrok import Ngrok
    from .ngrok_agent import NgrokAgent

__all__ = [
    "CertificateFiles",
    "Cloudflared",
    "FixedURL",
    "LocalServer",
    "Ngrok",
    "NgrokAgent",
    "OwnAddress",
    "PublicURL",
    "Tell",
]

_WHERE = {
    "CertificateFiles": "certificates",
    "Cloudflared": "cloudflared",
    "Ngrok": "ngrok",
    "NgrokAgent": "ngrok_agent",
}

if not _TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # Most servers use none of them, and each brings imports of its own.
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(_import_module(f".{_WHERE[name]}", __name__), name)
