"""How the world reaches a callback server."""

from .base import LocalServer, PublicURL, Tell

__all__ = ["LocalServer", "PublicURL", "Tell"]
