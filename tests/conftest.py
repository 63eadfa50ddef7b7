"""What every test may use, and what every test must leave as it was."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import HealthCheck, settings

from af10_async import AF10Client, RetryPolicy
from af10_async.sandbox import Sandbox

logging.getLogger("asyncio").setLevel(logging.INFO)

# No test measures time. In a fresh clone hypothesis begins with making its tables of characters.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@dataclass(frozen=True)
class Tls:
    """A certificate for 127.0.0.1, and the authority that made it, as PEM files."""

    cert: Path
    key: Path
    ca: Path


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    folder = tmp_path_factory.mktemp("tls")
    found = Tls(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(found.ca))
    certificate = ca.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_pem.write_to_path(str(found.key))
    found.key.chmod(0o600)
    for number, pem in enumerate(certificate.cert_chain_pems):
        pem.write_to_path(str(found.cert), append=number > 0)
    return found


@pytest.fixture
def quick() -> RetryPolicy:
    """The usual number of attempts, with hardly a pause."""
    return RetryPolicy(first_pause=0.001, longest_pause=0.005)


@pytest.fixture
async def sandbox(tls: Tls) -> AsyncIterator[Sandbox]:
    async with Sandbox(callback_ca=tls.ca) as running:
        yield running


ClientMaker = Callable[..., AF10Client]


@pytest.fixture
def make_client(sandbox: Sandbox, tls: Tls, quick: RetryPolicy) -> ClientMaker:
    """Makes a client of the sandbox, with a callback server of its own; still to be entered."""

    def make(**arguments: Any) -> AF10Client:
        usual: dict[str, Any] = {
            "base_url": sandbox.base_url,
            "api_key": sandbox.api_key,
            "username": sandbox.username,
            "password": sandbox.password,
            "tls_cert": tls.cert,
            "tls_key": tls.key,
            "retries": quick,
            "callback_timeout": 20,
        }
        return AF10Client(**(usual | arguments))

    return make


@pytest.fixture
async def af10(
    make_client: ClientMaker, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[AF10Client]:
    """A client of the sandbox; at its end, no secret stands in any log record."""
    async with make_client() as client:
        yield client
    text = caplog.text
    leaked = [name for name, secret in secrets_of(sandbox).items() if secret in text]
    assert not leaked, f"secrets in the log: {leaked}"


def secrets_of(sandbox: Sandbox) -> dict[str, str]:
    """Everything that must stand in no text, under a name that may."""
    found = {"api_key": sandbox.api_key, "password": sandbox.password}
    for number, request in enumerate(sandbox.requests):
        if "token" in request.headers:
            found[f"token of request {number}"] = request.headers["token"]
    for number, job in enumerate(sandbox.jobs):
        found[f"secret of job {number}"] = job.secret
    return found


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    yield
    for _ in range(3):  # what was cancelled or closed just now may need a turn to end
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> None:
    """Each test that runs in a loop leaves no task behind in it."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("no_task_left")


SOCKETS = pytest.StashKey[int]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[SOCKETS] = _open_sockets()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Each test leaves no socket behind, once its fixtures and its loop are gone."""
    yield
    before = item.stash[SOCKETS]
    if _open_sockets() > before:
        gc.collect()
    left = _open_sockets() - before
    if left > 0:
        pytest.fail(f"{left} sockets left open", pytrace=False)


def _open_sockets() -> int:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return 0
    count = 0
    for descriptor in folder.iterdir():
        with contextlib.suppress(OSError):  # the one that lists the folder is gone by now
            count += str(descriptor.readlink()).startswith("socket:")
    return count
