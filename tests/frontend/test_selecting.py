"""Masks, `nonzero`, and slices whose step is a variable."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T

A = np.arange(60.0).reshape(3, 4, 5)
RNG = np.random.default_rng(0)
MASKS = {1: RNG.random(3) < 0.6, 2: RNG.random((3, 4)) < 0.5, 3: RNG.random((3, 4, 5)) < 0.3}
ROWS = RNG.random(4) < 0.5
INDICES = {
    "vector": (MASKS[1], lambda m: (m,)),
    "matrix": (MASKS[2], lambda m: (m,)),
    "all axes": (MASKS[3], lambda m: (m,)),
    "matrix and slice": (MASKS[2], lambda m: (m, slice(1, 3))),
    "behind": (ROWS, lambda m: (slice(None), m)),
    "beside a position": (MASKS[1], lambda m: (m, 1)),
    "among others": (ROWS, lambda m: (slice(None), m, None, 2)),
    "dots": (RNG.random(5) < 0.5, lambda m: (..., m)),
    "nothing": (np.zeros(3, bool), lambda m: (m,)),
    "everything": (np.ones((3, 4), bool), lambda m: (m,)),
}


def mask_like(value):
    return T.TensorType("bool", (False,) * value.ndim)("m")


@pytest.mark.parametrize("name", INDICES)
def test_reading_by_a_mask(name):
    value, index = INDICES[name]
    x, m = T.tensor3("x"), mask_like(value)
    made = tcc.function([x, m], x[index(m)])(A, value)
    assert made.shape == A[index(value)].shape and np.array_equal(made, A[index(value)])


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.parametrize("write, mode", [(T.set_subtensor, "set"), (T.inc_subtensor, "add")])
@pytest.mark.parametrize("scalar", [True, False])
def test_writing_by_a_mask(name, write, mode, scalar):
    value, index = INDICES[name]
    x, m = T.tensor3("x"), mask_like(value)
    part = A[index(value)]
    new = -1.5 if scalar else -RNG.random(part.shape)
    wanted = A.copy()
    if mode == "set":
        wanted[index(value)] = new
    else:
        wanted[index(value)] += new
    assert np.array_equal(tcc.function([x, m], write(x[index(m)], new))(A, value), wanted)


def test_a_mask_of_the_array_itself():
    x = T.tensor3("x")
    cost = (x[x > 20] ** 2).sum()
    value, by_x = tcc.function([x], [cost, T.grad(cost, x)])(A)
    assert value == (A[A > 20] ** 2).sum() and np.array_equal(by_x, np.where(A > 20, 2 * A, 0))


def test_gradient_through_a_masked_write():
    x, m = T.tensor3("x"), T.TensorType("bool", (False,))("m")
    cost = (T.set_subtensor(x[m], x[m] * 3.0) ** 2).sum()
    wanted = np.where(MASKS[1][:, None, None], 18 * A, 2 * A)
    np.testing.assert_allclose(tcc.function([x, m], T.grad(cost, x))(A, MASKS[1]), wanted)


def test_one_mask_selects_the_same_number_from_two_arrays():
    x, y, m = T.vector("x"), T.vector("y"), T.TensorType("bool", (False,))("m")
    f = tcc.function([x, y, m], x[m] * y[m])
    assert f([1, 2, 3], [4, 5, 6], np.array([True, False, True])).tolist() == [4, 18]
    assert f([1, 2], [4, 5], np.zeros(2, bool)).shape == (0,)


def test_a_mask_of_another_size_is_an_error():
    x, m = T.tensor3("x"), T.TensorType("bool", (False,))("m")
    with pytest.raises((IndexError, ValueError), match="mis-match"):
        tcc.function([x, m], x[m])(A, np.ones(7, bool))
    with pytest.raises(IndexError, match="boolean index did not match"):
        T.matrix("y", shape=(3, 2))[T.TensorType("bool", shape=(4,))("n")]
    with pytest.raises(IndexError, match="too many indices"):
        T.vector("y")[T.TensorType("bool", (False, False))("n")]


@pytest.mark.parametrize("start", [None, 0, 1, -1, 9, -9])
@pytest.mark.parametrize("stop", [None, 0, 2, -1, 9, -9])
def test_a_step_may_be_a_variable(start, stop):
    x, s = T.tensor3("x"), T.lscalar("s")
    f = tcc.function(
        [x, s], [x[:, start:stop:s], T.set_subtensor(x[:, start:stop:s], 7.0), x[0, start:stop:s, 1]]
    )
    for step in (1, 2, 3, -1, -2, -7):
        written = A.copy()
        written[:, start:stop:step] = 7
        wanted = [A[:, start:stop:step], written, A[0, start:stop:step, 1]]
        assert all(map(np.array_equal, f(A, step), wanted)), step


def test_gradient_through_a_variable_step():
    x, s = T.tensor3("x"), T.lscalar("s")
    wanted = np.zeros_like(A)
    wanted[:, ::-2] = 2 * A[:, ::-2]
    made = tcc.function([x, s], T.grad((x[:, ::s] ** 2).sum(), x))(A, -2)
    assert np.array_equal(made, wanted)


@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (3, 4), (2, 0, 3), (2, 3, 4)])
def test_nonzero_is_numpys(shape):
    value = RNG.integers(-1, 2, shape).astype(float)
    x = T.TensorType("float64", (False,) * len(shape))("x")
    *each, matrix, flat, values = tcc.function(
        [x], [*x.nonzero(), x.nonzero(return_matrix=True), T.flatnonzero(x), T.nonzero_values(x)]
    )(value)
    for made, wanted in zip(each, value.nonzero()):
        assert made.dtype == np.int64 and np.array_equal(made, wanted)
    assert np.array_equal(matrix, np.stack(value.nonzero()))
    assert np.array_equal(flat, np.flatnonzero(value))
    assert np.array_equal(values, value[value.nonzero()])


def test_nonzero_wants_an_axis():
    with pytest.raises(ValueError, match="non-scalar"):
        T.nonzero(T.scalar("x"))


def test_masks_inside_scan():
    x = T.matrix("x")
    sums, _ = tcc.scan(lambda row: row[row > 2].sum(), sequences=[x])
    assert tcc.function([x], sums)(np.arange(6.0).reshape(2, 3)).tolist() == [0, 12]
