"""The cases in PyTensor, with its default mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from benchmarks.cases import RATE, Array, Build, Inputs, Task

Expression = Any

pytensor.config.floatX = "float32"


def arrays(*values: Any) -> list[Array]:
    return [np.array(value) for value in values]


def add_one(i: Inputs) -> Task:
    x = pt.fvector("x")
    f, value = pytensor.function([x], x + 1), i["x"]
    return Task("f(x)", {"f": f, "x": value}, lambda: arrays(f(value)))


def chain(i: Inputs) -> Task:
    x = pt.fvector("x")
    f = pytensor.function([x], 0.5 * (pt.tanh(x) * pt.sigmoid(x) + pt.log1p(pt.exp(-(x * x)))) - x)
    value = i["x"]
    return Task("f(x)", {"f": f, "x": value}, lambda: arrays(f(value)))


def cost_of(z: Expression, y: Expression) -> Expression:
    return -pt.mean(pt.special.log_softmax(z, axis=1)[pt.arange(y.shape[0]), y])


def xent(i: Inputs) -> Task:
    z, y = pt.fmatrix("z"), pt.lvector("y")
    cost = cost_of(z, y)
    f = pytensor.function([z, y], [cost, pytensor.grad(cost, z)])
    return Task("f(x, y)", {"f": f, "x": i["x"], "y": i["y"]}, lambda: arrays(*f(i["x"], i["y"])))


def trained(i: Inputs, names: tuple[str, ...], forward: Callable[..., Expression]) -> Task:
    """A step of gradient descent: `forward(x, *parameters)` gives logits."""
    x, y = pt.fmatrix("x"), pt.lvector("y")
    parameters = [pytensor.shared(i[name], name) for name in names]
    cost = cost_of(forward(x, *parameters), y)
    slopes = pytensor.grad(cost, parameters)
    updates = [(p, p - np.float32(RATE) * slope) for p, slope in zip(parameters, slopes)]
    step = pytensor.function([x, y], cost, updates=updates)

    def results() -> list[Array]:
        return arrays(step(i["x"], i["y"]), *(p.get_value() for p in parameters))

    return Task("step(x, y)", {"step": step, "x": i["x"], "y": i["y"]}, results)


def logistic(i: Inputs) -> Task:
    return trained(i, ("w", "b"), lambda x, w, b: pt.dot(x, w) + b)


def mlp(i: Inputs) -> Task:
    return trained(
        i,
        ("w1", "b1", "w2", "b2"),
        lambda x, w1, b1, w2, b2: pt.dot(pt.tanh(pt.dot(x, w1) + b1), w2) + b2,
    )


def warm_up() -> None:
    """Imports what the first compilation would import."""
    import pytensor.link.numba.dispatch  # noqa: F401


BUILD: dict[str, Build] = {"add_one": add_one, "chain": chain, "xent": xent, "logistic": logistic, "mlp": mlp}
