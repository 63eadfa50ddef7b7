"""Draw what `downloads.py` and `segments.py` have found.

    python benchmarks/downloads.py --json downloads.json
    python benchmarks/segments.py --json segments.json
    python benchmarks/plot_downloads.py downloads.json [segments.json]
        [--out docs/images/downloads.png]

Each bar is the median of the rounds, and the thin line on it reaches from the least to the most.
Needs matplotlib (`pip install --group benchmarks`).
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fetching

Run = Mapping[str, float]

NAMES = {
    "ours": "af10_async",
    "ours, auto": 'af10_async\nsegments="auto"',
    "httpx": "httpx, the usual loop",
    "httpx raw": "httpx, aiter_raw",
}
SCHEMES = {"plain": "http", "tls": "https"}
COLOURS = {
    ("plain", True): "#0b5cad",
    ("tls", True): "#6ea8e0",
    ("plain", False): "#6b6b6b",
    ("tls", False): "#b9b9b9",
}
"""By scheme, and whether it is ours."""


def is_ours(peer: str) -> bool:
    return peer.startswith("ours")


def bars(
    axes: Any,
    runs: Mapping[str, Mapping[str, Sequence[Run]]],
    peers: Sequence[str],
    value: Callable[[Run], float],
    label: str,
) -> None:
    """A group of bars for each peer, the first one on top; in it one for each scheme."""
    height = 0.8 / len(runs)
    for number, (scheme, found) in enumerate(runs.items()):
        for row, peer in enumerate(peers):
            values = [value(run) for run in found[peer]]
            middle = statistics.median(values)
            place = row + (number - (len(runs) - 1) / 2) * height
            spread = [[middle - min(values)], [max(values) - middle]]
            style = {"height": height * 0.92, "color": COLOURS[scheme, is_ours(peer)]}
            axes.barh(place, middle, xerr=spread, error_kw={"lw": 0.8, "alpha": 0.6}, **style)
            text = f" {middle:,.0f}" if middle >= 20 else f" {middle:.2f}"
            axes.text(max(values), place, text, va="center", fontsize=8)
    axes.set_yticks(range(len(peers)), [NAMES.get(peer, peer) for peer in peers])
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    for tick, peer in zip(axes.get_yticklabels(), peers, strict=True):
        tick.set_fontweight("bold" if is_ours(peer) else "normal")


def downloads(throughput: Any, cpu: Any, found: Mapping[str, Any]) -> None:
    """Two pictures, the peers sorted by the first scheme's time."""
    runs, size = found["runs"], found["size"]
    first: Mapping[str, Sequence[Run]] = next(iter(runs.values()))
    peers = sorted(first, key=lambda peer: statistics.median(run["seconds"] for run in first[peer]))
    what = f"one file of {fetching.size_text(size)}, {found['rounds']} rounds"
    throughput.set_title(f"Throughput, more is better\n{what}", fontsize=10)
    bars(throughput, runs, peers, lambda run: size / fetching.MIB / run["seconds"], "MiB/s")
    cpu.set_title(f"CPU time, less is better\n{what}", fontsize=10)
    bars(cpu, runs, peers, lambda run: run["cpu"] * fetching.GIB / size, "CPU seconds per GiB")
    handles = [cpu.barh(0, 0, color=COLOURS[scheme, False]) for scheme in runs]
    cpu.legend(handles, [SCHEMES[scheme] for scheme in runs], loc="best", frameon=False)


def segments(axes: Any, found: Mapping[str, Any]) -> None:
    """The picture of a server that caps each connection, sorted by time."""
    runs: dict[str, Sequence[Run]] = found["runs"]
    peers = sorted(runs, key=lambda peer: statistics.median(run["seconds"] for run in runs[peer]))
    size, rate = fetching.size_text(found["size"]), fetching.size_text(found["rate"])
    what = f"{size} from a server that gives each connection {rate} per second"
    axes.set_title(f"Time, less is better\n{what}", fontsize=10)
    bars(axes, {found["scheme"]: runs}, peers, lambda run: run["seconds"], "seconds")
    number = found["connections"]
    several = {
        "aria2c": f"aria2c\n{number} connections",
        "ours": f"af10_async\nsegments={number}",
        "curl": "curl\n1 connection",
    }
    axes.set_yticks(range(len(peers)), [several.get(peer, NAMES.get(peer, peer)) for peer in peers])


def draw(files: Sequence[Mapping[str, Any]], out: Path) -> None:
    """All of it in one image."""
    importlib.import_module("matplotlib").use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    by_kind = {file["what"]: file for file in files}
    both = len(by_kind) == 2
    figure = pyplot.figure(figsize=(11, 8.2 if both else 5.6), layout="constrained")
    heights = {"height_ratios": (2.4, 1)} if both else {}
    grid = figure.add_gridspec(len(by_kind), 2, **heights)
    if (found := by_kind.get("downloads")) is not None:
        downloads(figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1]), found)
    if (found := by_kind.get("segments")) is not None:
        segments(figure.add_subplot(grid[len(by_kind) - 1, :]), found)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=130)
    print(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="written by --json")
    parser.add_argument("--out", type=Path, default=Path("docs/images/downloads.png"))
    options = parser.parse_args()
    draw([json.loads(file.read_text()) for file in options.files], options.out)


if __name__ == "__main__":
    main()
