"""Time, chance and sleep as one parameter, so that tests need neither luck nor patience."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Runtime:
    """Where the library gets time and chance from; the defaults are the real ones."""

    now: Callable[[], float] = time.time
    """Unix seconds, for what is written down."""
    monotonic: Callable[[], float] = time.monotonic
    """Seconds that never jump, for how long something lasts."""
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    chance: Callable[[], float] = random.random
    """From 0 to 1, for the spread of pauses."""
    random_bytes: Callable[[int], bytes] = secrets.token_bytes
    """Unguessable bytes, for keys and secrets."""
