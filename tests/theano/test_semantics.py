"""What programs written for Theano rely on, one fact a test."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.theano
from tcc import gradient
from tcc import tensor as T
from tcc.theano import indexops, legacy, netops, ops
from tcc.updates import OrderedUpdates


def test_named_types_are_types_and_make_variables() -> None:
    assert T.lscalar == T.TensorType("int64", ()) == T.lscalar("n").type
    assert isinstance(T.fmatrix, T.TensorType) and T.fmatrix("x").name == "x"
    assert T.fmatrix("x", dtype="int8").dtype == "int8" and T.fmatrix(shape=(2, None)).type.shape == (2, None)
    with pytest.raises(TypeError, match="2 sizes"):
        T.fmatrix(shape=(2,))
    assert [v.name for v in T.dmatrices("ab")] == ["a", "b"]


def test_params_are_inputs_with_defaults() -> None:
    Param = tcc.theano.module("").Param
    x, rate = T.scalars("x", "rate")
    f = tcc.function([x, Param(rate, default=0.5)], x * rate)
    assert (f(4), f(4, rate=2), f(4, 1)) == (2, 8, 4)


def test_updates_are_of_shared_variables_and_do_not_collide() -> None:
    a, b = tcc.shared(1.0, "a"), tcc.shared(2.0, "b")
    made = OrderedUpdates({a: 5})
    with pytest.raises(TypeError, match="SharedVariable"):
        made[T.vector()] = 1
    with pytest.raises(TypeError, match="SharedVariable"):
        OrderedUpdates({"d": 3})
    assert dict(made + {b: 7}) == dict({b: 7} + made) == {a: 5, b: 7}
    with pytest.raises(KeyError, match="Collision"):
        made + {a: 8}
    made[a] = 8
    assert made[a] == 8


def test_the_jacobian_of_a_scalar_is_its_gradient() -> None:
    x = T.vector("x")
    assert list(tcc.jacobian((x**2).sum(), x).eval({x: [1.0, 3.0]})) == [2, 6]


def test_a_constant_of_consider_constant_has_a_gradient_of_its_own() -> None:
    x, y = T.scalars("xy")
    z = x * y
    by_z, by_x = tcc.grad(z * z + x, [z, x], consider_constant=[z])
    assert by_z.eval({x: 2.0, y: 3.0}) == 12 and by_x.eval({x: 2.0, y: 3.0}) == 1


def test_integers_wrap_when_inputs_may_be_downcast() -> None:
    x = T.wvector("x")
    f = tcc.function([x], x, allow_input_downcast=True)
    assert list(f([2**20 + 3, -1])) == [3, -1]


def test_the_output_of_a_node() -> None:
    x = T.vector("x")
    y = x.sum()
    assert y.owner.out is y and y.owner.default_output() is y


def test_default_updates_stop_at_inputs() -> None:
    a = tcc.shared(0)
    a.default_update = a + 1
    b = 2 * a
    assert tcc.function([b], b)(21) == 21 and a.get_value() == 0
    with pytest.raises(TypeError, match="boolean or a list"):
        tcc.function([], b, no_default_updates=a)


def test_an_input_behind_another_is_not_used() -> None:
    m = T.matrix("m")
    turned = m.T
    with pytest.raises(tcc.UnusedInputError):
        tcc.function([m, turned], turned * 2)


def test_containers_show_their_value() -> None:
    v = tcc.shared(np.arange(3.0))
    assert v.container.storage[0] is v.get_value(borrow=True)
    assert list(v.container.value) == [0, 1, 2] and v.container.value is not v.get_value(borrow=True)


def test_set_value_converts_as_the_variable_was_told() -> None:
    loose = tcc.shared(np.int64(7), allow_downcast=True)
    loose.set_value(8.23)
    assert loose.get_value() == 8
    with pytest.raises(TypeError):
        tcc.shared(np.int64(7), strict=True).set_value(8)


def test_known_gradients_may_be_absent_or_undefined() -> None:
    x, y = T.scalars("xy")
    cost = x * y
    with pytest.raises(gradient.DisconnectedInputError):
        tcc.grad(cost, x, known_grads={cost: gradient.DisconnectedType()()})
    with pytest.raises(gradient.NullTypeGradError, match="no derivative there"):
        tcc.grad(cost, x, known_grads={cost: gradient.NullType("no derivative there")()})


class Two(tcc.Op):
    """(2 x, a number that has nothing to do with x)"""

    __props__ = ()

    def make_node(self, x: Any) -> Any:
        x = T.as_tensor_variable(x)
        return tcc.Apply(self, [x], [x.type(), T.dscalar()])

    def perform(self, node: Any, inputs: Any, output_storage: Any) -> None:
        output_storage[0][0], output_storage[1][0] = 2 * inputs[0], np.asarray(5.0)

    def connection_pattern(self, node: Any) -> list[list[bool]]:
        return [[True, False]]

    def grad(self, inputs: Any, output_grads: Any) -> list[Any]:
        return [2 * output_grads[0]]


class Undefined(tcc.Op):
    """The product, said to have no derivative by its second input."""

    __props__ = ()

    def make_node(self, x: Any, y: Any) -> Any:
        return tcc.Apply(self, [x, y], [T.dscalar()])

    def perform(self, node: Any, inputs: Any, output_storage: Any) -> None:
        output_storage[0][0] = np.asarray(inputs[0].sum() * inputs[1])

    def grad(self, inputs: Any, output_grads: Any) -> list[Any]:
        return [T.ones_like(inputs[0]) * inputs[1] * output_grads[0], gradient.NullType()()]


def test_connection_patterns_of_ops() -> None:
    x = T.dvector("x")
    twice, five = Two()(x)
    g = tcc.grad(Undefined()(twice, five), x)
    assert list(g.eval({x: [1.0, 2.0]})) == [10, 10]
    with pytest.raises(gradient.DisconnectedInputError):
        tcc.grad(five, x)


def test_directional_derivatives_of_what_changes_gradients() -> None:
    x, v = T.vectors("xv")
    f = tcc.function([x, v], tcc.Rop(gradient.zero_grad(x) * 2, x, v), on_unused_input="ignore")
    assert list(f([1.0, 2.0], [3.0, 4.0])) == [0, 0]
    with pytest.raises(gradient.DisconnectedInputError):
        tcc.Rop(gradient.disconnected_grad(x), x, v)


def test_a_directional_derivative_that_is_zero_is_no_error() -> None:
    v = tcc.shared(np.ones(4))
    slope = tcc.grad(T.dot(T.arange(8.0).reshape((2, 4)), v).sum(), v)
    assert list(tcc.Rop(slope, v, v).eval()) == [0, 0, 0, 0]


def test_what_is_like_a_scalar_hangs_on_it() -> None:
    x = T.scalar("x")
    assert tcc.function([x], T.zeros_like(x))(3.0) == 0
    assert tcc.function([x], T.ones_like(x, dtype="int8"))(3.0).dtype == np.int8


def test_the_graph_of_a_function_can_be_looked_at() -> None:
    x, w = T.vector("x"), tcc.shared(2.0, "w")
    f = tcc.function([x], T.exp(x) * w, updates={w: w + 1}, mode="FAST_COMPILE")
    graph = f.maker.fgraph
    assert graph.inputs == [x, w] and len(graph.outputs) == 2 and f.maker.mode.name == "FAST_COMPILE"
    assert [i.variable for i in f.maker.inputs] == [x]
    (exp,) = [n for n in graph.toposort() if n.name == "exp"]
    assert exp in graph.apply_nodes and graph.clients(x) == [(exp, 0)] and exp.out in graph.variables
    assert graph.clients(graph.outputs[0]) == [("output", 0)]
    a, b = T.dmatrix(), T.imatrix()  # a Join shows its axis first, and not the cast of its input
    graph = tcc.function([a, b], T.concatenate([a, b], axis=1)).maker.fgraph
    for v in (a, b):
        ((_, k),) = [(n, k) for n, k in graph.clients(v) if n is graph.outputs[0].owner]
        assert graph.outputs[0].owner.inputs[k] is v


def test_the_graph_of_a_function_lists_what_was_written() -> None:
    """Sizes that broadcasts are made to are none of it; what a node reads is made before it."""
    x, y, i = T.matrix("x"), T.vector("y"), T.ivector("i")

    def written(*outputs: Any) -> list[str]:
        f = tcc.function([x, y, i], list(outputs), on_unused_input="ignore")
        order = f.maker.fgraph.toposort()
        for n, node in enumerate(order):
            assert all(v.owner is None or v.owner in order[:n] for v in node.inputs)
        assert {n for n in order if not n.implicit} >= {v.owner for v in outputs}
        return [str(n.op) for n in order if not n.implicit]

    assert written(T.nnet.softmax(T.dot(x, x.T)) + y + i) == [
        "InplaceDimShuffle{1,0}",
        "dot",
        "Softmax",
        *["Elemwise{add,no_inplace}"] * 2,
    ]
    assert written(T.set_subtensor(x[:, : y.shape[0]], 2.0)) == [
        "Shape",
        "Subtensor{int64}",
        "IncSubtensor{Set;::, :int64:}",
    ]
    mean = written(x.mean(axis=0) * y)
    assert mean.count("Shape_i{0}") == 1 and len(mean) == 4
    loop, _ = tcc.scan(lambda v, h: h + v * T.exp(y), x, T.zeros_like(y))
    assert sum(name.startswith("for") for name in written(loop[-1])) == 1


def test_classes_of_branches_and_of_pooling_along_one_axis() -> None:
    c, x, y = T.iscalar("c"), T.vector("x"), T.vector("y")
    pick = ops.IfElse(2)(c, x, y, y, x)
    assert [list(p.eval({c: 0, x: [1.0], y: [2.0]})) for p in pick] == [[2], [1]]
    with pytest.raises(ValueError, match="takes 4"):
        ops.IfElse(2)(c, x, y)
    assert list(netops.Pool(True, ndim=1)(np.arange(6.0), (2,)).eval()) == [1, 3, 5]


def test_inputs_of_a_graph_are_found_in_depth() -> None:
    x, y, z = (tcc.shared(0, name=n) for n in "xyz")
    inputs = legacy.inputs
    assert inputs([x, y, z]) == [z, y, x]
    assert inputs([(x + y) + z]) == inputs([x + (y + z)]) == [x, y, z]
    assert inputs([y * z, x + y]) == [x, y, z]


def test_relu_of_an_array_is_an_array() -> None:
    assert legacy.relu(np.array([-1.0, 2.0])).tolist() == [0, 2]


def test_a_size_that_broadcasts_is_known_in_a_reshape() -> None:
    n, x = T.iscalar(), T.col()
    assert x.reshape((n, n, x.shape[1])).broadcastable == (False, False, True)


def test_known_gradients_are_all_that_flows() -> None:
    x = T.vector("x")
    y = x**2
    cost = y.sum() + x.sum()
    g = tcc.grad(cost, x, known_grads={y: T.constant([10.0, 0.0])})
    assert g.eval({x: [1.0, 2.0]}).tolist() == [21, 1]


@pytest.mark.parametrize("mode", ["FAST_RUN", "FAST_COMPILE"])
def test_specified_shapes_are_asserted(mode: str) -> None:
    x, shape = T.vector("x"), T.ivector("shape")
    for wanted in (T.specify_shape(x, (3,)), T.specify_shape(x, [x.shape[0] // 2])):
        f = tcc.function([x], wanted * 2, mode=mode)
        for error in (AssertionError, ValueError):
            with pytest.raises(error):
                f([1.0, 2.0])
    with pytest.raises(AssertionError):
        T.specify_shape(x, [])
    f = tcc.function([x, shape], T.specify_shape(x, shape), mode=mode)
    assert f([1.0, 2.0], [2]).tolist() == [1, 2]
    for wrong in ([3], [], [2, 2]):
        with pytest.raises(AssertionError):
            f([1.0, 2.0], wrong)


def test_names_of_transposes() -> None:
    x, m = T.vector("x"), T.matrix("m")
    assert x.T.name == "x.T" and m.T.name == "m.T" and T.transpose(T.vector()).name is None and x.name == "x"
    assert T.transpose(x).eval({x: [1.0, 2.0]}).tolist() == [1, 2]


def test_an_axis_that_is_cast_is_known() -> None:
    a, b = T.TensorType("float64", (True, False))("a"), T.matrix("b")
    made = T.join(T.cast(T.constant(1), "int8"), a, b)
    assert made.type.broadcastable == (True, False)
    assert made.eval({a: [[1.0]], b: [[2.0, 3.0]]}).tolist() == [[1, 2, 3]]


def test_an_axis_of_a_maximum_may_be_named_twice() -> None:
    m = T.matrix("m")
    largest, where = T.max_and_argmax(m, axis=[0, 0])
    assert tcc.function([m], [largest, where])([[1.0, 5], [2, 3]])[0].tolist() == [2, 5]
    with pytest.raises(ValueError, match="duplicate"):
        m.sum(axis=[0, 0])


def test_repetitions_are_a_vector_at_most() -> None:
    with pytest.raises(ValueError, match="scalar or a vector"):
        T.tile(T.matrix(), T.imatrix("reps"))


def test_convolutions_have_a_stride_for_each_axis() -> None:
    with pytest.raises(ValueError, match="subsample must be 3 integers"):
        T.nnet.conv3d(T.tensor5(), T.tensor5(), subsample=(1, 1))


@pytest.mark.parametrize("dtype", ["bool", "int8", "float32"])
def test_reductions_by_their_scalar_op_keep_the_dtype(dtype: str) -> None:
    x = T.vector("x", dtype=dtype)
    total = indexops.CAReduce(T.add, None)(x)
    assert total.dtype == dtype
    assert total.eval({x: np.ones(3, dtype)}) == (True if dtype == "bool" else 3)


def test_products_without_zeros_have_no_gradient() -> None:
    x = T.vector("x")
    made = ops.ProdWithoutZeros()(x)
    assert made.eval({x: [2.0, 0.0, 3.0]}) == 6
    with pytest.raises(gradient.NullTypeGradError):
        tcc.grad(made, x)


def test_ops_are_equal_to_their_likes_alone() -> None:
    y = T.matrix("m").reshape((2, 2))
    assert ops.Reshape(2) == ops.Reshape(2) != ops.Reshape(3) and ops.Reshape(2) != y.owner.op
    assert ops.Sum() != ops.Prod()


def test_elements_of_constant_vectors_are_numbers() -> None:
    two, three = (legacy.get_scalar_constant_value(v) for v in T.as_tensor_variable([2, 3]))
    assert (two, three) == (2, 3) and np.shape(two) == () and two.dtype == "int64"
    with pytest.raises(legacy.NotScalarConstantError):
        legacy.get_scalar_constant_value(T.as_tensor_variable([2, 3]) + 1)


def test_correlations_take_mixed_dtypes() -> None:
    x, w = T.TensorType("float32", (False,) * 4)("x"), T.TensorType("float64", (False,) * 4)("w")
    assert netops.CorrMM()(x, w).dtype == netops.CorrMM()(w, x).dtype == "float64"


@pytest.mark.parametrize("axes", [(0,), (0, 2)])
def test_batch_normalisation_by_its_op_classes(axes: tuple[int, ...]) -> None:
    rng = np.random.RandomState(3)
    form = tuple(1 if a in axes else n for a, n in enumerate((4, 3, 2)))
    x, dy, scale, bias = (T.tensor3(name) for name in ("x", "dy", "scale", "bias"))
    values = [rng.randn(4, 3, 2), rng.randn(4, 3, 2), rng.rand(*form), rng.rand(*form)]
    out, mean, invstd = netops.AbstractBatchNormTrain(axes)(x, scale, bias)
    pulled = netops.AbstractBatchNormTrainGrad(axes)(x, dy, scale, mean, invstd)
    expected = tcc.grad(None, [x, scale, bias], known_grads={out: dy})
    same = netops.AbstractBatchNormInference(axes)(x, scale, bias, mean, invstd**-2 - 1e-4)
    found = tcc.function([x, dy, scale, bias], [out, *pulled, same, *expected])(*values)
    for made, wanted in zip(found[1:4], found[5:], strict=True):
        np.testing.assert_allclose(made, wanted, atol=1e-10)
    np.testing.assert_allclose(found[4], found[0], atol=1e-10)
    with pytest.raises(ValueError, match="scale must have 3 axes"):
        netops.AbstractBatchNormTrainGrad((0,))(x, dy, T.vector(), mean, invstd)


class Layer:
    """As programs written for Theano hold what they apply."""

    activation, squash, combine, inverse = T.tanh, T.nnet.sigmoid, T.add, T.nlinalg.matrix_inverse
    bound, test = T.clip, T.isnan


def test_functions_are_no_methods_of_the_classes_that_hold_them() -> None:
    layer, x = Layer(), T.vector("x")
    made = [layer.activation(x), layer.squash(x), layer.combine(x, 1, 2), layer.bound(x, min=0, max=1)]
    found = tcc.function([x], made)([0.5])
    for got, wanted in zip(found, (np.tanh(0.5), 1 / (1 + np.exp(-0.5)), 3.5, 0.5), strict=True):
        np.testing.assert_allclose(got, [wanted])
    assert layer.inverse(T.matrix()).type.ndim == 2 and layer.test(x).dtype == "bool"


def test_functions_travel_by_name() -> None:
    for f in (T.tanh, T.nnet.sigmoid, T.add, T.abs_, T.clip, T.nlinalg.det, T.slinalg.cholesky):
        assert pickle.loads(pickle.dumps(f)) is copy.deepcopy(f) is f
        assert f.__doc__ and callable(f)
    assert list(inspect.signature(T.clip).parameters) == ["x", "min", "max"] and T.tanh.__name__ == "tanh"


def test_numbers_pass_between_scalars_and_tensors() -> None:
    x = T.lscalar("x")
    for op in (legacy.tensor_from_scalar, legacy.scalar_from_tensor):
        y = op(x)
        assert y.owner.op is op and y.owner.inputs == [x] and y.type == x.type
        assert tcc.function([x], y)(3) == 3 and T.zeros((op(T.constant(2)),)).type.shape == (2,)
    with pytest.raises(TypeError, match="a scalar is needed"):
        legacy.scalar_from_tensor(T.vector())


@pytest.mark.parametrize("mode", ["FAST_RUN", "FAST_COMPILE"])
def test_shape_vectors_have_the_length_that_was_said(mode: str) -> None:
    x, sizes = T.vector("x"), T.ivector("sizes")
    reshaped = tcc.function([x, sizes], x.reshape(sizes, ndim=2), mode=mode)
    tiled = tcc.function([x, sizes], T.tile(x, sizes, 2), mode=mode)
    assert reshaped([1.0, 2.0], [2, 1]).shape == (2, 1) and tiled([1.0, 2.0], [3, 2]).shape == (3, 4)
    for wrong in ([2], [2, 1, 1]):
        with pytest.raises(ValueError):
            reshaped([1.0, 2.0], wrong)
    assert tiled([1.0, 2.0], [2]).shape == (1, 4)
    with pytest.raises(AssertionError):
        tiled([1.0, 2.0], [2, 1, 1])
