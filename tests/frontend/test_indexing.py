"""Indexing reads and writes what NumPy does."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T

A = np.arange(60.0).reshape(3, 4, 5)
INDICES = {
    "int": 1,
    "negative": -1,
    "slice": slice(1, 3),
    "step": slice(None, None, 2),
    "backwards": slice(None, None, -1),
    "backwards from": slice(1, None, -1),
    "backwards by two": slice(-1, 0, -2),
    "beyond": slice(2, 100),
    "far negative": slice(-100, 2),
    "empty": slice(2, 1),
    "from the end": slice(-2, None),
    "to the end": slice(None, -1),
    "tuple": (0, slice(1, 3), -2),
    "none": (slice(None), None, 2),
    "dots": (..., 0),
    "middle dots": (0, ..., slice(1, 2)),
    "list": [0, 2],
    "list of lists": [[0, 2], [1, 1]],
    "negative list": [-1, 0],
    "pairs": ([0, 1, 2], [1, 0, 3]),
    "apart": ([0, 1], slice(None), [2, 3]),
    "behind": (slice(None), [0, 3]),
    "behind a slice": (slice(1, None), [[0, 3], [1, 1]], slice(None, None, 2)),
    "int and list": (1, slice(None), [0, 2]),
    "int beside list": (slice(None), 1, [0, 2]),
    "broadcast arrays": ([[0], [1]], [0, 3]),
    "mask": A[:, 0, 0] > 5,
    "full mask": A > 30,
    "new axis and list": (None, [1, 2]),
    "empty list": [],
}


@pytest.mark.parametrize("name", INDICES)
def test_reading(name):
    x = T.tensor3("x")
    index = INDICES[name]
    made = tcc.function([x], x[index])(A)
    assert made.shape == A[index].shape and np.array_equal(made, A[index])


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.parametrize("write, mode", [(T.set_subtensor, "set"), (T.inc_subtensor, "add")])
def test_writing(name, write, mode):
    x = T.tensor3("x")
    index = INDICES[name]
    value = -np.arange(float(A[index].size)).reshape(A[index].shape) - 1
    expected = A.copy()
    if mode == "set":
        expected[index] = value
    else:
        np.add.at(expected, index, value)
    assert np.array_equal(tcc.function([x], write(x[index], value))(A), expected)


@pytest.mark.parametrize("static", [False, True])
def test_static_sizes_say_the_same(static):
    x = T.tensor3("x", shape=A.shape if static else None)
    for name, index in INDICES.items():
        made = x[index]
        assert np.array_equal(tcc.function([x], made)(A), A[index]), name


@pytest.mark.parametrize("start", [None, 0, 1, 3, -2, -9, 9])
@pytest.mark.parametrize("stop", [None, 0, 2, 3, -1, -9, 9])
@pytest.mark.parametrize("step", [1, 2, -1, -2])
def test_symbolic_bounds_clip_as_python_does(start, stop, step):
    x = T.vector("x")
    a, b = T.lscalar("a"), T.iscalar("b")
    v = np.arange(5.0)
    index = slice(None if start is None else a, None if stop is None else b, step)
    f = tcc.function([x, a, b], x[index], on_unused_input="ignore")
    assert f(v, start or 0, stop or 0).tolist() == v[start:stop:step].tolist()
    assert tcc.function([x], x[start:stop:step])(v).tolist() == v[start:stop:step].tolist()


def test_steps_and_bounds_near_the_end_of_64_bits():
    x, far = T.dmatrix("x"), 2**63 - 1
    slices = slice(None, None, far), slice(None, None, -far - 1), slice(1, far, far), slice(far, -far, -far)
    f = tcc.function([x], [x[s, 1:] for s in slices])
    for rows in (3, 5, 0):
        v = np.arange(4.0 * rows).reshape(rows, 4)
        for got, s in zip(f(v), slices, strict=True):
            np.testing.assert_array_equal(got, v[s, 1:])


def test_symbolic_positions():
    x, i = T.matrix("x"), T.iscalar("i")
    f = tcc.function([x, i], [x[i], x[:, i], x[i, i], x[i, 1:]])
    row, column, one, rest = f(A[0], -1)
    assert np.array_equal(row, A[0, -1]) and np.array_equal(column, A[0, :, -1])
    assert one == A[0, -1, -1] and np.array_equal(rest, A[0, -1, 1:])
    for bad in (4, -5):
        with pytest.raises(IndexError):
            f(A[0], bad)


def test_a_shared_variable_as_an_index():
    i = tcc.shared(2)
    x = T.matrix("x")
    f = tcc.function([x], x[:, i])
    assert np.array_equal(f(A[0]), A[0, :, 2])
    i.set_value(0)
    assert np.array_equal(f(A[0]), A[0, :, 0])


def test_lookup_by_a_matrix_of_indices():
    w, i = T.matrix("w"), T.imatrix("i")
    made = w[i]
    assert made.ndim == 3
    assert np.array_equal(made.eval({w: A[0], i: [[0, 1], [2, 2]]}), A[0][[[0, 1], [2, 2]]])
    assert T.tensor3()[i].ndim == 4


def test_index_arrays_out_of_range():
    w, i = T.matrix("w"), T.ivector("i")
    with pytest.raises(IndexError):
        w[i].eval({w: A[0], i: [0, 4]})


def test_pairs_need_one_length():
    w, i, j = T.matrix("w"), T.lvector("i"), T.lvector("j")
    with pytest.raises(ValueError):
        w[i, j].eval({w: A[0], i: [0, 1], j: [0, 1, 2]})


def test_repeated_indices_add_up():
    x = T.vector("x")
    assert T.inc_subtensor(x[[0, 0]], 1).eval({x: [1.0, 1.0]}).tolist() == [3, 1]


def test_values_broadcast_and_take_the_dtype_of_the_whole():
    x = T.fmatrix("x")
    zero = np.zeros((2, 3), "float32")
    made = T.set_subtensor(x[:, 1:], np.float64(0.1) * T.ones((2,)).dimshuffle(0, "x"))
    assert made.dtype == "float32" and made.type == x.type
    assert made.eval({x: zero})[:, 1:].tolist() == [[np.float32(0.1)] * 2] * 2
    with pytest.raises(TypeError):
        T.set_subtensor(x[0], T.matrix())


def test_writing_through_views():
    x = T.matrix("x")
    a = A[0]
    expected = a.copy()
    expected[1:3] = np.arange(10.0).reshape(5, 2).T
    assert np.array_equal(T.set_subtensor(x[1:3].T, np.arange(10.0).reshape(5, 2)).eval({x: a}), expected)
    expected = a.copy()
    expected[1:3] = np.arange(10.0).reshape(2, 5)
    assert np.array_equal(T.set_subtensor(x[1:3].flatten(), np.arange(10.0)).eval({x: a}), expected)
    row = a[0].copy()
    row[1] = 7
    assert np.array_equal(T.set_subtensor(x[0][1], 7).eval({x: a}), row)
    with pytest.raises(TypeError, match="subtensor"):
        T.set_subtensor(x, 1)


def test_indices_must_be_integers():
    x = T.matrix("x")
    for bad in (1.0, T.scalar(), T.vector(), True):
        with pytest.raises(TypeError, match="index must be integers"):
            x[bad]
    with pytest.raises(IndexError, match="too many indices"):
        x[0, 0, 0]


def test_a_list_of_slices_is_a_tuple():
    x = T.matrix("x")
    assert np.array_equal(x[[slice(1, 2), slice(None)]].eval({x: A[0]}), A[0][1:2])


def test_sizes_of_parts_of_a_shape():
    x = T.tensor3("x")
    assert x.shape[1].eval({x: A}) == 4
    assert x.shape[1:].eval({x: A}).tolist() == [4, 5]
    assert x.shape[-1].eval({x: A}) == 5
    assert x.reshape((x.shape[0], -1)).eval({x: A}).shape == (3, 20)
    beyond = x.shape[3]  # Theano's programs build such graphs before they look at ranks
    with pytest.raises(IndexError):
        beyond.eval({x: A})


def test_take():
    x = T.matrix("x")
    i = T.lvector("i")
    a = A[0]
    assert np.array_equal(T.take(x, i, axis=1).eval({x: a, i: [0, 2]}), a.take([0, 2], 1))
    assert np.array_equal(x.take(i).eval({x: a, i: [0, 7]}), a.take([0, 7]))
    for mode in ("clip", "wrap"):
        assert np.array_equal(x.take(i, 0, mode).eval({x: a, i: [0, 9]}), a.take([0, 9], 0, mode=mode))


def test_an_element_of_a_constant_keeps_its_dtype() -> None:
    x, c = T.ivector("x"), T.constant(np.array([3, 4], "int32"))
    got = tcc.function([x], x + c[1])(np.array([1, 2], "int32"))
    assert got.dtype == "int32" and got.tolist() == [5, 6]


def test_writing_through_an_added_axis():
    x, y = T.vector("x"), T.matrix("y")
    f = tcc.function([x, y], T.set_subtensor(x[1:].dimshuffle("x", 0), y))
    assert f(np.zeros(3), [[1, 2]]).tolist() == [0, 1, 2]
    with pytest.raises(ValueError):
        f(np.zeros(3), [[1, 2], [3, 4]])


def test_writing_in_a_vector_of_scalars():
    a, b = T.scalars("a", "b")
    v = T.stack([a, b])
    made = [T.set_subtensor(v[:1], a + b), T.inc_subtensor(v[1:], 5.0), T.set_subtensor(v[1], a)]
    assert [m.tolist() for m in tcc.function([a, b], made)(1, 2)] == [[3, 2], [1, 7], [1, 1]]


def test_gradient_of_setting_a_place_twice():
    """By the new values, every one of them counts, though only the last is there: as in Theano."""
    x, y, i = T.dvector("x"), T.dvector("y"), T.lvector("i")
    cost = (T.set_subtensor(x[i], y) * np.arange(1.0, 5)).sum()
    by_x, by_y = tcc.function([x, y, i], tcc.grad(cost, [x, y]))(np.zeros(4), np.ones(3), [1, 1, 2])
    np.testing.assert_array_equal(by_x, [1, 0, 0, 4])
    np.testing.assert_array_equal(by_y, [2, 2, 3])


@pytest.mark.parametrize("op", [T.set_subtensor, T.inc_subtensor])
def test_what_is_written_has_one_element_along_a_new_axis(op):
    """Its type need not say so: the call checks."""
    x, i, v = T.tensor3("x"), T.lvector("i"), T.tensor4("v")
    whole, at = np.arange(120.0).reshape(4, 5, 6), np.array([3, 0])
    for cut, shape in ((lambda a, k: a[k, None], (2, 1, 5, 6)), (lambda a, k: a[1:3, :, None], (2, 5, 1, 6))):
        f = tcc.function([x, i, v], op(cut(x, i), v), on_unused_input="ignore")
        value, part = (
            np.random.default_rng(0).normal(size=shape),
            cut(np.arange(120).reshape(4, 5, 6), at).ravel(),
        )
        wanted = whole.copy().ravel()
        wanted[part] = value.ravel() + (wanted[part] if op is T.inc_subtensor else 0)
        np.testing.assert_array_equal(f(whole, at, value), wanted.reshape(whole.shape))
        with pytest.raises(ValueError, match="its size is 3, wanted 1"):
            f(whole, at, np.repeat(value, 3, axis=shape.index(1)))
