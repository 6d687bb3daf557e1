"""T.nnet against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T

X = np.array([[-3.0, -1, 0, 0.5, 2.0], [1000, 0, -1000, 1, 2]])


def run(f, value=X):
    x = T.tensor("float64", (False,) * value.ndim)
    return f(x).eval({x: value})


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_softmax():
    np.testing.assert_allclose(run(T.nnet.softmax), softmax(X))
    np.testing.assert_allclose(run(T.nnet.logsoftmax, X[:1]), np.log(softmax(X[:1])))


def test_a_vector_gives_a_row():
    y = T.nnet.softmax(T.vector())
    assert y.broadcastable == (True, False)


def test_softmax_takes_vectors_and_matrices_of_floats():
    with pytest.raises(ValueError):
        T.nnet.softmax(T.tensor3())
    with pytest.raises(ValueError):
        T.nnet.softmax(T.imatrix())


@pytest.mark.parametrize("axis", (-1, 0, 1, -3))
def test_softmax_along_an_axis(axis):
    x = np.random.default_rng(0).normal(size=(3, 5, 4))
    e = np.exp(x - x.max(axis, keepdims=True))
    wanted = e / e.sum(axis, keepdims=True)
    np.testing.assert_allclose(run(lambda v: T.nnet.softmax(v, axis=axis), x), wanted)
    np.testing.assert_allclose(run(lambda v: T.nnet.logsoftmax(v, axis=axis), x), np.log(wanted))
    T.verify_grad(lambda v: T.nnet.softmax(v, axis=axis), [x], rng=np.random.RandomState(1))


def test_softmax_says_how_to_take_more_axes_and_which_there_are():
    with pytest.raises(ValueError, match=r"softmax\(x, axis=-1\)"):
        T.nnet.softmax(T.tensor3())
    with pytest.raises(ValueError, match="2 axes, got axis=2"):
        T.nnet.softmax(T.matrix(), axis=2)


def test_pointwise():
    v = X[0]
    np.testing.assert_allclose(run(T.nnet.sigmoid, v), 1 / (1 + np.exp(-v)))
    np.testing.assert_allclose(run(T.nnet.softplus, v), np.log1p(np.exp(v)))
    np.testing.assert_allclose(run(T.nnet.hard_sigmoid, v), np.clip(0.2 * v + 0.5, 0, 1), atol=1e-7)
    assert np.abs(run(T.nnet.ultra_fast_sigmoid, v) - 1 / (1 + np.exp(-v))).max() < 0.03
    np.testing.assert_allclose(run(T.nnet.relu, v), np.maximum(v, 0))
    np.testing.assert_allclose(run(lambda x: T.nnet.relu(x, 0.1), v), np.where(v > 0, v, 0.1 * v))
    np.testing.assert_allclose(
        run(lambda x: T.nnet.relu(x, T.constant(v * 0 + 0.25)), v), np.where(v > 0, v, 0.25 * v)
    )
    np.testing.assert_allclose(run(T.nnet.elu, v), np.where(v > 0, v, np.expm1(v)))
    np.testing.assert_allclose(run(T.nnet.softsign, v), v / (1 + abs(v)))


def test_crossentropy_with_class_numbers():
    p = softmax(X[:1].repeat(3, 0))
    t = np.array([0, 2, 4])
    x = T.matrix("x")
    y = T.ivector("y")
    f = tcc.function([x, y], T.nnet.categorical_crossentropy(x, y))
    np.testing.assert_allclose(f(p, t.astype("int32")), -np.log(p[np.arange(3), t]))
    with pytest.raises(IndexError):
        f(p, np.array([0, 2, 5], "int32"))


def test_crossentropy_with_distributions():
    p = softmax(X[:1].repeat(2, 0))
    t = softmax(X[:1].repeat(2, 0) * 2)
    x, y = T.matrices("x", "y")
    made = T.nnet.categorical_crossentropy(x, y).eval({x: p, y: t})
    np.testing.assert_allclose(made, -(t * np.log(p)).sum(-1))


def test_other_ranks_are_refused():
    with pytest.raises(TypeError, match="rank mismatch between coding and true distributions"):
        T.nnet.categorical_crossentropy(T.matrix(), T.tensor3())


def test_binary_crossentropy_is_not_clipped():
    p, t = T.vectors("p", "t")
    made = T.nnet.binary_crossentropy(p, t).eval({p: [0.0, 0.5], t: [1.0, 1.0]})
    assert np.isinf(made[0]) and np.isclose(made[1], np.log(2))


def test_log_of_softmax_picked_by_class():
    x, y = T.matrix("x"), T.ivector("y")
    cost = -T.mean(T.log(T.nnet.softmax(x))[T.arange(y.shape[0]), y])
    f = tcc.function([x, y], [cost, tcc.grad(cost, x)])
    value, slope = f(X[:1].repeat(2, 0), np.array([1, 3], "int32"))
    p = softmax(X[:1])[0]
    np.testing.assert_allclose(value, -(np.log(p[1]) + np.log(p[3])) / 2)
    onehot = np.zeros((2, 5))
    onehot[[0, 1], [1, 3]] = 1
    np.testing.assert_allclose(slope, (p - onehot) / 2, atol=1e-12)


def test_products_of_ranks():
    rng = np.random.default_rng(0)
    a = {k: rng.normal(size=(2, 3, 4, 3)[:k] if k < 3 else (2, 4, 3)) for k in (1, 2, 3)}
    v, w = T.vectors("v", "w")
    assert T.dot(v, w).eval({v: [1.0, 2], w: [3.0, 4]}) == 11
    assert T.dot(T.tensor3(), T.tensor3()).ndim == 4
    x, y = T.tensor3("x"), T.tensor3("y")
    b = rng.normal(size=(5, 3, 2))
    np.testing.assert_allclose(T.dot(x, y).eval({x: a[3], y: b}), np.tensordot(a[3], b, ([-1], [-2])))
    assert T.dot(2.0, v).eval({v: [1.0]}) == 2
    m = T.matrix("m")
    np.testing.assert_allclose(T.dot(m, v).eval({m: a[2], v: [1.0, 2, 3]}), a[2] @ [1, 2, 3])
    np.testing.assert_allclose(T.dot(v, m).eval({m: a[2], v: [1.0, 2]}), [1, 2] @ a[2])


def test_batched_products():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 2, 4)), rng.normal(size=(3, 4, 5))
    x, y = T.tensor3("x"), T.tensor3("y")
    np.testing.assert_allclose(T.batched_dot(x, y).eval({x: a, y: b}), a @ b)
    np.testing.assert_allclose(T.batched_tensordot(x, y, [[2], [1]]).eval({x: a, y: b}), a @ b)
    m, n = T.matrix("m"), T.matrix("n")
    made = T.batched_dot(m, n)
    assert made.ndim == 1
    np.testing.assert_allclose(made.eval({m: a[0], n: a[1]}), (a[0] * a[1]).sum(1))
    np.testing.assert_allclose(T.matmul(x, y).eval({x: a, y: b}), a @ b)
    t = T.tensor4("t")
    c = rng.normal(size=(2, 3, 4, 5))
    np.testing.assert_allclose(
        T.tensordot(t, y, [[1, 2], [0, 1]]).eval({t: c, y: b}), np.tensordot(c, b, ([1, 2], [0, 1]))
    )
    np.testing.assert_allclose(
        T.tensordot(x, x[0].T[:, :1].dimshuffle("x", 0, 1)[:0:-1], 0).eval({x: a}),
        np.tensordot(a, a[0].T[:, :1][None][:0:-1], 0),
    )
    assert T.outer(x[0], [1.0, 2.0]).eval({x: a}).shape == (8, 2)


@pytest.mark.parametrize("labels", [1, 3])
def test_there_is_one_label_for_each_row(labels):
    x, y = T.matrix("x"), T.ivector("y")
    f = tcc.function([x, y], T.nnet.categorical_crossentropy(T.nnet.softmax(x), y))
    with pytest.raises(ValueError, match=f"y, axis 0: its size is {labels}, wanted 2, the size of x, axis 0"):
        f(np.zeros((2, 3)), np.zeros(labels, "int32"))
