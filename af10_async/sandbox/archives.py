"""Zip archives of an exact size, made up on the spot: any range of any size in constant memory.

An archive is a list of segments: short ones that are bytes (headers, a small JSON document, the
central directory) and long ones of filler. Filler comes in blocks that all end in the same noise
but begin with a stamp that says which archive, entry and block it is: a client that joins ranges
wrongly gets a file that differs. The entries are stored, not compressed.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

__all__ = ["MAX_SIZE", "MIN_SIZE", "Archive", "make_archive", "safe_name"]

MIN_SIZE = 1024
MAX_SIZE = 4 * 1024**3 - 1024**2
"""Beyond this, an archive would need zip64."""
CHUNK = 256 * 1024

_BLOCK = 64 * 1024
_STAMP = 24
_ENTRY_SIZE = 512 * 1024**2
_ROOM_FOR_ANOTHER = 1024
_KEPT_WHOLE = 1024**2
_NOISE = hashlib.shake_256(b"noise of the AF10 sandbox").digest(_BLOCK - _STAMP)
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_DOS_DATE = 0x21  # 1 January 1980: the archive is the same on any day


@dataclass(frozen=True, slots=True)
class _Filler:
    """Blocks of one entry. `stamp` is 16 bytes; the number of the block follows it."""

    stamp: bytes
    size: int

    def read(self, start: int, stop: int) -> bytes:
        first, last = start // _BLOCK, -(-stop // _BLOCK)
        whole = b"".join(self.block(number) for number in range(first, last))
        return whole[start - first * _BLOCK : stop - first * _BLOCK]

    def block(self, number: int) -> bytes:
        return self.stamp + number.to_bytes(_STAMP - 16, "big") + _NOISE

    def crc(self) -> int:
        """CRC-32 of all blocks, without going through their bytes."""
        crc, shift = 0, _Shift.over(_BLOCK)
        blocks, rest = divmod(self.size, _BLOCK)
        if blocks:
            tail_shift, noise = _Shift.over(len(_NOISE)), zlib.crc32(_NOISE)
            for number in range(blocks):
                stamp = zlib.crc32(number.to_bytes(_STAMP - 16, "big"), zlib.crc32(self.stamp))
                crc = shift(crc) ^ tail_shift(stamp) ^ noise
        return zlib.crc32(self.block(blocks)[:rest], crc)


class _Shift:
    """What appending `length` zero bytes does to a CRC-32, which is linear in its 32 bits.

    With it, crc(a + b) is shift(crc(a)) ^ crc(b), where the shift is over the length of b.
    """

    def __init__(self, length: int) -> None:
        zeros = bytes(length)
        base = zlib.crc32(zeros)
        bits = [zlib.crc32(zeros, 1 << bit) ^ base for bit in range(32)]
        self._tables = [_combinations(bits[place : place + 8]) for place in (0, 8, 16, 24)]

    @staticmethod
    @lru_cache(maxsize=4)
    def over(length: int) -> _Shift:
        return _Shift(length)

    def __call__(self, crc: int) -> int:
        low, second, third, high = self._tables
        return low[crc & 255] ^ second[crc >> 8 & 255] ^ third[crc >> 16 & 255] ^ high[crc >> 24]


def _combinations(bits: list[int]) -> list[int]:
    table = [0]
    for bit in bits:
        table += [value ^ bit for value in table]
    return table


@dataclass(frozen=True, slots=True)
class _Entry:
    name: bytes
    content: bytes | _Filler

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.size

    def crc(self) -> int:
        content = self.content
        return zlib.crc32(content) if isinstance(content, bytes) else content.crc()

    @staticmethod
    def overhead(name: bytes) -> int:
        return _LOCAL.size + _CENTRAL.size + 2 * len(name)


@dataclass(frozen=True, eq=False)
class Archive:
    """A zip archive of exactly `size` bytes."""

    account: str
    number: int
    size: int
    _segments: list[tuple[int, bytes | _Filler]] = field(repr=False)
    """Each with the offset at which it begins."""

    @property
    def filename(self) -> str:
        """What the wire calls it."""
        return f"backup-{safe_name(self.account)}-{self.number}.zip"

    @cached_property
    def etag(self) -> str:
        """A strong validator."""
        seed = f"{self.account}\0{self.number}\0{self.size}".encode()
        return f'"{hashlib.sha256(seed).hexdigest()[:32]}"'

    @cached_property
    def sha256(self) -> str:
        """The digest of the whole archive, in hexadecimal."""
        digest = hashlib.sha256()
        for chunk in self.chunks(0, self.size):
            digest.update(chunk)
        return digest.hexdigest()

    @cached_property
    def _whole(self) -> bytes:
        return self._assemble(0, self.size)

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` up to, not including, `stop`."""
        if self.size <= _KEPT_WHOLE:
            return self._whole[start:stop]
        return self._assemble(start, stop)

    def chunks(self, start: int, stop: int, size: int = CHUNK) -> Iterator[bytes]:
        """The same bytes, piece by piece."""
        for position in range(start, stop, size):
            yield self.read(position, min(position + size, stop))

    def _assemble(self, start: int, stop: int) -> bytes:
        pieces = []
        for offset, segment in self._segments:
            size = len(segment) if isinstance(segment, bytes) else segment.size
            begin, end = max(start - offset, 0), min(stop - offset, size)
            if begin < end:
                pieces.append(
                    segment[begin:end] if isinstance(segment, bytes) else segment.read(begin, end)
                )
        return b"".join(pieces)


@lru_cache(maxsize=64)
def make_archive(account: str, number: int, size: int) -> Archive:
    """The archive of an account's n-th job: the same bytes every time.

    Raises:
        ValueError: when the size is below `MIN_SIZE` or above `MAX_SIZE`.

    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ValueError(f"file_size must be from {MIN_SIZE} to {MAX_SIZE} bytes, not {size}")
    segments: list[tuple[int, bytes | _Filler]] = []
    position, directory = 0, []
    for entry in _entries(account, number, size):
        local, central = _headers(entry, position)
        directory.append(central)
        segments += [(position, local), (position + len(local), entry.content)]
        position += len(local) + entry.size
    central = b"".join(directory)
    count = len(directory)
    end = _END.pack(b"PK\5\6", 0, 0, count, count, len(central), position, 0)
    segments.append((position, central + end))
    return Archive(account, number, size, segments)


def safe_name(account: str) -> str:
    """The username with nothing in it that a file name must not have."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_.@") else "_" for c in account)
    return kept.strip(".")[:40] or "account"


def _entries(account: str, number: int, size: int) -> Iterator[_Entry]:
    about = json.dumps({"made_by": "AF10 sandbox", "account": safe_name(account), "number": number})
    first = _Entry(b"backup.json", about.encode())
    yield first
    left = size - _END.size - _Entry.overhead(first.name) - first.size
    place = 0
    while left:
        place += 1
        name = b"media/%04d.bin" % place
        room = left - _Entry.overhead(name)
        if room > _ENTRY_SIZE:
            room = min(_ENTRY_SIZE, room - _ROOM_FOR_ANOTHER)
        yield _Entry(name, _Filler(_stamp(account, number, place), room))
        left -= room + _Entry.overhead(name)


def _stamp(account: str, number: int, place: int) -> bytes:
    return hashlib.sha256(f"{account}\0{number}\0{place}".encode()).digest()[:16]


def _headers(entry: _Entry, offset: int) -> tuple[bytes, bytes]:
    name, size, crc = entry.name, entry.size, entry.crc()
    local = _LOCAL.pack(b"PK\3\4", 20, 0, 0, 0, _DOS_DATE, crc, size, size, len(name), 0)
    central = _CENTRAL.pack(
        *(b"PK\1\2", 20, 20, 0, 0, 0, _DOS_DATE, crc, size, size),
        *(len(name), 0, 0, 0, 0, 0, offset),
    )
    return local + name, central + name
