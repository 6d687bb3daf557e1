"""Code for other machines gives what this machine's gives: elementwise within 4 units in the last place, products within
what adding up in another order explains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cross import Job, compute, require

from tcc.codegen import jit
from tcc.codegen.target import KNOWN, Target, TargetError, cross
from tcc.ir import dims
from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func, Value
from tcc.ir.optable import TABLE, OpDef
from tcc.ir.text import parse_func
from tcc.ir.types import FLOATS, Type, numpy_dtype
from tcc.tools.compare import run_native

LENGTH = 37
# emulators of RISC-V's vectors before qemu 8 end themselves at a rounding mode within an instruction
ROUNDING = frozenset({"floor", "ceil", "trunc", "rint", "round_half_away", "floordiv", "mod"})
ULPS = 4
NAMES = [f"{t.triple.split('-')[0]}-{t.cpu}{'v' * t.features.endswith('+v')}" for t in KNOWN]

TRAIN = """func @train(%x: f32[n,12], %y: i64[n], %w: f32[12,5], %b: f32[5]) -> (f32[n,5], f32[12,5], f32[5])
    {shared = ["w", "b"], updates = {w = 1, b = 2}} {
  %0 = matmul %x, %w : f32[n,5]
  %1 = broadcast %b {shape = (n, 5)} : f32[n,5]
  %2 = add %0, %1 : f32[n,5]
  %p = softmax %2 : f32[n,5]
  %3 = const {value = 0.0, type = f32[n,5]} : f32[n,5]
  %4 = iota {shape = [n]} : i64[n]
  check_index %y {bound = 5, axis = 1}
  %5 = const {value = 1.0, type = f32[n]} : f32[n]
  %6 = scatter %3, %5, %4, %y {axes = [0, 1], mode = "add"} : f32[n,5]
  %d = sub %p, %6 : f32[n,5]
  %xt = dimshuffle %x {order = [1, 0]} : f32[12,n]
  %gw = matmul %xt, %d : f32[12,5]
  %gb = sum %d {axes = (0,)} : f32[5]
  %7 = const {value = 0.1, type = f32[12,5]} : f32[12,5]
  %8 = mul %7, %gw : f32[12,5]
  %nw = sub %w, %8 : f32[12,5]
  %nb = sub %b, %gb : f32[5]
  yield %p, %nw, %nb
}"""
PRODUCT = """func @product(%a: {t}[m,k], %b: {t}[k,n]) -> ({t}[m,n]) {{
  %c = matmul %a, %b : {t}[m,n]
  yield %c
}}"""
CONV = """func @conv(%x: f32[n,3,h,9], %w: f32[4,3,3,3]) -> (f32[n,4,h,9]) {
  %y = conv %x, %w {strides = (1, 1), pads = (1, 1, 1, 1), dilation = (1, 1), groups = 1} : f32[n,4,h,9]
  yield %y
}"""
WHOLE = """func @whole(%x: i64[n], %f: f64[n,m]) -> (i64[n], i64[n], f64[n,m], i64[n], f64[n], f64[m]) {
  %s = sort %x {axis = 0} : i64[n]
  %a = argsort %x {axis = 0} : i64[n]
  %t = sort %f {axis = 1} : f64[n,m]
  %c = cumsum %x {axis = 0} : i64[n]
  %r = max %f {axes = (1,)} : f64[n]
  %q = min %f {axes = (0,)} : f64[m]
  yield %s, %a, %t, %c, %r, %q
}"""


@pytest.fixture(params=KNOWN, ids=NAMES)
def target(request: pytest.FixtureRequest) -> Target:
    found: Target = request.param
    require(found)
    return found


def taken(row: OpDef) -> Iterator[str]:
    for dtype in ("f32", "f64", *(("f16", "i64") if row.name in ("add", "div", "mod") else ())):
        try:
            row.infer([Type(dtype, (2,))] * len(row.operand_names), {}, [])
        except TypeError:
            continue
        yield dtype


def elementwise(without: frozenset[str]) -> tuple[Func, list[Any]]:
    """One function of all rows with a scalar body, each on columns of its own."""
    block = Block()
    b = Builder(block)
    results: list[Value] = []
    args: list[Any] = []
    rng = np.random.default_rng(0)
    for row in TABLE.values():
        if not row.scalar or row.name in {"where", "cast", "philox", "complex", *without}:
            continue
        low, high = row.samples[0].low, row.samples[0].high
        for dtype in taken(row):
            operands = []
            for _ in row.operand_names:
                if dtype in FLOATS:
                    column = rng.uniform(low, high, LENGTH)
                    column[:3] = (0.5, 1.0, high)
                else:
                    column = rng.integers(1, 9, LENGTH)
                args.append(column.astype(numpy_dtype(dtype)))
                operands.append(block.add_param(Type(dtype, (dims.name("n"),)), f"x{len(args)}"))
            results.append(b.op(row.name, *operands).result)
    b.op("yield", *results)
    return Func("rows", block), args


def apart(got: Any, want: Any) -> Any:
    """In units in the last place of what is wanted."""
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    with np.errstate(all="ignore"):
        return np.where(
            same, 0, np.abs(got.astype("f8") - want.astype("f8")) / np.spacing(np.abs(want)).astype("f8")
        )


@pytest.mark.slow
@pytest.mark.parametrize("number", [k for k, t in enumerate(KNOWN) if not t.cpu.startswith("x86-64-v")])
def test_elementwise_rows_agree(number: int, tmp_path: Path) -> None:
    """The levels of x86 are in test_table_native.py."""
    target = KNOWN[number]
    require(target)
    func, args = elementwise(ROUNDING if target.features.endswith("+v") else frozenset())
    (got,) = compute([Job(func, args)], target, tmp_path)
    wrong = []
    for value, g, w in zip(func.body.yields, got, run_native(func, args, exact=False), strict=True):
        assert g.dtype == w.dtype and value.op is not None
        far = apart(g, w).max() if w.dtype.kind == "f" else (np.inf if np.any(g != w) else 0)
        if far > ULPS:
            wrong.append(f"{value.op.name} {value.op.operands[0].type.dtype}: {far:.1f}")
    assert wrong == []


def test_products_training_and_sorting_agree(target: Target, tmp_path: Path) -> None:
    """Run-time sizes all; products of every remainder of a register tile."""
    rng = np.random.default_rng(1)
    jobs = []
    for t, m, k, n in (
        ("f32", 7, 33, 19),
        ("f64", 5, 17, 9),
        ("f32", 1, 64, 30),
        ("f32", 30, 64, 1),
        ("f32", 3, 0, 4),
    ):
        kind = numpy_dtype(t)
        jobs.append(
            Job(parse_func(PRODUCT.format(t=t)), [rng.normal(size=s).astype(kind) for s in ((m, k), (k, n))])
        )
    whole = [rng.integers(-9, 9, 41), rng.normal(size=(41, 6))]
    jobs.append(Job(parse_func(WHOLE), whole))
    x, w = rng.normal(size=(8, 12)).astype("f4"), rng.normal(size=(12, 5)).astype("f4")
    jobs.append(Job(parse_func(TRAIN), [x, rng.integers(0, 5, 8), w, np.zeros(5, "f4")]))
    image, filters = rng.normal(size=(2, 3, 7, 9)).astype("f4"), rng.normal(size=(4, 3, 3, 3)).astype("f4")
    jobs.append(Job(parse_func(CONV), [image, filters]))
    for t in ("i8", "i64"):
        integers = [rng.integers(-99, 99, s).astype(numpy_dtype(t)) for s in ((9, 35), (35, 83))]
        jobs.append(Job(parse_func(PRODUCT.format(t=t)), integers))
    got = compute(jobs, target, tmp_path)
    for job, made in zip(jobs[:5], got):
        a, b = (v.astype("f8") for v in job.arrays)
        bound = a.shape[1] * np.finfo(made[0].dtype).eps * (np.abs(a) @ np.abs(b))
        assert np.all(np.abs(made[0] - a @ b) <= bound)
    for g, want in zip(got[5], run_native(jobs[5].func, whole, exact=False), strict=True):
        np.testing.assert_array_equal(g, want)
    for job, made in zip(jobs[6:], got[6:]):
        for g, want in zip(made, run_native(job.func, list(job.arrays), exact=False), strict=True):
            np.testing.assert_allclose(g, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "triple, cpu, features, message",
    [
        (
            "arch64-linux-gnu",
            "",
            "",
            "no code is made for arch64-linux-gnu; did you mean aarch64-unknown-linux-gnu",
        ),
        ("aarch64-linux-gnu", "cortex-a99", "", "'cortex-a99' is not a recognized processor"),
        (
            "x86_64-linux-gnu",
            "x86-64-v33",
            "",
            "'x86-64-v33' is not a recognized processor.*did you mean x86-64-v3?",
        ),
        ("x86_64-linux-gnu", "", "+avx3", "avx3' is not a recognized feature"),
    ],
)
def test_unknown_machines_are_named(triple: str, cpu: str, features: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        cross(triple, cpu, features)


def test_a_triple_stands_for_its_default() -> None:
    assert cross("aarch64-linux-gnu") == next(t for t in KNOWN if t.triple.startswith("aarch64"))
    assert cross("x86_64-pc-linux-gnu", "x86-64-v2").fma is False
    assert cross("aarch64-linux-gnu", "cortex-a72").cpu == "cortex-a72"
    assert cross("riscv64-linux-gnu", "", "+m,+a,+f,+d,+c,+v").features.endswith("+v")


@pytest.mark.parametrize("target", KNOWN, ids=NAMES)
def test_objects_need_no_foreign_tool(target: Target) -> None:
    magic = b"\0asm" if target.triple.startswith("wasm") else b"\x7fELF"
    assert jit.compile_object("define void @f() #0 {\n  ret void\n}\n", target)[:4] == magic
