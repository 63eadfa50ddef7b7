"""What the commands share with the code that reports how they ended."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from .. import AF10Error
from .destination import Destination
from .exit_codes import INTERRUPTED, exit_code
from .output import AccountOutput, Failure, Output

_KEYWORDS = re.compile(r"\b(?:max_size|min_speed|(?:start|callback|download)_timeout)\b")


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A download that has begun."""

    name: str
    """What it is recognised by: the job's key, or the file's address."""
    destination: Destination
    advice: str | None
    """How to go on with it when it ends before its time; None when nobody can."""

    def leave(self) -> int:
        """How many bytes are here that can be gone on with; others are removed."""
        return self.destination.leave(self.name, keep=self.advice is not None)


class Context:
    """What a command is doing."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.key: str | None = None
        """The job under way."""
        self.ticket: str | None = None
        """What restores it anywhere."""
        self.ends_by_interrupt = False
        """Whether an interrupt is how the command is meant to end."""
        self.attempts = 0
        """How many jobs were tried."""
        self.failures: list[AF10Error] = []
        """Those of jobs that did not keep the others from going on."""
        self._under_way: list[UnderWay] = []
        self._keys: list[str] = []
        self._advice: str | None = None

    @contextmanager
    def having(self, key: str, advice: str | None) -> Iterator[None]:
        """Know of one of several jobs while it is worked on; `advice` says how to take it up."""
        self._keys.append(key)
        self._advice = advice
        try:
            yield
        except AF10Error:
            self._keys.remove(key)
            raise
        self._keys.remove(key)

    @contextmanager
    def downloading(self, download: UnderWay) -> Iterator[None]:
        """Know of a download until it is done; one that fails is known until that was reported."""
        self._under_way.append(download)
        yield
        self._under_way.remove(download)

    def failed(
        self,
        error: AF10Error,
        download: UnderWay | None = None,
        output: AccountOutput | None = None,
    ) -> None:
        """One of several jobs has failed; told to `output` if that is not the usual one."""
        self.failures.append(error)
        begun = [download] if download in self._under_way else []
        self._report(error, begun, output)
        self._under_way = [each for each in self._under_way if each not in begun]

    def report(self, error: AF10Error) -> None:
        """Say what went wrong."""
        self._report(error, self._under_way)

    def interrupted(self) -> None:
        """Say that the user wanted it to end."""
        text = "interrupted"
        if self._under_way:
            text += " during the download"
            text += f" [job {self.key}]" if self.key else ""
        elif self.key:
            text += f"; AF10 may go on with the job [job {self.key}]"
        kept, advice = _kept(self._under_way)
        keys = tuple(self._keys) if self._advice is not None else ()
        if keys:
            text += f"; AF10 may go on with {len(keys)} job(s): {self._advice}"
        self.output.failed(
            Failure(
                "KeyboardInterrupt", text, INTERRUPTED, self.key, self.ticket, kept, advice, keys
            )
        )

    def _report(
        self,
        error: AF10Error,
        begun: Sequence[UnderWay],
        output: AccountOutput | None = None,
    ) -> None:
        kept, advice = _kept(begun)
        if kept and not error.retryable:
            kept = 0
        message = _in_options(str(error))
        name, code = type(error).__name__, exit_code(error)
        failure = Failure(name, message, code, error.key, error.ticket, kept, advice)
        (output or self.output).failed(failure)


def _kept(begun: Sequence[UnderWay]) -> tuple[int | None, str | None]:
    if not begun:
        return None, None
    return sum(each.leave() for each in begun), begun[0].advice


def _in_options(text: str) -> str:
    """The library speaks to those who write Python, of keywords."""
    text = text.replace("pass overwrite=True", "say --overwrite")
    text = text.replace("client.job(key) goes on", "`af10 resume` with its key or ticket goes on")
    return _KEYWORDS.sub(lambda found: "--" + found[0].replace("_", "-"), text)
