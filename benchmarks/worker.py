"""One peer's process: `python -m benchmarks.worker PEER` answers a line of JSON for every line of JSON.

{"do": "prepare", "case": NAME, "results": PATH}   builds the case, runs it once, saves the results
{"do": "time", "case": NAME, "seconds": S}         seconds for each run, one number for each of several spans
{"do": "cold", "case": NAME}                       seconds from nothing but imports to the first result
"""

from __future__ import annotations

import json
import os
import sys
import time
import timeit
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.cases import CASES, Build, Case, Task, inputs_of

# peer -> module, the table in it, what has to be installed
PEERS = {
    "tcc": ("benchmarks.tcc_peer", "BUILD"),
    "numpy": ("benchmarks.numpy_peer", "BUILD"),
    "torch": ("benchmarks.torch_peer", "EAGER"),
    "torch.compile": ("benchmarks.torch_peer", "COMPILED"),
    "jax": ("benchmarks.jax_peer", "BUILD"),
    "pytensor": ("benchmarks.pytensor_peer", "BUILD"),
}
SPAN = 0.01  # seconds at least between two looks at the clock

Message = dict[str, Any]


class Worker:
    """The tasks of one peer that are ready to run."""

    def __init__(self, peer: str) -> None:
        module, table = PEERS[peer]
        self.module = import_module(module)
        self.build: dict[str, Build] = getattr(self.module, table)
        self.timers: dict[str, timeit.Timer] = {}

    def prepare(self, case: Case, results: str) -> Message:
        task = self.build[case.kind](inputs_of(case))
        np.savez(results, *task.results())
        self.timers[case.name] = timer(task)
        return {}

    def time(self, case: Case, seconds: float) -> Message:
        run = self.timers[case.name].timeit
        count = 1
        while (span := run(count)) < SPAN:
            count = max(2 * count, int(count * SPAN / max(span, 1e-7)))
        spans = max(3, int(seconds / span))
        return {"seconds": [run(count) / count for _ in range(spans)]}

    def cold(self, case: Case) -> Message:
        self.module.warm_up()
        inputs = inputs_of(case)
        start = time.perf_counter()
        self.build[case.kind](inputs).results()
        return {"seconds": [time.perf_counter() - start]}


def timer(task: Task) -> timeit.Timer:
    return timeit.Timer(task.statement, globals=dict(task.names))


def answer(worker: Worker, message: Message) -> Message:
    """What the message asks for; an exception becomes an answer, since one failing case must not end the others."""
    do, name = message.pop("do"), message.pop("case")
    case = next(case for case in CASES if case.name == name)
    try:
        result: Message = getattr(worker, do)(case, **message)
    except Exception as e:
        return {"error": f"{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ''}"}
    return result


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a peer prints must not look like an answer
    try:
        worker = Worker(sys.argv[1])
    except ModuleNotFoundError as e:
        print(json.dumps({"absent": f"{e.name} is not installed"}), file=replies)
        return
    print(json.dumps({"ready": os.getpid()}), file=replies)
    for line in sys.stdin:
        print(json.dumps(answer(worker, json.loads(line))), file=replies)


if __name__ == "__main__":
    main()
