"""The matrix product, of which dot, tensordot and the batched forms are reshapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.ir.core import Attrs, Block, Op
from tcc.ir.dims import Size, mul
from tcc.ir.ops.control import epilogue_types
from tcc.ir.ops.rules import NUMBERS, want_dtype, want_same_dtype, want_size
from tcc.ir.optable import OpDef, Sample, define
from tcc.ir.types import Type


def matmul_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    a, b, *extra = types
    want_dtype("matmul", "a", a, NUMBERS)
    want_same_dtype("matmul", [a, b])
    if a.rank < 2 or a.rank != b.rank:
        raise TypeError(f"matmul: needs [...,m,k] and [...,k,n], got {a} and {b}")
    for axis, (left, right) in enumerate(zip(a.shape[:-2], b.shape[:-2])):
        want_size("matmul", f"axis {axis} of operand b", right, left)
    want_size("matmul", "the rows of operand b", b.shape[-2], a.shape[-1])
    result = a.with_shape(*a.shape[:-1], b.shape[-1])
    return epilogue_types("matmul", result, extra, attrs, blocks)


def transposed(b: Any, x: Any) -> Any:
    rank = b.rank(x)
    return b.dimshuffle(x, order=[*range(rank - 2), rank - 1, rank - 2])


def matmul_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    x, y = op.operands
    return [b.matmul(g[0], transposed(b, y)), b.matmul(transposed(b, x), g[0])]


def matmul_rop(b: Any, op: Any, t: Sequence[Any]) -> list[Any]:
    x, y = op.operands
    parts = [b.matmul(t[0], y)] if t[0] is not None else []
    parts += [b.matmul(x, t[1])] if t[1] is not None else []
    return [None if not parts else parts[0] if len(parts) == 1 else b.add(*parts)]


def matmul_flops(op: Op) -> Size:
    a, b = op.operands[0].type, op.operands[1].type
    return mul(2, *a.shape, b.shape[-1])


def matmul_ref(a: Any, b: Any, maps: Sequence[str], accumulate: bool) -> Any:
    return np.matmul(a, b)


define(
    OpDef(
        "matmul",
        "a, b, *extra",
        matmul_type,
        matmul_ref,
        {"maps": (), "accumulate": False},
        doc="[...,m,k] x [...,k,n] with equal batch axes; a block is applied to each finished element.  "
        "With `accumulate`, once placed, the product is added to what the result's place holds.",
        grad=matmul_grad,
        rop=matmul_rop,
        kernel=True,
        flops=matmul_flops,
        samples=(
            Sample(("f32[3,4]", "f32[4,5]")),
            Sample(("f64[1,3]", "f64[3,2]")),
            Sample(("f64[2,3,4]", "f64[2,4,5]")),
            Sample(("i64[2,3]", "i64[3,2]")),
        ),
    )
)


def matmul_widening_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    a, b = types
    want_dtype("matmul_widening", "a", a, frozenset({"i8", "u8", "bf16"}))
    want_dtype("matmul_widening", "b", b, frozenset({"bf16" if a.dtype == "bf16" else "i8"}))
    wide = [Type("f32" if a.dtype == "bf16" else "i32", t.shape) for t in types]
    return matmul_type(wide, {"maps": (), "accumulate": False}, ())


def matmul_widening_ref(a: Any, b: Any) -> Any:
    wide = np.float32 if a.dtype.kind == "f" else np.int32
    return np.matmul(a.astype(wide), b.astype(wide))


def matmul_of_casts(b: Any, op: Any) -> Sequence[Any]:
    return [b.matmul(*(b.cast(v, dtype=op.result.type.dtype) for v in op.operands))]


define(
    OpDef(
        "matmul_widening",
        "a, b",
        matmul_widening_type,
        matmul_widening_ref,
        doc="The matmul of bytes as int32, whose sums wrap, or of bfloat16 as float32: what CPUs have instructions for.",
        expand=matmul_of_casts,
        kernel=True,
        flops=matmul_flops,
        samples=(
            Sample(("i8[3,4]", "i8[4,5]")),
            Sample(("u8[2,7,9]", "i8[2,9,70]")),
            Sample(("bf16[5,7]", "bf16[7,33]")),
        ),
    )
)
