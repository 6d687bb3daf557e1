"""Sparse matrices against SciPy, and their gradients against differences."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc import sparse as S
from tcc.theano import module

sp = pytest.importorskip("scipy.sparse")
RNG = np.random.RandomState(5)
FORMATS = ["csr", "csc"]
SHAPES = [(5, 4), (3, 0), (0, 2)]


def random(
    shape: tuple[int, int], format: str, density: float = 0.4, dtype: str = "float64", seed: int = 0
) -> Any:
    rng = np.random.RandomState(seed + sum(shape))
    dense = rng.normal(size=shape) * (rng.uniform(size=shape) < density)
    return getattr(sp, f"{format}_matrix")(dense.astype(dtype))


def same(got: Any, wanted: Any, format: str | None = None) -> None:
    assert got.shape == wanted.shape and (format is None or got.format == format)
    wanted = wanted.toarray() if sp.issparse(wanted) else wanted
    got = got.toarray() if sp.issparse(got) else got
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_matrices_go_in_and_come_out(format: str, shape: tuple[int, int]) -> None:
    x = S.matrix(format, "x", "float64")
    a = random(shape, format)
    outs = [x, x.T, S.dense_from_sparse(x), -x, S.structured_exp(x), *S.csm_properties(x), x.T.T]
    got = tcc.function([x], outs)(a)
    other = "csc" if format == "csr" else "csr"
    same(got[0], a, format)
    same(got[1], a.T, other)
    same(got[2], a.toarray())
    same(got[3], -a, format)
    exp = a.copy()
    exp.data = np.exp(exp.data)
    same(got[4], exp, format)
    for k, name in enumerate(("data", "indices", "indptr", "shape")):
        np.testing.assert_array_equal(got[5 + k], getattr(a, name))
    same(got[9], a, format)


def test_types_and_errors() -> None:
    x, f = S.csr_matrix("x", "float64"), S.csr_matrix("x", "float32")
    assert str(x.type) == "Sparse[float64, csr]" and x.type == S.SparseType("csr", "float64") != f.type
    assert S.csc_matrix().dtype == tcc.config.floatX
    g = tcc.function([x], S.sp_sum(x))
    assert g(random((2, 3), "csr", dtype="float32")).dtype == "float64"
    np.testing.assert_allclose(g(random((2, 3), "csc")), random((2, 3), "csc").sum())  # converted
    for wrong in (np.ones((2, 3)), 3):
        with pytest.raises(TypeError, match="format csr"):
            g(wrong)
    with pytest.raises(TypeError, match="loss of precision"):
        tcc.function([f], S.sp_sum(f))(random((2, 3), "csr"))
    assert tcc.function([f], S.sp_sum(f), allow_input_downcast=True)(random((2, 3), "csr")).dtype == "float32"
    with pytest.raises(TypeError):
        T.exp(x)
    with pytest.raises(NotImplementedError, match="coo"):
        S.SparseType("coo")
    with pytest.raises(TypeError):
        S.as_sparse_variable(T.dmatrix())
    with pytest.raises(TypeError):
        S.add(T.dmatrix(), T.dmatrix())
    arrays = [T.dvector("d"), T.ivector("i"), T.ivector("p")]
    h = tcc.function(arrays, S.dot(S.CSR(*arrays, (2, 3)), np.ones((3, 1))))
    assert h([1.0, 2.0], [0, 2], [0, 1, 2]).tolist() == [[1], [2]]
    for indices, indptr in [
        ([0, 3], [0, 1, 2]),
        ([0, -1], [0, 1, 2]),
        ([0, 1], [0, 2, 1]),
        ([0, 1], [0, 1, 3]),
    ]:
        with pytest.raises(ValueError, match="sparse: "):
            h([1.0, 2.0], np.array(indices, "int32"), np.array(indptr, "int32"))


@pytest.mark.parametrize("format", FORMATS)
def test_a_shape_that_contradicts_the_arrays_is_refused(format: str) -> None:
    arrays = [T.dvector("d"), T.ivector("i"), T.ivector("p")]
    shape = T.lvector("shape")
    make = S.CSR if format == "csr" else S.CSC
    f = tcc.function([*arrays, shape], S.dense_from_sparse(make(*arrays, shape)))
    a = random((5, 4), format)
    assert np.array_equal(f(a.data, a.indices, a.indptr, a.shape), a.toarray())
    for wrong in ((6, 5), (4, 3), (-5, -4)):
        with pytest.raises(ValueError, match="one element more than .* has (rows|columns)|negative"):
            f(a.data, a.indices, a.indptr, wrong)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_from_dense(format: str, shape: tuple[int, int]) -> None:
    d = T.dmatrix("d")
    a = random(shape, format)
    same(tcc.function([d], S.SparseFromDense(format)(d))(a.toarray()), a, format)


@pytest.mark.parametrize("formats", [("csr", "csr"), ("csr", "csc"), ("csc", "csr")])
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_and_products_by_element(formats: tuple[str, str], shape: tuple[int, int]) -> None:
    x, y, d = S.matrix(formats[0], "x", "float64"), S.matrix(formats[1], "y", "float64"), T.dmatrix("d")
    a, b, c = random(shape, formats[0]), random(shape, formats[1], seed=1), RNG.normal(size=shape)
    outs = [x + y, x - y, x * y, x + d, d - x, x * d, d * x, x * 2.0, x + x, x * x]
    got = tcc.function([x, y, d], outs)(a, b, c)
    both = a.multiply(c)
    wanted = [a + b, a - b, a.multiply(b), a + c, c - a, both, both, a * 2.0, a + a, a.multiply(a)]
    for g, w in zip(got, wanted):
        same(g, np.asarray(w) if not sp.issparse(w) else w)
    assert [g.format for g in (got[0], got[2], got[5])] == [formats[0]] * 3
    assert got[2].nnz == a.multiply(b).nnz


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_reductions_scales_and_diagonals(format: str, shape: tuple[int, int]) -> None:
    x, r, c = S.matrix(format, "x", "float64"), T.dvector("r"), T.dvector("c")
    a, rows, columns = random(shape, format), RNG.normal(size=shape[0]), RNG.normal(size=shape[1])
    outs = [
        S.sp_sum(x),
        S.sp_sum(x, 0),
        S.sp_sum(x, 1),
        S.row_scale(x, r),
        S.col_scale(x, c),
        S.mul(x, c),
        S.square_diagonal(r),
    ]
    got = tcc.function([x, r, c], outs)(a, rows, columns)
    dense = a.toarray()
    by_column = dense * columns
    wanted = [
        dense.sum(),
        dense.sum(0),
        dense.sum(1),
        dense * rows[:, None],
        by_column,
        by_column,
        np.diag(rows),
    ]
    for g, w in zip(got, wanted):
        same(g, w)
    square = random((4, 4), format, 0.8)
    same(tcc.function([x], S.diag(x))(square), square.diagonal())


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("other", [*FORMATS, "dense"])
@pytest.mark.parametrize("shape", SHAPES)
def test_matrix_products(format: str, other: str, shape: tuple[int, int]) -> None:
    x = S.matrix(format, "x", "float64")
    y = T.dmatrix("y") if other == "dense" else S.matrix(other, "y", "float64")
    a = random(shape, format)
    b = random((shape[1], 3), "csr" if other == "dense" else other)
    b = b.toarray() if other == "dense" else b
    got = tcc.function([x, y], [S.dot(x, y), S.structured_dot(x, y), S.true_dot(y.T, x.T)])(a, b)
    for g in got[:2]:
        same(g, np.asarray((a @ b).todense()) if sp.issparse(a @ b) else a @ b)
    same(got[2], (a @ b).T)
    assert sp.issparse(got[1]) == (other != "dense")
    assert sp.issparse(got[2])


@pytest.mark.parametrize("format", FORMATS)
def test_products_with_vectors_and_of_samples(format: str) -> None:
    x, v, w = S.matrix(format, "x", "float64"), T.dvector("v"), T.dvector("w")
    a, b, c = random((4, 5), format), RNG.normal(size=5), RNG.normal(size=4)
    got = tcc.function([x, v, w], [S.dot(x, v), S.dot(w, x)])(a, b, c)
    same(got[0], a @ b)
    same(got[1], c @ a)
    y, z = T.dmatrices("y", "z")
    left, right = RNG.normal(size=(4, 3)), RNG.normal(size=(5, 3))
    got = tcc.function([x, y, z], S.sampling_dot(y, z, x))(a, left, right)
    same(got, a.multiply(left @ right.T), format)
    alpha = T.dscalar("alpha")
    u = tcc.function([alpha, x, y, z], S.usmm(alpha, x, y, z))
    same(u(0.5, a, right, left), 0.5 * (a @ right) + left)
    i = S.matrix(format, "i", "int32")
    ints = random((4, 5), format)
    ints.data = np.arange(1, ints.nnz + 1, dtype="int32")
    got = tcc.function([i], S.dot(i, np.ones((5, 2), "int8")))(ints.astype("int32"))
    assert got.dtype == "int32"
    same(got, ints @ np.ones((5, 2)))


def test_gradients_by_sparse_variables_are_sparse() -> None:
    x, w = S.csr_matrix("x", "float64"), T.dmatrix("w")
    cost = T.sqr(S.structured_dot(x, w)).sum()
    g = tcc.grad(cost, [x, w])
    assert g[0].type == x.type
    a, b = random((4, 5), "csr"), RNG.normal(size=(5, 2))
    got = tcc.function([x, w], g)(a, b)
    residual = 2 * (a @ b)
    mask = a.copy()
    mask.data[:] = 1
    same(got[0], mask.multiply(residual @ b.T), "csr")
    np.testing.assert_array_equal(got[0].indices, a.indices)
    same(got[1], a.T @ residual)
    none = tcc.grad(w.sum(), x, disconnected_inputs="ignore")
    assert tcc.function([x], none)(a).nnz == 0
    dense = tcc.grad(S.dense_from_sparse(x, structured=False).sum(), x)
    assert tcc.function([x], dense)(a).nnz == 20


@pytest.mark.parametrize("format", FORMATS)
def test_parts_and_stacks(format: str) -> None:
    x, i = S.matrix(format, "x", "float64"), T.lvector("i")
    a = random((5, 6), format, 0.5)
    dense = a.toarray()
    cases = [x[1:4], x[:, ::2], x[::-1, 2:], x[i], x[i, 1:3], x[-1, 2], x[i, i], x[4, 0]]
    got = tcc.function([x, i], cases)(a, [3, 0, 3, -1])
    at = np.array([3, 0, 3, -1])
    wanted = [
        dense[1:4],
        dense[:, ::2],
        dense[::-1, 2:],
        dense[at],
        dense[at, 1:3],
        dense[-1, 2],
        dense[at, at],
        dense[4, 0],
    ]
    for g, w in zip(got, wanted):
        same(g, w)
    y = S.csr_matrix("y", "float64")
    b = random((2, 6), "csr")
    same(tcc.function([x, y], S.vstack([x, y, y]))(a, b), sp.vstack([a, b, b]), format)
    c = random((5, 2), "csr")
    same(tcc.function([x, y], S.hstack([x, y], "csc"))(a, c), sp.hstack([a, c]), "csc")
    with pytest.raises(IndexError):
        tcc.function([x, i], x[i])(a, [5])


@pytest.mark.parametrize("format", FORMATS)
def test_sizes_that_do_not_fit_are_refused(format: str) -> None:
    x, y, d, v = S.matrix(format, "x", "float64"), S.csr_dmatrix("y"), T.dmatrix("d"), T.dvector("v")
    a, small, wide = (sp.csr_matrix(s) for s in ((3, 4), (3, 3), (2, 4)))  # none has an element
    a = a.asformat(format)
    for made, others in [
        (x + y, (small, wide)),
        (x * y, (small, wide)),
        (S.true_dot(x, y), (small, a.tocsr())),
        (S.dot(y, x), (wide, a.tocsr())),
        (S.vstack([x, y]), (small,)),
        (S.hstack([x, y]), (wide,)),
    ]:
        f = tcc.function([x, y], made)
        for b in others:
            with pytest.raises(ValueError):
                f(a, b)
    for made in (x + d, x * d, S.dot(x, d), S.dot(d, x), S.sampling_dot(d, T.ones((4, 2)), x)):
        f = tcc.function([x, d], made)
        for shape in ((2, 5), (5, 2)):
            with pytest.raises(ValueError):
                f(a, np.ones(shape))
    for made in (S.row_scale(x, v), S.col_scale(x, v), S.mul(x, v), S.dot(x, v), S.dot(v, x)):
        with pytest.raises(ValueError):
            tcc.function([x, v], made)(a, np.ones(5))
    row = T.drow("row")
    same(tcc.function([x, row], x + row)(a, np.ones((1, 4))), np.ones((3, 4)))


def test_comparisons() -> None:
    x, y, d = S.csr_dmatrix("x"), S.csc_dmatrix("y"), T.dmatrix("d")
    a, b, c = random((3, 4), "csr"), random((3, 4), "csc", seed=2), np.zeros((3, 4))
    for name, numpy in (("eq", "equal"), ("neq", "not_equal"), ("lt", "less"), ("ge", "greater_equal")):
        f = getattr(S, name)
        got = tcc.function([x, y, d], [f(x, y), f(x, d), f(d, y)])(a, b, c)
        dense = getattr(np, numpy)
        same(got[0], dense(a.toarray(), b.toarray()), "csr")
        same(got[1], dense(a.toarray(), c))
        same(got[2], dense(c, b.toarray()))
    with pytest.raises(TypeError):
        S.lt(d, d)


def test_casts_and_functions_of_elements() -> None:
    x = S.csr_dmatrix("x")
    a = random((3, 4), "csr")

    @S.structured_monoid(T.cosh)
    def structured_cosh(x: Any) -> Any:
        """cosh of each stored element."""

    got = tcc.function([x], [S.fcast(x), S.icast(x), structured_cosh(x)])(a)
    assert [g.dtype.name for g in got] == ["float32", "int32", "float64"]
    same(got[1], a.astype("int32"), "csr")
    np.testing.assert_allclose(got[2].data, np.cosh(a.data))


def test_structure() -> None:
    x = S.csr_matrix("x", "float64")
    a = sp.csr_matrix((np.array([3.0, 0, 1]), np.array([2, 1, 0]), np.array([0, 3, 3])), shape=(2, 3))
    got = tcc.function([x], [S.clean(x), S.ensure_sorted_indices(x), S.remove0(x), S.sp_ones_like(x)])(a)
    assert got[0].indices.tolist() == [0, 2] and got[0].data.tolist() == [1, 3]
    assert got[1].indices.tolist() == [0, 1, 2] and got[2].nnz == 2 and got[3].data.tolist() == [1, 1, 1]
    for name in ("sin", "sqrt", "rint", "expm1"):
        same(tcc.function([x], getattr(S, name)(x))(abs(a)), getattr(abs(a), name)())


def test_shared_matrices_are_read_and_updated() -> None:
    a = random((4, 5), "csr")
    s = tcc.shared(a, "s")
    assert isinstance(s, S.SparseSharedVariable)
    v = T.dvector("v")
    step = tcc.function([v], S.dot(s, v), updates=[(s, s * 2.0)])
    same(step(np.ones(5)), a @ np.ones(5))
    same(s.get_value(), a * 2)
    s.set_value(random((2, 5), "csr"))
    same(step(np.ones(5)), random((2, 5), "csr") @ np.ones(5))
    y = S.csr_matrix("y", "float64")
    tcc.function([y], [], updates=[(s, s + y)])(random((2, 5), "csr", seed=9))
    same(s.get_value(), random((2, 5), "csr") * 2 + random((2, 5), "csr", seed=9))
    with pytest.raises(TypeError):
        tcc.function([], [], updates=[(s, s.T)])
    target = RNG.normal(size=(2, 3))
    w = tcc.shared(random((2, 5), "csr", 0.9), "w")
    d = T.dmatrix("d")
    cost = T.sqr(S.structured_dot(w, d) - target).sum()
    train = tcc.function([d], cost, updates=[(w, w - 0.02 * tcc.grad(cost, w))])
    data = RNG.normal(size=(5, 3))
    costs = [float(train(data)) for _ in range(20)]
    assert costs[-1] < 0.5 * costs[0]


def test_in_scans_branches_givens_and_pickles() -> None:
    x, v = S.csr_matrix("x", "float64"), T.dvector("v")
    a = random((3, 3), "csr", 0.7)
    states, _ = tcc.scan(lambda u, m: S.dot(m, u), outputs_info=[v], non_sequences=[x], n_steps=3)
    f = tcc.function([x, v], [states, tcc.grad(states.sum(), v)])
    got = f(a, np.ones(3))
    dense = a.toarray()
    same(got[0][-1], dense @ dense @ dense @ np.ones(3))
    same(got[1], (dense.T + (dense @ dense).T + (dense @ dense @ dense).T) @ np.ones(3))
    again = pickle.loads(pickle.dumps(f))
    same(again(a, np.ones(3))[0], got[0])
    y = S.csr_matrix("y", "float64")
    g = tcc.function([y], S.sp_sum(x), givens={x: y * 2.0})
    np.testing.assert_allclose(g(a), 2 * a.sum())
    h = tcc.function([x], S.sp_sum(S.add(x, S.as_sparse_variable(a))))
    np.testing.assert_allclose(h(a), 2 * a.sum())
    np.testing.assert_allclose(S.sp_sum(x).eval({x: a}), a.sum())
    k = tcc.function([tcc.In(x, value=a, name="m")], {"sum": S.sp_sum(x), "double": x * 2.0})
    assert set(k()) == {"sum", "double"}
    same(k(m=a)["double"], a * 2)


def test_inputs_within_a_graph() -> None:
    a = random((3, 4), "csr")
    y = S.csr_dmatrix("y")
    between = S.sp_sum(y, 0)
    f = tcc.function([between], T.exp(between) + S.sp_sum(S.as_sparse_variable(a)))
    np.testing.assert_allclose(f(np.zeros(4)), 1 + a.sum())


def test_theanos_paths() -> None:
    t = module("sparse")
    assert t.csr_matrix is S.csr_matrix and t.basic.structured_dot is S.structured_dot and t.enable_sparse
    x, w = S.csr_matrix("x", "float64"), T.dmatrix("w")
    dot = module("").dot
    a, b = random((2, 3), "csr"), RNG.normal(size=(3, 2))
    same(tcc.function([x, w], dot(x, w))(a, b), a @ b)
    same(tcc.function([x, w], dot(w, x))(a, b), b @ a.toarray())
    assert t.type.SparseType is S.SparseType
