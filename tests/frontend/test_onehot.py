"""Cross-entropies with class numbers, blocks of weights, and the hierarchical softmax."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.tensor import nnet

RNG = np.random.RandomState(2)
X, B, Y = RNG.normal(size=(4, 3)), RNG.normal(size=3), np.array([0, 2, 1, 2])


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_cross_entropy_softmax_and_argmax() -> None:
    x, b, y = T.dmatrix("x"), T.dvector("b"), T.ivector("y")
    cost, p, best = nnet.crossentropy_softmax_argmax_1hot_with_bias(x, b, y)
    assert best.dtype == "int32"
    got = tcc.function([x, b, y], [cost, p, best])(X, B, Y.astype(np.int32))
    wanted = softmax(X + B)
    np.testing.assert_allclose(got[0], -np.log(wanted[np.arange(4), Y]))
    np.testing.assert_allclose(got[1], wanted)
    np.testing.assert_array_equal(got[2], wanted.argmax(1))
    for k in (0, 1):
        tcc.verify_grad(
            lambda x, b, k=k: nnet.crossentropy_softmax_1hot_with_bias(x, b, Y)[k], [X, B], rng=RNG
        )
    dx = nnet.crossentropy_softmax_1hot_with_bias_dx(T.ones_like(cost) / 4, p, y)
    f = tcc.function([x, b, y], [dx, tcc.grad(cost.mean(), x)])
    np.testing.assert_allclose(*f(X, B, Y.astype(np.int32)), rtol=1e-12)
    four = nnet.crossentropy_softmax_max_and_argmax_1hot(x, y)
    got = tcc.function([x, y], list(four))(X, Y.astype(np.int32))
    np.testing.assert_allclose(got[2], softmax(X).max(1))
    np.testing.assert_array_equal(got[3], X.argmax(1))
    for wrong in [(T.lmatrix(), b, y), (x, T.dmatrix(), y), (x, b, T.dvector())]:
        with pytest.raises(ValueError):
            nnet.crossentropy_softmax_argmax_1hot_with_bias(*wrong)
    gradient = nnet.crossentropy_softmax_1hot_with_bias_dx(b, x, y)
    for f, given in (
        (tcc.function([x, b, y], cost), [X, B]),
        (tcc.function([b, x, y], gradient), [X[:, 0], X]),
    ):
        with pytest.raises(ValueError, match="negative class numbers"):
            f(*given, np.array([0, -1, 1, 0], "int32"))
        with pytest.raises(IndexError, match="index 9 is out of bounds"):
            f(*given, np.array([0, 9, 1, 0], "int32"))


def test_gradients_as_functions() -> None:
    x, y, g = T.dmatrix("x"), T.lvector("y"), T.dvector("g")
    p = nnet.softmax(x)
    cost = (nnet.crossentropy_categorical_1hot(p, y) * g).sum()
    made = [nnet.crossentropy_categorical_1hot_grad(g, p, y), tcc.grad(cost, p)]
    made += [nnet.softmax_grad(made[0], p), tcc.grad(cost, x)]
    a, b, c, d = tcc.function([x, y, g], made)(X, Y, np.arange(4.0))
    np.testing.assert_allclose(a, b)
    np.testing.assert_allclose(c, d, atol=1e-15)


def test_columns_in_front_and_confusion() -> None:
    x, v = T.dmatrix("x"), T.dscalar("v")
    got = tcc.function([x, v], [nnet.prepend_scalar_to_each_row(v, x), nnet.prepend_1_to_each_row(x)])(X, 7)
    np.testing.assert_array_equal(got[0], np.column_stack([np.full(4, 7), X]))
    np.testing.assert_array_equal(got[1], np.column_stack([np.ones(4), X]))
    assert nnet.prepend_0_to_each_row(x).eval({x: np.zeros((0, 2))}).shape == (0, 3)
    a, p = T.lvectors("a", "p")
    matrix, order = tcc.function([a, p], nnet.confusion_matrix(a, p))([2, 0, 2, 2, 0, 1], [0, 0, 2, 2, 0, 2])
    assert matrix.tolist() == [[2, 0, 0], [0, 0, 1], [1, 0, 2]] and order.tolist() == [0, 1, 2]


def test_hierarchical_softmax() -> None:
    x, w1, b1 = RNG.normal(size=(5, 4)), RNG.normal(size=(4, 3)), RNG.normal(size=3)
    w2, b2 = RNG.normal(size=(3, 4, 2)), RNG.normal(size=(3, 2))
    target = np.array([0, 4, 2, 3, 1])
    classes = softmax(x @ w1 + b1)
    inside = softmax(np.einsum("bi,cio->bco", x, w2) + b2)
    wanted = (classes[:, :, None] * inside).reshape(5, 6)[:, :5]
    v, t = T.dmatrix("v"), T.lmatrix("t")
    whole = nnet.h_softmax(v, v.shape[0], 5, 3, 2, w1, b1, w2, b2)
    np.testing.assert_allclose(tcc.function([v], whole)(x), wanted)
    one = nnet.h_softmax(v, v.shape[0], 5, 3, 2, w1, b1, w2, b2, t)
    np.testing.assert_allclose(tcc.function([v, t], one)(x, target[:, None]), wanted[np.arange(5), target])

    def cost(*args: Any) -> Any:
        return nnet.h_softmax(args[0], 5, 5, 3, 2, *args[1:], target)

    tcc.verify_grad(cost, [x, w1, b1, w2, b2], rng=RNG)


def test_blocks() -> None:
    w, h, b = RNG.normal(size=(3, 4, 2, 5)), RNG.normal(size=(2, 2, 2)), RNG.normal(size=(4, 5))
    rows, columns = np.array([[0, 2], [1, 1]]), np.array([[3, 0, 1], [2, 2, 0]])
    wanted = b[columns] + np.einsum("bik,bijkl->bjl", h, w[rows[:, :, None], columns[:, None]])
    np.testing.assert_allclose(nnet.sparse_block_dot(w, h, rows, b, columns).eval(), wanted)
    np.testing.assert_allclose(nnet.sparse_block_dot(w, h[0], rows[0], b, columns[0]).eval(), wanted[:1])
    tcc.verify_grad(lambda w, h, b: nnet.sparse_block_dot(w, h, rows, b, columns), [w, h, b], rng=RNG)
    y = RNG.normal(size=(2, 3, 5))
    outer = nnet.blocksparse.sparse_block_outer(w, h, y, rows, columns, alpha=0.5).eval()
    expected = w.copy()
    np.add.at(expected, (rows[:, :, None], columns[:, None]), 0.5 * np.einsum("bik,bjl->bijkl", h, y))
    np.testing.assert_allclose(outer, expected)


@pytest.mark.parametrize("mode", ["valid", "full"])
def test_convolution_in_the_older_order_of_axes(mode: str) -> None:
    signal = pytest.importorskip("scipy.signal")
    x, w = RNG.normal(size=(1, 4, 2, 5, 6)), RNG.normal(size=(3, 2, 2, 3, 2))
    got = nnet.conv3d2d.conv3d(x, w, border_mode=mode).eval()
    wanted = [sum(signal.convolve(x[0, :, c], w[f, :, c], mode=mode) for c in range(2)) for f in range(3)]
    np.testing.assert_allclose(got[0], np.stack(wanted, 1), rtol=1e-10)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_labels_are_used_by_whichever_result_is_asked_for(number: int, dtype: str) -> None:
    x, b, y = T.matrix("x"), T.vector("b"), T.vector("y", dtype=dtype)
    made = nnet.crossentropy_softmax_argmax_1hot_with_bias(x, b, y)[number]
    wanted = softmax(X + B) if number == 1 else (X + B).argmax(1)
    np.testing.assert_allclose(tcc.function([x, b, y], made)(X, B, Y.astype(dtype)), wanted)
