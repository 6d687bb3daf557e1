"""Products on sm_90a by its emulated tile copies, mbarriers and warpgroup products; nothing of it ran on a real one yet."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from emulated import Array, assembled, lowered, only_emulated, run_program

from tcc.codegen.gpu import driver, hopper
from tcc.codegen.gpu.chips import chip
from tcc.codegen.gpu.driver import lower
from tcc.codegen.gpu.emulator import Emulator, KernelError
from tcc.ir import dims
from tcc.ir.arrays import rounded
from tcc.ir.builder import Builder
from tcc.ir.clone import clone
from tcc.ir.core import Block, Func
from tcc.ir.interpret import run as interpret
from tcc.ir.types import Type
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import gpu_pipeline
from tcc.runtime.device_program import DeviceProgram, Launch

Sizes = tuple[int, int, int]


@pytest.fixture(autouse=True)
def few_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small products take this form, and a block takes several tiles."""
    monkeypatch.setattr(hopper, "LEAST_TILES", 1)
    monkeypatch.setattr(hopper, "LEAST_ROWS", 1)
    monkeypatch.setattr(hopper, "MULTIPROCESSORS", 2)


def product_of(
    dtype: str, size: Sizes, turned: str = "", batch: tuple[int, ...] = (), named: bool = False
) -> Func:
    """maximum(a @ b + c, 0) with `turned` operands; with `named` sizes are those of run time."""
    m, n, k = (dims.name(s) for s in "mnk") if named else size
    block = Block()
    b = Builder(block)
    shapes = [(k, m) if "a" in turned else (m, k), (n, k) if "b" in turned else (k, n)]
    x, y = (block.add_param(Type(dtype, (*batch, *s)), name) for name, s in zip("ab", shapes))
    z = block.add_param(Type(dtype, (n,)), "c")
    order = [*range(len(batch)), len(batch) + 1, len(batch)]
    x, y = (b.dimshuffle(v, order=order) if name in turned else v for name, v in (("a", x), ("b", y)))
    made = b.matmul(x, y)
    b.op("yield", b.maximum(b.add(made, b.broadcast(z, shape=list(made.type.shape))), b.const(0, made.type)))
    return Func("product", block)


def product(dtype: str, size: Sizes, *how: Any, **more: Any) -> tuple[Func, list[Array]]:
    """`product_of` with arguments."""
    func, rng = product_of(dtype, size, *how, **more), np.random.default_rng(0)
    sizes = dict(zip("mnk", size))
    shapes = [[dims.evaluate(s, sizes) for s in p.type.shape] for p in func.body.params]
    args: list[Any] = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    return func, [rounded(a) if dtype == "bf16" else a.astype(np.float16) for a in args]


def program_of(func: Func, name: str = "") -> DeviceProgram:
    g = clone(func, {})
    run(g, gpu_pipeline(), Context())
    return lower(g, chip(name), tile_maps=True) if name else lowered(g, tile_maps=True)


def launches(program: DeviceProgram) -> list[Launch]:
    return [s for s in program.walk() if isinstance(s, Launch)]


CASES = [
    ("bf16", "", (392, 520, 200), ()),
    ("bf16", "a", (136, 264, 72), ()),
    ("f16", "b", (8, 120, 328), ()),
    ("f16", "ab", (264, 56, 64), (3,)),
]


@pytest.mark.parametrize("dtype, turned, size, batch", CASES)
def test_products_of_warpgroups(dtype: str, turned: str, size: Sizes, batch: tuple[int, ...]) -> None:
    """Ragged tiles, several to a block, more slices of k than stages; in both orders of threads."""
    func, args = product(dtype, size, turned, batch)
    program = program_of(func)
    (launch,) = launches(program)
    assert launch.kernel.startswith("tcc_warpgroups")
    (want,) = interpret(func, *args)
    up, down = (run_program(program, func, args, d)[0] for d in (False, True))
    assert up.tobytes() == down.tobytes()
    np.testing.assert_allclose(up, want, rtol=2.0**-7, atol=2.0**-7 * np.abs(want).max())


def test_sums_that_are_not_rounded() -> None:
    """The product of casts to float32."""
    block = Block()
    b = Builder(block)
    x, y = (block.add_param(Type("bf16", s), n) for n, s in (("x", (136, 72)), ("y", (264, 72))))
    turned = b.dimshuffle(b.cast(y, dtype="f32"), order=[1, 0])
    b.op("yield", b.exp(b.matmul(b.cast(x, dtype="f32"), turned)))
    rng = np.random.default_rng(0)
    args = [rounded(rng.standard_normal(p.type.shape).astype("f4") / 4) for p in block.params]
    func = Func("product", block)
    program = program_of(func)
    (launch,) = launches(program)
    assert launch.kernel.startswith("tcc_warpgroups")
    (got,) = run_program(program, func, args)
    np.testing.assert_allclose(got, np.exp(args[0] @ args[1].T), rtol=1e-5)


def bytes_product(
    size: Sizes, *, named: bool = False, turned: bool = True, first: str = "i8", rounds: bool = True
) -> Func:
    """a @ b.T of bytes, scaled and rounded to bytes if it `rounds`; if not `turned`, a @ b, whose second factor lies along its lines."""
    m, n, k = (dims.name(s) for s in "mnk") if named else size
    block = Block()
    b = Builder(block)
    x = block.add_param(Type(first, (m, k)), "a")
    y = block.add_param(Type("i8", (n, k) if turned else (k, n)), "b")
    wide = b.cast(y, dtype="i32")
    made = b.matmul(b.cast(x, dtype="i32"), b.dimshuffle(wide, order=[1, 0]) if turned else wide)
    scaled = b.mul(b.cast(made, dtype="f32"), b.const(1e-5, Type("f32", made.type.shape)))
    b.op("yield", b.cast(b.rint(scaled), dtype="i8") if rounds else made)
    return Func("product", block)


def some_bytes(func: Func, sizes: dict[str, int]) -> list[Array]:
    rng = np.random.default_rng(0)
    shapes = ([dims.evaluate(s, sizes) for s in p.type.shape] for p in func.body.params)
    return [rng.integers(-128, 128, shape).astype(np.int8) for shape in shapes]


@pytest.mark.parametrize(
    "size, rounds", [((136, 264, 400), True), ((8, 140, 16), False), ((200, 72, 144), False)]
)
def test_products_of_bytes(size: Sizes, rounds: bool) -> None:
    """Exact, in both orders of threads; ragged tiles, more slices of k than stages, a block of several tiles."""
    func = bytes_product(size, rounds=rounds)
    args = some_bytes(func, {})
    program = program_of(func)
    (launch,) = launches(program)
    assert launch.kernel.startswith("tcc_warpgroups")
    (want,) = interpret(func, *args)
    for descending in (False, True):
        (got,) = run_program(program, func, args, descending)
        np.testing.assert_array_equal(got, want)


def test_other_bytes_take_other_instructions() -> None:
    """Those of warpgroups read int8 along k alone."""
    for func in (bytes_product((136, 264, 64), turned=False), bytes_product((136, 264, 64), first="u8")):
        assert launches(program_of(func))[-1].kernel.startswith("tcc_matrices")


@only_emulated
def test_bytes_of_sizes_of_run_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that begin at no multiple of 16 bytes are for the other kernel."""
    func = bytes_product((0, 0, 0), named=True, rounds=False)
    program = program_of(func)
    launched: list[str] = []
    start = Emulator.launch
    monkeypatch.setattr(
        Emulator, "launch", lambda self, k, *more: (launched.append(k.name), start(self, k, *more))
    )
    for m, n, k, fit in ((136, 264, 160, True), (16, 136, 40, False)):
        args = some_bytes(func, {"m": m, "n": n, "k": k})
        launched.clear()
        (got,) = run_program(program, func, args)
        np.testing.assert_array_equal(got, args[0].astype("i4") @ args[1].T.astype("i4"))
        assert ["_warpgroups_" in name for name in launched] == [fit]


NAMED = [
    ((392, 520, 200), (), True),
    ((136, 264, 72), (3,), True),
    ((16, 136, 8), (), True),
    ((136, 262, 76), (), False),  # rows that begin at no multiple of 16 bytes
    ((136, 128, 72), (), False),  # few columns
    ((136, 264, 0), (), False),
    ((0, 264, 72), (), False),
]


@only_emulated
def test_sizes_of_run_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One program for all of them, which asks at its launch."""
    launched: list[str] = []
    start = Emulator.launch
    monkeypatch.setattr(
        Emulator, "launch", lambda self, k, *more: (launched.append(k.name), start(self, k, *more))
    )
    programs: dict[int, DeviceProgram] = {}
    for size, batch, fit in NAMED:
        func, args = product("bf16", size, "b", batch, named=True)
        program = programs.setdefault(len(batch), program_of(func))
        (want,) = interpret(func, *args)
        launched.clear()
        up, down = (run_program(program, func, args, d)[0] for d in (False, True))
        assert ["_warpgroups_" in name for name in launched] == ([fit] * 2 if 0 not in size[:2] else [])
        assert up.tobytes() == down.tobytes()
        np.testing.assert_allclose(up, want, rtol=2.0**-7, atol=2.0**-7 * np.abs(want).max(initial=0))


@only_emulated
@pytest.mark.parametrize("lost", ["full", "empty", "step", "products_left_1", "products_left_0"])
def test_what_is_wrong_shows(lost: str) -> None:
    """Without a wait, one of both orders reads or writes a stage too early, or takes totals of products that are under way; a
    wrong step finds other numbers."""
    func, args = product("bf16", (136, 264, 520))
    program = program_of(func)
    (launch,) = launches(program)
    kernel = program.kernels[launch.kernel]
    waits = [m.span() for m in re.finditer(r"  call void @tcc\.mbarrier_wait.*\n", kernel.text)]
    assert len(waits) == 2
    start, end = waits[0 if lost == "empty" else 1]
    text = kernel.text[:start] + kernel.text[end:]
    if lost.startswith("products"):
        text = kernel.text.replace(f"  call void @tcc.{lost}()\n", "")
        assert text != kernel.text
    if lost == "step":
        good = str(hopper.SWIZZLED | (hopper.ROWS_STEP >> 4) << 32 | (hopper.LINES_STEP >> 4) << 16)
        assert good in kernel.text
        text = kernel.text.replace(good, str(int(good) + (8 << 32)))
    name = f"{kernel.name}_{lost}"
    kernels = {
        **program.kernels,
        launch.kernel: kernel._replace(name=name, text=text.replace(kernel.name, name)),
    }
    broken = DeviceProgram(
        kernels, program.buffers, program.steps, program.signature, program.constants, program.ops
    )
    (want,) = interpret(func, *args)
    wrong = 0
    for descending in (False, True):
        try:
            (got,) = run_program(broken, func, args, descending)
            wrong += not np.allclose(got, want, rtol=2.0**-7, atol=2.0**-7 * np.abs(want).max())
        except KernelError:
            wrong += 1
    assert wrong


@only_emulated
def test_operands_that_are_not_aligned_take_another_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor map begins at a multiple of 16 bytes."""
    func, args = product("bf16", (136, 264, 72))
    program = program_of(func)
    (want,) = interpret(func, *args)
    alloc = Emulator.alloc
    monkeypatch.setattr(Emulator, "alloc", lambda self, bytes: _moved(self, alloc(self, bytes + 8)))
    launched: list[str] = []
    start = Emulator.launch
    monkeypatch.setattr(
        Emulator, "launch", lambda self, k, *more: (launched.append(k.name), start(self, k, *more))
    )
    got = run_program(program, func, args)[0]
    assert [name.split("_")[1] for name in launched] == ["matrices"]
    np.testing.assert_allclose(got, want, rtol=2.0**-7, atol=2.0**-7 * np.abs(want).max())


def _moved(device: Emulator, address: int) -> int:
    device.blocks[address + 8] = device.blocks.pop(address)[8:]
    return address + 8


def test_only_sm_90a_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "ptx", lambda kernel, chip: kernel.text)  # names are all that is looked at
    func = product_of("bf16", (136, 264, 72))
    names = {
        c: launches(program_of(func, c))[0].kernel.split("_")[1]
        for c in ("sm_80", "sm_90", "sm_90a", "sm_100")
    }
    assert names == {"sm_80": "matrices", "sm_90": "matrices", "sm_90a": "warpgroups", "sm_100": "matrices"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "n, turned",
    [(128, ""), (128, "b"), (4096, ""), (4096, "a"), (4096, "b"), (4096, "ab"), (0, ""), (0, "ab")],
)
def test_they_are_assembled(n: int, turned: str) -> None:
    """With no spill and none of the warnings by which ptxas says that it gave up overlapping products."""
    func = product_of("bf16", (4096, n or 264, 4096), turned, named=not n)
    program = program_of(func, "sm_90a")
    text = program.kernels[launches(program)[0].kernel].text
    assert all(
        word in text
        for word in ("wgmma.mma_async", "cp.async.bulk.tensor.3d", "mbarrier.try_wait", "setmaxnreg")
    )
    assert_overlapped(text)


@pytest.mark.slow
@pytest.mark.parametrize("n", [128, 4096, 0])
def test_those_of_bytes_are_assembled(n: int) -> None:
    program = program_of(bytes_product((4096, n, 4096), named=not n), "sm_90a")
    text = program.kernels[launches(program)[0].kernel].text
    assert "k32.s32.s8.s8" in text
    assert_overlapped(text)


def assert_overlapped(text: str) -> None:
    said = assembled(text, "sm_90a")
    assert "error" not in said and "C75" not in said and " 0 bytes spill stores" in said, said
