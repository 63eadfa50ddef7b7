"""A fake of ngrok's SDK that takes no call which the real one would not take."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any


class FakeSdk(ModuleType):
    """Sessions succeed at once, unless told otherwise."""

    def __init__(self, real: ModuleType) -> None:
        super().__init__("ngrok")
        self.real = real
        self.calls: list[tuple[Any, ...]] = []
        """What was called, and with what."""
        self.builders: list[FakePart] = []
        self.urls = ["https://first.ngrok.app", "https://second.ngrok.app"]
        self.results: dict[str, Any] = {}
        """By the name of a call: the exception it gives, or a future to give instead."""
        self.joins: list[asyncio.Future[None]] = []
        self.open: set[FakePart] = set()
        """Sessions and listeners that nobody has closed."""

    def SessionBuilder(self) -> FakePart:  # noqa: N802 - the SDK's name
        inspect.signature(self.real.SessionBuilder.connect)  # it is still there
        builder = FakePart(self, self.real.SessionBuilder)
        self.builders.append(builder)
        return builder

    def named(self, *names: str) -> list[tuple[Any, ...]]:
        """The calls of these names."""
        return [call for call in self.calls if call[0] in names]

    def outcome(self, name: str) -> asyncio.Future[Any]:
        """What a call gives that is waited for."""
        result = self.results.get(name)
        if isinstance(result, asyncio.Future):
            return result
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if isinstance(result, Exception):
            future.set_exception(result)
        elif name == "join":
            self.joins.append(future)
        else:
            future.set_result(self.made(name))
        return future

    def made(self, name: str) -> FakePart | None:
        """The object that a call makes."""
        kinds = {"connect": self.real.Session, "listen_and_forward": self.real.Listener}
        if name not in kinds:
            return None
        part = FakePart(self, kinds[name])
        self.open.add(part)
        return part


class FakePart:
    """One of the SDK's objects; its methods are those of the real one."""

    def __init__(self, sdk: FakeSdk, real: Any) -> None:
        self._sdk = sdk
        self._real = real
        self.handlers: dict[str, Callable[..., None]] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        signature = inspect.signature(getattr(self._real, name))

        def call(*arguments: object) -> Any:
            signature.bind(self, *arguments)
            self._sdk.calls.append((name, *arguments))
            return self._answer(name, arguments)

        return call

    def _answer(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name in ("connect", "listen_and_forward", "join", "close"):
            if name == "close":
                self._sdk.open.discard(self)
            kind = f"close {self._real.__name__}" if name == "close" else name
            return self._sdk.outcome(kind)
        if name == "url":
            return self._sdk.urls.pop(0)
        if name == "http_endpoint":
            return FakePart(self._sdk, self._sdk.real.HttpListenerBuilder)
        if name.startswith("handle_"):
            self.handlers[name] = arguments[0]
        return self
