"""Certificates that are no good, and servers that speak no TLS, or none that helps."""

from __future__ import annotations

import asyncio
import shutil
import signal
import ssl
import subprocess
from pathlib import Path

import pytest

from af10_async.callback_server import CallbackServer
from af10_async.errors import UnreachableProblem as Problem

from ..ports import free_port
from .conftest import Refused
from .tools import (
    SECRET,
    Authority,
    Talk,
    answering,
    greeting,
    hangs_up,
    response,
    says_nothing,
    self_signed,
    serving,
    without_a_certificate_for_any_name,
)

# -- certificates ----------------------------------------------------------------------------------


async def test_a_certificate_of_an_unknown_authority_is_told(
    refused: Refused, authority: Authority
) -> None:
    async with serving(hangs_up, authority.context()) as port:
        error = await refused(f"https://127.0.0.1:{port}", is_trusted=False)
    assert error.problem is Problem.UNTRUSTED_CERTIFICATE
    assert "an authority that AF10 trusts" in str(error)


async def test_a_self_signed_certificate_is_told(refused: Refused, tmp_path: Path) -> None:
    async with serving(hangs_up, self_signed(tmp_path)) as port:
        error = await refused(f"https://127.0.0.1:{port}")
    assert error.problem is Problem.UNTRUSTED_CERTIFICATE
    assert "self" in str(error)


async def test_an_incomplete_chain_is_told(refused: Refused, authority: Authority) -> None:
    async with serving(hangs_up, authority.with_incomplete_chain()) as port:
        error = await refused(f"https://127.0.0.1:{port}")
    assert error.problem is Problem.UNTRUSTED_CERTIFICATE
    assert "serve the whole chain" in str(error)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("localhost", "hooks.example.com"),
        ("127.0.0.1", "127.0.0.2"),
        ("127.0.0.1", "localhost"),
        ("localhost", "127.0.0.1"),
    ],
    ids=["another name", "another address", "a name only", "an address only"],
)
async def test_a_certificate_for_another_host_is_told(
    refused: Refused, authority: Authority, asked: str, name: str
) -> None:
    async with serving(hangs_up, authority.context(name)) as port:
        error = await refused(f"https://{asked}:{port}")
    assert error.problem is Problem.WRONG_HOST
    assert "has a certificate for another name" in str(error)


@pytest.mark.parametrize("days", [(-30, -1), (1, 30)], ids=["not any more", "not yet"])
async def test_a_certificate_that_is_not_valid_now_is_told(
    refused: Refused, authority: Authority, days: tuple[float, float]
) -> None:
    async with serving(hangs_up, authority.context(days=days)) as port:
        error = await refused(f"https://127.0.0.1:{port}")
    assert error.problem is Problem.EXPIRED_CERTIFICATE
    assert "renew it, and check the clock" in str(error)


# -- no https --------------------------------------------------------------------------------------


async def test_the_server_itself_without_tls_is_told(authority: Authority) -> None:
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    async with CallbackServer(port=port, public_url=url, callback_secret=SECRET) as server:
        with pytest.raises(Exception, match="does not speak https") as caught:
            await server.check_reachable(ca_file=authority.file)
    assert getattr(caught.value, "problem", None) is Problem.NOT_HTTPS


@pytest.mark.parametrize(
    "talk",
    [answering(response("400 Bad Request")), hangs_up],
    ids=["that answers", "that hangs up"],
)
async def test_a_plain_http_server_is_told(refused: Refused, talk: Talk) -> None:
    """Some answer to a TLS greeting in plain text, and some do not answer."""

    async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(response("400 Bad Request"))
        await writer.drain()
        await says_nothing(reader, writer)

    async with serving(talk if talk is hangs_up else at_once) as port:
        error = await refused(f"https://127.0.0.1:{port}")
    assert error.problem is Problem.NOT_HTTPS
    assert "turn TLS on there" in str(error)


@pytest.mark.skipif(not shutil.which("nginx"), reason="needs nginx (Debian: nginx-light)")
async def test_nginx_without_tls_is_told(refused: Refused, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; server {{ listen 127.0.0.1:{port}; return 200; }}\n"
        + "".join(
            f"{kind}_temp_path {tmp_path}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + "}\n"
    )
    command = ["nginx", "-e", "stderr", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    nginx = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
    try:
        await listens(port)
        error = await refused(f"https://127.0.0.1:{port}")
    finally:
        nginx.send_signal(signal.SIGTERM)
        await nginx.wait()
    assert error.problem is Problem.NOT_HTTPS


async def listens(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
        else:
            writer.transport.abort()
            return


async def test_a_tls_server_that_knows_no_such_name_is_told(
    refused: Refused, authority: Authority
) -> None:
    context = without_a_certificate_for_any_name(authority.context("localhost"))
    async with greeting(context) as port:
        error = await refused(f"https://localhost:{port}")
    assert error.problem is Problem.NOT_HTTPS
    assert "refuses the TLS handshake" in str(error)
    assert "for this name" in str(error)


@pytest.mark.skipif(not ssl.HAS_TLSv1_1, reason="needs an OpenSSL that still has TLS 1.1")
async def test_a_tls_server_that_speaks_too_old_a_version_is_told(
    refused: Refused, authority: Authority
) -> None:
    context = authority.context()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with greeting(context) as port:
        error = await refused(f"https://127.0.0.1:{port}")
    assert error.problem is Problem.NOT_HTTPS
    assert "refuses the TLS handshake" in str(error)


async def test_a_server_that_wants_a_certificate_of_its_callers_is_told(
    refused: Refused, authority: Authority
) -> None:
    context = authority.context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # else it says so after the handshake only
    async with greeting(context) as port:
        error = await refused(f"https://127.0.0.1:{port}")
    assert error.problem is Problem.NOT_HTTPS
    assert "refuses the TLS handshake" in str(error)
