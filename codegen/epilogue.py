"""The block of a product or convolution that is applied to its finished elements, as vector code."""

from __future__ import annotations

from collections.abc import Mapping

from tcc.codegen import scalar
from tcc.codegen.emit import Emit, VecType
from tcc.codegen.target import Target
from tcc.ir.core import Block, Value


def emit_block(e: Emit, target: Target, block: Block, params: Mapping[Value, str], lanes: int) -> str:
    """What the block yields for the values of its parameters."""
    known = dict(params)
    for op in block.ops:
        if op.name == "yield":
            return known[op.operands[0]]
        if op.name == "const":
            known[op.result] = VecType(scalar.elem(op.result.type.dtype), lanes).const(op.attrs["value"])
            continue
        operands = {
            name: (v.type.dtype, known[v])
            for name, v in zip(op.defn.operand_names, op.operands, strict=True)
        }  # fmt: skip
        dtype = op.result.type.dtype
        known[op.result] = scalar.emit_scalar(e, target, op.defn.scalar, operands, lanes=lanes, result=dtype)
    raise AssertionError("an epilogue without yield")


def key_text(block: Block) -> str:
    """Text that is equal for blocks that compute the same."""
    number: dict[Value, int] = {p: i for i, p in enumerate(block.params)}
    parts = [p.type.dtype for p in block.params]
    for op in block.ops:
        for r in op.results:
            number[r] = len(number)
        dtypes = [r.type.dtype for r in op.results]
        parts.append(f"{op.name}{[number[v] for v in op.operands]}{dtypes}{op.attrs.get('value', '')!r}")
    return ";".join(parts)
