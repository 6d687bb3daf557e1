"""config.compute_test_value: mistakes show where they are made."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import tcc
import tcc.tensor as T


@pytest.fixture
def x():
    x = T.matrix("x")
    x.tag.test_value = np.ones((2, 3))
    return x


@tcc.change_flags(compute_test_value="raise")
def test_values_travel(x):
    w = tcc.shared(np.full(3, 2.0))
    y = T.dot(x, w).sum() + x.shape[0]
    assert y.tag.test_value == 14


@tcc.change_flags(compute_test_value="raise")
def test_a_mismatch_is_raised_where_it_is_made(x):
    with pytest.raises(ValueError):
        T.dot(x, x)
    with pytest.raises(IndexError):
        x[5]
    with pytest.raises(TypeError):
        x.tag.test_value = np.ones(2)
        x + 1


def test_missing_values(x):
    nt = T.matrix("nt")
    with tcc.change_flags(compute_test_value="raise"):
        with pytest.raises(
            AttributeError, match=r"Cannot compute test value: input 0 \(nt\) of Op .* missing default value"
        ):
            T.exp(nt)
    with (
        tcc.change_flags(compute_test_value="warn"),
        pytest.warns(UserWarning, match="missing default value"),
    ):
        T.exp(nt)
    with tcc.change_flags(compute_test_value="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not hasattr(T.exp(nt).tag, "test_value")


@tcc.change_flags(compute_test_value="raise")
def test_inside_a_loop(x):
    made, _ = tcc.scan(lambda row, h: h + row.sum(), sequences=x, outputs_info=np.float64(0))
    assert made.tag.test_value.tolist() == [3, 6]


@tcc.change_flags(compute_test_value="raise")
def test_the_gradient_of_a_scan_has_one(x):
    y, _ = tcc.scan(lambda row, total: total + (row**2).sum(), x, T.constant(0.0, dtype=x.dtype))
    g = tcc.grad(y[-1], x)
    assert g.tag.test_value.tolist() == [[2.0] * 3] * 2
    size = T.lscalar()
    size.tag.test_value = 6
    assert x.reshape((size,)).tag.test_value.shape == (6,)


@tcc.change_flags(compute_test_value="raise")
def test_of_what_is_no_array():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    from tcc import sparse, typed_list

    x, unknown = sparse.csr_matrix("x"), sparse.csr_matrix("unknown")
    x.tag.test_value = scipy_sparse.csr_matrix(np.diag([1.0, 2, 0]))
    assert sparse.sp_sum(x + x).tag.test_value == 6
    dense = sparse.structured_dot(sparse.shared(x.tag.test_value), T.constant(np.ones((3, 2))))
    assert dense.tag.test_value.tolist() == [[1, 1], [2, 2], [0, 0]]
    with pytest.raises(ValueError, match="2 against 3"):
        sparse.structured_dot(x, T.constant(np.ones((2, 2))))
    with pytest.raises(AttributeError, match="unknown"):
        sparse.sp_sum(unknown)
    values = typed_list.TypedListType(T.dvector)("values")
    values.tag.test_value = [np.ones(2)]
    assert typed_list.length(values).tag.test_value == 1


@tcc.change_flags(compute_test_value="raise")
def test_of_draws():
    from tcc.sandbox.rng_mrg import MRG_RandomStreams
    from tcc.tensor.shared_randomstreams import RandomStreams

    for streams in (MRG_RandomStreams(3), RandomStreams(3)):
        drawn = streams.uniform((2,))
        assert np.array_equal((drawn * 2).tag.test_value, 2 * drawn.tag.test_value)
