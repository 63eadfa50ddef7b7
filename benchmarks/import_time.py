"""How long `from af10_async import AF10Client` takes, beside the libraries that it stands on alone.

    python benchmarks/import_time.py [--quick] [--rounds 21] [--python PATH]

Each import is a fresh interpreter with its bytecode cached, and takes the time itself, so that the
start of the interpreter is not counted. `--python` names another interpreter, such as one of a
virtual environment that has the core dependencies only (httpx imports click and rich when they are
there).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

import bench

STATEMENTS = {
    "af10_async": "from af10_async import AF10Client",
    "httpx, aiohttp, pydantic": "import httpx, aiohttp, pydantic",
}
TIMED = """
from time import perf_counter
started = perf_counter()
{statement}
print(perf_counter() - started)
"""


def seconds(python: str, statement: str, env: dict[str, str]) -> float:
    """One import in an interpreter of its own; what lies in the current folder does not count."""
    done = subprocess.run(
        [python, "-P", "-c", TIMED.format(statement=statement)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=bench.DEADLINE,
        env=env,
    )
    return float(done.stdout)


def measure(python: str, rounds: int) -> None:
    """Import both in turn, and print how they compare."""
    with tempfile.TemporaryDirectory(prefix="af10-bytecode-") as cache:
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        env["PYTHONPYCACHEPREFIX"] = cache
        for statement in STATEMENTS.values():
            seconds(python, statement, env)
        times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
        for _, name in bench.interleaved(tuple(STATEMENTS), rounds):
            times[name].append(seconds(python, STATEMENTS[name], env))
    ours, theirs = times.values()
    medians = (statistics.median(each) * 1000 for each in times.values())
    title = f"import time, {rounds} rounds"
    bench.table(
        title, ("ratio", "ours", "theirs"), [("milliseconds", bench.ratio(ours, theirs), *medians)]
    )
    print("theirs: " + list(STATEMENTS.values())[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    measure(options.python, 3 if options.quick else options.rounds)


if __name__ == "__main__":
    main()
