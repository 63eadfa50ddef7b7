"""A pytest plugin, for users' own tests: a sandbox and a client of it for each test.

It is loaded in every run of pytest where af10-async is installed, so it imports nothing before a
fixture is used. The fixtures work for tests that pytest-asyncio runs, in either mode, and for those
that anyio's plugin runs on asyncio: what opens the sandbox must run in the event loop of the test,
so the public fixtures find out whose test it is and ask a fixture made for that plugin.

- `af10_sandbox`: a `Sandbox` that is running, with the arguments of
  `@pytest.mark.af10_sandbox(job_seconds=1)`.
- `af10_client`: an `AF10Client` of it that is entered, with those of
  `@pytest.mark.af10_client(callback_timeout=2)`.
- `af10_env`: sets the `AF10_*` variables for `AF10Client.from_env()` in the code under test.
- `@pytest.mark.af10_faults(Fault.late(1), Fault.truncated())`: what the sandbox does wrong.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .client import AF10Client
    from .sandbox import Sandbox

__all__ = ["af10_client", "af10_env", "af10_sandbox"]

_TIMEOUT = 30.0
"""Seconds after which a test that waits in vain ends."""
_LOOP_SCOPES = ("function", "class", "module", "package", "session")
_MARKERS = (
    "af10_sandbox(**arguments): arguments of the Sandbox that af10_sandbox runs",
    "af10_client(**arguments): arguments of the AF10Client that af10_client enters",
    "af10_faults(*faults): what the sandbox does wrong, in this order",
)
_ASYNC_ONLY = (
    "{name} is for asynchronous tests: make it `async def`, and let pytest-asyncio or the plugin of"
    " anyio run it (mark it asyncio or anyio, or set asyncio_mode = auto)"
)


@dataclass(frozen=True, slots=True)
class _World:
    """What one test works with."""

    sandbox: Sandbox
    client: AF10Client | None
    cert: str
    key: str


def pytest_configure(config: pytest.Config) -> None:
    """Announce the markers, and bring the fixtures for the plugins that there are."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if config.pluginmanager.hasplugin("asyncio"):
        config.pluginmanager.register(_asyncio_fixtures(), "af10_asyncio_fixtures")
    if config.pluginmanager.hasplugin("anyio"):
        config.pluginmanager.register(_AnyioFixtures(), "af10_anyio_fixtures")


# -- the public fixtures -----------------------------------------------------------------------


@pytest.fixture
def af10_sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """A stand-in AF10 that is running in the event loop of the test."""
    return _world_of(request, "af10_sandbox").sandbox


@pytest.fixture
def af10_client(request: pytest.FixtureRequest) -> AF10Client:
    """A client of `af10_sandbox` that is entered, with a callback server of its own."""
    client = _world_of(request, "af10_client").client
    if client is None:
        pytest.fail("af10_client must be named by the test or a fixture of it", pytrace=False)
    return client


@pytest.fixture
def af10_env(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The `AF10_*` variables for `AF10Client.from_env()`; others of that name are cleared."""
    world = _world_of(request, "af10_env")
    for name in [name for name in os.environ if name.startswith("AF10_")]:
        monkeypatch.delenv(name)
    variables = {
        "AF10_BASE_URL": world.sandbox.base_url,
        "AF10_API_KEY": world.sandbox.api_key,
        "AF10_USERNAME": world.sandbox.username,
        "AF10_PASSWORD": world.sandbox.password,
        "AF10_TLS_CERT": world.cert,
        "AF10_TLS_KEY": world.key,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def _world_of(request: pytest.FixtureRequest, name: str) -> _World:
    """What the test works with, made in its own event loop."""
    found: _World = request.getfixturevalue(_private_fixture(request, name))
    return found


def _private_fixture(request: pytest.FixtureRequest, name: str) -> str:
    item = request.node
    if request.scope != "function" or not isinstance(item, pytest.Function):
        pytest.fail(f"{name} is one for each test: use it in fixtures of scope function only")
    if _is_of_pytest_asyncio(item):
        return f"_af10_world_{_loop_scope(item)}"
    if "anyio_backend" in item.fixturenames:
        backend = request.getfixturevalue("anyio_backend")
        if (backend if isinstance(backend, str) else backend[0]) != "asyncio":
            pytest.fail(
                f"{name} needs asyncio: let the fixture anyio_backend return 'asyncio', or"
                " parametrize the test with it",
                pytrace=False,
            )
        return "_af10_world_anyio"
    pytest.fail(_ASYNC_ONLY.format(name=name), pytrace=False)


def _is_of_pytest_asyncio(item: pytest.Function) -> bool:
    if not item.config.pluginmanager.hasplugin("asyncio"):
        return False
    import pytest_asyncio

    return pytest_asyncio.is_async_test(item)


def _loop_scope(item: pytest.Function) -> str:
    """The scope of the event loop that pytest-asyncio runs a test in."""
    marker = item.get_closest_marker("asyncio")
    given = marker.kwargs.get("loop_scope") if marker is not None else None
    return str(given or item.config.getini("asyncio_default_test_loop_scope"))


# -- the private ones, one for each kind of event loop -----------------------------------------


class _AnyioFixtures:
    @pytest.fixture
    async def _af10_world_anyio(self, request: pytest.FixtureRequest) -> AsyncIterator[_World]:
        async with _world(request) as world:
            yield world


def _asyncio_fixtures() -> object:
    """A plugin with a fixture for each scope that an event loop of pytest-asyncio can have."""
    import pytest_asyncio

    def fixture(loop_scope: Any) -> object:
        @pytest_asyncio.fixture(loop_scope=loop_scope, name=f"_af10_world_{loop_scope}")
        async def world_of(self: object, request: pytest.FixtureRequest) -> AsyncIterator[_World]:
            async with _world(request) as world:
                yield world

        return world_of

    fixtures = {f"world_{scope}": fixture(scope) for scope in _LOOP_SCOPES}
    return type("AsyncioFixtures", (), fixtures)()


@asynccontextmanager
async def _world(request: pytest.FixtureRequest) -> AsyncIterator[_World]:
    """A sandbox and, when the test wants one, a client; closed when the test has ended."""
    from .sandbox import Sandbox

    item = request.node
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(Sandbox(**_arguments(item, "af10_sandbox")))
        for marker in reversed(list(item.iter_markers("af10_faults"))):
            sandbox.faults.add(*marker.args)
        cert, key = map(str, _certificate(sandbox))
        client = None
        if "af10_client" in item.fixturenames:
            client = _client(sandbox, cert, key, _arguments(item, "af10_client"))
            await stack.enter_async_context(client)
        yield _World(sandbox, client, cert, key)


def _client(sandbox: Sandbox, cert: str, key: str, arguments: dict[str, Any]) -> AF10Client:
    from .client import AF10Client
    from .protocol.retry import RetryPolicy

    usual: dict[str, Any] = {
        "base_url": sandbox.base_url,
        "api_key": sandbox.api_key,
        "username": sandbox.username,
        "password": sandbox.password,
        # Nobody likes to wait in a test, and the other side is not a server to be spared.
        "retries": RetryPolicy(first_pause=0.01, longest_pause=0.05),
        **dict.fromkeys(("timeout", "start_timeout", "callback_timeout"), _TIMEOUT),
        "download_timeout": _TIMEOUT,
    }
    if not {"callback_server", "public_url"} & set(arguments):
        usual |= {"tls_cert": cert, "tls_key": key}
    return AF10Client(**(usual | arguments))


def _certificate(sandbox: Sandbox) -> Any:
    try:
        return sandbox.issue_certificate("127.0.0.1", "localhost")
    except ImportError as error:
        pytest.fail(str(error), pytrace=False)


def _arguments(item: pytest.Item, marker: str) -> dict[str, Any]:
    """What the markers of a test say, the closest one last."""
    found: dict[str, Any] = {}
    for each in reversed(list(item.iter_markers(marker))):
        found |= each.kwargs
    return found


def pytest_unconfigure(config: pytest.Config) -> None:
    """Take back what `pytest_configure` brought."""
    for name in ("af10_asyncio_fixtures", "af10_anyio_fixtures"):
        plugin = config.pluginmanager.get_plugin(name)
        if plugin is not None:
            config.pluginmanager.unregister(plugin)
