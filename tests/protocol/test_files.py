"""File answers: whether it is the file, how long it is, and a name that harms nobody."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from af10_async.protocol.files import (
    FALLBACK_NAME,
    MAX_NAME_BYTES,
    Busy,
    FileHead,
    Moved,
    NotAFile,
    Stale,
    file_name,
    read_file_error,
    read_file_head,
    safe_name,
)

URL = "https://files.example/exports/owner.zip?sig=x"


def head(status: int = 200, **headers: str) -> object:
    return read(headers, status)


def read(headers: dict[str, str], status: int = 200) -> object:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_file_head(status, named, URL)


@pytest.mark.parametrize(
    ("headers", "length", "ends_clearly"),
    [
        ({"content_length": "12"}, 12, True),
        ({"content_length": "0"}, 0, True),
        ({"content_length": "9" * 18}, int("9" * 18), True),
        ({"transfer_encoding": "chunked"}, None, True),
        ({"transfer_encoding": "Chunked"}, None, True),
        ({}, None, False),
        ({"content_length": "1", "content_encoding": "identity"}, 1, True),
        ({"content_length": "1", "content_encoding": " Identity "}, 1, True),
        ({"content_length": "1", "content_encoding": ""}, 1, True),
        ({"content_length": "1", "content_type": "application/zip"}, 1, True),
        ({"content_length": "1", "content_type": ""}, 1, True),
        ({"content_length": "1", "content_type": "text/html-ish"}, 1, True),
    ],
)
def test_a_200_is_the_file_and_says_whether_its_end_can_be_told(
    headers: dict[str, str], length: int | None, ends_clearly: bool
) -> None:
    assert read(headers) == FileHead(length, ends_clearly, "owner.zip")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_leads_on_or_to_nowhere(status: int) -> None:
    assert head(status, location="/other") == Moved("/other")
    assert isinstance(head(status), NotAFile)
    assert isinstance(head(status, location=""), NotAFile)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_address_that_is_no_longer_good_is_stale(status: int) -> None:
    assert head(status, content_type="text/html") == Stale()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 599])
def test_a_server_in_trouble_is_busy(status: int) -> None:
    assert head(status, content_type="text/html") == Busy()


@pytest.mark.parametrize("status", [100, 201, 202, 204, 206, 226, 300, 304, 400, 405, 416])
def test_no_other_status_answers_a_plain_get(status: int) -> None:
    found = head(status, content_length="5", content_range="bytes 0-4/5", location="/x")
    assert found == NotAFile(f"HTTP {status} does not answer a plain GET")


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "x-gzip", "gzip, gzip", "zstd"])
def test_an_encoded_answer_is_not_the_file(encoding: str) -> None:
    assert head(content_encoding=encoding, content_length="5") == NotAFile(
        "it is encoded, although that was not asked for"
    )


@pytest.mark.parametrize("kind", ["text/html", "TEXT/HTML", "text/html; charset=utf-8"])
def test_a_web_page_is_not_the_file(kind: str) -> None:
    assert head(content_type=kind, content_length="5") == NotAFile("it is a web page")


@pytest.mark.parametrize(
    "length",
    [
        "",
        "-1",
        "+5",
        "5, 5",
        "5;6",
        "0x10",
        "1e3",
        "1.0",
        " 5",
        "five",
        "9" * 19,
        "\u00b2",
        "\uff15",
    ],
)
def test_a_nonsense_length_is_refused(length: str) -> None:
    assert head(content_length=length) == NotAFile("its Content-Length is nonsense")


def test_a_body_that_says_in_two_ways_where_it_ends_is_refused() -> None:
    found = head(content_length="5", transfer_encoding="chunked")
    assert found == NotAFile("it says in two ways where it ends")


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="backup.zip"', "backup.zip"),
        ("attachment; filename=backup.zip", "backup.zip"),
        ("attachment;filename=backup.zip;size=5", "backup.zip"),
        ('ATTACHMENT ; FileName = "backup.zip"', "backup.zip"),
        ('inline; filename="a;b.zip"', "a;b.zip"),
        ('attachment; filename="a b.zip" ; x=y', "a b.zip"),
        (r'attachment; filename="a \"b\".zip"', "a _b_.zip"),
        ('attachment; filename="backup.zip', "backup.zip"),
        ('attachment; note="; filename=evil"; filename=good.zip', "good.zip"),
        ("attachment; filename*=UTF-8''%e2%82%ac%20rates.zip", "\u20ac rates.zip"),
        ("attachment; filename*=utf-8'nl'caf%C3%A9.zip", "caf\u00e9.zip"),
        ("attachment; filename*=ISO-8859-1''caf%E9.zip", "caf\u00e9.zip"),
        ("attachment; filename=\"plain.zip\"; filename*=UTF-8''better.zip", "better.zip"),
        ("attachment; filename*=UTF-8''better.zip; filename=\"plain.zip\"", "better.zip"),
        ("attachment; filename*=UTF-8''%FF.zip", "\ufffd.zip"),
        ("attachment; filename*=KOI8-R''x.zip; filename=plain.zip", "plain.zip"),
        ("attachment; filename*=UTF-8'x.zip; filename=plain.zip", "plain.zip"),
        ("attachment; filename*=x.zip; filename=plain.zip", "plain.zip"),
        ("attachment; filename*=; filename=plain.zip", "plain.zip"),
        ("attachment; xfilename=no.zip", "owner.zip"),
        ('attachment; filename=""', "owner.zip"),
        ('attachment; filename="../"', "owner.zip"),
        ('attachment; filename="', "owner.zip"),
        ("attachment", "owner.zip"),
        ("", "owner.zip"),
        (";;;=;==", "owner.zip"),
        (None, "owner.zip"),
    ],
)
def test_the_name_is_the_headers_else_the_urls(header: str | None, name: str) -> None:
    assert file_name(header, URL) == name
    headers = {} if header is None else {"content_disposition": header}
    assert read({"content_length": "1", **headers}) == FileHead(1, True, name)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://files.example/a/owner.zip", "owner.zip"),
        ("https://files.example/a/caf%C3%A9.zip?x=/y.zip#/z.zip", "caf\u00e9.zip"),
        ("https://files.example/a/..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("https://files.example/a/%2e%2e", FALLBACK_NAME),
        ("https://files.example/a/", FALLBACK_NAME),
        ("https://files.example", FALLBACK_NAME),
        ("https://[::1/owner.zip", FALLBACK_NAME),
        ("", FALLBACK_NAME),
    ],
)
def test_without_a_header_the_last_part_of_the_url_is_the_name(url: str, name: str) -> None:
    assert file_name(None, url) == name


@pytest.mark.parametrize(
    ("hostile", "name"),
    [
        ("../../x", "x"),
        ("/etc/x", "x"),
        ("C:\\x", "x"),
        ("C:x", "C_x"),
        ("..\\x", "x"),
        ("\\\\server\\share\\x", "x"),
        ("a/b/", ""),
        ("..", ""),
        (".", ""),
        ("...", ""),
        (" . . ", ""),
        ("", ""),
        ("---", ""),
        ("CON", "_CON"),
        ("nul.zip", "_nul.zip"),
        ("com1.tar.gz", "_com1.tar.gz"),
        ("COM\u00b9.txt", "_COM\u00b9.txt"),
        ("lpt9", "_lpt9"),
        ("CON .txt", "_CON .txt"),
        ("-con", "_con"),
        ("CONIN$", "_CONIN$"),
        ("console.txt", "console.txt"),
        ("com10", "com10"),
        ("a\0b", "a_b"),
        ("a\r\nb", "a_b".replace("_", "__")),
        ("a\x1b[31m", "a_[31m"),
        ("a\u202egpj.exe", "a_gpj.exe"),
        ("a\u2066b\u061cc\ufeffd", "a_b_c_d"),
        ("a\ud800b", "a_b"),
        ("-rf", "rf"),
        ("~root", "root"),
        (".bashrc", "bashrc"),
        ("-.bashrc", "bashrc"),
        ("~ .-x", "x"),
        ("x. . ", "x"),
        ('a<b>c:d|e?f*g"h', "a_b_c_d_e_f_g_h"),
        ("x:stream", "x_stream"),
        ("owner 2024 (final).zip", "owner 2024 (final).zip"),
    ],
)
def test_a_hostile_name_becomes_a_harmless_one(hostile: str, name: str) -> None:
    assert safe_name(hostile) == name


@pytest.mark.parametrize(
    ("long", "name"),
    [
        ("x" * 300, "x" * 200),
        ("x" * 300 + ".zip", "x" * 196 + ".zip"),
        ("x" * 200, "x" * 200),
        ("\u20ac" * 100 + ".zip", "\u20ac" * 65 + ".zip"),
        ("x." + "y" * 300, "x." + "y" * 198),
        ("x" * 199 + "." + "y" * 300, "x" * 199),
        ("con" + " " * 195 + "yy" + ".zip", "_con" + " " * 192 + ".zip"),
    ],
    ids=[
        "plain",
        "extension",
        "just-fits",
        "multibyte",
        "long-extension",
        "dot-at-the-cut",
        "device",
    ],
)
def test_a_long_name_is_cut_between_characters_and_keeps_its_extension(
    long: str, name: str
) -> None:
    assert safe_name(long) == name


DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"}
DEVICES |= {f"{port}{n}" for port in ("com", "lpt") for n in "0123456789\u00b9\u00b2\u00b3"}
hostile_names = st.lists(
    st.sampled_from([*"./\\ -~:_;", "\0", "..", "\r\n", "%2F", "CON", "nul", "com1", "LPT9"])
    | st.sampled_from(["\u202e", "\u2067", "\ud800", "\u20ac" * 70, "x" * 190, ".zip", "''"])
    | st.text(st.characters(exclude_categories=()), max_size=5),
    max_size=8,
).map("".join)


def check_harmless(name: str) -> None:
    assert name not in ("", ".", "..")
    assert not set(name) & set('/\\:*?"<>|')
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]", name)
    assert len(name.encode()) <= MAX_NAME_BYTES
    assert name.partition(".")[0].rstrip(" ").lower() not in DEVICES
    assert name[0] not in "-~. "
    assert name[-1] not in ". "


@given(name=hostile_names)
def test_a_safe_name_is_empty_or_harmless_and_stays_as_it_is(name: str) -> None:
    safe = safe_name(name)
    if safe:
        check_harmless(safe)
    assert safe_name(safe) == safe


@given(
    name=hostile_names,
    form=st.sampled_from(
        ["{}", "attachment; filename={}", 'x; filename="{}"', "x; filename*=UTF-8''{}"]
    ),
    url=hostile_names,
)
def test_the_name_of_a_file_is_always_harmless(name: str, form: str, url: str) -> None:
    check_harmless(file_name(form.format(name), "https://files.example/" + url))
    check_harmless(file_name(None, url))


@pytest.mark.parametrize(
    ("body", "meaning"),
    [
        (b'{"errorCode": 401, "errorMessage": "x"}', Stale()),
        (b'{"errorCode": "404"}', Stale()),
        (b'{"errorCode": 17, "errorMessage": "Not Authorized"}', Stale()),
        (b'{"errorCode": 429}', Busy()),
        (b'{"errorCode": "503"}', Busy()),
        (b'{"errorCode": 17}', NotAFile("it is an error message of AF10")),
        (b'{"errorCode": 0}', None),
        (b'{"errorCode": ""}', None),
        (b'{"rows": []}', None),
        (b"[1]", None),
        (b"not json", None),
        (b"[" * 60_000, None),
        (b"\xff\xfe", None),
        (b"", None),
    ],
)
def test_an_error_message_with_http_200_is_told_from_a_file(body: bytes, meaning: object) -> None:
    assert read_file_error(body) == meaning


@pytest.mark.parametrize(
    ("headers", "may_be"),
    [
        ({"content-type": "application/json", "content-length": "60"}, True),
        ({"content-type": "application/problem+json; x=y", "content-length": "60"}, True),
        ({"content-type": "text/plain", "transfer-encoding": "chunked"}, True),
        ({"content-length": "60"}, True),
        ({"content-type": "application/json", "content-length": "65536"}, False),
        ({"content-type": "application/zip", "content-length": "60"}, False),
    ],
)
def test_only_small_text_may_be_an_error_message(headers: dict[str, str], may_be: bool) -> None:
    head = read_file_head(200, headers, "https://x.example/y")
    assert isinstance(head, FileHead)
    assert head.may_be_error is may_be
