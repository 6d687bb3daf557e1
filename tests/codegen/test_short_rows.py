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


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16", "i64", "u8", "bool"])
@pytest.mark.parametrize("n", [2, 3, 5, 12])
@pytest.mark.parametrize("rows", [97, 1500])
def test_short_rows_are_written_in_whole_vectors(dtype, n, rows):
    """Repeated elements, turned channels, a factor for each row and one for each column, and the places themselves; more than a
    stretch of rows, and no whole vector of them at the end."""
    func = parse_func(f"""
func @f(%x: {dtype}[m], %y: {dtype}[2,{n},m], %z: {dtype}[m,{n}], %w: {dtype}[{n}])
    -> ({dtype}[m,{n}], {dtype}[2,m,{n}], {dtype}[m,{n}], i64[m,{n}]) {{
  %c = dimshuffle %x {{order = [0, -1]}} : {dtype}[m,1]
  %r = broadcast %c {{shape = [m, {n}]}} : {dtype}[m,{n}]
  %t = dimshuffle %y {{order = [0, 2, 1]}} : {dtype}[2,m,{n}]
  %p = dimshuffle %w {{order = [-1, 0]}} : {dtype}[1,{n}]
  %v = broadcast %p {{shape = [m, {n}]}} : {dtype}[m,{n}]
  %a = maximum %z, %v : {dtype}[m,{n}]
  %b = minimum %a, %r : {dtype}[m,{n}]
  %i = iota {{shape = [m, {n}], axis = 0, dtype = "i64"}} : i64[m,{n}]
  %j = iota {{shape = [m, {n}], axis = 1, dtype = "i64"}} : i64[m,{n}]
  %k = mul %i, %i : i64[m,{n}]
  %l = sub %k, %j : i64[m,{n}]
  yield %r, %t, %b, %l
}}""")
    rng, kind = np.random.default_rng(n), numpy_dtype(dtype)
    x, y, z, w = ((rng.standard_normal(s) * 3).astype(kind) for s in (rows, (2, n, rows), (rows, n), n))
    i, j = np.ogrid[:rows, :n]
    wanted = [
        np.repeat(x[:, None], n, 1),
        y.transpose(0, 2, 1),
        np.minimum(np.maximum(z, w), x[:, None]),
        i * i - j,
    ]
    for got, want in zip(run_native(func, [x, y, z, w]), wanted, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", ["f64", "f32", "bool"])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_columns_side_by_side(dtype, n):
    operands = ", ".join(f"%x{k}: {dtype}[m,1]" for k in range(n))
    names = ", ".join(f"%x{k}" for k in range(n))
    func = parse_func(f"""
func @f({operands}) -> ({dtype}[m,{n}]) {{
  %c = concat {names} {{axis = 1}} : {dtype}[m,{n}]
  yield %c
}}""")
    columns = [
        np.random.default_rng(k).standard_normal((1501, 1)).astype(numpy_dtype(dtype)) for k in range(n)
    ]
    (got,) = run_native(func, columns)
    np.testing.assert_array_equal(got, np.concatenate(columns, 1))
