"""How long a download to a real disk holds the event loop: ours beside the naive way.

    python benchmarks/event_loop.py [--quick] [--rounds 5] [--size 1GiB] [--tls]
        [--segments N|auto] [--disk DIR]

A task beside the download wants to run each millisecond; the longest time that it has to wait is
how long everything else in the process stands still. Both end with a flush to the disk. `naive` is
httpx's usual loop, which writes each chunk as it comes, and an `os.fsync` at the end; `idle` is the
same task beside nothing but a sleep, on which no download can improve.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import bench
import fetching
from memory import segments_of

from af10_async.cli.arguments import size as bytes_of

Run = dict[str, float]
NAMES = ("ours", "naive", "idle")
PEERS = {"ours": "ours", "naive": "httpx", "idle": "idle"}


def one_run(
    name: str, scheme: str, segments: int | str, source: fetching.Source, target: Path
) -> Run:
    options = {"segments": segments} if name == "ours" and segments != 1 else {}
    run = fetching.transfer(
        PEERS[name],
        source.url(scheme),
        target,
        source,
        options=options,
        fsync=True,
        heartbeat=True,
    )
    target.unlink()
    return run


def measure(
    rounds: int, size: int, scheme: str, segments: int | str, disk: Path
) -> dict[str, list[Run]]:
    """Run all in turn; what is served is in memory."""
    runs: dict[str, list[Run]] = {name: [] for name in NAMES}
    with (
        fetching.ram_folder(None) as folder,
        fetching.served(folder, size) as source,
        tempfile.TemporaryDirectory(prefix="af10-bench-", dir=disk) as place,
    ):
        for _, name in bench.interleaved(NAMES, rounds):
            target = Path(place, "fetched.bin")
            runs[name].append(one_run(name, scheme, segments, source, target))
    return runs


def show(runs: dict[str, list[Run]], title: str) -> None:
    """Print how they compare."""
    held = {name: [run["held"] * 1000 for run in each] for name, each in runs.items()}
    rows = [
        (
            name,
            bench.ratio(held[name], held["naive"]),
            max(held[name]),
            statistics.median(held[name]),
            statistics.median(run["often held"] for run in each),
            statistics.median(run["seconds"] for run in each),
        )
        for name, each in runs.items()
    ]
    columns = ("held / naive", "worst ms", "median ms", "times > 50 ms", "seconds")
    bench.table(title, columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=bytes_of, default=fetching.GIB)
    parser.add_argument("--tls", action="store_true", help="https instead of http")
    parser.add_argument("--segments", type=segments_of, default=1)
    parser.add_argument("--disk", type=Path, default=Path(), help="default: the current folder")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.size = 1, 32 * fetching.MIB
    scheme = "tls" if options.tls else "plain"
    print(fetching.versions_text())
    runs = measure(options.rounds, options.size, scheme, options.segments, options.disk)
    size = fetching.size_text(options.size)
    show(runs, f"the longest that the loop is held, {scheme}, {size}, segments={options.segments}")


if __name__ == "__main__":
    main()
