"""theano.sparse: op classes by Theano's names, formats, draws, and Python ops on sparse values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc import sparse as S
from tcc.theano import module
from tcc.user_op import Apply, Op

sp = pytest.importorskip("scipy.sparse")
M = module("sparse")
FORMATS = ("csr", "csc")


def matrix(format: str, dtype: str = "float64", shape: tuple[int, int] = (4, 5), seed: int = 3) -> Any:
    rng = np.random.RandomState(seed)
    dense = rng.randint(-4, 5, shape) * (rng.uniform(size=shape) < 0.5)
    return getattr(sp, f"{format}_matrix")(dense.astype(dtype))


def dense(v: Any) -> Any:
    return v.toarray() if sp.issparse(v) else np.asarray(v)


@pytest.mark.parametrize("format", FORMATS)
def test_op_classes_do_what_the_functions_do(format: str) -> None:
    x, y = S.matrix(format, "x", "float64"), S.matrix(format, "y", "float64")
    d, v = T.dmatrix("d"), T.dvector("v")
    a, b = matrix(format), matrix(format, seed=4)
    e, u = np.arange(20.0).reshape(4, 5), np.arange(5.0)
    mask = a.toarray() != 0
    cases = {
        M.AddSS()(x, y): (a + b).toarray(),
        M.AddSD()(x, d): a.toarray() + e,
        M.AddSSData()(x, -x): 0 * a.toarray(),
        M.MulSS()(x, y): a.multiply(b).toarray(),
        M.MulSD()(x, d): a.toarray() * e,
        M.MulSV()(x, v): a.toarray() * u,
        M.StructuredAddSV()(x, v): (a.toarray() + u) * mask,
        M.Neg()(x): -a.toarray(),
        M.Transpose()(x): a.toarray().T,
        M.Cast("int32")(x): a.toarray(),
        M.Remove0()(x): a.toarray(),
        M.EnsureSortedIndices(inplace=False)(x): a.toarray(),
        M.HStack(format, "float64")(x, y): np.hstack([a.toarray(), b.toarray()]),
        M.VStack()(x, y): np.vstack([a.toarray(), b.toarray()]),
        M.SpSum(axis=0)(x): a.toarray().sum(0),
        M.Dot()(x, d.T): a.toarray() @ e.T,
        M.StructuredDot()(x, d.T): a.toarray() @ e.T,
        M.TrueDot()(x, d.T): a.toarray() @ e.T,
        M.SamplingDot()(d, T.eye(5), x): e * a.toarray(),
        M.Usmm()(2.0, x, d.T, T.zeros((4, 4))): 2 * (a.toarray() @ e.T),
        M.GetItemList()(x, [2, -1, 2]): a.toarray()[[2, -1, 2]],
        M.GetItem2Lists()(x, [2, 0], [1, -5]): a.toarray()[[2, 0], [1, -5]],
        M.GetItemScalar()(x, (1, 2)): a.toarray()[1, 2],
        M.DenseFromSparse()(x): a.toarray(),
        M.construct_sparse_from_list(d, d[:2], [3, 1]): np.array([0 * u, e[1], 0 * u, e[0]]),
    }
    got = tcc.function([x, y, d, v], list(cases), on_unused_input="ignore")(a, b, e, u)
    for made, value, want in zip(cases, got, cases.values()):
        np.testing.assert_allclose(dense(value), want, err_msg=str(made))
    (data, *_, shape) = M.CSMProperties()(x)
    assert tcc.function([x], shape)(a).tolist() == [4, 5] and data.type.dtype == "float64"
    assert M.Cast("int8")(x).dtype == "int8" and M.Cast("int8") == M.Cast("int8") != M.Cast("int16")


def test_op_classes_in_questions() -> None:
    x, d = S.csr_matrix("x", "float64"), T.dmatrix("d")
    op = S.dot(x, d).owner.op
    assert isinstance(op, M.Dot) and not isinstance(op, M.Remove0)
    assert isinstance(S.true_dot(x, x).owner.op, M.TrueDot)
    assert isinstance(S.csm_data(x).owner.op, M.CSMProperties)
    assert isinstance(T.dot(d, d).owner.op, module("tensor").Dot)  # the dense one keeps its name
    with pytest.raises(NotImplementedError, match="one dtype"):
        M.mul_s_v(x, T.fvector())
    with pytest.raises(NotImplementedError, match="cannot be applied"):
        M.CSMGrad()(x)


def test_dtypes_have_no_float16() -> None:
    assert "float16" not in M.all_dtypes and set(M.all_dtypes) == S.SparseType.dtype_set
    assert M.float_dtypes == ["float32", "float64"] and "bool" not in M.discrete_dtypes


@pytest.mark.parametrize("format", FORMATS)
def test_gradients_are_not_limited_to_what_is_stored(format: str) -> None:
    d = T.dmatrix("d")
    value = matrix(format).toarray()
    for op in (
        M.remove0,
        M.ensure_sorted_indices,
        lambda x: M.hstack([x, x])[:, 3:],
        lambda x: M.vstack([x, x], format="csr"),
        lambda x: x[[1, 1, -1]],
        lambda x: M.cast(x, "float64"),
        lambda x: M.true_dot(x, np.arange(10.0).reshape(5, 2)),
    ):
        total = M.sp_sum(op(M.SparseFromDense(format)(d)))
        g = tcc.function([d], tcc.grad(total, d))(value)
        step = tcc.function([d], total)
        for at in ((1, 0), (3, 4)):
            moved = value.copy()
            moved[at] += 1e-3
            assert abs((step(moved) - step(value)) / 1e-3 - g[at]) < 1e-6, op
    pairs = M.SparseFromDense(format)(d)[[0, 0, 2], [1, 1, -1]]
    g = tcc.function([d], tcc.grad((pairs * [1.0, 2.0, 4.0]).sum(), d))(value)
    assert g[0, 1] == 3 and g[2, 4] == 4 and g.sum() == 7


@pytest.mark.parametrize("format", FORMATS)
def test_indices_out_of_bounds(format: str) -> None:
    x = S.matrix(format, "x", "float64")
    for pair in (([0, 4], [0, 3]), ([0, 3], [0, 5]), ([-5], [0])):
        with pytest.raises(IndexError):
            tcc.function([x], x[pair])(matrix(format))


def test_comparison_operators() -> None:
    x, y, d = S.csr_matrix("x", "float64"), S.csr_matrix("y", "float64"), T.dmatrix("d")
    a, b = matrix("csr"), matrix("csr", seed=4)
    got = tcc.function([x, y, d], [x < y, x >= d, x > y])(a, b, b.toarray())
    np.testing.assert_array_equal(dense(got[0]), a.toarray() < b.toarray())
    np.testing.assert_array_equal(got[1], a.toarray() >= b.toarray())
    np.testing.assert_array_equal(dense(got[2]), a.toarray() > b.toarray())


def test_blocks_work_as_rows() -> None:
    x, d = M.bsr_matrix("x", "float64"), T.dmatrix("d")
    a = sp.bsr_matrix(matrix("csr", shape=(4, 6)), blocksize=(2, 3))
    e = np.arange(12.0).reshape(6, 2)
    f = tcc.function([x, d], [x, S.dot(x, d), x.T, tcc.grad(S.dot(x, d).sum(), d)])
    same, product, turned, g = f(a, e)
    assert same.format == "bsr" and turned.format == "csc"
    np.testing.assert_allclose(same.toarray(), a.toarray())
    np.testing.assert_allclose(product, a.toarray() @ e)
    np.testing.assert_allclose(turned.toarray(), a.toarray().T)
    np.testing.assert_allclose(g, a.toarray().T @ np.ones((4, 2)))
    w = S.shared(a, "w")
    tcc.function([], [], updates=[(w, S.SparseType("bsr", "float64").filter_variable(w))])()
    np.testing.assert_allclose(w.get_value().toarray(), a.toarray())


def test_complex_matrices() -> None:
    x, d = S.csr_matrix("x", "complex128"), T.zmatrix("d")
    a = matrix("csr") + 2j * matrix("csr", seed=7)
    e = np.arange(10.0).reshape(5, 2) * (1 + 1j)
    product, real = tcc.function([x, d], [S.dot(x, d), S.cast(x, "float64")])(a, e)
    np.testing.assert_allclose(product, a.toarray() @ e)
    np.testing.assert_allclose(real.toarray(), a.toarray().real)


def test_types_compare_values() -> None:
    t, a = S.SparseType("csr", "float64"), matrix("csr")
    assert t.values_eq(a, a.copy()) and not t.values_eq(a, 2 * a) and not t.values_eq(a, a.T)
    assert t.values_eq_approx(a, a * (1 + 1e-9)) and not t.values_eq_approx(a, a * 1.1)
    assert t.is_valid_value(a) and not t.is_valid_value(a.tocsc()) and not t.is_valid_value(a.toarray())
    share = S.SparseType.may_share_memory
    assert share(a, a.data) and share(a.indices, a) and share(a.T, a)
    assert not share(a, a.copy()) and not share(a, 3)
    h = module("sparse.utils").hash_from_sparse
    assert h(a) == h(a.copy()) != h(a * 2) and h(a) != h(a.tocsc())


class Negated(Op):
    """-x of a sparse x, and its number of elements."""

    __props__ = ()

    def make_node(self, x: Any) -> Apply:
        return Apply(self, [x], [x.type(), T.lscalar()])

    def perform(self, node: Any, inputs: list[Any], output_storage: list[list[Any]]) -> None:
        output_storage[0][0] = -inputs[0]
        output_storage[1][0] = inputs[0].nnz

    def grad(self, inputs: Any, output_grads: Any) -> Any:
        return [-output_grads[0]]


@pytest.mark.parametrize("format", FORMATS)
def test_python_ops_take_and_give_sparse_values(format: str) -> None:
    x = S.matrix(format, "x", "float64")
    made, count = Negated()(x)
    g = tcc.grad(S.sp_sum(made * made), x)
    a = matrix(format)
    got = tcc.function([x], [made, count, g])(a)
    np.testing.assert_allclose(got[0].toarray(), -a.toarray())
    assert got[0].format == format and got[1] == a.nnz
    np.testing.assert_allclose(got[2].toarray(), 2 * a.toarray())


def test_draws() -> None:
    draws = module("sparse.sandbox.sp2")
    x = S.csr_matrix("x", "float64")
    a = abs(matrix("csr")) * 100
    drawn = tcc.function([x], draws.poisson(x))(a)
    assert ((drawn.toarray() > 0) <= (a.toarray() > 0)).all() and abs(drawn.sum() / a.sum() - 1) < 0.2
    n, p, size = T.lscalar("n"), T.dscalar("p"), T.lvector("size")
    made = tcc.function([n, p, size], draws.csc_dbinomial(n, p, size))(10, 0.5, [30, 40])
    assert made.format == "csc" and made.shape == (30, 40) and abs(made.toarray().mean() - 5) < 0.4
    odds = sp.csr_matrix(np.array([[0.25, 0.75, 0], [0, 0, 0], [0, 0.5, 0.5]]))
    k = T.lvector("k")
    got = tcc.function([k, x], draws.multinomial(k, x))([100, 7, 10], odds).toarray()
    assert got.sum(axis=1).tolist() == [100, 0, 10] and got[0, 2] == 0
    with pytest.raises(tcc.gradient.NullTypeGradError):
        tcc.grad(S.sp_sum(draws.poisson(x)), x)
