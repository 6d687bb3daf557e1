"""Programs as tutorials have them, compiled and called with sizes that change, against NumPy written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T

Array = np.ndarray[Any, Any]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def differences(f: Callable[[Array], Any], at: Array) -> Array:
    """The gradient of a scalar function, by central differences."""
    found, step = np.zeros(at.shape), 1e-6
    for i in np.ndindex(at.shape):
        ahead, behind = at.copy(), at.copy()
        ahead[i] += step
        behind[i] -= step
        found[i] = (f(ahead) - f(behind)) / (2 * step)
    return found


def check_gradients(cost: Any, wrt: Sequence[Any], values: Sequence[Array]) -> None:
    f, g = tcc.function(wrt, cost), tcc.function(wrt, tcc.grad(cost, list(wrt)))
    for k, got in enumerate(g(*values)):
        want = differences(lambda a: f(*values[:k], a, *values[k + 1 :]), values[k])
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def sigmoid(a: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-a)))


def test_logistic_regression(rng: np.random.Generator) -> None:
    x, y = T.dmatrix("x"), T.dvector("y")
    w, b = tcc.shared(rng.normal(size=5), "w"), tcc.shared(0.0, "b")
    p = 1 / (1 + T.exp(-T.dot(x, w) - b))
    losses = -y * T.log(p) - (1 - y) * T.log(1 - p)
    cost = losses.mean() + 0.01 * (w**2).sum()
    steps = [(v, v - 0.1 * g) for v, g in zip((w, b), T.grad(cost, [w, b]))]
    train = tcc.function([x, y], [p > 0.5, losses], updates=steps)
    for n in (40, 1, 7):
        inputs, labels = rng.normal(size=(n, 5)), rng.integers(0, 2, n).astype(float)
        v, c = w.get_value(), b.get_value()
        q = sigmoid(inputs @ v + c)
        said, lost = train(inputs, labels)
        assert said.dtype == bool and np.array_equal(said, q > 0.5)
        np.testing.assert_allclose(lost, -labels * np.log(q) - (1 - labels) * np.log(1 - q))
        np.testing.assert_allclose(w.get_value(), v - 0.1 * (inputs.T @ (q - labels) / n + 0.02 * v))
        np.testing.assert_allclose(b.get_value(), c - 0.1 * (q - labels).mean())


def test_only_the_embeddings_that_a_batch_names_are_changed(rng: np.random.Generator) -> None:
    words, table = T.imatrix("words"), tcc.shared(rng.normal(size=(10, 4)), "table")
    chosen = table[words]
    cost = T.sqr(chosen.sum(axis=1)).sum()
    step = tcc.function(
        [words], cost, updates=[(table, T.inc_subtensor(chosen, -0.1 * T.grad(cost, chosen)))]
    )
    for shape in ((3, 2), (1, 1), (5, 4), (2, 0)):
        batch, old = rng.integers(0, 10, shape).astype(np.int32), table.get_value()
        sums = old[batch].sum(1)
        np.testing.assert_allclose(step(batch), (sums**2).sum())
        np.add.at(old, batch, -0.2 * sums[:, None].repeat(shape[1], 1))
        np.testing.assert_allclose(table.get_value(), old)


def test_adam(rng: np.random.Generator) -> None:
    p, m, v, t = (tcc.shared(a) for a in (rng.normal(size=3), np.zeros(3), np.zeros(3), 0.0))
    x, scale = T.dvector("x"), np.array([1.0, 10.0, 100.0])
    g, count = tcc.grad(T.sum((p - x) ** 2 * scale), p), t + 1
    first, second = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * T.sqr(g)
    rate = 0.1 * T.sqrt(1 - 0.999**count) / (1 - 0.9**count)
    step = tcc.function(
        [x],
        [],
        updates=[(m, first), (v, second), (t, count), (p, p - rate * first / (T.sqrt(second) + 1e-8))],
    )
    q, a, b, target = p.get_value(), np.zeros(3), np.zeros(3), np.arange(3.0)
    for k in range(1, 20):
        step(target)
        slope = 2 * (q - target) * scale
        a, b = 0.9 * a + 0.1 * slope, 0.999 * b + 0.001 * slope**2
        q = q - 0.1 * np.sqrt(1 - 0.999**k) / (1 - 0.9**k) * a / (np.sqrt(b) + 1e-8)
        np.testing.assert_allclose(p.get_value(), q)


def test_k_means(rng: np.random.Generator) -> None:
    x, centres = T.matrix("x"), tcc.shared(rng.normal(size=(3, 2)))
    distance = (x**2).sum(axis=1, keepdims=True) - 2 * T.dot(x, centres.T) + (centres**2).sum(1)
    nearest = T.argmin(distance, axis=1)
    member = T.eq(nearest.dimshuffle(0, "x"), T.arange(3).dimshuffle("x", 0))
    mean = T.dot(T.cast(member, "float64").T, x) / T.maximum(member.sum(axis=0), 1).dimshuffle(0, "x")
    step = tcc.function([x], nearest, updates=[(centres, mean)])
    for n in (20, 1, 7, 0):
        points, old = rng.normal(size=(n, 2)), centres.get_value()
        want = ((points[:, None] - old) ** 2).sum(-1).argmin(1)
        assert np.array_equal(step(points), want)
        one_hot = (want[:, None] == np.arange(3)).astype(float)
        means = one_hot.T @ points / np.maximum(one_hot.sum(0), 1)[:, None]
        np.testing.assert_allclose(centres.get_value(), means, atol=1e-12)


def test_mixture_of_gaussians(rng: np.random.Generator) -> None:
    x, centres, weights = T.dmatrix("x"), T.dmatrix("centres"), T.dvector("weights")
    square = T.sqr(x.dimshuffle(0, "x", 1) - centres.dimshuffle("x", 0, 1)).sum(2)
    cost = -T.log(T.exp(-0.5 * square + T.log(T.nnet.softmax(weights))).sum(axis=1)).sum()
    values = [rng.normal(size=s) for s in ((4, 2), (3, 2), (3,))]
    check_gradients(cost, [x, centres, weights], values)
    assert np.isfinite(tcc.function([x, centres, weights], cost)(values[0] * 1e3, *values[1:]))


def test_batch_normalisation(rng: np.random.Generator) -> None:
    x, scale, shift = T.dmatrix("x"), T.dvector("scale"), T.dvector("shift")
    mean, variance = x.mean(axis=0, keepdims=True), x.var(axis=0, keepdims=True)
    y = scale * (x - mean) / T.sqrt(variance + 1e-5) + shift
    check_gradients(
        T.tanh(y * np.arange(1.0, 4.0)).sum(), [x, scale, shift], [rng.normal(size=s) for s in ((5, 3), 3, 3)]
    )
    kept = tcc.shared(np.zeros(3))
    f = tcc.function([x, scale, shift], y, updates=[(kept, 0.9 * kept + 0.1 * mean[0])])
    for n in (5, 1, 8):
        a, s, b = (rng.normal(size=size) for size in ((n, 3), 3, 3))
        old = kept.get_value()
        np.testing.assert_allclose(f(a, s, b), s * (a - a.mean(0)) / np.sqrt(a.var(0) + 1e-5) + b)
        np.testing.assert_allclose(kept.get_value(), 0.9 * old + 0.1 * a.mean(0))


def test_convolution_by_slices(rng: np.random.Generator) -> None:
    x, w = T.dtensor4("x"), T.dtensor4("w")
    high, wide = x.shape[2] - 2, x.shape[3] - 2
    at = [(i, j) for i in range(3) for j in range(3)]
    parts = [T.tensordot(x[:, :, i : i + high, j : j + wide], w[:, :, i, j], [[1], [1]]) for i, j in at]
    y = sum(parts[1:], parts[0]).dimshuffle(0, 3, 1, 2)
    f = tcc.function([x, w], y)
    for n, c, h, v, o in ((2, 3, 6, 5, 4), (1, 1, 3, 3, 1), (0, 2, 5, 5, 2)):
        a, k = rng.normal(size=(n, c, h, v)), rng.normal(size=(o, c, 3, 3))
        windows = np.lib.stride_tricks.sliding_window_view(a, (3, 3), axis=(2, 3))
        np.testing.assert_allclose(f(a, k), np.einsum("nchwij,ocij->nohw", windows, k), atol=1e-12)
    check_gradients(T.sqr(y).sum(), [x, w], [rng.normal(size=s) for s in ((1, 2, 4, 4), (2, 2, 3, 3))])


def test_lstm_with_a_mask(rng: np.random.Generator) -> None:
    units = 4
    into, back, bias = (tcc.shared(rng.normal(size=s)) for s in ((2, 16), (4, 16), 16))

    def step(x: Any, m: Any, h: Any, c: Any) -> tuple[Any, Any]:
        z = T.dot(x, into) + T.dot(h, back) + bias
        i, f, o, g = (z[:, k * units : (k + 1) * units] for k in range(4))
        new = T.nnet.sigmoid(f) * c + T.nnet.sigmoid(i) * T.tanh(g)
        m = m[:, None]
        return m * T.nnet.sigmoid(o) * T.tanh(new) + (1 - m) * h, m * new + (1 - m) * c

    x, mask = T.dtensor3("x"), T.dmatrix("mask")
    start = T.alloc(np.float64(0), x.shape[1], units)
    (hs, cs), _ = tcc.scan(step, sequences=[x, mask], outputs_info=[start, start])
    run = tcc.function([x, mask], [hs, cs[-1]])
    for steps, n in ((5, 3), (1, 1), (7, 2)):
        a, m = rng.normal(size=(steps, n, 2)), (rng.random((steps, n)) < 0.7).astype(float)
        h, c, want = np.zeros((n, units)), np.zeros((n, units)), []
        for t in range(steps):
            z = a[t] @ into.get_value() + h @ back.get_value() + bias.get_value()
            i, f, o, g = np.split(z, 4, 1)
            new, on = sigmoid(f) * c + sigmoid(i) * np.tanh(g), m[t][:, None]
            h, c = on * sigmoid(o) * np.tanh(new) + (1 - on) * h, on * new + (1 - on) * c
            want.append(h)
        got, last = run(a, m)
        np.testing.assert_allclose(got, want, atol=1e-12)
        np.testing.assert_allclose(last, c, atol=1e-12)


def test_attention_with_layer_norm(rng: np.random.Generator) -> None:
    q, k, v = T.dtensor3s("q", "k", "v")
    s = T.batched_dot(q, k.dimshuffle(0, 2, 1)) / T.sqrt(q.shape[2].astype("float64"))
    e = T.exp(s - s.max(axis=2, keepdims=True))
    o = T.batched_dot(e / e.sum(axis=2, keepdims=True), v)
    mean = o.mean(axis=-1, keepdims=True)
    y = (o - mean) / T.sqrt(o.var(axis=-1, keepdims=True) + 1e-5)
    f = tcc.function([q, k, v], y)
    for b, t, d, u in ((2, 3, 4, 5), (1, 1, 1, 1), (1, 7, 2, 3)):
        x, z, w = rng.normal(size=(b, t, d)), rng.normal(size=(b, u, d)), rng.normal(size=(b, u, 6))
        p = np.exp(x @ z.transpose(0, 2, 1) / np.sqrt(d))
        p = p / p.sum(2, keepdims=True) @ w
        want = (p - p.mean(-1, keepdims=True)) / np.sqrt(p.var(-1, keepdims=True) + 1e-5)
        np.testing.assert_allclose(f(x, z, w), want, atol=1e-9)
    check_gradients(
        (y * np.arange(3.0)).sum(), [q, k, v], [rng.normal(size=s) for s in ((1, 2, 2), (1, 3, 2), (1, 3, 3))]
    )


CROSS_ENTROPIES: dict[str, Callable[..., Any]] = {
    "picked from the logarithm": lambda x, p, y, t: -T.log(p)[T.arange(y.shape[0]), y].mean(),
    "logarithm of the picked": lambda x, p, y, t: -T.log(p[T.arange(y.shape[0]), y]).mean(),
    "class numbers": lambda x, p, y, t: T.nnet.categorical_crossentropy(p, y).mean(),
    "one-hot": lambda x, p, y, t: T.nnet.categorical_crossentropy(p, t).mean(),
    "sum of products": lambda x, p, y, t: -(T.log(p) * t).sum() / x.shape[0],
    "logsoftmax": lambda x, p, y, t: -T.nnet.logsoftmax(x)[T.arange(y.shape[0]), y].mean(),
    "by hand": lambda x, p, y, t: (T.log(T.exp(x).sum(axis=1)) - x[T.arange(x.shape[0]), y]).mean(),
}


@pytest.mark.parametrize("form", CROSS_ENTROPIES)
def test_a_cross_entropy_is_stable_in_every_form(form: str, rng: np.random.Generator) -> None:
    x, y, t = T.dmatrix("x"), T.ivector("y"), T.dmatrix("t")
    cost = CROSS_ENTROPIES[form](x, T.nnet.softmax(x), y, t)
    f = tcc.function([x, y, t], [cost, T.grad(cost, x)], on_unused_input="ignore")
    for scale, (n, m) in ((1, (4, 3)), (1000, (7, 2)), (1, (1, 1)), (1000, (1, 5))):
        a, labels = rng.normal(size=(n, m)) * scale, rng.integers(0, m, n).astype(np.int32)
        one_hot = np.eye(m)[labels]
        z = a - a.max(1, keepdims=True)
        logs = z - np.log(np.exp(z).sum(1, keepdims=True))
        got, slope = f(a, labels, one_hot)
        np.testing.assert_allclose(got, -logs[np.arange(n), labels].mean(), atol=1e-12)
        np.testing.assert_allclose(slope, (np.exp(logs) - one_hot) / n, atol=1e-12)
