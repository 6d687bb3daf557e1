"""Every gradient rule in the frontend's graph: it makes there what it makes in the IR."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tcc
from tcc import build
from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func
from tcc.ir.interpret import run
from tcc.ir.optable import TABLE, OpDef, Sample, Undefined, complete_attrs
from tcc.ir.samples import draw, sample_types
from tcc.ir.types import FLOATS
from tcc.types import NAMES, tensor_type


def differentiable(row: OpDef, sample: Sample) -> bool:
    results = row.infer(sample_types(sample), complete_attrs(row, sample.attrs), [])
    return row.grad is not None and bool(results) and all(t.dtype in FLOATS for t in results)


CASES = [(d, s) for d in TABLE.values() for s in [s for s in d.samples if differentiable(d, s)][:1]]


def connected(gradients: Any) -> list[Any]:
    return [g for g in gradients if g is not None and not isinstance(g, Undefined)]


@pytest.mark.parametrize("row,sample", CASES, ids=[d.name for d, _ in CASES])
def test_gradients_are_those_of_the_ir(row: OpDef, sample: Sample) -> None:
    assert row.grad is not None
    types, rng = sample_types(sample), np.random.default_rng(1)
    args: list[Any] = draw(sample, rng)
    of_results = row.infer(types, complete_attrs(row, sample.attrs), [])
    seeds = [rng.standard_normal(t.shape).astype(NAMES[t.dtype]) for t in of_results]

    block = Block([*types, *of_results])
    b = Builder(block)
    op = b.op(row.name, *block.params[: len(types)], attrs=sample.attrs)
    b.op("yield", *connected(row.grad(b, op, block.params[len(types) :])))
    wanted = run(Func("f", block), *args, *seeds)

    variables = [tensor_type(NAMES[t.dtype], t.shape)() for t in (*types, *of_results)]
    made = build.node(row.name, *variables[: len(types)], **sample.attrs)
    found = connected(row.grad(build.Builder(), made, variables[len(types) :]))
    f = tcc.function(variables, found, mode="FAST_COMPILE", on_unused_input="ignore")
    for got, want in zip(f(*args, *seeds), wanted, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
