"""One function called with many sizes: how often it compiles, and why."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T

RNG = np.random.default_rng(0)


def likelihood():
    x, y = T.fmatrix("x"), T.ivector("y")
    cost = -T.mean(T.log(T.nnet.softmax(x))[T.arange(y.shape[0]), y])
    return tcc.function([x, y], [cost, T.grad(cost, x)])


def batch(n: int, labels: int | None = None):
    return RNG.standard_normal((n, 10)).astype("f"), RNG.integers(0, 10, labels or n).astype("i4")


def test_fifty_batch_sizes_compile_twice_and_the_history_says_why():
    f = likelihood()
    for n in range(1, 51):
        f(*batch(n))
    assert [h.reason for h in f.program.history] == ["first call", "x_0, y_0 changed"]
    assert f.program.history[1].varying == ("x_0", "y_0")


def test_fifty_lengths_of_a_sequence_compile_twice():
    w, x = tcc.shared(np.eye(3, dtype="f")), T.ftensor3("x")
    hs, _ = tcc.scan(lambda a, h: T.tanh(a + T.dot(h, w)), [x], [T.zeros((x.shape[1], 3), dtype="float32")])
    f = tcc.function([x], T.grad(hs[-1].sum(), w))
    for steps in range(2, 52):
        f(np.ones((steps, 4, 3), "f"))
    assert [h.reason for h in f.program.history] == ["first call", "x_0 changed"]


def test_sizes_that_always_were_equal_go_by_one_name_until_a_call_says_otherwise():
    f = likelihood()
    f(*batch(3))
    f(*batch(5))
    assert f.program.alike() == {"y_0": tcc.ir.dims.name("x_0")}
    x, y = batch(6, 4)
    cost, grad = f(x, y)
    shifted = x.astype("f8") - x.max(1, keepdims=True)
    p = np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)
    np.testing.assert_allclose(cost, -np.log(p[np.arange(4), y]).mean(), rtol=1e-5)
    assert not grad[4:].any() and grad[:4].any()
    assert len(f.program.history) == 3 and f.program.alike() == {}
    f(*batch(9, 2))
    assert len(f.program.history) == 3


def test_any_size_code_and_exact_code_agree_to_the_bit():
    f, g = likelihood(), likelihood()
    f(*batch(2))
    x, y = batch(7)
    for varying, exact in zip(f(x, y), g(x, y), strict=True):
        np.testing.assert_array_equal(varying, exact)


def test_a_sum_far_from_the_caches_has_the_same_bits_when_its_size_is_a_name():
    values = RNG.standard_normal(600_011).astype("f")
    x = T.fvector("x")
    known, named = tcc.function([x], x.sum()), tcc.function([x], x.sum())
    named(values[:5])
    named(values[:7])
    assert known(values) == named(values)
    assert np.isclose(known(values), values.sum(dtype="f8"), rtol=1e-6)


def test_a_reshape_whose_totals_become_plain_names():
    x, n, k = T.matrix("x"), T.lscalar("n"), T.lscalar("k")
    f = tcc.function([x, n, k], x.reshape((n, k)) * 2)
    g = tcc.function([x, n], (x * 2).reshape((n, 1)) + 1)
    for shape in ((1, 6), (6, 1), (2, 3)):
        assert f(np.ones(shape), 3, 2).tolist() == [[2, 2]] * 3
        assert g(np.ones(shape), 6).shape == (6, 1)
        with pytest.raises(ValueError, match="Reshape"):
            f(np.ones(shape), 3, 3)
