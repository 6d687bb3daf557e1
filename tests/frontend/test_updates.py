"""Updates, givens, default updates, shared variables."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T


@pytest.fixture
def w():
    return tcc.shared(np.array([1.0, 2.0]), "w")


def test_updates_see_old_values(w):
    v = tcc.shared(0.0, "v")
    f = tcc.function([], [w * 1, v * 1], updates=[(w, w + 1), (v, w.sum() * 2)])
    held, old = f()
    assert held.tolist() == [1, 2] and old == 0
    assert w.get_value().tolist() == [2, 3] and v.get_value() == 6


@pytest.mark.parametrize("form", [list, tuple, dict, lambda pairs: dict(pairs).items()])
def test_forms_of_updates(w, form):
    tcc.function([], [], updates=form([(w, w * 2)]))()
    assert w.get_value().tolist() == [2, 4]


def test_a_duplicate_target(w):
    with pytest.raises(ValueError) as e:
        tcc.function([], [], updates=[(w, w + 1), (w, w * 2)])
    assert e.value.args[0] == "this shared variable already has an update expression"
    assert e.value.args[1][0] is w


def test_types_must_match(w):
    s = tcc.shared(np.float32(0), "s")
    with pytest.raises(TypeError, match="An update must have the same type as the original shared variable"):
        tcc.function([], [], updates=[(s, s * np.float64(0.1))])
    with pytest.raises(TypeError, match="SharedVariable"):
        tcc.function([], [], updates=[(T.scalar(), w)])
    tcc.function([], [], updates=[(s, 5)])()
    assert s.get_value() == 5 and s.get_value().dtype == "float32"


def test_an_update_may_change_sizes(w):
    tcc.function([], [], updates=[(w, T.concatenate([w, w]))])()
    assert w.get_value().tolist() == [1, 2, 1, 2]


def test_default_updates_are_applied_unless_given(w):
    w.default_update = w + 1
    f = tcc.function([], w * 1)
    f()
    assert w.get_value().tolist() == [2, 3]
    tcc.function([], w * 1, updates=[(w, w * 10)])()
    assert w.get_value().tolist() == [20, 30]
    tcc.function([], w * 1, no_default_updates=True)()
    tcc.function([], w * 1, no_default_updates=[w])()
    assert w.get_value().tolist() == [20, 30]


def test_default_updates_are_collected_on_the_graph_as_written(w):
    w.default_update = w + 1
    x = T.scalar("x")
    tcc.function([x], x + 0 * w.sum())(1)
    assert w.get_value().tolist() == [2, 3]


def test_default_updates_reach_through_updates_and_givens(w):
    v, x = tcc.shared(0.0, "v"), T.vector("x")
    w.default_update = w + 1
    tcc.function([], [], updates=[(v, w.sum())])()
    assert w.get_value().tolist() == [2, 3]
    tcc.function([], x.sum(), givens={x: w})()
    assert w.get_value().tolist() == [3, 4]


def test_givens_by_index():
    data = tcc.shared(np.arange(20.0).reshape(10, 2))
    x, i = T.matrix("x"), T.lscalar("i")
    for pairs in ({x: data[i * 3 : (i + 1) * 3]}, [(x, data[i * 3 : (i + 1) * 3])]):
        f = tcc.function([i], x.sum(axis=1), givens=pairs)
        assert f(1).tolist() == [13, 17, 21]
        assert f(3).tolist() == [37]
        assert f(4).tolist() == []


def test_givens_replace_any_variable(w):
    x = T.vector("x")
    y = x * 2
    z = y + 1
    assert tcc.function([], z, givens={y: np.array([10.0])})().tolist() == [11]
    assert tcc.function([], z, givens={y: w})().tolist() == [2, 3]
    assert tcc.function([], w * 3, givens={w: np.ones(2)})().tolist() == [3, 3]


def test_givens_rewrite_updates_too(w):
    x = T.vector("x")
    tcc.function([], [], updates=[(w, w + x)], givens={x: np.array([5.0, 5.0])})()
    assert w.get_value().tolist() == [6, 7]


def test_givens_must_fit():
    x = T.fvector("x")
    with pytest.raises(TypeError):
        tcc.function([], x * 1, givens={x: np.ones(2)})
    with pytest.raises(RuntimeError, match="replace variable x through the `givens` parameter"):
        tcc.function([x], x * 1, givens={x: x * 2})


def test_borrow_aliases():
    mine = np.zeros(2)
    copied, held = tcc.shared(mine), tcc.shared(mine, borrow=True)
    mine[0] = 7
    assert copied.get_value()[0] == 0 and held.get_value(borrow=True)[0] == 7
    got = held.get_value()
    got[1] = 5
    assert held.get_value()[1] == 0


def test_get_value_takes_any_truth(w):
    assert w.get_value(w) is w.get_value(borrow=True)


def test_set_value():
    s = tcc.shared(np.ones((2, 3), "float32"), "s")
    s.set_value(np.ones((5, 7), "float32"))
    assert s.get_value().shape == (5, 7)
    s.set_value([[1, 2]])
    assert s.get_value().tolist() == [[1, 2]]
    with pytest.raises(TypeError, match='Container name "s"'):
        s.set_value(np.ones((2, 2)))
    with pytest.raises(TypeError):
        s.set_value(np.ones(2, "float32"))
    with pytest.raises(Exception, match="get_value"):
        s.value  # noqa: B018


def test_broadcastable_is_of_as_many_axes_as_the_value():
    for value, flags in ((np.ones(3), (True, False)), (np.ones((1, 3)), (True,))):
        with pytest.raises(TypeError, match=rf"expected {len(flags)}, .* got {value.ndim} with shape"):
            tcc.shared(value, broadcastable=flags)


def test_a_function_sees_a_new_shape(w):
    f = tcc.function([], w.sum())
    assert f() == 3
    w.set_value(np.ones(5))
    assert f() == 5


def test_a_clone_shares_the_container(w):
    other = tcc.clone(w, share_inputs=False)
    assert other is not w and other.container is w.container
    tcc.function([], [], updates=[(other, other + 1)])()
    assert w.get_value().tolist() == [2, 3]
    assert tcc.function([], (w + other).sum())() == 10


def test_clone_replaces(w):
    x, y = T.vectors("x", "y")
    z = x * 2 + w
    made = tcc.clone(z, replace={x: y + 1})
    assert made.eval({y: [1.0, 1.0]}).tolist() == [5, 6]
    both = tcc.clone([z, x * 2], replace=[(x, y)])
    assert both[1].eval({y: [3.0]}).tolist() == [6]


def test_an_error_leaves_the_shared_variable_alone(w):
    i = T.lscalar("i")
    f = tcc.function([i], w[i], updates=[(w, w + 1)])
    with pytest.raises(IndexError):
        f(5)
    assert w.get_value().tolist() == [1, 2]


def test_integer_arrays_as_shared_targets():
    t = tcc.shared(np.array([1, 0, 2]))
    y = T.cast(t, "int32")
    x = T.matrix("x")
    assert x[T.arange(3), y].eval({x: np.arange(9.0).reshape(3, 3)}).tolist() == [1, 3, 8]


def test_what_givens_replace_is_not_updated():
    a, b = tcc.shared(1.0, "a"), T.dscalar("b")
    a.default_update = a + 3
    assert tcc.function([b], a + 10, givens={a: b})(5) == 15 and a.get_value() == 1
    f = tcc.function([], a + 10, givens={a: a + 10})  # which hangs on it, too
    assert f() == 21 and a.get_value() == 14
