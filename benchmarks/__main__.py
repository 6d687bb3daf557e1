"""`python -m benchmarks`: every case, every peer, at 1 and 2 threads, in one interleaved run."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import CASES, Case, inputs_of
from benchmarks.numpy_peer import reference
from benchmarks.processes import PEERS, Peer, start
from benchmarks.report import Row, table
from tcc.tools.peak import copy_bandwidth, fma_peak

ROUNDS = 5
SECONDS = 0.15  # that a peer runs a case in one round
PAUSE = 0.02  # lets the last peer's idle threads fall asleep
TOLERANCE = 2e-4  # of float32 results against float64, relative to the largest of an array
COMPILE_RUNS = 3


def disagreement(case: Case, path: Path) -> str | None:
    """How a peer's saved results differ from the reference, or None."""
    with np.load(path) as saved:
        results = [saved[name] for name in saved.files]
    wanted = reference(case.kind, inputs_of(case))
    if len(results) != len(wanted):
        return f"{len(results)} results, wanted {len(wanted)}"
    for k, (got, want) in enumerate(zip(results, wanted)):
        if got.shape != want.shape:
            return f"result {k} has shape {got.shape}, wanted {want.shape}"
        worst = float(np.abs(got - want).max() / max(np.abs(want).max(), 1e-30))
        if not worst <= TOLERANCE:
            return f"result {k} is off by {worst:.1e} of its largest element"
    return None


def measure(
    case: Case,
    peers: dict[str, Peer],
    threads: int,
    folder: Path,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
) -> Row:
    """Compares the results of every peer, then lets those that agree take turns."""
    row = Row(case.name, threads, case.flops, case.bytes)
    ready = {}
    for name, peer in peers.items():
        path = folder / f"{name}.npz"
        failure = peer.ask("prepare", case.name, results=str(path)).get("error") or disagreement(case, path)
        if failure:
            row.failures[name] = failure
            continue
        ready[name] = peer
    spans: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(rounds):
        for name, peer in ready.items():
            time.sleep(PAUSE)
            spans[name] += peer.ask("time", case.name, seconds=seconds)["seconds"]
    row.seconds = {name: statistics.median(found) for name, found in spans.items()}
    return row


def measure_compilation(names: list[str], others: str | None, cpus: list[int]) -> list[Row]:
    """From the graph to the first result of the MLP's step, imports not counted: no cache, then a new process with it."""
    case = next(case for case in CASES if case.kind == "mlp")
    cold, warm = Row("cold compile of the mlp step", len(cpus)), Row("the same from the cache", len(cpus))
    found: dict[Row, dict[str, list[float]]] = {cold: {}, warm: {}}
    for _ in range(COMPILE_RUNS):
        for name in names:
            with tempfile.TemporaryDirectory(prefix="tcc-bench-") as fresh:
                for row in (cold, warm):
                    for peer in start([name], others, cpus, Path(fresh)).values():
                        reply = peer.ask("cold", case.name)
                        peer.close()
                        if "error" in reply:
                            row.failures[name] = reply["error"]
                        else:
                            found[row].setdefault(name, []).extend(reply["seconds"])
    for row, runs in found.items():
        row.seconds = {name: statistics.median(seconds) for name, seconds in runs.items()}
    return [cold, warm]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter that has the peers installed")
    parser.add_argument("--only", metavar="WORDS", default="", help="cases whose names contain this")
    parser.add_argument("--peer", action="append", choices=PEERS, help="only this one (may be repeated)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="thread counts (1 2)")
    parser.add_argument("--no-compile", action="store_true", help="leave out the compilation times")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the medians there")
    return parser.parse_args()


def machine() -> dict[str, Any]:
    cpu = next((line.split(":")[1] for line in Path("/proc/cpuinfo").open() if "model name" in line), "?")
    return {"cpu": cpu.strip(), "cpus": len(os.sched_getaffinity(0)), "python": platform.python_version()}


def main() -> int:
    options = arguments()
    names = options.peer or list(PEERS)
    allowed = sorted(os.sched_getaffinity(0))
    rows = []
    peaks = {}
    with tempfile.TemporaryDirectory(prefix="tcc-bench-") as folder:
        for threads in options.threads:
            if threads > len(allowed):
                print(f"{threads} threads: only {len(allowed)} CPUs to run on", file=sys.stderr)
                continue
            cpus = allowed[:threads]
            peaks[threads] = fma_peak(threads)
            peers = start(names, options.peers, cpus, Path(folder))
            for case in CASES:
                if options.only in case.name:
                    rows.append(measure(case, peers, threads, Path(folder)))
                    print(f"measured: {case.name}, threads {threads}", file=sys.stderr)
            for peer in peers.values():
                peer.close()
    if not options.no_compile:
        compilers = [name for name in names if name not in ("numpy", "torch")]
        rows += measure_compilation(compilers, options.peers, allowed[:1])
    bandwidth = copy_bandwidth()
    print(table(rows, peaks, bandwidth))
    if options.json:
        facts = {"machine": machine(), "fma_peak": peaks, "copy_bandwidth": bandwidth}
        options.json.write_text(
            json.dumps({**facts, "rows": [row.as_dict() for row in rows]}, indent=1) + "\n"
        )
    return any("tcc" in row.failures for row in rows)


if __name__ == "__main__":
    sys.exit(main())
