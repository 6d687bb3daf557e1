"""Pieces of graphs as ops, and gradients that users give."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.gradient import DisconnectedType, NullType

X = np.array([-1.0, 2.0, 3.0])


def test_an_op_of_a_graph_is_the_graph():
    a, b = T.vectors("a", "b")
    x, y = T.vectors("x", "y")
    w = tcc.shared(np.array([2.0, 2.0, 2.0]))
    op = tcc.OpFromGraph([a, b], [a * b + w, a.sum()])
    z, s = op(x, y * 2)
    f = tcc.function([x, y], [z, s, *T.grad((z * s).sum(), [x, y])])
    plain, total = x * y * 2 + w, x.sum()
    g = tcc.function([x, y], [plain, total, *T.grad((plain * total).sum(), [x, y])])
    for made, wanted in zip(f(X, X + 1), g(X, X + 1), strict=True):
        np.testing.assert_allclose(made, wanted)


def test_the_gradient_of_one_op_may_be_replaced():
    a, x = T.vector("a"), T.vector("x")
    op = tcc.OpFromGraph([a], [T.nnet.relu(a)])
    op.grad = lambda inputs, grads: [grads[0] * (inputs[0] > 0) * (grads[0] > 0)]
    y = op(x * 2)
    weights = np.array([1.0, -1.0, 1.0])
    value, slope = tcc.function([x], [y, T.grad((y * weights).sum(), x)])(X)
    assert value.tolist() == [0, 4, 6] and slope.tolist() == [0, 0, 2]


@pytest.mark.parametrize("kind", ["grad_overrides", "lop_overrides"])
def test_overrides_for_all_inputs_or_for_each(kind):
    a, b, x, y = T.vectors("a", "b", "x", "y")
    lop = kind == "lop_overrides"
    one = lambda *args: args[-1][0] * 10  # noqa: E731
    for override in (
        lambda *args: [args[-1][0] * 10, args[-1][0] * args[0][0]],
        [one, "default"],
    ):
        z = tcc.OpFromGraph([a, b], [a * b], **{kind: override})(x, y)
        by_x, by_y = tcc.function([x, y], T.grad(z.sum(), [x, y]))(X, X + 1)
        assert by_x.tolist() == [10, 10, 10] and by_y.tolist() == X.tolist()
    none = tcc.OpFromGraph([a, b], [a * b], **{kind: [None, "default"]})(x, y)
    with pytest.raises(tcc.gradient.DisconnectedInputError):
        T.grad(none.sum(), x)
    if lop:
        with pytest.raises(ValueError, match="mutually exclusive"):
            tcc.OpFromGraph([a], [a], lop_overrides=[None], grad_overrides=[None])


def test_inside_scan():
    a, x = T.scalar("a"), T.vector("x")
    op = tcc.OpFromGraph([a], [a * a], grad_overrides=lambda inputs, grads: [grads[0]])
    y, _ = tcc.scan(lambda v: op(v), sequences=[x])
    value, slope = tcc.function([x], [y, T.grad(y.sum(), x)])(X)
    assert value.tolist() == (X * X).tolist() and slope.tolist() == [1, 1, 1]


def test_what_does_not_fit_is_an_error():
    a, b = T.vectors("a", "b")
    with pytest.raises(tcc.MissingInputError, match="missing an input: b"):
        tcc.OpFromGraph([a], [a + b])
    with pytest.raises(TypeError, match="must be list"):
        tcc.OpFromGraph([a], a)
    op = tcc.OpFromGraph([a], [a + 1])
    with pytest.raises(ValueError, match="Expected 1 inputs"):
        op(a, b)
    with pytest.raises(TypeError, match="Cannot convert"):
        op(T.matrix())


def test_l_op_gets_the_outputs_too():
    class Exp(tcc.Op):
        itypes, otypes = [T.dvector], [T.dvector]

        def make_node(self, x):
            return tcc.Apply(self, [x], [x.type()])

        def perform(self, node, inputs, output_storage):
            output_storage[0][0] = np.exp(inputs[0])

        def infer_shape(self, node, shapes):
            return shapes

        def L_op(self, inputs, outputs, output_grads):
            return [output_grads[0] * outputs[0]]

    x = T.dvector("x")
    y = Exp()(x)
    np.testing.assert_allclose(tcc.function([x], T.grad(y.sum(), x))(X), np.exp(X))


def test_an_op_stands_for_an_override():
    x, y, g, u, v = T.vectors("x", "y", "g", "u", "v")
    back = tcc.OpFromGraph([x, y, g], [g * y * 2, g * x * 1.5])
    push = tcc.OpFromGraph([x, y, u, v], [u * y * 2.0 + x * v * 1.5])
    op = tcc.OpFromGraph([x, y], [x * y], grad_overrides=back, rop_overrides=push)
    a, b = np.asarray([1.0, 2, 3]), np.asarray([4.0, -5, 6])
    by_x, by_y = tcc.function([x, y], tcc.grad(op(x, y).sum(), [x, y]))(a, b)
    np.testing.assert_array_equal(by_x, 2 * b)
    np.testing.assert_array_equal(by_y, 1.5 * a)
    along = tcc.function([x, y, u, v], tcc.Rop(op(x, y), [x, y], [u, v]))
    np.testing.assert_array_equal(along(a, b, b, a), 2 * b * b + 1.5 * a * a)


def test_one_direction_of_an_overridden_rop_is_zero():
    x, y, u = T.vectors("x", "y", "u")
    op = tcc.OpFromGraph(
        [x, y], [x * y], rop_overrides=lambda ins, along: [2 * (along[0] * ins[1] + along[1])]
    )
    f = tcc.function([x, y, u], tcc.Rop(op(x, y), [x], [u]), on_unused_input="ignore")
    (made,) = f([1.0], [3.0], [5.0])
    np.testing.assert_array_equal(made, [30.0])


def test_gradients_that_do_not_exist_may_be_in_the_list():
    x, y, z = T.vectors("x", "y", "z")
    overrides = [lambda ins, grads: grads[0] * ins[1], NullType("by y")(), DisconnectedType()()]
    op = tcc.OpFromGraph([x, y, z], [x * y + z], grad_overrides=overrides)
    made = tcc.grad(
        op(x, y, z).sum(),
        [x, y, z],
        return_disconnected="Disconnected",
        disconnected_inputs="ignore",
        null_gradients="return",
    )
    assert made[0].ndim == 1
    assert isinstance(made[1].type, NullType)
    assert isinstance(made[2].type, DisconnectedType)


def test_connection_pattern_follows_the_graph_and_its_shared_variables():
    x, y = T.vectors("x", "y")
    s = tcc.shared(np.ones(3), name="s")
    op = tcc.OpFromGraph([x, y], [x + s, y * 2, s + 1])
    assert op.connection_pattern() == [[True, False, False], [False, True, False], [True, False, True]]
    given = tcc.OpFromGraph([x, y], [y + 1], connection_pattern=[[True], [False]])
    assert given.connection_pattern() == [[True], [False]]
