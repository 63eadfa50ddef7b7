"""The values of options: each function reads one kind, for argparse."""

from __future__ import annotations

import argparse
import math
import re
import ssl
from collections.abc import Callable
from pathlib import Path

from ..download import MOST_SEGMENTS
from ..downloader import host_names
from ..errors import ConfigurationError
from ..protocol.keys import KEY_LENGTH
from ..saving import Segments

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*(|B|[KMGT]i?B?)", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_DASHED_KEY = re.compile(rf"-[A-Za-z0-9_-]{{{KEY_LENGTH - 1}}}")
_SHIELD = "\0"
"""What no typed word can begin with."""
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])", re.ASCII)
_AGE_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def shielded(word: str) -> str:
    """A key may begin with a dash, and argparse must not take it for an option."""
    return _SHIELD + word if _DASHED_KEY.fullmatch(word) else word


def unshielded(word: str) -> str:
    """A key as it was typed."""
    return word.removeprefix(_SHIELD)


def size(text: str) -> int:
    """A number of bytes: `65536`, `64KiB`, `5 MB`."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 65536, 64KiB or 5MB")
    unit = found[2].lower()
    return round(float(found[1]) * _UNITS[unit[0] if "i" in unit else unit])


def age(text: str) -> float:
    """A number of seconds: `30d`, `12h`, `90m`, `45s`, `2w`."""
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an age such as 30d, 12h or 90m")
    return float(found[1]) * _AGE_UNITS[found[2]]


def count(text: str) -> int:
    """How many jobs."""
    return _number(text, 1000)


def segments(text: str) -> Segments:
    """How many connections, or `auto`."""
    return "auto" if text == "auto" else _number(text, MOST_SEGMENTS, 'is not "auto", or')


def hexadecimal(digits: int) -> Callable[[str], str]:
    """So many hexadecimal digits."""

    def read(text: str) -> str:
        if not re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", text.strip()):
            raise argparse.ArgumentTypeError(f"it must be {digits} hexadecimal digits")
        return text.strip().lower()

    return read


def host(text: str) -> str:
    """The name of a host."""
    try:
        host_names([text])
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(error.message) from None
    return text


def seconds(text: str) -> float:
    """A time in which something can happen."""
    found = duration(text)
    if found == 0:
        raise argparse.ArgumentTypeError("it must be more than 0 seconds")
    return found


def duration(text: str) -> float:
    """A time, or none."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not found >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return found


def port(text: str) -> int:
    """Where to listen; 0 for any."""
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number from 0 to 65535")
    return int(text)


def certificates(text: str) -> Path:
    """A PEM file."""
    path = Path(text)
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a PEM file of certificates") from None
    return path


def _number(text: str, most: int, problem: str = "is not") -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= most):
        raise argparse.ArgumentTypeError(f"{text!r} {problem} a number from 1 to {most}")
    return int(text)
