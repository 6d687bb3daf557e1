"""float16 and bfloat16 in native code: conversions by all bits, every op rounded once, sums in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tcc.ir.arrays import as_numbers, in_memory, rounded
from tcc.ir.interpret import run as interpret
from tcc.ir.text import parse_func
from tcc.tools.compare import run_native, same_bits

TARGETS = ("host", "x86-64-v3", "x86-64-v2", "plain")
EPS = {"f16": 2.0**-10, "bf16": 2.0**-7}
Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True, params=TARGETS)
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_TARGET", request.param)


def native(text: str, *args: Array) -> list[Array]:
    return run_native(parse_func(text), list(args))


def cast(source: str, to: str, x: Array) -> Array:
    text = f"""func @f(%x: {source}[n]) -> ({to}[n]) {{
      %y = cast %x {{dtype = "{to}"}} : {to}[n]
      yield %y
    }}"""
    return native(text, x)[0]


def every(dtype: str) -> Array:
    """All numbers of the dtype."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    return bits.view(np.float16) if dtype == "f16" else as_numbers(bits, dtype)


def nearest(dtype: str, x: Array) -> Array:
    with np.errstate(over="ignore"):
        return x.astype(np.float16) if dtype == "f16" else rounded(x.astype(np.float32))


@pytest.mark.parametrize("dtype", EPS)
def test_every_number_becomes_float32_and_back(dtype: str) -> None:
    x = every(dtype)
    wide = cast(dtype, "f32", x)
    np.testing.assert_array_equal(wide, x.astype(np.float32))
    back = cast("f32", dtype, wide)
    np.testing.assert_array_equal(back, x)
    numbers = ~np.isnan(x)
    assert same_bits(np.signbit(wide[numbers]), np.signbit(x[numbers]))
    assert same_bits(in_memory(back, dtype)[numbers], in_memory(x, dtype)[numbers])


@pytest.mark.parametrize("dtype", EPS)
def test_rounding_is_to_nearest_even(dtype: str) -> None:
    """Between each two neighbours: the middle, and what lies just beside it."""
    x = every(dtype).astype(np.float32)
    x = np.unique(x[np.isfinite(x)])
    middle = (x[:-1].astype(np.float64) + x[1:]) / 2
    near = middle.astype(np.float32)
    values = np.concatenate(
        [near, np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))]
    )
    values = np.concatenate(
        [values, np.array([np.inf, -np.inf, np.nan, -0.0, 65519.9, 65520, 3.39e38, 3e38], np.float32)]
    )
    np.testing.assert_array_equal(cast("f32", dtype, values), nearest(dtype, values))


@pytest.mark.parametrize("dtype", EPS)
def test_float64_is_rounded_once(dtype: str) -> None:
    x = every(dtype)
    x = np.unique(x[np.isfinite(x) & (x > 2.0**-14)]).astype(np.float64)
    middle = (x[:-1] + x[1:]) / 2
    up, down = np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf)
    np.testing.assert_array_equal(cast("f64", dtype, up).astype(np.float64), x[1:])
    np.testing.assert_array_equal(cast("f64", dtype, down).astype(np.float64), x[:-1])


def numbers(dtype: str, shape: tuple[int, ...], seed: int = 0) -> Array:
    return nearest(dtype, np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 131])
def test_a_fused_chain_has_the_bits_of_its_ops(dtype: str, n: int) -> None:
    text = f"""func @f(%x: {dtype}[n], %y: {dtype}[n]) -> ({dtype}[n], f32[n]) {{
      %a = mul %x, %y : {dtype}[n]
      %b = add %a, %x : {dtype}[n]
      %c = div %y, %b : {dtype}[n]
      %d = sub %c, %a : {dtype}[n]
      %e = abs %d : {dtype}[n]
      %s = sqrt %e : {dtype}[n]
      %w = cast %s {{dtype = "f32"}} : f32[n]
      yield %s, %w
    }}"""
    args = numbers(dtype, (n,)), numbers(dtype, (n,), 1)
    for got, want in zip(native(text, *args), interpret(parse_func(text), *args), strict=True):
        assert same_bits(got, want)


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 37), (37, 3), (67, 130), (2, 0), (0, 2)])
def test_reductions_add_up_in_more_digits(dtype: str, shape: tuple[int, int]) -> None:
    text = f"""func @f(%x: {dtype}[m,n]) -> ({dtype}[n], {dtype}[m], {dtype}[], {dtype}[m], {dtype}[n], {dtype}[m,n]) {{
      %a = sum %x {{axes = [0]}} : {dtype}[n]
      %b = sum %x {{axes = [1]}} : {dtype}[m]
      %c = sum %x {{axes = [0, 1]}} : {dtype}[]
      %d = max %x {{axes = [1]}} : {dtype}[m]
      %e = min %x {{axes = [0]}} : {dtype}[n]
      %g = cumsum %x {{axis = 1}} : {dtype}[m,n]
      yield %a, %b, %c, %d, %e, %g
    }}"""
    x = numbers(dtype, shape)
    wide = x.astype(np.float64)
    a, b, c, d, e, g = native(text, x)
    for got, want in ((a, wide.sum(0)), (b, wide.sum(1)), (c, wide.sum()), (g, wide.cumsum(1))):
        np.testing.assert_allclose(got.astype(np.float64), want, rtol=EPS[dtype], atol=1e-4)
    np.testing.assert_array_equal(d, x.max(1, initial=-np.inf))
    np.testing.assert_array_equal(e, x.min(0, initial=np.inf))


@pytest.mark.parametrize("dtype", EPS)
def test_moves_keep_the_bits(dtype: str) -> None:
    """Transposes, strides, gathers and scatters; sums of scattered elements are rounded one by one."""
    text = f"""func @f(%x: {dtype}[m,n], %i: i64[k]) -> ({dtype}[n,m], {dtype}[k,n], {dtype}[m,n], {dtype}[m,n], i64[m]) {{
      %t = dimshuffle %x {{order = [1, 0]}} : {dtype}[n,m]
      %g = gather %x, %i {{axes = [0]}} : {dtype}[k,n]
      %s = scatter %x, %g, %i {{axes = [0], mode = "set"}} : {dtype}[m,n]
      %a = scatter %x, %g, %i {{axes = [0], mode = "add"}} : {dtype}[m,n]
      %p = argmax %x {{axis = 1}} : i64[m]
      yield %t, %g, %s, %a, %p
    }}"""
    x = every(dtype)[1234::61][:962].reshape(26, 37)
    x = np.where(np.isnan(x), x.dtype.type(1), x)
    i = np.array([3, 25, 3, -1, 0, 7])
    for got, want in zip(native(text, x, i), interpret(parse_func(text), x, i), strict=True):
        assert same_bits(got, want)


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("m, k, n", [(1, 37, 1), (13, 37, 1), (1, 37, 19), (13, 70, 19), (3, 0, 2)])
def test_products_are_summed_in_float32(dtype: str, m: int, k: int, n: int) -> None:
    text = f"""func @f(%x: {dtype}[m,k], %y: {dtype}[k,n]) -> ({dtype}[m,n]) {{
      %z = matmul %x, %y : {dtype}[m,n]
      yield %z
    }}"""
    x, y = numbers(dtype, (m, k)), numbers(dtype, (k, n), 1)
    (got,) = native(text, x, y)
    want = x.astype(np.float64) @ y.astype(np.float64)
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=EPS[dtype], atol=1e-5 * k)


@pytest.mark.parametrize("dtype", EPS)
def test_composites_are_computed_in_float32(dtype: str) -> None:
    text = f"""func @f(%x: {dtype}[m,n]) -> ({dtype}[m,n]) {{
      %y = softmax %x : {dtype}[m,n]
      yield %y
    }}"""
    x = numbers(dtype, (5, 301)) * 4
    x = nearest(dtype, x)
    (got,) = native(text, x)
    e = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(
        got.astype(np.float64), e / e.sum(1, keepdims=True), rtol=EPS[dtype], atol=2.0**-25
    )
