"""Scatters on a GPU, by its emulator: few points, and many, which are sorted first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulated import Array, assembled, only_emulated, program_of, run_program
from sectors import Counting

from tcc.codegen.gpu import scatter as scattering
from tcc.codegen.gpu.chips import chip
from tcc.codegen.gpu.driver import lower
from tcc.ir import dims
from tcc.ir.builder import Builder
from tcc.ir.clone import clone
from tcc.ir.core import Block, Func
from tcc.ir.types import Type, numpy_dtype
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import gpu_pipeline
from tcc.tools.compare import run_native

RNG = np.random.default_rng(0)
Shape = tuple[int, ...]


def scatter(mode: str, dtype: str, shape: Shape, axes: int, points: int, *, named: bool = False) -> Func:
    """x[i, ...] += v, or = v, for indices along the first `axes` axes."""
    block = Block()
    size = dims.name("p") if named else points
    rest = shape[axes:]
    x, v = block.add_param(Type(dtype, shape), "x"), block.add_param(Type(dtype, (size, *rest)), "v")
    at = [block.add_param(Type("i64", (size,)), f"i{a}") for a in range(axes)]
    b = Builder(block)
    attrs = {"axes": list(range(axes)), "mode": mode}
    b.op("yield", b.op("scatter", x, v, *at, attrs=attrs).result)
    return Func("f", block)


def arguments(dtype: str, shape: Shape, axes: int, points: int) -> list[Array]:
    kind = numpy_dtype(dtype)
    numbers = [RNG.standard_normal(s) * 100 for s in (shape, (points, *shape[axes:]))]
    at = [RNG.integers(-n, n, points) if n else np.zeros(points, np.int64) for n in shape[:axes]]
    return [*(x.astype(kind) for x in numbers), *at]


def kinds(func: Func, args: list[Array]) -> str:
    return " ".join(dict.fromkeys(n.split("_")[1] for n in program_of(func, args, exact=True).kernels))


CASES: list[tuple[str, str, Shape, int, int]] = [
    ("add", "f32", (50, 37), 1, 2500),
    ("add", "f16", (7, 3), 1, 1031),
    ("add", "i64", (3, 4), 2, 1100),
    ("add", "f64", (1,), 1, 70),
    ("add", "f32", (2, 3, 1), 1, 1),
    ("set", "f32", (5, 33), 1, 1100),
    ("set", "i8", (4, 5), 2, 97),
    ("add", "f32", (5, 3), 1, 0),
    ("add", "f32", (5, 0), 1, 3),
]


@pytest.mark.parametrize("mode, dtype, shape, axes, points", CASES)
def test_sorted_points_come_in_their_order(
    monkeypatch: pytest.MonkeyPatch, mode: str, dtype: str, shape: Shape, axes: int, points: int
) -> None:
    """The CPU's bits, of known and of run-time sizes, in both orders of threads."""
    monkeypatch.setattr(scattering, "MANY", 1)
    args = arguments(dtype, shape, axes, points)
    func = scatter(mode, dtype, shape, axes, points)
    (want,) = run_native(func, args)
    sorting = "tiles runs" if points <= 1024 else "tiles merge runs"
    assert kinds(func, args) == ("map scatter" if points == 0 else f"map {sorting}")
    for named in (False, True):
        func = scatter(mode, dtype, shape, axes, points, named=named)
        program = program_of(func, args, exact=False)
        for descending in (False, True):
            (got,) = run_program(program, func, args, descending)
            assert got.tobytes() == want.tobytes()


def test_one_place_takes_all_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scattering, "MANY", 1)
    args = arguments("f32", (4, 5), 1, 1500)
    args[2] = np.where(RNG.random(1500) < 0.01, 1, 3)
    func = scatter("add", "f32", (4, 5), 1, 1500)
    (want,) = run_native(func, args)
    (got,) = run_program(program_of(func, args, exact=True), func, args)
    assert got.tobytes() == want.tobytes()


@only_emulated
def test_many_points_are_not_looked_at_by_each_warp() -> None:
    """Each of 400 warps, one for each row, read all indices."""
    args = arguments("f32", (400, 32), 1, 1200)
    func = scatter("add", "f32", (400, 32), 1, 1200)
    (want,) = run_native(func, args)
    touched = {}
    for many in (1 << 20, 1000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scattering, "MANY", many)
            device = Counting()
            (got,) = run_program(program_of(func, args, exact=True), func, args, device=device)
            assert got.tobytes() == want.tobytes()
            touched[many] = sum(t.touched for t in device.traffic.values())
    few, many = touched.values()
    assert 4 * many < few, touched


@only_emulated
@pytest.mark.parametrize("points, names", [(100, {"scatter"}), (4500, {"tiles", "merge", "runs"})])
def test_run_time_sizes_choose(points: int, names: set[str]) -> None:
    args = arguments("f32", (9, 4), 1, points)
    func = scatter("add", "f32", (9, 4), 1, points, named=True)
    device = Counting()
    (got,) = run_program(program_of(func, args, exact=False), func, args, device=device)
    assert {name.split("_")[1] for name in device.launched} - {"map"} == names
    assert got.tobytes() == run_native(func, args)[0].tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sm_80", "sm_90"])
def test_they_are_assembled(name: str) -> None:
    for mode, dtype in (("add", "f32"), ("add", "f16"), ("set", "i64")):
        func = scatter(mode, dtype, (50000, 128), 1, 1 << 16)
        g = clone(func, {})
        run(g, gpu_pipeline(), Context())
        for kernel in lower(g, chip(name)).kernels.values():
            said: Any = assembled(kernel.text, name)
            assert "error" not in said and " 0 bytes spill stores" in said, said
