"""What tcc and PyTensor have in common, for both have Theano's API."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.case import RATE, Array, Case, Descent, Function, Inputs, Slopes, Task, Values, listed


def task(library: Any, tensors: Any, case: Case, f: Function, inputs: Inputs) -> Task:
    """Parameters are shared variables, steps are updates; so is what is bfloat16, for inputs are as NumPy has them."""
    form, held = case.form, case.form.held
    kept = list(inputs) if case.bfloat16 else held
    variables = {
        name: library.shared(value.copy(), name, **({"dtype": "bfloat16"} if case.bfloat16 else {}))
        if name in kept
        else tensors.TensorType(value.dtype.name, shape=value.shape)(name)
        for name, value in inputs.items()
    }
    cotangent = variables[form.cotangent] if isinstance(form, Slopes) and form.cotangent else None
    outputs = f(*(v for v in variables.values() if v is not cotangent))
    new: list[Any] = []
    if isinstance(form, Slopes):
        known = {} if cotangent is None else {"known_grads": {outputs: cotangent}}
        cost = None if known else outputs
        outputs = [outputs, *library.grad(cost, [variables[name] for name in form.by], **known)]
    elif isinstance(form, Descent):
        parameters = [variables[name] for name in held]
        new = [
            p - np.float32(RATE) * slope for p, slope in zip(parameters, library.grad(outputs, parameters))
        ]
    elif not isinstance(form, Values):
        outputs, new = outputs[0], listed(outputs[1])
    updates = [(variables[name], value) for name, value in zip(held, new)]
    given = [name for name in inputs if name not in kept]
    compiled = library.function([variables[name] for name in given], outputs, updates=updates)
    names = {f"a{k}": inputs[name] for k, name in enumerate(given)}

    def results() -> list[Array]:
        found = listed(compiled(*names.values()))
        return [np.array(value) for value in (*found, *(p.get_value() for p, _ in updates))]

    return Task(f"f({', '.join(names)})", {"f": compiled, **names}, results)
