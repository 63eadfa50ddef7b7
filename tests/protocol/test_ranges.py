"""Going on: only bytes of one version of a file are ever put beside each other."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from af10_async.protocol.files import (
    Busy,
    FileHead,
    Moved,
    NotAFile,
    Stale,
    Version,
    read_file_head,
)
from af10_async.protocol.ranges import (
    Beyond,
    Mismatch,
    Part,
    Wanted,
    range_headers,
    read_range_answer,
)

URL = "https://files.example/backup.zip"
TAG = '"v1"'
CHANGED = "Sun, 06 Nov 1994 08:49:37 GMT"
LATER = "Sun, 06 Nov 1994 08:49:38 GMT"
BY_TAG = Version(TAG, CHANGED, 1000)
BY_DATE = Version(None, CHANGED, 1000)
REST = Wanted(BY_TAG, 400, None)
MIDDLE = Wanted(BY_TAG, 400, 600)


def read(status: int, wanted: Wanted, **headers: str) -> object:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_range_answer(status, named, URL, wanted)


def part(content_range: str, wanted: Wanted = REST, **headers: str) -> object:
    """What a 206 means that is right but for what is given."""
    usual = {"content_range": content_range, "content_length": "600", "etag": TAG}
    return read(206, wanted, **(usual | headers))


# -- what is asked for -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "asked", "condition"),
    [
        (REST, "bytes=400-", TAG),
        (MIDDLE, "bytes=400-599", TAG),
        (Wanted(BY_TAG, 0, 1), "bytes=0-0", TAG),
        (Wanted(BY_DATE, 999, 1000), "bytes=999-999", CHANGED),
        (Wanted(Version(TAG), 7, None), "bytes=7-", TAG),
    ],
)
def test_bytes_are_asked_for_under_the_condition_that_it_is_still_that_version(
    wanted: Wanted, asked: str, condition: str
) -> None:
    assert range_headers(wanted) == {"range": asked, "if-range": condition}


# -- the table -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_range", "wanted", "length", "expected"),
    [
        ("bytes 400-999/1000", REST, "600", Part(400, 1000, 1000)),
        ("BYTES 400-999/1000", REST, "600", Part(400, 1000, 1000)),
        (" bytes  400-999/1000 ", REST, " 600 ", Part(400, 1000, 1000)),
        ("bytes 400-599/1000", MIDDLE, "200", Part(400, 600, 1000)),
        # A server may send less than was asked for.
        ("bytes 400-400/1000", REST, "1", Part(400, 401, 1000)),
        ("bytes 400-598/1000", MIDDLE, "199", Part(400, 599, 1000)),
        ("bytes 400-9999/10000", Wanted(Version(TAG), 400, None), "9600", Part(400, 10000, 10000)),
    ],
)
def test_a_206_of_the_start_and_version_that_were_asked_for_is_gone_on_with(
    content_range: str, wanted: Wanted, length: str, expected: Part
) -> None:
    assert part(content_range, wanted, content_length=length) == expected


def test_a_206_may_be_chunked_or_named_as_not_encoded() -> None:
    found = Part(400, 1000, 1000)
    right = {"content_range": "bytes 400-999/1000", "etag": TAG}
    assert read(206, REST, **right, transfer_encoding="chunked") == found
    assert read(206, REST, **right, content_length="600", content_encoding="identity") == found


@pytest.mark.parametrize(
    "content_range",
    [
        "bytes 399-999/1000",
        "bytes 401-999/1000",
        "bytes 0-599/600",
        "bytes 400-999/999",
        "bytes 400-1000/1000",
        "bytes 400-399/1000",
        "bytes 999-400/1000",
        "bytes 400-999/*",
        "bytes */1000",
        "bytes 400-999",
        "bytes=400-999/1000",
        "bytes -400-999/1000",
        "bytes 400-999/1000, bytes 0-1/1000",
        "bytes 4e2-999/1000",
        "bytes \u0664\u0660\u0660-999/1000",
        f"bytes 400-999/{'9' * 19}",
        "items 400-999/1000",
        "400-999/1000",
        "",
    ],
)
def test_a_206_of_other_bytes_or_of_nobody_knows_which_is_started_over(content_range: str) -> None:
    assert isinstance(part(content_range), Mismatch)


def test_a_206_of_more_than_was_asked_for_is_started_over() -> None:
    assert isinstance(part("bytes 400-600/1000", MIDDLE, content_length="201"), Mismatch)


def test_a_206_without_content_range_is_started_over() -> None:
    assert isinstance(read(206, REST, content_length="600", etag=TAG), Mismatch)


@pytest.mark.parametrize("length", ["599", "601", "0", "-1", "x", ""])
def test_a_206_whose_length_is_not_that_of_its_part_is_started_over(length: str) -> None:
    assert isinstance(part("bytes 400-999/1000", content_length=length), Mismatch)


def test_a_206_without_any_length_is_started_over() -> None:
    assert isinstance(read(206, REST, content_range="bytes 400-999/1000", etag=TAG), Mismatch)


def test_a_206_in_several_parts_is_started_over() -> None:
    kind = "Multipart/ByteRanges; boundary=x"
    assert isinstance(part("bytes 400-999/1000", content_type=kind), Mismatch)


@pytest.mark.parametrize("tag", ['"v2"', 'W/"v1"', "v1", "", None])
def test_a_206_with_another_etag_or_none_is_another_version(tag: str | None) -> None:
    headers = {} if tag is None else {"etag": tag}
    right = {"content_range": "bytes 400-999/1000", "content_length": "600"}
    assert isinstance(read(206, REST, **right, **headers, last_modified=CHANGED), Mismatch)


@pytest.mark.parametrize(
    ("changed", "is_same"), [(CHANGED, True), (f" {CHANGED} ", True), (LATER, False), (None, False)]
)
def test_without_an_etag_the_same_last_modified_and_length_are_the_same_version(
    changed: str | None, is_same: bool
) -> None:
    headers = {} if changed is None else {"last_modified": changed}
    right = {"content_range": "bytes 400-999/1000", "content_length": "600"}
    found = read(206, Wanted(BY_DATE, 400, None), **right, **headers)
    assert isinstance(found, Part if is_same else Mismatch)


@pytest.mark.parametrize("version", [BY_TAG, BY_DATE])
def test_a_206_of_another_length_in_all_is_another_version(version: Version) -> None:
    wanted = Wanted(version, 400, None)
    found = part("bytes 400-999/1001", wanted, last_modified=CHANGED)
    assert found == Mismatch("the file has changed")


def test_a_part_that_is_encoded_is_not_the_file() -> None:
    assert isinstance(part("bytes 400-999/1000", content_encoding="gzip"), NotAFile)


def test_a_200_is_the_whole_file_and_taken_instead() -> None:
    found = read(200, REST, content_length="1000", etag='"v2"', content_range="bytes 400-999/1000")
    assert found == FileHead(1000, ends_clearly=True, name="backup.zip")
    assert isinstance(found, FileHead)
    assert found.version == Version('"v2"', None, 1000)
    assert isinstance(read(200, REST, content_length="9", content_type="text/html"), NotAFile)


@pytest.mark.parametrize(
    ("headers", "total"),
    [
        ({"content_range": "bytes */400"}, 400),
        ({"content_range": " Bytes  */0 ", "etag": TAG}, 0),
        ({"content_range": "bytes 0-1/400"}, None),
        ({"content_range": "*/400"}, None),
        ({}, None),
    ],
)
def test_a_416_says_where_the_file_ends(headers: dict[str, str], total: int | None) -> None:
    assert read(416, REST, **headers) == Beyond(total)


def test_a_416_of_another_version_is_started_over() -> None:
    assert isinstance(read(416, REST, content_range="bytes */400", etag='"v2"'), Mismatch)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *((status, Moved("/x")) for status in (301, 302, 303, 307, 308)),
        *((status, Stale()) for status in (401, 403, 404, 410)),
        *((status, Busy()) for status in (429, 500, 502, 503, 504)),
    ],
)
def test_everything_else_means_what_it_means_for_a_whole_file(
    status: int, expected: object
) -> None:
    assert read(status, REST, location="/x") == expected


@pytest.mark.parametrize("status", [201, 204, 304, 400, 405, 412])
def test_what_answers_no_range_is_not_the_file(status: int) -> None:
    assert isinstance(read(status, REST), NotAFile)


@given(
    status=st.sampled_from([200, 206, 416]),
    headers=st.dictionaries(
        st.sampled_from(
            ["content-range", "content-length", "etag", "last-modified", "transfer-encoding"]
        ),
        st.text(max_size=40) | st.sampled_from([TAG, CHANGED, "bytes 400-999/1000", "600"]),
    ),
)
def test_no_head_raises(status: int, headers: dict[str, str]) -> None:
    read_range_answer(status, headers, URL, REST)


# -- what tells versions apart ---------------------------------------------------------------------


def version(**headers: str) -> Version:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    length = {} if "transfer-encoding" in named else {"content-length": "9"}
    found = read_file_head(200, {**length, **named}, URL)
    assert isinstance(found, FileHead)
    assert found.has_ranges is (found.version.is_known and named.get("accept-ranges") != "none")
    return found.version


@pytest.mark.parametrize("tag", ['"a"', '""', '"with,comma"', '"W/"', ' "a" '])
def test_a_strong_etag_tells_versions_apart(tag: str) -> None:
    assert version(etag=tag) == Version(tag.strip(), None, 9)
    assert version(etag=tag).is_known


@pytest.mark.parametrize(
    "tag",
    # The last but one is legal, but hard to send back.
    ['W/"a"', 'w/"a"', "a", '"a', 'a"', '"a b"', '"a"b"', '"\x7f"', '"\xe9"', ""],
)
def test_a_weak_or_malformed_etag_tells_nothing(tag: str) -> None:
    assert version(etag=tag) == Version(None, None, 9)
    assert not version(etag=tag).is_known


@pytest.mark.parametrize(
    ("changed", "sent", "is_known"),
    [
        (CHANGED, LATER, True),
        (CHANGED, CHANGED, False),
        (LATER, CHANGED, False),
        (CHANGED, "", False),
        (CHANGED, "soon", False),
        ("soon", LATER, False),
        ("", LATER, False),
        ("Sun, 06 Nov 1994 08:49:37 -0000", LATER, False),
        ("Sunday, 06-Nov-94 08:49:37 GMT", LATER, True),
        ("Sun, 99 Nov 1994 08:49:37 GMT", LATER, False),
    ],
)
def test_last_modified_counts_when_it_is_at_least_a_second_older_than_the_answer(
    changed: str, sent: str, is_known: bool
) -> None:
    assert version(last_modified=changed, date=sent).is_known is is_known


def test_last_modified_counts_only_together_with_a_length() -> None:
    assert not version(last_modified=CHANGED, date=LATER, transfer_encoding="chunked").is_known
    assert version(etag=TAG, transfer_encoding="chunked") == Version(TAG, None, None)


@pytest.mark.parametrize("said", ["none", " None "])
def test_a_server_that_says_it_has_no_ranges_is_not_asked_for_any(said: str) -> None:
    found = read_file_head(200, {"content-length": "9", "etag": TAG, "accept-ranges": said}, URL)
    assert isinstance(found, FileHead)
    assert not found.has_ranges


DIGEST = bytes(range(32))
SAID = base64.b64encode(DIGEST).decode()


@pytest.mark.parametrize(
    ("headers", "is_found"),
    [
        ({"repr-digest": f"sha-256=:{SAID}:"}, True),
        ({"repr-digest": f"sha-512=:AAAA:, sha-256=:{SAID}:"}, True),
        ({"repr-digest": f"SHA-256 = :{SAID}:"}, True),
        ({"digest": f"SHA-256={SAID}"}, True),
        ({"digest": f"MD5=AAAA, sha-256={SAID}"}, True),
        ({"repr-digest": f"sha-512=:{SAID}:"}, False),
        ({"repr-digest": f"x-sha-256=:{SAID}:"}, False),
        ({"repr-digest": f"sha-256=:{SAID[:-4]}:"}, False),
        ({"content-digest": f"sha-256=:{SAID}:"}, False),
        ({"repr-digest": "sha-256=:" + "=" * 44 + ":"}, False),
        ({}, False),
    ],
)
def test_the_sha256_that_a_server_says_is_read(headers: dict[str, str], is_found: bool) -> None:
    found = read_file_head(200, {"content-length": "9", **headers}, URL)
    assert isinstance(found, FileHead)
    assert found.sha256 == (DIGEST.hex() if is_found else None)


# -- any sequence of cuts, changes and answers -----------------------------------------------------


Headers = dict[str, str]


@dataclass
class Answer:
    status: int
    headers: Headers
    body: bytes


@dataclass
class Server:
    """A file that changes, and a server that is right about it."""

    has_etag: bool
    has_date: bool
    size: int
    now: int = 1_000_000_000
    number: int = 0
    changed: int = 1_000_000_000 - 1000
    bodies: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bodies.append(self._make())

    def _make(self) -> bytes:
        """No byte is the same in another version, or at another place."""
        return bytes((place * 7 + self.number) % 256 for place in range(self.size))

    def change(self, size: int) -> None:
        self.number, self.size, self.changed = self.number + 1, size, self.now
        self.bodies.append(self._make())

    @property
    def validators(self) -> Headers:
        found = {"date": formatdate(self.now, usegmt=True)}
        if self.has_etag:
            found["etag"] = f'"{self.number}"'
        if self.has_date:
            found["last-modified"] = formatdate(self.changed, usegmt=True)
        return found

    def answer(self, asked: Mapping[str, str], *, heeds_condition: bool) -> Answer:
        body, size = self.bodies[-1], self.size
        wanted = asked.get("range")
        if wanted is None or (heeds_condition and not self._holds(asked["if-range"])):
            return Answer(200, {**self.validators, "content-length": str(size)}, body)
        first, last = wanted.removeprefix("bytes=").split("-")
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if start >= size:
            return Answer(416, {**self.validators, "content-range": f"bytes */{size}"}, b"")
        return part_answer(self, start, stop)

    def _holds(self, condition: str) -> bool:
        if condition.startswith('"'):
            return condition == self.validators.get("etag")
        is_old = parsedate_to_datetime(self.validators["date"]).timestamp() > self.changed
        return is_old and condition == self.validators.get("last-modified")


def part_answer(server: Server, start: int, stop: int) -> Answer:
    body = server.bodies[-1][start:stop]
    named = f"bytes {start}-{stop - 1}/{server.size}"
    lengths = {"content-range": named, "content-length": str(len(body))}
    return Answer(206, {**server.validators, **lengths}, body)


def _span(answer: Answer) -> tuple[int, int]:
    first, last = answer.headers["content-range"].removeprefix("bytes ").split("/")[0].split("-")
    return int(first), int(last) + 1


def _moved(server: Server, answer: Answer) -> Answer:
    start, stop = _span(answer)
    return part_answer(server, max(start - 1, 0), max(stop - 1, 1))


def _shorter(server: Server, answer: Answer) -> Answer:
    start, stop = _span(answer)
    return part_answer(server, start, (start + stop + 1) // 2)


def _without(*names: str) -> Callable[[Server, Answer], Answer]:
    def lie(server: Server, answer: Answer) -> Answer:
        kept = {name: value for name, value in answer.headers.items() if name not in names}
        return Answer(answer.status, kept, answer.body)

    return lie


def _with(**headers: str) -> Callable[[Server, Answer], Answer]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda server, answer: Answer(answer.status, answer.headers | named, answer.body)


def _chunked(server: Server, answer: Answer) -> Answer:
    return _with(transfer_encoding="chunked")(server, _without("content-length")(server, answer))


def _grown(server: Server, answer: Answer) -> Answer:
    named = answer.headers["content-range"].rpartition("/")[0]
    return _with(content_range=f"{named}/{server.size + 1}")(server, answer)


def _unknown(server: Server, answer: Answer) -> Answer:
    named = answer.headers["content-range"].rpartition("/")[0]
    return _with(content_range=f"{named}/*")(server, answer)


ANY: dict[str, Callable[[Server, Answer], Answer]] = {
    "right": lambda server, answer: answer,
    "chunked": _chunked,
    "no etag": _without("etag"),
    "no date": _without("last-modified"),
    "no validators": _without("etag", "last-modified"),
    "weak": _with(etag='W/"0"'),
    "encoded": _with(content_encoding="gzip"),
    "page": _with(content_type="text/html"),
    "no length": _without("content-length"),
    "busy": lambda server, answer: Answer(503, {}, b""),
    "gone": lambda server, answer: Answer(404, {}, b""),
    "beyond": lambda server, answer: Answer(416, {"content-range": "bytes */3"}, b""),
}
OF_PARTS: dict[str, Callable[[Server, Answer], Answer]] = {
    "moved": _moved,
    "shorter": _shorter,
    "no content-range": _without("content-range"),
    "several parts": _with(content_type="multipart/byteranges"),
    "grown": _grown,
    "unknown": _unknown,
    "other length": _with(content_length="999"),
}


@dataclass(frozen=True)
class Step:
    """What happens before and in one request."""

    seconds: int
    new_size: int | None
    lie: str
    heeds_condition: bool
    arrives: int
    """Bytes of the body before it is cut."""

    def play(self, server: Server, asked: Mapping[str, str]) -> tuple[Answer, bool]:
        """The answer, and whether its body arrives whole."""
        server.now += self.seconds
        if self.new_size is not None:
            server.change(self.new_size)
        answer = server.answer(asked, heeds_condition=self.heeds_condition)
        if self.lie in ANY or answer.status == 206:
            answer = {**ANY, **OF_PARTS}[self.lie](server, answer)
        is_whole = self.arrives >= len(answer.body)
        return Answer(answer.status, answer.headers, answer.body[: self.arrives]), is_whole


STEPS = st.builds(
    Step,
    seconds=st.sampled_from([0, 0, 1, 60]),
    new_size=st.sampled_from([None, None, None, 12, 12, 13, 30]),
    lie=st.sampled_from([*ANY, *OF_PARTS, *["right"] * 12]),
    heeds_condition=st.sampled_from([True, True, True, False]),
    arrives=st.integers(0, 14) | st.just(99),
)
LAST = Step(60, None, "right", heeds_condition=True, arrives=99)


class Client:
    """The smallest downloader that goes on where it stopped."""

    def __init__(self) -> None:
        self.resumed = 0
        self.forget()

    def forget(self) -> None:
        self.data = bytearray()
        self.version = Version()
        self.total: int | None = None

    def asked(self) -> Wanted | None:
        if not self.data or not self.version.is_known:
            return None
        # The last byte again: "the rest" of a file that is here to its end cannot be asked for.
        return Wanted(self.version, len(self.data) - (self.total is None), self.total)

    def hear(self, answer: Answer, is_whole: bool, wanted: Wanted | None) -> bool:
        """Whether it is the whole file now."""
        if wanted is None:
            found: object = read_file_head(answer.status, answer.headers, URL)
        else:
            found = read_range_answer(answer.status, answer.headers, URL, wanted)
        match found:
            case FileHead(length=length, ends_clearly=True, version=version):
                self.data, self.version, self.total = bytearray(answer.body), version, length
                return is_whole
            case Part(start=start, total=total):
                self.resumed += 1
                self.data[start:], self.total = answer.body, total
                return len(self.data) == total
            case Beyond() | Mismatch() | FileHead():
                self.forget()
        return False


@settings(max_examples=250, deadline=None)
@given(
    has_etag=st.booleans(),
    has_date=st.booleans(),
    size=st.sampled_from([0, 1, 12, 30]),
    steps=st.lists(STEPS, max_size=12),
)
def test_whatever_happens_a_file_is_one_version_of_it_and_never_a_mixture(
    has_etag: bool, has_date: bool, size: int, steps: list[Step]
) -> None:
    """Cuts, changes, and answers that are wrong in any way that can be seen."""
    server, client = Server(has_etag, has_date, size), Client()
    for step in steps:
        wanted = client.asked()
        answer, is_whole = step.play(server, range_headers(wanted) if wanted else {})
        if client.hear(answer, is_whole, wanted):
            assert bytes(client.data) in server.bodies
            return
    for _ in range(3):  # an honest server, from here on
        wanted = client.asked()
        answer, is_whole = LAST.play(server, range_headers(wanted) if wanted else {})
        if client.hear(answer, is_whole, wanted):
            break
    assert bytes(client.data) == server.bodies[-1]


@pytest.mark.parametrize("by", ["etag", "date"])
def test_the_small_downloader_does_go_on_where_it_stopped(by: str) -> None:
    """Else the test before this one would prove nothing."""
    server, client = Server(by == "etag", by == "date", 30), Client()
    for arrives in (5, 5, 5, 99):
        step = Step(0, None, "right", heeds_condition=True, arrives=arrives)
        wanted = client.asked()
        answer, is_whole = step.play(server, range_headers(wanted) if wanted else {})
        is_done = client.hear(answer, is_whole, wanted)
    assert is_done
    assert client.resumed == 3
    assert bytes(client.data) == server.bodies[0]
