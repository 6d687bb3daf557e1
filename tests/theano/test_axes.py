"""Axes and sizes that only the running function knows, and arguments in the forms that Theano takes."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.theano
from tcc import tensor as T
from tcc.tensor import extra_ops, nlinalg

A = np.arange(6.0).reshape(2, 3)[:, ::-1].copy()


@pytest.mark.parametrize("mode", ["FAST_RUN", "FAST_COMPILE"])
@pytest.mark.parametrize("axis", [0, 1, -1, -2])
def test_join_and_sort_along_an_axis_of_run_time(mode: str, axis: int) -> None:
    x, k = T.matrix("x"), T.lscalar("k")
    f = tcc.function([x, k], [T.join(k, x, x + 1), T.sort(x, k), T.argsort(x, k)], mode=mode)
    joined, ordered, order = f(A, axis)
    assert np.array_equal(joined, np.concatenate([A, A + 1], axis))
    assert np.array_equal(ordered, np.sort(A, axis)) and np.array_equal(order, np.argsort(A, axis))
    with pytest.raises(IndexError):
        f(A, 2)


def test_gradients_through_a_join_along_an_axis_of_run_time() -> None:
    x, k = T.matrix("x"), T.lscalar("k")
    f = tcc.function([x, k], tcc.grad((T.join(k, x, 2 * x) ** 2).sum(), x))
    for axis in (0, 1):
        assert np.allclose(f(A, axis), 10 * A)


def test_axes_may_be_arrays_without_axes() -> None:
    x = T.matrix("x")
    assert np.array_equal(x.sum(np.array(1)).eval({x: A}), A.sum(1))
    assert x.max([np.array(0), np.array(1)]).eval({x: A}) == 5


def test_sums_and_products_of_truth() -> None:
    x = T.matrix("x")
    assert list(x.sum(1, dtype="bool").eval({x: A})) == [True, True]
    assert list(x.prod(1, dtype="bool").eval({x: A})) == [False, True]


def test_counts_of_numbers_that_must_not_be_negative() -> None:
    x = T.lvector("x")
    f = tcc.function([x], extra_ops.bincount(x, assert_nonneg=True))
    assert list(f([0, 2, 2])) == [1, 0, 2]
    with pytest.raises(AssertionError, match="negative values"):
        f([0, -1])


def test_a_window_of_no_points_is_empty() -> None:
    m = T.lscalar("m")
    f = tcc.function([m], extra_ops.bartlett(m))
    assert f(-1).shape == f(0).shape == (0,) and list(f(3)) == list(np.bartlett(3))


def test_positions_in_an_array_whose_shape_is_a_variable() -> None:
    shape, i = T.lvector("shape"), T.lvector("i")
    row, column = extra_ops.unravel_index(i, shape, ndim=2)
    assert list(row.eval({shape: [2, 3], i: [0, 4]})) == [0, 1]
    flat = extra_ops.ravel_multi_index((row, column), shape)
    assert list(flat.eval({shape: [2, 3], i: [0, 4]})) == [0, 4]


def test_norms_by_word_and_searching_as_a_method() -> None:
    assert np.isclose(nlinalg.norm(A, "inf").eval(), np.linalg.norm(A, np.inf))
    assert np.isclose(nlinalg.norm(A, "-inf").eval(), np.linalg.norm(A, -np.inf))
    line = T.as_tensor_variable(np.arange(4.0))
    assert list(line.searchsorted(np.array([0.5, 3.5])).eval()) == [1, 4]


def test_a_diagonal_that_only_the_running_function_knows() -> None:
    k, n = T.lscalar("k"), T.lscalar("n")
    f = tcc.function([n, k], T.eye(n, 4, k))
    for offset in (-2, 0, 1, 9):
        assert np.array_equal(f(3, offset), np.eye(3, 4, offset))


def test_leading_axes_of_size_one_are_dropped_where_fewer_are_wanted() -> None:
    row = T.row("row")
    flat = T.as_tensor_variable(row, ndim=1)
    assert flat.ndim == 1 and list(flat.eval({row: [[1.0, 2.0]]})) == [1, 2]
    with pytest.raises(ValueError, match="could not be cast"):
        T.as_tensor_variable(T.matrix(), ndim=1)


def test_quotients_rounded_up_keep_their_dtype() -> None:
    ceil_intdiv = tcc.theano.module("tensor").ceil_intdiv
    made = ceil_intdiv(np.array([7, 6], "uint8"), np.array([2, 2], "uint8"))
    assert made.dtype == "uint8" and list(made.eval()) == [4, 3]


def test_filling_with_more_axes_than_the_model_has() -> None:
    made = T.fill(np.zeros(3), np.ones((2, 3), "int8"))
    assert made.dtype == "int8" and made.eval().tolist() == [[1, 1, 1], [1, 1, 1]]
