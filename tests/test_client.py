"""AF10Client: how it is configured, and whose HTTP client it uses."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
import respx

from af10_async import (
    AF10Client,
    AuthenticationError,
    BadResponseError,
    CallbackTimeoutError,
    ClosedError,
    ConfigurationError,
    JobState,
    NetworkError,
    PortInUseError,
    RequestTimeoutError,
)
from af10_async.sandbox import Sandbox

from .conftest import ClientMaker, Tls

BASE = "https://api.example.com/v2"
API = "https://api-7.example.com/v2"

Environment = Callable[..., None]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Sets `AF10_*` variables, given without their prefix."""

    def set_all(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"AF10_{name.upper()}", str(value))

    return set_all


# -- configuration ---------------------------------------------------------------------------------


async def test_the_environment_makes_a_client(
    sandbox: Sandbox, tls: Tls, environment: Environment, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text(sandbox.password + "\n")
    environment(
        base_url=sandbox.base_url,
        api_key=sandbox.api_key,
        username=sandbox.username,
        password_file=secret,
        tls_cert=tls.cert,
        tls_key=tls.key,
    )
    async with AF10Client.from_env(callback_timeout=20) as af10:
        saved = await (await af10.backup_owner()).save(tmp_path / "backups")
    assert saved.sha256 == sandbox.archive_sha256(sandbox.jobs[0])


@pytest.mark.parametrize("missing", ["base_url", "api_key", "username", "password"])
def test_a_missing_variable_is_named(environment: Environment, missing: str) -> None:
    values = {"base_url": BASE, "api_key": "k", "username": "u", "password": "p"}
    values.pop(missing)
    environment(**values)
    with pytest.raises(ConfigurationError, match=f"AF10_{missing.upper()} is not set: it must be"):
        AF10Client.from_env()


def test_an_unknown_argument_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="no_such_thing"):
        AF10Client.from_env(base_url=BASE, api_key="k", username="u", password="p", no_such_thing=1)


async def test_a_taken_port_is_named_and_nothing_stays_half_started(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    port = httpx.URL(sandbox.base_url).port
    with pytest.raises(PortInUseError, match=f"port {port} on 127.0.0.1 is in use"):
        async with make_client(listen_port=port):
            pass


async def test_a_public_url_is_what_af10_is_told(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    """AF10 calls the public address, with its path, and not the one that is listened on."""
    async with make_client(public_url="https://localhost:1/hooks/", listen_port=0) as af10:
        job = await af10.backup_owner().start()
        assert sandbox.jobs[0].webhook_url == f"https://localhost:1/hooks/af10/{job.key}"
        assert af10.callback_url == "https://localhost:1/hooks"


async def test_the_repr_of_a_client_holds_no_secret(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    client = make_client()
    assert repr(client) == f"<AF10Client of {sandbox.base_url}>"
    assert sandbox.password not in repr(vars(client))
    assert sandbox.api_key not in repr(vars(client))


# -- respx and handed-in clients -------------------------------------------------------------------


@pytest.fixture
def router() -> Any:
    with respx.mock(assert_all_called=False) as found:
        found.get(f"{BASE}/authenticate").respond(json={"token": "t0", "api_url": API})
        yield found


@pytest.fixture
def mocked(router: Any, make_client: ClientMaker) -> ClientMaker:
    """Makes clients of an AF10 that respx plays."""
    return lambda **arguments: make_client(**({"base_url": BASE} | arguments))


async def test_respx_intercepts_the_calls_in_the_ordinary_way(
    router: Any, mocked: ClientMaker
) -> None:
    post = router.post(f"{API}/backup/owner").respond(202, json={"successCode": 202})
    redeem = router.get(f"{API}/webhook", params={"id": "s-1"}).respond(
        json={"data": {"url": "https://files.example.com/backup.zip"}}
    )
    router.get("https://files.example.com/backup.zip").respond(content=b"PK zip")
    router.route(host="127.0.0.1").pass_through()
    async with mocked() as af10:
        job = await af10.backup_owner().start()
        sent = json.loads(post.calls.last.request.content)
        assert re.fullmatch(rf"https://127\.0\.0\.1:\d+/af10/{job.key}", sent["webhook_url"])
        await call(sent["webhook_url"] + "?id=s-1")
        assert await (await job).read() == b"PK zip"
    headers = redeem.calls.last.request.headers
    assert headers["token"] == "t0"
    assert headers["accept-encoding"] == "identity"


async def call(url: str) -> None:
    async with httpx2.AsyncClient(verify=_no_check()) as client:
        assert (await client.get(url)).status_code == 200


def _no_check() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize(
    "error", [httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError]
)
async def test_a_post_that_may_have_arrived_is_not_repeated_whatever_the_error(
    router: Any, mocked: ClientMaker, error: type[Exception]
) -> None:
    post = router.post(f"{API}/backup/owner").mock(side_effect=error("lost"))
    async with mocked(callback_timeout=0.05) as af10:
        with pytest.raises(CallbackTimeoutError) as caught:
            await af10.backup_owner()
    assert post.call_count == 1
    assert not caught.value.start_certain
    assert isinstance(caught.value.__cause__, NetworkError)


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ConnectTimeout])
async def test_a_post_that_cannot_have_left_is_repeated(
    router: Any, mocked: ClientMaker, error: type[Exception]
) -> None:
    post = router.post(f"{API}/backup/owner").mock(
        side_effect=[error("no"), error("no"), httpx.Response(202, json={})]
    )
    async with mocked() as af10:
        job = await af10.backup_owner().start()
        assert job.state is JobState.ACCEPTED
    assert post.call_count == 3


async def test_a_loopback_webhook_for_a_public_af10_is_warned_of(
    router: Any, mocked: ClientMaker, caplog: pytest.LogCaptureFixture
) -> None:
    async with mocked():
        assert "set AF10_PUBLIC_URL" in caplog.text


async def test_api_url_is_adopted_unless_it_is_unsafe(router: Any, mocked: ClientMaker) -> None:
    router.get(f"{BASE}/authenticate").respond(json={"token": "t", "api_url": "http://10.0.0.1"})
    async with mocked() as af10:
        with pytest.raises(BadResponseError, match="api_url that is not a safe address"):
            await af10.backup_owner()


@pytest.mark.parametrize(
    "answer",
    [
        {"json": {"token": ""}},
        {"json": {"token": "line\r\nbreak"}},
        {"json": {}},
        {"json": []},
        {"json": {"token": 7, "api_url": {}}},
        {"text": "<html>"},
        {"content": b""},
    ],
)
async def test_an_authentication_without_a_usable_token_is_a_bad_response(
    router: Any, mocked: ClientMaker, answer: dict[str, Any]
) -> None:
    router.get(f"{BASE}/authenticate").respond(200, **answer)
    async with mocked() as af10:
        with pytest.raises(BadResponseError) as caught:
            await af10.authenticate()
    assert caught.value.step == "authenticate"


async def test_a_token_that_stays_refused_is_renewed_only_once(
    router: Any, mocked: ClientMaker
) -> None:
    login = router.get(f"{BASE}/authenticate").respond(json={"token": "t0", "api_url": API})
    router.post(f"{API}/backup/owner").respond(401, json={"errorCode": 401})
    async with mocked() as af10:
        with pytest.raises(AuthenticationError):
            await af10.backup_owner()
    assert login.call_count == 2


async def test_cookies_never_ride_on_another_request(router: Any, mocked: ClientMaker) -> None:
    router.get(f"{BASE}/authenticate").respond(
        json={"token": "t", "api_url": API}, headers={"set-cookie": "session=of-account-a"}
    )
    post = router.post(f"{API}/backup/owner").respond(202, json={})
    async with httpx.AsyncClient() as shared:
        for _ in range(2):
            async with mocked(http_client=shared) as af10:
                await af10.backup_owner().start()
    async with mocked() as af10:
        await af10.backup_owner().start()
    assert all("cookie" not in each.request.headers for each in post.calls)


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_a_handed_in_client_does_everything_and_is_left_open(
    sandbox: Sandbox, make_client: ClientMaker, tmp_path: Path, library: Any
) -> None:
    async with library.AsyncClient() as own:
        async with make_client(http_client=own) as af10:
            saved = await (await af10.backup_owner()).save(tmp_path)
        assert not own.is_closed
    assert saved.sha256 == sandbox.archive_sha256(sandbox.jobs[0])


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_a_handed_in_client_that_is_closed_is_a_clear_error(
    make_client: ClientMaker, library: Any
) -> None:
    own = library.AsyncClient()
    await own.aclose()
    async with make_client(http_client=own) as af10:
        with pytest.raises(ClosedError, match="the HTTP client is closed"):
            await af10.authenticate()


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_a_handed_in_client_that_times_out_is_understood(
    sandbox: Sandbox, make_client: ClientMaker, library: Any
) -> None:
    from af10_async.sandbox import Fault

    sandbox.faults.add(Fault.hang(on="authenticate", times=None))
    async with library.AsyncClient(timeout=0.02) as own, make_client(http_client=own) as af10:
        with pytest.raises(RequestTimeoutError) as caught:
            await af10.authenticate()
    assert caught.value.step == "authenticate"
    assert 1 <= sandbox.count("GET", "/authenticate") <= 4


async def test_many_clients_may_share_one_http_client(tls: Tls) -> None:
    """Each has its own token, and nothing of one reaches the other's requests."""
    from af10_async.sandbox import Account

    accounts = [Account() for _ in range(3)]
    async with (
        Sandbox(callback_ca=tls.ca, accounts=accounts) as sandbox,
        httpx.AsyncClient() as shared,
    ):

        async def run(account: Account) -> None:
            async with AF10Client(
                base_url=sandbox.base_url,
                api_key=account.api_key,
                username=account.username,
                password=account.password,
                tls_cert=tls.cert,
                tls_key=tls.key,
                http_client=shared,
            ) as af10:
                await (await af10.backup_owner()).read()

        await asyncio.gather(*map(run, accounts))
        for account in accounts:
            tokens = {
                request.headers["token"]
                for request in sandbox.requests
                if request.account == account.username and "token" in request.headers
            }
            assert len(tokens) == 1


async def test_httpx_own_mock_transport_can_play_af10() -> None:
    """Its answers hold their bodies in memory already."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/authenticate"):
            return httpx.Response(200, json={"token": "t", "api_url": "https://af10.example/v2"})
        if request.url.path.endswith("/backup/owner"):
            return httpx.Response(200, json={"data": {"url": "https://files.example/x.zip"}})
        return httpx.Response(200, content=b"the file")

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http,
        AF10Client(
            base_url="https://af10.example/v2",
            api_key="key-of-the-mock",
            username="user-of-the-mock",
            password="password-of-the-mock",
            public_url="https://hooks.example",
            listen_port=0,
            http_client=http,
        ) as af10,
    ):
        file = await af10.backup_owner()
        assert await file.read() == b"the file"
