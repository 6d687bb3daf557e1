"""bfloat16 as a dtype of variables: two bytes inside of functions and containers, float32 outside."""

import pickle

import numpy as np
import pytest
from lent import Lent

import tcc
import tcc.tensor as T
from tcc.ir.arrays import in_memory, rounded

MODES = ["FAST_RUN", "FAST_COMPILE", "DebugMode"]


@pytest.fixture
def values():
    return np.random.default_rng(3).normal(size=(5, 7)).astype(np.float32)


@pytest.mark.parametrize("mode", MODES)
def test_values_are_rounded_at_each_op_and_come_out_as_float32(values, mode):
    x = T.matrix("x", dtype="bfloat16")
    y = T.exp(x) * 2
    got = tcc.function([x], [y, x.sum(axis=0), T.dot(x, x.T)], mode=mode)(values)
    near = rounded(values)
    wide = near.astype(np.float64)
    assert y.dtype == "bfloat16" and all(a.dtype == np.float32 for a in got)
    np.testing.assert_array_equal(got[0], rounded(2 * rounded(np.exp(wide).astype(np.float32))))
    for a, b in zip(got[1:], [wide.sum(axis=0), wide @ wide.T]):
        np.testing.assert_allclose(a, b, rtol=2**-8, atol=1e-6)
        np.testing.assert_array_equal(a, rounded(a))


@pytest.mark.parametrize("mode", MODES)
def test_a_step_keeps_its_weights_in_two_bytes(values, mode):
    x = T.matrix("x", dtype="bfloat16")
    w = tcc.shared(np.ones((7, 3)), "w", dtype="bfloat16")
    cost = T.sqr(T.dot(x, w)).mean()
    gradient = tcc.grad(cost, w)
    step = tcc.function([x], cost, updates=[(w, w - T.cast(0.1, "bfloat16") * gradient)], mode=mode)
    costs = [float(step(values)) for _ in range(4)]
    assert gradient.dtype == "bfloat16" and costs == sorted(costs, reverse=True) and costs[3] < costs[0]
    assert w.container.dtype == np.uint16 and w.get_value().dtype == np.float32
    np.testing.assert_array_equal(w.get_value(), rounded(w.get_value()))


def test_arrays_of_other_frameworks_are_taken_as_they_are(values):
    x = T.matrix("x", dtype="bfloat16")
    f = tcc.function([x], x * 2)
    bits = in_memory(values, "bf16")
    np.testing.assert_array_equal(f(Lent(bits)), 2 * rounded(values))


def test_a_shared_variable_rounds_what_it_is_given_and_is_pickled(values):
    w = tcc.shared(np.zeros((1, 1), np.float32), "w", dtype="bfloat16")
    w.set_value(values)
    np.testing.assert_array_equal(w.get_value(), rounded(values))
    again = pickle.loads(pickle.dumps(w))
    assert again.type == w.type
    np.testing.assert_array_equal(again.get_value(), w.get_value())
    w.zero()
    assert not w.get_value().any() and w.get_value().shape == values.shape
    with pytest.raises(TypeError, match="float64 without risking loss"):
        w.set_value(values.astype(np.float64))


def test_dtypes_promote_as_the_ir_says():
    x = T.vector("x", dtype="bfloat16")
    others = {"float16": "float32", "float32": "float32", "float64": "float64", "int8": "bfloat16"}
    for other, wanted in others.items():
        assert (x + T.vector(dtype=other)).dtype == wanted
    assert T.constant(1.3, dtype="bfloat16").data == np.float32(1.296875)
    assert T.cast(1.3, "bfloat16").eval() == np.float32(1.296875)


def test_a_loop_and_its_gradient(values):
    x = T.matrix("x", dtype="bfloat16")
    states, _ = tcc.scan(lambda row, h: T.tanh(h + row), x, T.zeros((7,), "bfloat16"))
    got = tcc.function([x], [states[-1], tcc.grad(states.sum(), x)])(values)
    h = np.zeros(7, np.float32)
    for row in rounded(values):
        h = rounded(np.tanh(rounded(h + row)))
    np.testing.assert_allclose(got[0], h, rtol=2**-7)
    assert got[1].shape == values.shape and np.isfinite(got[1]).all()


def test_on_a_device(values):
    x = T.matrix("x", dtype="bfloat16")
    w = tcc.shared(values, "w", dtype="bfloat16")
    here, there = (
        tcc.function([x], T.tanh(x) * w, updates=[(w, w + x)], device=device)
        for device in ("cpu", "emulator")
    )
    for f in (here, there):
        w.set_value(values)
        f(values)
        first = f(values)
        if f is here:
            wanted, kept = first, w.get_value()
    np.testing.assert_array_equal(first, wanted)
    np.testing.assert_array_equal(w.get_value(), kept)


def test_user_written_ops_see_float32(values):
    class Doubled(tcc.Op):
        def make_node(self, x):
            return tcc.Apply(self, [x], [x.type()])

        def perform(self, node, inputs, outputs):
            assert inputs[0].dtype == np.float32
            outputs[0][0] = 2 * inputs[0]

    x = T.matrix("x", dtype="bfloat16")
    np.testing.assert_array_equal(tcc.function([x], Doubled()(x))(values), 2 * rounded(values))


def test_dtypes_that_there_are_none_of_are_refused_as_others_are():
    x = T.vector("x", dtype="float32")
    with pytest.raises(TypeError, match="cannot store a value of dtype float128"):
        tcc.function([x], x)(np.ones(3, np.longdouble))
