"""sort, argsort and argtopk in native code against NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tcc.codegen import quicklines
from tcc.ir.arrays import as_numbers, in_memory, rounded
from tcc.ir.text import parse_func
from tcc.ir.types import numpy_dtype
from tcc.runtime.threads import pool
from tcc.tools.compare import compile_native

DTYPES = ("bool", "i8", "u16", "i32", "u32", "i64", "u64", "f16", "bf16", "f32", "f64")
TARGETS = ("x86-64-v3", "x86-64-v2", "plain")
# this machine with all of them, and others with what differs there
CASES = [("host", d) for d in DTYPES] + [(t, d) for t in TARGETS for d in ("f16", "i32", "f64")]
Array = np.ndarray[Any, Any]


def numbers(dtype: str, shape: tuple[int, ...], seed: int = 0) -> Array:
    """Small and large numbers, many of them equal; of floats zeros of both signs, infinities and NaN of both signs too."""
    rng, kind = np.random.default_rng(seed), numpy_dtype(dtype)
    if kind.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if kind.kind in "iu":
        info = np.iinfo(kind)
        some = rng.integers(max(-5, int(info.min)), 6, shape).astype(kind)
        return np.where(
            rng.random(shape) < 0.3, rng.integers(info.min, info.max, shape, kind, endpoint=True), some
        )
    odd = np.array([0.0, -0.0, 1.0, 1.0, np.inf, -np.inf, np.nan, -np.nan, 6e-8, -2.5])
    x = np.where(rng.random(shape) < 0.3, rng.choice(odd, shape), rng.standard_normal(shape) * 10).astype(
        kind
    )
    return rounded(x) if dtype == "bf16" else x


TEXT = """func @f(%x: {d}[{s}]) -> ({d}[{s}], i64[{s}]) {{
  %y = sort %x {{axis = {a}}} : {d}[{s}]
  %i = argsort %x {{axis = {a}}} : i64[{s}]
  yield %y, %i
}}"""


def check(dtype: str, arrays: Sequence[Array], axis: int = 0, exact: bool = False) -> None:
    func = parse_func(TEXT.format(d=dtype, s=",".join("abc"[: arrays[0].ndim]), a=axis))
    function, _ = compile_native(func, {}, exact=exact)
    for x in arrays:
        got, order = function(in_memory(x, dtype))
        np.testing.assert_array_equal(as_numbers(got, dtype), np.sort(x, axis, kind="stable"))
        np.testing.assert_array_equal(order, np.argsort(x, axis, kind="stable"))


@pytest.mark.parametrize("target, dtype", CASES)
def test_lines_of_many_lengths(target: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_TARGET", target)
    check(dtype, [numbers(dtype, (3, n), n) for n in (0, 1, 2, 31, 32, 33, 257, 1009)], 1)


@pytest.mark.parametrize("target", ["host", "x86-64-v3"])
@pytest.mark.parametrize("dtype", ["f32", "i64", "bool"])
def test_known_lengths(target: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On both sides of what each network sorts in registers, of 4 to 16 vectors with AVX-512, half as many without."""
    monkeypatch.setenv("TCC_TARGET", target)
    for n in (1, 5, 16, 17, 33, 64, 65, 128, 129, 257):
        check(dtype, [numbers(dtype, (3, n), n)], 1, exact=True)


@pytest.mark.parametrize("dtype", ["f64", "i64", "u64"])
def test_keys_that_differ_in_their_lower_halves(dtype: str) -> None:
    """Runs of two, of a few, and of more than are sorted by insertion, within lines of any length and over all of one."""
    rng = np.random.default_rng(0)
    lines = []
    for n, apart in ((9, 3), (100, 40), (3000, 500), (3000, 3)):
        upper = np.sort(rng.integers(1, apart, n))
        x = (upper * 2**32 + rng.integers(0, 2**20, n)).astype("u8")
        lines.append(rng.permutation(x.view("f8") if dtype == "f64" else x.astype(numpy_dtype(dtype))))
    check(dtype, lines)


@pytest.mark.parametrize("shape, axis", [((7, 5, 3), 0), ((7, 50, 3), 1), ((1, 67, 1), 1), ((40, 0, 3), 0)])
def test_any_axis(shape: tuple[int, ...], axis: int) -> None:
    for dtype in ("f32", "i64"):
        check(dtype, [numbers(dtype, shape)], axis, exact=True)


@pytest.mark.parametrize("dtype", ["f32", "i64"])
def test_ordered_and_equal_lines(dtype: str) -> None:
    n = np.arange(5000)
    check(dtype, [x.astype(numpy_dtype(dtype)) for x in (n, n[::-1], 0 * n, n % 7, -n // 3)])


@pytest.mark.parametrize("dtype", ["f32", "u32", "i64"])
def test_ranges_that_do_not_halve(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_CACHE", "0")
    monkeypatch.setattr(quicklines, "DEPTH", 0)
    check(dtype, [numbers(dtype, (2, n), n) for n in (257, 1009)], 1)


@pytest.mark.parametrize("target", ["host", "x86-64-v3"])
@pytest.mark.parametrize("dtype", ["f32", "u32", "f64"])
def test_long_lines_by_all_threads(target: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_TARGET", target)
    n = quicklines.LONG + 77
    lines = numbers(dtype, (4, n))
    lines[1], lines[2], lines[3] = 1, np.arange(n) % 2, -np.arange(n) % 1000
    threads = pool()
    try:
        for limit in (1, threads.threads):
            threads.limit = limit
            check(dtype, list(lines))
            check(dtype, [lines[:1].T], 0)  # whose strides are not known
    finally:
        threads.limit = threads.threads


@pytest.mark.parametrize("target, dtype", CASES)
def test_argtopk(target: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_TARGET", target)
    for k in (0, 1, 10, 32, 100):
        text = f"""func @f(%x: {dtype}[m,n]) -> (i64[m,{k}], i64[m,{k}]) {{
          %i = argtopk %x {{axis = 1, k = {k}, largest = true}} : i64[m,{k}]
          %j = argtopk %x {{axis = 1, k = {k}, largest = false}} : i64[m,{k}]
          yield %i, %j
        }}"""
        function, _ = compile_native(parse_func(text), {}, exact=False)
        for n in (k, k + 7, 300, 1009):
            x = numbers(dtype, (3, n), n)
            large, small = function(in_memory(x, dtype))
            order = n - 1 - np.argsort(x[:, ::-1], 1, kind="stable")[:, ::-1]
            np.testing.assert_array_equal(large, order[:, :k])
            np.testing.assert_array_equal(small, np.argsort(x, 1, kind="stable")[:, :k])
