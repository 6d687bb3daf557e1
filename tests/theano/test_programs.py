"""What programs that were written for Theano take from it, which nothing else here tests: each as they write it."""

from __future__ import annotations

import collections
import copy
import pickle
from typing import Any

import numpy as np
import pytest

import tcc.theano

tcc.theano.install()
import theano  # type: ignore[import-not-found]  # noqa: E402
import theano.tensor as tt  # type: ignore[import-not-found]  # noqa: E402
from theano.configparser import _config_var_list  # type: ignore[import-not-found]  # noqa: E402
from theano.gof.graph import stack_search  # type: ignore[import-not-found]  # noqa: E402
from theano.scan_module.scan_op import Scan  # type: ignore[import-not-found]  # noqa: E402


def test_a_variable_of_ones_own_class_as_a_view_is_compiled() -> None:
    class Named(tt.TensorVariable):  # type: ignore[misc]
        def __init__(self, type: Any, owner: Any = None, index: Any = None, name: Any = None) -> None:
            super().__init__(type, owner, index, name)

    x = tt.vector("x")
    for source in (x, tt.exp(x)[0].dimshuffle("x")):
        v = Named(tt.TensorType("float64", (False,)), name="v")
        theano.gof.Apply(theano.compile.view_op, inputs=[source], outputs=[v])
        assert v.owner.defn.name == "identity" and v.owner.inputs[0].type == v.type
        f = theano.function([x], [v * 2, theano.grad(v.sum(), x)])
        want = [0, 1, 2.5] if source is x else [1.0]
        assert np.array_equal(f([0, 1, 2.5])[0], np.multiply(want, 2))
        assert np.array_equal(f([0, 1, 2.5])[1], [1, 1, 1] if source is x else [1, 0, 0])


def test_flags_by_the_list_of_them() -> None:
    flags = {v.fullname: v for v in _config_var_list}
    assert flags["compute_test_value"].__get__(True, None) == "off"
    flags["compute_test_value"].__set__(None, "warn")
    try:
        assert theano.config.compute_test_value == "warn"
    finally:
        flags["compute_test_value"].__set__(None, "off")


def test_copies_keep_test_values_and_shapes_have_them_where_all_sizes_are_known() -> None:
    with theano.change_flags(compute_test_value="raise"):
        x = tt.vector("x")
        x.tag.test_value = np.arange(3.0)
        y = tt.exp(x[0:2]).sum()
        assert y.shape.tag.test_value.shape == (0,)
        assert list(x.dimshuffle("x", 0)[:, :1].sum(1, keepdims=True).shape.tag.test_value) == [1, 1]
        z = theano.clone(y, {x: tt.vector("z")})  # which has no test value
        assert z.tag.test_value == y.tag.test_value


def test_clone_takes_what_has_one_element_for_an_axis_of_any_size() -> None:
    x = tt.vector()
    one = tt.TensorType("float64", (True,))()
    made = theano.clone(tt.exp(x), {x: one})
    assert made.type.broadcastable == (False,) and theano.function([one], made)([0]) == [1]
    with pytest.raises(TypeError, match="Cannot convert Type"):
        theano.clone(tt.exp(one), {one: x})


def test_a_search_through_a_graph() -> None:
    x = tt.vector("x")
    y = tt.exp(x) + x

    assert y.get_parents() == [y.owner] and y.owner.get_parents() == y.owner.inputs and not x.get_parents()

    def neighbours(v: Any) -> Any:
        return v.owner.inputs if v.owner is not None else None

    listed, reached = stack_search(collections.deque([y]), neighbours, build_inv=True)
    assert listed == [y, y.owner.inputs[0], x] and reached[x] == [y, y.owner.inputs[0]]


def test_inputs_of_a_node_are_those_of_theanos_op() -> None:
    x, y, n = tt.fmatrix("x"), tt.dmatrix("y"), tt.iscalar("n")
    axis, *joined = tt.concatenate([x, y], axis=1).owner.inputs
    assert axis.data == 1 and joined == [x, y]
    row = x[n]
    assert row.owner.inputs[0] is x and n in theano.gof.graph.ancestors([row])
    assert theano.gof.graph.inputs([tt.concatenate([x, y])]) == [x, y]


def test_scalar_ops_are_classes_and_elementwise_ops_have_them() -> None:
    scalar, x = theano.scalar, tt.vector("x")
    gammaln = tt.Elemwise(scalar.basic_scipy.GammaLn(scalar.upgrade_to_float, name="gammaln"), name="gammaln")
    assert np.allclose(gammaln(x).eval({x: [1, 2, 4]}), [0, 0, np.log(6)])
    assert isinstance(tt.nnet.sigmoid(x).owner.op.scalar_op, tt.nnet.sigm.ScalarSigmoid)
    assert isinstance(tt.tensor_copy(x).owner.op.scalar_op, scalar.Identity)
    assert not isinstance(tt.exp(x).owner.op.scalar_op, scalar.Log)
    assert isinstance(tt.exp(x).owner.op.scalar_op, scalar.Exp) and not hasattr(x[0].owner.op, "scalar_op")
    for name in ("Switch", "Maximum", "EQ", "ArcTan2", "IntDiv", "AND"):
        made = getattr(scalar, name)()
        arguments = [np.array([1, 0])] * (3 if name == "Switch" else 2) if name != "ArcTan2" else [x, x]
        assert isinstance(made(*arguments).owner.op.scalar_op, getattr(scalar, name))


def test_rows_of_an_array_that_is_no_variable() -> None:
    made = tt.advanced_set_subtensor1(np.zeros(3), tt.as_tensor([1.0, 2.0]), np.array([2, 0]))
    assert np.array_equal(made.eval(), [2, 0, 1])
    assert np.array_equal(tt.advanced_subtensor1(np.arange(3.0), [1]).eval(), [1])


def test_a_loop_among_the_ops_of_a_graph() -> None:
    s, _ = theano.scan(lambda x, a: a + x, sequences=tt.vector(), outputs_info=tt.zeros(()))
    ops = [node.op for node in theano.gof.graph.io_toposort([], [s]) if isinstance(node.op, Scan)]
    assert len(ops) == 1 and ops[0].outputs[0].owner.op == tt.add(tt.scalar(), 1.0).owner.op


def test_new_axes_drop_the_axes_that_an_index_leaves_out_if_these_broadcast() -> None:
    mask = tt.alloc(1.0, tt.iscalar("n"), 1)  # of an RNN without a mask: `mask[:, None] * state` is a matrix
    assert mask[:, None].ndim == 2 and mask[None].ndim == 3
    assert tt.row()[None, :].ndim == 3 and tt.matrix()[:, None].ndim == 3 and mask[:, :, None].ndim == 3
    assert mask[:, None, ...].ndim == 3 and mask[0].ndim == 1
    state = tt.matrix("h")
    f = theano.function(
        [state, tt.iscalar("k")],
        (tt.alloc(2.0, state.shape[0], 1)[:, None] * state),
        on_unused_input="ignore",
    )
    assert np.array_equal(f(np.ones((3, 2)), 0), np.full((3, 2), 2.0))


def test_a_gradient_of_weights_over_as_many_rows_as_each_step_takes() -> None:
    x, w = tt.matrix("x"), tt.matrix("w")  # attention over the visits so far, in steps over these
    made, _ = theano.scan(
        lambda n, x, w: tt.tanh(tt.dot(x[:n], w)).sum(),
        sequences=tt.arange(1, x.shape[0] + 1),
        non_sequences=[x, w],
    )
    f = theano.function([x, w], theano.grad((made**2).sum(), w))
    rng = np.random.RandomState(5)
    for rows in (4, 1, 7):
        a, b = rng.rand(rows, 3), rng.rand(3, 2)
        want = np.zeros((3, 2))
        for n in range(1, rows + 1):
            y = np.tanh(a[:n] @ b)
            want += 2 * y.sum() * (a[:n].T @ (1 - y**2))
        assert np.allclose(f(a, b), want)


def test_notes_on_a_node_stay_with_its_copies() -> None:
    x, y = tt.dvectors("x", "y")
    made = tt.tanh(x) * 2
    node = made.owner
    node.tag.role = "output"
    assert not hasattr(tt.exp(x).owner.tag, "role")
    copies = [theano.clone(made, {x: y}), pickle.loads(pickle.dumps(made)), copy.deepcopy(made)]
    assert [v.owner.tag.role for v in copies] == ["output"] * 3
    copies[0].owner.tag.role = "other"
    assert node.tag.role == "output"


def test_a_function_tells_its_shared_variables() -> None:
    x = tt.dvector("x")
    a, b = theano.shared(np.ones(2), "a"), theano.shared(0.0, "b")
    f = theano.function([x], x * a, updates=[(b, b + 1)])
    assert set(f.get_shared()) == {a, b}
    assert theano.function([x], x).get_shared() == []


def test_shapes_of_all_variables_for_shapes_of_the_inputs() -> None:
    x, y = tt.dmatrix("x"), tt.dvector("y")
    w = theano.shared(np.ones((3, 4)), "w")
    hidden = x.dot(w)
    out = (hidden.sum(axis=0) * y)[1:]
    graph = theano.function([x, y], out).maker.fgraph
    found = theano.tensor.utils.shape_of_variables(graph, {x: (5, 3), y: (4,)})
    wanted = {x: (5, 3), y: (4,), w: (3, 4), hidden: (5, 4), out: (3,)}
    assert {v: found[v] for v in wanted} == wanted
    with pytest.raises(ValueError, match="no shape given for y"):
        theano.tensor.utils.shape_of_variables(graph, {x: (5, 3)})


def test_a_feature_of_a_graph_knows_its_shapes() -> None:
    x, y = tt.dmatrix("x"), tt.dvector("y")
    total = (x * y).sum(axis=0, keepdims=True)
    out = total[:, 1:] + total.sum()
    graph = theano.gof.FunctionGraph([x, y], [out], features=[tt.opt.ShapeFeature()], clone=False)
    shapes = graph.shape_feature.shape_of
    assert shapes[total][0].data == 1
    sizes = theano.function([x, y], [*shapes[out], *shapes[x], *shapes[y]])
    assert [int(n) for n in sizes(np.ones((4, 3)), np.ones(3))] == [1, 2, 4, 3, 3]
    scalar = theano.gof.FunctionGraph([y], [y.sum()])
    scalar.attach_feature(tt.opt.ShapeFeature())
    assert scalar.shape_feature.shape_of[scalar.outputs[0]] == ()


def test_modes_of_what_the_list_of_optimisations_finds() -> None:
    found = theano.compile.mode.optdb.query(theano.gof.Query(include=["fast_run"], exclude=["inplace"]))
    x = tt.dvector("x")
    f = theano.function([x], tt.exp(x), mode=theano.Mode(linker="vm", optimizer=found))
    np.testing.assert_allclose(f([0, 1]), np.exp([0, 1]))
