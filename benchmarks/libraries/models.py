"""Four models: what they are made of, what they take, and what they are in tcc."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
F = np.float32
UNITS, WIDTH, WORDS = 256, 128, 10_000

# The sizes of the one input, and the batches that are timed; an LSTM takes STEPS steps.
SHAPES: dict[str, tuple[int | str, ...]] = {
    "mlp": ("n", 784),
    "lenet": ("n", 1, 28, 28),
    "lstm": ("t", "n", WIDTH),
    "cbow": ("n", 8),
}
BATCHES = {"mlp": (1, 32, 128), "lenet": (1, 32, 128), "lstm": (1, 16, 64), "cbow": (1, 64, 128)}
STEPS = 50


def weights(name: str) -> dict[str, Array]:
    """The same in each process."""
    rng = np.random.default_rng(0)

    def normal(*shape: int, scale: float = 0.1) -> Array:
        made: Array = rng.normal(0, scale, shape).astype(F)
        return made

    def glorot(rows: int, columns: int) -> Array:
        limit = np.sqrt(6 / (rows + columns))
        made: Array = rng.uniform(-limit, limit, (rows, columns)).astype(F)
        return made

    if name == "mlp":
        return {"W1": glorot(784, 500), "b1": normal(500), "W2": glorot(500, 10), "b2": normal(10)}
    if name == "lenet":
        filters = {"K1": normal(20, 1, 5, 5), "c1": normal(20), "K2": normal(50, 20, 5, 5), "c2": normal(50)}
        return filters | {"W1": glorot(800, 500), "b1": normal(500), "W2": glorot(500, 10), "b2": normal(10)}
    if name == "lstm":
        gates = {"W": glorot(WIDTH, 4 * UNITS), "U": glorot(UNITS, 4 * UNITS), "b": normal(4 * UNITS)}
        return gates | {"V": glorot(UNITS, 10), "c": normal(10)}
    return {"into": normal(WORDS, WIDTH, scale=0.5), "out": normal(WIDTH, WORDS)}


def given(name: str, batch: int) -> Array:
    """An input."""
    rng = np.random.default_rng(batch)
    if name == "cbow":
        return rng.integers(0, WORDS, (batch, 8)).astype(np.int64)
    sizes = {"n": batch, "t": STEPS}
    return rng.random([sizes[s] if isinstance(s, str) else s for s in SHAPES[name]], F)


def function(name: str) -> Callable[..., Any]:
    """The model in tcc; its weights are shared variables."""
    import tcc
    import tcc.tensor as T
    from tcc.tensor.signal.pool import pool_2d

    w = {k: tcc.shared(v, k) for k, v in weights(name).items()}
    x: Any = T.TensorType("int64" if name == "cbow" else "float32", (False,) * len(SHAPES[name]))("x")

    def dense(h: Any) -> Any:
        return T.nnet.softmax(T.tanh(h.dot(w["W1"]) + w["b1"]).dot(w["W2"]) + w["b2"])

    def layer(h: Any, kernel: Any, bias: Any) -> Any:
        pooled = pool_2d(
            T.nnet.conv2d(h, kernel, filter_shape=kernel.get_value().shape), (2, 2), ignore_border=True
        )
        return T.tanh(pooled + bias.dimshuffle("x", 0, "x", "x"))

    def step(x: Any, h: Any, c: Any) -> Any:
        z = x.dot(w["W"]) + h.dot(w["U"]) + w["b"]
        i, f, g, o = (z[:, k * UNITS : (k + 1) * UNITS] for k in range(4))
        c = T.nnet.sigmoid(f) * c + T.nnet.sigmoid(i) * T.tanh(g)
        return T.nnet.sigmoid(o) * T.tanh(c), c

    if name == "mlp":
        y = dense(x)
    elif name == "lenet":
        y = dense(layer(layer(x, w["K1"], w["c1"]), w["K2"], w["c2"]).flatten(2))
    elif name == "lstm":
        zeros = T.zeros((x.shape[1], UNITS), dtype="float32")
        (hs, _), _ = tcc.scan(step, sequences=x, outputs_info=[zeros, zeros])
        y = T.nnet.softmax(hs[-1].dot(w["V"]) + w["c"])
    else:
        y = T.nnet.softmax(w["into"][x].mean(axis=1).dot(w["out"]))
    made: Callable[..., Any] = tcc.function([x], y, name="predict")
    return made
