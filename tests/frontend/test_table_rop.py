"""Directional derivatives of every row of the op table that has no rule of its own for them: by its gradient, twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tabled import in_float64

import tcc
from tcc import build
from tcc.gradient import NullTypeGradError
from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func
from tcc.ir.interpret import run
from tcc.ir.optable import TABLE, OpDef, Sample, Undefined, complete_attrs
from tcc.ir.samples import draw, sample_types
from tcc.ir.types import FLOATS
from tcc.types import NAMES, tensor_type


def differentiable(row: OpDef, sample: Sample) -> bool:
    types = sample_types(sample)
    results = row.infer(types, complete_attrs(row, sample.attrs), [])
    return bool(results) and results[0].dtype in FLOATS and any(t.dtype in FLOATS for t in types)


CASES = [
    (d, s)
    for d in TABLE.values()
    if d.grad and not d.rop
    for s in map(in_float64, d.samples)
    if differentiable(d, s)
]


OVER = pytest.mark.parametrize("row,sample", CASES, ids=[f"{d.name}({','.join(s.types)})" for d, s in CASES])


def defined(row: OpDef, sample: Sample) -> list[int]:
    """The float operands by which the row has a gradient."""
    block = Block(sample_types(sample))
    b = Builder(block)
    op = b.op(row.name, *block.params, attrs=sample.attrs)
    assert row.grad is not None
    gradients = row.grad(b, op, [b.full(1, r) for r in op.results])
    floats = [k for k, p in enumerate(block.params) if p.type.dtype in FLOATS]
    return [k for k in floats if not isinstance(gradients[k], Undefined)]


@OVER
def test_it_is_what_differences_say(row: OpDef, sample: Sample) -> None:
    args = draw(sample, np.random.default_rng(len(row.name)))
    types = sample_types(sample)
    wrt = defined(row, sample)
    variables = [tensor_type(NAMES[t.dtype], t.shape)() for t in types]
    points = [variables[k].type() for k in wrt]
    results = build.node(row.name, *variables, **sample.attrs).results
    floats = [k for k, r in enumerate(results) if r.dtype == "float64"]
    moved = tcc.Rop([results[k] for k in floats], [variables[k] for k in wrt], points)
    f = tcc.function([*variables, *points], moved, on_unused_input="ignore")
    rng = np.random.default_rng(2)
    along = [rng.uniform(-1, 1, args[k].shape) for k in wrt]
    step = 1e-6

    def at(sign: int) -> list[Any]:
        shifted = list(args)
        for k, d in zip(wrt, along):
            shifted[k] = args[k] + sign * step * d
        block = Block(types)
        b = Builder(block)
        b.op("yield", *b.op(row.name, *block.params, attrs=sample.attrs).results)
        return run(Func("f", block), *shifted)

    ahead, behind = at(1), at(-1)
    for k, got in zip(floats, f(*args, *along)):
        np.testing.assert_allclose(got, (ahead[k] - behind[k]) / (2 * step), rtol=2e-6, atol=2e-7)


@OVER
def test_where_no_gradient_is_defined_there_is_none_to_go_by(row: OpDef, sample: Sample) -> None:
    types = sample_types(sample)
    variables = [tensor_type(NAMES[t.dtype], t.shape)() for t in types]
    result = build.node(row.name, *variables, **sample.attrs).results[0]
    for k in {k for k, t in enumerate(types) if t.dtype in FLOATS} - set(defined(row, sample)):
        with pytest.raises(NullTypeGradError, match="Rop"):
            tcc.Rop(result, variables[k], variables[k].type())
