"""NumPy: every function gives all results, and changes parameters in place."""

from __future__ import annotations

import numpy as np

from benchmarks.case import Array, Case, Function, Inputs, Task, Values, listed


def task(case: Case, f: Function, inputs: Inputs) -> Task:
    changing = () if isinstance(case.form, Values) else case.form.held
    named = {name: value.copy() if name in changing else value for name, value in inputs.items()}
    names = {f"a{k}": value for k, value in enumerate(named.values())}

    def results() -> list[Array]:
        found = listed(f(*names.values()))
        return [np.array(value) for value in (*found, *(named[name] for name in changing))]

    return Task(f"f({', '.join(names)})", {"f": f, **names}, results)


def warm_up() -> None:
    """Nothing is left to import."""
