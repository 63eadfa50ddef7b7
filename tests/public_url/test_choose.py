"""From what is configured to the way that the world takes."""

from __future__ import annotations

import pytest

from af10_async.callback_server import CallbackServer
from af10_async.errors import ConfigurationError
from af10_async.public_url import (
    Cloudflared,
    FixedURL,
    LocalServer,
    Ngrok,
    NgrokAgent,
    OwnAddress,
    PublicURL,
)
from af10_async.public_url.choose import chosen
from af10_async.runtime import Runtime


def choose(
    public_url: str | PublicURL | None, *, has_tls: bool = False, host: str = "127.0.0.1"
) -> PublicURL:
    return chosen(public_url, has_tls=has_tls, host=host, runtime=Runtime())


def unheard(address: str | None) -> None:
    pytest.fail(f"told {address}")


async def test_an_address_is_what_it_says() -> None:
    way = choose("https://hooks.example.com/a/")
    assert isinstance(way, FixedURL)
    assert not way.may_change
    async with way.open(LocalServer("127.0.0.1", 8443, False), unheard) as address:
        assert address == way.url == "https://hooks.example.com/a"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ngrok", Ngrok),
        ("ngrok:mine.ngrok.app", Ngrok),
        ("ngrok-agent", NgrokAgent),
        ("cloudflared", Cloudflared),
        ("cloudflared:tunnel@hooks.example.com", Cloudflared),
    ],
)
def test_a_tunnel_is_known_by_its_name(name: str, kind: type[PublicURL]) -> None:
    way = choose(name)
    assert type(way) is kind
    assert way.may_change is ("@" not in name)  # a named one keeps its address


def test_a_way_of_ones_own_is_taken_as_it_is() -> None:
    way = FixedURL("https://hooks.example.com")
    assert choose(way) is way


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "https://127.0.0.1:8443"),
        ("hooks.example.com", "https://hooks.example.com:8443"),
        ("2001:db8::1", "https://[2001:db8::1]:8443"),
    ],
)
async def test_a_server_with_a_certificate_may_have_its_own_address(
    host: str, address: str
) -> None:
    way = choose(None, has_tls=True, host=host)
    assert isinstance(way, OwnAddress)
    async with way.open(LocalServer(host, 8443, True), unheard) as found:
        assert found == address


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "0:0:0:0:0:0:0:0", "::0"])
def test_an_address_that_means_all_of_them_is_none(host: str) -> None:
    with pytest.raises(ConfigurationError, match="listens on all addresses"):
        choose(None, has_tls=True, host=host)
    assert isinstance(choose("https://hooks.example.com", has_tls=True, host=host), FixedURL)


def test_without_address_and_certificate_it_is_said_what_to_set() -> None:
    with pytest.raises(ConfigurationError) as caught:
        choose(None)
    for word in ("AF10_PUBLIC_URL", "ngrok", "cloudflared", "tls_cert"):
        assert word in str(caught.value)


@pytest.mark.parametrize("text", ["http://canary.example", "https://u:canary@x.example", "canary"])
def test_what_is_no_way_is_refused_and_not_repeated(text: str) -> None:
    """It may hold a password."""
    for refuse in (choose, FixedURL, lambda url: CallbackServer(public_url=url)):
        with pytest.raises(ConfigurationError, match="public_url must be") as caught:
            refuse(text)
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_tunnel_is_no_fixed_address() -> None:
    with pytest.raises(ConfigurationError, match="https address"):
        FixedURL("ngrok")
