"""Composites of neural networks: rows that expand into others, kept whole until then for their gradients and rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.ir.core import Attrs, Block
from tcc.ir.ops.reduction import reduced, spread
from tcc.ir.ops.rules import elementwise, per_operand_element, want_dtype, want_rank, want_size
from tcc.ir.optable import REQUIRED, OpDef, Sample, define
from tcc.ir.types import FLOATS, INTEGERS, Type


def over_rows(b: Any, v: Any, x: Any) -> Any:
    """`v`, of x's shape without the last axis, repeated along it."""
    rank = b.rank(x)
    return b.broadcast(b.dimshuffle(v, order=[*range(rank - 1), -1]) if rank > 1 else v, shape=b.shape(x))


def row_sum(b: Any, x: Any) -> Any:
    return b.sum(x, axes=(b.rank(x) - 1,))


def row_max(b: Any, x: Any) -> Any:
    return b.max(x, axes=(b.rank(x) - 1,))


# -- softmax ---------------------------------------------------------------------------------------------------------


def along_last(row: str) -> Any:
    same = elementwise(row, "x", FLOATS)

    def infer(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
        if types[0].rank == 0:
            raise TypeError(f"{row}: needs an operand of rank 1 or more, got {types[0]}")
        return same(types, attrs, blocks)

    return infer


def softmax_ref(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True, initial=-np.inf))
    return e / e.sum(-1, keepdims=True)


def softmax_expand(b: Any, op: Any) -> list[Any]:
    (x,) = op.operands
    e = b.exp(b.sub(x, over_rows(b, row_max(b, x), x)))
    return [b.div(e, over_rows(b, row_sum(b, e), x))]


def softmax_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    y = op.result
    weighted = b.mul(g[0], y)
    return [b.sub(weighted, b.mul(over_rows(b, row_sum(b, weighted), y), y))]


ROWS = (Sample(("f32[3,4]",)), Sample(("f64[5]",)), Sample(("f64[2,3,4]",)))

define(
    OpDef(
        "softmax",
        "x",
        along_last("softmax"),
        softmax_ref,
        doc="exp(x) over its sum along the last axis, without overflow.",
        grad=softmax_grad,
        expand=softmax_expand,
        reuse=(0,),
        flops=per_operand_element(16),
        samples=ROWS,
    )
)


def log_softmax_ref(x: Any) -> Any:
    shifted = x - x.max(-1, keepdims=True, initial=-np.inf)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def log_softmax_expand(b: Any, op: Any) -> list[Any]:
    (x,) = op.operands
    shifted = b.sub(x, over_rows(b, row_max(b, x), x))
    return [b.sub(shifted, over_rows(b, b.log(row_sum(b, b.exp(shifted))), x))]


def log_softmax_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    (x,) = op.operands
    return [b.sub(g[0], b.mul(over_rows(b, row_sum(b, g[0]), x), b.softmax(x)))]


define(
    OpDef(
        "log_softmax",
        "x",
        along_last("log_softmax"),
        log_softmax_ref,
        doc="log(softmax(x)), without overflow or underflow.",
        grad=log_softmax_grad,
        expand=log_softmax_expand,
        reuse=(0,),
        flops=per_operand_element(16),
        samples=ROWS,
    )
)

# -- logsumexp -------------------------------------------------------------------------------------------------------


def logsumexp_ref(x: Any, axes: Sequence[int]) -> Any:
    top = np.max(x, axis=tuple(axes), keepdims=True, initial=-np.inf)
    base = np.where(np.isinf(top), np.zeros_like(top), top)
    total = np.log(np.exp(x - base).sum(axis=tuple(axes), keepdims=True)) + base
    return total.squeeze(tuple(axes))


def logsumexp_expand(b: Any, op: Any) -> list[Any]:
    (x,), axes = op.operands, op.attrs["axes"]
    top = b.max(x, axes=axes)
    base = b.where(b.isinf(top), b.full(0, top), top)  # inf - inf would be NaN
    total = b.sum(b.exp(b.sub(x, spread(b, base, op))), axes=axes)
    return [b.add(b.log(total), base)]


def logsumexp_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    (x,) = op.operands
    return [b.mul(spread(b, g[0], op), b.exp(b.sub(x, spread(b, op.result, op))))]


define(
    OpDef(
        "logsumexp",
        "x",
        reduced("logsumexp", FLOATS),
        logsumexp_ref,
        {"axes": REQUIRED},
        doc="log(sum(exp(x))) over `axes`, without overflow.",
        grad=logsumexp_grad,
        expand=logsumexp_expand,
        flops=per_operand_element(16),
        samples=(
            Sample(("f32[3,4]",), {"axes": (1,)}),
            Sample(("f64[2,3,4]",), {"axes": (0, 2)}),
            Sample(("f64[5]",), {"axes": (0,)}),
        ),
    )
)

# -- variance --------------------------------------------------------------------------------------------------------


def var_ref(x: Any, axes: Sequence[int]) -> Any:
    return np.asarray(np.var(x, axis=tuple(axes), dtype=np.float64)).astype(x.dtype)


def _mean(b: Any, x: Any, axes: Sequence[int]) -> Any:
    return _over_count(b, b.sum(x, axes=axes), x, axes)


def _over_count(b: Any, total: Any, x: Any, axes: Sequence[int]) -> Any:
    count = b.size_value(b.count(x, axes), dtype=b.dtype(total))
    return b.div(total, b.broadcast(count, shape=b.shape(total)))


def var_expand(b: Any, op: Any) -> list[Any]:
    """Rows stay in the nearest cache for a second visit.  Other sums of float32 are had in one visit, in float64, where
    the mean of the squares less the square of the mean loses nothing that float32 could hold."""
    (x,), axes = op.operands, op.attrs["axes"]
    if b.dtype(x) == "f64" or list(axes) == [b.rank(x) - 1]:
        centered = b.sub(x, spread(b, _mean(b, x, axes), op))
        return [_mean(b, b.sqr(centered), axes)]
    wide = b.cast(x, dtype="f64")
    gap = b.sub(_mean(b, b.sqr(wide), axes), b.sqr(_mean(b, wide, axes)))
    return [b.cast(b.maximum(gap, 0.0), dtype=b.dtype(x))]


def _slope(b: Any, op: Any) -> Any:
    """2 (x - mean) / n"""
    (x,), axes = op.operands, op.attrs["axes"]
    centered = b.sub(x, spread(b, _mean(b, x, axes), op))
    two = b.full(2, op.result)
    return b.mul(centered, spread(b, _over_count(b, two, x, axes), op))


def var_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    (x,), axes = op.operands, op.attrs["axes"]
    centered = b.sub(x, spread(b, _mean(b, x, axes), op))
    scaled = _over_count(b, b.mul(g[0], 2.0), x, axes)
    return [b.mul(centered, spread(b, scaled, op))]


def var_rop(b: Any, op: Any, t: Sequence[Any]) -> list[Any]:
    if t[0] is None:
        return [None]
    return [b.sum(b.mul(_slope(b, op), t[0]), axes=op.attrs["axes"])]


define(
    OpDef(
        "var",
        "x",
        reduced("var", FLOATS),
        var_ref,
        {"axes": REQUIRED},
        doc="The mean squared distance from the mean over `axes`.",
        grad=var_grad,
        rop=var_rop,
        expand=var_expand,
        flops=per_operand_element(4),
        samples=(
            Sample(("f32[3,4]",), {"axes": (1,)}),
            Sample(("f32[5,3]",), {"axes": (0,)}),
            Sample(("f64[2,3,4]",), {"axes": (0, 2)}),
            Sample(("f32[2,3,4]",), {"axes": (0, 2)}),
            Sample(("f64[5]",), {"axes": (0,)}),
        ),
    )
)

# -- cross-entropy ---------------------------------------------------------------------------------------------------


def xent_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    logits, labels = types
    want_dtype("xent", "logits", logits, FLOATS)
    want_dtype("xent", "labels", labels, INTEGERS)
    want_rank("xent", "logits", logits, 2)
    want_rank("xent", "labels", labels, 1)
    want_size("xent", "the length of labels", labels.shape[0], logits.shape[0])
    return [logits.with_shape(logits.shape[0])]


def xent_ref(logits: Any, labels: Any) -> Any:
    return -log_softmax_ref(logits)[np.arange(len(labels)), labels]


def xent_expand(b: Any, op: Any) -> list[Any]:
    x, labels = op.operands
    top = row_max(b, x)
    total = b.log(row_sum(b, b.exp(b.sub(x, over_rows(b, top, x)))))
    rows = b.iota(shape=b.shape(labels), axis=0, dtype=b.dtype(labels))
    return [b.sub(total, b.sub(b.gather(x, rows, labels, axes=(0, 1)), top))]


def xent_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    """(softmax - onehot) * g, in elementwise rows so that it stays one visit to memory."""
    x, labels = op.operands
    wide = labels if b.dtype(labels) == "i64" else b.cast(labels, dtype="i64")
    count = b.broadcast(b.size_value(b.size(x, 1)), shape=b.shape(labels))
    picked = b.where(b.lt(wide, 0), b.add(wide, count), wide)
    hot = b.eq(b.iota(shape=b.shape(x), axis=1), over_rows(b, picked, x))
    gap = b.sub(b.softmax(x), b.cast(hot, dtype=b.dtype(x)))
    return [b.mul(gap, over_rows(b, g[0], x)), None]


define(
    OpDef(
        "xent",
        "logits, labels",
        xent_type,
        xent_ref,
        doc="-log(softmax(logits))[i, labels[i]]: the cross-entropy of each row with its label.",
        grad=xent_grad,
        expand=xent_expand,
        flops=per_operand_element(16),
        samples=(
            Sample(("f32[5,4]", "i64[5]")),
            Sample(("f64[3,6]", "i32[3]")),
            Sample(("f64[4,3]", "u8[4]"), low=0),
        ),
    )
)
