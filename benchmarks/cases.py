"""What is measured: inputs, and the least work that the answer needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Inputs = dict[str, Array]

BATCH, PIXELS, HIDDEN, CLASSES = 600, 784, 500, 10
RATE = 0.01


@dataclass(frozen=True)
class Task:
    """One computation, ready to run.

    `statement` over `names` is what is timed; `results` runs it once from the initial state and gives what has to agree.
    """

    statement: str
    names: dict[str, Any]
    results: Callable[[], list[Array]]


Build = Callable[[Inputs], Task]


@dataclass(frozen=True)
class Case:
    """`kind` selects a peer's code; `flops` and `bytes` are the least for one run, 0 where they say nothing."""

    name: str
    kind: str
    inputs: Callable[[np.random.Generator], Inputs]
    flops: float = 0
    bytes: float = 0


def vector(size: int) -> Callable[[np.random.Generator], Inputs]:
    return lambda rng: {"x": rng.standard_normal(size).astype(np.float32)}


def logits(rows: int, columns: int) -> Callable[[np.random.Generator], Inputs]:
    return lambda rng: {
        "x": (3 * rng.standard_normal((rows, columns))).astype(np.float32),
        "y": rng.integers(0, columns, rows).astype(np.int64),
    }


def digits(rng: np.random.Generator) -> Inputs:
    """A minibatch and the parameters of both classifiers."""

    def weights(rows: int, columns: int) -> Array:
        limit = np.sqrt(6 / (rows + columns))
        return rng.uniform(-limit, limit, (rows, columns)).astype(np.float32)

    return {
        "x": rng.random((BATCH, PIXELS), np.float32),
        "y": rng.integers(0, CLASSES, BATCH).astype(np.int64),
        "w": weights(PIXELS, CLASSES),
        "b": np.zeros(CLASSES, np.float32),
        "w1": weights(PIXELS, HIDDEN),
        "b1": np.zeros(HIDDEN, np.float32),
        "w2": weights(HIDDEN, CLASSES),
        "b2": np.zeros(CLASSES, np.float32),
    }


# the ten operations of `chain`: x*x, neg, exp, log1p, tanh, sigmoid, *, +, *, -
CASES = (
    Case("x + 1, 8 floats", "add_one", vector(8)),
    Case("chain of 10, 1e3 floats", "chain", vector(1000), bytes=8e3),
    Case("chain of 10, 1e6 floats", "chain", vector(1_000_000), bytes=8e6),
    Case("softmax xent + grad (600,10)", "xent", logits(600, 10), bytes=600 * 10 * 8),
    Case("softmax xent + grad (64,10000)", "xent", logits(64, 10_000), bytes=64 * 10_000 * 8),
    Case("logistic regression step", "logistic", digits, bytes=BATCH * PIXELS * 4),
    Case("784-500-10 mlp step", "mlp", digits, flops=BATCH * HIDDEN * (4 * PIXELS + 6 * CLASSES)),
)


def inputs_of(case: Case) -> Inputs:
    """The same for every peer."""
    return case.inputs(np.random.default_rng(1234))
