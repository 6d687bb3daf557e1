"""`python -m benchmarks`: every case, every peer, at 1 and 2 threads, in one interleaved run."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import tcc
from benchmarks.case import DEVICE, Case, NotYet
from benchmarks.cases import CASES, function_of
from benchmarks.measure import ROUNDS, SECONDS, allowed_cpus, measure, measure_compilation
from benchmarks.processes import PEERS, ROOT, start
from benchmarks.report import line, page, table
from benchmarks.results import Results, Row, machine
from tcc.tools.command import leave

PAGE = ROOT / "docs" / ("performance.md" if DEVICE == "cpu" else "performance-gpu.md")
QUICK_ROUNDS, QUICK_SECONDS = 3, 0.05
EXAMPLES = """examples:
  python -m benchmarks --list                                   the names of the cases and of their topics
  python -m benchmarks --only lstm --threads 1 --compile no     some cases, one thread, no compilation times
  python -m benchmarks --peers .peers/bin/python --quick        beside the peers that `make peers` installed
  python -m benchmarks --device cuda --peers .peers/bin/python --compile no --json gpu.json      the same on a GPU
  python -m benchmarks --only rows --check                      do all agree with the reference?
  python -m benchmarks --only "softmax" --profile               how long each of tcc's kernels takes
  python -m benchmarks --json out.json; python -m benchmarks --page out.json    keeps the medians; writes the page

Each row is said on stderr as soon as it is measured; the table follows at the end, or when the run is stopped."""
ON_DEVICES = {
    "cpu": tuple(peer for peer in PEERS if peer != "cupy"),
    "cuda": ("tcc", "torch", "torch.compile", "jax", "cupy"),
    "emulator": ("tcc",),
}
COMPILERS = ("tcc", "jax", "pytensor", "torch.compile")


def page_of(results: Path) -> Path:
    """Where the page of a file of results is: those of VERSION-CPU.json have one of their own."""
    _, _, cpu = results.stem.partition("-")
    return PAGE.with_stem(f"{PAGE.stem}-{cpu}") if cpu else PAGE


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=(__doc__ or "").splitlines()[0],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter that has the peers installed")
    parser.add_argument(
        "--only",
        metavar="WORDS",
        action="append",
        help="cases whose topic is this or whose name contains it (may be repeated)",
    )
    parser.add_argument("--peer", action="append", choices=PEERS, help="only this one (may be repeated)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="thread counts (1 2)")
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda", "emulator"),
        default="cpu",
        help="where the peers run (cpu); emulator: tcc alone, to compare results",
    )
    parser.add_argument("--quick", action="store_true", help="few and short rounds")
    parser.add_argument("--check", action="store_true", help="compare results, measure nothing")
    parser.add_argument("--compile", choices=("also", "only", "no"), default="also", help="compilation times")
    parser.add_argument("--cache", metavar="FOLDER", type=Path, help="keep what the peers compile there")
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="write the medians there; rows of other cases stay"
    )
    parser.add_argument(
        "--page",
        metavar="FILE",
        type=Path,
        help=f"write {PAGE.name} from this file, or that of its CPU for VERSION-CPU.json, and end",
    )
    parser.add_argument(
        "--fastest", action="store_true", help="show the fastest runs, not the medians: for a busy machine"
    )
    parser.add_argument("--profile", action="store_true", help="time each kernel of tcc's functions and end")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    options = parser.parse_args()
    if options.device != DEVICE:  # which every process reads when it starts
        os.environ["BENCH_DEVICE"] = options.device
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks", *sys.argv[1:]])
    options.peer = options.peer or list(ON_DEVICES[options.device])
    if options.device != "cpu":
        options.threads = [1]
    if not chosen(options.only):
        parser.error(
            f"no case's topic is, and no case's name contains, {' or '.join(options.only)}: see --list"
        )
    if min(options.threads) < 1:
        parser.error(f"--threads: wanted 1 or more, got {min(options.threads)}")
    if options.peers and shutil.which(options.peers) is None:
        parser.error(f"--peers {options.peers}: no such program")
    if options.page and not options.page.is_file():
        parser.error(f"--page {options.page}: no such file")
    return options


def profiled(case: Case, count: int) -> str:
    """The kernels' times in this process, on so many threads (or all that TCC_THREADS gives)."""
    from benchmarks.peers import tcc_peer
    from tcc.runtime import threads
    from tcc.tools import profile

    threads.pool().limit = min(count, threads.pool().threads)
    try:
        names = dict(tcc_peer.task(case, function_of("tcc", case), case.arrays()).names)
    except NotYet as e:
        return str(e)
    return profile.table(*profile.profile(names.pop("f").program, list(names.values())))


@contextmanager
def cache(folder: Path | None) -> Iterator[Path]:
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="tcc-bench-") as made:
            yield Path(made)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.resolve()


def chosen(words: list[str] | None) -> list[Case]:
    there = [c for c in CASES if DEVICE != "cpu" or not c.for_gpus]
    return [c for c in there if not words or any(w == c.topic or w in c.name for w in words)]


def measure_all(options: argparse.Namespace, folder: Path, versions: dict[str, str]) -> Iterator[Row]:
    """The rows of the cases chosen; `versions` takes the peers'."""
    names, cpus, cases = options.peer, allowed_cpus(), chosen(options.only)
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if options.quick else (ROUNDS, SECONDS)
    rounds = 0 if options.check else rounds
    for threads in options.threads if options.compile != "only" else []:
        if threads > len(cpus):
            print(f"{threads} threads: only {len(cpus)} CPUs to run on", file=sys.stderr)
            continue
        peers = start(names, options.peers, cpus[:threads], folder)
        versions.update((name, peer.version) for name, peer in peers.items())
        for case in cases:
            if case.timed:
                yield measure(case, peers, threads, folder, rounds, seconds)
        for peer in peers.values():
            peer.close()
    compilers = [name for name in names if name in COMPILERS]
    for case in cases if options.compile != "no" and not options.check else []:
        for threads in options.threads if case.compiled else []:
            yield from measure_compilation(case, compilers, options.peers, cpus[:threads])


def keep(results: Results, path: Path) -> None:
    """In the file, beside what it holds already: a run that is cut short leaves what it measured."""
    (Results.load(path).merged(results) if path.exists() else results).save(path)


def main() -> int:
    options = arguments()
    if options.list:
        print("\n".join(f"{case.topic:14}{case.name}" for case in chosen(options.only)))
        return 0
    if options.profile:
        for case in chosen(options.only):
            for count in options.threads:
                print(f"{case.name}\n{profiled(case, count)}\n")
        return 0
    if options.page:
        page_of(options.page).write_text(page(Results.load(options.page), options.page.stem))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stopped by another program: as by Ctrl-C
    versions: dict[str, str] = {}
    with cache(options.cache) as folder:
        shown: list[Row] = []  # the fastest runs or the medians
        try:
            for row in measure_all(options, folder, versions):
                if options.fastest:
                    shown.append(replace(row, seconds=row.fastest or row.seconds))
                else:
                    shown.append(row)
                print(line(shown[-1]), file=sys.stderr, flush=True)
                if options.json and not options.check:
                    keep(Results(tcc.__version__, machine(), versions, [row]), options.json)
        except KeyboardInterrupt:
            print("interrupted: what was measured until now", file=sys.stderr)
    print(table(shown))
    return any("tcc" in row.failures for row in shown)


if __name__ == "__main__":
    try:
        code = main()
    except BrokenPipeError:
        code = 0
    leave(code)
