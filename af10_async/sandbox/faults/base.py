"""Where and how often a fault strikes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self, TypedDict, get_args

from .acts import Act, AnyAct, Come, Data, Direct, FileAct, RepeatPage

__all__ = ["BaseFault", "Step", "When"]

Step = Literal[
    "authenticate", "environment", "start", "callback", "redeem", "file", "vehicle", "call", "any"
]
_STEPS: tuple[Step, ...] = get_args(Step)


class When(TypedDict, total=False):
    """What every kind of fault accepts beside its own arguments.

    Attributes:
        on: The step that it hits: `authenticate`, `environment`, `start` (the POST), `callback`,
            `redeem`, `file`, `vehicle`, `call` (endpoints of your own), or `any` (all requests
            that arrive). Each kind has a sensible one when not given.
        times: How often it strikes, once when not given; None for ever.
        skip: How many matching requests it lets through first.
        account: The username it is for; None for any.

    """

    on: Step
    times: int | None
    skip: int
    account: str | None


@dataclass(frozen=True, slots=True)
class BaseFault:
    """A fault before its kinds are added: see `Fault`."""

    on: Step
    act: Act
    times: int | None = 1
    skip: int = 0
    account: str | None = None

    def __post_init__(self) -> None:
        if self.on not in _STEPS:
            raise ValueError(f"on={self.on!r} is no step: use one of {', '.join(_STEPS)}")
        only = _only_step(self.act)
        if only is not None and self.on != only:
            raise ValueError(f"this fault is for on={only!r}, not for {self.on!r}")
        if self.on == "callback" and only != "callback":
            raise ValueError("the callback goes out: it has faults of its own, such as Fault.late")

    @classmethod
    def _of(cls, act: Act, on: Step, when: When) -> Self:
        return cls(
            when.get("on", on),
            act,
            when.get("times", 1),
            when.get("skip", 0),
            when.get("account"),
        )


def _only_step(act: Act) -> Step | None:
    match act:
        case Come():
            return "callback"
        case Direct():
            return "start"
        case Data():
            return "redeem"
        case RepeatPage():
            return "vehicle"
        case _ if isinstance(act, AnyAct):
            return None
        case _:
            assert isinstance(act, FileAct)
            return "file"
