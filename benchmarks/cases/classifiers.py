"""A step of gradient descent on classifiers of digits without convolutions: logistic regression, and layers of tanh units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import tape
from benchmarks.case import RATE, Array, Case, Descent, Functions, Inputs, Rng, Values, Work

DIGITS = {"batch": 600, "pixels": 784, "classes": 10}
FEW = {"batch": 7, "pixels": 11, "classes": 5}


def weights(rng: Rng, rows: int, columns: int) -> Array:
    """Uniform as Glorot and Bengio (2010) have it."""
    limit = np.sqrt(6 / (rows + columns))
    return rng.uniform(-limit, limit, (rows, columns)).astype(np.float32)


def batch(rng: Rng, batch: int, pixels: int, classes: int) -> Inputs:
    return {
        "x": rng.random((batch, pixels), np.float32),
        "y": rng.integers(0, classes, batch).astype(np.int64),
    }


def linear(rng: Rng, **sizes: int) -> Inputs:
    return {
        **batch(rng, **sizes),
        "w": weights(rng, sizes["pixels"], sizes["classes"]),
        "b": np.zeros(sizes["classes"], np.float32),
    }


def layers(rng: Rng, hidden: int, depth: int = 2, **sizes: int) -> Inputs:
    """`depth` layers of weights w0, b0, w1, ..., the last being the classifier's."""
    widths = [sizes["pixels"], *[hidden] * (depth - 1), sizes["classes"]]
    found = batch(rng, **sizes)
    for k, (rows, columns) in enumerate(zip(widths, widths[1:])):
        found |= {f"w{k}": weights(rng, rows, columns), f"b{k}": np.zeros(columns, np.float32)}
    return found


def unlabelled(rng: Rng, **sizes: int) -> Inputs:
    inputs = layers(rng, **sizes)
    del inputs["y"]
    return inputs


def parameters(depth: int) -> tuple[str, ...]:
    return tuple(f"{letter}{k}" for k in range(depth) for letter in "wb")


CASES = (
    Case(
        "logistic regression step",
        "logistic",
        Descent(("w", "b")),
        linear,
        DIGITS,
        FEW,
        lambda batch, pixels, classes: Work(read=4 * batch * pixels),
    ),
    Case(
        "784-500-10 mlp step",
        "mlp",
        Descent(parameters(2)),
        layers,
        {**DIGITS, "hidden": 500},
        {**FEW, "hidden": 9},
        lambda batch, pixels, classes, hidden: Work(flops=batch * hidden * (4 * pixels + 6 * classes)),
        compiled=True,
    ),
    *(
        Case(
            f"164-layer mlp {kind}",
            kind,
            form,
            inputs,
            {"batch": 64, "pixels": 64, "classes": 10, "hidden": 64, "depth": 164},
            {**FEW, "hidden": 9, "depth": 164},
            compiled=True,
            timed=False,
        )
        for kind, form, inputs in (
            ("forward", Values(parameters(164)), unlabelled),
            ("step", Descent(parameters(164)), layers),
        )
    ),
)


def deep(dense: Callable[..., Any], tanh: Callable[..., Any], cost: Callable[..., Any]) -> Functions:
    """The cases in terms of what a library calls x @ w + b, tanh and the mean cross-entropy."""

    def forward(x: Any, *p: Any) -> Any:
        for w, b in zip(p[:-2:2], p[1:-2:2]):
            x = tanh(dense(x, w, b))
        return dense(x, *p[-2:])

    def step(x: Any, y: Any, *p: Any) -> Any:
        return cost(forward(x, *p), y)

    return {"forward": forward, **dict.fromkeys(("logistic", "mlp", "step"), step)}


def reference() -> Functions:
    return deep(lambda x, w, b: x @ w + b, tape.tanh, tape.cross_entropy)


def numpy() -> Functions:
    from benchmarks.cases import rows

    cost_and_slope = rows.numpy()["xent"]

    def logistic(x: Array, y: Array, w: Array, b: Array) -> Any:
        cost, slope = cost_and_slope(x @ w + b, y)
        w -= RATE * (x.T @ slope)
        b -= RATE * slope.sum(axis=0)
        return cost

    def mlp(x: Array, y: Array, w0: Array, b0: Array, w1: Array, b1: Array) -> Any:
        inner = np.tanh(x @ w0 + b0)
        cost, slope = cost_and_slope(inner @ w1 + b1, y)
        inner_slope = (slope @ w1.T) * (1 - inner * inner)
        w1 -= RATE * (inner.T @ slope)
        b1 -= RATE * slope.sum(axis=0)
        w0 -= RATE * (x.T @ inner_slope)
        b0 -= RATE * inner_slope.sum(axis=0)
        return cost

    return {"logistic": logistic, "mlp": mlp}


def tcc() -> Functions:
    import tcc.tensor as T
    from benchmarks.cases import rows

    return deep(lambda x, w, b: T.dot(x, w) + b, T.tanh, rows.tcc()["xent"])


def torch() -> Functions:
    import torch
    from torch.nn import functional as F

    return deep(lambda x, w, b: torch.addmm(b, x, w), torch.tanh, F.cross_entropy)


def jax() -> Functions:
    import jax.numpy as jnp

    from benchmarks.cases import rows

    return deep(lambda x, w, b: x @ w + b, jnp.tanh, rows.jax()["xent"])


def pytensor() -> Functions:
    import pytensor.tensor as pt

    from benchmarks.cases import rows

    return deep(lambda x, w, b: pt.dot(x, w) + b, pt.tanh, rows.pytensor()["xent"])
