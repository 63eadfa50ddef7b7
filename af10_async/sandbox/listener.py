"""The socket that the sandbox listens at, and the server behind it."""

from __future__ import annotations

import logging
import ssl

from aiohttp import web

__all__ = ["Listener"]

logger = logging.getLogger("af10_async.sandbox")

_KEEP_ALIVE_SECONDS = 75.0
_SHUTDOWN_SECONDS = 1.0


class _AiohttpLog(logging.LoggerAdapter[logging.Logger]):
    """aiohttp logs the request when it is malformed, secrets and all: not here."""

    def log(self, level: int, msg: object, *args: object, **kwargs: object) -> None:
        logger.debug("aiohttp had something to say about a request")


class Listener:
    """A server for one application.

    Args:
        app: What answers.
        context: TLS, or None for plain http.

    """

    def __init__(self, app: web.Application, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_AiohttpLog(logger),
            handle_signals=False,
            keepalive_timeout=_KEEP_ALIVE_SECONDS,
            lingering_time=0.0,
            auto_decompress=False,
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )

    async def listen(self, host: str, port: int) -> str:
        """Start, and give the address without a path."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=self._context)
        await site.start()
        return _origin(host, int(self._runner.addresses[0][1]), self._context)

    async def close(self) -> None:
        """Listen no more, and end all connections."""
        await self._runner.cleanup()


def _origin(host: str, port: int, context: ssl.SSLContext | None) -> str:
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    host = f"[{host}]" if ":" in host else host
    return f"{'http' if context is None else 'https'}://{host}:{port}"
