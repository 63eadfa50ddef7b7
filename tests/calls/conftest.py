"""Clients that only make quick calls, over the sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from af10_async import AF10Client

from ..conftest import ClientMaker
from .tools import FakeTime


@pytest.fixture
def make_caller(make_client: ClientMaker) -> ClientMaker:
    """Makes clients without a callback server."""
    return lambda **arguments: make_client(**({"tls_cert": None, "tls_key": None} | arguments))


@pytest.fixture
async def caller(make_caller: ClientMaker) -> AsyncIterator[AF10Client]:
    async with make_caller() as client:
        yield client


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()
