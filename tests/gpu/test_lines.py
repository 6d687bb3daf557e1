"""Sorts and running totals of lines on a GPU, by its emulator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulated import Array, assembled, program_of, run_program

from tcc.codegen.gpu.chips import chip
from tcc.codegen.gpu.driver import lower
from tcc.ir import dims
from tcc.ir.builder import Builder
from tcc.ir.clone import clone
from tcc.ir.core import Block, Func
from tcc.ir.interpret import run as interpret
from tcc.ir.types import Type, numpy_dtype
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import gpu_pipeline


def function(op: str, dtype: str, shape: tuple[dims.Size, ...], **attrs: Any) -> Func:
    block = Block([Type(dtype, shape)], ["x"])
    b = Builder(block)
    b.op("yield", b.op(op, block.params[0], attrs=attrs).result)
    return Func("f", block)


def both_orders(func: Func, x: Array, kinds: str) -> list[Array]:
    program = program_of(func, [x], exact=False)
    assert " ".join(dict.fromkeys(name.split("_")[1] for name in program.kernels)) == kinds
    return [run_program(program, func, [x], descending)[0] for descending in (False, True)]


def named(shape: tuple[int, ...]) -> tuple[dims.Size, ...]:
    return tuple(dims.name(f"n{axis}") for axis in range(len(shape)))


SORTS = [
    ("sort", "f32", (3, 37), 1, {}),
    ("sort", "u8", (1500, 2), 0, {}),
    ("argsort", "f64", (1, 4100), 1, {}),
    ("argsort", "i8", (5, 100), 1, {}),
    ("argtopk", "f32", (2, 1100), 1, {"k": 5, "largest": True}),
    ("sort", "f16", (1,), 0, {}),
    ("argsort", "f32", (0,), 0, {}),
]


@pytest.mark.parametrize("op, dtype, shape, axis, attrs", SORTS)
def test_lines_are_sorted_in_tiles_and_merged(
    op: str, dtype: str, shape: tuple[int, ...], axis: int, attrs: dict[str, Any]
) -> None:
    """NumPy's order to the last element, with equal ones, zeros of both signs and NaN."""
    x = np.round(np.random.default_rng(0).standard_normal(shape) * 9).astype(numpy_dtype(dtype))
    if x.dtype.kind == "f" and x.size > 30:
        x.flat[[3, 5, 7, 8, 30]] = [np.nan, np.inf, -0.0, -np.inf, np.nan]
    (want,) = interpret(function(op, dtype, shape, axis=axis, **attrs), x)
    for known in (True, False):
        func = function(op, dtype, shape if known else named(shape), axis=axis, **attrs)
        short = known and shape[axis] <= 1024
        for got in both_orders(func, x, "tiles" if short else "tiles merge sorted"):
            np.testing.assert_array_equal(got, want)


SCANS = [
    ("cumsum", "f32", (3, 1500), 1, "scan"),
    ("cumsum", "i64", (2, 40000), 1, "scan carry"),
    ("cumprod", "f64", (5, 37), 1, "scan"),
    ("cumsum", "f16", (1, 700), 1, "scan"),
    ("cumsum", "f64", (0,), 0, "scan"),
    ("cumsum", "f32", (700, 3), 0, "cumsum"),
]


@pytest.mark.parametrize("op, dtype, shape, axis, kinds", SCANS)
def test_running_totals_of_teams(op: str, dtype: str, shape: tuple[int, ...], axis: int, kinds: str) -> None:
    """A name for the length changes no bit."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape) if op == "cumsum" else rng.uniform(0.5, 1.5, shape)
    x = (x * 9 if dtype == "i64" else x).astype(numpy_dtype(dtype))
    (want,) = interpret(function(op, dtype, shape, axis=axis), x)
    found = both_orders(function(op, dtype, shape, axis=axis), x, kinds)
    for got in found:
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=0.1 if dtype == "f16" else 1e-3)
    whole = kinds if dtype == "f16" or kinds == "cumsum" else "scan carry"
    for got in both_orders(function(op, dtype, named(shape), axis=axis), x, whole):
        assert got.tobytes() == found[0].tobytes() == found[1].tobytes()


@pytest.mark.parametrize("n", [0, 1, 37, 9000])
def test_positions_in_two_steps(n: int) -> None:
    c = np.random.default_rng(n).integers(0, 3, n) == 0
    size = int(np.count_nonzero(c))
    func = function("positions", "bool", (n,), count=size)
    for got in both_orders(func, c, "count positions"):
        np.testing.assert_array_equal(got, np.flatnonzero(c))


@pytest.mark.parametrize("op", ["argmax", "argmin"])
@pytest.mark.parametrize(
    "dtype, shape", [("f32", (3, 700)), ("i8", (5, 37)), ("f64", (2, 0)), ("bool", (4, 9)), ("f16", (2, 600))]
)
def test_the_first_extreme_of_a_line(op: str, dtype: str, shape: tuple[int, ...]) -> None:
    """The first NaN, if there is one; 0 of nothing."""
    x = np.round(np.random.default_rng(1).standard_normal(shape) * 2).astype(numpy_dtype(dtype))
    if x.dtype.kind == "f" and x.size:
        x[1, [300, 400]] = np.nan
        x[0] = np.inf if op == "argmin" else -np.inf
    if dtype == "f64":
        want = np.zeros(2, np.int64)
    else:
        (want,) = interpret(function(op, dtype, shape, axis=1), x)
    for known in (True, False):
        for got in both_orders(function(op, dtype, shape if known else named(shape), axis=1), x, op):
            np.testing.assert_array_equal(got, want)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sm_80", "sm_90"])
def test_sorts_are_assembled(name: str) -> None:
    for op, dtype, shape in (
        ("argsort", "f32", (3, 5000)),
        ("argsort", "f64", named((2, 1))),
        ("sort", "u8", (9000,)),
    ):
        g = clone(function(op, dtype, shape, axis=len(shape) - 1), {})
        run(g, gpu_pipeline(), Context())
        for kernel in lower(g, chip(name)).kernels.values():
            said = assembled(kernel.text, name)
            assert "error" not in said and " 0 bytes spill stores" in said, said
