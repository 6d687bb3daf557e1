"""tcc, as a user of Theano would write it."""

from __future__ import annotations

from importlib import import_module
from pkgutil import walk_packages
from typing import Any

import tcc
import tcc.tensor as T
from benchmarks.case import DEVICE, Case, Function, Inputs, Task, Work
from benchmarks.peers import symbolic
from tcc.runtime.device_arrays import DeviceArray

EXPLAINED, EXPLAIN_SECONDS = 3, 0.2


def task(case: Case, f: Function, inputs: Inputs) -> Task:
    with tcc.change_flags(floatX="float32", device=DEVICE):
        made = symbolic.task(tcc, T, case, f, inputs)
    return made if DEVICE == "cpu" or case.by_host else on_device(made)


def on_device(task: Task) -> Task:
    """Inputs and outputs stay on the device, and a run ends when all is done there, as for the peers."""
    names = dict(task.names)
    f = names.pop("f")
    f.stay = frozenset(range(len(f.output_variables)))

    def run(*given: Any) -> Any:
        results = f(*given)
        f.device.synchronise()
        return results

    arrays = {name: DeviceArray.of(f.device, value) for name, value in names.items()}
    return Task(task.statement, {"f": run, **arrays}, task.results)


def least(work: Work) -> tuple[str, float]:
    """Which of the device's measured limits the work meets, and the seconds that it takes there."""
    from tcc.devices import arch_of, open_device
    from tcc.devicetimes import bandwidth, peak

    device: Any = open_device(DEVICE)
    if work.flops:
        dtype = {"float32": "f32", "float64": "f64", "bfloat16": "bf16"}[work.dtype]
        return "fma", work.flops / peak(device, arch_of(device), dtype)
    if not work.read:
        return "", 0.0
    return "memory", (work.read + work.written) / bandwidth(device)


def explain(task: Task) -> list[str]:
    """The kernels that take most of the time, beside the machine's limits; nothing on a device."""
    if DEVICE != "cpu":
        return []
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
