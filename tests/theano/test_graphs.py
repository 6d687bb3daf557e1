"""Theano's functions on graphs, conv shapes, and what structure queries say."""

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.settings import change_flags
from tcc.tensor.nnet import convshapes
from tcc.tensor.type_other import NoneConst
from tcc.theano import classes, graphs, legacy, ops
from tcc.theano.indexops import Subtensor
from tcc.types import Type
from tcc.user_op import Apply, Op


class Kind(Type):
    """A type of the user's."""

    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        return isinstance(other, Kind) and other.number == self.number

    def __hash__(self):
        return hash(self.number)

    def __str__(self):
        return f"K{self.number}"


class Sum(Op):
    __props__ = ()

    def make_node(self, *inputs):
        return Apply(self, inputs, [Kind(sum(v.type.number for v in inputs))()])


def test_graphs_of_types_of_the_users():
    a, b = Kind(1)("a"), Kind(2)("b")
    c = Sum()(a, b)
    d = Sum()(c, c)
    assert d.type == Kind(6)
    assert graphs.as_string([a, b], [d]) == ["Sum(*1 -> Sum(a, b), *1)"]
    assert graphs.as_string([c], [d], lambda v: str(v.type)) == ["Sum(K3, K3)"]
    (e, f), (g,) = graphs.clone([a, b], [d])
    assert graphs.as_string([e, f], [g]) == graphs.as_string([a, b], [d]) and e is not a and g is not d
    assert graphs.clone([a, b], [d], False)[0] == [a, b]


def test_general_toposort():
    below = {"d": ["b", "c"], "b": ["a"], "c": ["a"]}
    order = graphs.general_toposort(["d"], below.get)
    assert all(order.index(u) < order.index(v) for v, us in below.items() for u in us) and len(order) == 4
    with pytest.raises(ValueError, match="cycles"):
        graphs.general_toposort(["a"], {"a": ["b"], "b": ["a"]}.get)


def test_names():
    x, y, z = T.vector(), T.vector("v"), T.vector("v")
    names = graphs.give_variables_names([x, y, z])
    assert len(set(names)) == 3 and names == [x.name, y.name, z.name]
    assert graphs.give_variables_names([x, y, z]) == names
    assert list(graphs.remove(lambda n: n % 2, range(5))) == [0, 2, 4]


def test_test_values():
    x, y = T.vector("x"), T.vector("y")
    x.tag.test_value = np.ones(2)
    assert graphs.get_test_value(x).tolist() == [1, 1] and graphs.get_test_value(3) == 3
    with pytest.raises(AttributeError):
        graphs.get_test_value(y)
    assert graphs.get_debug_values(x) == []
    with change_flags(compute_test_value="ignore"):
        ((a, b),) = graphs.get_debug_values(x, 2)
        assert a.tolist() == [1, 1] and b == 2 and graphs.get_debug_values(x, y) == []
    with change_flags(compute_test_value="raise"), pytest.raises(AttributeError):
        graphs.get_debug_values(y)


def test_an_element_is_one_subtensor_though_the_graph_has_two_operations():
    x = T.matrix("x")
    for v in (x[1], x[1, 2], x[:, 0], x[1:]):
        assert isinstance(v.owner.op, Subtensor) and not isinstance(v.owner.op, ops.DimShuffle)
    assert isinstance(x.T.owner.op, ops.DimShuffle) and str(x[1].owner.op) == "Subtensor{int64}"
    assert hash(x[1].owner.op) == hash(x[2].owner.op) and x[1].owner.op == x[2].owner.op


def test_constant_values():
    x = T.matrix()
    assert legacy.get_scalar_constant_value(T.fill(x, 3)) == 3
    assert legacy.get_scalar_constant_value(T.alloc(2.0, 3).dimshuffle("x", 0)) == 2
    assert legacy.get_scalar_constant_value(np.zeros((2, 2))) == 0
    for v in (x.sum(), T.constant([1, 2])):
        with pytest.raises(legacy.NotScalarConstantError):
            legacy.get_scalar_constant_value(v)
    assert T.max(x, axis=NoneConst).ndim == 0


def test_shapes_around_a_convolution():
    for mode in ("valid", "full", "half", (0, 2)):
        images, filters = (3, 2, 12, 9), (4, 2, 5, 3)
        out = convshapes.get_conv_output_shape(images, filters, mode, (1, 1), (2, 1))
        assert convshapes.get_conv_gradinputs_shape(filters, out, mode, (1, 1), (2, 1)) == images
        found = convshapes.get_conv_gradweights_shape(images, out, mode, (1, 1), (2, 1))
        assert found == (filters if mode != "half" else (4, 2, None, None))
        assert convshapes.check_conv_gradinputs_shape(images, filters, out, mode, (1, 1), (2, 1))
        assert not convshapes.check_conv_gradinputs_shape(images, filters, (3, 4, 1, 1), mode, (1, 1), (2, 1))
    n = T.iscalar()
    f = tcc.function([n], list(convshapes.assert_conv_shape((n, 1, n, 3)))[2])
    assert f(2) == 2
    with pytest.raises(AssertionError):
        f(0)
    with pytest.raises(ValueError):
        convshapes.assert_conv_shape((1, 1, 0, 3))


def test_asserted_shapes():
    x = T.tensor4()
    with change_flags(**{"conv.assert_shape": True}):
        f = tcc.function([x], convshapes.assert_shape(x, (None, 2, None, None)))
    assert f(np.ones((1, 2, 1, 1), tcc.config.floatX)).size == 2
    with pytest.raises(AssertionError):
        f(np.ones((1, 3, 1, 1), tcc.config.floatX))
    assert convshapes.assert_shape(x, (None, 2, None, None)) is x


def test_variables_are_replaced_in_the_steps_of_a_scan_too():
    x, y, z = T.vector("x"), T.scalar("y"), T.scalar("z")
    s, _ = tcc.scan(lambda v, total: v * y + total, x, T.constant(0.0, dtype=x.dtype))
    (t,) = graphs.map_variables(lambda v: z if v is y else v, [s[-1]])
    f = tcc.function([x, y, z], [s[-1], t])
    assert [r.item() for r in f([1.0, 2], 1.0, 3.0)] == [3, 9]
    (same,) = graphs.map_variables(lambda v: v, [s])
    assert same is s and y.auto_name == y.auto_name != z.auto_name


def test_a_graph_as_letters():
    a, b, c = T.vectors("a", "b", "c")
    d = a + b
    text = graphs.min_informative_str((d * c) - d)
    assert text.splitlines() == [
        "A. Elemwise{sub,no_inplace}",
        " B. Elemwise{mul,no_inplace}",
        "  C. Elemwise{add,no_inplace}",
        "   D. a",
        "   E. b",
        "  F. c",
        " <C>",
    ]
    assert graphs._letters(25) == "Z" and graphs._letters(26) == "AA" and graphs._letters(27) == "AB"


class Word(classes.Type):
    def filter(self, data, strict=False, allow_downcast=None):
        if not isinstance(data, str):
            raise TypeError("a word is a str")
        return data


class Shout(tcc.Op):
    __props__ = ()

    def make_node(self, word):
        return tcc.Apply(self, [word], [Word()()])

    def perform(self, node, inputs, output_storage):
        output_storage[0][0] = inputs[0].upper()


def test_types_and_shared_variables_of_a_program():
    word = Word()("word")
    assert tcc.function([word], Shout()(word))("abc") == "ABC"
    assert isinstance(word.type, classes.Type) and isinstance(T.vector().type, classes.Type)
    assert not isinstance(word, classes.SharedVariable)
    kind = T.TensorType("float64", (False,))
    v = classes.SharedVariable(name="v", type=kind, value=[1, 2], strict=False)
    assert v.type == kind and v.eval().tolist() == [1, 2] and isinstance(v, classes.TensorSharedVariable)
    assert issubclass(type(v), classes.SharedVariable)
    with pytest.raises(TypeError):
        classes.SharedVariable("v", kind, {}, False)
    with pytest.raises(ValueError):
        v.set_value("abc")
