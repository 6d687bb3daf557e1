"""Linear algebra in libraries: a Kalman filter and a Gaussian process as C functions, and what they say of matrices that will not do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.runtime.library import ModelError
from tcc.tensor import nlinalg, slinalg

Build = Callable[..., Any]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_gaussian_process(build: Build, threads: int) -> None:
    x, y, scale = T.dmatrix("x"), T.dvector("y"), T.dscalar("scale")
    apart = T.sqr(x[:, None, :] - x[None, :, :]).sum(axis=2)
    cover = T.exp(-apart / scale) + 0.1 * T.eye(x.shape[0])
    root = slinalg.cholesky(cover)
    half = slinalg.solve_lower_triangular(root, y)
    loss = 0.5 * T.sum(half**2) + T.sum(T.log(T.diag(root)))
    f = tcc.function([x, y, scale], [loss, T.grad(loss, scale)], name="f")
    model = build({"f": f}, {"x": ("n", 2), "y": ("n",)}, threads)
    rng = np.random.default_rng(0)
    for n in (1, 5, 40, 90):
        args = rng.standard_normal((n, 2)), rng.standard_normal(n), np.array(0.7)
        for got, want in zip(model.f(*args), f(*args), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-10)
    with pytest.raises(
        ModelError,
        match=r"Matrix is not positive definite \(pivot 1 of cholesky\), written at .*test_linalg.py",
    ):
        model.f(np.full((3, 2), np.nan), np.zeros(3), np.array(1.0))


def test_a_filter(build: Build) -> None:
    """A loop of steps, each of which solves a system whose sizes are known."""
    y, move, see = T.dmatrix("y"), T.dmatrix("move"), T.dmatrix("see")

    def step(y: Any, m: Any, p: Any, move: Any, see: Any) -> Any:
        m, p = T.dot(move, m), T.dot(T.dot(move, p), move.T) + 0.01 * T.eye(4)
        s = T.dot(T.dot(see, p), see.T) + 0.1 * T.eye(2)
        gain = T.dot(T.dot(p, see.T), nlinalg.inv(s))
        return m + T.dot(gain, y - T.dot(see, m)), p - T.dot(T.dot(gain, s), gain.T)

    (means, covers), _ = tcc.scan(step, y, [T.zeros(4), T.eye(4)], [move, see])
    f = tcc.function([y, move, see], [means, covers[-1]], name="f")
    model = build({"f": f}, {"y": ("n", 2), "move": (4, 4), "see": (2, 4)})
    rng = np.random.default_rng(1)
    args = rng.standard_normal((30, 2)), np.eye(4) + 0.1 * np.eye(4, k=2), np.eye(2, 4)
    for got, want in zip(model.f(*args), f(*args), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10)


def test_a_step_that_fails_leaves_the_state(build: Build) -> None:
    total, x = tcc.shared(np.zeros((2, 2)), name="total"), T.dmatrix("x")
    step = tcc.function([x], nlinalg.det(x), updates=[(total, total + nlinalg.inv(x))], name="step")
    model = build({"step": step}, {"x": (2, 2)})
    np.testing.assert_allclose(model.step(2 * np.eye(2)), 4.0)
    with pytest.raises(ModelError, match=r"Singular matrix \(pivot 2 of matrix_inverse\)"):
        model.step(np.ones((2, 2)))
    np.testing.assert_allclose(model.state["total"], 0.5 * np.eye(2))
