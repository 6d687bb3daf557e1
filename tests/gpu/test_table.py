"""Every row of the op table as kernels of a GPU, run by the emulator, against the interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from emulated import Array, assembled, emulated, program_of, run_program
from tabled import (
    CHUNKS,
    ELEMENTWISE,
    OTHERS,
    column,
    elementwise,
    instances,
    mistakes,
    other,
    resizable,
    what,
    with_gradients,
)

from tcc.codegen.gpu.chips import chip
from tcc.codegen.gpu.driver import lower
from tcc.codegen.target import host
from tcc.ir.core import Func, Value
from tcc.ir.interpret import run as interpret
from tcc.ir.optable import OpDef, Sample
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import gpu_pipeline
from tcc.tools.compare import Expected, after_passes, compile_native, disagreement, run_native, same_bits

LENGTH = 37
FIRST = list({row.name: (row, sample) for row, sample in reversed(OTHERS)}.values())
ON_HOST = [pair for pair in FIRST if pair[0].host]
ON_DEVICE = [pair for pair in FIRST if not pair[0].host]


def runtime_sizes(func: Func, arrays: Sequence[Array], *, exact: bool = True) -> list[Array]:
    return emulated(func, arrays, exact=False)


@pytest.mark.parametrize("start", range(0, len(ON_DEVICE), 12))
def test_a_sample_of_each_row(start: int) -> None:
    func, args, _ = other(ON_DEVICE[start : start + 12])
    assert disagreement(func, args, runtime_sizes) == ""


def test_rows_of_the_host() -> None:
    """Their operands and results are copied; nothing is launched for them."""
    func, args, _ = other(ON_HOST[::6])
    assert disagreement(func, args, runtime_sizes) == ""


# Sums and products of several numbers, in an order that is each target's own; all else has the CPU's bits.
ADDING = {
    *(
        "matmul",
        "matmul_widening",
        "conv",
        "conv_input",
        "conv_filter",
        "pool",
        "windows",
        "scatter",
        "max_pool_grad",
    ),
    *(
        "sum",
        "prod",
        "cumsum",
        "cumprod",
        "var",
        "softmax",
        "log_softmax",
        "logsumexp",
        "xent",
        "ctc",
        "ctc_slope",
    ),
    *("cholesky_factor", "lu_solve", "lu_pivots", "triangular_solve"),
}


def adds_up(value: Value) -> bool:
    """Whether one of the operations that make it is ADDING."""
    waiting, seen = [value], set()
    while waiting:
        op = waiting.pop().op
        if op is None or id(op) in seen:
            continue
        if op.name in ADDING:
            return True
        seen.add(id(op))
        waiting += op.operands
    return False


def gradient_mistakes(
    samples: Sequence[tuple[OpDef, Sample]], sizes: Sequence[int], *, named: bool
) -> list[str]:
    """Where rows, or their gradients, differ from the interpreter, or by a bit from the CPU's: compiled once, run for some sizes in both orders."""
    func, arguments = with_gradients(samples, named)
    bits = [host().fma and not adds_up(v) for v in func.body.yields]
    cpu, _ = compile_native(func, {}, exact=False)
    program = program_of(func, arguments(7), exact=False)
    found: list[str] = []
    for size in sizes:
        args = arguments(size)
        with np.errstate(all="ignore"):
            expected = Expected.of(func, args, interpret(after_passes(func), *args))
        up, down = (run_program(program, func, args, d) for d in (False, True))
        for i, (a, b, c) in enumerate(zip(up, down, cpu(*args), strict=True)):
            wrong = expected.difference(i, a) or ("" if same_bits(a, b) else "hangs on the order of threads")
            if bits[i] and not same_bits(a, c):
                wrong = wrong or "has other bits than the CPU's"
            if wrong:
                found.append(f"n = {size}: {what(func, i)} {wrong}")
    return found


# Sizes of these hang on each other, or numbers in attributes on sizes; larger triangles of random numbers are nearly singular.
TOGETHER = {"slice", "argtopk", "conv_input", "ctc", "ctc_slope", "unpool", "triangular_solve"}
FREE = [(row, s) for row, s in OTHERS if not row.host and row.name not in TOGETHER and resizable(row, s)]
RESIZED = list({row.name: (row, s) for row, s in FREE}.values())
AS_THEY_ARE = [(row, sample) for row, sample in ON_DEVICE if row.name in TOGETHER]


def test_no_row_is_left_out() -> None:
    tested = {row.name for row, _ in [*RESIZED, *AS_THEY_ARE]}
    assert tested == {row.name for row, _ in ON_DEVICE}


@pytest.mark.parametrize("start", range(0, len(RESIZED), 12))
def test_each_row_and_its_gradient(start: int) -> None:
    """Sizes 0, 1 and a prime."""
    assert gradient_mistakes(RESIZED[start : start + 12], (0, 1, 7), named=True) == []


def test_rows_of_sizes_that_go_together_and_their_gradients() -> None:
    assert gradient_mistakes(AS_THEY_ARE, (1,), named=False) == []


def float_samples(rows: Sequence[OpDef]) -> list[tuple[OpDef, Sample]]:
    """Vectors of float32 for each row that takes them."""
    found = []
    for row in rows:
        if row.grad is not None and any(set(dtypes) == {"f32"} for dtypes, _ in instances(row)):
            attrs = {"dtype": "f64"} if row.name == "cast" else {}
            first = row.samples[0]
            found.append((row, replace(first, types=("f32[2]",) * len(row.operand_names), attrs=attrs)))
    return found


@pytest.mark.parametrize("start", range(0, len(ELEMENTWISE), 32))
def test_gradients_of_elementwise_rows(start: int) -> None:
    samples = float_samples(ELEMENTWISE[start : start + 32])
    assert gradient_mistakes(samples, (0, 1, 37), named=True) == []


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, len(OTHERS), 24))
def test_all_samples(start: int) -> None:
    """Of run-time sizes in both orders of threads: a missing barrier would show."""

    def ordered(func: Func, arrays: Sequence[Array], *, exact: bool = True) -> list[Array]:
        program = program_of(func, arrays, exact=exact)
        up = run_program(program, func, arrays)
        if not exact:
            down = run_program(program, func, arrays, descending=True)
            hanging = [what(func, i) for i, (a, b) in enumerate(zip(up, down)) if a.tobytes() != b.tobytes()]
            assert hanging == [], "hang on the order of threads"
        return up

    func, args, _ = other(OTHERS[start : start + 24])
    assert disagreement(func, args, ordered) == ""


def elementwise_mistakes(rows: Any) -> list[str]:
    """Where they are wrong, and where they are not the CPU's to the last bit."""
    func, columns = elementwise(rows)
    args = [column(*c, LENGTH) for c in columns]
    got = emulated(func, args)
    differ: list[str] = []
    if host().fma:
        cpu = run_native(func, args)
        differ = [what(func, i) for i, (a, b) in enumerate(zip(got, cpu)) if not same_bits(a, b)]
    return [*mistakes(func, args, got), *differ]


def test_elementwise_rows() -> None:
    assert elementwise_mistakes(CHUNKS[0]) == []


@pytest.mark.slow
@pytest.mark.parametrize("rows", CHUNKS[1:], ids=lambda rows: rows[0].name)
def test_all_elementwise_rows(rows: Any) -> None:
    assert elementwise_mistakes(rows) == []


@pytest.mark.long
@pytest.mark.parametrize("start", range(0, len(ON_DEVICE), 24))
def test_kernels_fit_registers(start: int) -> None:
    func, _, _ = other(ON_DEVICE[start : start + 24])
    run(func, gpu_pipeline(), Context())
    for kernel in lower(func, chip("sm_80")).kernels.values():
        said = assembled(kernel.text, "sm_80")
        assert "error" not in said and " 0 bytes spill stores" in said, f"{kernel.what}: {said}"
