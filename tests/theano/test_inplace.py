"""Ops that overwrite their operands: the caller's array has the result, if the function may do that."""

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.compiling import InconsistencyError
from tcc.theano import inplace
from tcc.theano.indexops import Elemwise
from tcc.user_op import Apply, Op


class Doubled(Op):
    """Doubles its operand where it lies."""

    __props__ = ()
    destroy_map = {0: [0]}

    def make_node(self, x):
        return Apply(self, [x], [x.type()])

    def perform(self, node, inputs, output_storage):
        (x,) = inputs
        x *= 2
        output_storage[0][0] = x


def test_the_callers_array_has_the_result():
    x, y = T.dvectors("x", "y")
    f = tcc.function([x, y], [inplace.add_inplace(x, y), x * y], accept_inplace=True)
    a, b = np.array([1.0, 2]), np.array([3.0, 4])
    total, product = f(a, b)
    assert a.tolist() == total.tolist() == [4, 6] and b.tolist() == [3, 4] and product.tolist() == [3, 8]


def test_an_op_of_the_user_changes_a_copy_and_what_else_reads_the_operand_sees_the_old_value():
    x = T.dvector("x")
    f = tcc.function([tcc.In(x, mutable=True)], [Doubled()(x), x + 1])
    a = np.ones(2)
    assert [r.tolist() for r in f(a)] == [[2, 2], [2, 2]] and a.tolist() == [2, 2]
    y = T.exp(x)
    assert tcc.function([x], [Doubled()(y), y])(np.zeros(1)) == [2, 1]


def test_refusals():
    x, i = T.dvector("x"), T.ivector("i")
    with pytest.raises(InconsistencyError, match="protected Variable"):
        tcc.function([x], inplace.exp_inplace(x))
    with pytest.raises(TypeError, match="does not fit"):
        inplace.add_inplace(x, T.dmatrix())
    assert inplace.add_inplace(i, x).dtype == "int32"
    made = inplace.exp_inplace(x).owner
    assert isinstance(made.op, Elemwise) and made.op == inplace.exp_inplace and str(made.op) == "exp_inplace"


def test_a_copy_of_the_function_overwrites_too():
    x = T.dvector("x")
    f = tcc.function([x], inplace.neg_inplace(x), accept_inplace=True).copy()
    a = np.ones(2)
    f(a)
    assert a.tolist() == [-1, -1]
