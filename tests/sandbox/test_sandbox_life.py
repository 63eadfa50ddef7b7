"""Opening and closing."""

from __future__ import annotations

import asyncio
import stat
import sys
from pathlib import Path

import httpx
import pytest

from af10_async.sandbox import Account, Fault, Sandbox

from .conftest import wired


async def test_it_closes_at_once_with_requests_under_way() -> None:
    """Hanging, slow, stalled, in a file that nobody reads: all are cut, none is answered."""
    async with asyncio.timeout(15):
        async with wired(file_size=64 * 1024**2) as wire:
            url = await wire.redeem(await wire.start())
            wire.sandbox.faults.add(
                Fault.hang(on="start"), Fault.slow(60, on="vehicle"), Fault.stall(5, on="file")
            )
            port = httpx.URL(url).port
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            requests = [
                asyncio.create_task(request)
                for request in (wire.post(), wire.get("/vehicle"), wire.http.get(url))
            ]
            while len(wire.sandbox.requests) < 6:  # three of the start, and these
                await asyncio.sleep(0)
            writer.write(f"GET {httpx.URL(url).path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await asyncio.sleep(0.03)
            assert not any(request.done() for request in requests)
        results = await asyncio.gather(*requests, return_exceptions=True)
        assert all(isinstance(result, httpx.TransportError) for result in results)
        writer.transport.abort()


async def test_it_closes_at_once_with_callbacks_due_and_under_way() -> None:
    """Those due are forgotten, those under way are dropped."""
    writers: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with asyncio.timeout(15):
        async with wired() as wire:
            wire.sandbox.faults.add(Fault.late(60), Fault.early(skip=1))
            await wire.post()
            await wire.post(f"https://127.0.0.1:{port}/silent")
            early = asyncio.create_task(wire.post(f"https://127.0.0.1:{port}/silent"))
            while len(writers) < 2:
                await asyncio.sleep(0)
        assert isinstance((await asyncio.gather(early, return_exceptions=True))[0], Exception)
        assert [job.callbacks for job in wire.sandbox.jobs] == [[], [], []]
    silent.close()
    for writer in writers:
        writer.transport.abort()
    await silent.wait_closed()
    assert len(writers) == 2


async def test_nothing_listens_after_closing() -> None:
    """Its port is free, and its folder gone."""
    async with Sandbox(tls=True) as sandbox:
        folder, url = sandbox.ca_pem.parent, sandbox.base_url
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert sandbox.ca_file == sandbox.ca_pem
    assert not folder.exists()
    async with httpx.AsyncClient() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(url)


async def test_certificates_are_made_when_asked_for() -> None:
    """The key is its owner's; without TLS there is no `ca_file`, but a CA all the same."""
    async with Sandbox() as sandbox:
        assert sandbox.ca_file is None
        cert, key = sandbox.issue_certificate("localhost")
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert cert.read_text().startswith("-----BEGIN CERTIFICATE-----")
        assert sandbox.ca_pem.parent == cert.parent


async def test_plain_http_needs_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """And whoever needs `trustme` is told, in one sentence, how to get it."""
    monkeypatch.setitem(sys.modules, "trustme", None)
    async with Sandbox() as sandbox, httpx.AsyncClient() as http:
        assert (await http.get(sandbox.base_url + "/authenticate")).status_code == 401
        with pytest.raises(ImportError, match=r'pip install "af10-async\[sandbox\]"'):
            sandbox.issue_certificate("localhost")
    with pytest.raises(ImportError, match="the sandbox needs the extra"):
        async with Sandbox(tls=True):
            pass


async def test_a_port_that_is_taken_leaves_nothing_behind() -> None:
    """The error is the system's."""
    async with Sandbox() as sandbox:
        port = httpx.URL(sandbox.base_url).port
        assert port is not None
        with pytest.raises(OSError, match="in use"):
            async with Sandbox(port=port):
                pass


async def test_used_in_the_wrong_order() -> None:
    """It has no address before it runs, and cannot be entered twice."""
    sandbox = Sandbox()
    with pytest.raises(RuntimeError, match="is not running"):
        _ = sandbox.base_url
    async with sandbox:
        with pytest.raises(RuntimeError, match="running already"):
            await sandbox.__aenter__()


@pytest.mark.parametrize(
    ("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("localhost", "localhost")]
)
async def test_its_address_can_be_used(host: str, shown: str) -> None:
    """Also when it listens on all addresses, or on IPv6."""
    async with Sandbox(host=host) as sandbox, httpx.AsyncClient() as http:
        assert sandbox.base_url.startswith(f"http://{shown}:")
        assert (await http.get(sandbox.base_url + "/authenticate")).status_code == 401


def test_accounts_are_at_least_one_and_differ() -> None:
    """And a made-up one shows no secret."""
    with pytest.raises(ValueError, match="at least one Account"):
        Sandbox(accounts=[])
    with pytest.raises(ValueError, match="same username"):
        Sandbox(accounts=[Account(username="x"), Account(username="x")])
    account = Account()
    assert account.password not in repr(account)
    assert account.api_key not in repr(account)
    assert Account().username != account.username


def test_it_imports_nothing_of_the_client() -> None:
    """A misreading of the wire must not cancel out: the package refers only to itself."""
    package = Path(__file__).parents[2] / "af10_async" / "sandbox"
    for module in package.rglob("*.py"):
        depth = len(module.relative_to(package).parts)
        text = module.read_text()
        assert "from " + "." * (depth + 1) not in text
        assert "import af10_async" not in text
        assert "from af10_async" not in text
