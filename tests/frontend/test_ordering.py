"""sort, argsort, topk: values, positions, gradients and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T

RNG = np.random.default_rng(0)
A = RNG.standard_normal((4, 9, 3)).astype("float32")


def reference(x: Any, k: int, axis: int) -> tuple[Any, Any]:
    order = np.argsort(x, axis, kind="stable")
    if k > 0:
        order = np.flip(order, axis)
    where = np.take(order, range(abs(k)), axis)
    return np.take_along_axis(x, where, axis), where


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("k", [1, 3, -1, -2])
def test_topk_of_each_axis(axis: int, k: int) -> None:
    x = T.tensor3("x", dtype="float32")
    both = T.topk_and_argtopk(x, k, axis, idx_dtype="int32")
    values, where = tcc.function([x], both)(A)
    want, order = reference(A, k, axis)
    assert where.dtype == np.int32
    np.testing.assert_array_equal(values, want)
    np.testing.assert_array_equal(where, order)


def test_topk_of_the_flattened_array_and_of_integers() -> None:
    x = T.lmatrix("x")
    a = RNG.permutation(24).reshape(4, 6)
    f = tcc.function([x], [T.topk(x, 5, None), T.argtopk(x, -2, None, sorted=False)])
    values, where = f(a)
    np.testing.assert_array_equal(values, np.sort(a, None)[::-1][:5])
    np.testing.assert_array_equal(where, np.argsort(a, None)[:2])


def test_topk_of_a_variable_count() -> None:
    x, k = T.matrix("x", dtype="float32"), T.lscalar("k")
    f = tcc.function([x, k], T.topk(x, k, axis=1))
    for n in (1, 4, -3):
        np.testing.assert_array_equal(f(A[0], min(n, 3)), reference(A[0], min(n, 3), 1)[0])
    with pytest.raises(IndexError):
        f(A[0], 4)


def test_the_gradient_goes_to_what_was_taken() -> None:
    x = T.dmatrix("x")
    a = A[:, :, 0].astype("float64")
    cost = (T.topk(x, 2, axis=1) * np.array([3.0, 5.0])).sum()
    g = tcc.function([x], tcc.grad(cost, x))(a)
    want = np.zeros_like(a)
    _, where = reference(a, 2, 1)
    np.put_along_axis(want, where, np.array([[3.0, 5.0]]), 1)
    np.testing.assert_array_equal(g, want)
    tcc.verify_grad(lambda v: T.topk(v, -3, axis=0), [a], rng=np.random.RandomState(0))


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda x: T.topk(x, 0), ValueError, "kth cannot be zero"),
        (lambda x: T.topk(x, 1.5), TypeError, "kth must be an integer scalar"),
        (lambda x: T.topk(x, 2, axis=3), ValueError, "there is no axis 3"),
        (lambda x: T.topk(x, 2, idx_dtype="float32"), TypeError, "idx_dtype"),
        (lambda x: T.topk(x, 2, sorted=1), TypeError, "sorted"),
        (
            lambda x: T.topk(T.as_tensor_variable(np.zeros(3)), 4),
            ValueError,
            "larger than the size of axis 0, 3",
        ),
    ],
)
def test_errors_at_once(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(T.matrix("x"))


def test_too_few_elements_are_found_at_run_time() -> None:
    x = T.matrix("x", dtype="float32")
    f = tcc.function([x], T.topk(x, 5, axis=1).sum())
    assert f(A[:, :, 0]).shape == ()
    with pytest.raises(ValueError, match="fewer than 5"):
        f(A[:, :4, 0].copy())
