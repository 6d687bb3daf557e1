"""CuPy: NumPy's functions, which CuPy's arrays bring to the GPU; each call waits until the GPU is done."""

from __future__ import annotations

from typing import Any

import cupy

from benchmarks.case import Array, Case, Function, Inputs, Task, Values, listed


def task(case: Case, f: Function, inputs: Inputs) -> Task:
    changing = () if isinstance(case.form, Values) else case.form.held
    named = {name: cupy.array(value) for name, value in inputs.items()}
    names = {f"a{k}": value for k, value in enumerate(named.values())}

    def run(*given: Any) -> Any:
        made = f(*given)
        cupy.cuda.get_current_stream().synchronize()
        return made

    def from_host(*given: Array) -> list[Array]:
        return [cupy.asnumpy(value) for value in listed(f(*map(cupy.asarray, given)))]

    if case.by_host:
        arrays = dict(zip(names, inputs.values()))
        return Task(f"f({', '.join(names)})", {"f": from_host, **arrays}, lambda: from_host(*arrays.values()))

    def results() -> list[Array]:
        found = listed(run(*names.values()))
        return [cupy.asnumpy(value).copy() for value in (*found, *(named[name] for name in changing))]

    return Task(f"f({', '.join(names)})", {"f": run, **names}, results)


def warm_up() -> None:
    cupy.zeros(1)
