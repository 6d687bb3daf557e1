"""A small classifier with its training step, to make libraries of."""

from __future__ import annotations

from typing import Any

import numpy as np

import tcc
import tcc.tensor as T

SHAPES = {"x": ("n", 64), "y": ("n",)}


def mlp() -> tuple[Any, Any, list[Any]]:
    """A classifier's function and training step, and their shared variables."""
    rng = np.random.default_rng(0)
    shapes = {"W1": (64, 20), "b1": (20,), "W2": (20, 10), "b2": (10,)}
    params = [tcc.shared((rng.standard_normal(s) * 0.1).astype("float32"), name=n) for n, s in shapes.items()]
    W1, b1, W2, b2 = params
    x, y = T.fmatrix("x"), T.lvector("y")
    p = T.nnet.softmax(T.tanh(x.dot(W1) + b1).dot(W2) + b2)
    loss = -T.mean(T.log(p)[T.arange(y.shape[0]), y])
    steps = [(q, q - np.float32(0.1) * g) for q, g in zip(params, T.grad(loss, params))]
    return (
        tcc.function([x], p, name="predict"),
        tcc.function([x, y], loss, updates=steps, name="step"),
        params,
    )
