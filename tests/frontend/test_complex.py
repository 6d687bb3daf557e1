"""Complex numbers in compiled functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T

RNG = np.random.default_rng(0)


def draw(*shape: int, dtype: str = "complex64") -> Any:
    return (RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)).astype(dtype)


def variables(dtype: str) -> tuple[Any, Any]:
    t = T.TensorType(dtype, (False, False))
    return t("x"), t("y")


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_elementwise_and_reductions(dtype: str) -> None:
    x, y = variables(dtype)
    f = tcc.function(
        [x, y],
        [
            x + y * x - 2,
            x / y,
            T.exp(x),
            T.sqrt(y),
            T.log(x),
            T.tanh(x) + T.log1p(y),
            x**2,
            T.real(x) + T.imag(y),
            T.angle(x),
            abs(x),
            T.conj(x).T,
            x.sum(axis=0),
            x.prod(),
            x.mean(axis=1),
            T.dot(x, y.T),
            T.eq(x, y),
            x[::-1, 1:],
            T.concatenate([x, y]),
            T.zeros_like(x) + y[0],
            T.set_subtensor(x[1], y[0]),
        ],
    )
    a, b = draw(3, 4, dtype=dtype), draw(3, 4, dtype=dtype)
    changed = a.copy()
    changed[1] = b[0]
    want = [
        a + b * a - 2,
        a / b,
        np.exp(a),
        np.sqrt(b),
        np.log(a),
        np.tanh(a) + np.log1p(b),
        a**2,
        a.real + b.imag,
        np.angle(a),
        np.abs(a),
        a.conj().T,
        a.sum(0),
        a.prod(),
        a.mean(1),
        a @ b.T,
        a == b,
        a[::-1, 1:],
        np.concatenate([a, b]),
        0 * a + b[0],
        changed,
    ]
    for _ in range(2):
        for got, wanted in zip(f(a, b), want, strict=True):
            assert got.dtype == wanted.dtype
            np.testing.assert_allclose(got, wanted, rtol=1e-5 if dtype == "complex64" else 1e-12)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_spread_is_real_and_a_part_that_is_not_finite_counts(dtype: str) -> None:
    x, _ = variables(dtype)
    a = draw(3, 4, dtype=dtype)
    f = tcc.function(
        [x], [x.var(axis=0), x.std(), x.var(axis=1, ddof=1, keepdims=True), T.var(x, corrected=True)]
    )
    wanted = [a.var(axis=0), a.std(), a.var(axis=1, ddof=1, keepdims=True), a.var()]
    for got, want in zip(f(a), wanted):
        assert got.dtype == a.real.dtype and got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-5 if dtype == "complex64" else 1e-12)
    ends = [
        complex(np.nan, 1),
        complex(1, np.nan),
        complex(np.inf, 0),
        complex(0, -np.inf),
        complex(np.nan, np.inf),
    ]
    a[0], a[1, 0] = ends[:4], ends[4]
    for ours, theirs in ((T.isnan, np.isnan), (T.isinf, np.isinf)):
        np.testing.assert_array_equal(tcc.function([x], ours(x))(a), theirs(a))
    close = tcc.function([x], T.isclose(x, x + 1e-12, equal_nan=True))(a)
    np.testing.assert_array_equal(close, np.isclose(a, a + 1e-12, equal_nan=True))
    slope = tcc.grad(x.var(), x)
    centred = a[2:] - a[2:].mean()
    np.testing.assert_allclose(
        tcc.function([x], slope)(a[2:]), 2 * centred / centred.size, rtol=1e-4, atol=1e-6
    )


def test_parts_make_a_complex_number() -> None:
    r, t = T.dvectors("r", "t")
    z, w = tcc.function([r, t], [T.complex(r, t), T.complex_from_polar(r, t)])([1.0, 2.0], [0.5, -3.0])
    np.testing.assert_allclose(z, [1 + 0.5j, 2 - 3j])
    np.testing.assert_allclose(w, np.array([1.0, 2.0]) * np.exp(1j * np.array([0.5, -3.0])))


COSTS = {
    "product": lambda z, w: T.real(z * w * z).sum(),
    "quotient": lambda z, w: T.imag(z / w).sum(),
    "modulus": lambda z, w: abs(z + w).sum(),
    "angle": lambda z, w: T.angle(z * w).sum(),
    "conj": lambda z, w: T.real(T.conj(z) * w * z).sum(),
    "exp": lambda z, w: T.real(T.exp(z) * T.sqrt(w)).sum(),
    "dot": lambda z, w: T.imag(T.dot(z, w.T)).sum(),
    "indices": lambda z, w: T.real(z[1:, 0] * w[0, 1]).sum(),
}


@pytest.mark.parametrize("name", COSTS)
def test_gradients_by_the_parts(name: str) -> None:
    """The gradient by z = x + iy is dC/dx + i dC/dy."""
    parts = T.dmatrices("a", "b", "c", "d")
    z, w = T.complex(*parts[:2]), T.complex(*parts[2:])
    cost = COSTS[name](z, w)
    values = [RNG.uniform(0.5, 1.5, (2, 3)) for _ in parts]
    tcc.verify_grad(
        lambda a, b, c, d: COSTS[name](T.complex(a, b), T.complex(c, d)), values, rng=np.random.RandomState(0)
    )
    gz, ga, gb = tcc.function(list(parts), tcc.grad(cost, [z, parts[0], parts[1]]))(*values)
    np.testing.assert_allclose(gz, ga + 1j * gb)


def test_gradients_by_real_numbers_that_become_complex() -> None:
    """By a cast, a sum or an operation with a complex number."""
    x, w = T.dvector("x"), T.zvector("w")
    cost = T.real(x * w).sum() + T.imag(x / w).sum() + abs(x + w).sum()
    cost += T.imag(T.sum(x, dtype="complex128") * w[0])
    values = [RNG.uniform(0.5, 1.5, 3), draw(3, dtype="complex128")]
    (got,) = tcc.function([x, w], [tcc.grad(cost, x)])(*values)
    f = tcc.function([x, w], cost)
    for k in range(3):
        step = 1e-6 * np.eye(3)[k]
        slope = (f(values[0] + step, values[1]) - f(values[0] - step, values[1])) / 2e-6
        np.testing.assert_allclose(got[k], slope, rtol=1e-7)
    narrow = T.cvector("narrow")
    g = tcc.grad(abs(T.cast(narrow, "complex128") * w).sum(), narrow)
    assert g.type.dtype == "complex64"


def test_shared_variables_and_loops() -> None:
    z = tcc.shared(draw(3, dtype="complex128"), "z")
    start = z.get_value()
    step = tcc.function([], abs(z).sum(), updates=[(z, z * 1j)])
    np.testing.assert_allclose(step(), np.abs(start).sum())
    np.testing.assert_allclose(z.get_value(), start * 1j)
    out, _ = tcc.scan(lambda s: s * s + z, outputs_info=[T.zeros_like(z)], n_steps=3)
    c = z.get_value()
    np.testing.assert_allclose(tcc.function([], out)()[-1], (c * c + c) ** 2 + c)


@pytest.mark.parametrize("dtype", ["int32", "float64", "bool"])
def test_no_cast_to_real_numbers(dtype):
    with pytest.raises(TypeError, match="ambiguous"):
        T.cast(T.zvector("z"), dtype)


def test_order():
    x, y = T.zvectors("x", "y")
    a, b = np.array([1 + 2j, 1 + 2j, 3]), np.array([1 + 3j, 1 + 1j, 2j])
    f = tcc.function([x, y], [x < y, x <= y, x > y, x >= y, T.maximum(x, y), T.minimum(x, y)])
    for got, ref in zip(
        f(a, b), (np.less, np.less_equal, np.greater, np.greater_equal, np.maximum, np.minimum)
    ):
        assert np.array_equal(got, ref(a, b))
