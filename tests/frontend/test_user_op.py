"""Ops written in Python."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T

X = np.array([[1.0, 2.0]])


class AXPB(tcc.Op):
    __props__ = ("a", "b")

    def __init__(self, a, b):
        self.a, self.b = a, b

    def make_node(self, x):
        x = T.as_tensor_variable(x)
        return tcc.Apply(self, [x], [x.type()])

    def perform(self, node, inputs, output_storage):
        output_storage[0][0] = self.a * inputs[0] + self.b

    def infer_shape(self, node, i0_shapes):
        return i0_shapes

    def grad(self, inputs, output_grads):
        return [self.a * output_grads[0]]


class Evens(tcc.Op):
    """Its result's size is only known when it has run."""

    itypes, otypes = [T.dvector().type], [T.dvector().type]

    def perform(self, node, inputs, output_storage):
        output_storage[0][0] = inputs[0][inputs[0] % 2 == 0]


class Plain(tcc.Op):
    """It says that no attribute matters, where Evens says nothing."""

    __props__ = ()


class Broken(tcc.Op):
    itypes = otypes = [T.dmatrix().type]

    def perform(self, node, inputs, output_storage):
        raise ZeroDivisionError("oh")


@pytest.mark.parametrize("partly", [True, False])
def test_infer_shape_may_not_know(partly):
    class Positive(tcc.Op):
        """Columns that begin above 0."""

        itypes, otypes = [T.dmatrix], [T.dmatrix]

        def infer_shape(self, node, shapes):
            if partly:
                return [(shapes[0][0], node.outputs[0].shape[1])]
            raise NotImplementedError

        def perform(self, node, inputs, output_storage):
            output_storage[0][0] = inputs[0][:, inputs[0][0] > 0]

    x = T.dmatrix("x")
    y = Positive()(x)
    f = tcc.function([x], [y * 2, y.shape])
    for a in (np.array([[1.0, -1, 2], [3, 4, 5]]), np.ones((1, 1)), np.zeros((3, 2))):
        made, shape = f(a)
        np.testing.assert_array_equal(made, a[:, a[0] > 0] * 2)
        assert tuple(shape) == made.shape


def test_infer_shape_sees_the_whole_node():
    class Doubled(tcc.Op):
        def make_node(self, x):
            return tcc.Apply(self, [x], [x.type()])

        def infer_shape(self, node, shapes):
            assert node.inputs[0].ndim == node.outputs[0].ndim
            return [shapes[0] for _ in node.outputs]

        def perform(self, node, inputs, output_storage):
            output_storage[0][0] = 2 * inputs[0]

    x = T.vector("x")
    assert tcc.function([x], Doubled()(x).shape)([1, 2, 3]) == 3


def test_applied():
    x = T.dmatrix("x")
    y = AXPB(4, 5)(x)
    assert str(y) == "AXPB{a=4, b=5}.0" and str(AXPB(4, 5)) == "AXPB{a=4, b=5}"
    assert y.eval({x: X}).tolist() == [[9, 13]]
    assert (y.sum() * 2).eval({x: X}) == 44


def test_equality_is_by_props():
    assert AXPB(1, 2) == AXPB(1, 2) != AXPB(1, 3)
    assert hash(AXPB(1, 2)) == hash(AXPB(1, 2))
    assert Evens() != Evens()
    assert Plain() == Plain() and hash(Plain()) == hash(Plain()) and str(Plain()) == "Plain"


def test_gradient():
    x = T.dmatrix("x")
    assert tcc.grad((AXPB(4, 5)(x) ** 2).sum(), x).eval({x: X}).tolist() == [[72, 104]]
    with pytest.raises(tcc.gradient.NullTypeGradError, match="Evens"):
        v = T.dvector()
        tcc.grad(Evens()(v).sum(), v)


def test_a_size_that_only_the_op_knows():
    v = T.dvector("v")
    made = Evens()(v)
    assert made.eval({v: [1.0, 2, 3, 4]}).tolist() == [2, 4]
    assert (made * 2).sum().eval({v: [1.0, 2, 3, 4]}) == 12


def test_an_exception_names_the_op_and_the_line():
    w = tcc.shared(X, "w")
    f = tcc.function([], Broken()(w), updates=[(w, w + 1)])
    with pytest.raises(ZeroDivisionError) as e:
        f()
    notes = " ".join(e.value.__notes__)
    assert "Broken" in notes and "test_user_op.py" in notes
    assert np.array_equal(w.get_value(), X)


def test_a_wrong_result_is_refused():
    class Wrong(Broken):
        def perform(self, node, inputs, output_storage):
            output_storage[0][0] = np.zeros(3)

    x = T.dmatrix("x")
    with pytest.raises(TypeError, match="Wrong number of dimensions"):
        Wrong()(x).eval({x: X})


def test_input_types_are_checked():
    with pytest.raises(TypeError, match="We expected inputs of types"):
        Evens()(T.fvector())


def test_as_op():
    @tcc.as_op(
        itypes=[T.dmatrix, T.dvector], otypes=[T.dvector], infer_shape=lambda node, shapes: [shapes[1]]
    )
    def mixed(a, b):
        return a.sum() * b

    x, v = T.dmatrix("x"), T.dvector("v")
    made = mixed(x, v)
    assert str(made) == "FromFunctionOp{mixed}.0"
    assert made.eval({x: X, v: [1.0, 2]}).tolist() == [3, 6]


def test_inside_a_loop():
    m = T.dmatrix("m")
    made, _ = tcc.scan(lambda row: AXPB(2, 1)(row), sequences=m)
    assert made.eval({m: X}).tolist() == [[3, 5]]


def test_equal_ops_of_equal_inputs_are_called_once():
    calls = []

    class Scaled(tcc.Op):
        __props__ = ("factor",)

        def __init__(self, factor):
            self.factor = factor

        def make_node(self, x):
            return tcc.Apply(self, [x], [x.type()])

        def perform(self, node, inputs, output_storage):
            calls.append(self.factor)
            output_storage[0][0] = inputs[0] * self.factor

    class Unlike(Scaled):
        __props__ = None

    x, c = T.dvector("x"), T.scalar("c")
    steps, _ = tcc.scan(lambda v: v + Scaled(2)(x), x)
    total = Scaled(2)(x) + Scaled(2)(x) + Scaled(3)(x) + Unlike(4)(x) + Unlike(4)(x) + steps.sum(0)
    f = tcc.function([x, c], tcc.ifelse(c > 0, Scaled(2)(x) * total, Scaled(5)(x)))
    assert f([1.0, 1.0], 1.0).tolist() == [2 * (2 + 2 + 3 + 4 + 4 + 6)] * 2
    assert sorted(calls) == [2, 3, 4, 4]
    calls.clear()
    assert f([1.0, 1.0], 0.0).tolist() == [5, 5] and calls == [5]
