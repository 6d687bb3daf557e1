"""Gradients of operations on sparse matrices, against differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tcc import sparse as S

sp = pytest.importorskip("scipy.sparse")
RNG = np.random.RandomState(5)
FORMATS = ["csr", "csc"]


def random(
    shape: tuple[int, int], format: str, density: float = 0.4, dtype: str = "float64", seed: int = 0
) -> Any:
    rng = np.random.RandomState(seed + sum(shape))
    dense = rng.normal(size=shape) * (rng.uniform(size=shape) < density)
    return getattr(sp, f"{format}_matrix")(dense.astype(dtype))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("structured", [True, False])
def test_gradients(format: str, structured: bool) -> None:
    a, b, c = random((3, 4), format, 0.6), random((3, 4), format, 0.6, seed=1), random((4, 2), format, 0.7)
    d, e, f = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 2)), RNG.normal(size=(3, 2))

    def check(op: Any, *pt: Any) -> None:
        S.verify_grad_sparse(op, pt, structured, rng=RNG)

    check(lambda x: S.dense_from_sparse(x, structured), a)
    check(lambda x, y: x + y, a, b)
    check(lambda x, y: x * y - x, a, b)
    check(lambda x, y: x * y, a, d)
    check(lambda x, y: x + y, a, d)
    check(S.dot, a, e)
    check(S.structured_dot, d, c)
    check(S.true_dot, a, c)
    check(S.dot, a, c)
    check(lambda y, z, x: S.sampling_dot(y, z, x), f, e, a)
    check(S.row_scale, a, RNG.normal(size=3))
    check(S.col_scale, a, RNG.normal(size=4))
    for axis in (None, 0, 1):
        check(lambda x, axis=axis: S.sp_sum(x, axis, sparse_grad=structured), a)
    check(S.structured_sigmoid, a)
    check(lambda x: S.sqr(S.tanh(x)), a)
    check(lambda x, y: S.vstack([x, y]) * 2.0, a, b)
    check(lambda x, y: S.hstack([x, y], "csr"), a, b)
    check(lambda x: x[1:, [2, 0, 0]], a)
    check(S.clean if structured else S.diag, random((4, 4), format, 0.8))
    check(S.square_diagonal, RNG.normal(size=3))
