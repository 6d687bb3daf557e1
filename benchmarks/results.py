"""What was measured, as rows and as a file that runs of a part of the cases add to."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.case import DEVICE
from tcc.codegen.target import host
from tcc.runtime.cuda import driver

COLD, WARM = "cold compile", "compile from the cache"


@dataclass(eq=False)
class Row:
    """One case at one number of threads: median seconds of each peer, or why there are none."""

    case: str
    topic: str
    threads: int
    agreed: list[str] = field(default_factory=list)  # with the reference
    seconds: dict[str, float] = field(default_factory=dict)
    fastest: dict[str, float] = field(default_factory=dict)  # seconds of the fastest run
    others: float = 0.0  # CPUs that other programs kept busy meanwhile
    failures: dict[str, str] = field(default_factory=dict)
    not_yet: list[str] = field(default_factory=list)  # peers that have no function for it
    kernels: list[str] = field(default_factory=list)  # of tcc, that take most of the time
    limit: str = ""  # fma or memory
    least: float = 0.0  # seconds that the work takes at this limit, as measured in the same run

    @property
    def best_peer(self) -> str | None:
        others = {name: s for name, s in self.seconds.items() if name != "tcc"}
        return min(others, key=others.__getitem__, default=None)

    @property
    def ratio(self) -> float | None:
        """The best peer's time over tcc's: above 1, tcc is ahead."""
        best, own = self.best_peer, self.seconds.get("tcc")
        return self.seconds[best] / own if best and own else None

    def share(self, name: str = "tcc") -> float | None:
        """Of the machine's limit, that a peer reaches."""
        return self.least / self.seconds[name] if self.limit and name in self.seconds else None


@dataclass
class Results:
    """Of one machine and one version of tcc; `peers` holds the versions of the others."""

    version: str
    machine: dict[str, Any]
    peers: dict[str, str]
    rows: list[Row]

    @classmethod
    def load(cls, path: Path) -> Results:
        found = json.loads(path.read_text())
        return cls(**{**found, "rows": [Row(**row) for row in found["rows"]]})

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    def merged(self, newer: Results) -> Results:
        """With the rows of `newer` added, in place of those that they repeat; ValueError if the two cannot be compared."""
        for what in ("version", "machine"):
            if getattr(self, what) != getattr(newer, what):
                raise ValueError(f"{what} is {getattr(self, what)} in the file, {getattr(newer, what)} now")
        rows = {(row.case, row.threads): row for row in (*self.rows, *newer.rows)}
        return Results(self.version, self.machine, {**self.peers, **newer.peers}, list(rows.values()))


def machine() -> dict[str, Any]:
    """The CPU's model and vectors, and the GPU's if the peers run there, but neither the host's name nor its paths."""
    cpu = next((line.split(":")[1] for line in Path("/proc/cpuinfo").open() if "model name" in line), "?")
    cpu = f"{cpu.strip()} with vectors of {host().vector_bits} bits"
    if DEVICE == "cuda":
        cpu = f"{driver.look().devices[0]}, {cpu}"
    return {"cpu": cpu, "cpus": len(os.sched_getaffinity(0)), "python": platform.python_version()}
