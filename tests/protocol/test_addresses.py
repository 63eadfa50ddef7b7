"""Addresses: a file comes from the public internet over https, or from nowhere."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from af10_async.protocol.addresses import (
    check_api_url,
    check_file_url,
    is_private_host,
    is_public_address,
)

PUBLIC = ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::5"]
NOT_PUBLIC = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.1.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "2001:db8::1",
    "64:ff9b:1::7f00:1",
]


def embedded(address: str) -> dict[str, str]:
    """The ways in which IPv6 can hold an IPv4 address."""
    number = int(ipaddress.IPv4Address(address))
    teredo = (0x20010000 << 96) | (0x41424344 << 64) | (number ^ 0xFFFF_FFFF)
    numbers = {
        "mapped": (0xFFFF << 32) | number,
        "nat64": (0x0064_FF9B << 96) | number,
        "6to4": (0x2002 << 112) | (number << 80),
        "teredo": teredo,
    }
    return {name: str(ipaddress.IPv6Address(value)) for name, value in numbers.items()}


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_public(address: str) -> None:
    assert is_public_address(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_of_no_public_host_is_not(address: str) -> None:
    assert not is_public_address(address)


@pytest.mark.parametrize("way", ["mapped", "nat64", "6to4", "teredo"])
@pytest.mark.parametrize(
    ("inner", "public"),
    [("8.8.8.8", True), ("127.0.0.1", False), ("10.0.0.1", False), ("169.254.169.254", False)],
)
def test_an_ipv4_address_inside_an_ipv6_one_decides(way: str, inner: str, public: bool) -> None:
    assert is_public_address(embedded(inner)[way]) is public


@given(address=st.ip_addresses().map(str))
def test_no_private_address_passes_for_public(address: str) -> None:
    ip = ipaddress.ip_address(address)
    if ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_multicast:
        # Pythons differ about these, which are judged by the address inside.
        has_inner = isinstance(ip, ipaddress.IPv6Address) and (
            ip.ipv4_mapped or ip.sixtofour or ip.teredo
        )
        assert has_inner or not is_public_address(address)


def test_what_is_no_address_is_a_value_error() -> None:
    with pytest.raises(ValueError):
        is_public_address("files.example")


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("a.localhost", True),
        ("127.0.0.1", True),
        ("127.0.0.1.", True),
        ("[::1]", True),
        ("::1", True),
        ("fe80::1%25eth0", True),
        ("10.0.0.8", True),
        ("8.8.8.8", False),
        ("[2606:4700::1111]", False),
        ("files.example", False),
        ("localhost.example", False),
        ("notlocalhost", False),
        ("", False),
    ],
)
def test_a_host_is_private_as_far_as_its_name_tells(host: str, private: bool) -> None:
    assert is_private_host(host) is private


@pytest.mark.parametrize(
    "url",
    [
        "https://files.example/owner.zip?sig=a%2Bb#part",
        "HTTPS://Files.Example/owner.zip",
        "https://files.example:443/x",
        "https://files.example:8443/x",
        "https://files.example./x",
        "https://xn--bcher-kva.example/x",
        "https://files_1.example/x",
        "https://93.184.216.34/x",
        "https://[2606:4700::1111]/x",
        "https://[::ffff:8.8.8.8]/x",
        "https://0x.example/x",
        "https://files.example/@user:pass/x",
        "https://files.example/a file.zip",
        "https://files.example",
    ],
)
def test_a_public_https_address_is_fine(url: str) -> None:
    assert check_file_url(url, trusted=False) is None


# Each with whether the caller, or an AF10 at a private address, may name it.
UNSAFE = {
    "http": ("http://files.example/x", True),
    "http-private": ("http://127.0.0.1:8080/x", True),
    "file": ("file:///etc/passwd", False),
    "file-host": ("file://files.example/x", False),
    "ftp": ("ftp://files.example/x", False),
    "gopher": ("gopher://files.example/x", False),
    "data": ("data:text/plain,x", False),
    "no-scheme": ("//files.example/x", False),
    "path": ("/x", False),
    "empty": ("", False),
    "no-host": ("https:///x", False),
    "no-slashes": ("https:files.example/x", False),
    "port-only": ("https://:443/x", False),
    "user": ("https://user@files.example/x", False),
    "user-and-password": ("https://user:pw@files.example/x", False),
    "empty-user": ("https://@files.example/x", False),
    "user-like-host": ("https://files.example@127.0.0.1/x", False),
    "ssh-port": ("https://files.example:22/x", True),
    "http-port": ("https://files.example:80/x", True),
    "port-zero": ("https://files.example:0/x", True),
    "port-too-large": ("https://files.example:65536/x", False),
    "port-no-number": ("https://files.example:ssh/x", False),
    "loopback": ("https://127.0.0.1/x", True),
    "loopback-dot": ("https://127.0.0.1./x", True),
    "loopback-name": ("https://localhost/x", True),
    "loopback-6": ("https://[::1]/x", True),
    "metadata": ("https://169.254.169.254/latest", True),
    "mapped": ("https://[::ffff:127.0.0.1]/x", True),
    "mapped-hex": ("https://[::ffff:7f00:1]/x", True),
    "compatible": ("https://[::127.0.0.1]/x", True),
    "nat64": ("https://[64:ff9b::7f00:1]/x", True),
    "6to4": ("https://[2002:7f00:1::]/x", True),
    "decimal": ("https://2130706433/x", True),
    "decimal-dot": ("https://2130706433./x", True),
    "octal": ("https://0177.0.0.1/x", True),
    "octal-dot": ("https://0177.0.0.1./x", True),
    "hex": ("https://0x7f000001/x", True),
    "hex-short": ("https://0x7f.1/x", True),
    "hex-upper": ("https://0X7F000001/x", True),
    "hex-at-the-end": ("https://127.0.0.0x1/x", True),
    "short": ("https://127.1/x", True),
    "too-large": ("https://999.999.999.999/x", True),
    "idn-lookalike": ("https://fil\u0435s.example/x", False),
    "idn-circled": ("https://\u24db\u24de\u24d2alhost/x", False),
    "idn-digits": ("https://\uff11\uff12\uff17.0.0.1/x", False),
    "idn-dot": ("https://127\u30020\u30020\u30021/x", False),
    "idn-slash": ("https://files.example\uff0f@127.0.0.1/x", False),
    "percent-host": ("https://%31%32%37.0.0.1/x", False),
    "backslash": ("https://files.example\\@evil.example/x", False),
    "backslash-path": ("https:\\\\127.0.0.1\\x", False),
    "newline": ("https://files.example/x\n", False),
    "crlf-in-host": ("https://files\r\n.example/x", False),
    "tab": ("https://127.0.\t0.1/x", False),
    "nul": ("https://files.example/\x00", False),
    "half-a-surrogate": ("https://files.example/\ud800", False),
    "space-in-host": ("https://files example/x", False),
    "open-bracket": ("https://[::1/x", False),
    "bracketed-name": ("https://[files.example]/x", False),
    "zone": ("https://[fe80::1%25eth0]/x", False),
    "very-long": ("https://files.example/" + "x" * 8192, False),
}


@pytest.mark.parametrize(("url", "trustworthy"), UNSAFE.values(), ids=UNSAFE)
def test_every_other_address_is_refused_unless_trusted(url: str, trustworthy: bool) -> None:
    problem = check_file_url(url, trusted=False)
    assert problem is not None
    assert problem.startswith("it")
    assert (check_file_url(url, trusted=True) is None) is trustworthy


def test_the_reason_does_not_repeat_the_address() -> None:
    for number, (url, _) in enumerate(UNSAFE.values()):
        marked = url + f"canary{number}"
        assert "canary" not in (check_file_url(marked, trusted=False) or "")


@given(text=st.text(st.characters(exclude_categories=()), max_size=40), start=st.booleans())
def test_no_text_raises(text: str, start: bool) -> None:
    url = f"https://{text}" if start else text
    assert isinstance(check_file_url(url, trusted=False), str | None)
    assert check_api_url(url, "https://api.example/v2") in (True, False)


@given(address=st.ip_addresses(v=4).filter(lambda ip: not ip.is_global))
def test_no_spelling_of_an_internal_ipv4_address_is_let_through(
    address: ipaddress.IPv4Address,
) -> None:
    a, b, c, d = address.packed
    hosts = [str(address), str(int(address)), hex(int(address)), f"{a}.{b}.{c * 256 + d}"]
    hosts += [f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", f"{a:#x}.{b:#x}.{c:#x}.{d:#x}", f"{address}."]
    hosts += [f"[{ip}]" for ip in embedded(str(address)).values()]
    for host in hosts:
        assert check_file_url(f"https://{host}/x", trusted=False) is not None, host


BASE = "https://api.autoflex10.example/v2"


@pytest.mark.parametrize(
    ("url", "base", "allowed"),
    [
        (BASE, BASE, True),
        ("https://other.example/v3", BASE, True),
        ("https://other.example:8443/v3/", BASE, True),
        ("http://api.autoflex10.example/v2", BASE, False),
        ("https://127.0.0.1/v2", BASE, False),
        ("https://localhost/v2", BASE, False),
        ("https://0x7f.1/v2", BASE, False),
        ("https://user:pw@other.example/v2", BASE, False),
        ("https://other.example/v2?x=1", BASE, False),
        ("https://other.example/v2?", BASE, False),
        ("https://other.example/v2#x", BASE, False),
        ("https://other.example/v2#", BASE, False),
        ("https://other.example:99999/v2", BASE, False),
        ("https://other.example/v2\n", BASE, False),
        ("https://other.example\\@evil.example/v2", BASE, False),
        ("https://[::1/v2", BASE, False),
        ("ftp://other.example/v2", BASE, False),
        ("/v2", BASE, False),
        ("", BASE, False),
        ("https://127.0.0.1:9/v2", "https://127.0.0.1:8/v2", True),
        ("http://127.0.0.1:9/v2", "https://127.0.0.1:8/v2", False),
        ("http://127.0.0.1:9/v2", "http://127.0.0.1:8/v2", True),
        ("https://other.example/v2", "http://localhost:8/v2", True),
        ("ftp://127.0.0.1/v2", "http://127.0.0.1:8/v2", False),
    ],
)
def test_the_token_goes_to_no_weaker_address_than_the_one_asked(
    url: str, base: str, allowed: bool
) -> None:
    assert check_api_url(url, base) is allowed
