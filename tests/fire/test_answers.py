"""What an answer tells about a key: what its status says, and nothing else.

Whether the time of an answer tells more is measured by `campaign.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from af10_async.protocol.keys import is_genuine

from ..callback_server.conftest import request, talk
from ..conftest import Tls
from .field import Certificate, receiving
from .keys import FIRST_UNKNOWN, ID, SECRET, key_of, target_of, wrong_kinds
from .timing import differences, longer

_DATE = re.compile(rb"\r\nDate: [^\r]*", re.IGNORECASE)


@pytest.fixture
def certificate(tls: Tls) -> Certificate:
    return Certificate(tls.cert, tls.key, tls.ca)


async def answer_to(port: int, key: str, id: str = ID) -> bytes:
    """All that comes back, without the date."""
    return _DATE.sub(b"", (await talk(port, request(target_of(key, id)))).raw)


async def test_all_wrong_keys_get_the_same_answer(certificate: Certificate, tmp_path: Path) -> None:
    """To the byte, with a good id and with a bad one."""
    async with receiving(certificate, tmp_path, jobs=3) as receiver:
        answers = {
            await answer_to(receiver.ports["plain"], key, id)
            for key in wrong_kinds().values()
            for id in (ID, "", "%0d%0a")
        }
        assert (await receiver.state())["strangers"] == 0
    (answer,) = answers
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert ID.encode() not in answer


async def test_whether_a_genuine_key_is_known_is_not_said(
    certificate: Certificate, tmp_path: Path
) -> None:
    """A job that waits, the same again, and a job that no store knows."""
    async with receiving(certificate, tmp_path, jobs=3) as receiver:
        keys = (key_of(1), key_of(1), key_of(FIRST_UNKNOWN))
        answers = {await answer_to(receiver.ports["plain"], key) for key in keys}
        bad = {await answer_to(receiver.ports["plain"], key, "%0d%0a") for key in keys}
    (answer,) = answers
    assert answer.startswith(b"HTTP/1.1 200 ")
    (answer,) = bad
    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_each_kind_is_timed_beside_the_others(
    certificate: Certificate, tmp_path: Path
) -> None:
    async with receiving(certificate, tmp_path, jobs=2) as receiver:
        found = await differences(receiver.ports["plain"], 2)
    assert {each.kind for each in found} > set(wrong_kinds())
    assert all(each.median > 0 and 0 <= each.told_apart <= 1 for each in found)
    assert all(each.line() and each.as_json() for each in found)


def test_no_wrong_key_is_genuine() -> None:
    assert not [key for key in wrong_kinds().values() if is_genuine(key, SECRET.encode())]
    assert is_genuine(key_of(1), SECRET.encode())


@pytest.mark.parametrize(
    ("some", "others", "expected"),
    [([2, 2], [1, 1], 1.0), ([1, 1], [2, 2], 0.0), ([1, 2], [1, 2], 0.5), ([1], [1, 1, 2], 1 / 3)],
)
def test_how_likely_one_islonger(some: list[float], others: list[float], expected: float) -> None:
    assert longer(some, others) == pytest.approx(expected)
