"""Products of bytes into int32, with NumPy's bits, and of bfloat16 into float32: by each instruction for them, and without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tcc
from tcc import tensor as T
from tcc.codegen import target as targets
from tcc.codegen.target import Target
from tcc.ir.text import parse_func
from tcc.tools.compare import run_native, same_bits

Array = np.ndarray[Any, Any]
SIZES = [
    (0, 3, 2),
    (3, 0, 2),
    (3, 2, 0),
    (1, 1, 1),
    (5, 7, 131),
    (17, 66, 33),
    (13, 1030, 40),
    (250, 12, 129),
    (7, 515, 145),
]


def without(target: Target, *features: str) -> Target:
    return target._replace(features=",".join(f for f in target.features.split(",") if f[1:] not in features))


MATRICES = ("amx-tile", "amx-int8", "amx-bf16")


@pytest.fixture(params=("host", "vectors", "narrow", "x86-64-v4", "x86-64-v3", "plain"))
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine; the same without matrix registers, or with short vectors too; others that lack the instructions."""
    if request.param == "x86-64-v4" and not targets.host().avx512:
        pytest.skip("the CPU lacks AVX-512")
    if request.param not in ("vectors", "narrow"):
        monkeypatch.setenv("TCC_TARGET", request.param)
        return
    used = without(targets.host(), *MATRICES)
    if request.param == "narrow":
        used = used._replace(vector_bits=256, avx512=False)
    if not used.byte_products:
        pytest.skip("the CPU lacks the instruction for bytes")
    monkeypatch.setattr(targets, "chosen", lambda: used)


def numbers(dtype: str, *shape: int) -> Array:
    """Over the whole range, extremes above all."""
    rng = np.random.default_rng(sum(shape))
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    drawn = rng.integers(low, high + 1, shape)
    return np.where(rng.random(shape) < 0.3, rng.choice([low, high], shape), drawn).astype(dtype)


def product(a: Array, b: Array) -> Array:
    made: Array = a.astype(np.int32) @ b.astype(np.int32)
    return made


@pytest.mark.usefixtures("target")
@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_every_layout_and_size(dtype: str) -> None:
    text = """func @f(%a: D[m,k], %b: i8[k,n], %at: D[k,m], %bt: i8[n,k]) -> (i32[m,n], i32[m,n], i32[m,n]) {
      %0 = dimshuffle %at {order = [1, 0]} : D[m,k]
      %1 = dimshuffle %bt {order = [1, 0]} : i8[k,n]
      %2 = matmul_widening %a, %b : i32[m,n]
      %3 = matmul_widening %0, %b : i32[m,n]
      %4 = matmul_widening %a, %1 : i32[m,n]
      yield %2, %3, %4
    }"""
    f = parse_func(text.replace("D[", f"{dtype}["))
    for m, k, n in SIZES:
        a, b = numbers({"i8": "int8", "u8": "uint8"}[dtype], m, k), numbers("int8", k, n)
        for got in run_native(f, [a, b, np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)]):
            assert same_bits(got, product(a, b)), (m, k, n)
    for got in run_native(f, [a[::-1, ::-1], b[::-1, ::-1], a.T[::-1, ::-1], b.T[::-1, ::-1]]):
        assert same_bits(got, product(a[::-1, ::-1], b[::-1, ::-1]))


def halves(*shape: int) -> Array:
    """Numbers that bfloat16 holds."""
    drawn = np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)
    return (drawn.view(np.uint32) & 0xFFFF0000).view(np.float32)


def close(got: Array, a: Array, b: Array) -> bool:
    """Whether all sums are as near as those of k float32 may be."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    bound = a.shape[-1] * np.finfo(np.float32).eps * (np.abs(a) @ np.abs(b))
    return got.dtype == np.float32 and bool(np.all(np.abs(got - a @ b) <= bound))


HALVES = """func @f(%a: bf16[m,k], %b: bf16[k,n], %at: bf16[k,m], %bt: bf16[n,k]) -> (f32[m,n], f32[m,n], f32[m,n]) {
  %0 = dimshuffle %at {order = [1, 0]} : bf16[m,k]
  %1 = dimshuffle %bt {order = [1, 0]} : bf16[k,n]
  %2 = matmul_widening %a, %b : f32[m,n]
  %3 = matmul_widening %0, %b : f32[m,n]
  %4 = matmul_widening %a, %1 : f32[m,n]
  yield %2, %3, %4
}"""


@pytest.mark.usefixtures("target")
def test_bfloat16_in_every_layout_and_size() -> None:
    f = parse_func(HALVES)
    for m, k, n in [*SIZES, (64, 1024, 64), (70, 600, 300)]:
        a, b = halves(m, k), halves(k, n)
        for got in run_native(f, [a, b, np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)]):
            assert close(got, a, b), (m, k, n)
    for got in run_native(f, [a[::-1, ::-1], b[::-1, ::-1], a.T[::-1, ::-1], b.T[::-1, ::-1]]):
        assert close(got, a[::-1, ::-1], b[::-1, ::-1])


@pytest.mark.usefixtures("target")
def test_bfloat16_keeps_infinities_and_nan_to_their_rows_and_columns() -> None:
    a, b = halves(37, 45), halves(45, 50)
    a[3, 44], a[33, 0], b[44, 49] = np.nan, np.inf, -np.inf
    for got in run_native(parse_func(HALVES), [a, b, a.T.copy(), b.T.copy()]):
        with np.errstate(invalid="ignore"):
            want = a.astype(np.float64) @ b
        assert np.array_equal(np.isnan(got), np.isnan(want))
        odd = ~np.isfinite(want)
        assert np.array_equal(got[odd], want[odd].astype(np.float32), equal_nan=True)
        rows, columns = ~np.isfinite(a).all(1), ~np.isfinite(b).all(0)
        assert close(got[~rows][:, ~columns], a[~rows], b[:, ~columns])


def test_bfloat16_gives_the_same_bits_at_any_number_of_threads_and_kind_of_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b = halves(700, 900), halves(900, 300)
    made = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("TCC_THREADS", threads)
        for exact in (True, False):
            made += run_native(parse_func(HALVES), [a, b, a.T.copy(), b.T.copy()], exact=exact)
    assert all(same_bits(m, made[0]) for m in made)


def test_dot_of_bfloat16_rounds_the_sum_once() -> None:
    x, w = T.matrix("x", dtype="bfloat16"), tcc.shared(halves(70, 35), dtype="bfloat16")
    f = tcc.function([x], [T.dot(x, w), T.dot(T.cast(x, "float32"), T.cast(w, "float32"))])
    a = halves(9, 70)
    rounded, wide = f(a)
    assert close(wide, a, w.get_value())
    assert np.abs(rounded - wide).max() <= np.abs(wide).max() * 2.0**-8


@pytest.mark.parametrize(
    "left, right", [("int8", "int8"), ("uint8", "int8"), ("int8", "uint8"), ("uint8", "uint8")]
)
def test_casts_to_int32_of_both_operands(left: str, right: str) -> None:
    x, w = T.TensorType(left, (False, False))("x"), T.TensorType(right, (False, False))("w")
    f = tcc.function(
        [x, w],
        [T.dot(T.cast(x, "int32"), T.cast(w, "int32")), T.dot(T.cast(x, "int32"), T.cast(w.T, "int32").T)],
    )
    a, b = numbers(left, 9, 70), numbers(right, 70, 35)
    for got in f(a, b):
        assert got.dtype == np.int32 and same_bits(got, product(a, b))


def test_constant_weights_and_batches() -> None:
    w = numbers("int8", 3, 70, 20)
    x = T.tensor3("x", dtype="int8")
    f = tcc.function([x], T.batched_dot(T.cast(x, "int32"), T.cast(T.constant(w), "int32")))
    a = numbers("int8", 3, 5, 70)
    assert same_bits(f(a), product(a, w))


@pytest.mark.usefixtures("target")
def test_vector_times_matrix() -> None:
    v, w = T.vector("v", dtype="uint8"), T.matrix("w", dtype="int8")
    wide = T.cast(v, "int32")
    f = tcc.function([v, w], [T.dot(wide, T.cast(w, "int32")), T.dot(T.cast(w.T, "int32"), wide)])
    a, b = numbers("uint8", 70), numbers("int8", 70, 35)
    for got in f(a, b):
        assert same_bits(got, product(a, b))
