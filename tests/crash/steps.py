"""The moments in the life of a job at which its process is killed, and what is owed afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from af10_async.sandbox import Fault

from .life import TakeUp

BLOCK = 1024 * 1024
"""What a download gathers before it writes."""
FILE_SIZE = BLOCK + 200_003

Phase = Literal["start", "callback", "redeem", "file", "name", "saved"]
Owed = Literal["nothing", "call", "perhaps", "file", "done"]
"""What the next process gets from the job.

`nothing`: AF10 never heard of it; the wait ends in a `CallbackTimeoutError`, and the caller may
order anew. `call`: AF10 has it, but its callback was lost; the wait ends in that error, and in the
file when AF10 calls again. `perhaps`: that, or `file`. `file`: the file, without any call. `done`:
it is there, and nothing is left to do.
"""
Moment = Literal["", "posted", "answered", "redeeming", "begun", "half"]
"""When a process is killed from outside; empty when it ends itself."""


@dataclass(frozen=True, slots=True)
class Step:
    """One such moment."""

    name: str
    phase: Phase
    owed: Owed
    die_at: str = ""
    kill_when: Moment = ""
    faults: Callable[[str], tuple[Fault, ...]] = lambda account: ()
    """What AF10 does, so that the moment lasts long enough; by username."""
    is_accepted: bool = True
    """Whether the answer to the POST was recorded."""
    comes_early: bool = False
    """Whether the callback comes before the answer to the POST."""
    then: tuple[Phase, ...] = ()
    """What the next process goes through."""
    overwrite: bool = False
    has_links: bool = True
    stores: tuple[str, ...] = ("sqlite", "valkey")
    take_ups: tuple[TakeUp, ...] = ("unfinished", "key", "ticket")

    @property
    def is_registered(self) -> bool:
        """Whether the store knows the job."""
        return self.die_at not in ("before add", "os.link .new", "os.remove .new")


def _never_answered(account: str) -> tuple[Fault, ...]:
    return (Fault.hang(on="start", account=account),)


def _early(account: str) -> tuple[Fault, ...]:
    return (Fault.early(account=account),)


def _never_redeemed(account: str) -> tuple[Fault, ...]:
    return (Fault.hang(on="redeem", account=account),)


def _stalls(sent: int) -> Callable[[str], tuple[Fault, ...]]:
    return lambda account: (Fault.stall(sent, account=account),)


_ALL: tuple[Phase, ...] = ("callback", "redeem", "file", "name")
_FROM_REDEEM: tuple[Phase, ...] = ("redeem", "file", "name")
_FROM_FILE: tuple[Phase, ...] = ("file", "name")

STEPS = (
    Step("the store's file made, not yet named", "start", "nothing", "os.link .new",
         is_accepted=False, stores=("sqlite",)),
    Step("the store's file named, its first name still there", "start", "nothing",
         "os.remove .new", is_accepted=False, stores=("sqlite",)),
    Step("not yet registered", "start", "nothing", "before add", is_accepted=False),
    Step("registered, the POST not sent", "start", "nothing", "after add", is_accepted=False),
    Step("the POST received by AF10, not answered", "start", "call", kill_when="posted",
         faults=_never_answered, is_accepted=False, then=_ALL),
    Step("the POST answered, that not recorded", "start", "call", "before Accepted",
         is_accepted=False, then=_ALL),
    Step("accepted", "start", "call", "after Accepted", then=_ALL),
    Step("an early callback read, its secret not kept", "start", "call", "before CalledBack",
         faults=_early, is_accepted=False, comes_early=True, then=_ALL),
    Step("an early callback's secret kept, 200 not sent", "start", "file", "after CalledBack",
         faults=_early, is_accepted=False, comes_early=True, then=_FROM_REDEEM),
    Step("the callback read, its secret not kept", "callback", "call", "before CalledBack",
         then=_ALL),
    Step("the secret kept, 200 not sent", "callback", "file", "after CalledBack",
         then=_FROM_REDEEM),
    Step("200 sent, the waiter not woken", "callback", "file", "asleep", "answered",
         then=_FROM_REDEEM),
    Step("asked for the payload, not answered", "redeem", "file", kill_when="redeeming",
         faults=_never_redeemed, then=_FROM_REDEEM),
    Step("the payload received, not recorded", "redeem", "file", "before PayloadReceived",
         then=_FROM_REDEEM),
    Step("the payload recorded", "redeem", "file", "after PayloadReceived", then=_FROM_FILE),
    Step("the download begun, nothing written", "file", "file", kill_when="begun",
         faults=_stalls(1000), then=_FROM_FILE),
    Step("in the middle of the download", "file", "file", kill_when="half",
         faults=_stalls(BLOCK + 65536), then=_FROM_FILE),
    Step("all bytes received, not flushed", "file", "file", "received", then=_FROM_FILE),
    Step("flushed, its name to be not noted", "file", "file", "before FileComplete",
         then=_FROM_FILE),
    Step("its name to be noted, not given", "file", "file", "after FileComplete",
         then=_FROM_FILE),
    Step("about to be linked", "file", "file", "os.link .part", then=_FROM_FILE),
    Step("linked, the partial file not removed", "file", "file", "os.remove .part",
         then=("name",)),
    Step("without hard links: its name reserved, not given", "file", "file", "os.rename .part",
         has_links=False),
    Step("about to be renamed over an older file", "file", "file", "os.rename .part",
         overwrite=True, then=_FROM_FILE),
    Step("renamed over an older file, that not noted", "name", "file", "before Collected",
         overwrite=True, then=("name",)),
    Step("there, that not noted", "name", "file", "before Collected", then=("name",)),
    Step("noted as collected", "saved", "done", "after Collected", take_ups=("unfinished",)),
)  # fmt: skip
