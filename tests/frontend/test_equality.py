from __future__ import annotations

import numpy as np

import tcc
import tcc.tensor as T
from tcc.equality import equal_computations, is_same_graph

x, y = T.dvectors("x", "y")


def test_structure_counts_and_inputs_are_themselves() -> None:
    assert is_same_graph(T.exp(x + 1), T.exp(x + 1))
    assert not is_same_graph(T.exp(x + 1), T.exp(y + 1))
    assert not is_same_graph(T.exp(x + 1), T.exp(x + 2))
    assert not is_same_graph(x + y, y + x)
    assert not is_same_graph(x.sum(), x.sum(keepdims=True))
    assert is_same_graph(x, x) and not is_same_graph(x, y)


def test_givens_are_replaced_on_both_sides() -> None:
    assert is_same_graph(x + 1, y + 1, givens={y: x})
    assert is_same_graph(x + 1, y + 1, givens=[(y, x)])


def test_inputs_that_stand_for_each_other() -> None:
    assert equal_computations([x + 1, x * x], [y + 1, y * y], in_xs=[x], in_ys=[y])
    assert not equal_computations([x + 1], [y + 1])


def test_constants_compare_by_value() -> None:
    a = np.arange(3.0)
    assert is_same_graph(x * a, x * a.copy())
    assert not is_same_graph(x * a, x * (a + 1))


def test_sizes_in_attributes() -> None:
    n = T.lscalar("n")
    assert is_same_graph(T.alloc(x[0], n), T.alloc(x[0], n))
    assert not is_same_graph(T.alloc(x[0], n), T.alloc(x[0], n + 1))


def test_loops_compare_by_what_they_do() -> None:
    def total(step: object) -> object:
        return tcc.scan(step, sequences=x, outputs_info=T.constant(0.0, dtype="float64"))[0]

    assert is_same_graph(total(lambda v, s: s + v * y[0]), total(lambda v, s: s + v * y[0]))
    assert not is_same_graph(total(lambda v, s: s + v * y[0]), total(lambda v, s: s + v * y[1]))
    assert not is_same_graph(total(lambda v, s: s + v), total(lambda v, s: v + s))


def test_a_deep_graph() -> None:
    def deep() -> object:
        v = x
        for _ in range(2000):
            v = v + 1
        return v

    assert is_same_graph(deep(), deep())
