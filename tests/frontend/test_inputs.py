"""Inputs that keep their values, other objects as inputs, and the options of a function."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.profiling
import tcc.tensor as T
from tcc.types import generic, none_type


def test_an_input_with_an_update_keeps_its_value() -> None:
    x, s = T.dscalars("x", "s")
    f = tcc.function([x, tcc.In(s, value=10.0, update=s + x)], s * 2)
    assert [float(f(1)), float(f(2))] == [20, 22]
    assert float(f["s"]) == float(f[s]) == 13
    assert float(f(1, s=0)) == 0 and float(f["s"]) == 1
    f["s"] = 5
    assert float(f(0)) == 10
    with pytest.raises(KeyError):
        f["y"]
    with pytest.raises(TypeError):
        f["s"] = np.ones(2)


def test_an_update_is_made_of_old_values() -> None:
    a, b = T.dscalars("a", "b")
    w = tcc.shared(1.0, "w")
    f = tcc.function(
        [tcc.In(a, value=1.0, update=b), tcc.In(b, value=2.0, update=a)], [a, b], updates=[(w, w + a)]
    )
    assert [[float(v) for v in f()] for _ in range(3)] == [[1, 2], [2, 1], [1, 2]]
    assert w.get_value() == 5


def test_an_update_without_a_value_needs_one_first() -> None:
    s = T.dvector("s")
    f = tcc.function([tcc.In(s, update=s * 2)], [])
    with pytest.raises(TypeError, match="Missing required input: s"):
        f()
    assert f([1.0, 2.0]) == [] and f["s"].tolist() == [2, 4]
    f()
    assert f["s"].tolist() == [4, 8]
    with pytest.raises(TypeError, match="update of the input"):
        tcc.In(s, update=T.dmatrix())


def test_functions_with_state_are_copied_and_pickled() -> None:
    s, g = T.dscalar("s"), tcc.shared(2.0, "g")
    f = tcc.function([tcc.In(s, value=1.0, update=s * g)], s)
    assert [float(f()), float(f())] == [1, 2]
    again = pickle.loads(pickle.dumps(f))
    assert float(again()) == 4 and float(f()) == 4  # with the value that it had
    other = tcc.shared(3.0, "h")
    swapped = f.copy(swap={g: other})
    assert [float(swapped()), float(swapped())] == [8, 24]
    assert float(copy.copy(f)()) == 8 and float(f()) == 8


class Size(tcc.Op):
    """How long an object is, as a float, and the object itself."""

    __props__ = ()

    def make_node(self, x: Any) -> Any:
        return tcc.Apply(self, [x], [T.dscalar(), generic()])

    def perform(self, node: Any, inputs: Any, output_storage: Any) -> None:
        output_storage[0][0] = np.float64(len(inputs[0]))
        output_storage[1][0] = inputs[0]


def test_objects_as_inputs_and_outputs() -> None:
    g = generic("g")
    size, same = Size()(g)
    f = tcc.function([g], [size * 2, same])
    word = ["a", "b", "c"]
    assert f(word)[0] == 6 and f(word)[1] is word and float(f("word")[0]) == 8
    held = tcc.shared(["x"], "held")
    h = tcc.function([], Size()(held)[0] + 1)
    assert h() == 2
    held.set_value(["x", "y"])
    assert h() == 3
    with pytest.raises(TypeError, match="len"):
        f(3)
    assert float(f("a")[0]) == 2
    n = none_type("n")
    with pytest.raises(TypeError, match="Expected None"):
        tcc.function([n], Size()(n)[0])(3)


def test_defaults_names_and_unused_inputs() -> None:
    x, y = T.dscalars("x", "y")
    f = tcc.function([tcc.In(x, name="first"), tcc.In(y, value=2.0)], x * y)
    assert f(first=3) == 6 and f(3, y=4) == 12
    with pytest.raises(TypeError, match="Missing required input: first"):
        f(y=1)
    with pytest.raises(tcc.UnusedInputError):
        tcc.function([x, y], x)
    with pytest.warns(UserWarning, match="not part of the computational graph"):
        tcc.function([x, y], x, on_unused_input="warn")
    assert tcc.function([x, y], x, on_unused_input="ignore")(1, 2) == 1


def test_givens_of_another_type_unless_rebuilding_is_strict() -> None:
    x, f = T.dvector("x"), T.fvector("f")
    with pytest.raises(TypeError):
        tcc.function([f], x * 2, givens={x: f})
    assert tcc.function([f], x * 2, givens={x: f}, rebuild_strict=False)([1.0]).tolist() == [2]


def test_outputs_that_are_shared_or_given_are_copies() -> None:
    w, x = tcc.shared(np.ones(3), "w"), T.dvector("x")
    f = tcc.function([x], [w, x, tcc.Out(x + w, borrow=True)])
    given = np.zeros(3)
    one, two, _ = f(given)
    one[0] = two[0] = 9
    assert w.get_value()[0] == 1 and given[0] == 0


def test_calls_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    x = T.dscalar("x")
    f = tcc.function([x], x * 2, profile=True, name="twice")
    assert f(1) == 2 and f(x=2) == 4
    f.profile.summary()
    text = capsys.readouterr().err
    assert "Message: twice" in text and "in 2 calls" in text and f.profile.fct_call_time > 0
    assert not tcc.function([x], x, profile=False).profile
    with tcc.change_flags(profile=True):
        assert tcc.function([x], x).profile.fct_callcount == 0
    both = tcc.profiling.ProfileStats("both")
    g, h = (tcc.function([x], x + k, profile=both) for k in (1, 2))
    g(1)
    h(1)
    assert both.fct_callcount == 2 and float(pickle.loads(pickle.dumps(g))(1)) == 2


def test_arrays_from_files(tmp_path: Any) -> None:
    path, file = generic("path"), str(tmp_path / "a.npy")
    np.save(file, np.arange(5))
    for mode in (None, "c"):
        f = tcc.function([path], T.load(path, "int64", (False,), mmap_mode=mode) * 2)
        assert f(file).tolist() == [0, 2, 4, 6, 8]
    g = tcc.function([], T.load(file, "int64", (False,)).sum())
    assert g() == 10
    np.save(file, np.arange(3))
    assert g() == 3
    np.save(file, np.ones((2, 2)))
    with pytest.raises(TypeError, match="Trying to load an array of dtype float64 with 2 axes"):
        g()
    with pytest.raises(FileNotFoundError):
        f(str(tmp_path / "none.npy"))
    with pytest.raises(ValueError, match="mmap_mode"):
        T.load(path, "int64", (False,), mmap_mode="w+")
    with pytest.raises(TypeError, match="path"):
        T.load(T.dscalar(), "int64", (False,))


class Double(tcc.Op):
    """2 x, with a directional derivative of its own that tells that it was asked."""

    __props__ = ()

    def make_node(self, x: Any) -> Any:
        x = T.as_tensor_variable(x)
        return tcc.Apply(self, [x], [x.type()])

    def perform(self, node: Any, inputs: Any, output_storage: Any) -> None:
        output_storage[0][0] = 2 * inputs[0]

    def infer_shape(self, node: Any, shapes: Any) -> Any:
        return shapes

    def R_op(self, inputs: Any, eval_points: Any) -> Any:
        return [None if eval_points[0] is None else eval_points[0] * 2]


def test_an_ops_own_directional_derivative() -> None:
    x, v = T.dvectors("x", "v")
    made = T.sin(Double()(x))
    f = tcc.function([x, v], tcc.Rop(made, x, v))
    a, b = np.array([0.1, 0.2]), np.array([1.0, -1.0])
    np.testing.assert_allclose(f(a, b), np.cos(2 * a) * 2 * b)
    with pytest.raises(tcc.gradient.NullTypeGradError):
        tcc.grad(made.sum(), x)
