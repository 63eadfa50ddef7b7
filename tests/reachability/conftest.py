"""What each test here may use; and that nothing of what is secret is ever told."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trustme

from af10_async.callback_server import CallbackServer
from af10_async.errors import UnreachableError

from .tools import SECRET, Authority, Dice, is_of_help


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    found = Authority(trustme.CA(), tmp_path_factory.mktemp("authority") / "ca.pem")
    found.ca.cert_pem.write_to_path(str(found.file))
    return found


@pytest.fixture
def dice() -> Dice:
    return Dice()


@pytest.fixture(autouse=True)
async def nothing_told(dice: Dice, caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """No log, not even asyncio's for debugging, holds a nonce, a key or the callback secret."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "asyncio")
    asyncio.get_running_loop().set_debug(True)
    yield
    asyncio.get_running_loop().set_debug(False)
    assert not dice.seen_in(caplog.text)


Refused = Callable[..., Awaitable[UnreachableError]]


@pytest.fixture
def refused(authority: Authority, dice: Dice) -> Refused:
    """Asks a public address, and gives the error; the server receives afterwards as before."""

    async def ask(url: str, *, is_trusted: bool = True, timeout: float = 10) -> UnreachableError:
        given: dict[str, Any] = {"public_url": url, "callback_secret": SECRET}
        async with CallbackServer(**given, runtime=dice.runtime) as server:
            error = await error_of(server, is_trusted, timeout)
            again = await error_of(server, is_trusted, timeout)
        assert again.problem is error.problem
        is_of_help(error, url)
        assert not dice.seen_in("".join(traceback.format_exception(error)) + repr(error))
        return error

    async def error_of(
        server: CallbackServer, is_trusted: bool, timeout: float
    ) -> UnreachableError:
        ca_file = authority.file if is_trusted else None
        with pytest.raises(UnreachableError) as caught:
            await server.check_reachable(timeout=timeout, ca_file=ca_file)
        return caught.value

    return ask
