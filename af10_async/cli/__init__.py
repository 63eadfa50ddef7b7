"""The `af10` command line: thin, over the public API only.

Exit codes: 0 done; 1 AF10 or the network said no; 2 wrong usage or configuration; 3 timed out
waiting, with the job's key printed; 130 interrupted.
"""

from .run import run

__all__ = ["run"]
