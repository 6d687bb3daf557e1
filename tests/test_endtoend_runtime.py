"""Whole programs through `tcc.function`: memory, bits, threads, signals, forks and the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.runtime.arenas import Blocks
from tcc.runtime.symbols import symbols


def minibatch_step(batch: int, hidden: int = 32, digits: int = 200) -> tuple[Callable[[int], Any], list[Any]]:
    """A step of a small network on minibatch `i` of digits that shared variables hold, and its parameters."""
    rng = np.random.default_rng(0)
    images = tcc.shared(rng.standard_normal((digits, 20)).astype("f4"), "images")
    labels = tcc.shared(rng.integers(0, 5, digits).astype("i4"), "labels")
    w1 = tcc.shared((0.1 * rng.standard_normal((20, hidden))).astype("f4"), "w1")
    b1 = tcc.shared(np.zeros(hidden, "f4"), "b1")
    w2 = tcc.shared((0.1 * rng.standard_normal((hidden, 5))).astype("f4"), "w2")
    x, y, i = T.fmatrix("x"), T.ivector("y"), T.lscalar("i")
    p = T.nnet.softmax(T.dot(T.tanh(T.dot(x, w1) + b1), w2))
    cost = -T.mean(T.log(p)[T.arange(y.shape[0]), y])
    parameters = [w1, b1, w2]
    rows = slice(i * batch, (i + 1) * batch)
    step = tcc.function(
        [i],
        cost,
        updates=[(w, w - np.float32(0.1) * g) for w, g in zip(parameters, tcc.grad(cost, parameters))],
        givens={x: images[rows], y: labels[rows]},
    )
    return step, parameters


# Memory.


def test_a_training_step_allocates_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Native code has no allocator: working memory comes from the runtime, and only the first call asks for it."""
    assert not {"malloc", "calloc", "free", "mmap"} & symbols().keys()
    made = []
    make = Blocks._make
    monkeypatch.setattr(Blocks, "_make", lambda self, wanted: made.append(wanted) or make(self, wanted))
    step, _ = minibatch_step(batch=20)
    step(0)
    assert made
    made.clear()
    for index in range(1, 10):
        step(index)
    assert made == []
    step.free()
    step(0)
    assert made


def rows_of_zeros() -> Callable[[int], Any]:
    n = T.lscalar("n")
    z = T.zeros((n, n), dtype="float32")
    return tcc.function([n], T.dot(T.exp(z + 1), z).sum(axis=0), name="square")


def test_more_memory_than_there_is_when_the_size_is_a_number() -> None:
    f = rows_of_zeros()
    assert f(3).shape == (3,)
    with pytest.raises(
        MemoryError,
        match=r"square needs 13,194,\d+,\d+,\d+ bytes for \w+.* f32\[s1,s1\], written at .*test_endtoend.* and \d more",
    ):
        f(1 << 20)
    with pytest.raises(MemoryError, match="square needs at least 281,474,976,710,656 bytes for"):
        f(1 << 33)  # 4 n n wraps around to 0
    assert f(3).shape == (3,)


def test_more_memory_than_there_is_when_the_size_is_an_argument_s() -> None:
    """(n, 0) has no bytes, whatever n is."""
    x = T.fmatrix("x")
    n = x.shape[0]
    f = tcc.function([x], T.exp(T.zeros((n, n), dtype="float32") + n) + T.zeros((n, 1)), name="square")
    for rows in (1 << 20, 1 << 21, 1 << 33):  # known sizes, then sizes of run time
        with pytest.raises(
            MemoryError, match=rf"square needs [\d,]+ bytes, of which {8 * rows * rows:,} for \w+ f64"
        ):
            f(np.zeros((rows, 0), "f4"))
    assert f(np.zeros((2, 0), "f4")).shape == (2, 2)
