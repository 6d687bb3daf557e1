"""The matrix product, of which dot, tensordot and the batched forms are reshapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.ir.core import Attrs, Block, Op
from tcc.ir.dims import Size, add, floordiv, mul, sub
from tcc.ir.ops.control import epilogue_types
from tcc.ir.ops.rules import NUMBERS, linear, want_dtype, want_rank, want_same_dtype, want_size
from tcc.ir.optable import REQUIRED, OpDef, Sample, define
from tcc.ir.types import HALVES, Type


def matmul_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    a, b, *extra = types
    want_dtype("matmul", "a", a, NUMBERS)
    want_same_dtype("matmul", [a, b])
    columns = attrs["columns"]
    if attrs["kept"]:
        if columns is not None or not extra or extra[-1].rank != 3 or b.rank != 2:
            raise TypeError(
                f"matmul: needs [k,n] and, as its last operand, panels of it, got {b} and {extra}"
            )
        panels = extra.pop()
        want_same_dtype("matmul", [b, panels])
        want_size("matmul", "axis 1 of the panels", panels.shape[1], b.shape[0])
        want_size("matmul", "axis 0 of the panels", panels.shape[0], panel_count(b.shape[1], panels.shape[2]))
    if columns is not None:
        if a.rank != 2 or b.rank != 3:
            raise TypeError(f"matmul: needs [m,k] and panels [p,k,width], got {a} and {b}")
        want_size("matmul", "axis 1 of operand b", b.shape[1], a.shape[1])
        want_size("matmul", "axis 0 of operand b", b.shape[0], panel_count(columns, b.shape[2]))
        return epilogue_types("matmul", a.with_shape(a.shape[0], columns), extra, attrs, blocks)
    if a.rank < 2 or a.rank != b.rank:
        raise TypeError(f"matmul: needs [...,m,k] and [...,k,n], got {a} and {b}")
    for axis, (left, right) in enumerate(zip(a.shape[:-2], b.shape[:-2])):
        want_size("matmul", f"axis {axis} of operand b", right, left)
    want_size("matmul", "the rows of operand b", b.shape[-2], a.shape[-1])
    result = a.with_shape(*a.shape[:-1], b.shape[-1])
    return epilogue_types("matmul", result, extra, attrs, blocks)


def panel_count(columns: Size, width: Size) -> Size:
    return floordiv(add(columns, sub(width, 1)), width)


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
    columns = op.attrs.get("columns")
    return mul(2, *a.shape, b.shape[-1] if columns is None else columns)


def matmul_ref(
    a: Any,
    b: Any,
    maps: Sequence[str],
    accumulate: bool,
    columns: Size | None,
    kept: bool,
    plan: Sequence[str],
) -> Any:
    if columns is None:
        return np.matmul(a, b)
    return np.matmul(a, np.moveaxis(b, 0, 1).reshape(b.shape[1], -1)[:, :columns])


define(
    OpDef(
        "matmul",
        "a, b, *extra",
        matmul_type,
        matmul_ref,
        {"maps": (), "accumulate": False, "columns": None, "kept": False, "plan": ()},
        doc="[...,m,k] x [...,k,n] with equal batch axes; a block is applied to each finished element.  "
        "With `columns`, n, b is the `panels` of such a matrix; with `kept` the last operand is the `panels` of b, a parameter "
        "whose memory may not be there.  "
        "`plan` is what was measured, in place of what the target's cost model chooses.  "
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


def panels_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    b, *kept = types
    width = attrs["width"]
    want_dtype("panels", "b", b, frozenset({"f32", "f64"}))
    want_rank("panels", "b", b, 2)
    if not isinstance(width, int) or width < 1:
        raise TypeError(f"panels: width must be a number of columns, got {width}")
    made = b.with_shape(panel_count(b.shape[1], width), b.shape[0], width)
    if kept and [t.value for t in kept] != [made]:
        raise TypeError(f"panels: needs the kept ones as {made}, got {', '.join(map(str, kept))}")
    return [made]


def panels_ref(b: Any, width: int) -> Any:
    k, n = b.shape
    count = -(-n // width)
    wide = np.pad(b, ((0, 0), (0, count * width - n)))
    return np.ascontiguousarray(np.moveaxis(wide.reshape(k, count, width), 1, 0))


def panels_of_views(b: Any, op: Any) -> Sequence[Any]:
    """By rows that move elements."""
    x, width = op.operands[0], op.attrs["width"]
    k, n = x.type.shape
    count = panel_count(n, width)
    zeros = b.const(0, x.type.with_shape(k, sub(mul(count, width), n)))
    wide = b.concat(x, zeros, axis=1)
    return [b.dimshuffle(b.reshape(wide, shape=[k, count, width]), order=[1, 0, 2])]


define(
    OpDef(
        "panels",
        "b, *kept",
        panels_type,
        lambda b, *kept, width: panels_ref(b, width),
        {"width": REQUIRED},
        doc="b's columns in panels of `width`, one after another, with zeros behind the last column: as register tiles read them.  "
        "A second operand is a parameter that is such panels, or whose memory may not be there.",
        expand=panels_of_views,  # those that the pass `panels` makes have a kernel
        rop=linear("panels"),
        samples=(
            Sample(("f32[5,70]",), {"width": 32}),
            Sample(("f64[3,16]",), {"width": 16}),
            Sample(("f32[2,3]",), {"width": 4}),
        ),
    )
)


def matmul_widening_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    a, b, *extra = types
    want_dtype("matmul_widening", "a", a, frozenset({"i8", "u8", *HALVES}))
    want_dtype("matmul_widening", "b", b, frozenset({a.dtype if a.dtype in HALVES else "i8"}))
    wide = [Type("f32" if a.dtype in HALVES else "i32", t.shape) for t in (a, b)]
    return matmul_type([*wide, *extra], {**attrs, "columns": None, "kept": False}, blocks)


def matmul_widening_ref(a: Any, b: Any, maps: Sequence[str], accumulate: bool) -> Any:
    wide = np.float32 if a.dtype.kind == "f" else np.int32
    return np.matmul(a.astype(wide), b.astype(wide))


def matmul_of_casts(b: Any, op: Any) -> Sequence[Any]:
    return [b.matmul(*(b.cast(v, dtype=op.result.type.dtype) for v in op.operands))]


define(
    OpDef(
        "matmul_widening",
        "a, b, *extra",
        matmul_widening_type,
        matmul_widening_ref,
        {"maps": (), "accumulate": False},
        doc="The matmul of bytes as int32, whose sums wrap, or of float16 or bfloat16 as float32: what there are instructions for.",
        expand=matmul_of_casts,
        kernel=True,
        flops=matmul_flops,
        samples=(
            Sample(("i8[3,4]", "i8[4,5]")),
            Sample(("u8[2,7,9]", "i8[2,9,70]")),
            Sample(("bf16[5,7]", "bf16[7,33]")),
            Sample(("f16[2,3,6]", "f16[2,6,9]")),
        ),
    )
)
