"""Kernels that move memory on a GPU, by its emulator: maps that turn it, sums of columns in two steps, runs of 16 bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from emulated import assembled, emulated, program_of, run_program
from sectors import SECTOR, Counting

from tcc.codegen.gpu.chips import chip
from tcc.codegen.gpu.driver import lower
from tcc.ir import dims
from tcc.ir.builder import Builder
from tcc.ir.clone import clone
from tcc.ir.core import Block, Func, Value
from tcc.ir.dims import Size
from tcc.ir.interpret import run as interpret
from tcc.ir.types import Type, numpy_dtype
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import gpu_pipeline

Body = Callable[[Builder, "Sequence[Value]"], "Sequence[Value]"]


def function(body: Body, *types: Type) -> Func:
    block = Block(list(types), [f"x{i}" for i in range(len(types))])
    b = Builder(block)
    b.op("yield", *body(b, block.params))
    return Func("f", block)


def arguments(func: Func) -> list[Any]:
    rng = np.random.default_rng(0)
    found: list[Any] = []
    for p in func.body.params:
        if p.name == "index":
            found.append(rng.integers(0, 5, p.type.shape))
        elif p.type.dtype == "bool":
            found.append(rng.integers(0, 2, p.type.shape).astype(bool))
        else:
            found.append((rng.standard_normal(p.type.shape) * 20).astype(numpy_dtype(p.type.dtype)))
    return found


def check(func: Func, kinds: str, exact: bool = True, given: list[Any] | None = None) -> None:
    """The kernels' kinds, and their results in both orders of threads: equal, and NumPy's."""
    args = given or arguments(func)
    program = program_of(func, args, exact=exact)
    assert " ".join(name.split("_")[1] for name in program.kernels) == kinds
    up, down = (run_program(program, func, args, descending) for descending in (False, True))
    for a, b, want in zip(up, down, interpret(func, *args), strict=True):
        assert a.tobytes() == b.tobytes()
        assert a.dtype == want.dtype
        np.testing.assert_allclose(a, want, rtol=2e-3 if a.dtype == np.float16 else 1e-6, atol=1e-30)


def spills(func: Func, name: str = "sm_90") -> None:
    g = clone(func, {})
    run(g, gpu_pipeline(), Context())
    for kernel in lower(g, chip(name)).kernels.values():
        said = assembled(kernel.text, name)
        assert "error" not in said and "C75" not in said and " 0 bytes spill stores" in said, said


# -- maps that turn memory -------------------------------------------------------------------------------------------


def turned(dtype: str, m: int, n: int, more: bool) -> Func:
    """x.T, or x.T * y + z."""

    def body(b: Builder, given: Sequence[Value]) -> list[Value]:
        t = b.dimshuffle(given[0], order=[0, 2, 1])
        if more:
            t = b.add(b.mul(t, given[1]), b.broadcast(given[2], shape=list(t.type.shape)))
        return [t]

    types = [Type(dtype, (2, m, n)), Type(dtype, (2, n, m)), Type(dtype, (m,))]
    return function(body, *types[: 3 if more else 1])


@pytest.mark.parametrize(
    "dtype, m, n, more",
    [
        ("f32", 64, 128, True),
        ("f32", 37, 129, False),
        ("f64", 32, 33, True),
        ("f16", 128, 128, False),
        ("bool", 130, 16, False),
    ],
)
def test_memory_is_turned_in_tiles(dtype: str, m: int, n: int, more: bool) -> None:
    check(turned(dtype, m, n, more), "turned", exact=m != 37)


def test_thin_arrays_are_turned_one_by_one() -> None:
    check(turned("f32", 5, 300, False), "map")


# -- sums of columns -------------------------------------------------------------------------------------------------


def columns(dtype: str, rows: Size, columns: Size, *hows: str) -> Func:
    """Reductions of x * x, or of bools."""

    def body(b: Builder, given: Sequence[Value]) -> list[Value]:
        x = b.mul(given[0], given[0]) if dtype != "bool" else given[0]
        return [b.op(how, x, attrs={"axes": [0]}).result for how in hows]

    return function(body, Type(dtype, (rows, columns)))


@pytest.mark.parametrize(
    "dtype, rows, width, hows",
    [
        ("f32", 1000, 10, "sum max"),
        ("f64", 131, 67, "sum"),
        ("bool", 300, 7, "any all"),
        ("i64", 64, 5, "sum"),
        ("f32", 0, 3, "sum"),
    ],
)
@pytest.mark.parametrize("exact", [True, False])
def test_columns_are_added_up_in_two_steps(dtype: str, rows: int, width: int, hows: str, exact: bool) -> None:
    sizes = (rows, width) if exact else (dims.name("m"), dims.name("n"))
    args = arguments(columns(dtype, rows, width, *hows.split()))
    kinds = "columns" if exact and rows <= 64 else "stretch stretches"
    check(columns(dtype, *sizes, *hows.split()), kinds, exact, args)


@pytest.mark.slow
def test_kernels_that_move_memory_fit_registers() -> None:
    for func in (
        turned("f16", 512, 512, False),
        columns("bool", 4096, 100, "any"),
        columns("f32", 4096, 100, "max", "min"),
    ):
        spills(func)


# -- runs ------------------------------------------------------------------------------------------------------------


def centred(length: Size) -> Func:
    def body(b: Builder, given: Sequence[Value]) -> list[Value]:
        total = b.op("sum", given[0], attrs={"axes": [1]}).result
        over = b.broadcast(b.dimshuffle(total, order=[0, -1]), shape=list(given[0].type.shape))
        return [b.sub(given[0], over)]

    return function(body, Type("f64", (3, length)))


@pytest.mark.parametrize("length", [2, 37, 130, 515, 1030])
def test_rows_of_any_length(length: int) -> None:
    """Those of an odd length are aligned by chance only; a name for the length changes no bit."""
    known, named = centred(length), centred(dims.name("n"))
    args = arguments(known)
    check(known, "row")
    check(named, "row", False, args)
    a, b = (run_program(program_of(f, args, exact=f is known), f, args)[0] for f in (known, named))
    assert a.tobytes() == b.tobytes()


def weighted(length: Size, dtype: str = "f32", first: int = 0) -> Func:
    """softmax(x) * y of rows that begin so many elements into an array."""

    def body(b: Builder, given: Sequence[Value]) -> list[Value]:
        x, y = given
        if first:
            x = b.op("slice", x, attrs={"start": (first,), "size": (3 * length,), "step": (1,)}).result  # type: ignore[operator]
            x = b.op("reshape", x, attrs={"shape": [3, length]}).result
        return [b.mul(b.op("softmax", x).result, y)]

    shape = (3 * length + first,) if first else (3, length)  # type: ignore[operator]
    return function(body, Type(dtype, shape), Type(dtype, (3, length)))


@pytest.mark.parametrize("length, dtype", [(10, "f32"), (512, "f32"), (2048, "f32"), (1088, "f16")])
def test_rows_of_a_known_length_are_read_once(length: int, dtype: str) -> None:
    """With the bits of those of a length of run time, and of ones that are not aligned."""
    known = weighted(length, dtype)
    args = arguments(known)
    if dtype == "f32":
        check(known, "row")
    device = Counting()
    (whole,) = run_program(program_of(known, args, exact=True), known, args, device=device)
    (traffic,) = device.traffic.values()
    assert traffic.touched <= 1.2 * 3 * args[0].nbytes / SECTOR + 12
    (named,) = emulated(weighted(dims.name("n"), dtype), args, exact=False)
    moved = weighted(length, dtype, 1)
    (shifted,) = emulated(moved, [np.concatenate([[0], args[0].ravel()]).astype(args[0].dtype), args[1]])
    assert whole.tobytes() == named.tobytes() == shifted.tobytes()


@pytest.mark.parametrize("shape", [(9, 8), (9, 7), (9, 3)])
def test_gathered_rows(shape: tuple[int, int]) -> None:
    def body(b: Builder, given: Sequence[Value]) -> list[Value]:
        return [b.op("gather", given[0], given[1], attrs={"axes": [0]}).result]

    func = function(body, Type("f32", shape), Type("i64", (6,)))
    func.body.params[1].name = "index"
    check(func, "gather")


def test_a_long_sum_is_collected_by_a_whole_team() -> None:
    check(
        function(lambda b, x: [b.op("sum", x[0], attrs={"axes": [0]}).result], Type("f64", (70001,))),
        "chunk collect",
    )


@pytest.mark.parametrize("how, dtype", [("sum", "f32"), ("prod", "f16"), ("max", "f32"), ("sum", "i32")])
def test_a_short_total_is_one_kernel_with_the_bits_of_two(how: str, dtype: str) -> None:
    """Those of a run-time length, zeros' signs included."""
    kind = numpy_dtype(dtype)
    arrays = [
        np.random.default_rng(0).standard_normal(1500),
        np.full(3, -0.0),
        np.zeros(2 if how == "max" else 0),
    ]
    for array in (a.astype(kind) for a in arrays):
        known, named = (
            function(lambda b, x: [b.op(how, x[0], attrs={"axes": [0]}).result], Type(dtype, (size,)))
            for size in (array.size, dims.name("n"))
        )
        assert any("_whole_" in name for name in program_of(known, [array], exact=True).kernels)
        one, two = (emulated(f, [array], exact=f is known)[0] for f in (known, named))
        assert one.tobytes() == two.tobytes()
