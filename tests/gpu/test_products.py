"""Products on a GPU, by its emulator: float32 and float64 tiles, matrix instructions for halves, epilogues, convolutions."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from emulated import Array, assembled, emulated, only_emulated, program_of, run_program

from tcc.codegen.gpu.chips import chip
from tcc.codegen.gpu.driver import lower
from tcc.codegen.gpu.emulator import MOST_GRID
from tcc.codegen.gpu.loops import kernels_of
from tcc.ir import dims
from tcc.ir.arrays import rounded
from tcc.ir.builder import Builder
from tcc.ir.clone import clone
from tcc.ir.core import Block, Func
from tcc.ir.types import Type
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import gpu_pipeline
from tcc.runtime.device_program import Launch
from tcc.tools.compare import disagreement

RNG = np.random.default_rng(0)


def product_of(dtype: str, m: int, n: int, k: int, turned: str = "", batch: Sequence[int] = ()) -> Func:
    """tanh(a @ b + c) with `turned` operands."""
    block = Block()
    b = Builder(block)
    shapes = [(k, m) if "a" in turned else (m, k), (n, k) if "b" in turned else (k, n)]
    x, y = (block.add_param(Type(dtype, (*batch, *s)), name) for name, s in zip("ab", shapes))
    z = block.add_param(Type(dtype, (n,)), "c")
    last = len(batch)
    order = [*range(last), last + 1, last]
    x, y = (b.dimshuffle(v, order=order) if name in turned else v for name, v in (("a", x), ("b", y)))
    made = b.matmul(x, y)
    b.op("yield", b.tanh(b.add(made, b.broadcast(z, shape=list(made.type.shape)))))
    return Func("product", block)


def product(dtype: str, *how: Any, **more: Any) -> tuple[Func, list[Array]]:
    """`product_of` with arguments."""
    func = product_of(dtype, *how, **more)
    args: list[Any] = [RNG.standard_normal(p.type.shape) for p in func.body.params]
    kind = {"f16": np.float16, "f64": np.float64}.get(dtype, np.float32)
    args = [a.astype(kind) for a in args]
    return func, [rounded(a) for a in args] if dtype == "bf16" else args


def runtime_sizes(func: Func, arrays: Sequence[Array], *, exact: bool = True) -> list[Array]:
    return emulated(func, arrays, exact=False)


SIZES = [
    (37, 19, 45),
    (1, 33, 17),
    (40, 1, 3),
    (5, 7, 0),
    (0, 3, 4),
    (64, 64, 16),
    (4, 100, 37),
    (130, 3, 20),
]


@pytest.mark.parametrize("size", SIZES)
def test_float_products(size: tuple[int, int, int]) -> None:
    func, args = product("f32", *size, turned="" if size[0] != 37 else "ab")
    assert disagreement(func, args, runtime_sizes) == ""


@pytest.mark.parametrize("dtype, turned", [("f32", ""), ("f64", "a"), ("bf16", "b")])
def test_long_sums_are_cut_into_parts(dtype: str, turned: str) -> None:
    """As many as sizes say, whether they are known or not; the epilogue comes after the last."""
    func, args = product(dtype, 9, 20, 1100, turned)
    names = [name.split("_")[1] for name in program_of(func, args, exact=True).kernels]
    assert names == ["matmul" if dtype == "f32" else "matrices", "parts"]
    assert disagreement(func, args, lambda f, a, exact=True: emulated(f, a, exact=exact)) == ""
    up, down = (emulated(func, args, descending=d)[0] for d in (False, True))
    assert up.tobytes() == down.tobytes()


@pytest.mark.parametrize("turned", ["", "ab"])
def test_tf32_when_it_is_asked_for(turned: str) -> None:
    """Operands have 11 bits, sums 24."""
    func, args = product("f32", 33, 20, 45, turned)
    a, b = (x.T if letter in turned else x for x, letter in zip(args, "ab"))
    size = np.abs(a) @ np.abs(b)
    plain = emulated(func, args)[0]
    func.attrs["tf32"] = True
    assert next(iter(program_of(func, args, exact=True).kernels)).startswith("tcc_matrices")
    up, down = (emulated(func, args, descending=d)[0] for d in (False, True))
    assert up.tobytes() == down.tobytes()
    error = np.abs(up - plain)
    assert np.all(error <= 2.0**-10 * size) and np.any(error > 0)


@pytest.mark.slow
@pytest.mark.parametrize("turned", ["", "a", "b", "ab"])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_products_in_batches(dtype: str, turned: str) -> None:
    func, args = product(dtype, 35, 33, 18, turned, batch=(3, 2))
    assert disagreement(func, args, emulated) == ""


@pytest.mark.slow
def test_a_large_tile() -> None:
    func, args = product("f32", 1024, 1030, 9)
    assert disagreement(func, args, emulated) == ""


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_grids_of_tall_products_are_what_devices_take(dtype: str) -> None:
    """Along y there are at most 65,535 blocks."""
    run(g := product_of(dtype, 70_000 * 128, 16, 16), gpu_pipeline(), Context())
    (launch,) = (s for s in lower(g, None).walk() if isinstance(s, Launch))
    assert all(size <= most for size, most in zip(launch.grid, MOST_GRID))  # type: ignore[operator]


HALVES = [
    ("bf16", "", (33, 70, 40)),
    ("bf16", "a", (3, 5, 7)),
    ("f16", "b", (65, 9, 0)),
]


@pytest.mark.parametrize("dtype, turned, size", HALVES)
def test_halves_by_matrix_instructions(dtype: str, turned: str, size: tuple[int, int, int]) -> None:
    func, args = product(dtype, *size, turned=turned)
    program = program_of(func, args, exact=True)
    assert [name[:12] for name in program.kernels] == ["tcc_matrices"], "with its epilogue"
    assert disagreement(func, args, lambda f, a, exact=True: emulated(f, a, exact=True)) == ""


@only_emulated
def test_a_copy_that_is_not_waited_for_shows() -> None:
    """Asynchronous copies land when they are waited for, not before."""
    func, args = product("bf16", 64, 64, 128)
    program = program_of(func, args, exact=True)
    ((name, kernel),) = program.kernels.items()
    hasty = re.sub(r"  call void @tcc\.copies_left_[0-9]\(\)\n", "", kernel.text).replace(name, "hasty")
    kernels = {name: kernel._replace(name="hasty", text=hasty)}
    broken = dataclasses.replace(program, kernels=kernels)
    good, bad = (run_program(p, func, args)[0] for p in (program, broken))
    assert not np.array_equal(good, bad)


@pytest.mark.slow
@pytest.mark.parametrize("turned", ["", "a", "b", "ab"])
@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_all_forms_of_halves(dtype: str, turned: str) -> None:
    func, args = product(dtype, 70, 66, 96, turned)
    assert disagreement(func, args, runtime_sizes) == ""


def narrow_product(
    pair: tuple[str, str], m: int, n: int, k: int, turned: str = "", batch: Sequence[int] = ()
) -> tuple[Func, list[Array]]:
    """The product of casts of bytes, or tanh(c + that of casts of halves), with `turned` operands."""
    block = Block()
    b = Builder(block)
    wide = "f32" if pair[0] in ("bf16", "f16") else "i32"
    shapes = [(k, m) if "a" in turned else (m, k), (n, k) if "b" in turned else (k, n)]
    x, y = (block.add_param(Type(t, (*batch, *s)), name) for t, s, name in zip(pair, shapes, "ab"))
    order = [*range(len(batch)), len(batch) + 1, len(batch)]
    x, y = (b.dimshuffle(v, order=order) if name in turned else v for name, v in (("a", x), ("b", y)))
    made = b.matmul(b.cast(x, dtype=wide), b.cast(y, dtype=wide))
    if wide == "i32":
        b.op("yield", made)
        ends = [np.iinfo({"i8": np.int8, "u8": np.uint8}[t]) for t in pair]
        args = [
            np.where(RNG.random(p.type.shape) < 0.2, e.min, RNG.integers(e.min, e.max + 1, p.type.shape))
            for p, e in zip(block.params, ends)
        ]
        return Func("product", block), [a.astype(e.dtype) for a, e in zip(args, ends)]
    z = block.add_param(Type("f32", (n,)), "c")
    b.op("yield", b.tanh(b.add(made, b.broadcast(z, shape=list(made.type.shape)))))
    given: list[Any] = [rounded(RNG.standard_normal(p.type.shape).astype("f4")) for p in block.params]
    return Func("product", block), [a.astype("f2") if pair[0] == "f16" else a for a in given[:2]] + given[2:]


NARROW = [
    (("i8", "i8"), "", (33, 70, 70)),
    (("i8", "i8"), "ab", (70, 37, 131)),
    (("u8", "i8"), "a", (66, 5, 33)),
    (("i8", "u8"), "b", (3, 65, 64)),
    (("i8", "i8"), "", (1, 30, 17)),
    (("u8", "i8"), "b", (5, 1, 3)),
    (("i8", "i8"), "", (5, 7, 0)),
    (("i8", "i8"), "", (0, 7, 5)),
    (("bf16", "bf16"), "b", (33, 70, 40)),
    (("f16", "f16"), "a", (5, 3, 7)),
]


@pytest.mark.parametrize("pair, turned, size", NARROW)
def test_narrow_numbers_are_multiplied_as_they_are(
    pair: tuple[str, str], turned: str, size: tuple[int, int, int]
) -> None:
    """By one kernel, with its epilogue; bytes with NumPy's bits.  What is signed times what is not is turned."""
    func, args = narrow_product(pair, *size, turned)
    names = [n.split("_")[1] for n in program_of(func, args, exact=True).kernels]
    assert names == ["matrices", "map"][: 1 + (pair == ("i8", "u8"))]
    assert disagreement(func, args, lambda f, a, exact=True: emulated(f, a, exact=exact)) == ""
    if pair[0] in ("i8", "u8"):
        a, b = (
            x.astype(np.int32).T if letter in turned else x.astype(np.int32) for x, letter in zip(args, "ab")
        )
        for exact in (True, False):
            (got,) = emulated(func, args, exact=exact)
            assert got.dtype == np.int32 and np.array_equal(got, a @ b)


@pytest.mark.slow
@pytest.mark.parametrize(
    "pair, turned",
    [
        *((pair, turned) for pair in (("i8", "i8"), ("bf16", "bf16")) for turned in ("", "a", "b", "ab")),
        (("u8", "i8"), "ab"),
    ],
)
def test_all_forms_of_narrow_products(pair: tuple[str, str], turned: str) -> None:
    func, args = narrow_product(pair, 70, 66, 1100, turned, batch=(3,))
    assert disagreement(func, args, lambda f, a, exact=True: emulated(f, a, exact=exact)) == ""


@pytest.mark.parametrize("dtype, result", [("i8", "f32"), ("i8", "i8"), ("bf16", "bf16"), ("f16", "f16")])
def test_epilogues_of_another_dtype(dtype: str, result: str) -> None:
    """Sums that are scaled, moved and rounded are never written: by one kernel, also of long sums; sizes known or not."""
    for m, n, k in ((33, 20, 45), (9, 70, 1100), (0, 3, 4), (3, 2, 0)):
        block = Block()
        b = Builder(block)
        x, y = (block.add_param(Type(dtype, s), name) for s, name in (((m, k), "x"), ((k, n), "y")))
        z = block.add_param(Type("f32", (n,)), "z")
        wide = "i32" if dtype == "i8" else "f32"
        made = b.cast(b.matmul(b.cast(x, dtype=wide), b.cast(y, dtype=wide)), dtype="f32")
        row = b.broadcast(z, shape=[m, n])
        scaled = b.add(b.mul(made, b.const(2.0**-12, made.type)), row)
        if result == "i8":
            low, high = (b.const(x, made.type) for x in (-128.0, 127.0))
            scaled = b.minimum(b.maximum(b.rint(scaled), low), high)
        b.op("yield", scaled if result == "f32" else b.cast(scaled, dtype=result))
        func = Func("product", block)
        if dtype == "i8":
            args: list[Any] = [
                RNG.integers(-128, 128, p.type.shape).astype(np.int8) for p in block.params[:2]
            ]
        else:
            args = [rounded(RNG.standard_normal(p.type.shape).astype("f4")) for p in block.params[:2]]
            args = [a.astype("f2") for a in args] if dtype == "f16" else args
        args.append(np.round(RNG.standard_normal(n) * 8).astype("f4"))
        names = [name.split("_")[1] for name in program_of(func, args, exact=True).kernels]
        assert names == ["matrices", "parts"][: 1 + (k > 1000)]
        assert disagreement(func, args, lambda f, a, exact=True: emulated(f, a, exact=exact)) == ""


def test_a_narrow_product_is_added_to_a_shared_variable() -> None:
    """In place: nothing but the product is launched."""
    block = Block()
    b = Builder(block)
    w = block.add_param(Type("f32", (20, 30)), "w")
    x, y = (block.add_param(Type("bf16", s), n) for n, s in (("x", (40, 20)), ("y", (40, 30))))
    made = b.matmul(b.cast(b.dimshuffle(x, order=[1, 0]), dtype="f32"), b.cast(y, dtype="f32"))
    b.op("yield", b.add(w, made))
    func = Func("step", block, {"shared": ["w"], "updates": {"w": 0}})
    args = [rounded(RNG.standard_normal(p.type.shape).astype("f4")) for p in block.params]
    program = program_of(func, args, exact=True)
    assert [type(s).__name__ for s in program.walk()] == ["Launch"]
    (got,) = run_program(program, func, args)
    np.testing.assert_allclose(got, args[0] + args[1].T @ args[2], rtol=1e-5, atol=1e-4)


def texts(func: Func, name: str) -> list[str]:
    g = clone(func, {})
    run(g, gpu_pipeline(), Context())
    return [k.text for k in lower(g, chip(name)).kernels.values()]


def test_old_chips_multiply_halves_as_floats() -> None:
    func = product_of("f16", 64, 64, 64)
    (new,), (old,) = texts(func, "sm_80"), texts(func, "sm_70")
    assert "mma.sync" in new and "ldmatrix" in new and "cp.async" in new
    assert "mma" not in old and "fma.rn.f32" in old
    for pair in (("u8", "i8"), ("bf16", "bf16")):
        func, args = narrow_product(pair, 33, 9, 45, "b")
        (new,), (old,) = texts(func, "sm_80"), texts(func, "sm_70")
        assert "mma.sync" in new and "mma" not in old
        g = clone(func, {})
        run(g, gpu_pipeline(), Context())
        ops = [o for o in g.body.walk() if o.name == "matmul_widening"]
        assert len(ops) == 1 and [k.name.split("_")[1] for k in kernels_of(ops[0], 70, False)] == ["matmul"]


@pytest.mark.long
@pytest.mark.parametrize("size", [(4096, 4096, 4096), (64, 64, 4096), (4, 4096, 512)])
@pytest.mark.parametrize("dtype", ["bf16", "f32", "tf32", "f64", "i8", "u8"])
def test_products_fit_registers(dtype: str, size: tuple[int, int, int]) -> None:
    m, n, k = size
    if dtype in ("i8", "u8"):
        for turned in ("", "ab") if dtype == "i8" else ("",):
            func, _ = narrow_product((dtype, "i8"), m, n, k, turned)
            _fits(func)
        return
    block = Block([Type(dtype[-3:] if dtype != "bf16" else dtype, s) for s in ((m, k), (k, n), (n,))])
    b = Builder(block)
    made = b.matmul(*block.params[:2])
    b.op("yield", b.add(made, b.broadcast(block.params[2], shape=[m, n])))
    _fits(Func("product", block, {"tf32": True} if dtype == "tf32" else None))


def _fits(func: Func) -> None:
    made = {name: texts(func, name) for name in ("sm_80", "sm_90", "sm_90a")}
    old, new = ([t.partition(".address_size")[2] for t in made[name]] for name in ("sm_90", "sm_90a"))
    if old == new:
        del made["sm_90"]  # the assembler makes the same of it
    for name, all_text in made.items():
        for text in all_text:
            said = assembled(text, name)
            assert "error" not in said and "C75" not in said and " 0 bytes spill stores" in said, said


GEOMETRY = dict(strides=(2, 1), pads=(1, 0, 2, 1), dilation=(1, 2), groups=2)
CONVOLUTIONS = {
    "conv": (((2, 4, 7, 6), (6, 2, 3, 2)), {}),
    "conv_input": (((6, 2, 3, 2), (2, 6, 3, 7)), {"size": (7, 6)}),
    "conv_filter": (((2, 4, 7, 6), (2, 6, 3, 7)), {"size": (3, 2)}),
}


def convolution(row: str, dtype: str, named: bool = False) -> tuple[Func, list[Array]]:
    """With strides, pads of either side, dilation and groups; or with a name for the number of images."""
    shapes, size = CONVOLUTIONS[row]
    block = Block()
    b = Builder(block)
    args: list[Any] = []
    for name, shape in zip("ab", shapes):
        images = (dims.name("n"), *shape[1:]) if named and shape[0] == 2 else shape
        block.add_param(Type(dtype, images), name)
        kind = {"f16": np.float16, "f64": np.float64}.get(dtype, np.float32)
        args.append(RNG.standard_normal(shape).astype(kind))
    b.op("yield", b.op(row, *block.params, attrs={**GEOMETRY, **size}).result)
    return Func("f", block), [rounded(a) for a in args] if dtype == "bf16" else args


@pytest.mark.parametrize("row", CONVOLUTIONS)
@pytest.mark.parametrize("dtype, kind", [("f32", ""), ("bf16", "matrices"), ("f64", "matrices")])
def test_convolutions(row: str, dtype: str, kind: str) -> None:
    """Halves and float64 by matrix instructions."""
    func, args = convolution(row, dtype, named=dtype != "f64")
    names = [name.split("_", 1)[1] for name in program_of(func, args, exact=False).kernels]
    assert names[0].startswith(kind or row)
    assert disagreement(func, args, runtime_sizes) == ""


PLAIN: dict[str, Any] = dict(strides=(1, 1), pads=(0, 0, 0, 0), dilation=(1, 1), groups=1)
DENSE: list[tuple[str, tuple[Any, Any], dict[str, Any], dict[str, Any]]] = [
    ("conv", ((2, 4, 7, 6), (6, 4, 3, 2)), {}, GEOMETRY | {"groups": 1}),  # filters of 24 numbers
    (
        "conv_filter",
        ((2, 4, 10, 8), (2, 6, 8, 4)),
        {"size": (3, 2)},
        PLAIN | {"strides": (1, 2)},
    ),
    ("conv", ((2, 5, 4, 6), (6, 5, 1, 1)), {}, PLAIN),
    ("conv_input", ((6, 8, 1, 1), (2, 6, 4, 6)), {"size": (4, 6)}, PLAIN),
    ("conv_filter", ((2, 4, 4, 6), (2, 6, 4, 6)), {"size": (1, 1)}, PLAIN),
]


@pytest.mark.parametrize("row, shapes, size, geometry", DENSE)
def test_what_convolutions_find_dense_is_copied_in_pieces(
    row: str, shapes: Any, size: Any, geometry: Any
) -> None:
    """Filters, images where each pixel meets one place, and gradients along pixels."""
    block = Block()
    b = Builder(block)
    values = [block.add_param(Type("bf16", shape), name) for name, shape in zip("ab", shapes)]
    b.op("yield", b.op(row, *values, attrs=geometry | size).result)
    func, args = Func("convolution", block), [rounded(RNG.standard_normal(s).astype("f4")) for s in shapes]
    (text,) = (k.text for n, k in program_of(func, args, exact=True).kernels.items() if "matrices" in n)
    assert "@tcc.copy_async(" in text
    assert disagreement(func, args, lambda f, a, exact=True: emulated(f, a, exact=exact)) == ""
