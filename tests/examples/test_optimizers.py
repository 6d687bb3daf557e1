"""Each optimizer against its formula in NumPy, over a few steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tcc
import tcc.tensor as T
from optimizers import OPTIMIZERS, clip_norm

Array = NDArray[np.float64]
TARGETS = (np.array([[1.0, -2.0], [0.5, 3.0]]), np.array([-1.0, 4.0]))
STEPS = 4


@pytest.fixture(autouse=True)
def single_precision() -> Iterator[None]:
    with tcc.change_flags(floatX="float32"):
        yield


def problem() -> tuple[list[Any], Any]:
    """Parameters at zero, and half the squared distance to TARGETS, whose gradient is p - target."""
    parameters = [tcc.shared(np.zeros(target.shape, np.float32)) for target in TARGETS]
    cost = sum(T.sum(T.sqr(p - target.astype(np.float32))) for p, target in zip(parameters, TARGETS)) / 2
    return parameters, cost


def by_hand(name: str, rate: float, target: Array) -> Array:
    """Where one parameter stands after STEPS."""
    p, v, s, u = (np.zeros_like(target) for _ in range(4))
    for t in range(1, STEPS + 1):
        g = p - target
        if name == "sgd":
            p = p - rate * g
        elif name == "momentum":
            v = 0.9 * v - rate * g
            p = p + v
        elif name == "nesterov":
            v = 0.9 * v - rate * g
            p = p + 0.9 * v - rate * g
        elif name == "adagrad":
            s = s + g * g
            p = p - rate * g / np.sqrt(s + 1e-6)
        elif name == "adadelta":
            s = 0.95 * s + 0.05 * g * g
            d = np.sqrt(u + 1e-6) / np.sqrt(s + 1e-6) * g
            u = 0.95 * u + 0.05 * d * d
            p = p - rate * d
        elif name == "rmsprop":
            s = 0.9 * s + 0.1 * g * g
            p = p - rate * g / np.sqrt(s + 1e-6)
        else:
            v = 0.9 * v + 0.1 * g
            s = 0.999 * s + 0.001 * g * g
            p = p - rate * (v / (1 - 0.9**t)) / (np.sqrt(s / (1 - 0.999**t)) + 1e-8)
    return p


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_follows_its_formula(name: str) -> None:
    optimizer, rate = OPTIMIZERS[name]
    parameters, cost = problem()
    step = tcc.function([], cost, updates=optimizer(parameters, tcc.grad(cost, parameters), rate))
    for _ in range(STEPS):
        step()
    for parameter, target in zip(parameters, TARGETS):
        value = parameter.get_value()
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, by_hand(name, rate, target), rtol=2e-4)


@pytest.mark.parametrize("limit, scaled", [(1.0, True), (100.0, False)])
def test_clipping_bounds_the_norm_of_all_gradients_together(limit: float, scaled: bool) -> None:
    parameters, cost = problem()
    clipped = tcc.function([], clip_norm(tcc.grad(cost, parameters), limit))()
    norm = float(np.sqrt(sum((target**2).sum() for target in TARGETS)))
    factor = limit / norm if scaled else 1.0
    for gradient, target in zip(clipped, TARGETS):
        np.testing.assert_allclose(gradient, -factor * target, rtol=1e-5)
