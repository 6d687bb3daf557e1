"""Copies that turn memory, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from tcc.ir.text import parse_func
from tcc.ir.types import numpy_dtype
from tcc.tools.compare import compile_native

DTYPES = ("u8", "f16", "f32", "f64", "c64")


@pytest.mark.parametrize("target", ["host", "x86-64-v3", "x86-64-v2", "plain"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_element_lands(dtype: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two axes, three with the middle one kept, and a window with steps, backwards along one axis."""
    monkeypatch.setenv("TCC_TARGET", target)
    text = f"""func @f(%x: {dtype}[a,b,c]) -> ({dtype}[c,a*b], {dtype}[c,b,a], {dtype}[b,c,a], {dtype}[c,b,a]) {{
      %f = reshape %x {{shape = [a*b,c]}} : {dtype}[a*b,c]
      %t = dimshuffle %f {{order = [1, 0]}} : {dtype}[c,a*b]
      %u = dimshuffle %x {{order = [2, 1, 0]}} : {dtype}[c,b,a]
      %v = dimshuffle %x {{order = [1, 2, 0]}} : {dtype}[b,c,a]
      %w = slice %x {{start = [a - 1, 0, 0], size = [a, b, c], step = [-1, 1, 1]}} : {dtype}[a,b,c]
      %y = dimshuffle %w {{order = [2, 1, 0]}} : {dtype}[c,b,a]
      yield %t, %u, %v, %y
    }}"""
    function, _ = compile_native(parse_func(text), {}, exact=False)
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 1), (3, 1, 2), (16, 2, 16), (33, 1, 70), (17, 3, 130), (0, 2, 5), (70, 2, 15)):
        x = (rng.standard_normal(shape) * 9).astype(numpy_dtype(dtype))
        t, u, v, y = function(x)
        np.testing.assert_array_equal(t, x.reshape(-1, shape[2]).T)
        np.testing.assert_array_equal(u, x.transpose(2, 1, 0))
        np.testing.assert_array_equal(v, x.transpose(1, 2, 0))
        np.testing.assert_array_equal(y, x[::-1].transpose(2, 1, 0))


def test_known_sizes() -> None:
    for shape in ((2, 100), (100, 2), (16, 16), (65, 31)):
        m, n = shape
        text = f"""func @f(%x: f32[{m},{n}]) -> (f32[{n},{m}]) {{
          %t = dimshuffle %x {{order = [1, 0]}} : f32[{n},{m}]
          yield %t
        }}"""
        function, _ = compile_native(parse_func(text), {}, exact=True)
        x = np.arange(m * n, dtype=np.float32).reshape(shape)
        (got,) = function(x)
        np.testing.assert_array_equal(got, x.T)
