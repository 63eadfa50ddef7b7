"""A server that caps each connection: `save(segments=N)` beside aria2c with N connections.

    python benchmarks/segments.py [--quick] [--rounds 5] [--size 256MiB] [--rate 8MiB]
        [--connections 8] [--tls] [--dir DIR] [--json FILE]

nginx's `limit_rate` gives each connection so many bytes per second, so one connection takes as long
as size and rate say (32 s), and N of them an N-th of it (4 s). The files are in memory unless
`--dir` says otherwise. One more round goes before and does not count: in it, what each peer has
fetched is compared with what was served.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import bench
import fetching

from af10_async.cli.arguments import size as bytes_of

Run = dict[str, float]


def peers(
    url: str, target: Path, source: fetching.Source, connections: int
) -> dict[str, Callable[[], Run]]:
    """What to run under each name."""

    def ours(segments: int | str) -> Run:
        options = {"segments": segments}
        return fetching.transfer("ours", url, target, source, options=options)

    return {
        "curl": lambda: fetching.program_run(fetching.curl(url, target, source)),
        "aria2c": lambda: fetching.program_run(fetching.aria2c(url, target, source, connections)),
        "ours": partial(ours, connections),
        "ours, auto": partial(ours, "auto"),
    }


def measure(
    rounds: int, size: int, rate: int, connections: int, scheme: str, chosen: Path | None
) -> dict[str, list[Run]]:
    """Run all in turn."""
    with (
        fetching.ram_folder(chosen) as folder,
        fetching.served(folder, size, rate=rate) as source,
    ):
        target = folder / "fetched.bin"
        url = source.url(scheme, f"capped/{fetching.FILE}")
        commands = peers(url, target, source, connections)
        runs: dict[str, list[Run]] = {name: [] for name in commands}
        for number, name in bench.interleaved(tuple(commands), 1 + rounds):
            run = commands[name]()
            if number == 0:
                fetching.check(target, source, name)
            else:
                runs[name].append(run)
            target.unlink()
    return runs


def show(runs: dict[str, list[Run]], title: str) -> None:
    """Print how they compare."""
    seconds = {name: [run["seconds"] for run in each] for name, each in runs.items()}
    rows = [
        (
            name,
            bench.ratio(seconds["aria2c"], each),
            bench.ratio(seconds["curl"], each),
            statistics.median(each),
            statistics.median(run["cpu"] for run in runs[name]),
            statistics.median(run["peak"] for run in runs[name]),
        )
        for name, each in seconds.items()
    ]
    columns = ("speed / aria2c", "speed / curl", "seconds", "CPU s", "peak MiB")
    bench.table(title, columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=bytes_of, default=256 * fetching.MIB)
    parser.add_argument("--rate", type=bytes_of, default=8 * fetching.MIB, help="bytes per second")
    parser.add_argument("--connections", type=int, default=8, help="of aria2c and of ours")
    parser.add_argument("--tls", action="store_true", help="https instead of http")
    parser.add_argument("--dir", type=Path, help="where the files are (default: in memory)")
    parser.add_argument("--json", type=Path, help="write all runs to this file")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.size = 1, 32 * fetching.MIB
    if missing := [name for name in ("curl", "aria2c") if shutil.which(name) is None]:
        raise SystemExit(f"not installed: {', '.join(missing)}")
    scheme = "tls" if options.tls else "plain"
    sizes = {name: getattr(options, name) for name in ("size", "rate", "connections")}
    print(fetching.versions_text())
    runs = measure(options.rounds, **sizes, scheme=scheme, chosen=options.dir)
    size, rate = fetching.size_text(options.size), fetching.size_text(options.rate)
    show(runs, f"{scheme}, {size}, {rate} per second and connection, {options.connections} of them")
    found = {"scheme": scheme, "rounds": options.rounds, "runs": runs, **sizes}
    fetching.write_json(options.json, "segments", found)


if __name__ == "__main__":
    main()
