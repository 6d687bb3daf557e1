"""Functions made of others, against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T

RNG = np.random.default_rng(3)
M = RNG.normal(size=(3, 4))
CUBE = RNG.normal(size=(2, 3, 4))


def run(make, *arrays):
    """make(variables of the arrays' types), called with the arrays."""
    params = [T.TensorType(a.dtype.name, (False,) * a.ndim)() for a in map(np.asarray, arrays)]
    return tcc.function(params, make(*params), on_unused_input="ignore")(*arrays)


def same(made, wanted):
    wanted = np.asarray(wanted)
    assert made.shape == wanted.shape and made.dtype.kind == wanted.dtype.kind
    np.testing.assert_allclose(made, wanted, rtol=1e-12, atol=1e-12)


INTS = np.array([3, 1, 0, 1, 3, 3])
CASES = {
    "searchsorted": (
        lambda v: T.searchsorted(np.arange(5.0), v),
        lambda v: np.searchsorted(np.arange(5.0), v),
        [M],
    ),
    "searchsorted right": (
        lambda v: T.searchsorted(np.array([1, 2, 2, 3]), v, side="right"),
        lambda v: np.searchsorted([1, 2, 2, 3], v, "right"),
        [INTS],
    ),
    "searchsorted sorter": (
        lambda x, v: T.searchsorted(x, v, sorter=T.argsort(x)),
        lambda x, v: np.searchsorted(np.sort(x), v),
        [M[0], M[1]],
    ),
    "repeat": (lambda x: T.repeat(x, 3, 1), lambda x: np.repeat(x, 3, 1), [M]),
    "repeat each": (
        lambda x, r: T.repeat(x, r, 0),
        lambda x, r: np.repeat(x, r, 0),
        [M, np.array([2, 0, 3])],
    ),
    "repeat flat": (lambda x, r: x.repeat(r), lambda x, r: np.repeat(x, r), [M, np.arange(12)]),
    "repeat none": (lambda x, r: T.repeat(x, r, 1), lambda x, r: np.repeat(x, r, 1), [M, np.zeros(4, int)]),
    "bincount": (T.bincount, np.bincount, [INTS]),
    "bincount of nothing": (T.bincount, np.bincount, [np.zeros(0, int)]),
    "bincount minlength": (
        lambda x: T.bincount(x, minlength=7),
        lambda x: np.bincount(x, minlength=7),
        [INTS],
    ),
    "bincount weights": (
        lambda x, w: T.bincount(x, weights=w),
        lambda x, w: np.bincount(x, w),
        [INTS, RNG.random(6)],
    ),
    "diff": (T.diff, np.diff, [M]),
    "diff twice": (lambda x: T.diff(x, 2, 0), lambda x: np.diff(x, 2, 0), [M]),
    "diff to nothing": (lambda x: T.diff(x, 5), lambda x: np.diff(x, 4)[..., :0], [M]),
    "compress": (lambda x: T.compress([0, 1, 1], x, 0), lambda x: np.compress([0, 1, 1], x, 0), [M]),
    "compress flat": (
        lambda x, c: T.compress(c, x),
        lambda x, c: np.compress(c, x),
        [M, np.array([0, 1, 0, 1])],
    ),
    "one hot": (lambda y: T.to_one_hot(y, 5), lambda y: np.eye(5)[y], [INTS]),
    "one hot from the end": (lambda y: T.to_one_hot(y, 5), lambda y: np.eye(5)[y], [INTS - 4]),
    "fill_diagonal": (lambda x: T.fill_diagonal(x, 7.0), None, [M]),
    "fill_diagonal tall": (lambda x: T.fill_diagonal(x, 7.0), None, [M.T.copy()]),
    "fill_diagonal cube": (lambda x: T.fill_diagonal(x, 7.0), None, [RNG.random((3, 3, 3))]),
    "unravel": (
        lambda i: T.stack(T.unravel_index(i, (3, 4, 5))),
        lambda i: np.stack(np.unravel_index(i, (3, 4, 5))),
        [np.array([0, 7, 59, 33])],
    ),
    "unravel F": (
        lambda i: T.stack(T.unravel_index(i, (3, 4), order="F")),
        lambda i: np.stack(np.unravel_index(i, (3, 4), order="F")),
        [np.array([[0, 7], [11, 3]])],
    ),
    "ravel": (
        lambda i, j: T.ravel_multi_index((i, j), (3, 4)),
        lambda i, j: np.ravel_multi_index((i, j), (3, 4)),
        [np.array([0, 2, 1]), np.array([3, 3, 0])],
    ),
    "ravel wrap": (
        lambda i, j: T.ravel_multi_index((i, j), (3, 4), mode="wrap", order="F"),
        lambda i, j: np.ravel_multi_index((i, j), (3, 4), mode="wrap", order="F"),
        [np.array([-1, 5, 1]), np.array([9, 3, -2])],
    ),
    "ravel clip": (
        lambda i, j: T.ravel_multi_index((i, j), (3, 4), mode="clip"),
        lambda i, j: np.ravel_multi_index((i, j), (3, 4), mode="clip"),
        [np.array([-1, 5, 1]), np.array([9, 3, -2])],
    ),
    "permute rows": (
        T.permute_row_elements,
        lambda x, p: np.take_along_axis(x, p, 1),
        [M, np.argsort(RNG.random((3, 4)), 1)],
    ),
    "permute all alike": (T.permute_row_elements, lambda x, p: x[:, p], [M, np.array([2, 0, 3, 1])]),
    "permute back": (
        lambda x, p: T.permute_row_elements(T.permute_row_elements(x, p), p, inverse=1),
        lambda x, p: x,
        [M, np.argsort(RNG.random((3, 4)), 1)],
    ),
    "inverse permutation": (T.inverse_permutation, np.argsort, [np.array([2, 0, 3, 1])]),
    "bartlett": (lambda n: T.bartlett(n), np.bartlett, [np.array(7)]),
    "bartlett of one": (lambda n: T.bartlett(n), np.bartlett, [np.array(1)]),
    "choose": (
        lambda a, x, y: T.choose(a, [x, y, 2.0]),
        lambda a, x, y: np.choose(a, [x, y, 2.0]),
        [RNG.integers(0, 3, (3, 4)), M, -M],
    ),
    "choose of a tensor": (T.choose, np.choose, [RNG.integers(0, 2, (3, 4)), CUBE]),
    "choose wrap": (
        lambda a, c: T.choose(a, c, mode="wrap"),
        lambda a, c: np.choose(a, c, mode="wrap"),
        [RNG.integers(-5, 5, (3, 4)), CUBE],
    ),
    "choose clip": (
        lambda a, x: T.choose(a, [x, -x], mode="clip"),
        lambda a, x: np.choose(a, [x, -x], mode="clip"),
        [RNG.integers(-5, 5, (3, 4)), M],
    ),
    "isin few": (lambda x: T.isin(x, [1, 3]), lambda x: np.isin(x, [1, 3]), [INTS]),
    "isin many": (T.isin, np.isin, [INTS, np.arange(0, 40, 3)]),
    "isin, NaN": (T.isin, np.isin, [np.array([1, np.nan, 3]), np.array([9, np.nan, 3, *range(10, 20)])]),
    "isin nothing": (T.isin, np.isin, [INTS, np.zeros(0, int)]),
    "diag": (T.diag, np.diag, [M[0]]),
    "diag above": (lambda v: T.diag(v, 2), lambda v: np.diag(v, 2), [M[0]]),
    "diag below": (lambda v: T.diag(v, -1), lambda v: np.diag(v, -1), [M[0]]),
    "diag of a matrix": (lambda v: T.diag(v, 1), lambda v: np.diag(v, 1), [M]),
    "trace": (T.trace, np.trace, [M]),
    "trace of a cube": (lambda x: T.trace(x, 1, 1, 2), lambda x: np.trace(x, 1, 1, 2), [CUBE]),
    "kron": (T.kron, np.kron, [M, M[:2, :2]]),
    "kron with a vector": (T.kron, np.kron, [M, M[0]]),
    "kron of cubes": (T.kron, np.kron, [CUBE, CUBE]),
    "cov": (T.cov, np.cov, [M]),
    "cov of columns": (
        lambda x, y: T.cov(x, y, rowvar=False, ddof=0),
        lambda x, y: np.cov(x, y, rowvar=False, ddof=0),
        [M, M[:, :2]],
    ),
    "cov of a vector": (T.cov, np.cov, [M[0]]),
    "vectorize": (
        T.vectorize(lambda a, b: a * b + 1),
        lambda a, b: a * b + 1,
        [M, M],
    ),
}
for _mode in ("constant", "edge", "reflect", "symmetric", "wrap"):
    for _name, _width in {"pairs": ((2, 1), (0, 3)), "one": 2, "pair": (1, 3), "nothing": 0}.items():
        CASES[f"pad {_mode} {_name}"] = (
            lambda x, m=_mode, w=_width: T.pad(x, w, m),
            lambda x, m=_mode, w=_width: np.pad(x, w, m),
            [M],
        )
for _text in "ij->ji ij-> ij->j ii->i ii-> ij,jk->ik ij,kj->ik ij,ij->ij ij,ij-> i,j->ij bij,bjk->bik bij,bkj->bik ij,jk,kl->il".split():
    _sizes = {"i": 3, "j": 4, "k": 2, "l": 5, "b": 2}
    if _text.startswith("ii"):
        _sizes["i"] = 4
    CASES[f"einsum {_text}"] = (
        lambda *v, t=_text: T.einsum(t, *v),
        lambda *v, t=_text: np.einsum(t, *v),
        [RNG.normal(size=[_sizes[c] for c in term]) for term in _text.split("->")[0].split(",")],
    )
CASES["einsum implicit"] = (
    lambda a, b: T.einsum("ij,jk", a, b),
    lambda a, b: np.einsum("ij,jk", a, b),
    [M, M.T.copy()],
)
CASES["einsum dots"] = (
    lambda a, b: T.einsum("...ij,jk->...ik", a, b),
    lambda a, b: np.einsum("...ij,jk->...ik", a, b),
    [CUBE, M.T.copy()],
)


def filled(x):
    x = x.copy()
    np.fill_diagonal(x, 7.0)
    return x


@pytest.mark.parametrize("name", CASES)
def test_numpy_says_the_same(name):
    make, numpys, arrays = CASES[name]
    same(run(make, *arrays), (numpys or filled)(*arrays))


@pytest.mark.parametrize("dtype", ["float64", "int32"])
@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_unique(dtype, n):
    x = RNG.integers(-4, 5, n).astype(dtype)
    if dtype == "float64" and n > 2:
        x[3:9] = np.nan
    made = run(lambda v: T.unique(v, True, True, True), x)
    for got, wanted in zip(made, np.unique(x, True, True, True), strict=True):
        assert np.array_equal(got, wanted.reshape(got.shape), equal_nan=got.dtype.kind == "f")
    assert np.array_equal(run(T.unique, x), np.unique(x), equal_nan=dtype == "float64")


def test_fill_diagonal_offset():
    for offset in (-2, -1, 0, 1, 3, 9):
        wanted = M.copy()
        wanted[np.eye(3, 4, offset) == 1] = 7
        same(run(lambda x, k: T.fill_diagonal_offset(x, 7.0, k), M, np.array(offset)), wanted)


SLOPES = {
    "repeat": lambda x: T.repeat(x, T.constant([2, 0, 3]), 0),
    "diff": lambda x: T.diff(x, 2),
    "diag": lambda x: T.diag(x[0]),
    "diag above": lambda x: T.diag(x[0], 1),
    "trace": T.trace,
    "kron": lambda x: T.kron(x, x[:2]),
    "pad": lambda x: T.pad(x, 2, "reflect"),
    "pad constant": lambda x: T.pad(x, ((1, 0), (2, 1))),
    "einsum": lambda x: T.einsum("ij,kj,kl->il", x, x, x),
    "cov": T.cov,
    "choose": lambda x: T.choose(T.constant([[0, 1, 1, 0]]), [x, x * x]),
    "fill_diagonal": lambda x: T.fill_diagonal(x, x.sum()),
    "permute": lambda x: T.permute_row_elements(x, T.constant([2, 0, 3, 1])),
    "unique": T.unique,
    "bincount": lambda x: T.bincount(T.constant([0, 2, 2, 0]), weights=x[0]),
}


@pytest.mark.parametrize("name", SLOPES)
def test_gradients_are_what_differences_say(name):
    x = T.matrix("x")
    y = T.sin(SLOPES[name](x)).sum()
    slope, value = tcc.function([x], T.grad(y, x)), tcc.function([x], y)
    got = slope(M)
    for at in np.ndindex(M.shape):
        step = np.zeros_like(M)
        step[at] = 1e-6
        np.testing.assert_allclose(got[at], (value(M + step) - value(M - step)) / 2e-6, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("offset", [0, 1, -2])
@pytest.mark.parametrize("axes", [(0, 1), (1, 0), (0, 2), (-2, -1), (2, 1)])
def test_alloc_diag_is_what_diagonal_undoes(offset, axes):
    x = T.dmatrix("x")
    whole = T.alloc_diag(x, offset, *axes)
    slope = T.grad(T.sum(whole * whole), x)
    made, back, by_x = tcc.function([x], [whole, T.diagonal(whole, offset, *axes), slope])(M)
    assert made.shape[axes[0]] == made.shape[axes[1]] == M.shape[1] + abs(offset)
    np.testing.assert_array_equal(np.diagonal(made, offset, *axes), M)
    np.testing.assert_array_equal(back, M)
    np.testing.assert_allclose(np.abs(made).sum(), np.abs(M).sum())
    np.testing.assert_allclose(by_x, 2 * M)


def test_what_does_not_fit_is_an_error():
    x = T.matrix("x")
    with pytest.raises((IndexError, ValueError)):
        run(lambda y: T.to_one_hot(y, 3), np.array([0, 3]))
    with pytest.raises(ValueError, match="mis-match"):
        run(lambda v, r: T.repeat(v, r, 0), M, np.array([1, 2]))
    with pytest.raises(ValueError, match="negative"):
        run(lambda v, r: T.repeat(v, r, 0), M, np.array([2, -1, 3]))
    with pytest.raises(IndexError):
        run(lambda i: T.unravel_index(i, (2, 3))[0], np.array([6]))
    with pytest.raises(TypeError, match="dimensions must sum"):
        T.kron(T.vector(), T.vector())
    with pytest.raises(ValueError, match="operands"):
        T.einsum("ij,jk->ik", x)
    with pytest.raises(ValueError, match="does not fit"):
        T.einsum("ijk->i", x)
    with pytest.raises(TypeError):
        T.bincount(x)
    with pytest.raises(TypeError):
        T.fill_diagonal(x, T.vector())
    with pytest.raises(ValueError, match="negative"):
        T.pad(x, -1)
    with pytest.raises(ValueError, match="diagonal: axis 2 is out of bounds"):
        T.diagonal(x, 0, 0, 2)
    with pytest.raises(ValueError, match="diagonal: axis 1 is out of bounds"):
        T.nlinalg.trace(T.vector())
    with pytest.raises(ValueError, match="alloc_diag: axis1 and axis2 are both 1"):
        T.alloc_diag(x, 0, 1, -2)


def test_numbers_that_are_known():
    x = T.matrix("x", shape=(3, None))
    assert T.get_scalar_constant_value(T.constant(2) * 3) == 6
    assert T.extract_constant(x.shape[0]) == 3
    assert T.extract_constant(x.shape[1]) is not None
    with pytest.raises(T.NotScalarConstantError):
        T.get_scalar_constant_value(x.sum())
    assert T.Rebroadcast((0, True))(T.matrix()).broadcastable == (True, False)


def test_small_functions():
    same(run(lambda x: T.moveaxis(x, 0, -1), CUBE), np.moveaxis(CUBE, 0, -1))
    same(run(lambda x: T.moveaxis(x, (0, 1), (2, 0)), CUBE), np.moveaxis(CUBE, (0, 1), (2, 0)))
    same(run(lambda x: T.expand_dims(x, 1), M), M[:, None])
    same(run(lambda x, y: T.largest(x, y, 0.0), M, -M), np.maximum(np.maximum(M, -M), 0))
    same(run(lambda x, y: T.smallest(x, y), M, -M), np.minimum(M, -M))
    assert run(T.allclose, M, M + 1e-12) and not run(T.allclose, M, M + 1)
    for name in ("real", "imag", "conj", "angle"):
        same(run(getattr(T, name), M), getattr(np, name)(M))
        z = T.zmatrix("z")
        got = getattr(T, name)(z).eval({z: M + 1j})
        np.testing.assert_allclose(got, getattr(np, name)(M + 1j))


def test_indices_of_positions_are_integers():
    with pytest.raises(TypeError, match="for axis 1"):
        T.extra_ops.ravel_multi_index((T.ivector("i"), T.fvector("f")), (3, 4))


@pytest.mark.parametrize("axis", [0, -1])
def test_unique_slices(axis):
    x = T.matrix()
    values = np.array([[2.0, 1, 2], [3, 2, 3], [2, 1, 2]])
    made = tcc.function([x], T.extra_ops.unique(x, True, True, True, axis=axis))(values)
    for got, want in zip(made, np.unique(values, True, True, True, axis=axis), strict=True):
        assert np.array_equal(got, np.ravel(want) if got.ndim == 1 else want)
    first = T.extra_ops.unique(x, axis=axis)
    assert tcc.function([x], first.shape)(values).tolist() == list(np.unique(values, axis=axis).shape)
    with pytest.raises(ValueError, match="no axis 2"):
        T.extra_ops.unique(x, axis=2)


def test_searchsorted_finds_nan_of_float16_behind_all_numbers() -> None:
    x, v = np.array([1, 2, np.nan], "float16"), np.array([np.nan, 2, np.inf], "float16")
    a, b = T.TensorType("float16", (None,))("a"), T.TensorType("float16", (None,))("b")
    f = tcc.function([a, b], [T.searchsorted(a, b, side=side) for side in ("left", "right")])
    for got, side in zip(f(x, v), ("left", "right"), strict=True):
        assert got.tolist() == np.searchsorted(x, v, side).tolist()
