"""One check after the other, each with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from ..errors import AF10Error, ConfigurationError
from ..runtime import Runtime
from .account import Account
from .configuration import check_configuration, read_configuration
from .findings import DEADLINE, Finding, failed, failed_with
from .keeping import Keeping
from .target import check_target
from .way_in import WayIn

logger = logging.getLogger("af10_async.doctor")

_MARGIN = 0.9
"""How much of it what a check asks gets, so that it is the answer that says what took so long."""
_LATE = {
    "credentials": "check AF10_BASE_URL and the network; AF10 may be busy: try a longer --timeout",
    "clock": "check AF10_BASE_URL and the network",
    "public URL": "see whether the tunnel's program runs by itself; try a longer --timeout",
    "certificate": "open the port in the firewall, and lead it to this machine",
    "round trip": "open the port in the firewall, and lead it to this machine",
    "store": "see whether its server or its disk is overloaded",
    "target": "see whether that disk answers, if it is one of the network",
}
_Check: TypeAlias = Callable[[], Awaitable[Finding]]


async def examine(
    *,
    out: str | os.PathLike[str] | None = None,
    timeout: float = DEADLINE,
    runtime: Runtime | None = None,
) -> AsyncGenerator[Finding, None]:
    """Examine the configuration of this process's environment, and all that it leads to.

    The findings come in the order of `CHECKS`, each as soon as it is there. Whoever does not want
    all of them closes the generator (`contextlib.aclosing`).

    Args:
        out: The folder, or the URL, that files are to be saved to.
        timeout: Seconds for each check.
        runtime: Time and chance, for tests.

    Raises:
        ConfigurationError: the timeout is no time.

    """
    if not 0 < timeout < math.inf:
        raise ConfigurationError("timeout must be more than 0 seconds, and finite")
    runtime = runtime or Runtime()
    stack = AsyncExitStack()
    try:
        async with aclosing(_checks(stack, out, timeout, runtime)) as checks:
            async for name, check in checks:
                started = runtime.monotonic()
                finding = await _made(name, check, timeout)
                yield replace(finding, name=name, seconds=round(runtime.monotonic() - started, 3))
    finally:
        with contextlib.suppress(TimeoutError, AF10Error):
            async with asyncio.timeout(timeout):
                await stack.aclose()


async def _checks(
    stack: AsyncExitStack,
    out: str | os.PathLike[str] | None,
    timeout: float,
    runtime: Runtime,
) -> AsyncGenerator[tuple[str, _Check], None]:
    configuration, patience = read_configuration(), timeout * _MARGIN
    account = Account(configuration, stack, patience, runtime)
    keeping = Keeping(configuration, stack, patience, runtime)
    way_in = WayIn(configuration, keeping, stack, patience, runtime)
    yield "configuration", partial(check_configuration, configuration)
    yield "credentials", account.credentials
    yield "clock", account.clock
    await keeping.prepare()  # which has a deadline of its own, and tells of it when asked
    yield "listening port", way_in.port
    yield "public URL", way_in.address
    yield "certificate", way_in.certificate
    yield "round trip", way_in.round_trip
    yield "store", keeping.check
    yield "target", partial(check_target, out)


async def _made(name: str, check: _Check, timeout: float) -> Finding:
    try:
        async with asyncio.timeout(timeout):
            return await check()
    except TimeoutError:
        advice = _LATE.get(name, "try a longer --timeout")
        return failed(f"no result within {timeout:g} s", advice, problem="timeout")
    except AF10Error as error:
        return failed_with(error, "see what it is about")
    except Exception as error:
        # Its text may hold anything.
        logger.debug("the check of %s ended in %s", name, type(error).__name__)
        return failed(
            f"the check itself has failed ({type(error).__name__})",
            "please report this, with the version of af10_async",
        )
