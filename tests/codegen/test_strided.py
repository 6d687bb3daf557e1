"""Maps and sums of what lies known strides apart, forwards and backwards, whose vectors are put together of whole ones."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
import pytest
from guarded import PROT_NONE

from tcc.ir.text import parse_func
from tcc.ir.types import numpy_dtype
from tcc.tools.compare import compile_native


@pytest.fixture(autouse=True, params=["host", "x86-64-v3", "x86-64-v2", "plain"])
def target(request, monkeypatch):
    monkeypatch.setenv("TCC_TARGET", request.param)


def between_guarded_pages(a: np.ndarray[Any, Any], at_end: bool) -> tuple[np.ndarray[Any, Any], mmap.mmap]:
    """A copy of `a` that begins behind a page which nobody may touch, or ends before one."""
    page = mmap.PAGESIZE
    pages = -(-a.nbytes // page) * page
    block = mmap.mmap(-1, pages + 2 * page, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = ctypes.addressof(ctypes.c_char.from_buffer(block))
    protect = ctypes.CDLL(None).mprotect
    offset = page + (pages - a.nbytes if at_end else 0)
    copy = np.frombuffer(block, a.dtype, a.size, offset).reshape(a.shape)
    copy[...] = a
    for edge in (start, start + page + pages):
        assert protect(ctypes.c_void_p(edge), ctypes.c_size_t(page), PROT_NONE) == 0
    return copy, block


@pytest.mark.parametrize("dtype", ["f32", "f64", "i64", "u8", "i16", "bool", "f16"])
@pytest.mark.parametrize("step", [2, 3, 4, 5, 8])
def test_nothing_but_what_lies_there_is_read(dtype, step):
    func = parse_func(f"""
func @f(%x: {dtype}[m,{step}*n], %y: {dtype}[m,n]) -> ({dtype}[m,n], {dtype}[m,n], {dtype}[m,{step}*n], {dtype}[m]) {{
  %a = slice %x {{start = [0, 0], step = [1, {step}], size = [m, n]}} : {dtype}[m,n]
  %b = slice %x {{start = [0, {step}*n-1], step = [1, -{step}], size = [m, n]}} : {dtype}[m,n]
  %c = slice %x {{start = [0, {step}*n-1], step = [1, -1], size = [m, {step}*n]}} : {dtype}[m,{step}*n]
  %p = maximum %a, %y : {dtype}[m,n]
  %q = minimum %b, %a : {dtype}[m,n]
  %r = maximum %c, %x : {dtype}[m,{step}*n]
  %s = max %b {{axes = [1]}} : {dtype}[m]
  yield %p, %q, %r, %s
}}""")
    function, _ = compile_native(func, {}, exact=False)
    rng = np.random.default_rng(step)
    for m, n in ((1, 1), (1, 2), (3, 7), (1, 16), (2, 17), (1, 64), (3, 100)):
        x = (rng.standard_normal((m, step * n)) * 50).astype(numpy_dtype(dtype))
        a, b, c = x[:, ::step], x[:, ::-1][:, ::step], x[:, ::-1]
        y = x[:, :n].copy()
        wanted = [np.maximum(a, y), np.minimum(a, b), np.maximum(c, x), b.max(1)]
        for at_end in (False, True):
            copy, block = between_guarded_pages(x, at_end)
            for got, want in zip(function(copy, y), wanted, strict=True):
                assert np.array_equal(got, want), (m, n)
            del copy, got, block
