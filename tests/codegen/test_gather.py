"""What is taken by index in runs of points: one by one, along axes that are not the first; and which index a check names."""

from __future__ import annotations

import numpy as np
import pytest

from tcc.ir.text import parse_func
from tcc.ir.types import numpy_dtype
from tcc.tools.compare import compile_native

LENGTHS = (0, 1, 2, 15, 16, 17, 77, 256, 257, 600)


@pytest.fixture(autouse=True, params=["host", "x86-64-v3", "plain"])
def target(request, monkeypatch):
    monkeypatch.setenv("TCC_TARGET", request.param)


@pytest.mark.parametrize("dtype", ["f32", "f64", "u8", "bool", "c128"])
@pytest.mark.parametrize("kind", ["i64", "i32", "u8"])
def test_runs_of_points(dtype, kind):
    """Slices of columns lie where they are wanted; a transposed index and strided memory are followed."""
    func = parse_func(f"""
func @f(%x: {dtype}[a,b,c], %i: {kind}[k], %j: {kind}[k], %t: {kind}[2,k]) -> (
    {dtype}[a,k,c], {dtype}[a,b,k], {dtype}[a,k], {dtype}[k], {dtype}[k,2], {dtype}[a,k], {dtype}[a,b,2*k]) {{
  %0 = gather %x, %i {{axes = [1]}} : {dtype}[k,a,c]
  %y = dimshuffle %0 {{order = [1, 0, 2]}} : {dtype}[a,k,c]
  %1 = gather %x, %j {{axes = [2]}} : {dtype}[k,a,b]
  %z = dimshuffle %1 {{order = [1, 2, 0]}} : {dtype}[a,b,k]
  %2 = gather %x, %i, %j {{axes = [1, 2]}} : {dtype}[k,a]
  %p = dimshuffle %2 {{order = [1, 0]}} : {dtype}[a,k]
  %line = slice %x {{start = [a-1, b-1, 0], step = [1, -1, 1], size = [1, b, 1]}} : {dtype}[1,b,1]
  %v = reshape %line {{shape = [b]}} : {dtype}[b]
  %q = gather %v, %i {{axes = [0]}} : {dtype}[k]
  %u = dimshuffle %t {{order = [1, 0]}} : {kind}[k,2]
  %r = gather %v, %u {{axes = [0]}} : {dtype}[k,2]
  %plane = slice %x {{start = [0, 0, 1], step = [1, 1, 1], size = [a, b, 1]}} : {dtype}[a,b,1]
  %w = reshape %plane {{shape = [a,b]}} : {dtype}[a,b]
  %3 = gather %w, %i {{axes = [1]}} : {dtype}[k,a]
  %s = dimshuffle %3 {{order = [1, 0]}} : {dtype}[a,k]
  %twice = concat %z, %z {{axis = 2}} : {dtype}[a,b,2*k]
  yield %y, %z, %p, %q, %r, %s, %twice
}}""")
    function, _ = compile_native(func, {}, exact=False)
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((3, 13, 5)) * 50).astype(numpy_dtype(dtype))
    for n in LENGTHS:
        low = 0 if kind == "u8" else 1
        i, t = (rng.integers(-13 * low, 13, (*lead, n)).astype(numpy_dtype(kind)) for lead in ((), (2,)))
        j = rng.integers(-5 * low, 5, n).astype(numpy_dtype(kind))
        v = x[-1, ::-1, 0]
        wanted = [x[:, i], x[:, :, j], x[:, i, j], v[i], v[t.T], x[:, i, 1]]
        wanted += [np.concatenate([x[:, :, j]] * 2, 2)]
        for k, (got, want) in enumerate(zip(function(x, i, j, t), wanted, strict=True)):
            assert got.shape == want.shape and np.array_equal(got, want), (n, k)


@pytest.mark.parametrize("kind", ["i64", "i32", "u8"])
def test_a_check_names_the_first_index_that_is_outside(kind):
    func = parse_func(f"""
func @f(%x: f32[n], %i: {kind}[k]) -> (f32[k]) {{
  check_index %i {{bound = n}}
  %g = gather %x, %i {{axes = [0]}} : f32[k]
  yield %g
}}""")
    function, _ = compile_native(func, {}, exact=False)
    x, rng = np.arange(13, dtype=np.float32), np.random.default_rng(1)
    for n in LENGTHS:
        i = rng.integers(0 if kind == "u8" else -13, 13, n).astype(numpy_dtype(kind))
        (got,) = function(x, i)
        assert np.array_equal(got, x[i])
        for at in {0, n // 2, n - 1} if n else ():
            ends = np.iinfo(numpy_dtype(kind))
            for wrong in (13, 200) if kind == "u8" else (13, -14, ends.min, ends.max):
                bad = i.copy()
                bad[at], bad[-1] = wrong, wrong
                with pytest.raises(IndexError, match=rf"index {wrong} is out of bounds.*13"):
                    function(x, bad)


@pytest.mark.parametrize("mode", ["set", "add"])
def test_one_number_is_scattered(mode):
    """To points, and to rows of a vector and more; the place of the number has one element."""
    func = parse_func(f"""
func @f(%x: f32[n], %w: f32[n,m], %i: i32[k]) -> (f32[n], f32[n,m]) {{
  %a = const {{value = 2.5, type = f32[k]}} : f32[k]
  %b = const {{value = 0.5, type = f32[k,m]}} : f32[k,m]
  %y = scatter %x, %a, %i {{axes = [0], mode = "{mode}"}} : f32[n]
  %z = scatter %w, %b, %i {{axes = [0], mode = "{mode}"}} : f32[n,m]
  yield %y, %z
}}""")
    function, _ = compile_native(func, {}, exact=False)
    rng = np.random.default_rng(2)
    for m, k in ((1, 0), (3, 5), (19, 40)):
        x, w, i = rng.random(13, np.float32), rng.random((13, m), np.float32), rng.integers(-13, 13, k)
        want_x, want_w = x.copy(), w.copy()
        for put, number in ((want_x, 2.5), (want_w, 0.5)):
            np.add.at(put, i, number) if mode == "add" else put.__setitem__(i, number)
        got_x, got_w = function(x, w, i.astype(np.int32))
        assert np.array_equal(got_x, want_x) and np.array_equal(got_w, want_w)
