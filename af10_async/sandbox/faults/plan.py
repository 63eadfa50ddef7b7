"""The plan of misbehaviour."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .base import BaseFault, Step

__all__ = ["FaultPlan"]


class _Entry:
    def __init__(self, fault: BaseFault) -> None:
        self.fault = fault
        self.times = fault.times
        self.skip = fault.skip

    def strikes(self, step: Step | None, account: str | None) -> bool:
        fault = self.fault
        if fault.on != step and (fault.on != "any" or step == "callback"):
            return False
        if fault.account is not None and fault.account != account:
            return False
        if self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class FaultPlan:
    """Which faults strike, in the order in which they were added.

    Of the faults that match a request, the first with times left strikes; never two at once.
    """

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    @property
    def pending(self) -> list[BaseFault]:
        """The faults that can still strike."""
        return [entry.fault for entry in self._entries if entry.times != 0]

    def add(self, *faults: BaseFault) -> None:
        """Put these at the end of the plan."""
        self._entries += [_Entry(fault) for fault in faults]

    def clear(self) -> None:
        """From now on, behave."""
        self._entries.clear()

    @contextmanager
    def during(self, *faults: BaseFault) -> Iterator[None]:
        """Have these in the plan for the length of a `with` block."""
        entries = [_Entry(fault) for fault in faults]
        self._entries += entries
        try:
            yield
        finally:
            self._entries = [entry for entry in self._entries if entry not in entries]

    def take(self, step: Step | None, account: str | None) -> BaseFault | None:
        """The fault that strikes this request, if any; it has one time less from now on."""
        struck = next((each for each in self._entries if each.strikes(step, account)), None)
        if struck is None:
            return None
        if struck.times == 0:  # out of the way: there may be one for each of many accounts
            self._entries.remove(struck)
        return struck.fault
