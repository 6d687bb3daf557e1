"""Fourier transforms against NumPy's, and their gradients against differences."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.tensor import fft

SHAPES = [(1, 1), (2, 4), (2, 5), (3, 2, 6), (2, 3, 5), (0, 4)]


def pairs(z):
    return np.stack([z.real, z.imag], -1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", [None, "ortho", "no_norm"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_there_and_back(shape, norm, dtype):
    value = np.random.default_rng(1).normal(size=shape).astype(dtype)
    x = T.TensorType(dtype, (False,) * len(shape))("x")
    there = fft.rfft(x, norm)
    back = fft.irfft(there, norm, is_odd=bool(shape[-1] % 2))
    made, again = tcc.function([x], [there, back])(value)
    axes = tuple(range(1, len(shape)))
    wanted = (
        pairs(np.fft.rfftn(value, axes=axes, norm="ortho" if norm == "ortho" else None))
        if value.size
        else made
    )
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    assert made.dtype == dtype and made.shape == (*shape[:-1], shape[-1] // 2 + 1, 2)
    np.testing.assert_allclose(made, wanted, rtol=tolerance, atol=tolerance)
    scale = np.prod(shape[1:]) if norm == "no_norm" else 1
    np.testing.assert_allclose(again, value * scale, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(2, 4), (2, 5), (2, 3, 4)])
def test_gradients_are_what_differences_say(shape):
    value = np.random.default_rng(1).normal(size=shape)
    x = T.TensorType("float64", (False,) * len(shape))("x")
    y = (T.sin(fft.rfft(x, "ortho")) * 2).sum() + (
        T.sqr(fft.irfft(T.tanh(fft.rfft(x)), is_odd=shape[-1] % 2 == 1))
    ).sum()
    slope, cost = tcc.function([x], T.grad(y, x)), tcc.function([x], y)
    got = slope(value)
    for at in np.ndindex(shape):
        step = np.zeros(shape)
        step[at] = 1e-6
        np.testing.assert_allclose(
            got[at], (cost(value + step) - cost(value - step)) / 2e-6, rtol=1e-5, atol=1e-6
        )


def test_what_does_not_fit_is_an_error():
    with pytest.raises(TypeError, match="batch"):
        fft.rfft(T.vector())
    with pytest.raises(ValueError, match="norm"):
        fft.rfft(T.matrix(), "forward")
    with pytest.raises(ValueError, match="True or False"):
        fft.irfft(T.tensor3(), is_odd=3)
