"""Proxies of the environment are used for the hosts that they are for, and for no others."""

from __future__ import annotations

import ssl

import httpx
import pytest

from af10_async.network import proxy_mounts

PROXY = "http://proxy.example:8080"


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def mounts() -> dict[str, bool]:
    """Which patterns are mounted, and whether a proxy is."""
    found = proxy_mounts(ssl.create_default_context(), 5)
    for each in found.values():
        if each is not None:
            await each.aclose()
    async with httpx.AsyncClient(mounts=found):  # they are patterns that httpx understands
        return {pattern: each is not None for pattern, each in found.items()}


async def test_without_proxies_nothing_is_mounted() -> None:
    assert await mounts() == {}


@pytest.mark.parametrize("proxy", [PROXY, PROXY.removeprefix("http://")])
async def test_each_scheme_has_a_proxy_of_its_own(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    assert await mounts() == {"https://": True}
    monkeypatch.setenv("ALL_PROXY", proxy)
    assert await mounts() == {"https://": True, "all://": True}


async def test_no_proxy_names_hosts_that_go_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", "example.com, .example.org,localhost,127.0.0.1,::1,http://a.b")
    assert await mounts() == {
        "https://": True,
        "all://*example.com": False,
        "all://*.example.org": False,
        "all://localhost": False,
        "all://127.0.0.1": False,
        "all://[::1]": False,
        "http://a.b": False,
    }
    monkeypatch.setenv("NO_PROXY", "example.com,*")
    assert await mounts() == {}
