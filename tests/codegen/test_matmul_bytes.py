"""Products of bytes into int32: NumPy's bits, by the instruction for them, by its narrow form, and without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tcc
from tcc import tensor as T
from tcc.codegen import target as targets
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
]


@pytest.fixture(params=("host", "narrow", "x86-64-v3", "plain"))
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_CACHE", "0")
    if request.param != "narrow":
        monkeypatch.setenv("TCC_TARGET", request.param)
        return
    narrow = targets.host()._replace(vector_bits=256, avx512=False)
    if not narrow.byte_products:
        pytest.skip("the CPU has no AVX-VNNI")
    monkeypatch.setattr(targets, "chosen", lambda: narrow)


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
      %2 = matmul_bytes %a, %b : i32[m,n]
      %3 = matmul_bytes %0, %b : i32[m,n]
      %4 = matmul_bytes %a, %1 : i32[m,n]
      yield %2, %3, %4
    }"""
    f = parse_func(text.replace("D[", f"{dtype}["))
    for m, k, n in SIZES:
        a, b = numbers({"i8": "int8", "u8": "uint8"}[dtype], m, k), numbers("int8", k, n)
        for got in run_native(f, [a, b, np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)]):
            assert same_bits(got, product(a, b)), (m, k, n)
    for got in run_native(f, [a[::-1, ::-1], b[::-1, ::-1], a.T[::-1, ::-1], b.T[::-1, ::-1]]):
        assert same_bits(got, product(a[::-1, ::-1], b[::-1, ::-1]))


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
