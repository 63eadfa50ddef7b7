"""What is to happen to one download: its file, its server's lies, its line's faults, its lives."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..download.fault_proxy import Close, Corrupt, Fault, Refuse, Reset, Stall, Trickle
from ..download.file_server import (
    BEFORE_LAST_CHUNK,
    DATE,
    IN_CHUNK,
    IN_TRAILER,
    Lie,
    Request,
    Version,
    http_date,
    make_body,
)

LARGEST = 8 * 2**20
HARDLY_ANY = (0, 1, 2, 100, 2**16 - 1, 2**16, 2**20 - 1, 2**20, 2**20 + 1, 2 * 2**20 + 1)

SEGMENTS: tuple[int | Literal["auto"], ...] = (1, 1, 2, 3, 4, 5, 6, "auto")

Validators: TypeAlias = Literal["strong", "modified", "weak", "none", "same"]
Digest: TypeAlias = Literal["sha256", "md5"]


@dataclass(frozen=True, slots=True)
class Life:
    """One `save`."""

    segments: int | Literal["auto"]
    ends_after: int | None
    """So many bytes, and it is ended; None: it ends by itself."""
    is_process: bool
    """Whether it is a process of its own, to be killed; else it is cancelled."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One download from its first attempt to its last."""

    seed: int
    number: int
    sizes: tuple[int, ...]
    """Of each version of the file."""
    validators: Validators
    """What tells versions apart; `same`: nothing but perhaps their lengths."""
    switches: tuple[int, ...]
    """The numbers of the requests from which on there is another version."""
    digest: Digest | None
    expected: int
    """The version that the digest is of."""
    always: str
    """The lie that all requests are told, if any."""
    lies: dict[int, str]
    faults: tuple[Fault | None, ...]
    """Of each connection in turn."""
    lives: tuple[Life, ...]

    def versions(self) -> list[Version]:
        """What the server has, one after the other."""
        return [
            Version(make_body(size, seed=number), self._etag(), self._modified(number))
            for number, size in enumerate(self.sizes)
        ]

    def right(self) -> list[bytes]:
        """What may be in the file at the end."""
        bodies = [version.body for version in self.versions()]
        return bodies if self.digest is None else [bodies[self.expected]]

    def lie(self, request: Request) -> Lie:
        """What the server says to this request."""
        version = sum(request.number >= switch for switch in self.switches)
        name = self.lies.get(request.number, self.always)
        draw = random.Random(f"{self.seed} {self.number} {request.number}")
        lie = LIES[name](_Facts(draw, self.sizes[version], self._modified(version)))
        return Lie(**{**vars(lie), "version": version})

    def _etag(self) -> str | None:
        match self.validators:
            case "strong":
                return ""
            case "weak":
                return 'W/"always"'
            case "same":
                return '"always"'
            case _:
                return None

    def _modified(self, version: int) -> float | None:
        if self.validators == "none":
            return None
        return DATE - 86_400 + (0 if self.validators == "same" else 3600 * version)


# -- lies ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Facts:
    draw: random.Random
    size: int
    modified: float | None


def _same_second(facts: _Facts) -> Lie:
    return Lie(headers={"ETag": None, "Date": http_date(facts.modified or DATE)})


def _other_start(facts: _Facts) -> Lie:
    shift = facts.draw.choice((-1000, -1, 1, 1000))
    return Lie(served=lambda first, last: (min(max(0, first + shift), last), last))


def _lying_part(facts: _Facts) -> Lie:
    """Others bytes than Content-Range says."""
    shift = facts.draw.choice((1, 2, 1000))

    def served(first: int, last: int) -> tuple[int, int]:
        return max(0, first - shift), max(0, last - shift)

    def claim(first: int, last: int, size: int) -> str:
        return f"bytes {min(first + shift, size - 1)}-{min(last + shift, size - 1)}/{size}"

    return Lie(served=served, claim=claim)


def _unasked(facts: _Facts) -> Lie:
    if facts.size < 2:
        return Lie()
    half = facts.size // 2
    return Lie(unasked=facts.draw.choice(((0, half - 1), (half, facts.size - 1))))


def _status(status: int, *retry_after: str) -> Callable[[_Facts], Lie]:
    def lie(facts: _Facts) -> Lie:
        headers = {"Retry-After": facts.draw.choice(retry_after)} if retry_after else {}
        return Lie(status=status, headers=headers)

    return lie


def _turn() -> Awaitable[object]:
    return asyncio.sleep(0)


def _always(lie: Lie) -> Callable[[_Facts], Lie]:
    return lambda facts: lie


def _cut(facts: _Facts) -> int:
    return facts.draw.randrange(facts.size + 1)


EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
NO_VALIDATORS = {"ETag": None, "Last-Modified": None}

PLAIN: dict[str, Callable[[_Facts], Lie]] = {
    "no ranges": _always(Lie(ranges=False)),
    "ranges not announced": _always(Lie(headers={"Accept-Ranges": None})),
    "ranges denied": _always(Lie(headers={"Accept-Ranges": "none"})),
    "weak etag": _always(Lie(headers={"ETag": 'W/"weak"'})),
    "no etag": _always(Lie(headers={"ETag": None})),
    "no validators": _always(Lie(headers=NO_VALIDATORS)),
    "same second": _same_second,
    "if-range ignored": _always(Lie(if_range=False)),
    "other etag": _always(Lie(headers={"ETag": '"other"'})),
    "other start": _other_start,
    "shorter part": _always(Lie(served=lambda first, last: (first, (first + last) // 2))),
    "larger total": _always(Lie(claim=lambda *of: f"bytes {of[0]}-{of[1]}/{of[2] + 7}")),
    "total unknown": _always(Lie(claim=lambda *of: f"bytes {of[0]}-{of[1]}/*")),
    "no content-range": _always(Lie(claim=lambda *of: None)),
    "multipart": _always(Lie(multipart=True)),
    "416": _always(Lie(status=416)),
    "416 without a total": _always(Lie(status=416, headers={"Content-Range": None})),
    "unasked part": _unasked,
    "short body": lambda facts: Lie(cut=_cut(facts)),
    "short body, then silence": lambda facts: Lie(cut=_cut(facts), then="hold"),
    "long body": _always(Lie(extra=b"more than was promised")),
    "no length": _always(Lie(framing="close")),
    "chunked": _always(Lie(framing="chunked")),
    "chunked, cut": lambda facts: Lie(framing="chunked", cut=_cut(facts)),
    "chunked, cut in the trailer": _always(Lie(framing="chunked", cut=IN_TRAILER)),
    "chunked, cut before the last": _always(Lie(framing="chunked", cut=BEFORE_LAST_CHUNK)),
    "chunked, cut in a chunk": _always(Lie(framing="chunked", cut=IN_CHUNK)),
    "gzip": _always(Lie(headers={"Content-Encoding": "gzip"})),
    "web page": _always(Lie(body=b"<html>", headers={"Content-Type": "text/html"})),
    "401": _status(401),
    "403": _status(403),
    "404": _status(404),
    "410": _status(410),
    "429": _status(429, "0", "1", "7200"),
    "500": _status(500),
    "503": _status(503, "0", "1", http_date(DATE), "soon"),
    "redirect": _always(Lie(status=302, headers={"Location": "/elsewhere/file"})),
    "drip": _always(Lie(drip=_turn)),
    "in one": _always(Lie(in_one=True)),
    "interim": _always(Lie(interim=[EARLY_HINTS] * 2)),
    "two lengths": _always(Lie(more_headers=[("Content-Length", "9")])),
    "huge length": _always(Lie(headers={"Content-Length": str(10**20)})),
}
"""A client can see through these, or they do no harm."""
HARSH: dict[str, Callable[[_Facts], Lie]] = {
    "lying part": _lying_part,
    "understated length": lambda facts: Lie(headers={"Content-Length": str(facts.size // 2)}),
    "anything fits": _always(Lie(if_range=False, headers=NO_VALIDATORS)),
    "understated total": _always(Lie(claim=lambda *of: f"bytes {of[0]}-{of[1]}/{of[1] + 1}")),
}
"""Only a digest helps against these."""
LASTING = (
    *("no ranges", "ranges not announced", "ranges denied", "weak etag", "no etag", "same second"),
    *("total unknown", "no length", "chunked", "drip", "in one", "interim", "shorter part"),
)
"""Some that servers may have as a habit."""
LIES = {"": _always(Lie()), **PLAIN, **HARSH}


# -- drawing ---------------------------------------------------------------------------------------


def scenario_of(seed: int, number: int) -> Scenario:
    """The scenario with this number."""
    draw = random.Random(f"{seed} {number}")
    sizes = [_size(draw)]
    for _ in range(draw.choice((0, 0, 0, 1, 1, 2))):
        sizes.append(draw.choice((sizes[0], sizes[0], sizes[0] + 1, _size(draw))))
    digest: Digest | None = draw.choice((None, None, "sha256", "md5"))
    validators = _validators(draw, sizes, digest)
    names = list(PLAIN) if digest is None else [*PLAIN, *HARSH]
    is_plain = validators == "same" and digest is None
    lies = {
        draw.randint(1, 6): draw.choice(names)
        for _ in range(0 if is_plain else draw.choice((0, 0, 0, 1, 1, 2, 3)))
    }
    return Scenario(
        seed=seed,
        number=number,
        sizes=tuple(sizes),
        validators=validators,
        switches=tuple(sorted(draw.randint(2, 7) for _ in sizes[1:])),
        digest=digest,
        expected=draw.choice((len(sizes) - 1, draw.randrange(len(sizes)))),
        always=draw.choice(LASTING) if not is_plain and draw.random() < 0.15 else "",
        lies=lies,
        faults=tuple(
            _fault(draw, sizes[0], digest) for _ in range(draw.choice((0, 1, 2, 3, 5, 8)))
        ),
        lives=tuple(_lives(draw, sizes[0])),
    )


def _size(draw: random.Random) -> int:
    kind = draw.random()
    if kind < 0.25:
        return draw.choice(HARDLY_ANY)
    if kind < 0.5:
        return int(2 ** draw.uniform(0, 23))
    return draw.randint(2 * 2**20, LARGEST)  # large enough for segments


def _validators(draw: random.Random, sizes: list[int], digest: Digest | None) -> Validators:
    kind = draw.random()
    if kind < 0.1 and (digest or len({*sizes}) == len(sizes)):
        return "same"
    if kind < 0.65:
        return "strong"
    return "modified" if kind < 0.85 else "weak" if kind < 0.95 else "none"


def _fault(draw: random.Random, size: int, digest: Digest | None) -> Fault | None:
    after = draw.choice((draw.randint(0, size), draw.randint(0, size // 2), draw.randint(0, 600)))
    in_body = draw.random() < 0.5
    kind = draw.random()
    if kind < 0.35:
        return Reset(after, in_body)
    if kind < 0.65:
        return Close(after, in_body)
    if kind < 0.75:
        return Stall(after, in_body)
    if kind < 0.8:
        return Refuse()
    if kind < 0.85:
        return Trickle(after, in_body, _turn, draw.randint(1000, 20_000))
    if kind < 0.92 and digest is not None:
        return Corrupt(after, in_body, count=draw.choice((1, 4, 1000)))
    return None


def _lives(draw: random.Random, size: int) -> list[Life]:
    segments: int | Literal["auto"] = draw.choice(SEGMENTS)
    found = []
    for _ in range(draw.choice((0, 0, 1, 1, 2, 3))):
        ends_after = draw.choice((draw.randint(0, size), draw.randint(0, size), None))
        found.append(Life(segments, ends_after, is_process=draw.random() < 0.4))
        if draw.random() < 0.3:
            segments = draw.randint(1, 6)
    return [*found, Life(segments, None, is_process=False)]
