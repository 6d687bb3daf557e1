"""The cases in NumPy; with float64 inputs they are the reference that every peer has to agree with."""

from __future__ import annotations

import numpy as np

from benchmarks.cases import RATE, Array, Build, Inputs, Task


def add_one(i: Inputs) -> Task:
    x = i["x"]
    return Task("x + 1", {"x": x}, lambda: [x + 1])


def chain(i: Inputs) -> Task:
    def f(x: Array) -> Array:
        gauss: Array = np.log1p(np.exp(-(x * x)))
        result: Array = 0.5 * (np.tanh(x) * (1 / (1 + np.exp(-x))) + gauss) - x
        return result

    x = i["x"]
    return Task("f(x)", {"f": f, "x": x}, lambda: [f(x)])


def cost_and_slope(z: Array, y: Array) -> tuple[Array, Array]:
    """The mean cross-entropy of softmax(z) with labels y, and its gradient by z."""
    rows = np.arange(len(y))
    shifted = z - z.max(axis=1, keepdims=True)
    slope = np.exp(shifted)
    total = slope.sum(axis=1, keepdims=True)
    cost = (np.log(total)[:, 0] - shifted[rows, y]).mean()
    slope /= total
    slope[rows, y] -= 1
    slope /= len(y)
    return cost, slope


def xent(i: Inputs) -> Task:
    x, y = i["x"], i["y"]
    return Task("f(x, y)", {"f": cost_and_slope, "x": x, "y": y}, lambda: list(cost_and_slope(x, y)))


def logistic(i: Inputs) -> Task:
    w, b = i["w"].copy(), i["b"].copy()

    def step(x: Array, y: Array) -> Array:
        cost, slope = cost_and_slope(x @ w + b, y)
        w[...] -= RATE * (x.T @ slope)
        b[...] -= RATE * slope.sum(axis=0)
        return cost

    x, y = i["x"], i["y"]
    return Task("step(x, y)", {"step": step, "x": x, "y": y}, lambda: [step(x, y), w, b])


def mlp(i: Inputs) -> Task:
    w1, b1, w2, b2 = parameters = [i[name].copy() for name in ("w1", "b1", "w2", "b2")]

    def step(x: Array, y: Array) -> Array:
        inner = np.tanh(x @ w1 + b1)
        cost, slope = cost_and_slope(inner @ w2 + b2, y)
        inner_slope = (slope @ w2.T) * (1 - inner * inner)
        w2[...] -= RATE * (inner.T @ slope)
        b2[...] -= RATE * slope.sum(axis=0)
        w1[...] -= RATE * (x.T @ inner_slope)
        b1[...] -= RATE * inner_slope.sum(axis=0)
        return cost

    x, y = i["x"], i["y"]
    return Task("step(x, y)", {"step": step, "x": x, "y": y}, lambda: [step(x, y), *parameters])


def reference(kind: str, inputs: Inputs) -> list[Array]:
    """The results in float64."""
    wide = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in inputs.items()}
    return [np.array(result) for result in BUILD[kind](wide).results()]


def warm_up() -> None:
    """Nothing is left to import."""


BUILD: dict[str, Build] = {"add_one": add_one, "chain": chain, "xent": xent, "logistic": logistic, "mlp": mlp}
