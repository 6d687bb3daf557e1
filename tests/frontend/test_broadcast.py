"""Broadcast flags are static: only flagged axes stretch."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T


def test_matrices_do_not_broadcast_at_run_time():
    x, y = T.fmatrices("x", "y")
    f = tcc.function([x, y], x + y)
    with pytest.raises(ValueError, match="Input dimension mis-match") as e:
        f(np.ones((2, 3), "float32"), np.ones((1, 3), "float32"))
    assert "test_broadcast.py" in str(e.value) and "Elemwise{add,no_inplace}" in str(e.value)
    assert "y, axis 0: its size is 1" in str(e.value)


def test_rows_and_columns_do():
    x = T.matrix("x")
    a = np.arange(6.0).reshape(2, 3)
    row, col = T.row("row"), T.col("col")
    f = tcc.function([x, row, col], x + row * col)
    assert np.array_equal(f(a, [[1, 2, 3]], [[1], [2]]), a + np.array([[1, 2, 3]]) * np.array([[1], [2]]))


def test_lower_ranks_are_padded_with_flagged_axes():
    x, v = T.matrix("x"), T.vector("v")
    f = tcc.function([x, v], x + v)
    assert f(np.ones((2, 3)), [1.0, 2, 3]).tolist() == [[2, 3, 4], [2, 3, 4]]
    with pytest.raises(ValueError):
        f(np.ones((2, 3)), [1.0])


@pytest.mark.parametrize(
    "make, flags",
    [
        (lambda x: T.TensorType("float32", (False, True))(), (False, True)),
        (lambda x: x[0].dimshuffle("x", 0), (True, False)),
        (lambda x: x[None, :], (True, False, False)),
        (lambda x: x[:, None], (False, True, False)),
        (lambda x: x.sum(axis=1, keepdims=True), (False, True)),
        (lambda x: x.reshape((1, -1)), (True, False)),
        (lambda x: T.zeros((1, 3)), (True, False)),
        (lambda x: T.constant(np.ones((1, 3))), (True, False)),
        (lambda x: T.as_tensor_variable(np.ones((1, 3))), (True, False)),
        (lambda x: T.addbroadcast(x, 0), (True, False)),
        (lambda x: T.patternbroadcast(x, (True, False)), (True, False)),
        (lambda x: T.row()[0:1], (True, False)),
        (lambda x: tcc.shared(np.ones((1, 3)), broadcastable=(True, False)), (True, False)),
        (lambda x: T.stack([x, x]), (False, False, False)),
        (lambda x: tcc.shared(np.ones((1, 3))), (False, False)),
        (lambda x: x[0:1], (False, False)),
        (lambda x: T.tile(x, (1, 1)), (False, False)),
        (lambda x: T.concatenate([T.row(), T.row()], axis=0), (False, False)),
    ],
)
def test_where_flags_come_from(make, flags):
    assert make(T.matrix("x")).broadcastable == flags


def test_dropping_an_axis_that_does_not_broadcast():
    with pytest.raises(ValueError) as e:
        T.matrix().dimshuffle(1)
    assert e.value.args == ("You cannot drop a non-broadcastable dimension.", ([False, False], (1,)))


def test_squeeze_drops_only_flagged_axes():
    assert T.squeeze(T.TensorType("float32", (True, False, True))()).ndim == 1
    assert T.squeeze(T.matrix()).ndim == 2
    with pytest.raises(TypeError):
        T.matrix().squeeze(0)


def test_a_value_that_is_not_of_size_1_on_a_flagged_axis():
    row = T.row("row", dtype="float64")
    f = tcc.function([row], row * 2)
    with pytest.raises(TypeError, match="Non-unit value on shape on a broadcastable dimension"):
        f(np.ones((2, 3)))


def test_a_new_flag_is_checked_at_run_time():
    x = T.matrix("x")
    f = tcc.function([x], T.addbroadcast(x, 0) + T.zeros((4, 3)))
    assert f(np.ones((1, 3))).shape == (4, 3)
    with pytest.raises(ValueError):
        f(np.ones((2, 3)))


def test_updates_must_match_in_flags():
    w = tcc.shared(np.ones((1, 3)), "w")
    with pytest.raises(TypeError, match="unbroadcast"):
        tcc.function([], [], updates=[(w, T.zeros((1, 3)))])
    tcc.function([], [], updates=[(w, T.unbroadcast(T.zeros((1, 3)), 0))])()
    assert not w.get_value().any()


def test_static_sizes_that_differ_are_an_error_when_built():
    x = T.matrix("x", shape=(None, 784))
    w = T.vector("w", shape=(10,))
    with pytest.raises(ValueError, match="784.*10|10.*784"):
        x + w


def test_static_sizes_are_checked_when_called():
    x = T.matrix("x", shape=(None, 3))
    f = tcc.function([x], x.sum())
    assert f(np.ones((2, 3))) == 6
    with pytest.raises(ValueError):
        f(np.ones((2, 4)))


def test_new_axes_in_front_and_matmul_are_allowed():
    x = T.matrix("x")
    assert x[None].broadcastable == (True, False, False)
    assert (x @ x).ndim == 2
    with pytest.raises(TypeError):
        len(x)
