"""One of two branches."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T


class Counts(tcc.Op):
    """x, counting how often it is computed."""

    __props__ = ()
    runs = 0

    def make_node(self, x):
        return tcc.Apply(self, [x], [x.type()])

    def infer_shape(self, node, shapes):
        return shapes

    def perform(self, node, inputs, output_storage):
        Counts.runs += 1
        output_storage[0][0] = inputs[0].copy()


def test_only_one_branch_runs():
    c, x = T.iscalar(), T.vector()
    f = tcc.function([c, x], tcc.ifelse(c, Counts()(x) + 1, x * 2))
    Counts.runs = 0
    assert f(0, [1.0, 2.0]).tolist() == [2, 4] and Counts.runs == 0
    assert f(3, [1.0, 2.0]).tolist() == [2, 3] and Counts.runs == 1


class Repeats(tcc.Op):
    """x, as often as its first element says, which is known when it has run."""

    __props__ = ()

    def make_node(self, x):
        return tcc.Apply(self, [x], [x.type()])

    def perform(self, node, inputs, output_storage):
        Counts.runs += 1
        output_storage[0][0] = np.tile(inputs[0], int(inputs[0][0]))


def test_an_op_whose_size_is_asked_first_runs_once():
    c, x, m = T.iscalar(), T.vector(), T.matrix()
    cases = {
        "of its own": (tcc.ifelse(c, Repeats()(x), Repeats()(x + 1)), [2, 3, 2, 3], [3, 4, 3, 4, 3, 4]),
        "of what reads it": (tcc.ifelse(c, Counts()(x)[Counts()(x) > 2], x), [3], [2, 3]),
        "of two": (tcc.ifelse(c, Repeats()(Counts()(x) - 1), Repeats()(x)), [1, 2], [2, 3, 2, 3]),
    }
    for name, (made, *wanted) in cases.items():
        f = tcc.function([c, x], made)
        for taken, values in zip((1, 0, 1), (*wanted, wanted[0])):
            Counts.runs = 0
            assert f(taken, [2.0, 3.0]).tolist() == values, name
            assert Counts.runs == {"of two": 1 + taken, "of what reads it": taken}.get(name, 1), name
    inner = tcc.ifelse(c > 1, Repeats()(x), tcc.ifelse(c > 0, Counts()(x), x[1:]))
    f = tcc.function([c, x], tcc.ifelse(c, inner[inner > 2], x))
    for taken, wanted, runs in ((2, [3, 3], 1), (1, [3], 1), (-1, [3], 0), (0, [2, 3], 0), (2, [3, 3], 1)):
        Counts.runs = 0
        assert f(taken, [2.0, 3.0]).tolist() == wanted and Counts.runs == runs, taken
    rows, _ = tcc.scan(lambda row: tcc.ifelse(row[0] > 1, Repeats()(row), row).sum(), sequences=m)
    Counts.runs = 0
    assert rows.eval({m: [[2.0, 3.0], [1.0, 9.0], [3.0, 1.0]]}).tolist() == [10, 10, 12] and Counts.runs == 2


def test_steps_of_a_loop_in_a_branch_have_results_of_their_own():
    c, m = T.iscalar(), T.matrix()
    sums, _ = tcc.scan(lambda row: Repeats()(row).sum(), sequences=m)
    f = tcc.function([c, m], tcc.ifelse(c, sums[sums > 10], m[0]))
    values = [[2.0, 3.5], [1.0, 8.0], [3.0, 1.0]]
    assert f(1, values).tolist() == [11, 12]
    assert f(0, values).tolist() == [2, 3.5]


def test_only_the_branch_that_runs_can_fail():
    x, y = T.vector(), T.vector()
    f = tcc.function([x, y], tcc.ifelse(T.gt(x.shape[0], 0), x[0] + (x + y).sum(), y.sum()))
    assert f([], [1.0, 2.0]) == 3
    assert f([1.0, 2.0], [1.0, 2.0]) == 7
    with pytest.raises(ValueError, match="mis-match"):
        f([1.0, 2.0], [1.0, 2.0, 3.0])


def test_sizes_may_differ():
    c, x, y = T.bscalar(), T.matrix(), T.matrix()
    f = tcc.function([c, x, y], tcc.ifelse(c, T.exp(x), y) + 1)
    a, b = np.ones((2, 3)), np.zeros((4, 1))
    np.testing.assert_allclose(f(1, a, b), np.exp(a) + 1)
    np.testing.assert_allclose(f(0, a, b), b + 1)


def test_a_branch_whose_sizes_hang_on_data_prints_once(capsys):
    c, x = T.bscalar(), T.vector()
    shown = tcc.printing.Print("x")(x)
    f = tcc.function([c, x], tcc.ifelse(c, shown[shown > 0] * 2, x))
    assert f(1, [1.0, -2.0, 3.0]).tolist() == [2, 6] and f(0, [1.0, -2.0]).tolist() == [1, -2]
    assert capsys.readouterr().out.count("x __str__") == 1


def test_several_outputs_and_what_both_read():
    c, x = T.scalar(), T.vector()
    both = T.tanh(x)
    a, b = tcc.ifelse(c, [both + 1, x[0]], [both * 2, x[-1]])
    f = tcc.function([c, x], [a, b, both])
    v = np.array([0.5, -1.0, 2.0])
    for flag, wants in ((1.5, [np.tanh(v) + 1, 0.5]), (0.0, [np.tanh(v) * 2, 2.0])):
        for made, want in zip(f(flag, v), [*wants, np.tanh(v)]):
            np.testing.assert_allclose(made, want)


def test_gradient():
    c, x, w = T.iscalar(), T.vector(), T.vector()
    cost = tcc.ifelse(c, (x * w) ** 2, T.sin(x)).sum()
    f = tcc.function([c, x, w], tcc.grad(cost, [x, w]))
    v, m = np.array([0.3, 1.0]), np.array([2.0, -1.0])
    gx, gw = f(1, v, m)
    np.testing.assert_allclose(gx, 2 * v * m * m)
    np.testing.assert_allclose(gw, 2 * v * v * m)
    gx, gw = f(0, v, m)
    np.testing.assert_allclose(gx, np.cos(v))
    assert gw.tolist() == [0, 0]


def test_nested_and_inside_scan():
    x = T.vector()

    def step(a, h):
        inner = tcc.ifelse(T.lt(a, 5), T.sin(a) * h, h)
        return tcc.ifelse(T.gt(a, 0), inner, -h)

    hs, _ = tcc.scan(step, [x], [T.ones(())])
    f = tcc.function([x], [hs, tcc.grad(hs.sum(), x)])
    v = np.array([1.0, -2.0, 7.0, 3.0])
    made, g = f(v)
    want = [np.sin(1.0)]
    want += [-want[0], -want[0], -want[0] * np.sin(3.0)]
    np.testing.assert_allclose(made, want)
    np.testing.assert_allclose(g, [np.cos(1.0) * (1 - 1 - 1 - np.sin(3.0)), 0, 0, -np.sin(1.0) * np.cos(3.0)])


def test_an_update():
    c, s = T.iscalar(), tcc.shared(np.arange(3.0))
    f = tcc.function([c], s.sum(), updates=[(s, tcc.ifelse(c, s * 2, s))])
    assert [f(1), f(0), f(1)] == [3, 6, 6]
    assert s.get_value().tolist() == [0, 4, 8]


def test_a_constant_condition_through_givens():
    c, x = T.scalar(dtype="uint8"), T.vector()
    y = tcc.ifelse(c, x * 2, x)
    assert tcc.function([x], y, givens={c: np.uint8(1)})([1.0]).tolist() == [2]


def test_branches_that_do_not_fit():
    with pytest.raises(TypeError, match="identical types"):
        tcc.ifelse(1, T.vector(), T.matrix())
    with pytest.raises(ValueError, match="number of values"):
        tcc.ifelse(1, [T.vector()], [T.vector(), T.vector()])
    with pytest.raises(TypeError, match="must be a scalar"):
        tcc.ifelse(T.vector(), T.vector(), T.vector())
