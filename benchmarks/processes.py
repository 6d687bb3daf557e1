"""Starts the peers' processes, each with the same CPUs to run on, and talks to them one at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.worker import PEERS, Message

ROOT = Path(__file__).resolve().parent.parent
THREAD_SETTINGS = (
    "TCC_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


class Absent(Exception):
    """The peer is not installed."""


class Peer:
    """A running worker.  Absent if its package is not there; what it asks for fails once it has died."""

    def __init__(self, name: str, python: str, cpus: list[int], folder: Path, log: Path) -> None:
        self.name, self.log = name, log
        self._errors = log.open("a")
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", name],
            cwd=ROOT,
            env=environment(len(cpus), folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )
        self.pid = self._process.pid
        first = self._read()
        if "absent" in first:
            self.close()
            raise Absent(first["absent"])
        self.version: str = first.get("version", "?")

    def ask(self, do: str, case: str, **more: Any) -> Message:
        """The worker's answer, which holds `error` when the peer could not do it."""
        pipe = self._process.stdin
        assert pipe is not None
        with suppress(BrokenPipeError):  # reading tells why
            print(json.dumps({"do": do, "case": case, **more}), file=pipe, flush=True)
        return self._read()

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()
        self._process.wait()

    def _read(self) -> Message:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = self.log.read_text().strip().splitlines() or ["nothing"]
            return {"error": f"its process ended with status {self._process.wait()}: {said[-1]}"}
        message: Message = json.loads(line)
        return message


def ticks(process: int | None = None) -> float:
    """Seconds that the CPUs have worked since the machine started, or for one process."""
    if process is None:
        found = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        used = sum(found[:3]) + sum(found[5:8])  # all but idle and waiting; the rest is counted in these
    else:
        after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        used = sum(int(word) for word in after_name[11:15])  # with its children
    return used / os.sysconf("SC_CLK_TCK")


def others_ticks(peers: dict[str, Peer]) -> float:
    """Seconds that the CPUs have worked for neither this process nor the peers."""
    return ticks() - sum(ticks(pid) for pid in (os.getpid(), *(peer.pid for peer in peers.values())))


def environment(threads: int, folder: Path) -> dict[str, str]:
    """Thread counts, and every peer's compilation cache inside `folder`."""
    return {
        **os.environ,
        **dict.fromkeys(THREAD_SETTINGS, str(threads)),
        "TCC_CACHE_DIR": str(folder / "tcc"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "torch"),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_PLATFORMS": os.environ.get("BENCH_DEVICE", "cpu"),
        "PYTENSOR_FLAGS": f"base_compiledir={folder / 'pytensor'}",
        "NUMBA_CACHE_DIR": str(folder / "numba"),
        "PYTHONDONTWRITEBYTECODE": "",
    }


def interpreter(peer: str, others: str | None) -> str:
    """tcc runs in this interpreter; the others in `others`, or in .peers if that is there, or in this one."""
    made = ROOT / ".peers" / "bin" / "python"
    if peer == "tcc":
        return sys.executable
    return others or (str(made) if made.exists() else sys.executable)


def start(names: list[str], others: str | None, cpus: list[int], folder: Path) -> dict[str, Peer]:
    """The peers that are installed; the others are named on standard error."""
    peers = {}
    for name in names:
        try:
            peers[name] = Peer(name, interpreter(name, others), cpus, folder, folder / f"{name}.log")
        except Absent as e:
            print(f"{name}: absent: {e}", file=sys.stderr)
    return peers


__all__ = ["PEERS", "Peer", "start"]
