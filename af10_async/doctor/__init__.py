"""Says which link between this machine and AF10 is broken, and what to do about it.

```python
async for finding in examine(out="backups/"):
    print(finding.state, finding.name, finding.message, finding.advice)
```

The configuration is that of the `AF10_*` variables. Nothing is changed: AF10 is asked for a token
and for one answer to a GET, the store gets a record that is taken out again, and the target a file
of which nothing stays.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from .findings import CHECKS, DEADLINE, Finding, State

if _TYPE_CHECKING:
    from .examination import examine

__all__ = ["CHECKS", "DEADLINE", "examine", "Finding", "State"]

if not _TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # It imports nearly everything that there is.
        if name != "examine":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .examination import examine

        return examine
