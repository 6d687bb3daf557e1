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


@pytest.mark.parametrize("target", ["host", "x86-64-v3", "x86-64-v2", "plain"])
@pytest.mark.parametrize("dtype", ("u8", "f16", "f32", "f64"))
@pytest.mark.parametrize("exact", [True, False])
def test_maps_and_row_kernels_of_what_lies_across_rows(
    dtype: str, target: str, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Light and costly maps, beside an operand that lies along the rows, and softmax, whose rows are visited again and again."""
    monkeypatch.setenv("TCC_TARGET", target)
    text = f"""func @f(%x: {dtype}[a,b], %y: f32[b,a]) -> (f32[b,a], f32[b,a], f32[b,a]) {{
      %c = cast %x {{dtype = "f32"}} : f32[a,b]
      %t = dimshuffle %c {{order = [1, 0]}} : f32[b,a]
      %s = add %t, %y : f32[b,a]
      %q = exp %t : f32[b,a]
      %e = add %q, %y : f32[b,a]
      %r = softmax %t : f32[b,a]
      yield %s, %e, %r
    }}"""
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (3, 100), (100, 3), (64, 64), (65, 130), (257, 17), (300, 66), (0, 20), (20, 0)):
        function, _ = compile_native(parse_func(text), {}, exact=exact)
        x = (rng.random(shape) * 5).astype(numpy_dtype(dtype))
        y = rng.standard_normal(shape[::-1]).astype("f4")
        s, q, r = function(x, y)
        wide = x.T.astype("f8")
        np.testing.assert_array_equal(s, x.T.astype("f4") + y)
        np.testing.assert_allclose(q, np.exp(wide) + y, rtol=1e-5, atol=1e-5)
        powers = np.exp(wide)
        np.testing.assert_allclose(r, powers / powers.sum(1, keepdims=True), rtol=1e-5)
