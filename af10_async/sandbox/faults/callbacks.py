"""Faults in how the callback is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self, Unpack

from .acts import Come
from .base import BaseFault, When

__all__ = ["CallbackFaults"]


class CallbackFaults(BaseFault):
    """The kinds that strike the callback; a job takes at most one, when it is posted."""

    __slots__ = ()

    @classmethod
    def early(cls, **when: Unpack[When]) -> Self:
        """The callback is made, and answered, before the POST is."""
        return cls._of(Come(early=True), "callback", when)

    @classmethod
    def late(cls, seconds: float, **when: Unpack[When]) -> Self:
        """The callback is made so much later than `job_seconds`."""
        return cls._of(Come(late_seconds=seconds), "callback", when)

    @classmethod
    def twice(cls, calls: int = 2, **when: Unpack[When]) -> Self:
        """The same callback is made twice, or `calls` times, one after the other."""
        return cls._of(Come(times=calls), "callback", when)

    @classmethod
    def never(cls, **when: Unpack[When]) -> Self:
        """The job becomes ready, but nobody is called."""
        return cls._of(Come(genuine=False), "callback", when)

    @classmethod
    def extra_params(cls, params: Mapping[str, str] | None = None, **when: Unpack[When]) -> Self:
        """There are other parameters before and after the id."""
        return cls._of(Come(extra=params or {"source": "af10", "v": "2"}), "callback", when)

    @classmethod
    def ampersand(cls, **when: Unpack[When]) -> Self:
        """`&id=` is put after the URL, whether it has a query or not."""
        return cls._of(Come(style="ampersand"), "callback", when)

    @classmethod
    def trailing_slash(cls, **when: Unpack[When]) -> Self:
        """A slash is put between the path and the query."""
        return cls._of(Come(style="trailing_slash"), "callback", when)

    @classmethod
    def forged_first(cls, **when: Unpack[When]) -> Self:
        """A callback with a made-up id comes before the genuine one."""
        return cls._of(Come(forged_first=True), "callback", when)

    @classmethod
    def method(cls, method: str, *, instead: bool = False, **when: Unpack[When]) -> Self:
        """A callback by this method (HEAD, POST) comes before the genuine GET, or `instead`."""
        return cls._of(Come(method_first=method, genuine=not instead), "callback", when)
