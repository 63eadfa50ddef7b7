"""The receiver inside an app: the app's life, its paths, its log."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from litestar import Litestar, asgi
from starlette.middleware.base import RequestResponseEndpoint

from af10_async import Account, Fleet
from af10_async.callback_asgi import ASGIApp
from af10_async.errors import ClosedError, JobInterruptedError
from af10_async.sandbox import Sandbox
from tests.conftest import ClientMaker, Tls

from .conftest import (
    CALLBACK_SECRET,
    ID,
    PUBLIC_URL,
    CountingStore,
    GatedStore,
    key_of,
    known,
    record_of,
    request,
    running_under,
    talk,
)
from .servers import (
    AIOHTTP,
    ASGI,
    FASTAPI,
    KINDS,
    LITESTAR,
    MOUNTED_AT,
    ON_UVICORN,
    STARLETTE,
    Kind,
    Mounted,
    aiohttp_app,
    asgi_app,
    entering,
    under_aiohttp,
    under_uvicorn,
)

IN_APPS = (AIOHTTP, STARLETTE, FASTAPI, LITESTAR)
TARGET = f"{MOUNTED_AT}/af10/{key_of()}?id={ID}"
ELSEWHERE = "https://www.example.com/elsewhere"
"""A public address whose path never arrives, so that the mount has to be found by itself."""

Served = AbstractAsyncContextManager[object]


def receiver(**options: Any) -> Mounted:
    """One that is still to be entered."""
    return Mounted(**{"public_url": PUBLIC_URL, "callback_secret": CALLBACK_SECRET, **options})


@dataclass(frozen=True)
class Place:
    """A port that is taken before it is known what for."""

    listening: socket.socket
    port: int
    tls: Tls | None = None

    def serve(self, kind: Kind, found: Mounted, *within: Served) -> Served:
        """The receiver in an app of that kind, with these in the app's lifespan as well."""
        tls = self.tls
        if kind is AIOHTTP:
            return under_aiohttp(aiohttp_app(found, *within), self.listening, tls=tls)
        files: dict[str, Any] = (
            {"ssl_certfile": tls.cert, "ssl_keyfile": tls.key} if tls is not None else {}
        )
        return under_uvicorn(
            asgi_app(kind, found, *within), self.listening, http=kind.host, **files
        )


@pytest.fixture
def place() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield Place(listening, listening.getsockname()[1])


@pytest.fixture
def https(place: Place, tls: Tls) -> Place:
    """The same with TLS at the server, as AF10 calls it."""
    return replace(place, tls=tls)


# -- the app's life --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", IN_APPS, ids=str)
async def test_a_whole_job_goes_through_a_receiver_that_is_mounted(
    kind: Kind,
    https: Place,
    tls: Tls,
    make_client: ClientMaker,
    sandbox: Sandbox,
    tmp_path: Path,
) -> None:
    """The preflight, once the app is up, and a backup."""
    found = receiver(public_url=f"https://127.0.0.1:{https.port}{MOUNTED_AT}")
    client = make_client(callback_server=found, tls_cert=None, tls_key=None, ca_file=tls.ca)
    async with https.serve(kind, found, client):
        await client.check_reachable()
        saved = await (await client.backup_owner()).save(tmp_path)
    (job,) = sandbox.jobs
    assert saved.sha256 == sandbox.archive_sha256(job)
    assert job.webhook_url.startswith(f"https://127.0.0.1:{https.port}{MOUNTED_AT}/af10/")


async def test_a_fleet_has_its_callbacks_at_a_receiver_that_is_mounted(
    https: Place, tls: Tls
) -> None:
    async with Sandbox(callback_ca=tls.ca) as sandbox:
        dealer = Account(
            name="jansen",
            base_url=sandbox.base_url,
            api_key=sandbox.api_key,
            username=sandbox.username,
            password=sandbox.password,
        )
        found = receiver(public_url=f"https://127.0.0.1:{https.port}{MOUNTED_AT}")
        fleet = Fleet([dealer], callback_server=found)
        async with https.serve(FASTAPI, found, fleet):
            await fleet["jansen"].backup_owner()


@pytest.mark.parametrize("kind", IN_APPS, ids=str)
async def test_when_the_app_stops_who_waits_is_interrupted_and_the_store_closed(
    kind: Kind, place: Place, make_client: ClientMaker
) -> None:
    async with Sandbox(job_seconds=3600) as sandbox:
        store = CountingStore()
        found = receiver(store=store)
        client = make_client(
            base_url=sandbox.base_url,
            api_key=sandbox.api_key,
            username=sandbox.username,
            password=sandbox.password,
            callback_server=found,
            tls_cert=None,
            tls_key=None,
        )
        async with place.serve(kind, found, client):
            job = client.backup_owner()
            await job.start()
            waiting = asyncio.ensure_future(job)
            await asyncio.sleep(0)
        with pytest.raises(JobInterruptedError, match=job.key):
            await waiting
    assert not found.is_running
    assert (store.opened, store.closed) == (1, 1)


@pytest.mark.parametrize("kind", [AIOHTTP, *ON_UVICORN], ids=str)
async def test_a_callback_under_way_when_the_app_stops_is_kept_and_answered(
    kind: Kind, place: Place
) -> None:
    store = GatedStore()
    await store.add(record_of(key_of()))
    found = receiver(store=store)
    async with AsyncServing(place.serve(kind, found)) as serving:
        call = asyncio.create_task(talk(place.port, request(TARGET)))
        await store.reached.wait()
        stopping = asyncio.create_task(serving.stop())
        await asyncio.sleep(0)
        assert not stopping.done()
        store.gate.set()
        await stopping
    assert (await call).status == 200
    assert await known(store, key_of()) == (ID,)


class AsyncServing:
    """A server that can be stopped by another task than the one that waits for it."""

    def __init__(self, server: Served) -> None:
        self._server = server
        self._is_stopped = False

    async def __aenter__(self) -> AsyncServing:
        await self._server.__aenter__()
        return self

    async def stop(self) -> None:
        if not self._is_stopped:
            self._is_stopped = True
            await self._server.__aexit__(None, None, None)

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


@pytest.mark.parametrize("kind", [AIOHTTP, ASGI], ids=str)
async def test_an_application_of_the_receiver_enters_and_leaves_it_by_itself(
    kind: Kind, place: Place
) -> None:
    store = CountingStore()
    found = receiver(store=store)
    async with place.serve(kind, found):
        assert found.is_running
        assert (await talk(place.port, request(TARGET))).status == 200
    assert not found.is_running
    assert (store.opened, store.closed) == (1, 1)


@pytest.mark.parametrize("kind", [AIOHTTP, ASGI], ids=str)
async def test_a_receiver_that_is_running_already_is_left_running(kind: Kind, place: Place) -> None:
    async with receiver() as found:
        async with place.serve(kind, found):
            assert (await talk(place.port, request(TARGET))).status == 200
        assert found.is_running


async def test_before_the_receiver_is_entered_callbacks_are_answered_503(place: Place) -> None:
    found = receiver()
    app = FastAPI()
    app.mount(MOUNTED_AT, found.asgi_app())
    async with under_uvicorn(app, place.listening):
        answer = await talk(place.port, request(TARGET))
    assert answer.status == 503
    assert "retry-after" in answer.head


async def test_a_client_in_front_of_its_receiver_is_told_to_enter_that_first(
    make_client: ClientMaker,
) -> None:
    client = make_client(callback_server=receiver(), tls_cert=None, tls_key=None)
    with pytest.raises(ClosedError, match="enter it before the client"):
        await client.__aenter__()


async def test_a_start_that_fails_is_told_to_the_server_in_a_clear_sentence(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Served as it is: uvicorn logs the sentence, without a traceback, and exits."""
    found = receiver(store=f"sqlite:{tmp_path}")  # a folder
    with pytest.raises(SystemExit):
        await under_uvicorn(found.asgi_app(), place.listening).__aenter__()
    logged = [each for each in caplog.records if each.name == "uvicorn.error"]
    assert any(str(tmp_path) in each.getMessage() for each in logged)
    assert not any(each.exc_info or "Traceback" in each.getMessage() for each in logged)
    assert not found.is_running


async def test_websockets_are_closed_and_other_kinds_of_scopes_left_alone() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is asked for")

    scope = {"type": "websocket", "path": TARGET, "query_string": b"id=1"}
    app = receiver().asgi_app()
    await app(scope, receive, send)
    await app({"type": "another"}, receive, send)
    assert sent == [{"type": "websocket.close"}]
    assert ID not in str(scope)


# -- paths -----------------------------------------------------------------------------------------


def mounted_in(kind: Kind) -> Mounted:
    """A receiver; when it is served as it is, only its public address says where."""
    return receiver() if kind is ASGI else receiver(public_url=ELSEWHERE)


async def asked(
    kind: Kind, place: Place, path: str, *, at: str = MOUNTED_AT, **options: Any
) -> int:
    """What a callback at that path is answered by an app that has the receiver mounted `at`."""
    found = mounted_in(kind)
    app = asgi_app(kind, found, at=at)
    async with under_uvicorn(app, place.listening, http=kind.host, is_quick=True, **options):
        return await answer_at(path, place, found)


async def answer_at(path: str, place: Place, found: Mounted) -> int:
    """What a callback at that path is answered, however its id is added."""
    target = f"{path}/{key_of()}"
    answers = [
        await talk(place.port, request(f"{target}{added}id={ID}")) for added in ("?", "&", "/?")
    ]
    assert await known(found.store, key_of()) in ((), (ID,))
    (status,) = {answer.status for answer in answers}
    return status


@asynccontextmanager
async def under_hypercorn(
    app: Any, listening: socket.socket, *, root_path: str = ""
) -> AsyncIterator[None]:
    """hypercorn's own server in this loop."""
    reason = "hypercorn is not installed: pip install hypercorn"
    server = pytest.importorskip("hypercorn.asyncio", reason=reason)
    config = pytest.importorskip("hypercorn.config", reason=reason).Config()
    config.root_path, config.errorlog = root_path, None
    config.bind = [f"fd://{listening.dup().detach()}"]  # which it closes
    stop = asyncio.Event()
    serving = asyncio.create_task(
        server.serve(app, config, shutdown_trigger=stop.wait, mode="asgi")
    )
    try:
        yield
    finally:
        stop.set()
        await serving


@pytest.mark.parametrize("kind", ON_UVICORN, ids=str)
async def test_it_may_be_mounted_at_the_root(kind: Kind, place: Place) -> None:
    assert await asked(kind, place, "/af10", at="/") == 200


@pytest.mark.parametrize("kind", ON_UVICORN, ids=str)
@pytest.mark.parametrize("root_path", ["/shop", "/shop/", "/af10"])
async def test_a_proxy_may_take_off_what_root_path_says(
    kind: Kind, root_path: str, place: Place
) -> None:
    assert await asked(kind, place, "/webhooks/af10", root_path=root_path) == 200


@pytest.mark.parametrize("kind", ON_UVICORN, ids=str)
@pytest.mark.parametrize(
    ("root_path", "at"), [("", MOUNTED_AT), ("/shop", MOUNTED_AT), ("/shop", "/")]
)
async def test_a_server_need_not_put_the_root_path_back_in_front(
    kind: Kind, root_path: str, at: str, place: Place
) -> None:
    """hypercorn hands the path on as the proxy has sent it."""
    found = mounted_in(kind)
    async with under_hypercorn(asgi_app(kind, found, at=at), place.listening, root_path=root_path):
        assert await answer_at(f"{at}/af10".replace("//", "/"), place, found) == 200


@pytest.mark.parametrize("kind", [STARLETTE, FASTAPI, LITESTAR], ids=str)
async def test_a_proxy_may_leave_on_what_root_path_says(kind: Kind, place: Place) -> None:
    found = mounted_in(kind)
    async with under_hypercorn(asgi_app(kind, found), place.listening, root_path="/shop"):
        assert await answer_at(f"/shop{MOUNTED_AT}/af10", place, found) == 200


@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
@pytest.mark.parametrize("taken_off", ["", "/shop"])
async def test_fastapi_itself_may_say_the_root_path(taken_off: str, place: Place) -> None:
    """Whether the proxy takes it off or leaves it on."""
    found = receiver(public_url=ELSEWHERE)
    app = FastAPI(lifespan=entering(found), root_path="/shop")
    app.mount(MOUNTED_AT, found.asgi_app())
    path = f"/shop{MOUNTED_AT}/af10".removeprefix(taken_off)
    async with under_uvicorn(app, place.listening, is_quick=True):
        assert await answer_at(path, place, found) == 200


@pytest.mark.parametrize("kind", [AIOHTTP, *ON_UVICORN], ids=str)
async def test_a_path_that_a_proxy_has_percent_encoded_is_understood(kind: Kind) -> None:
    encoded = f"%{ord(key_of()[0]):02x}{key_of()[1:]}"
    async with running_under(kind)() as server:
        for path in (f"/webhooks/af10/{encoded}", f"/%77ebhooks/%61f10/{key_of()}"):
            answer = await talk(server.port, request(f"{path}?id={ID}"))
            assert (path, answer.status) == (path, 200)


@pytest.mark.parametrize("kind", IN_APPS, ids=str)
async def test_a_proxy_may_take_off_a_part_of_the_path_unsaid(kind: Kind) -> None:
    """The public address has another path than the mount; the app is not told."""
    async with running_under(kind)(public_url="https://www.example.com/shop/hooks") as server:
        assert (await talk(server.port, request(TARGET))).status == 200


@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_a_path_beside_the_mount_is_nobodys(kind: Kind) -> None:
    async with running_under(kind)() as server:
        for path in ("/webhooksX/af10", "/other/af10"):
            answer = await talk(server.port, request(f"{path}/{key_of()}?id={ID}"))
            assert (path, answer.status) == (path, 404)
        assert await known(server.store, key_of()) == ()


# -- other servers ---------------------------------------------------------------------------------


async def answered(scope: dict[str, Any]) -> tuple[int, bytes, dict[bytes, bytes]]:
    """What a server that says no more than this of a request is told to answer."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("the body is not read")

    usual = {"type": "http", "http_version": "1.1", "method": "GET", "headers": []}
    async with receiver(public_url=ELSEWHERE) as found:
        given = {"query_string": f"id={ID}".encode(), **usual, **scope}
        await ASGIApp(found, "af10")(given, receive, send)
    start, body = sent
    return start["status"], body["body"], dict(start["headers"])


async def test_a_server_of_http2_is_told_nothing_of_connections() -> None:
    """It must not be said there."""
    status, body, headers = await answered(
        {"http_version": "2", "path": "/nothing", "headers": [(b"content-length", b"7")]}
    )
    assert (status, body) == (404, b"Not Found")
    assert b"connection" not in headers


@pytest.mark.parametrize("root_path", ["", "/", "/shop", "/shop/", "/af10/x"])
async def test_a_server_need_not_say_how_the_path_was_sent(root_path: str) -> None:
    path = f"{root_path.rstrip('/')}/af10/{key_of()}"
    assert (await answered({"path": path, "root_path": root_path}))[0] == 200


@pytest.mark.parametrize("root_path", ["/shop", "/af", "/af10/x"])
async def test_a_root_path_that_is_not_in_the_path_takes_nothing_off(root_path: str) -> None:
    path = f"/af10/{key_of()}"
    assert (await answered({"path": path, "root_path": root_path}))[0] == 200


@pytest.mark.parametrize(
    ("path", "root_path"),
    [
        ("/webhooks", "/shop/webhooks"),
        ("/webhooks", "/a/shop/webhooks"),
        ("/webhooks", "/shop//webhooks"),
        ("/webhooks", "shop/webhooks"),
        ("/hooks/webhooks", "/shop/hooks/webhooks"),
        ("/webhooks", "/webhooks/webhooks"),
        ("/af10", "/shop/af10"),
        ("", "/shop/af10"),
        ("", "/af10"),
        ("/af10", "/af10"),
        ("", "/af10/shop"),
    ],
)
async def test_the_end_of_a_root_path_that_a_proxy_took_off_is_where_it_is_mounted(
    path: str, root_path: str
) -> None:
    """Also when the mount, or what was taken off, is called as the prefix in front of the keys."""
    path = f"{path}/af10/{key_of()}"
    raw = path.encode()
    for given in ({}, {"raw_path": raw}, {"raw_path": None}):
        scope = {"path": path, "root_path": root_path, **given}
        assert (await answered(scope))[0] == 200


@pytest.mark.parametrize("path", ["/hooks", "/b/webhooks", "/webhooksX", "/webhooks/b", "//"])
async def test_only_a_whole_end_of_the_root_path_is_taken_off(path: str) -> None:
    scope = {"path": f"{path}/af10/{key_of()}", "root_path": "/shop/webhooks"}
    assert (await answered(scope))[0] == 404


# -- its log ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [False, True])
async def test_litestar_keeps_the_secret_out_of_it_unless_it_copies_the_scope(
    copies: bool, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """Which is why the documentation says `copy_scope=False`."""
    found = receiver()
    webhooks = asgi(MOUNTED_AT, is_mount=True, copy_scope=copies)(found.asgi_app())
    app = Litestar([webhooks], lifespan=[entering(found)], logging_config=None)
    async with under_uvicorn(app, place.listening, is_quick=True):
        assert (await talk(place.port, request(TARGET))).status == 200
    assert (ID in caplog.text) == copies


async def test_middleware_does_not_bring_the_secret_back_into_the_access_log(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """Starlette's own kind of middleware hands the same scope on."""
    caplog.set_level(logging.DEBUG)
    found = receiver()
    app = FastAPI(lifespan=entering(found))
    app.mount(MOUNTED_AT, found.asgi_app())

    @app.middleware("http")
    async def passes_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    async with under_uvicorn(app, place.listening, is_quick=True):
        for target in (TARGET, TARGET.replace("?", "&")):
            assert (await talk(place.port, request(target))).status == 200
    access = [each.getMessage() for each in caplog.records if each.name == "uvicorn.access"]
    assert len(access) == 2
    assert all(f"GET {MOUNTED_AT}/af10/{key_of()} HTTP" in each for each in access)
    assert ID not in caplog.text
