"""Gradients through loops, against finite differences of the same program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T

RNG = np.random.default_rng(0)


def checked(build: Callable[..., Any], *values: Any, order: int = 1) -> list[Any]:
    """The gradients of a scalar program by its float arguments, which agree with finite differences."""
    given = [np.asarray(v) for v in values]
    inputs = [T.TensorType(v.dtype, (False,) * v.ndim)() for v in given]
    cost = build(*inputs)
    wrt = [v for v in inputs if v.dtype == "float64"]
    for _ in range(order - 1):
        cost = sum((g**2).sum() for g in tcc.grad(cost, wrt))
    value = tcc.function(inputs, cost, on_unused_input="ignore")
    made: list[Any] = tcc.function(inputs, tcc.grad(cost, wrt), on_unused_input="ignore")(*given)
    floats = [k for k, v in enumerate(given) if v.dtype == np.float64]
    for k, g in zip(floats, made):
        np.testing.assert_allclose(g, differences(value, given, k), rtol=1e-5, atol=1e-6)
    return made


def differences(f: Callable[..., Any], values: Sequence[Any], k: int, step: float = 1e-5) -> Any:
    found = np.zeros(values[k].shape)
    for at in np.ndindex(found.shape):
        low, high = ([v.copy() for v in values] for _ in range(2))
        low[k][at] -= step
        high[k][at] += step
        found[at] = (f(*high) - f(*low)) / (2 * step)
    return found


def rnn(x: Any, h0: Any, w: Any, u: Any, b: Any, **options: Any) -> Any:
    hs, _ = tcc.scan(lambda a, h: T.tanh(T.dot(a, w) + T.dot(h, u) + b), [x], [h0], **options)
    return (hs**2).sum() + hs[-1].sum()


def sample(*shapes: tuple[int, ...]) -> list[Any]:
    return [RNG.normal(size=s) * 0.7 for s in shapes]


@pytest.mark.parametrize("steps", [2, 5])
@pytest.mark.parametrize("order", [1, 2])
def test_recurrent_net(steps, order):
    checked(rnn, *sample((steps, 3), (4,), (3, 4), (4, 4), (4,)), order=order)


def test_batched_and_backwards():
    checked(lambda *a: rnn(*a, go_backwards=True), *sample((5, 2, 3), (2, 4), (3, 4), (4, 4), (4,)))


def test_one_step_and_none():
    x, h0 = T.matrix(), T.vector()
    hs, _ = tcc.scan(lambda a, h: h * a, [x], [h0])
    f = tcc.function([x, h0], tcc.grad(hs.sum(), [x, h0]))
    for steps in (0, 1):
        gx, gh = f(np.ones((steps, 3)), np.ones(3))
        assert gx.tolist() == [[1.0] * 3] * steps and gh.tolist() == [float(steps)] * 3


def test_long_short_term_memory():
    def lstm(x, h0, c0, w, u):
        def step(a, h, c):
            z = T.dot(a, w) + T.dot(h, u)
            i, f, o, g = (z[:, k * 3 : (k + 1) * 3] for k in range(4))
            c = T.nnet.sigmoid(f) * c + T.nnet.sigmoid(i) * T.tanh(g)
            return T.nnet.sigmoid(o) * T.tanh(c), c

        (hs, _), _ = tcc.scan(step, [x], [h0, c0])
        return (hs**2).sum()

    checked(lstm, *sample((4, 2, 5), (2, 3), (2, 3), (5, 12), (3, 12)))


def test_taps_of_sequences_and_outputs():
    def program(x, first, m):
        made, _ = tcc.scan(
            lambda before, after, two, one: T.sin(before * m) * after + two * one,
            sequences=[{"input": x, "taps": [-1, 1]}],
            outputs_info=[{"initial": first, "taps": [-2, -1]}],
        )
        return (made**2).sum()

    checked(program, *sample((6,), (2,), ()))
    checked(program, *sample((6, 3), (2, 3), (3,)))


def test_outputs_that_do_not_feed_back_and_steps_of_a_variable():
    def program(h0, m, n):
        (hs, side), _ = tcc.scan(lambda h, m: [T.tanh(h * m), (h * m).sum()], None, [h0, None], [m], n)
        return hs[-1].sum() + (side**2).sum()

    checked(program, *sample((3,), (3,)), np.int64(4))


def test_nested():
    def program(x, w):
        def outer(row, h):
            inner, _ = tcc.scan(lambda a, s: T.tanh(s * w + a * h), [row], [h * w])
            return inner[-1]

        hs, _ = tcc.scan(outer, [x], [T.ones(())])
        return (hs**2).sum()

    checked(program, *sample((3, 4), ()))
    checked(program, *sample((2, 3), ()), order=2)


def test_folds():
    def program(x, start):
        total, _ = tcc.foldr(lambda a, s: T.sin(s) * a, x, start)
        product, _ = tcc.reduce(lambda a, s: s * a, x, start)
        squares, _ = tcc.map(lambda a: a**3, x)
        return total + product + squares.sum()

    checked(program, *sample((4,), ()))


def test_updates_carry_gradients():
    x = T.vector()
    s = tcc.shared(2.0)
    made, updates = tcc.scan(lambda a: (a * s, {s: s * a}), [x])
    f = tcc.function([x], tcc.grad(made.sum(), x), updates=updates)
    # a, b, c -> 2a + 2ab + 2abc
    assert f([1.0, 2.0, 3.0]).tolist() == [2 + 4 + 12, 2 + 6, 4]
    assert s.get_value() == 12


def test_truncated():
    x, h0 = T.vector(), T.scalar()
    for keep in (1, 2, 5, 9):
        hs, _ = tcc.scan(lambda a, h: a * h, [x], [h0], truncate_gradient=keep)
        gx, gh = tcc.function([x, h0], tcc.grad(hs[-1], [x, h0]))(np.arange(1.0, 6), 2.0)
        want = 240 / np.arange(1.0, 6)
        want[: max(0, 5 - keep)] = 0
        np.testing.assert_allclose(gx, want)
        assert gh == (120 if keep >= 5 else 0)


def test_disconnected_and_zero():
    x, w, unused = T.vector(), T.scalar(), T.scalar()
    hs, _ = tcc.scan(lambda a, h, u: a * h * w + 0 * h, [x], [T.ones(())], [unused])
    with pytest.raises(tcc.gradient.DisconnectedInputError):
        tcc.grad(hs.sum(), unused)
    steps, _ = tcc.scan(lambda a: T.floor(a * w), [x])
    assert tcc.grad(steps.sum(), w).eval({x: [1.5, 2.5], w: 2.0}) == 0
    cut, _ = tcc.scan(lambda a, h: tcc.gradient.disconnected_grad(h) * a * w, [x], [T.ones(())])
    f = tcc.function([x, w], tcc.grad(cut[-1], w))
    assert f([2.0, 3.0], 5.0) == 10 * 3


def test_lookups_in_the_body():
    def program(table, index):
        made, _ = tcc.scan(lambda i, h: T.tanh(table[i] + h), [index], [T.zeros((3,))])
        return (made**2).sum()

    checked(program, *sample((4, 3)), np.array([0, 3, 3, 1]))


def test_consider_constant_inside():
    x, w = T.vector(), T.scalar()
    held = []
    hs, _ = tcc.scan(lambda a: held.append(w * a) or held[0] * w, [x])
    f = tcc.function([x, w], tcc.grad(hs.sum(), w, consider_constant=held))
    assert f([1.0, 2.0], 3.0) == 9.0


def doubling(x, start, limit):
    return tcc.scan(
        lambda a, h, m: ((h * a), tcc.until(h * a > m)), [x], [start], [limit], truncate_gradient=-1
    )[0]


def test_until_ends_after_its_step():
    x, start, limit = T.vector(), T.scalar(), T.scalar()
    f = tcc.function([x, start, limit], doubling(x, start, limit))
    v = np.full(8, 2.0)
    assert f(v, 1.0, 7.0).tolist() == [2, 4, 8]
    assert f(v, 1.0, 1e9).tolist() == [2.0**k for k in range(1, 9)]
    assert f(v, 9.0, 7.0).tolist() == [18]
    assert f(v[:0], 9.0, 7.0).tolist() == []


def test_gradient_of_steps_that_were_made():
    checked(
        lambda x, start: (doubling(x, start, T.constant(4.0)) ** 2).sum(),
        np.array([1.5, 2.0, 1.7, 1.1, 0.9]),
        np.array(1.0),
    )
    x, w = T.vector(), T.vector()
    made = tcc.scan(lambda a, h: (T.tanh(h * w) + a, tcc.until(a > 2)), [x], [T.ones_like(w)])[0]
    checked_until = tcc.function([x, w], tcc.grad((made[-1] ** 2).sum(), [x, w]))
    gx, gw = checked_until([1.0, 3.0, 1.0], [0.5, 0.7])
    h1 = np.tanh([0.5, 0.7]) + 1
    w_ = np.array([0.5, 0.7])
    t1, t2 = np.tanh(w_), np.tanh(h1 * w_)
    d2 = 2 * (t2 + 3)
    dh1 = d2 * (1 - t2**2) * w_
    np.testing.assert_allclose(gx, [dh1.sum(), d2.sum(), 0])
    np.testing.assert_allclose(gw, d2 * (1 - t2**2) * h1 + dh1 * (1 - t1**2))


def test_until_without_outputs_that_grow():
    total = tcc.shared(0.0)
    _, updates = tcc.scan(lambda a: ({total: total + a}, tcc.until(total + a > 5)), [T.arange(1.0, 9.0)])
    tcc.function([], [], updates=updates)()
    assert total.get_value() == 6


def test_values_whose_sizes_differ_from_step_to_step_are_made_again():
    def program(w, counts):
        sums, _ = tcc.scan(lambda n, s: T.sum(T.tanh(T.exp(w[:n]) * s)), [counts], [T.ones(())])
        return (sums**2).sum()

    checked(program, *sample((5,)), np.array([2, 5, 0, 3]))
    checked(program, *sample((5,)), np.array([2, 5, 1]), order=2)


def test_parts_of_sizes_that_shared_weights_tell():
    """The shared variable's sizes are not in its type; the parts of the product have them nevertheless."""
    u = tcc.shared(RNG.normal(size=(6, 3)) * 0.5)
    n = u.shape[1]

    def step(a, h):
        z = T.dot(h, u.T)
        return T.tanh(z[:, :n]) * T.nnet.sigmoid(z[:, n:]) + a

    x = T.tensor3()
    hs, _ = tcc.scan(step, [x], [T.zeros((x.shape[1], n))])
    value, slope = (hs**2).sum(), tcc.grad((hs**2).sum(), u)
    f, a, before = tcc.function([x], [value, slope]), RNG.normal(size=(3, 2, 3)), u.get_value()
    for _ in range(2):
        along = RNG.normal(size=(6, 3))
        ends = []
        for sign in (-1, 1):
            u.set_value(before + sign * 1e-5 * along)
            ends.append(f(a)[0])
        u.set_value(before)
        np.testing.assert_allclose((f(a)[1] * along).sum(), (ends[1] - ends[0]) / 2e-5, rtol=1e-6)


def test_parts_of_a_width_that_only_a_call_tells() -> None:
    """Sizes made of an element's sizes are sizes outside the loop too, so what is sliced by them can be stacked."""

    def build(x: Any, u: Any, first: Any) -> Any:
        def step(z: Any, h: Any) -> Any:
            z = z + T.dot(h, u)
            width = z.shape[1] // 2
            return T.tanh(z[:, :width]) * T.nnet.sigmoid(z[:, width : 2 * width])

        return T.sqr(tcc.scan(step, sequences=x, outputs_info=first)[0]).sum()

    checked(build, RNG.normal(size=(4, 2, 6)), RNG.normal(size=(3, 6)), RNG.normal(size=(2, 3)))
