"""tcc, as a user of Theano would write it."""

from __future__ import annotations

from importlib import import_module
from pkgutil import walk_packages

import tcc
import tcc.tensor as T
from benchmarks.case import Case, Function, Inputs, Task
from benchmarks.peers import symbolic

EXPLAINED, EXPLAIN_SECONDS = 3, 0.2


def task(case: Case, f: Function, inputs: Inputs) -> Task:
    with tcc.change_flags(floatX="float32"):
        return symbolic.task(tcc, T, case, f, inputs)


def explain(task: Task) -> list[str]:
    """The kernels that take most of the time, beside the machine's limits."""
    from tcc.tools.profile import profile, slowest

    names = dict(task.names)
    found, _ = profile(names.pop("f").program, list(names.values()), EXPLAIN_SECONDS)
    return slowest(found, EXPLAINED)


def warm_up() -> None:
    """Imports every module of tcc's floors but its tools, and llvmlite."""
    import llvmlite.binding  # noqa: F401

    for floor in ("tcc", "tcc.ir", "tcc.passes", "tcc.codegen", "tcc.runtime"):
        for module in walk_packages(import_module(floor).__path__, f"{floor}."):
            if not module.name.startswith("tcc.tools") and not module.name.endswith("__main__"):
                import_module(module.name)
