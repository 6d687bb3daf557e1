"""Rop, jacobian, hessian, verify_grad, subgraph_grad."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.gradcheck import GradientError

RNG = np.random.default_rng(3)


def agrees_with_lop(y, wrt, values, points):
    """u . Rop(y, x, v) = Lop(y, x, u) . v"""
    u, vs = y.type(), [w.type() for w in wrt]
    right = tcc.Rop(y, wrt, vs)
    left = tcc.Lop(y, wrt, u)
    f = tcc.function([*wrt, u, *vs], [(u * right).sum(), sum((g * v).sum() for g, v in zip(left, vs))])
    weights = RNG.normal(size=tcc.function(wrt, y)(*values).shape)
    a, b = f(*values, weights, *points)
    np.testing.assert_allclose(a, b, rtol=1e-9)


def sample(*shapes):
    return [RNG.normal(size=s) * 0.6 for s in shapes], [RNG.normal(size=s) for s in shapes]


def test_products_and_elementwise():
    x, w = T.matrix(), T.matrix()
    agrees_with_lop(T.tanh(T.dot(x, w)) * T.exp(-x[:, 0]).dimshuffle(0, "x"), [x, w], *sample((3, 4), (4, 2)))


def test_rows_without_a_rule_go_by_their_gradients():
    x = T.matrix()
    agrees_with_lop(T.nnet.softmax(x) * T.cumsum(x, axis=1), [x], *sample((3, 4)))
    agrees_with_lop(T.max(x, axis=1) + T.prod(x, axis=1), [x], *sample((3, 4)))


def test_scan():
    x, h0, w, u = T.matrix(), T.vector(), T.matrix(), T.matrix()
    hs, _ = tcc.scan(lambda a, h: T.tanh(T.dot(a, w) + T.dot(h, u)), [x], [h0])
    agrees_with_lop(hs, [x, h0, w, u], *sample((5, 3), (4,), (3, 4), (4, 4)))


def test_ifelse():
    x = T.vector()
    for flag in (0, 1):
        agrees_with_lop(tcc.ifelse(T.constant(flag), T.sin(x), x**2), [x], *sample((3,)))


def test_what_rop_refuses():
    x, y = T.vector(), T.vector()
    with pytest.raises(tcc.gradient.DisconnectedInputError):
        tcc.Rop(y * 2, x, x)
    assert tcc.Rop(y * 2, x, x, disconnected_outputs="ignore").eval({y: [1.0]}).tolist() == [0]
    with pytest.raises(ValueError, match="mismatched dimensionality"):
        tcc.Rop(x, x, T.matrix())


def test_jacobian_of_a_length_that_varies():
    x, w = T.vector(), T.matrix()
    jx, jw = tcc.jacobian(T.tanh(T.dot(x, w)), [x, w])
    f = tcc.function([x, w], [jx, jw])
    for m, n in ((3, 2), (2, 1), (1, 4)):
        v, a = RNG.normal(size=m), RNG.normal(size=(m, n))
        slope = 1 - np.tanh(v @ a) ** 2
        got, other = f(v, a)
        np.testing.assert_allclose(got, slope[:, None] * a.T)
        np.testing.assert_allclose(other, np.einsum("j,i,jk->jik", slope, v, np.eye(n)))
    assert isinstance(tcc.jacobian(x * 2, (x,)), tuple)
    with pytest.raises(TypeError, match="1 dimensional"):
        tcc.jacobian(w, w)


def test_hessian():
    x, a = T.vector(), T.matrix()
    h = tcc.hessian((T.dot(x, T.dot(a, x))) + (x**3).sum(), x)
    v, m = RNG.normal(size=3), RNG.normal(size=(3, 3))
    np.testing.assert_allclose(tcc.function([x, a], h)(v, m), m + m.T + np.diag(6 * v))
    assert tcc.hessian(x.sum(), x).eval({x: v}).tolist() == np.zeros((3, 3)).tolist()
    with pytest.raises(TypeError, match="1 dimensional"):
        tcc.hessian(a.sum(), a)


def test_hessian_through_scan():
    x = T.vector()
    hs, _ = tcc.scan(lambda a, h: h * a, [x], [T.ones(())])
    made = tcc.hessian(hs[-1], x).eval({x: [2.0, 3.0, 5.0]})
    np.testing.assert_allclose(made, [[0, 5, 3], [5, 0, 2], [3, 2, 0]])


def test_verify_grad():
    rng = np.random.RandomState(0)
    tcc.verify_grad(lambda x, y: T.exp(x) * y, [rng.rand(2, 3), rng.rand(2, 3)], rng=rng)
    wrong = lambda x: tcc.gradient.grad_scale(x, 3.0) ** 2  # noqa: E731
    with pytest.raises(GradientError, match="by argument 0"):
        tcc.verify_grad(wrong, [rng.rand(3) + 1], rng=rng)
    with pytest.raises(TypeError, match="floating point"):
        tcc.verify_grad(wrong, [np.arange(3)], rng=rng)


def test_subgraph_grad():
    x, w1, w2 = T.vector(), T.scalar(), T.scalar()
    middle = T.tanh(w1 * x)
    cost = (w2 * middle).sum() ** 2
    (g2,), upper = tcc.subgraph_grad([w2], [middle], cost=cost)
    (g1,), (gx,) = tcc.subgraph_grad([w1], [x], start=dict(zip([middle], upper)))
    whole = tcc.grad(cost, [w1, w2, x])
    f = tcc.function([x, w1, w2], [g1, g2, gx, *whole])
    made = f([0.5, -1.0], 2.0, 3.0)
    for a, b in zip(made[:3], made[3:]):
        np.testing.assert_allclose(a, b)
    behind, _ = tcc.subgraph_grad([w1], [middle], cost=cost)  # all of w1's share flows through the end
    assert behind[0].eval({w1: 2.0}) == 0
    with pytest.raises(ValueError, match="must be specified"):
        tcc.subgraph_grad([w1], [x])


def test_a_function_may_take_what_a_derivative_does_not_read():
    w, v, x = T.dmatrix("w"), T.dmatrix("v"), T.dvector("x")
    along = T.Rop(T.dot(x, w), w, v)
    for inputs, values in (([w, v, x], [[[1, 1], [1, 1]]]), ([v, x], [])):  # theano's tutorial takes w
        assert tcc.function(inputs, along)(*values, [[2, 2], [2, 2]], [0, 1]).tolist() == [2, 2]
    product = tcc.OpFromGraph([x, w], [T.dot(x, w)])
    one, d = T.dvector("one"), T.dvector("d")
    f = tcc.function([one, w, d], 2 * T.Rop(product(one, w), one, d))
    assert f([9, 9], [[1, 2], [3, 4]], [1, 1]).tolist() == [8, 12]
    with pytest.raises(tcc.compiling.UnusedInputError):
        tcc.function([v, x, w, d], along)
