"""What may be said of how the world reaches a callback server."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from af10_async.protocol.public_url import Tunnel, read_public_url

ADDRESSES = {
    "https://hooks.example.com": "https://hooks.example.com",
    "https://hooks.example.com/": "https://hooks.example.com",
    "https://hooks.example.com//": "https://hooks.example.com",
    "https://hooks.example.com/a/b/": "https://hooks.example.com/a/b",
    "https://hooks.example.com:8443/a": "https://hooks.example.com:8443/a",
    "HTTPS://hooks.example.com": "https://hooks.example.com",
    "https://192.0.2.1": "https://192.0.2.1",
    "https://[2001:db8::1]:8443": "https://[2001:db8::1]:8443",
    "https://xn--bcher-kva.example": "https://xn--bcher-kva.example",
    "https://localhost:1/a..b/.c": "https://localhost:1/a..b/.c",
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_https_address_is_one(text: str) -> None:
    assert read_public_url(text) == ADDRESSES[text]


TUNNELS = {
    "ngrok": Tunnel("ngrok"),
    "ngrok:mine.ngrok.app": Tunnel("ngrok", "mine.ngrok.app"),
    "ngrok-agent": Tunnel("ngrok-agent"),
    "cloudflared": Tunnel("cloudflared"),
    "cloudflared:hooks.example.com": Tunnel("cloudflared", "hooks.example.com"),
    "cloudflared:my_tunnel-1@hooks.example.com": Tunnel(
        "cloudflared", "hooks.example.com", "my_tunnel-1"
    ),
}


@pytest.mark.parametrize("text", TUNNELS)
def test_a_tunnel_is_named(text: str) -> None:
    assert read_public_url(text) == TUNNELS[text]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://hooks.example.com",
        "hooks.example.com",
        "//hooks.example.com",
        "https:",
        "https://",
        "https:///path",
        "https://:8443",
        "https:hooks.example.com",
        "https:/hooks.example.com",
        "https://hooks.example.com?x=1",
        "https://hooks.example.com?",
        "https://hooks.example.com/#x",
        "https://hooks.example.com/#",
        "https://hooks.example.com:0",
        "https://hooks.example.com:",
        "https://hooks.example.com:65536",
        "https://hooks.example.com:port",
        "https://[2001:db8::1",
        "https://user@hooks.example.com",
        "https://user:word@hooks.example.com",
        "https://@hooks.example.com",
        "https://hooks.example.com\\@evil.example",
        "https://hooks.example.com/a b",
        "https://hooks.example.com/\r\nX: y",
        "https://hooks.example.com\n",
        "https://bücher.example",
        "https://hooks.example.com/../a",
        "https://hooks.example.com/a/.",
        "https://hooks.example.com/%2e%2e/a",
        "http\u017f://hooks.example.com",
        "ngrok:",
        "ngrok:-x",
        "ngrok:tunnel@hooks.example.com",
        "ngrok-agent:hooks.example.com",
        "cloudflared:@hooks.example.com",
        "cloudflared:a@b@hooks.example.com",
        "cloudflared:hooks.example.com/path",
        "Ngrok",
        " ngrok",
        "ngrok\n",
        "localtunnel",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_public_url(text)


@given(st.one_of(st.text(), st.text().map("https://{}".format), st.text().map("ngrok:{}".format)))
def test_whatever_is_given_it_is_an_address_that_a_key_can_be_put_behind_or_refused(
    text: str,
) -> None:
    try:
        found = read_public_url(text)
    except ValueError:
        return
    if isinstance(found, str):
        assert read_public_url(found) == found
        before, after = urlsplit(found), urlsplit(f"{found}/af10/key?id=1")
        assert (after.scheme, after.netloc) == ("https", before.netloc)
        assert (after.path, after.query) == (f"{before.path}/af10/key", "id=1")
