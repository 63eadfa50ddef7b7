"""Coverage-guided fuzzing of what reads callbacks; needs `pip install atheris` (Linux, macOS).

    python -m tests.fuzz.fuzz_callbacks -max_total_time=60

Arguments are libFuzzer's. Without folders among them, it begins with `corpus/` and keeps what it
finds in a temporary folder; an input that fails is printed and written to the current one.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

with atheris.instrument_imports(include=["af10_async.protocol"]):
    from .invariants import check

CORPUS = Path(__file__).parent / "corpus"


def one(data: bytes) -> None:
    """What the fuzzer calls."""
    check(data)


def main(arguments: list[str]) -> None:
    """The command; atheris ends the process."""
    given = [each for each in arguments[1:] if not each.startswith("-")]
    folders = given or [tempfile.mkdtemp(prefix="af10-fuzz-"), str(CORPUS)]
    options = [each for each in arguments if each not in given]
    atheris.Setup([*options, *folders], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
