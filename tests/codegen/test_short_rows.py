"""Reductions along rows of a few elements, which are maps where there are many rows."""

from __future__ import annotations

import numpy as np
import pytest

from tcc.ir.text import parse_func
from tcc.ir.types import TOTALS, numpy_dtype
from tcc.tools.compare import run_native


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16", "i64", "i8"])
@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_reductions_of_short_rows(dtype, n):
    func = parse_func(f"""
func @f(%x: {dtype}[m,{n}], %y: {dtype}[k,{n}]) -> ({dtype}[m], {dtype}[m], {dtype}[m], {dtype}[m], {dtype}[m,k]) {{
  %a = sum %x {{axes = [1]}} : {dtype}[m]
  %b = prod %x {{axes = [1]}} : {dtype}[m]
  %c = max %x {{axes = [1]}} : {dtype}[m]
  %d = min %x {{axes = [1]}} : {dtype}[m]
  %p = dimshuffle %x {{order = [0, -1, 1]}} : {dtype}[m,1,{n}]
  %u = broadcast %p {{shape = [m, k, {n}]}} : {dtype}[m,k,{n}]
  %v = broadcast %y {{shape = [m, k, {n}]}} : {dtype}[m,k,{n}]
  %w = sub %u, %v : {dtype}[m,k,{n}]
  %q = sqr %w : {dtype}[m,k,{n}]
  %s = sum %q {{axes = [2]}} : {dtype}[m,k]
  yield %a, %b, %c, %d, %s
}}""")
    rng, kind = np.random.default_rng(n), numpy_dtype(dtype)
    x, y = ((rng.standard_normal((m, n)) * 3).astype(kind) for m in (1500, 7))
    if kind.kind == "f":
        x[3:6, 1] = np.nan, np.inf, -np.inf
        x[5, 0] = np.inf
    wide = numpy_dtype(TOTALS.get(dtype, dtype))
    with np.errstate(all="ignore"):
        square = (x[:, None] - y) ** 2
        wanted = [x.sum(1, wide), x.prod(1, wide), x.max(1), x.min(1), square.sum(2, wide)]
        wanted = [np.asarray(w).astype(kind) for w in wanted]
    tolerance = {"f64": 1e-14, "f32": 1e-6, "f16": 2e-3}.get(dtype, 0)
    for got, want in zip(run_native(func, [x, y]), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=10 * tolerance)
