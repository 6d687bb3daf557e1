"""Training steps of small models on the emulator: loss and parameters are the CPU's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from emulated import DEVICE

import tcc
import tcc.tensor as T

Step = Callable[[np.random.Generator], tuple[list[Any], Any, list[Any], list[Any]]]


def weights(rng: np.random.Generator, *shape: int) -> Any:
    return tcc.shared((rng.standard_normal(shape) * 0.3).astype(np.float32))


def lenet(rng: np.random.Generator) -> tuple[list[Any], Any, list[Any], list[Any]]:
    """Convolution, pooling, a dense layer and cross-entropy."""
    x, y = T.tensor4("x", dtype="float32"), T.lvector("y")
    filters, bias = weights(rng, 3, 1, 3, 3), weights(rng, 3)
    w = weights(rng, 3 * 3 * 3, 4)
    h = T.nnet.conv2d(x, filters) + bias.dimshuffle("x", 0, "x", "x")
    h = T.signal.pool.pool_2d(T.maximum(h, 0), ws=(2, 2), ignore_border=True)
    p = T.nnet.softmax(T.dot(h.flatten(2), w))
    loss = T.nnet.categorical_crossentropy(p, y).mean()
    data = [rng.standard_normal((5, 1, 8, 8)).astype(np.float32), rng.integers(0, 4, 5)]
    return [x, y], loss, [filters, bias, w], data


def words(rng: np.random.Generator) -> tuple[list[Any], Any, list[Any], list[Any]]:
    """Embeddings that are gathered and scattered, and a recurrent net over them."""
    x, y = T.lmatrix("x"), T.lvector("y")
    table, u, v = weights(rng, 11, 6), weights(rng, 6, 6), weights(rng, 6, 11)
    states, _ = tcc.scan(
        lambda e, h: T.tanh(e + T.dot(h, u)), sequences=table[x], outputs_info=T.zeros((3, 6), "float32")
    )
    loss = T.nnet.categorical_crossentropy(T.nnet.softmax(T.dot(states[-1], v)), y).mean()
    return [x, y], loss, [table, u, v], [rng.integers(0, 11, (5, 3)), rng.integers(0, 11, 3)]


@pytest.mark.parametrize("model", [lenet, words])
def test_training_steps(model: Step) -> None:
    found = []
    for device in ("cpu", DEVICE):
        inputs, loss, parameters, data = model(np.random.default_rng(0))
        updates = [(p, p - np.float32(0.5) * g) for p, g in zip(parameters, T.grad(loss, parameters))]
        step = tcc.function(inputs, loss, updates=updates, device=device)
        losses = [float(step(*data)) for _ in range(3)]
        found.append([np.array(losses), *(p.get_value() for p in parameters)])
    assert found[0][0][2] < found[0][0][0]
    for cpu, device in zip(*found, strict=True):
        np.testing.assert_allclose(device, cpu, rtol=2e-4, atol=2e-5)
