"""Everything that the sandbox can do wrong on purpose."""

from __future__ import annotations

from dataclasses import dataclass

from .answers import AnswerFaults
from .base import Step
from .callbacks import CallbackFaults
from .files import FileFaults
from .plan import FaultPlan

__all__ = ["Fault", "FaultPlan", "Step"]


@dataclass(frozen=True, slots=True)
class Fault(AnswerFaults, CallbackFaults, FileFaults):
    """One thing to do wrong: made by the class method of its kind.

    Every kind accepts, beside its own arguments: `on`, the step that it hits (`authenticate`,
    `environment`, `start`, `callback`, `redeem`, `file`, `vehicle`, `call` for endpoints of your
    own, or `any`); `times`, how often (once; None for ever); `skip`, how many matching requests
    pass first; and `account`, the username it is for.

    Any request: `slow`, `status`, `rate_limited`, `come_back`, `error_in_200`, `html`, `huge`,
    `encoded`, `wrong_type`, `echo`, `reset_before`, `reset_after`, `hang`, `expired_token`.
    The POST: `direct`. The callback: `early`, `late`, `twice`, `never`, `extra_params`,
    `ampersand`, `trailing_slash`, `forged_first`, `method`. Redeeming: `payload`,
    `refused_secret`. Lists of vehicles: `repeats_page`. The file: `stale_file`, `truncated`,
    `wrong_length`, `stall`, `no_length_cut`, `no_length`, `drip`, `reset_in_body`, `file_html`,
    `file_encoded`, `file_partial`, `ignores_range`, `wrong_range`, `changed`, `redirect`.

    Example:
        `sandbox.faults.add(Fault.status(503, on="start"), Fault.truncated(1000, times=2))`

    """
