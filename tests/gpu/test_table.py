"""Every row of the op table as kernels of a GPU, run by the emulator, against the interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from emulated import Array, emulated
from tabled import CHUNKS, OTHERS, column, elementwise, mistakes, other, what

from tcc.codegen.target import host
from tcc.ir.core import Func
from tcc.tools.compare import disagreement, run_native, same_bits

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


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, len(OTHERS), 24))
def test_all_samples(start: int) -> None:
    func, args, _ = other(OTHERS[start : start + 24])
    assert disagreement(func, args, emulated) == ""


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, len(OTHERS), 24))
def test_other_orders_of_threads(start: int) -> None:
    """A missing barrier would show."""
    func, args, _ = other(OTHERS[start : start + 24])
    up, down = (emulated(func, args, exact=False, descending=d) for d in (False, True))
    for a, b in zip(up, down, strict=True):
        assert a.tobytes() == b.tobytes()


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
