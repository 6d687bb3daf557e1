"""Compares the peers' results with the reference, then lets them take turns."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import tape
from benchmarks.case import DEVICE, Array, Case, NotYet, Work
from benchmarks.cases import function_of
from benchmarks.peers import numpy_peer
from benchmarks.processes import Peer, others_ticks, start
from benchmarks.results import COLD, WARM, Row
from tcc.tools.peak import copy_bandwidth, fma_peak, read_bandwidth

ROUNDS = 5
SECONDS = 0.15  # that a peer runs a case in one round
PAUSE = 0.3  # lets the last peer's idle threads fall asleep: some spin for 200 ms
COMPILE_RUNS = 3
SLOW_COMPILE = 15.0  # seconds: what takes longer to compile is compiled once


def reference(case: Case, tiny: bool = False) -> list[Array]:
    """The results in float64: of the topic's reference, or of its NumPy functions where those say everything."""
    inputs = case.arrays(tiny)
    wide = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in inputs.items()}
    try:
        return [np.array(r) for r in tape.results(case, function_of("reference", case), wide)]
    except NotYet:
        return numpy_peer.task(case, function_of("numpy", case), wide).results()


def disagreement(results: list[Array], wanted: list[Array], tolerance: float) -> str | None:
    """How results differ from those of the reference, or None."""
    if len(results) != len(wanted):
        return f"{len(results)} results, wanted {len(wanted)}"
    for k, (got, want) in enumerate(zip(results, wanted)):
        if got.shape != want.shape:
            return f"result {k} has shape {got.shape}, wanted {want.shape}"
        worst = float(np.abs(got - want).max(initial=0) / max(np.abs(want).max(initial=0), 1e-30))
        if not worst <= tolerance:
            return f"result {k} is off by {worst:.1e} of its largest element"
    return None


def saved(path: Path) -> list[Array]:
    with np.load(path) as found:
        return [found[name] for name in found.files]


def measure(
    case: Case,
    peers: dict[str, Peer],
    threads: int,
    folder: Path,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
) -> Row:
    """The medians of those that agree with the reference; with no rounds, only the agreement."""
    row = Row(case.name, case.topic, threads)
    ready = {}
    wanted = reference(case)
    for name, peer in peers.items():
        path = folder / f"{name}.npz"
        reply = peer.ask("prepare", case.name, results=str(path))
        if "not yet" in reply:
            row.not_yet += [name]
        elif failure := reply.get("error") or disagreement(saved(path), wanted, case.tolerance):
            row.failures[name] = failure
        else:
            ready[name] = peer
            row.agreed += [name]
        path.unlink(missing_ok=True)
    spans: dict[str, list[float]] = {name: [] for name in ready}
    began, busy = time.perf_counter(), others_ticks(peers)
    for _ in range(rounds):
        for name, peer in ready.items():
            time.sleep(PAUSE)
            spans[name] += peer.ask("time", case.name, seconds=seconds)["seconds"]
    if "tcc" in ready and rounds:
        row.kernels = ready["tcc"].ask("explain", case.name).get("kernels", [])
        if DEVICE != "cpu":
            found = ready["tcc"].ask("least", case.name)
            row.limit, row.least = found.get("limit", ""), found.get("seconds", 0.0)
    row.others = (others_ticks(peers) - busy) / max(time.perf_counter() - began, 0.01)
    for peer in ready.values():
        peer.ask("forget", case.name)
    row.seconds = {name: statistics.median(found) for name, found in spans.items() if found}
    row.fastest = {name: min(found) for name, found in spans.items() if found}
    if rounds and DEVICE == "cpu":
        row.limit, row.least = least(case.least(), threads)
    return row


def least(work: Work, threads: int) -> tuple[str, float]:
    """Which of this machine's measured limits the work meets, and the seconds that it takes there."""
    if work.flops:
        elem = {"float32": "float", "float64": "double"}[work.dtype]
        return "fma", work.flops / fma_peak(threads, elem)
    if not work.read:
        return "", 0.0
    copied, rest = 2 * work.written, work.read - work.written
    seconds = copied / copy_bandwidth(int(copied), threads) if copied else 0.0
    return "memory", seconds + (rest / read_bandwidth(int(rest), threads) if rest else 0.0)


def measure_compilation(case: Case, names: list[str], others: str | None, cpus: list[int]) -> list[Row]:
    """From the graph to the first result, imports not counted: no cache, then a new process with it."""
    cold, warm = (Row(f"{kind} of the {case.name}", case.topic, len(cpus)) for kind in (COLD, WARM))
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in names}
    for run in range(COMPILE_RUNS):
        for name, times in found.items():
            if run and (name in cold.failures or name in cold.not_yet or times[0][0] > SLOW_COMPILE):
                continue
            with tempfile.TemporaryDirectory(prefix="tcc-bench-") as fresh:
                for row, seconds in zip((cold, warm), times):
                    for peer in start([name], others, cpus, Path(fresh)).values():
                        reply = peer.ask("cold", case.name)
                        peer.close()
                        if "not yet" in reply:
                            row.not_yet += [name]
                        elif "error" in reply:
                            row.failures[name] = reply["error"]
                        else:
                            seconds += reply["seconds"]
    for k, row in enumerate((cold, warm)):
        row.seconds = {name: statistics.median(times[k]) for name, times in found.items() if times[k]}
    return [cold, warm]


def allowed_cpus() -> list[int]:
    return sorted(os.sched_getaffinity(0))
