"""What Theano refuses later, names otherwise or checks when it is asked to, on programs of our own."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from scipy import signal

import tcc
import tcc.tensor as T
import tcc.theano
from tcc.modes import BadDestroyMap, BadViewMap, DebugMode, InvalidValueError
from tcc.types import TensorType

theano = tcc.theano.install()
x = T.dvector("x")


@pytest.mark.parametrize(("a", "b"), [((3,), (4,)), ((2, 3), (4,)), ((2, 3), (2, 5)), ((2, 3), (2, 4, 5))])
def test_constants_that_do_not_fit_are_refused_by_the_function(a: Any, b: Any) -> None:
    wrong = theano.dot(np.ones(a), np.ones(b))
    with pytest.raises(ValueError):
        theano.function([], wrong)()
    assert theano.dot(np.ones(3), np.arange(3.0)).eval() == 3


class Careless(tcc.Op):
    """x, or a part of it, as it lies, or changed."""

    __props__ = ("how",)

    def __init__(self, how: str) -> None:
        self.how = how

    def make_node(self, v: Any) -> Any:
        return tcc.Apply(self, [v], [v.type()])

    def infer_shape(self, node: Any, shapes: Any) -> Any:
        return shapes

    def perform(self, node: Any, inputs: Any, output_storage: Any) -> None:
        (v,) = inputs
        if self.how == "write":
            v += 1
            v = v.copy()
        output_storage[0][0] = v[::-1] if self.how == "view" else v


def test_debug_mode_looks_at_what_ops_do_to_their_inputs() -> None:
    for how, error in (("view", BadViewMap), ("same", BadViewMap), ("write", BadDestroyMap)):
        f = tcc.function([x], Careless(how)(x), mode=DebugMode())
        with pytest.raises(error, match=f"input 0.*{'view' if error is BadViewMap else 'destroy'}_map"):
            f([1.0, 2.0])


class Unsized(Careless):
    infer_shape: Any = None


def test_debug_mode_looks_at_ops_whose_sizes_are_not_known() -> None:
    for how, error in (("same", BadViewMap), ("write", BadDestroyMap)):
        with pytest.raises(error):
            tcc.function([x], Unsized(how)(x), mode=DebugMode())([1.0, 2.0])
    assert tcc.function([x], Unsized("same")(x))([1.0, 2.0]).tolist() == [1, 2]


def test_debug_mode_believes_what_ops_say() -> None:
    said = Careless("view")
    said.view_map = {0: [0]}  # type: ignore[attr-defined]
    assert tcc.function([x], said(x), mode=DebugMode())([1.0, 2.0]).tolist() == [2, 1]
    owned = Careless("write")
    owned.destroy_map = {0: [0]}  # type: ignore[attr-defined]
    f = tcc.function([tcc.In(x, mutable=True)], owned(x), mode=DebugMode())
    assert f(np.array([1.0, 2.0])).tolist() == [2, 3]


def test_debug_mode_wants_finite_numbers_unless_told_otherwise() -> None:
    f = tcc.function([x], x * 2, mode="DebugMode")
    assert f([1.0]).tolist() == [2]
    with pytest.raises(InvalidValueError):
        f([np.inf])
    assert tcc.function([x], x * 2, mode=DebugMode(check_isfinite=False))([np.inf]).tolist() == [np.inf]


def test_types_may_refuse_what_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorType, "filter_checks_isfinite", True)
    f = tcc.function([x], x + 1)
    assert f([1.0]).tolist() == [2]
    with pytest.raises(ValueError, match="non-finite"):
        f([np.nan])


@pytest.mark.parametrize("images", [(6, 7), (2, 6, 7)])
@pytest.mark.parametrize("filters", [(3, 2), (4, 3, 2)])
@pytest.mark.parametrize("mode", ["valid", "full"])
def test_convolution_without_channels(images: Any, filters: Any, mode: str) -> None:
    conv = importlib.import_module("theano.tensor.signal.conv")
    rng = np.random.default_rng(0)
    a, w = rng.normal(size=images), rng.normal(size=filters)
    v, u = (T.TensorType("float64", (False,) * p.ndim)() for p in (a, w))
    made = tcc.function([v, u], conv.conv2d(v, u, images, filters, mode, (2, 1)))(a, w)
    want = np.array(
        [[signal.convolve2d(i, k, mode)[::2] for k in w.reshape(-1, 3, 2)] for i in a.reshape(-1, 6, 7)]
    )
    np.testing.assert_allclose(made, want.reshape(*images[:-2], *filters[:-2], *want.shape[-2:]), rtol=1e-12)
    with pytest.raises(TypeError, match="2 or 3 axes"):
        conv.conv2d(T.dvector(), u)


def test_ranges_are_numpys_to_the_last_bit() -> None:
    a, b, c = T.dscalars("a", "b", "c")
    f = tcc.function([a, b, c], T.arange(a, b, c))
    for bounds in ((-5, 1.1, 1.2), (1.3, 2, -2.1), (0.1, 7, 0.3), (2, 2, 1)):
        np.testing.assert_array_equal(f(*bounds), np.arange(*bounds))
    assert T.arange(T.fscalar()).dtype == "float32" and T.arange(T.iscalar(), T.fscalar()).dtype == "float64"
    slopes = tcc.function([a, b, c], tcc.grad(T.arange(a, b, c).sum(), [a, c]))
    assert [float(g) for g in slopes(1.0, 4.5, 1.0)] == [4, 6]


def test_small_things_as_theano_has_them() -> None:
    v = T.row("v")
    assert T.unbroadcast(T.addbroadcast(x, 0), 0) is x and T.addbroadcast(T.unbroadcast(v, 0), 0) is v
    assert T.stack(tensors=[x, x], axis=1).type.ndim == 2
    with pytest.raises(TypeError, match="stack takes"):
        T.stack(values=[x])
    z = T.zmatrix()
    assert z.real.dtype == z.imag.dtype == "float64"
    n = T.dscalar()
    assert int(tcc.function([n], n.size)(3.0)) == 1
    p = T.bvector()
    inverse = tcc.function([p], T.inverse_permutation(p))(np.array([2, 0, 1], "int8"))
    assert inverse.dtype == "int8" and inverse.tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match="integers"):
        T.tile(x, 2.5)
    with tcc.config.change_flags(floatX="float32"):
        assert T.as_tensor_variable([]).dtype == "float32"
    assert T.as_tensor_variable(np.zeros(0)).dtype == "float64"
    assert T.constant(2.0).equals(T.constant(2.0)) and not T.constant(2.0).equals(T.constant(2))


def test_constants_behind_expressions() -> None:
    get, missing = theano.tensor.get_scalar_constant_value, theano.tensor.NotScalarConstantError
    n = T.lscalar()
    v = T.stack([n, 2, 3])
    assert get(v[1]) == 2 and get(v[np.int64(2)]) == 3
    for unknown in (v[0], v[n], T.stack([1, 2])):
        with pytest.raises(missing):
            get(unknown)
    with pytest.raises(theano.tensor.basic.EmptyConstantError):
        get(np.zeros(0))
    with pytest.raises(missing):
        get(tcc.debug.Assert()(T.constant(2), T.constant(0)))


def test_names_of_numbers() -> None:
    scalar = importlib.import_module("theano.scalar")
    a, b = scalar.floats("ab")
    assert a.name == "a" and b.type == T.dscalar().type and scalar.ints("n").dtype == "int64"
    assert {t.dtype for t in scalar.all_types} >= {"int8", "float16", "complex128"}
    assert [str(t) for t in scalar.float_types] == ["float16", "float32", "float64"]
    assert scalar.float16().dtype == "float16" and scalar.Scalar("uint8") == scalar.uint8
    from theano.compile.pfunc import pfunc  # type: ignore[import-not-found]

    with pytest.raises(scalar.ComplexError):
        T.zscalar() % 2
    assert float(pfunc(params=[a], outputs=a + 1)(1.0)) == 2


def test_sums_of_floats_as_integers() -> None:
    m = T.fmatrix()
    a = np.array([[1.4, 2.4, 3.4], [0.5, -4.25, 7.0]], "float32")
    made = tcc.function([m], [m.sum(axis=1, dtype="int16"), m.prod(dtype="int64"), m.sum(dtype="uint8")])(a)
    exact = a.astype("float64")
    assert made[0].dtype == "int16" and made[0].tolist() == [7, 3]
    assert int(made[1]) == int(exact.prod()) and int(made[2]) == int(exact.sum())
    with pytest.raises(TypeError, match="real part"):
        T.zvector().sum(dtype="int64")


def test_branches_of_objects() -> None:
    from tcc.types import generic, none_type

    c, g, h = T.lscalar(), generic("g"), generic("h")
    f = tcc.function([c, g, h], tcc.ifelse(c, g, h))
    assert f(1, ["a"], {"b": 2}) == ["a"] and f(0, ["a"], {"b": 2}) == {"b": 2}
    both = tcc.function([c, g, h, x], tcc.ifelse(c, [g, x], [h, x * 2]))(0, 1, "h", [1.0])
    assert both[0] == "h" and both[1].tolist() == [2]
    for other in (x, none_type("n")):
        with pytest.raises(TypeError, match="identical types"):
            tcc.ifelse(c, g, other)


def test_states_of_generators_compare() -> None:
    from tcc.tensor.raw_random import random_state_type, uniform

    rng = random_state_type()
    after, _ = uniform(rng, (2,))
    f = tcc.function([rng], after)
    given, want = np.random.RandomState(3), np.random.RandomState(3)
    want.uniform(size=2)
    assert random_state_type.values_eq(f(given), want)
    assert not random_state_type.values_eq(f(given), given)


def test_gradients_of_what_overwrites_its_input() -> None:
    from theano.tensor import inplace  # type: ignore[import-not-found]

    T.verify_grad(inplace.exp_inplace, [np.array([0.5, 1.5])], rng=np.random.RandomState(0))


def test_one_draw_without_replacement_is_a_column() -> None:
    from tcc.sandbox.rng_mrg import MRG_RandomStreams

    stream, p = MRG_RandomStreams(5), np.array([[0.2, 0.8], [1.0, 0.0]])
    one, two = (stream.multinomial_wo_replacement(pvals=p, n=n) for n in (1, 2))
    assert one.broadcastable == (False, True) and two.broadcastable == (False, False)
    drawn = tcc.function([], one + T.zeros((2, 3), "int64"))()
    assert drawn.shape == (2, 3) and drawn[1].tolist() == [0, 0, 0]
