"""Archives and ranges."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from af10_async.sandbox import Sandbox
from af10_async.sandbox.archives import MAX_SIZE, make_archive, safe_name
from af10_async.sandbox.ranges import Span, Unsatisfiable, asked_span

from .conftest import Wire, wired

SIZE = 200_000


@settings(deadline=None, max_examples=25)
@given(size=st.integers(1024, 400_000), number=st.integers(1, 10**6), account=st.text(max_size=300))
def test_an_archive_has_exactly_its_size_and_is_sound(size: int, number: int, account: str) -> None:
    """For any size from 1 KiB, any number and any username."""
    archive = make_archive(account, number, size)
    content = archive.read(0, size)

    assert len(content) == size
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        assert opened.testzip() is None
        assert all(info.compress_type == zipfile.ZIP_STORED for info in opened.infolist())


@pytest.mark.parametrize("more", [0, 1, 75, 200, 500, 1023, 1024, 1500])
def test_an_archive_just_over_one_entry_is_sound(
    more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a second entry begins, there is room for its headers."""
    monkeypatch.setattr("af10_async.sandbox.archives._ENTRY_SIZE", 5000)
    make = make_archive.__wrapped__
    for size in range(5000 + more, 5600 + more, 37):
        content = make("x", 1, size).read(0, size)
        with zipfile.ZipFile(io.BytesIO(content)) as opened:
            assert opened.testzip() is None


def test_archives_are_the_same_every_time_and_differ_from_each_other() -> None:
    """They depend on the account and the number, and on nothing else."""
    make = make_archive.__wrapped__
    one, again = make("a", 1, SIZE), make("a", 1, SIZE)
    others = [make("a", 2, SIZE), make("b", 1, SIZE)]

    assert one.read(0, SIZE) == again.read(0, SIZE)
    assert one.etag == again.etag
    assert len({archive.sha256 for archive in [one, *others]}) == 3
    assert len({archive.etag for archive in [one, *others]}) == 3


@settings(deadline=None)
@given(st.data())
def test_any_piece_of_a_big_archive_is_that_piece(data: st.DataObject) -> None:
    """Also of one that is not kept whole in memory."""
    size = 1_300_000
    archive = make_archive("a", 1, size)
    whole = b"".join(archive.chunks(0, size, 99_991))
    start = data.draw(st.integers(0, size))
    stop = data.draw(st.integers(start, size))
    assert archive.read(start, stop) == whole[start:stop]


def test_gigabytes_take_no_memory() -> None:
    """The CRC is right for 2 GiB at once, and no more than a chunk is in memory."""
    size = 2 * 1024**3
    tracemalloc.start()
    archive = make_archive.__wrapped__("a", 1, size)
    tail = archive.read(size - 1000, size)
    sum(len(chunk) for chunk in archive.chunks(size // 2, size // 2 + 20 * 1024**2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 4 * 1024**2
    assert tail.startswith(b"PK", len(tail) - 22)


def test_the_checksum_of_filler_is_that_of_its_bytes() -> None:
    """Although it is put together from those of its blocks."""
    archive = make_archive.__wrapped__("a", 1, 3 * 1024**2 + 17)
    content = archive.read(0, archive.size)
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        for info in opened.infolist():
            assert zlib.crc32(opened.read(info.filename)) == info.CRC


@pytest.mark.parametrize("size", [0, 1023, MAX_SIZE + 1])
def test_a_size_that_cannot_be_is_refused_at_once(size: int) -> None:
    """When the sandbox is made, in a sentence that names the bounds."""
    with pytest.raises(ValueError, match="file_size must be from 1024 to"):
        Sandbox(file_size=size)


@pytest.mark.parametrize(
    ("account", "name"),
    [("jan", "jan"), ("../../x", "_.._x"), ("é b", "__b"), ("...", "account"), ("", "account")],
)
def test_a_username_is_made_safe_for_a_file_name(account: str, name: str) -> None:
    """Nothing but ASCII letters, digits and a few signs, and no dot in front."""
    assert safe_name(account) == name


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_a_range_is_read_as_the_standard_says(first: int, last: int) -> None:
    """From and to, from to the end, and the last so many, of 1000 bytes."""
    size = 1000

    def asked(text: str) -> Span | None:
        try:
            return asked_span({"range": f"bytes={text}"}, size, '"e"', "date")
        except Unsatisfiable:
            return None

    open_end = Span(first, size, partial=True) if first < size else None
    assert asked(f"{first}-") == open_end
    assert asked(f"-{last}") == (Span(max(0, size - last), size, partial=True) if last else None)
    if first > last:
        assert asked(f"{first}-{last}") == Span(0, size)
    elif first < size:
        assert asked(f"{first}-{last}") == Span(first, min(last + 1, size), partial=True)
    else:
        assert asked(f"{first}-{last}") is None


@pytest.mark.parametrize("text", ["bytes=-", "bytes=1", "items=1-2", "bytes=0-1,3-4", "bytes=a-b"])
def test_a_range_that_is_not_understood_is_ignored(text: str) -> None:
    """The whole file is the answer."""
    assert asked_span({"range": text}, 10, "", "") == Span(0, 10)


@pytest.mark.parametrize("size", [64 * 1024, 3 * 1024**2])
async def test_ranges_over_the_wire(size: int) -> None:
    """206 with Content-Range and the very bytes; 416 beyond the end."""
    async with wired(file_size=size) as wire:
        job = await wire.start()
        url, content = await wire.redeem(job), wire.sandbox.archive(job)

        part = await wire.http.get(url, headers={"Range": f"bytes=1000-{size - 1001}"})
        beyond = await wire.http.get(url, headers={"Range": f"bytes={size}-"})

        assert part.status_code == 206
        assert part.headers["content-range"] == f"bytes 1000-{size - 1001}/{size}"
        assert part.content == content[1000 : size - 1000]
        assert beyond.status_code == 416
        assert beyond.headers["content-range"] == f"bytes */{size}"


@pytest.mark.parametrize("size", [64 * 1024, 3 * 1024**2])
async def test_the_headers_of_a_file(size: int) -> None:
    """HEAD and GET have the same, with all that a downloader looks at; no token is needed."""
    async with wired(file_size=size) as wire:
        job = await wire.start()
        url = await wire.redeem(job)
        head, get = await wire.http.head(url), await wire.http.get(url)

        assert get.content == wire.sandbox.archive(job)
        assert head.content == b""
        for name in ("content-length", "content-type", "etag", "last-modified", "accept-ranges"):
            assert head.headers[name] == get.headers[name]
        assert get.headers["content-length"] == str(size)
        assert get.headers["content-type"] == "application/zip"
        assert not get.headers["etag"].startswith("W/")
        disposition = f'attachment; filename="backup-{wire.sandbox.username}-1.zip"'
        assert get.headers["content-disposition"] == disposition


async def test_if_range_guards_against_another_version(wire: Wire) -> None:
    """The part for the right ETag or date, the whole for any other."""
    url = await wire.redeem(await wire.start())
    head = await wire.http.head(url)

    async def status(condition: str) -> int:
        headers = {"Range": "bytes=10-19", "If-Range": condition}
        return (await wire.http.get(url, headers=headers)).status_code

    assert await status(head.headers["etag"]) == 206
    assert await status(head.headers["last-modified"]) == 206
    assert await status('"other"') == 200


async def test_an_address_cannot_be_guessed(wire: Wire) -> None:
    """A made-up one is 404, and a POST is 405."""
    url = await wire.redeem(await wire.start())
    assert (await wire.http.get(f"{url.split('/files/')[0]}/files/guess/x.zip")).status_code == 404
    assert (await wire.http.get(f"{url.split('/files/')[0]}/files/")).status_code == 404
    assert (await wire.http.post(url)).status_code == 405
