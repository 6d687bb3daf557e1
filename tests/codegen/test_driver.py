"""The function's body: which kernels it is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.codegen import calls
from tcc.codegen.kernel import Kernel
from tcc.codegen.target import Target
from tcc.ir.core import Op
from tcc.runtime.buffers import Container


def test_layers_of_one_shape_are_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    written: Counter[str] = Counter()

    def counting(name: str, kernel: Callable[[Op, Target], Kernel]) -> Callable[[Op, Target], Kernel]:
        def count(op: Op, target: Target) -> Kernel:
            written[name] += 1
            return kernel(op, target)

        return count

    monkeypatch.setattr(calls, "KERNELS", {n: counting(n, k) for n, k in calls.KERNELS.items()})
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(n, m)).astype("float32") for n, m in (*[(5, 5)] * 5, (5, 3))]
    x = T.fmatrix("x")
    h = x
    for w in weights:
        h = T.tanh(T.dot(h, tcc.shared(w)))
    data = rng.normal(size=(2, 5)).astype("float32")
    got = tcc.function([x], h)(data)
    assert written == {"matmul": 3}  # the first one reads an input, the last one has another shape
    wanted = data.astype("float64")
    for w in weights:
        wanted = np.tanh(wanted @ w)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_operands_that_are_one_are_no_two() -> None:
    x, y = T.fvector("x"), T.fvector("y")
    a, b = np.arange(5, dtype="float32"), np.ones(5, "float32")
    plus = tcc.function([x, y], [T.cumsum(x + y), T.cumsum(x + x), T.cumsum(y - x), T.cumsum(x - y)])
    for got, wanted in zip(plus(a, b), (a + b, a + a, b - a, a - b)):
        np.testing.assert_array_equal(got, np.cumsum(wanted))


def test_constants_begin_where_vectors_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of a function that the cache holds."""
    at = []

    def container(value: np.ndarray, **more: bool) -> Container:
        at.append(value.ctypes.data % 64)
        return Container(value, **more)

    monkeypatch.setattr("tcc.artefact.Container", container)
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(n, m)).astype("float32") for n, m in ((5, 67), (67, 131), (131, 3))]
    for _ in range(2):
        x = T.fvector("x")
        h = x
        for w in weights:
            h = T.tanh(T.dot(h, w))
        tcc.function([x], h)(np.ones(5, "float32"))
    assert at == [0] * 6
