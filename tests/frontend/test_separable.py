"""Separable and causal convolutions, and upsampling by fractions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.tensor import nnet
from tcc.tensor.nnet.separable import get_conv_output_shape, get_conv_shape_1axis

RNG = np.random.RandomState(4)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("mode", ["valid", "half"])
def test_separable_is_grouped_then_pointwise(rank: int, mode: str) -> None:
    conv = getattr(nnet, f"conv{rank}d")
    x, deep = RNG.normal(size=(2, 3, *[4] * rank)), RNG.normal(size=(6, 1, *[2] * rank))
    point = RNG.normal(size=(4, 6, *[1] * rank))
    got = getattr(nnet, f"separable_conv{rank}d")(x, deep, point, 3, border_mode=mode).eval()
    each = [conv(x[:, c : c + 1], deep[2 * c : 2 * c + 2], border_mode=mode).eval() for c in range(3)]
    wanted = np.einsum("bc...,fc->bf...", np.concatenate(each, 1), point.reshape(4, 6))
    np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="pointwise_filters"):
        getattr(nnet, f"separable_conv{rank}d")(x, deep, deep, 3)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("known", [True, False])
def test_causal_convolution_looks_back(dilation: int, known: bool) -> None:
    x, w = RNG.normal(size=(2, 3, 7)), RNG.normal(size=(4, 3, 3))
    padded = np.pad(x, ((0, 0), (0, 0), (2 * dilation, 0)))
    wanted = sum(
        np.einsum("bct,fc->bft", padded[:, :, k * dilation : k * dilation + 7], w[:, :, 2 - k])
        for k in range(3)
    )
    if known:
        got = nnet.causal_conv1d(x, w, filter_dilation=dilation).eval()
    else:
        a, b = T.dtensor3s("a", "b")
        got = tcc.function([a, b], nnet.causal_conv1d(a, b, filter_dilation=dilation))(x, w)
    np.testing.assert_allclose(got, wanted, rtol=1e-10)
    assert nnet.causal_conv1d(x, w, subsample=2).eval().shape == (2, 4, 4)
    tcc.verify_grad(lambda x, w: nnet.causal_conv1d(x, w, filter_dilation=dilation), [x[:1], w], rng=RNG)


def test_sizes() -> None:
    x, w = RNG.normal(size=(2, 3, 9, 8)), RNG.normal(size=(4, 3, 3, 2))
    for mode in ("valid", "half", "full", (1, 2), ((1, 0), (2, 1))):
        for subsample in ((1, 1), (2, 3)):
            made = nnet.conv2d(x, w, border_mode=mode, subsample=subsample, filter_dilation=(2, 1)).eval()
            assert get_conv_output_shape(x.shape, w.shape, mode, subsample, (2, 1)) == made.shape
    assert get_conv_shape_1axis(None, 3, "valid", 1) is None
    with pytest.raises(ValueError):
        get_conv_shape_1axis(5, 3, -1, 1)


def interpolated(x: Any, p: int, axis: int) -> Any:
    """Linear between elements, the first of which lands at (p - 1) // 2; constant beyond them."""
    n = x.shape[axis]
    at = (np.arange(n * p) - (p - 1) // 2) / p
    return np.apply_along_axis(lambda line: np.interp(at, np.arange(n), line), axis, x)


@pytest.mark.parametrize("ratio", [(3, 2), (4, 2), ((2, 1), (5, 3)), (2, 3)])
def test_upsampling_by_fractions(ratio: Any) -> None:
    x = RNG.normal(size=(2, 3, 4, 5))
    (p, q), (r, s) = ratio if isinstance(ratio[0], tuple) else (ratio, ratio)
    p, q, r, s = (p // np.gcd(p, q), q // np.gcd(p, q), r // np.gcd(r, s), s // np.gcd(r, s))
    wanted = interpolated(interpolated(x, p, 2), r, 3)[:, :, ::q, ::s]
    np.testing.assert_allclose(
        nnet.bilinear_upsampling(x, frac_ratio=ratio).eval(), wanted, rtol=1e-6, atol=1e-6
    )
    with pytest.raises(ValueError):
        nnet.bilinear_upsampling(x)
    with pytest.raises(ValueError):
        nnet.frac_bilinear_upsampling(x, 2)
