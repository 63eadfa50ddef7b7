"""Tunnels that the service that is examined may have open already."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from af10_async.callback_server import CallbackServer
from af10_async.doctor import State

from ..conftest import Tls
from ..ports import free_port
from ..public_url.test_cloudflared import REGISTERED, StandIn
from .conftest import Environment, examined, states
from .peers import Authority, http, saying

HOST = "af10.example.com"
URL = f"https://{HOST}"

Lead = Callable[[int], None]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """What is started when a tunnel of cloudflared is opened."""
    monkeypatch.setenv("STAND_IN", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    found = StandIn(tmp_path)
    found.plan([REGISTERED])
    return found


@pytest.fixture
def public(tmp_path: Path) -> Tls:
    """The certificate at the public name."""
    return Authority(tmp_path).issue(HOST)


@pytest.fixture
def tunnelled(right: Environment, public: Tls) -> Environment:
    """A named tunnel, which ends at a proxy of others with that certificate."""
    right.set(tls_cert=None, tls_key=None, ca_file=public.ca)
    right.set(public_url=f"cloudflared:backups@{HOST}")
    return right


@pytest.fixture
def lead(monkeypatch: pytest.MonkeyPatch) -> Lead:
    """Makes the public name lead to a port of this machine."""
    port, resolve = free_port(), socket.getaddrinfo

    def resolved(host: Any, service: Any, *arguments: Any, **options: Any) -> Any:
        if host == HOST:
            host, service = "127.0.0.1", port
        return resolve(host, service, *arguments, **options)

    def lead(to: int) -> None:
        nonlocal port
        port = to

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    return lead


def at_the_name(public: Tls, store_file: Path, **options: Any) -> CallbackServer:
    """The service, with the proxy and the tunnel in front of it left out."""
    given: dict[str, Any] = {"tls_cert": public.cert, "tls_key": public.key, "public_url": URL}
    return CallbackServer(**given, store=f"sqlite:{store_file}", **options)


async def test_a_tunnel_that_leads_to_a_service_of_ours_is_not_opened_once_more(
    tunnelled: Environment, program: StandIn, public: Tls, lead: Lead, store_file: Path
) -> None:
    async with at_the_name(public, store_file) as service:
        lead(service.port)
        found = await examined()
    assert program.runs == 0
    assert states(found) == {"target": "skipped"}
    assert found["public URL"].message == (
        f"{URL}, by the tunnel of a callback server of yours that runs already; none was opened"
        " here"
    )
    assert found["round trip"].details["is_here"] is False


async def test_a_service_is_recognised_by_its_tunnel_when_its_certificate_is_for_that_name_only(
    tunnelled: Environment, program: StandIn, public: Tls, lead: Lead, store_file: Path
) -> None:
    async with at_the_name(public, store_file) as service:
        lead(service.port)
        tunnelled.set(listen_port=service.port, tls_cert=public.cert, tls_key=public.key)
        found = await examined()
    assert program.runs == 0
    assert states(found) == {"target": "skipped"}
    assert found["listening port"].details["is_in_use"]


async def test_a_tunnel_of_the_service_that_has_the_port_is_left_to_it_although_it_is_down(
    tunnelled: Environment, program: StandIn, lead: Lead, store_file: Path
) -> None:
    async with CallbackServer(public_url=URL, store=f"sqlite:{store_file}") as service:
        tunnelled.set(listen_port=service.port)
        found = await examined(timeout=5)
    assert program.runs == 0
    assert found["listening port"].state is State.PASSED
    assert "the tunnel of your callback server at the listening port" in found["public URL"].message
    assert found["round trip"].details["problem"] == "connection_refused"


async def test_the_address_of_a_quick_tunnel_is_known_to_the_service_only(
    tunnelled: Environment, program: StandIn, store_file: Path
) -> None:
    tunnelled.set(public_url="cloudflared")
    async with CallbackServer(public_url=URL, store=f"sqlite:{store_file}") as service:
        tunnelled.set(listen_port=service.port)
        found = await examined(timeout=5)
    assert program.runs == 0
    assert found["listening port"].state is State.PASSED
    assert found["public URL"].state is State.SKIPPED
    assert "check_reachable" in found["public URL"].advice
    assert "because_of" not in found["public URL"].details


async def test_a_tunnel_that_leads_to_somebody_else_is_not_opened_once_more(
    tunnelled: Environment, program: StandIn, public: Tls, lead: Lead
) -> None:
    async with saying(http("404 Not Found"), public) as port:
        lead(port)
        found = await examined(timeout=5)
    assert program.runs == 0
    assert "where a server answers already" in found["public URL"].message
    assert "AF10_CALLBACK_SECRET" in found["public URL"].advice
    assert found["round trip"].details["problem"] == "other_server"


async def test_a_tunnel_that_nobody_has_open_is_opened(
    tunnelled: Environment, program: StandIn, public: Tls, lead: Lead
) -> None:
    async with saying(http("530 ", body="error code: 1033"), public) as port:
        lead(port)
        found = await examined(timeout=5)
    assert (program.runs, program.living) == (1, [])
    assert found["public URL"].message == f"{URL}, by a tunnel"
