"""Special functions through SciPy, and names that programs take from theano.tensor, against NumPy and SciPy."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.gradient import NullTypeGradError
from tcc.theano import module

special = pytest.importorskip("scipy.special")
X = np.array([0.2, 0.7, 1.3, 3.5])
K = np.array([0.5, 2.0, 1.3, 5.0])
RNG = np.random.RandomState(1)
ONE = {
    "erfcx": special.erfcx,
    "erfcinv": lambda x: special.erfcinv(x / 2),
    "j0": special.j0,
    "j1": special.j1,
    "i0": special.i0,
    "i1": special.i1,
}
TWO = {
    "gammainc": special.gammainc,
    "gammaincc": special.gammaincc,
    "gammal": lambda k, x: special.gammainc(k, x) * special.gamma(k),
    "gammau": lambda k, x: special.gammaincc(k, x) * special.gamma(k),
    "jv": special.jv,
    "iv": special.iv,
    "logaddexp": np.logaddexp,
}


@pytest.mark.parametrize("name", ONE)
def test_functions_of_one(name: str) -> None:
    f = getattr(T, name)
    made = (lambda x: f(x / 2)) if name == "erfcinv" else f
    x = T.dvector("x")
    np.testing.assert_allclose(tcc.function([x], made(x))(X), ONE[name](X))
    tcc.verify_grad(made, [X], rng=RNG)
    assert f(T.fvector()).dtype == "float32" and f(T.bvector()).dtype == "float32"
    assert tcc.function([x], made(x))(np.zeros(0)).shape == (0,)


@pytest.mark.parametrize("name", TWO)
def test_functions_of_two(name: str) -> None:
    f = getattr(T, name)
    k, x = T.dvectors("k", "x")
    np.testing.assert_allclose(tcc.function([k, x], f(k, x))(K, X), TWO[name](K, X), rtol=1e-13)
    if name in ("jv", "iv"):
        tcc.verify_grad(lambda x: f(K, x), [X], rng=RNG)
        with pytest.raises(NullTypeGradError, match="order"):
            tcc.grad(f(k, x).sum(), k)
        assert "order" in tcc.grad(f(k, x).sum(), k, null_gradients="return").type.why_null
    else:
        tcc.verify_grad(f, [K, X], rng=RNG)


def test_the_derivative_by_the_order_far_out() -> None:
    k, x = T.dscalars("k", "x")
    slope = tcc.function([k, x], tcc.grad(T.gammainc(k, x), k))
    for order, at in [(0.01, 0.001), (50.0, 40.0), (50.0, 60.0), (300.0, 310.0), (2.0, 700.0), (1.0, 0.0)]:
        h = 1e-4 * order
        wanted = (special.gammainc(order + h, at) - special.gammainc(order - h, at)) / (2 * h)
        np.testing.assert_allclose(slope(order, at), wanted, rtol=1e-5, atol=1e-12)


def test_the_chi_squared_distribution() -> None:
    stats = pytest.importorskip("scipy.stats")
    x, k = T.dvectors("x", "k")
    np.testing.assert_allclose(T.chi2sf(x, k).eval({x: X, k: K}), stats.chi2.sf(X, K))


def test_logaddexp_of_infinities() -> None:
    a, b = T.dvectors("a", "b")
    pairs = np.array([[np.inf, -np.inf, np.inf, -np.inf, 1000.0], [np.inf, -np.inf, 1.0, 2.0, 1001.0]])
    np.testing.assert_array_equal(tcc.function([a, b], T.logaddexp(a, b))(*pairs), np.logaddexp(*pairs))


def test_without_scipy_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    x = T.dscalar("x")
    f = tcc.function([x], T.j0(x))
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="j0 runs through SciPy.*pip install"):
        f(1.0)


@pytest.mark.parametrize("n,k,m", [(3, 0, None), (4, -1, 2), (2, 1, 5), (0, 0, None)])
def test_indices_of_triangles(n: int, k: int, m: int | None) -> None:
    for name in ("tril_indices", "triu_indices"):
        got = tcc.function([], list(getattr(T, name)(n, k, m)))()
        np.testing.assert_array_equal(got, getattr(np, name)(n, k, m))
    x = T.dmatrix("x")
    data = np.zeros((n, n + 1))
    for name in ("tril_indices_from", "triu_indices_from"):
        got = tcc.function([x], list(getattr(T, name)(x, k)))(data)
        np.testing.assert_array_equal(got, getattr(np, name)(data, k))


def test_specify_shape() -> None:
    x, n = T.dmatrix("x"), T.lscalar("n")
    f = tcc.function([x], T.specify_shape(x, (2, 3)) * 2)
    assert f(np.ones((2, 3))).shape == (2, 3)
    for wrong in [(3, 2), (1, 3), (6, 1)]:
        with pytest.raises(ValueError):
            f(np.ones(wrong))
    assert T.specify_shape(x, (1, None)).broadcastable == (True, False)
    g = tcc.function([x, n], T.specify_shape(x, T.stack([n, 3])))
    assert g(np.ones((2, 3)), 2).shape == (2, 3)
    with pytest.raises(ValueError):
        g(np.ones((2, 3)), 3)
    row = T.drow("row")
    h = tcc.function([row, n], T.specify_shape(row, (n, 2)))
    assert h(np.ones((1, 2)), 1).shape == (1, 2)
    with pytest.raises(ValueError):
        h(np.ones((1, 2)), 3)
    with pytest.raises(ValueError, match="2 entries"):
        T.specify_shape(x, (2,))
    with pytest.raises(ValueError, match="axis 0 has size 2, it has 1"):
        T.specify_shape(row, (2, 2))
    tcc.verify_grad(lambda x: T.specify_shape(x, (2, 3)), [np.ones((2, 3))], rng=RNG)


def test_names_of_theanos_own() -> None:
    t = module("tensor")
    x, y = T.dtensor3("x"), T.dmatrix("y")
    assert t.makeKeepDims(x, x.sum(axis=1), 1).broadcastable == (False, True, False)
    assert t.makeKeepDims(x, x.sum(), None).broadcastable == (True, True, True)
    assert t.default(None, y).eval({y: np.ones((1, 1))}) == 1 and t.default(y, y) is y
    with pytest.raises(TypeError):
        t.default(x, y)
    assert t.is_flat(T.vector()) and not t.is_flat(y) and t.is_flat(y, ndim=2)
    a, b = T.lscalars("a", "b")
    assert [int(v) for v in tcc.function([a, b], [*t.divmod(a, b), t.ceil_intdiv(a, b)])(-7, 2)] == [
        -4,
        1,
        -3,
    ]
    assert t.AllocEmpty("float32")(2, 3).eval().shape == (2, 3)
    assert t.opt.MakeVector("int64")(a, b).eval({a: 1, b: 2}).tolist() == [1, 2]
    with pytest.raises(TypeError):
        t.opt.MakeVector("int8")(a)
    assert (
        str(t.inplace.exp_inplace) == "exp_inplace"
        and "uint8" in t.uint_dtypes
        and "bool" in t.discrete_dtypes
    )
    assert t.transfer(x, "cpu") is x
    with pytest.raises(ValueError):
        t.transfer(x, "elsewhere")


def test_undefined_gradients_and_scalars_by_theanos_names() -> None:
    g, s = module("gradient"), module("scalar")
    x = T.dscalar("x")
    with pytest.raises(NullTypeGradError, match="undefined_grad"):
        tcc.grad(g.undefined_grad(x) * 2, x)
    assert g.format_as(False, True, [1, 2]) == (1, 2) and g.format_as(False, False, [1]) == 1
    assert g.zero_grad_ is g.zero_grad
    a, b = s.float64("a"), s.int32("b")
    assert tcc.function([a, b], s.add(s.exp(a), b))(0.0, 2) == 3
    assert s.basic_scipy.erf is T.erf and T.tensor7().ndim == 7
