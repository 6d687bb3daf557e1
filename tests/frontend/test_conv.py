"""Convolution and upsampling under Theano's names, against sums written out."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.signal import convolve2d, correlate

import tcc
import tcc.tensor as T
from tcc.tensor.nnet import abstract_conv
from tcc.tensor.nnet.conv import conv2d as old_conv2d

rng = np.random.default_rng(0)
X = rng.standard_normal((2, 4, 9, 8))
W = rng.standard_normal((6, 4, 3, 2))


def value(v, **given):
    inputs = {x: given[x.name] for x in tcc.graph.inputs([v]) if x.name in given}
    return tcc.function(list(inputs), v, on_unused_input="ignore")(*inputs.values())


def conv(x=X, w=W, **how):
    return value(T.nnet.conv2d(T.dtensor4("x"), T.dtensor4("w"), **how), x=x, w=w)


def reference(x, w, pads=((0, 0), (0, 0)), stride=(1, 1), dilation=(1, 1), flip=True):
    x = np.pad(x, ((0, 0), (0, 0), *pads))
    if flip:
        w = w[:, :, ::-1, ::-1]
    grown = np.zeros((*w.shape[:2], *((k - 1) * d + 1 for k, d in zip(w.shape[2:], dilation))))
    grown[:, :, :: dilation[0], :: dilation[1]] = w
    full = np.array([[sum(correlate(c, k, "valid") for c, k in zip(image, f)) for f in grown] for image in x])
    return full[:, :, :: stride[0], :: stride[1]]


@pytest.mark.parametrize(
    "border_mode,pads",
    [
        ("valid", ((0, 0), (0, 0))),
        ("full", ((2, 2), (1, 1))),
        ("half", ((1, 1), (1, 1))),
        (1, ((1, 1), (1, 1))),
        ((2, 0), ((2, 2), (0, 0))),
        (((1, 2), (0, 1)), ((1, 2), (0, 1))),
    ],
)
def test_border_modes(border_mode, pads):
    np.testing.assert_allclose(conv(border_mode=border_mode), reference(X, W, pads), rtol=1e-9, atol=1e-12)


def test_stride_dilation_and_flip():
    how = {"subsample": (2, 1), "filter_dilation": (1, 2), "filter_flip": False, "border_mode": "half"}
    np.testing.assert_allclose(
        conv(**how), reference(X, W, ((1, 1), (1, 1)), (2, 1), (1, 2), False), rtol=1e-9, atol=1e-12
    )


def test_flipped_filters_are_convolution_proper():
    x, w = X[:1, :1], W[:1, :1]
    np.testing.assert_allclose(conv(x, w)[0, 0], convolve2d(x[0, 0], w[0, 0], "valid"), rtol=1e-9)


def test_groups():
    w = W[:, :2]
    want = np.concatenate([reference(X[:, :2], w[:3]), reference(X[:, 2:], w[3:])], axis=1)
    np.testing.assert_allclose(conv(w=w, num_groups=2), want, rtol=1e-9, atol=1e-12)


def test_shapes_are_static_where_they_can_be_and_flags_are_theanos():
    x, w = T.ftensor4(), T.ftensor4()
    y = T.nnet.conv2d(x, w, input_shape=(None, 1, 28, 28), filter_shape=(1, 1, 5, 5))
    assert y.type.shape == (None, 1, 24, 24) and y.dtype == "float32"
    assert (
        T.nnet.conv2d(x, w, input_shape=(5, 1, 5, 5), filter_shape=(2, 1, 5, 5)).broadcastable == (False,) * 4
    )


def test_the_result_has_the_images_dtype():
    assert T.nnet.conv2d(T.ftensor4(), T.dtensor4()).dtype == "float32"


def test_a_shape_that_is_wrong_is_an_error():
    f = tcc.function([x := T.dtensor4("x")], T.nnet.conv2d(x, W, input_shape=(None, 4, 9, 7)))
    with pytest.raises((ValueError, TypeError), match="7"):
        f(X)
    with pytest.raises(ValueError, match="has size 5"):
        T.nnet.conv2d(x, W, filter_shape=(5, 4, 3, 2))


def test_wrong_arguments():
    x, w = T.dtensor4(), T.dtensor4()
    with pytest.raises(ValueError, match="border_mode"):
        T.nnet.conv2d(x, w, border_mode="same")
    with pytest.raises(TypeError, match="4 axes"):
        T.nnet.conv2d(T.dmatrix(), w)
    with pytest.raises(ValueError, match="same time"):
        T.nnet.conv2d(x, w, input_shape=(1, 1, 1, 1), image_shape=(1, 1, 1, 1))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        T.nnet.conv2d(x, w, unroll_batch=3)
    assert len(seen) == 1


@pytest.mark.parametrize("how", [{}, {"border_mode": (1, 2), "subsample": (2, 2)}, {"filter_flip": False}])
def test_gradients_as_functions_are_those_of_grad(how):
    x, w = T.dtensor4("x"), T.dtensor4("w")
    y = T.nnet.conv2d(x, w, **how)
    g = T.dtensor4("g")
    slopes = rng.standard_normal(conv(**how).shape)
    by_x, by_w = tcc.grad(None, [x, w], known_grads={y: g})
    a = T.nnet.conv2d_grad_wrt_inputs(g, w, X.shape, **how)
    b = T.nnet.conv2d_grad_wrt_weights(x, g, W.shape, **how)
    a2 = abstract_conv.AbstractConv2d_gradInputs(imshp=X.shape, kshp=W.shape, **how)(w, g, x.shape[2:])
    b2 = abstract_conv.AbstractConv2d_gradWeights(**how)(x, g, w.shape[2:])
    given = {"x": X, "w": W, "g": slopes}
    for made, want in ((a, by_x), (a2, by_x), (b, by_w), (b2, by_w)):
        np.testing.assert_allclose(value(made, **given), value(want, **given), rtol=1e-9, atol=1e-12)
    direction = rng.standard_normal(X.shape)
    moved = (conv(X + 1e-5 * direction, **how) - conv(X - 1e-5 * direction, **how)) / 2e-5
    np.testing.assert_allclose((value(by_x, **given) * direction).sum(), (moved * slopes).sum(), rtol=1e-6)


def test_transposed_convolution():
    x, w = T.dtensor4("x"), T.dtensor4("w")
    y = T.nnet.conv2d_transpose(x, w, (2, 4, 9, 8), input_dilation=(2, 2))
    g = rng.standard_normal((2, 6, 4, 4))
    want = value(T.nnet.conv2d_grad_wrt_inputs(x, w, (2, 4, 9, 8), subsample=(2, 2)), x=g, w=W)
    np.testing.assert_array_equal(value(y, x=g, w=W), want)
    assert want.shape == (2, 4, 9, 8)


def test_three_dimensions():
    x, w = rng.standard_normal((1, 2, 4, 5, 6)), rng.standard_normal((3, 2, 2, 3, 2))
    got = value(T.nnet.conv3d(T.dtensor5("x"), T.dtensor5("w"), border_mode="half"), x=x, w=w)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (1, 1)))
    want = [[sum(correlate(c, k[::-1, ::-1, ::-1], "valid") for c, k in zip(padded[0], f)) for f in w]]
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def test_the_older_signature():
    x, w = T.dtensor4("x"), T.dtensor4("w")
    y = old_conv2d(x, w, image_shape=X.shape, filter_shape=W.shape, border_mode="full", subsample=(1, 2))
    np.testing.assert_allclose(value(y, x=X, w=W), conv(border_mode="full", subsample=(1, 2)))


def test_one_function_for_batches_of_any_size():
    f = tcc.function([x := T.dtensor4("x")], T.nnet.conv2d(x, W))
    for n in (1, 3, 2, 0):
        np.testing.assert_allclose(f(rng.standard_normal((n, 4, 9, 8))).shape, (n, 6, 7, 7))


@pytest.mark.parametrize("ratio", [1, 2, 3, 4])
def test_bilinear_upsampling(ratio):
    x = rng.standard_normal((2, 3, 4, 5))
    got = value(T.nnet.bilinear_upsampling(T.dtensor4("x"), ratio), x=x)
    want = x
    for axis in (2, 3):
        n = want.shape[axis]
        at = (np.arange(n * ratio) - (ratio // 2 - (0 if ratio % 2 else 0.5)) * 0) / ratio
        want = upsampled(want, ratio, axis)
        assert len(at) == want.shape[axis]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def upsampled(x, ratio, axis):
    """Each element put `ratio` apart between copies of the ends, and triangles drawn over them."""
    x = np.moveaxis(x, axis, -1)
    ends = np.concatenate([x[..., :1], x, x[..., -1:]], -1)
    n = x.shape[-1]
    wide = np.zeros((*x.shape[:-1], (n + 2) * ratio))
    wide[..., ::ratio] = ends
    triangle = np.concatenate([np.arange(1, ratio + 1), np.arange(ratio - 1, 0, -1)]) / ratio
    smooth = np.apply_along_axis(np.convolve, -1, wide, triangle, "full")
    start = 2 * ratio - (ratio - 1) // 2 - 1
    return np.moveaxis(smooth[..., start : start + n * ratio], -1, axis)


@pytest.mark.parametrize("known", [True, False])
def test_images_smaller_than_the_filters(known):
    x, w = T.tensor4("x"), T.tensor4("w")
    shapes = {"input_shape": (1, 1, 4, 3), "filter_shape": (1, 1, 3, 5)} if known else {}
    f = T.nnet.conv2d(x, w, border_mode=(0, 1), **shapes)
    args = {x: np.ones((1, 1, 4, 3)), w: np.ones((1, 1, 3, 5))}
    assert f.eval(args).shape == (1, 1, 2, 1)
    f = T.nnet.conv2d(x, w, filter_dilation=(1, 1), **shapes)
    with pytest.raises(
        ValueError, match=r"along axis 3 the image with its border is smaller than the filters"
    ):
        tcc.function([x, w], f)(*args.values())
    f = T.nnet.conv2d(x, w, border_mode=(0, 1), filter_dilation=(2, 1), **shapes)
    with pytest.raises(ValueError, match=r"along axis 2 .* against"):
        tcc.function([x, w], f)(*args.values())
