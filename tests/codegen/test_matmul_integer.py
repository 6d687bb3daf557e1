"""Products of integers: NumPy's bits for every layout, dtype and size, wrapping as NumPy wraps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tcc.ir.text import parse_func
from tcc.ir.types import numpy_dtype
from tcc.tools.compare import run_native, same_bits

Array = np.ndarray[Any, Any]
SIZES = [(0, 3, 2), (3, 0, 2), (3, 2, 0), (1, 1, 1), (5, 67, 131), (9, 3, 17), (64, 33, 64)]


@pytest.fixture(autouse=True, params=("host", "x86-64-v3", "plain"))
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_TARGET", request.param)


def numbers(dtype: str, *shape: int) -> Array:
    """Over the whole range, so that sums wrap."""
    rng = np.random.default_rng(sum(shape))
    bits = rng.integers(0, 256, (*shape, numpy_dtype(dtype).itemsize), np.uint8)
    return bits.view(numpy_dtype(dtype))[..., 0]


@pytest.mark.parametrize("dtype", ["i8", "i16", "u32", "i64"])
def test_every_layout_and_size(dtype: str) -> None:
    text = """func @f(%a: D[m,k], %b: D[k,n], %at: D[k,m], %bt: D[n,k]) -> (D[m,n], D[m,n], D[m,n], D[m,n]) {
      %0 = dimshuffle %at {order = [1, 0]} : D[m,k]
      %1 = dimshuffle %bt {order = [1, 0]} : D[k,n]
      %2 = matmul %a, %b : D[m,n]
      %3 = matmul %0, %b : D[m,n]
      %4 = matmul %a, %1 : D[m,n]
      %5 = matmul %0, %1 : D[m,n]
      yield %2, %3, %4, %5
    }"""
    f = parse_func(text.replace("D[", f"{dtype}["))
    for m, k, n in SIZES:
        a, b = numbers(dtype, m, k), numbers(dtype, k, n)
        for got in run_native(f, [a, b, np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)]):
            assert same_bits(got, a @ b), (m, k, n)


def test_batches_and_known_sizes() -> None:
    text = """func @f(%a: i32[3,2,6,40], %b: i32[3,2,40,19]) -> (i32[3,2,6,19]) {
      %0 = matmul %a, %b : i32[3,2,6,19]
      yield %0
    }"""
    a, b = numbers("i32", 3, 2, 6, 40), numbers("i32", 3, 2, 40, 19)
    (got,) = run_native(parse_func(text), [a, b])
    assert same_bits(got, a @ b)
    every_second = (a[:, :, ::-1], b[..., ::-1])
    (got,) = run_native(parse_func(text), list(every_second))
    assert same_bits(got, every_second[0] @ every_second[1])


def test_matrix_times_vector() -> None:
    text = """func @f(%a: i16[m,k], %b: i16[k,1]) -> (i16[m,1]) {
      %0 = matmul %a, %b : i16[m,1]
      yield %0
    }"""
    for m, k in ((1, 1), (7, 300), (4, 0)):
        a, b = numbers("i16", m, k), numbers("i16", k, 1)
        (got,) = run_native(parse_func(text), [a, b])
        assert same_bits(got, a @ b)
