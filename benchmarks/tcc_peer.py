"""The cases in tcc, as a user of Theano would write them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

import numpy as np

import tcc
import tcc.tensor as T
from benchmarks.cases import RATE, Array, Build, Inputs, Task

Expression = Any

tcc.config.floatX = "float32"


def arrays(*values: Any) -> list[Array]:
    return [np.array(value) for value in values]


def add_one(i: Inputs) -> Task:
    x = T.vector("x")
    f, value = tcc.function([x], x + 1), i["x"]
    return Task("f(x)", {"f": f, "x": value}, lambda: arrays(f(value)))


def chain(i: Inputs) -> Task:
    x = T.vector("x")
    f = tcc.function([x], 0.5 * (T.tanh(x) * T.nnet.sigmoid(x) + T.log1p(T.exp(-(x * x)))) - x)
    value = i["x"]
    return Task("f(x)", {"f": f, "x": value}, lambda: arrays(f(value)))


def cost_of(z: Expression, y: Expression) -> Expression:
    return -T.mean(T.log(T.nnet.softmax(z))[T.arange(y.shape[0]), y])


def xent(i: Inputs) -> Task:
    z, y = T.matrix("z"), T.lvector("y")
    cost = cost_of(z, y)
    f = tcc.function([z, y], [cost, tcc.grad(cost, z)])
    return Task("f(x, y)", {"f": f, "x": i["x"], "y": i["y"]}, lambda: arrays(*f(i["x"], i["y"])))


def trained(i: Inputs, names: tuple[str, ...], forward: Callable[..., Expression]) -> Task:
    """A step of gradient descent: `forward(x, *parameters)` gives logits."""
    x, y = T.matrix("x"), T.lvector("y")
    parameters = [tcc.shared(i[name], name) for name in names]
    cost = cost_of(forward(x, *parameters), y)
    updates = [(p, p - RATE * slope) for p, slope in zip(parameters, tcc.grad(cost, parameters))]
    step = tcc.function([x, y], cost, updates=updates)

    def results() -> list[Array]:
        return arrays(step(i["x"], i["y"]), *(p.get_value() for p in parameters))

    return Task("step(x, y)", {"step": step, "x": i["x"], "y": i["y"]}, results)


def logistic(i: Inputs) -> Task:
    return trained(i, ("w", "b"), lambda x, w, b: T.dot(x, w) + b)


def mlp(i: Inputs) -> Task:
    return trained(
        i, ("w1", "b1", "w2", "b2"), lambda x, w1, b1, w2, b2: T.dot(T.tanh(T.dot(x, w1) + b1), w2) + b2
    )


def warm_up() -> None:
    """Imports every module of tcc's lower floors, and llvmlite."""
    import llvmlite.binding  # noqa: F401

    for module in walk_packages(tcc.__path__, "tcc."):
        if not module.name.startswith("tcc.tools") and not module.name.endswith("__main__"):
            import_module(module.name)


BUILD: dict[str, Build] = {"add_one": add_one, "chain": chain, "xent": xent, "logistic": logistic, "mlp": mlp}
