"""Scalar bodies on every dtype, against NumPy."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from vectors import Array, Library, dtype_of

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.jit import Image, compile_object, function
from tcc.codegen.scalar import emit_scalar, load, store
from tcc.codegen.target import Target, host, plain
from tcc.ir.types import DTYPES

NUMBERS = ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "f32", "f64")
ALL = ("bool", *NUMBERS)
INTEGERS = NUMBERS[:8]
SHAPES: dict[str, tuple[Target, int]] = {
    "host": (host(), 16),
    "many lanes": (host(), 64),
    "plain": (plain(256), 8),
    "scalar": (plain(128), 1),
}
Case = tuple[str, str, Array, tuple[Array, ...]]  # text, dtype of the result, what is wanted, operands
Body = tuple[str, tuple[str, ...], str]  # text, dtypes of the operands, dtype of the result

BINARY: dict[str, Callable[..., Any]] = {
    "a + b": np.add,
    "a * b": np.multiply,
    "min(a, b)": np.minimum,
    "max(a, b)": np.maximum,
    "a - b": np.subtract,
    "a // b": np.floor_divide,
    "a % b": np.mod,
}
BITS: dict[str, Callable[..., Any]] = {
    "a & b": np.bitwise_and,
    "a | b": np.bitwise_or,
    "a ^ b": np.bitwise_xor,
}
COMPARISONS: dict[str, Callable[..., Any]] = {
    "a < b": np.less,
    "a <= b": np.less_equal,
    "a > b": np.greater,
    "a >= b": np.greater_equal,
    "a == b": np.equal,
    "a != b": np.not_equal,
}
UNARY: dict[str, Callable[..., Any]] = {
    "-a": np.negative,
    "abs(a)": np.abs,
    "sign(a)": np.sign,
    "2 * a + 1 - a": lambda a: 2 * a + 1 - a,
    "a ** 2": np.square,
}


def values(dtype: str) -> tuple[Array, Array]:
    """Pairs of awkward numbers and random ones."""
    r, t = np.random.default_rng(1), np.dtype(DTYPES[dtype][0])
    if dtype == "bool":
        return np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
    if dtype in INTEGERS:
        info = np.iinfo(t)
        some = np.array([0, 1, 2, 3, 7, info.max, info.max - 1, info.min, info.max // 2], t)
        if info.min:
            some = np.append(some, np.array([-1, -2, -7], t))
        wide = r.integers(info.min, info.max, 300, t)
    else:
        some = np.array([0, -0.0, 1, -1, 2.5, -2.5, np.inf, -np.inf, np.nan, 1e30, 1e-30], t)
        wide = (r.normal(size=300) * 3).astype(t)
    a, b = np.meshgrid(some, some)
    return np.concatenate([a.ravel(), wide]), np.concatenate([b.ravel(), r.permutation(wide)])


@functools.cache
def library(shape: str, bodies: tuple[Body, ...]) -> Library:
    target, lanes = SHAPES[shape]

    def writer(text: str, dtypes: tuple[str, ...], result: str) -> Callable[..., str]:
        def write(e: Emit, *operands: str) -> str:
            named = {n: (d, v) for n, d, v in zip("abc", dtypes, operands)}
            return emit_scalar(e, target, text, named, lanes=lanes, result=result)

        return write

    functions = {str(k): (b[1], b[2], writer(*b)) for k, b in enumerate(bodies)}
    return Library(functions, target, lanes)


def check(shape: str, cases: Sequence[Case]) -> None:
    bodies = tuple((text, tuple(map(dtype_of, arrays)), result) for text, result, _, arrays in cases)
    run = library(shape, bodies)
    for k, (text, result, wanted, arrays) in enumerate(cases):
        got = run(str(k), *arrays)
        np.testing.assert_array_equal(got, wanted, err_msg=f"{text}: {bodies[k][1]} -> {result}")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ALL)
def test_operators_are_numpy_s(dtype: str, shape: str) -> None:
    a, b = values(dtype)
    integer, number = dtype in INTEGERS, dtype != "bool"
    binary = dict(BINARY) if number else dict(list(BINARY.items())[:4])
    binary |= BITS if integer or not number else {}
    with np.errstate(all="ignore"):
        cases: list[Case] = [(text, dtype, f(a, b), (a, b)) for text, f in binary.items()]
        cases += [(text, "bool", f(a, b), (a, b)) for text, f in COMPARISONS.items()]
        if number:
            cases += [(text, dtype, f(a).astype(a.dtype), (a,)) for text, f in UNARY.items()]
            cases.append(("where(a > b, a, 1)", dtype, np.where(a > b, a, 1).astype(a.dtype), (a, b)))
        else:
            cases.append(("where(a, b, ~b)", dtype, np.where(a, b, ~b), (a, b)))
        if integer:
            few = np.abs(b % a.dtype.type(11)).astype(a.dtype)
            shift = few * a.dtype.type(7)
            cases.append(("~a", dtype, ~a, (a,)))
            cases.append(("pow(a, b)", dtype, a**few, (a, few)))
            cases.append(("shl(a, b)", dtype, np.left_shift(a, shift), (a, shift)))
            cases.append(("shr(a, b)", dtype, np.right_shift(a, shift), (a, shift)))
    check(shape, cases)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ALL)
def test_casts_are_c_s(dtype: str, shape: str) -> None:
    a, _ = values(dtype)
    cases: list[Case] = []
    for to in ALL:
        x = a
        if (
            dtype[0] == "f" and to in INTEGERS
        ):  # C leaves it open what does not fit; narrow integers wrap as int32's last bits
            x = np.clip(np.nan_to_num(a), *((-3e4, 3e4) if to[1:] in ("8", "16") else (0, 100)))
        cases.append(("cast(a)", to, x.astype(DTYPES[to][0]), (x,)))
    check(shape, cases)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_floats_wrap_around_unsigned_integers(dtype: str, shape: str) -> None:
    cases: list[Case] = []
    for bits in (32, 64):
        half = 2.0 ** (bits - 1)
        edges = [-half, half - 1024, half, 1.999 * half, -1, -1.5, -2, 0, 0.5]
        a = np.append(edges, np.random.default_rng(0).uniform(-half, 2 * half, 55)).astype(DTYPES[dtype][0])
        a = a[a < 2 * half]
        wanted = np.array([int(x) % 2**bits for x in a], f"uint{bits}")
        cases.append(("cast(a)", f"u{bits}", wanted, (a,)))
    check(shape, cases)


def test_negative_powers_of_integers_are_rounded_to_zero() -> None:
    a = np.array([0, 1, -1, -1, 2, -3], np.int32)
    b = np.array([-1, -5, -2, -3, -1, -2], np.int32)
    check("host", [("pow(a, b)", "i32", np.array([0, 1, 1, -1, 0, 0], np.int32), (a, b))])


def test_numbers_take_the_dtype_of_what_they_meet() -> None:
    x = np.linspace(-3, 3, 40, dtype=np.float32)
    flag = x > 0
    check(
        "host",
        [
            ("max(a, 0)", "f32", np.maximum(x, np.float32(0)), (x,)),
            ("where(a, 1, 0)", "f64", flag.astype(np.float64), (flag,)),
            ("a * (1 / 4 + 2 ** 3) - -1", "f32", x * np.float32(8.25) + np.float32(1), (x,)),
            ("where(isnan(a) | isinf(a), 0, a)", "f32", x, (x,)),
            ("a ** 0.5", "f32", np.sqrt(np.abs(x)), (np.abs(x),)),
            ("inf", "f32", np.full(40, np.inf, np.float32), (x,)),
        ],
    )


def test_masked_lanes_are_neither_read_nor_written() -> None:
    e, target, t = Emit(), host(), VecType("i1", 16)
    mask = "<" + ", ".join(f"i1 {'true' if i < 5 else 'false'}" for i in range(t.lanes)) + ">"
    e.function("void @f(ptr %x, ptr %y)")
    for k, dtype in enumerate(ALL):
        x, y = (e.gep(p, k * 128) for p in ("%x", "%y"))
        store(e, target, dtype, 16, load(e, target, dtype, 16, x, mask), y, mask)
    e.end()
    image = Image.load([compile_object("\n".join([*e.declared, e.text()]), target)])
    source, sink = np.ones((len(ALL), 128), np.uint8), np.full((len(ALL), 128), 9, np.uint8)
    function(image.address("f"), None, *[ctypes.c_void_p] * 2)(source.ctypes.data, sink.ctypes.data)
    for k, dtype in enumerate(ALL):
        n = 5 * np.dtype(DTYPES[dtype][0]).itemsize
        assert set(sink[k, :n]) == {1} and set(sink[k, n:]) == {9}, dtype


@pytest.mark.parametrize(
    ("body", "operands", "error", "message"),
    [
        ("a + b", {"a": "f32", "b": "i32"}, TypeError, "add needs operands of one dtype, got f32 and i32"),
        ("exp(a)", {"a": "i32"}, TypeError, "exp has no meaning for i32"),
        ("a - a", {"a": "bool"}, TypeError, "sub has no meaning for bool"),
        ("a + 0.5", {"a": "i32"}, TypeError, "add of i32 and the number 0.5"),
        ("a < 1", {"a": "f32"}, TypeError, "gives bool, wanted f32"),
        ("where(a, a, a)", {"a": "f32"}, TypeError, "where needs a bool, got f32"),
        ("a + d", {"a": "f32"}, ValueError, "'d' is neither a primitive nor one of operands a"),
        ("exp(a, a)", {"a": "f32"}, ValueError, "exp takes 1 operands, got 2"),
        ("a +", {"a": "f32"}, ValueError, "is no expression"),
        ("a + a", {"a": "c64"}, TypeError, "add has no meaning for c64"),
    ],
)
def test_wrong_bodies(body: str, operands: dict[str, str], error: type[Exception], message: str) -> None:
    named = {n: (d, f"%{n}") for n, d in operands.items()}
    with pytest.raises(error, match=message):
        emit_scalar(Emit(), host(), body, named, lanes=4, result="f32")
