"""One large file from nginx: `RemoteFile.save` beside curl, wget, aria2c and what Python has.

    python benchmarks/downloads.py [--quick] [--rounds 5] [--size 1GiB] [--plain | --tls]
        [--peers ours,httpx,...] [--dir DIR] [--json FILE]

nginx (it must be installed) and the files are on this machine, in memory unless `--dir` says
otherwise, so that neither a line nor a disk counts. Each run is a process of its own, and the peers
take turns. Time and CPU time of the programs are those of their processes; with Python they are
those of the download alone. One more round goes before and does not count: in it, what each peer
has fetched is compared with what was served.

`ours` computes the SHA-256 on the way, which no other peer does: the same from a shell is `curl +
sha256sum`, or `curl + openssl`, whose hash is the faster one of the two on many machines. All are
compared with `curl` alone. `httpx` is the usual loop over `aiter_bytes`. A program or a library
that is missing is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import bench
import fetching
import transfers

from af10_async.cli.arguments import size as bytes_of

Run = dict[str, float]
Runs = dict[str, list[Run]]

CURL, OURS, USUAL = "curl", "ours", "httpx"
PROGRAMS: dict[str, Callable[[str, Path, fetching.Source], list[list[str]]]] = {
    CURL: lambda *file: [fetching.curl(*file)],
    "curl + sha256sum": lambda *file: [fetching.curl(*file), ["sha256sum", str(file[1])]],
    "curl + openssl": lambda *file: [
        fetching.curl(*file),
        ["openssl", "dgst", "-sha256", str(file[1])],
    ],
    "wget": lambda *file: [fetching.wget(*file)],
    "aria2c": lambda *file: [fetching.aria2c(*file)],
}
PEERS = (*PROGRAMS, *(peer for peer in transfers.PEERS if peer != "idle"))
SCHEMES = ("plain", "tls")


def is_here(peer: str) -> bool:
    if peer in transfers.PEERS:
        return importlib.util.find_spec(transfers.PEERS[peer][0]) is not None
    return all(shutil.which(name) for name in peer.split(" + "))


def one_run(peer: str, scheme: str, source: fetching.Source, target: Path) -> Run:
    url = source.url(scheme)
    if peer in transfers.PEERS:
        return fetching.transfer(peer, url, target, source)
    return fetching.program_run(*PROGRAMS[peer](url, target, source))


def measure(
    rounds: int, size: int, schemes: Sequence[str], peers: Sequence[str], chosen: Path | None
) -> dict[str, Runs]:
    """Run all in turn."""
    runs: dict[str, Runs] = {scheme: {peer: [] for peer in peers} for scheme in schemes}
    names = {f"{scheme} {peer}": (scheme, peer) for scheme in schemes for peer in peers}
    with fetching.ram_folder(chosen) as folder, fetching.served(folder, size) as source:
        target = folder / "fetched.bin"
        for number, name in bench.interleaved(tuple(names), 1 + rounds):
            scheme, peer = names[name]
            run = one_run(peer, scheme, source, target)
            if number == 0:
                fetching.check(target, source, name)
            else:
                runs[scheme][peer].append(run)
            target.unlink()
    return runs


def show(runs: dict[str, Runs], size: int) -> None:
    """Print how they compare."""
    columns = ("speed / curl", "CPU / curl", "speed / httpx", "MiB/s", "CPU s per GiB", "peak MiB")
    for scheme, found in runs.items():
        seconds = {peer: [run["seconds"] for run in each] for peer, each in found.items()}
        cpu = {peer: [run["cpu"] for run in each] for peer, each in found.items()}
        rows: list[tuple[object, ...]] = []
        for peer, each in found.items():
            usual = bench.ratio(seconds[USUAL], seconds[peer]) if USUAL in found else "-"
            rows.append(
                (
                    peer,
                    bench.ratio(seconds[CURL], seconds[peer]),
                    bench.ratio(cpu[peer], cpu[CURL]),
                    usual,
                    statistics.median(size / fetching.MIB / each for each in seconds[peer]),
                    statistics.median(each * fetching.GIB / size for each in cpu[peer]),
                    statistics.median(run["peak"] for run in each),
                )
            )
        bench.table(f"{scheme}, {fetching.size_text(size)}", columns, rows)
        if OURS in found:
            over = max(run["over import"] for run in found[OURS])
            print(f"{OURS}: at most {over:.1f} MiB over the imported library")


def peers_of(text: str) -> list[str]:
    """Those that were named, and curl, with which all are compared."""
    names = [CURL, *(name for name in text.split(",") if name != CURL)]
    if unknown := [name for name in names if name not in PEERS]:
        raise argparse.ArgumentTypeError(f"not among {', '.join(PEERS)}: {', '.join(unknown)}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=bytes_of, default=fetching.GIB)
    parser.add_argument("--plain", action="store_true", help="http only")
    parser.add_argument("--tls", action="store_true", help="https only")
    parser.add_argument("--peers", type=peers_of, default=PEERS, help="separated by commas")
    parser.add_argument("--dir", type=Path, help="where the files are (default: in memory)")
    parser.add_argument("--json", type=Path, help="write all runs to this file")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.size = 1, 16 * fetching.MIB
    schemes = [each for each in SCHEMES if getattr(options, each)] or SCHEMES
    peers = [each for each in options.peers if is_here(each)]
    if CURL not in peers:
        raise SystemExit("curl is not installed")
    print(fetching.versions_text())
    if missing := [each for each in options.peers if each not in peers]:
        print(f"left out, since they are not installed: {', '.join(missing)}")
    runs = measure(options.rounds, options.size, schemes, peers, options.dir)
    show(runs, options.size)
    found = {"size": options.size, "rounds": options.rounds, "runs": runs}
    fetching.write_json(options.json, "downloads", found)


if __name__ == "__main__":
    main()
