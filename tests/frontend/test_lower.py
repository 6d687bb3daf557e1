"""Graphs become IR: equal sizes one name, size arithmetic stays arithmetic, every op knows the user's line."""

from __future__ import annotations

import tcc.tensor as T
from tcc.ir.text import parse_func, print_func
from tcc.ir.verify import verify
from tcc.lower import lower


def text(inputs, outputs, **kwargs):
    func = lower(inputs, outputs, **kwargs).func
    verify(func)
    made = print_func(func)
    assert print_func(parse_func(made)) == made
    return made


def test_operands_of_an_elementwise_op_have_one_shape():
    x, y = T.matrices("x", "y")
    made = text([x, y], [x + y])
    assert "%x: f64[x_0,x_1], %y: f64[x_0,x_1]" in made
    assert 'y.0 = "Elemwise{add,no_inplace} at ' in made and "test_lower.py:" in made


def test_a_number_is_one_constant_of_the_whole_shape():
    x = T.matrix("x")
    assert "const {value = 2.0, type = f64[x_0,x_1]}" in text([x], [x * 2])


def test_known_sizes_are_numbers():
    x, w = T.matrix("x", shape=(None, 784)), T.matrix("w")
    assert "%w: f64[784,w_1]) -> (f64[x_0,w_1])" in text([x, w], [T.dot(x, w)])


def test_arithmetic_on_sizes_stays_arithmetic():
    x = T.matrix("x")
    made = text([x], [x.reshape((x.shape[0] * 2, -1)), T.arange(x.shape[0] - 1)])
    assert "f64[2*x_0,((x_0*x_1)//(2*x_0))]" in made and "bind" not in made


def test_a_run_time_number_gets_a_name():
    n = T.iscalar("n")
    made = text([n], [T.zeros((n,)) + T.ones((n,))])
    assert made.count("bind") == 1 and "{size = s1}" in made


def test_what_cannot_be_decided_is_checked():
    x, y, n = T.vector("x"), T.vector("y"), T.lscalar("n")
    made = text([x, y, n], [x[:n] + y[:n]])
    assert "check_size" in made and "refine" in made


def test_two_sizes_of_one_value_are_not_turned_into_each_other_for_ever():
    x = T.matrix("x")
    square = T.zeros((x.shape[0], x.shape[0]))
    few = x[:3].shape[0]
    made = text([x], [T.inc_subtensor(square[:3, ::-1], T.zeros((few, few)))])  # the window's sizes: few, all
    assert made.count("check_size") == 1
