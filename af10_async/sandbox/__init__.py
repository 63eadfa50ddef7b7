"""A stand-in AF10 that runs on this machine: for tests, demonstrations and development.

It speaks the wire as AF10's own webhook page and two public clients describe it, to any client,
and can be told to misbehave. It shares no code with the client of this library, so that a
misreading of the wire by one is not hidden by the same misreading by the other.
"""

from __future__ import annotations

from .accounts import Account
from .endpoints import Answer
from .faults import Fault, FaultPlan
from .jobs import CallbackAttempt, SandboxJob
from .records import Seen
from .server import Sandbox

__all__ = [
    "Account",
    "Answer",
    "CallbackAttempt",
    "Fault",
    "FaultPlan",
    "Sandbox",
    "SandboxJob",
    "Seen",
]
