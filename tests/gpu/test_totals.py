"""Row kernels that add up columns too, on the emulator: the gradients of a norm by its input, gain and bias."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from emulated import Array, assembled, program_of, run_program

from tcc.codegen.gpu import totals
from tcc.codegen.gpu.chips import chip
from tcc.codegen.gpu.driver import lower
from tcc.ir import dims
from tcc.ir.builder import Builder
from tcc.ir.clone import clone
from tcc.ir.core import Block, Func
from tcc.ir.dims import Size
from tcc.ir.types import Type, numpy_dtype
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import gpu_pipeline
from tcc.runtime.device_program import Launch
from tcc.tools.compare import disagreement

RNG = np.random.default_rng(0)


def norm_gradients(dtype: str, rows: Size, columns: Size) -> Func:
    """Of a gradient t of the rows of x, divided by their lengths and multiplied by g: by x, by g, by a bias."""
    block = Block()
    x, t = (block.add_param(Type(dtype, (rows, columns)), n) for n in "xt")
    g = block.add_param(Type(dtype, (columns,)), "g")
    b = Builder(block)
    shape = [rows, columns]
    size = b.sqrt(b.add(b.sum(b.sqr(x), axes=[1]), b.const(0.1, Type(dtype, (rows,)))))
    wide = b.broadcast(b.dimshuffle(size, order=[0, -1]), shape=shape)
    scaled, unit = b.mul(t, b.broadcast(g, shape=shape)), b.div(x, wide)
    along = b.sum(b.mul(scaled, unit), axes=[1])
    back = b.mul(unit, b.broadcast(b.dimshuffle(along, order=[0, -1]), shape=shape))
    by_x = b.div(b.sub(scaled, back), wide)
    b.op("yield", by_x, b.sum(b.mul(t, unit), axes=[0]), b.sum(t, axes=[0]))
    return Func("gradients", block)


def arguments(dtype: str, rows: int, columns: int) -> list[Array]:
    shapes = (rows, columns), (rows, columns), (columns,)
    return [RNG.standard_normal(s).astype(numpy_dtype(dtype)) for s in shapes]


def named(func: Func, args: Sequence[Array]) -> list[Array]:
    return run_program(program_of(func, args, exact=False), func, args)


SIZES = [(300, 64), (70, 37), (64, 1), (1, 5), (0, 4), (3, 0), (67, 1003)]


@pytest.mark.parametrize("rows, columns", SIZES)
def test_one_visit_makes_rows_and_totals(rows: int, columns: int) -> None:
    """The same bits of known sizes and of those of run time, and in both orders of threads."""
    args = arguments("f32", rows, columns)
    func, open = norm_gradients("f32", rows, columns), norm_gradients("f32", *map(dims.name, "rc"))
    assert disagreement(func, args, lambda f, a, exact=True: named(f, a)) == ""
    program = program_of(open, args, exact=False)
    assert [s.kernel.split("_")[1] for s in program.walk() if isinstance(s, Launch)] == [
        "totals",
        "stretches",
    ]
    made = [run_program(program, open, args, descending) for descending in (False, True)]
    if rows >= 64 and columns > 1:  # fewer are cut otherwise, where that is known
        made.append(named(func, args))
    for others in zip(*made):
        assert len({a.tobytes() for a in others}) == 1


@pytest.mark.parametrize("dtype", ["f64", "f16"])
def test_stretches_of_several_rows(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    """Teams of a warp and of a block; totals in shared memory, and in the device's."""
    monkeypatch.setattr(totals, "STRETCHES", 7)
    monkeypatch.setattr(totals, "SHORT_STRETCHES", 9)
    for rows, columns, near in ((100, 24, totals.NEAR), (65, 600, totals.NEAR), (100, 24, 0)):
        monkeypatch.setattr(totals, "NEAR", near)
        func, args = norm_gradients(dtype, rows, columns), arguments(dtype, rows, columns)
        assert disagreement(func, args, lambda f, a, exact=True: named(f, a)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sm_80", "sm_90"])
def test_they_are_assembled(name: str) -> None:
    for dtype, *shape in (("f32", 8192, 1024), ("f16", 8192, 512), ("f32", *map(dims.name, "rc"))):
        g = clone(norm_gradients(dtype, *shape), {})
        run(g, gpu_pipeline(), Context())
        for kernel in lower(g, chip(name)).kernels.values():
            said = assembled(kernel.text, name)
            assert "error" not in said and " 0 bytes spill stores" in said, said
