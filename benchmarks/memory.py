"""The most memory that a download takes, for a file of 2 GiB and for one of 16 GiB.

    python benchmarks/memory.py [--quick] [--sizes 2GiB 16GiB] [--tls] [--segments N|auto]
        [--disk DIR]

The figure that counts is the process's peak over what it had once the library was imported; beside
it, over what it had after a first small download. The file that nginx serves is one large hole, and
what was fetched is removed; both are on a disk, so there must be room for the largest size.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import bench
import fetching

from af10_async.cli.arguments import size as bytes_of


def measure(sizes: Sequence[int], scheme: str, segments: int | str, disk: Path) -> None:
    """One download of each size."""
    options = {} if segments == 1 else {"segments": segments}
    rows: list[tuple[object, ...]] = []
    for size in sizes:
        if (room := shutil.disk_usage(disk).free) < size + fetching.GIB:
            raise SystemExit(f"too little room in {disk}: {room:,} bytes are free")
        with (
            tempfile.TemporaryDirectory(prefix="af10-bench-", dir=disk) as name,
            fetching.served(Path(name), size, sparse=True) as source,
        ):
            target = Path(name, "fetched.bin")
            url = source.url(scheme)
            run = fetching.transfer("ours", url, target, source, options=options)
            assert target.stat().st_size == size, "not the whole file"
        speed = size / fetching.MIB / run["seconds"]
        rows.append(
            (fetching.size_text(size), run["over import"], run["over idle"], run["peak"], speed)
        )
    columns = ("MiB over import", "MiB over idle", "peak MiB", "MiB/s")
    bench.table(f"memory of one download, {scheme}, segments={segments}", columns, rows)


def segments_of(text: str) -> int | str:
    return text if text == "auto" else int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument(
        "--sizes", type=bytes_of, nargs="+", default=(2 * fetching.GIB, 16 * fetching.GIB)
    )
    parser.add_argument("--tls", action="store_true", help="https instead of http")
    parser.add_argument("--segments", type=segments_of, default=1)
    parser.add_argument("--disk", type=Path, default=Path(), help="default: the current folder")
    options = parser.parse_args()
    sizes = (16 * fetching.MIB, 64 * fetching.MIB) if options.quick else options.sizes
    print(fetching.versions_text())
    measure(sizes, "tls" if options.tls else "plain", options.segments, options.disk)


if __name__ == "__main__":
    main()
