"""Graphs become IR: equal sizes one name, size arithmetic stays arithmetic, every op knows the user's line."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
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
    f = tcc.function([x, y, n], x[:n] + y[:n])
    assert f([1.0, 2, 3], [1.0, 2], 2).tolist() == [2, 4]
    with pytest.raises(ValueError, match="Input dimension mis-match"):
        f([1.0, 2, 3], [1.0, 2], 3)


def test_clones_of_a_shared_variable_are_one_parameter():
    w = tcc.shared(np.ones(2), "w")
    other = tcc.clone(w, share_inputs=False)
    made = text([], [w + other], updates=[(other, other * 2)])
    assert "(%w: f64[w_0])" in made and 'shared = ["w"], updates = {w = 1}' in made


def test_names_are_unique_and_plain():
    x, y = T.vector("a b"), T.vector("a b")
    assert "%a_b: f64[a_b_0], %a_b_1: f64[a_b_0]" in text([x, y], [x + y])


def test_indices_that_are_surely_right_are_not_checked():
    x = T.matrix("x", shape=(3, None))
    i = T.lvector("i")
    assert "check_index" not in text([x], [x[1], x[-3]])
    assert text([x, i], [x[i]]).count("check_index") == 1
    assert text([x, i], [x[:, i]]).count("check_index") == 1


def test_a_training_step_verifies():
    x, y = T.matrix("x"), T.ivector("y")
    w = tcc.shared(np.zeros((4, 3)), "w")
    cost = -T.mean(T.log(T.nnet.softmax(T.dot(x, w)))[T.arange(y.shape[0]), y])
    made = text([x, y], [cost], updates=[(w, w - 0.1 * tcc.grad(cost, w))])
    assert "f64[x_1,w_1]) -> (f64[], f64[x_1,w_1])" in made
