"""Gradients of decompositions and least squares, against differences, and what they must not hang on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.tensor import nlinalg, slinalg

RNG = np.random.RandomState(3)
SHAPES = [(1, 1), (3, 3), (4, 2), (2, 5)]


def arrays(*shapes: tuple[int, ...]) -> list[Any]:
    rng = np.random.RandomState(sum(map(sum, shapes)))
    return [rng.uniform(-1, 1, s) for s in shapes]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("full", [False, True])
def test_svd(shape: tuple[int, int], full: bool) -> None:
    weights = arrays((shape[0], shape[0]), shape, (shape[1], shape[1]))

    def f(x: Any) -> Any:
        """Of what no choice of signs, nor of the columns beyond the singular values, changes."""
        u, s, vt = nlinalg.svd(x, full_matrices=full)
        k = min(shape)
        first = T.dot(u[:, :k] * T.exp(s), vt[:k])
        total = T.sum(first * weights[1])
        total += T.sum(T.dot(u[:, :k] * s, u[:, :k].T) * weights[0])
        if full:
            total += T.sum(T.dot(u[:, k:], u[:, k:].T) * weights[0])
            total += T.sum(T.dot(vt[k:].T, vt[k:]) * weights[2])
        return total

    tcc.verify_grad(f, arrays(shape), rng=RNG)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["reduced", "complete", "r"])
def test_qr(shape: tuple[int, int], mode: str) -> None:
    if mode == "complete" and shape[0] > shape[1] + 1:
        weight = arrays((shape[0], shape[0]))[0]

        def f(x: Any) -> Any:
            q, r = nlinalg.qr(x, mode)
            rest = q[:, shape[1] :]
            return T.sum(T.sin(r)) + T.sum(T.dot(rest, rest.T) * weight) + T.sum(T.sin(q[:, : shape[1]]))

        tcc.verify_grad(f, arrays(shape), rng=RNG)
        return
    made = (lambda x: nlinalg.qr(x, mode)) if mode == "r" else (lambda x: nlinalg.qr(x, mode)[0])
    tcc.verify_grad(made, arrays(shape), rng=RNG)
    if mode != "r":
        tcc.verify_grad(lambda x: nlinalg.qr(x, mode)[1], arrays(shape), rng=RNG)


def test_eig_of_a_matrix_with_real_eigenvalues() -> None:
    (p,) = arrays((3, 3))
    x = p @ np.diag([1.0, 3.0, -2.0]) @ np.linalg.inv(p)
    tcc.verify_grad(lambda x: nlinalg.eig(x)[0], [x], rng=RNG)
    tcc.verify_grad(lambda x: nlinalg.eig(x)[1], [x], rng=RNG)


@pytest.mark.parametrize("uplo", ["L", "U"])
def test_eigh_of_unknown_sizes_reads_one_triangle(uplo: str) -> None:
    (x,) = arrays((4, 4))
    tcc.verify_grad(lambda x: nlinalg.eigh(x, uplo)[0], [x], rng=RNG)
    tcc.verify_grad(lambda x: nlinalg.eigh(x, uplo)[1], [x], rng=RNG)


@pytest.mark.parametrize("lower", [True, False])
def test_generalised_eigenvalues(lower: bool) -> None:
    linalg = pytest.importorskip("scipy.linalg")
    a, c = arrays((3, 3), (3, 3))
    b = c @ c.T + np.eye(3)
    x, y = T.dmatrices("x", "y")
    f = tcc.function([x, y], slinalg.eigvalsh(x, y, lower))
    np.testing.assert_allclose(f(a, b), linalg.eigvalsh(a, b, lower=lower))
    np.testing.assert_allclose(slinalg.eigvalsh(x, lower=lower).eval({x: a}), linalg.eigvalsh(a, lower=lower))
    tcc.verify_grad(lambda x, y: slinalg.eigvalsh(x, y, lower), [a, b], rng=RNG)


@pytest.mark.parametrize("shape", [(3, 3), (5, 2), (2, 4)])
@pytest.mark.parametrize("columns", [(), (1,), (3,)])
def test_least_squares(shape: tuple[int, int], columns: tuple[int, ...]) -> None:
    a, b = arrays(shape, (shape[0], *columns))
    for k in (0, 3):
        tcc.verify_grad(lambda a, b, k=k: nlinalg.lstsq(a, b)[k], [a, b], rng=RNG)
    tcc.verify_grad(lambda a, b: T.sum(nlinalg.lstsq(a, b)[1]) + T.sum(a), [a, b], rng=RNG)


@pytest.mark.parametrize("n", [-2, -1, 1, 2, 5])
def test_powers(n: int) -> None:
    (x,) = arrays((3, 3))
    tcc.verify_grad(lambda x: nlinalg.matrix_power(x, n), [x], rng=RNG)


def test_inverses_and_solutions_of_tensors() -> None:
    a, b = arrays((2, 3, 6), (2, 3))
    tcc.verify_grad(lambda a: nlinalg.tensorinv(a, 2), [a], rng=RNG)
    tcc.verify_grad(nlinalg.tensorsolve, [a, b], rng=RNG)
    x, y = arrays((2, 3), (3, 2))
    tcc.verify_grad(slinalg.kron, [x, y], rng=RNG)


def test_sign_of_a_determinant_that_vanishes_in_float64() -> None:
    x = T.dmatrix("x")
    sign, log = nlinalg.slogdet(x)
    got = tcc.function([x], [sign, log])(-1e-200 * np.eye(3))
    np.testing.assert_allclose(got, [-1, 3 * np.log(1e-200)])
    assert not tcc.grad(sign, x).eval({x: np.eye(2)}).any()


def test_gradients_of_matrices_without_elements() -> None:
    x = T.dmatrix("x")
    u, s, vt = nlinalg.svd(x, full_matrices=False)
    f = tcc.function([x], tcc.grad(u.sum() + s.sum() + vt.sum(), x))
    assert f(np.zeros((0, 3))).shape == (0, 3)
    q, r = nlinalg.qr(x)
    assert tcc.function([x], tcc.grad(q.sum() + r.sum(), x))(np.zeros((3, 0))).shape == (3, 0)


def test_second_derivatives_go_through_loops_whose_length_such_an_op_decides() -> None:
    """The steps are as many as the first gradient has elements, and it is made of a factorisation, which may fail."""
    k, v, th = T.dmatrix("k"), T.dvector("v"), T.dvector("th")
    scaled = k * th[0] * th[1]
    logdet = 2 * T.log(T.diag(slinalg.cholesky(scaled))).sum()
    quadratic = T.dot(v, slinalg.solve(scaled, v))
    f = tcc.function([k, v, th], [tcc.hessian(cost, th) for cost in (logdet, quadratic)])
    a = np.random.default_rng(0).standard_normal((4, 4))
    a, x, (s, t) = a @ a.T + np.eye(4), np.arange(1.0, 5.0), (0.5, 2.0)
    q = x @ np.linalg.solve(a, x)
    got = f(a, x, [s, t])
    np.testing.assert_allclose(got[0], np.diag([-4 / s**2, -4 / t**2]), rtol=1e-9, atol=1e-9)
    wanted = q / (s * t) * np.array([[2 / s**2, 1 / (s * t)], [1 / (s * t), 2 / t**2]])
    np.testing.assert_allclose(got[1], wanted, rtol=1e-9)
