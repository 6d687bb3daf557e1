"""One peer's process: `python -m benchmarks.worker PEER` answers a line of JSON for every line of JSON.

{"do": "prepare", "case": NAME, "results": PATH}   builds the case, runs it once, saves the results
{"do": "time", "case": NAME, "seconds": S}         seconds for each run, one number for each of several spans
{"do": "cold", "case": NAME}                       seconds from nothing but imports to the first result
{"do": "explain", "case": NAME}                    what takes the time of it, as far as the peer can tell
{"do": "least", "case": NAME}                      which of its device's measured limits the case meets, and the seconds there
{"do": "forget", "case": NAME}                     lets go of a case's memory
"""

from __future__ import annotations

import json
import os
import sys
import time
import timeit
from importlib import import_module, metadata
from typing import Any, NamedTuple

import numpy as np

from benchmarks.case import Case, NotYet, Task
from benchmarks.cases import function_of, named


class PeerSpec(NamedTuple):
    """Its module in benchmarks.peers, the function there that builds tasks, and whose functions it runs."""

    module: str
    build: str
    library: str
    package: str


PEERS = {
    "tcc": PeerSpec("tcc_peer", "task", "tcc", "tcc"),
    "numpy": PeerSpec("numpy_peer", "task", "numpy", "numpy"),
    "torch": PeerSpec("torch_peer", "task", "torch", "torch"),
    "torch.compile": PeerSpec("torch_peer", "compiled", "torch", "torch"),
    "jax": PeerSpec("jax_peer", "task", "jax", "jax"),
    "cupy": PeerSpec("cupy_peer", "task", "numpy", "cupy"),
    "pytensor": PeerSpec("pytensor_peer", "task", "pytensor", "pytensor"),
    "onnxruntime": PeerSpec("onnx_peer", "task", "torch", "onnxruntime"),
}
SPAN = 0.01  # seconds at least between two looks at the clock

Message = dict[str, Any]


class Worker:
    """The tasks of one peer that are ready to run."""

    def __init__(self, peer: str) -> None:
        self.peer, self.spec = peer, PEERS[peer]
        self.module = import_module(f"benchmarks.peers.{self.spec.module}")
        self.ready: dict[str, tuple[timeit.Timer, Task]] = {}

    def build(self, case: Case) -> Task:
        """NotYet if the peer has nothing to run."""
        if self.peer in case.without:
            raise NotYet(f"{self.peer} is left out")
        task: Task = getattr(self.module, self.spec.build)(
            case, function_of(self.spec.library, case), case.arrays()
        )
        return task

    def prepare(self, case: Case, results: str) -> Message:
        task = self.build(case)
        np.savez(results, *task.results())
        timer = timeit.Timer(task.statement, globals=dict(task.names))
        self.ready[case.name] = timer, task
        return {}

    def time(self, case: Case, seconds: float) -> Message:
        timer, task = self.ready[case.name]
        with task.around():
            count = 1
            while (span := timer.timeit(count)) < SPAN:
                count = max(2 * count, int(count * SPAN / max(span, 1e-7)))
            spans = max(1, int(seconds / span))
            return {"seconds": [timer.timeit(count) / count for _ in range(spans)]}

    def cold(self, case: Case) -> Message:
        self.module.warm_up()
        f, inputs = function_of(self.spec.library, case), case.arrays()
        start = time.perf_counter()
        getattr(self.module, self.spec.build)(case, f, inputs).results()
        return {"seconds": [time.perf_counter() - start]}

    def explain(self, case: Case) -> Message:
        explain = getattr(self.module, "explain", None)
        return {"kernels": explain(self.ready[case.name][1]) if explain else []}

    def least(self, case: Case) -> Message:
        limit, seconds = self.module.least(case.least())
        return {"limit": limit, "seconds": seconds}

    def forget(self, case: Case) -> Message:
        self.ready.pop(case.name, None)
        return {}


def answer(worker: Worker, message: Message) -> Message:
    """What the message asks for; an exception becomes an answer, since one failing case must not end the others."""
    do, name = message.pop("do"), message.pop("case")
    try:
        result: Message = getattr(worker, do)(named(name), **message)
    except NotYet as e:
        return {"not yet": str(e)}
    except Exception as e:
        return {"error": f"{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ''}"}
    return result


def version(package: str) -> str:
    """CuPy's distribution is named after the CUDA that it is for."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return str(import_module(package).__version__)


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a peer prints must not look like an answer
    try:
        worker = Worker(sys.argv[1])
    except ModuleNotFoundError as e:
        print(json.dumps({"absent": f"{e.name} is not installed"}), file=replies)
        return
    print(json.dumps({"ready": os.getpid(), "version": version(worker.spec.package)}), file=replies)
    for line in sys.stdin:
        print(json.dumps(answer(worker, json.loads(line))), file=replies)


if __name__ == "__main__":
    main()
