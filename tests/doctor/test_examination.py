"""Each link broken for real, and what is said of it."""

from __future__ import annotations

import logging
import socket
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from af10_async.callback_server import CallbackServer
from af10_async.doctor import CHECKS, Finding, State, examine
from af10_async.errors import ConfigurationError
from af10_async.runtime import Runtime
from af10_async.sandbox import Sandbox
from af10_async.stores import open_store

from ..conftest import Tls
from ..ports import free_port
from ..public_url.test_cloudflared import StandIn, quick
from ..stores.urls import SHARED_URLS
from .conftest import Environment, Findings, examined, states
from .peers import DAY, NOW, Authority, http, saying

SECRET = "a-callback-secret-of-these-tests"


async def test_all_passes_in_the_order_of_the_checks_and_changes_nothing(
    right: Environment, sandbox: Sandbox, store_file: Path, tmp_path: Path
) -> None:
    async with aclosing(examine(out=tmp_path / "new")) as findings:
        found = [finding async for finding in findings]
    assert [finding.name for finding in found] == list(CHECKS)
    assert states({finding.name: finding for finding in found}) == {}
    asked = {(request.method, request.path.rpartition("/v2")[2]) for request in sandbox.requests}
    assert asked == {("GET", "/authenticate"), ("GET", "/util/environment")}
    assert len(sandbox.requests) == 2
    assert not store_file.parent.exists()
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".af10*"))


async def test_whoever_leaves_early_leaves_nothing_running(right: Environment) -> None:
    port = free_port()
    right.set(public_url="https://127.0.0.1:1", listen_port=port)
    async with aclosing(examine()) as findings:
        async for finding in findings:
            if finding.name == "listening port":
                assert finding.state is State.PASSED
                break
    with socket.socket() as again:
        again.bind(("127.0.0.1", port))


async def test_a_timeout_must_be_a_time(right: Environment) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        await examined(timeout=0)


# -- configuration ---------------------------------------------------------------------------------


async def test_each_missing_and_each_malformed_variable_is_named(right: Environment) -> None:
    right.set(api_key=None, password="", listen_port=99999)
    found = (await examined())["configuration"]
    assert found.state is State.FAILED
    assert found.message == (
        "AF10_API_KEY is not set; AF10_PASSWORD is empty; AF10_LISTEN_PORT is malformed"
    )
    assert found.details["variables"] == ["AF10_API_KEY", "AF10_PASSWORD", "AF10_LISTEN_PORT"]
    assert len(found.advice.splitlines()) == 3


async def test_what_is_right_is_examined_although_the_rest_is_not(right: Environment) -> None:
    right.set(password=None)
    assert states(await examined()) == {
        "configuration": "failed",
        "credentials": "skipped",
        "clock": "skipped",
        "target": "skipped",
    }
    right.set(password="wrong", listen_port="x")
    found = await examined()
    assert states(found) == {
        "configuration": "failed",
        "credentials": "failed",
        "listening port": "skipped",
        "public URL": "skipped",
        "certificate": "skipped",
        "round trip": "skipped",
        "target": "skipped",
    }
    assert found["listening port"].details == {"because_of": "configuration"}


async def test_without_any_variable_all_that_is_needed_is_named(right: Environment) -> None:
    right.clear()
    found = (await examined())["configuration"]
    assert found.message == (
        "AF10_BASE_URL, AF10_API_KEY, AF10_USERNAME and AF10_PASSWORD are not set"
    )


async def test_variables_that_do_not_go_together_fail(right: Environment) -> None:
    right.set(tls_key=None)
    found = await examined()
    assert found["configuration"].message == "AF10_TLS_CERT is set but AF10_TLS_KEY is not"
    assert found["listening port"].state is State.SKIPPED


async def test_a_file_of_a_secret_that_cannot_be_read_is_named(
    right: Environment, tmp_path: Path
) -> None:
    right.set(password=None, password_file=tmp_path / "none")
    found = (await examined())["configuration"]
    assert "AF10_PASSWORD_FILE names a file that cannot be read" in found.message
    assert found.details["variables"] == ["AF10_PASSWORD_FILE"]


async def test_what_nobody_reads_is_remarked_upon(right: Environment) -> None:
    right.set(publc_url="x", something="y", password_file="/none")
    found = (await examined())["configuration"]
    assert found.state is State.PASSED
    assert found.advice.splitlines() == [
        "nothing here reads AF10_PUBLC_URL: did you mean AF10_PUBLIC_URL?",
        "nothing here reads AF10_SOMETHING: remove it, unless it is for something else",
        "AF10_PASSWORD is set, so AF10_PASSWORD_FILE is not read: remove one of them",
    ]


# -- AF10 ------------------------------------------------------------------------------------------


async def test_a_wrong_password_fails_and_the_rest_is_examined_all_the_same(
    right: Environment,
) -> None:
    right.set(password="wrong")
    found = await examined()
    assert states(found) == {"credentials": "failed", "target": "skipped"}
    assert found["credentials"].details["status"] == 401
    assert "AF10_PASSWORD" in found["credentials"].advice


async def test_nobody_at_the_base_url_is_told_apart_from_a_refusal(right: Environment) -> None:
    right.set(base_url=f"http://127.0.0.1:{free_port()}")
    found = await examined()
    assert found["credentials"].details["error"] == "ConnectFailedError"
    assert "AF10_BASE_URL" in found["credentials"].advice
    assert found["clock"].details == {"because_of": "credentials"}


async def test_an_af10_that_says_nothing_holds_nobody_up(right: Environment) -> None:
    async with saying(None) as port:
        right.set(base_url=f"http://127.0.0.1:{port}")
        found = await examined(timeout=0.2)
    assert found["credentials"].state is State.FAILED
    assert "within 0.2 s" in found["credentials"].message
    assert found["clock"].state is not State.PASSED


@pytest.mark.parametrize(
    ("seconds", "state", "text"),
    [
        (-10800, "failed", "3 h ahead of that of AF10"),
        (300, "failed", "5 min behind that of AF10"),
        (-30, "passed", "30 s ahead of that of AF10"),
        (0, "passed", "the same as that of AF10"),
    ],
)
async def test_the_clock_is_compared_with_the_date_of_any_answer(
    right: Environment, seconds: int, state: str, text: str
) -> None:
    stands_still = 1_800_000_000.0
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(stands_still + seconds))
    async with saying(http("401 Unauthorized", f"Date: {date}")) as port:
        right.set(base_url=f"http://127.0.0.1:{port}")
        found = (await examined(runtime=Runtime(now=lambda: stands_still)))["clock"]
    assert (str(found.state), text in found.message) == (state, True), found


async def test_a_clock_that_is_wrong_here_fails(right: Environment) -> None:
    found = await examined(runtime=Runtime(now=lambda: time.time() - 3600))
    assert found["clock"].state is State.FAILED
    assert round(found["clock"].details["seconds_ahead"] / 10) == -360


async def test_an_answer_without_a_date_skips_the_clock(right: Environment) -> None:
    async with saying(http("200 OK")) as port:
        right.set(base_url=f"http://127.0.0.1:{port}")
        assert (await examined())["clock"].state is State.SKIPPED


# -- listening port --------------------------------------------------------------------------------


async def test_a_port_that_somebody_else_has_fails(right: Environment) -> None:
    async with saying(http("200 OK")) as port:
        right.set(public_url=f"https://127.0.0.1:{port}", listen_port=port)
        found = await examined(timeout=2)
    assert found["listening port"].details["error"] == "PortInUseError"
    assert "AF10_LISTEN_PORT" in found["listening port"].advice
    assert found["certificate"].details["problem"] == "not_https"
    assert found["round trip"].details["because_of"] == "certificate"


@pytest.mark.parametrize("secret", [None, SECRET])
async def test_a_port_that_a_service_of_ours_has_passes_and_that_one_answers(
    right: Environment, tls: Tls, store_file: Path, secret: str | None
) -> None:
    port = free_port()
    right.set(listen_port=port, public_url=f"https://127.0.0.1:{port}", callback_secret=secret)
    async with CallbackServer(
        port=port,
        tls_cert=tls.cert,
        tls_key=tls.key,
        store=f"sqlite:{store_file}",
        callback_secret=secret,
    ):
        found = await examined()
    assert states(found) == {"target": "skipped"}
    assert found["listening port"].details["is_in_use"]
    assert found["round trip"].details["is_here"] is False


async def test_a_service_of_ours_behind_a_proxy_that_is_away_is_not_at_fault(
    right: Environment, store_file: Path
) -> None:
    port, public_url = free_port(), f"https://127.0.0.1:{free_port()}/hooks"
    right.set(tls_cert=None, tls_key=None, listen_port=port, public_url=public_url)
    async with CallbackServer(port=port, public_url=public_url, store=f"sqlite:{store_file}"):
        found = await examined()
    assert found["listening port"].state is State.PASSED
    assert found["round trip"].details["problem"] == "connection_refused"


async def test_a_service_with_another_secret_is_somebody_elses(
    right: Environment, store_file: Path
) -> None:
    port = free_port()
    right.set(tls_cert=None, tls_key=None, listen_port=port)
    right.set(public_url=f"https://127.0.0.1:{port}")
    other = f"sqlite:{store_file}.other"
    async with CallbackServer(port=port, public_url="https://x.invalid", store=other):
        found = await examined(timeout=5)
    assert found["listening port"].details["error"] == "PortInUseError"


async def test_certificate_files_that_do_not_fit_keep_the_server_from_listening(
    right: Environment, tmp_path: Path
) -> None:
    right.set(tls_key=Authority(tmp_path).issue().key)
    found = await examined()
    assert found["listening port"].state is State.FAILED
    assert "AF10_TLS_CERT and AF10_TLS_KEY" in found["listening port"].message
    assert found["public URL"].details == {"because_of": "listening port"}


async def test_where_another_process_receives_that_one_must_answer(
    right: Environment, tls: Tls, store_file: Path
) -> None:
    other: dict[str, Any] = {"tls_cert": tls.cert, "tls_key": tls.key}
    async with CallbackServer(store=f"sqlite:{store_file}", **other) as server:
        right.set(tls_cert=None, tls_key=None, public_url=server.public_url)
        found = await examined()
    assert states(found) == {"listening port": "skipped", "target": "skipped"}
    async with CallbackServer(store=f"sqlite:{store_file}.other", **other) as server:
        right.set(public_url=server.public_url)
        found = await examined()
    assert found["round trip"].details["problem"] == "other_server"


# -- public URL ------------------------------------------------------------------------------------


async def test_without_a_way_for_af10_to_call_back_the_public_url_fails(
    right: Environment,
) -> None:
    right.set(tls_cert=None, tls_key=None)
    found = await examined()
    assert found["listening port"].details == {"because_of": "public URL"}
    assert found["public URL"].state is State.FAILED
    assert "AF10_PUBLIC_URL" in found["public URL"].advice


async def test_an_address_of_this_machine_fails_when_af10_is_out_in_the_world(
    right: Environment,
) -> None:
    right.set(base_url="https://af10.invalid/v2")
    found = await examined(timeout=2)
    assert "which AF10 cannot reach" in found["public URL"].message


async def test_a_tunnel_that_does_not_open_is_not_the_ports_fault(
    right: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    right.set(public_url="cloudflared")
    found = await examined(timeout=2)
    assert found["listening port"].state is State.PASSED
    assert found["public URL"].details["error"] == "PublicURLError"
    assert found["round trip"].details == {"because_of": "public URL"}


async def test_a_tunnel_leads_to_the_server_that_listens_already(
    right: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = StandIn(tmp_path)
    program.plan(quick())
    monkeypatch.setenv("STAND_IN", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    right.set(public_url="cloudflared", tls_cert=None, tls_key=None)
    async with aclosing(examine()) as findings:
        async for finding in findings:
            assert finding.state is State.PASSED
            if finding.name == "public URL":
                break
    assert finding.details["kind"] == "tunnel"
    assert finding.message == f"{finding.details['url']}, by a tunnel"
    assert (program.runs, program.living) == (1, [])


# -- certificate -----------------------------------------------------------------------------------


async def _with_certificate(environment: Environment, tls: Tls) -> Findings:
    environment.set(tls_cert=tls.cert, tls_key=tls.key, ca_file=tls.ca)
    return await examined()


@pytest.mark.parametrize(
    ("name", "not_after", "problem"),
    [
        ("127.0.0.1", NOW - DAY, "expired_certificate"),
        ("other.example", NOW + 60 * DAY, "wrong_host"),
    ],
)
async def test_a_certificate_that_callers_refuse_fails(
    right: Environment, tmp_path: Path, name: str, not_after: object, problem: str
) -> None:
    tls = Authority(tmp_path).issue(name, not_after=not_after)  # type: ignore[arg-type]
    found = await _with_certificate(right, tls)
    assert found["certificate"].state is State.FAILED
    assert found["certificate"].details == {"problem": problem}
    assert found["round trip"].details == {"because_of": "certificate"}


async def test_a_certificate_that_nobody_vouches_for_fails(right: Environment) -> None:
    right.set(ca_file=None)
    found = (await examined())["certificate"]
    assert found.details == {"problem": "untrusted_certificate"}
    assert "AF10_CA_FILE" in found.advice


async def test_a_certificate_that_ends_soon_passes_with_advice(
    right: Environment, tmp_path: Path
) -> None:
    found = await _with_certificate(right, Authority(tmp_path).issue(not_after=NOW + 10 * DAY))
    assert found["certificate"].state is State.PASSED
    assert found["certificate"].advice == "renew it soon"
    assert round(found["certificate"].details["days_left"]) == 10


@pytest.mark.parametrize("name", ["hooks..example.com", f"{'a' * 64}.example.com"])
async def test_a_name_that_cannot_have_an_address_is_not_found(
    right: Environment, name: str
) -> None:
    right.set(public_url=f"https://{name}", listen_port=0)
    found = await examined()
    assert found["certificate"].state is State.SKIPPED
    assert "has a name that cannot have an address" in found["certificate"].message
    assert found["round trip"].details["problem"] == "name_not_found"


# -- round trip ------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_tls", [True, False])
async def test_somebody_elses_server_at_the_public_url_fails(
    right: Environment, tls: Tls, is_tls: bool
) -> None:
    async with saying(http("200 OK", body="hello"), tls if is_tls else None) as port:
        right.set(public_url=f"https://127.0.0.1:{port}", listen_port=0)
        found = await examined(timeout=5)
    if is_tls:
        assert found["certificate"].state is State.PASSED
        assert found["round trip"].details["problem"] == "other_server"
    else:
        assert found["certificate"].details["problem"] == "not_https"


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_public_url_where_nobody_answers_fails_in_time(
    right: Environment, is_there: bool
) -> None:
    async with saying(None) as silent:
        port = silent if is_there else free_port()
        right.set(public_url=f"https://127.0.0.1:{port}", listen_port=0)
        found = await examined(timeout=0.5)
    assert found["certificate"].state is not State.PASSED
    problem = "timeout" if is_there else "connection_refused"
    assert found["round trip"].details["problem"] == problem


# -- store -----------------------------------------------------------------------------------------


async def _kept(store_file: Path, secret: bytes = b"") -> None:
    store = open_store(f"sqlite:{store_file}")
    await store.open()
    if secret:
        await store.callback_secret(secret)
    await store.close()


async def test_a_store_that_is_there_keeps_what_it_had(
    right: Environment, store_file: Path
) -> None:
    await _kept(store_file)
    found = (await examined())["store"]
    assert found.state is State.PASSED
    assert found.details["unfinished"] == 0
    left = {path.name for path in store_file.parent.iterdir()}
    assert left <= {"jobs.db", "jobs.db-journal"}  # which SQLite keeps, and empties
    store = open_store(f"sqlite:{store_file}")
    await store.open()
    assert [record async for record in store.records()] == []
    await store.close()


async def test_a_store_in_memory_passes_with_a_remark(right: Environment) -> None:
    right.set(store=None)
    found = (await examined())["store"]
    assert (found.state, "do not survive" in found.message) == (State.PASSED, True)
    assert "AF10_STORE" in found.advice


@pytest.mark.parametrize("content", [b"no database" * 200, b""])
async def test_a_damaged_store_fails_and_the_way_in_is_examined_all_the_same(
    right: Environment, store_file: Path, content: bytes
) -> None:
    store_file.parent.mkdir()
    store_file.write_bytes(content)
    found = await examined()
    assert states(found) == {"store": "failed", "target": "skipped"}
    assert str(store_file) in found["store"].message
    assert found["store"].advice
    assert store_file.read_bytes() == content


async def test_a_store_that_cannot_be_made_fails(right: Environment, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "jobs.db", Path("/proc/none/jobs.db")):
        right.set(store=f"sqlite:{path}")
        found = (await examined())["store"]
        assert (found.state, "cannot be made" in found.message) == (State.FAILED, True), found


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_store_server_that_is_away_or_silent_fails_without_its_password(
    right: Environment, is_there: bool
) -> None:
    async with saying(None) as silent:
        port = silent if is_there else free_port()
        right.set(store=f"redis://user:canary-word@127.0.0.1:{port}/0")
        found = (await examined(timeout=0.5))["store"]
    assert found.state is State.FAILED
    assert f"redis://127.0.0.1:{port}/0" in found.message
    assert "canary" not in repr(found)


async def test_a_store_server_that_works_passes_and_keeps_nothing(
    right: Environment, tmp_path: Path
) -> None:
    url = SHARED_URLS["valkey"](tmp_path)
    right.set(store=url)
    found = (await examined())["store"]
    assert (found.state, found.details["unfinished"]) == (State.PASSED, 0)
    store = open_store(url)
    await store.open()
    assert [record async for record in store.records()] == []
    await store.close()


async def test_a_callback_secret_that_the_store_does_not_have_fails(
    right: Environment, store_file: Path
) -> None:
    await _kept(store_file, b"another secret of another process")
    right.set(callback_secret=SECRET)
    found = (await examined())["store"]
    assert (found.state, SECRET in repr(found)) == (State.FAILED, False)
    assert "AF10_CALLBACK_SECRET" in found.message


@pytest.mark.parametrize("kind", ["sqlite", "valkey"])
@pytest.mark.parametrize("secret", [None, SECRET])
async def test_a_store_without_a_callback_secret_is_not_given_one(
    right: Environment, tmp_path: Path, kind: str, secret: str | None
) -> None:
    url = SHARED_URLS[kind](tmp_path)
    store = open_store(url)
    await store.open()
    await store.close()
    right.set(store=url, callback_secret=secret)
    assert states(await examined()) == {"target": "skipped"}
    await store.open()
    assert await store.callback_secret(b"the first") == b"the first"
    await store.close()


@pytest.mark.parametrize("kind", ["sqlite", "valkey"])
async def test_the_callback_secret_of_the_store_is_what_others_are_recognised_by(
    right: Environment, tls: Tls, tmp_path: Path, kind: str
) -> None:
    url = SHARED_URLS[kind](tmp_path)
    async with CallbackServer(store=url, tls_cert=tls.cert, tls_key=tls.key) as server:
        right.set(store=url, listen_port=server.port, public_url=server.public_url)
        found = await examined()
    assert states(found) == {"target": "skipped"}
    assert found["listening port"].details["is_in_use"]


# -- what holds for all ----------------------------------------------------------------------------


async def test_a_check_that_breaks_is_a_finding_too(
    right: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Finding:
        raise LookupError("canary")

    monkeypatch.setattr("af10_async.doctor.target._of_folder", broken)
    found = (await examined(out="/tmp"))["target"]
    assert found.message == "the check itself has failed (LookupError)"


async def test_no_secret_stands_in_a_finding_or_in_the_log(
    right: Environment, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    texts = [repr(await examined())]
    canaries = ["canary-key", "canary-name", "canary-word", "canary-secret-of-callbacks"]
    key, name, word, secret = canaries
    right.set(api_key=key, username=name, password=word, callback_secret=secret)
    right.set(store=f"redis://u:{word}@127.0.0.1:{free_port()}")
    texts.append(repr(await examined(timeout=2)))
    right.set(store=f"nonsense:{word}", listen_port=word, public_url=word, base_url=word)
    texts.append(repr(await examined(timeout=2)))
    text = "\n".join([*texts, caplog.text])
    forbidden = [*canaries, sandbox.api_key, sandbox.password, sandbox.username]
    tokens = [each.headers["token"] for each in sandbox.requests if "token" in each.headers]
    assert [each for each in [*forbidden, *tokens] if each in text] == []
