"""Pooling, patches and normalisation under Theano's names."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.tensor.nnet.neighbours import images2neibs, neibs2images
from tcc.tensor.signal import downsample, pool

rng = np.random.default_rng(0)


def apply(f, *values):
    inputs = [T.tensor(str(v.dtype), (False,) * v.ndim) for v in values]
    return tcc.function(inputs, f(*inputs))(*values)


# -- pooling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n,ignored,kept", [(4, 2, 2), (5, 2, 3), (6, 3, 3), (7, 3, 4)])
def test_sizes_with_and_without_borders(n, ignored, kept):
    x = rng.standard_normal((n, n))
    assert apply(lambda x: pool.pool_2d(x, (2, 2), True), x).shape == (ignored, ignored)
    assert apply(lambda x: pool.pool_2d(x, (2, 2), False), x).shape == (kept, kept)


@pytest.mark.parametrize("n,count", [(4, 2), (5, 2), (6, 3), (7, 3)])
def test_sizes_of_windows_that_overlap_and_reach_over_the_end(n, count):
    x = rng.standard_normal((n, n))
    assert apply(lambda x: pool.pool_2d(x, (3, 3), False, stride=(2, 2)), x).shape == (count, count)


def reference(x, ws, stride, pad, mode, ignore_border):
    """Window by window."""
    n, m = x.shape[-2:]

    def starts(n, w, s, p):
        if ignore_border:
            return range(-p, n + p - w + 1, s)
        return [a for a in range(0, n, s) if a == 0 or a + w <= n or s >= w or a - s + w < n]

    rows, columns = (starts(k, *g) for k, g in zip((n, m), zip(ws, stride, pad)))
    out = np.zeros((*x.shape[:-2], len(rows), len(columns)))
    for i, a in enumerate(rows):
        for j, b in enumerate(columns):
            part = x[..., max(a, 0) : a + ws[0], max(b, 0) : b + ws[1]]
            if mode == "max":
                out[..., i, j] = part.max((-2, -1))
                continue
            total = part.sum((-2, -1))
            inside = part.shape[-2] * part.shape[-1]
            every = ws[0] * ws[1] if ignore_border else inside
            out[..., i, j] = total / {"sum": 1, "average_inc_pad": every, "average_exc_pad": inside}[mode]
    return out


GEOMETRIES = [
    ((2, 2), (2, 2), (0, 0), True),
    ((2, 3), (2, 3), (0, 0), False),
    ((3, 3), (2, 2), (1, 1), True),
    ((3, 2), (1, 2), (0, 0), False),
    ((4, 3), (3, 1), (2, 0), True),
]


@pytest.mark.parametrize("mode", pool.MODES)
@pytest.mark.parametrize("ws,stride,pad,ignore_border", GEOMETRIES)
def test_every_mode(mode, ws, stride, pad, ignore_border):
    x = rng.standard_normal((2, 3, 9, 11))
    how = {"ws": ws, "stride": stride, "pad": pad, "mode": mode, "ignore_border": ignore_border}
    got = apply(lambda x: pool.pool_2d(x, **how), x)
    np.testing.assert_allclose(got, reference(x, **how), rtol=1e-12)


@pytest.mark.parametrize("mode", pool.MODES)
def test_gradients_of_every_mode(mode):
    x = rng.standard_normal((2, 7, 8))
    v = T.dtensor3("v")
    y = pool.pool_2d(v, (3, 2), True, stride=(2, 2), pad=(1, 1), mode=mode)
    weights = rng.standard_normal((2, 4, 5))
    cost = (y**3 * weights).sum()
    f, g = tcc.function([v], cost), tcc.function([v], tcc.grad(cost, v))
    second = tcc.function([v], tcc.grad((tcc.grad(cost, v) ** 2).sum(), v))
    first = tcc.function([v], (tcc.grad(cost, v) ** 2).sum())
    for function, slope in ((f, g), (first, second)):
        got = slope(x)
        for at in np.ndindex(*x.shape):
            step = np.zeros_like(x)
            step[at] = 1e-6
            np.testing.assert_allclose(
                got[at], (function(x + step) - function(x - step)) / 2e-6, rtol=1e-4, atol=1e-5
            )


def test_every_maximum_gets_the_whole_gradient():
    v = T.matrix("v")
    g = tcc.function([v], tcc.grad(pool.pool_2d(v, (2, 2), True).sum(), v))
    np.testing.assert_array_equal(g(np.ones((4, 4), v.dtype)), np.ones((4, 4)))


def test_three_dimensions_and_older_names():
    x = rng.standard_normal((2, 4, 6, 8))
    got = apply(lambda x: pool.pool_3d(x, (2, 2, 2), True), x)
    np.testing.assert_array_equal(got, x.reshape(2, 2, 2, 3, 2, 4, 2).max((2, 4, 6)))
    image = apply(lambda x: downsample.max_pool_2d(x, ds=(2, 2), ignore_border=True), x)
    np.testing.assert_array_equal(image, x.reshape(2, 4, 3, 2, 4, 2).max((3, 5)))


def test_same_size():
    x = np.array([[1.0, 5, 2], [4, 3, 2], [9, 8, 7]])
    got = apply(lambda x: pool.max_pool_2d_same_size(x, (2, 2)), x)
    np.testing.assert_array_equal(got, [[0, 5, 0], [0, 0, 0], [0, 0, 0]])


def test_wrong_arguments():
    x = T.dmatrix()
    with pytest.raises(TypeError, match="2 integers"):
        pool.pool_2d(x, 2, True)
    with pytest.raises(NotImplementedError, match="dimension >= 2"):
        pool.pool_2d(T.dvector(), (2, 2), True)
    with pytest.raises(NotImplementedError, match="ignore_border=True"):
        pool.pool_2d(x, (2, 2), False, pad=(1, 1))
    with pytest.raises(NotImplementedError, match="smaller"):
        pool.pool_2d(x, (2, 2), True, pad=(2, 2))
    with pytest.raises(ValueError, match="mode"):
        pool.pool_2d(x, (2, 2), True, mode="median")
    with pytest.raises(ValueError, match="window size"):
        pool.pool_2d(x)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        pool.pool_2d(x, (2, 2))
    assert len(seen) == 1


def test_flags_are_the_leading_axes_own():
    y = pool.pool_2d(T.tensor("float32", (True, False, False, False)), (2, 2), True)
    assert y.broadcastable == (True, False, False, False)
    assert pool.pool_2d(T.constant(np.ones((1, 2, 2, 2))), (2, 2), True).broadcastable == (
        True,
        False,
        False,
        False,
    )


# -- patches ---------------------------------------------------------------------------------------------------------


def test_patches_and_back():
    x = rng.standard_normal((2, 3, 6, 8))
    got = apply(lambda x: images2neibs(x, (3, 2)), x)
    want = x.reshape(2, 3, 2, 3, 4, 2).transpose(0, 1, 2, 4, 3, 5).reshape(-1, 6)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(apply(lambda n: neibs2images(n, (3, 2), (2, 3, 6, 8)), want), x)


def test_patches_that_overlap_and_their_gradient():
    x = rng.standard_normal((1, 2, 5, 6))
    v = T.dtensor4("v")
    made = images2neibs(v, (2, 3), (1, 2), mode="ignore_borders")
    got = tcc.function([v], made)(x)
    want = [x[0, c, i : i + 2, j : j + 3].ravel() for c in range(2) for i in range(4) for j in (0, 2)]
    np.testing.assert_array_equal(got, want)
    weights = rng.standard_normal(got.shape)
    slope = tcc.function([v], tcc.grad((made * weights).sum(), v))(x)
    counted = np.zeros_like(x)
    for row, (c, i, j) in zip(weights, [(c, i, j) for c in range(2) for i in range(4) for j in (0, 2)]):
        counted[0, c, i : i + 2, j : j + 3] += row.reshape(2, 3)
    np.testing.assert_allclose(slope, counted)


def test_modes_of_patches():
    x = rng.standard_normal((1, 1, 4, 5))
    wrapped = apply(lambda x: images2neibs(x, (3, 3), (1, 1), mode="wrap_centered"), x)
    around = np.pad(x[0, 0], 1, mode="wrap")
    want = [around[i : i + 3, j : j + 3].ravel() for i in range(4) for j in range(5)]
    np.testing.assert_array_equal(wrapped, want)
    half = apply(lambda x: images2neibs(x, (3, 3), (1, 1), mode="half"), x)
    zeros = np.pad(x[0, 0], 1)
    np.testing.assert_array_equal(
        half, [zeros[i : i + 3, j : j + 3].ravel() for i in range(4) for j in range(5)]
    )
    assert apply(lambda x: images2neibs(x, (3, 3), (1, 1), mode="full"), x).shape == (42, 9)
    with pytest.raises(ValueError):
        apply(lambda x: images2neibs(x, (3, 2)), x)


@pytest.mark.parametrize(
    "mode, neib_shape, step",
    [
        ("valid", (2, 2), (2, 1)),
        ("half", (2, 2), (1, 2)),
        ("full", (2, 2), (1, 2)),
        ("wrap_centered", (7, 3), (1, 1)),
    ],
)
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_patches_that_do_not_cover_the_image(mode, neib_shape, step, known):
    x = rng.standard_normal((1, 1, 5, 5))
    with pytest.raises(ValueError, match="images2neibs: patches of") as caught:
        if known:
            images2neibs(T.constant(x), neib_shape, step, mode=mode)
        else:
            apply(lambda v: images2neibs(v, neib_shape, step, mode=mode), x)
    assert isinstance(caught.value, TypeError)  # as in Theano


def test_borders_that_were_ignored_are_zero():
    x = rng.standard_normal((1, 2, 5, 5))
    cut = apply(lambda x: images2neibs(x, (2, 2), mode="ignore_borders"), x)
    back = apply(lambda n: neibs2images(n, (2, 2), (1, 2, 5, 5), mode="ignore_borders"), cut)
    np.testing.assert_array_equal(back[:, :, :4, :4], x[:, :, :4, :4])
    assert not back[:, :, 4].any() and not back[:, :, :, 4].any()


# -- normalisation ---------------------------------------------------------------------------------------------------

AXES = {"per-activation": (0,), "spatial": (0, 2, 3), (1, 3): (1, 3)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("axes", AXES, ids=str)
def test_batch_normalisation(axes, dtype):
    over = AXES[axes]
    x = (rng.standard_normal((4, 3, 5, 6)) * 2 + 3).astype(dtype)
    kept = tuple(1 if a in over else n for a, n in enumerate(x.shape))
    g, b, m, v = (rng.uniform(0.5, 1.5, kept).astype(dtype) for _ in range(4))
    vectors = [p.squeeze(over) for p in (g, b, m, v)]
    mean, var = x.mean(over, keepdims=True), x.var(over, keepdims=True)
    count = x.size // mean.size
    want = [
        g * (x - mean) / np.sqrt(var + 1e-4) + b,
        mean,
        1 / np.sqrt(var + 1e-4),
        0.9 * m + 0.1 * mean,
        0.9 * v + 0.1 * var * count / (count - 1),
    ]

    def train(x, g, b, m, v):
        return list(T.nnet.bn.batch_normalization_train(x, g, b, axes, running_mean=m, running_var=v))

    tolerance = 1e-5 if dtype == "float32" else 1e-11
    for got, w in zip(apply(train, x, g, b, m, v), want, strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, w, rtol=tolerance, atol=tolerance)
    flat = apply(train, x, *vectors)
    np.testing.assert_allclose(flat[0], want[0], rtol=tolerance, atol=tolerance)
    for got, w in zip(flat[1:], want[1:], strict=True):
        np.testing.assert_allclose(got, w.squeeze(over), rtol=tolerance, atol=tolerance)
    tested = apply(lambda *a: T.nnet.bn.batch_normalization_test(*a, axes=axes), x, g, b, m, v)
    np.testing.assert_allclose(tested, g * (x - m) / np.sqrt(v + 1e-4) + b, rtol=tolerance, atol=tolerance)


def test_the_gradient_of_batch_normalisation():
    x = T.dtensor4("x")
    y, *_ = T.nnet.bn.batch_normalization_train(x, np.ones(3), np.zeros(3), "spatial")
    cost = (y**3).sum()
    value, slope = tcc.function([x], cost), tcc.function([x], tcc.grad(cost, x))
    at = rng.standard_normal((2, 3, 2, 2))
    for _ in range(4):
        d = rng.standard_normal(at.shape)
        wanted = (value(at + 1e-5 * d) - value(at - 1e-5 * d)) / 2e-5
        np.testing.assert_allclose((slope(at) * d).sum(), wanted, rtol=1e-6, atol=1e-7)


def test_statistics_far_from_zero():
    """float32 numbers around 1000 keep the digits of their variance."""
    x = (rng.standard_normal((400, 7)) + 1000).astype("float32")
    np.testing.assert_allclose(apply(lambda x: x.var(0), x), x.astype("f8").var(0), rtol=1e-5)


def test_batch_normalisation_of_given_statistics():
    x = rng.standard_normal((3, 4))
    got = apply(lambda x: T.nnet.bn.batch_normalization(x, 2.0, 1.0, 0.5, 4.0), x)
    np.testing.assert_allclose(got, (x - 0.5) * 0.5 + 1)


def test_layer_and_rms_norm():
    x, g, b = rng.standard_normal((5, 7)), rng.standard_normal(7), rng.standard_normal(7)
    want = g * (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) + b
    np.testing.assert_allclose(apply(T.nnet.layer_norm, x, g, b), want, rtol=1e-10)
    want = g * x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(apply(T.nnet.rms_norm, x, g), want, rtol=1e-10)


def test_local_response_norm():
    x = rng.standard_normal((2, 7, 3, 4))
    around = np.pad(x**2, ((0, 0), (2, 2), (0, 0), (0, 0)))
    near = sum(around[:, k : k + 7] for k in range(5))
    want = x / (2 + 1e-4 * near) ** 0.75
    np.testing.assert_allclose(apply(T.nnet.local_response_norm, x), want, rtol=1e-6)


@pytest.mark.parametrize("mode", ["max", "sum", "average_inc_pad", "average_exc_pad"])
@pytest.mark.parametrize("border", [(True, (0, 0)), (True, (1, 1)), (False, (0, 0))])
def test_sizes_that_only_running_tells(mode, border):
    ignore, pad = border
    x, w, s = T.tensor3(), T.ivector(), T.iscalar()
    a = np.random.default_rng(0).integers(-3, 4, (2, 7, 6)).astype(float)
    made = pool.pool_2d(x, w, ignore, stride=(s, 1), pad=pad, mode=mode)
    weights = T.tensor3()
    f = tcc.function([x, w, s, weights], [made, tcc.grad((made * weights).sum(), x)])
    for size, step in (((2, 3), 2), ((3, 2), 1), ((2, 2), 4)):
        known = pool.pool_2d(x, size, ignore, stride=(step, 1), pad=pad, mode=mode)
        g = tcc.function([x, weights], [known, tcc.grad((known * weights).sum(), x)])
        u = np.random.default_rng(1).normal(size=known.shape.eval({x: a}))
        for got, want in zip(f(a, size, step, u), g(a, u)):
            np.testing.assert_allclose(got, want, atol=1e-12)


@pytest.mark.parametrize("mode", ["average_inc_pad", "average_exc_pad"])
@pytest.mark.parametrize("side", [12, 16, 19])
def test_windows_of_more_elements_than_a_byte_counts(side, mode):
    a = rng.standard_normal((2, 3, side, side))
    made = apply(lambda x: pool.pool_2d(x, (side, side), ignore_border=True, mode=mode), a)
    np.testing.assert_allclose(made, a.mean((2, 3), keepdims=True), rtol=1e-12)
