"""Rows that move elements without computing on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.ir.core import Attrs, Block
from tcc.ir.dims import SizeMismatch, add, product
from tcc.ir.ops.rules import linear, linear_in_all, want_axis, want_dtype, want_same_dtype, want_size
from tcc.ir.optable import REQUIRED, OpDef, Sample, define
from tcc.ir.types import COMPLEX, COMPLEX_OF, REAL_OF, Type

# -- views -----------------------------------------------------------------------------------------------------------


def broadcast_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    (t,), shape = types, tuple(attrs["shape"])
    if t.rank > len(shape):
        raise TypeError(f"broadcast: {t} has more axes than [{','.join(map(str, shape))}]")
    for axis, size in enumerate(t.shape, len(shape) - t.rank):
        if size != 1:
            want_size("broadcast", f"axis {axis - len(shape) + t.rank} of x", size, shape[axis])
    return [t.with_shape(*shape)]


def broadcast_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    (x,) = op.operands
    added = b.rank(op.result) - b.rank(x)
    stretched = [a for a in range(b.rank(x)) if b.is_one(x, a) and not b.is_one(op.result, a + added)]
    if not added and not stretched:
        return [g[0]]
    total = b.sum(g[0], axes=(*range(added), *(a + added for a in stretched)))
    if not stretched:
        return [total]
    kept = [a for a in range(b.rank(x)) if a not in stretched]
    return [b.dimshuffle(total, order=[kept.index(a) if a in kept else -1 for a in range(b.rank(x))])]


define(
    OpDef(
        "broadcast",
        "x",
        broadcast_type,
        lambda x, shape: np.broadcast_to(x, tuple(shape)),
        {"shape": REQUIRED},
        doc="x repeated along new leading axes and along axes of size 1.",
        grad=broadcast_grad,
        rop=linear("broadcast"),
        view=0,
        samples=(
            Sample(("f32[4]",), {"shape": (3, 4)}),
            Sample(("f64[3,1]",), {"shape": (2, 3, 4)}),
            Sample(("f32[]",), {"shape": (5,)}),
            Sample(("i64[1,3]",), {"shape": (1, 3)}),
        ),
    )
)


def dimshuffle_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    (t,), order = types, attrs["order"]
    kept = [a for a in order if a != -1]
    if len(set(kept)) < len(kept) or not all(0 <= a < t.rank for a in kept):
        raise TypeError(f"dimshuffle: the order must name axes of {t} once each, or -1, got {list(order)}")
    for axis in set(range(t.rank)).difference(kept):
        want_size("dimshuffle", f"axis {axis} of x, which the order leaves out,", t.shape[axis], 1)
    return [t.with_shape(*(1 if a == -1 else t.shape[a] for a in order))]


def dimshuffle_ref(x: Any, order: Sequence[int]) -> Any:
    kept = [a for a in order if a != -1]
    dropped = [a for a in range(np.ndim(x)) if a not in kept]
    moved = np.transpose(x, [*kept, *dropped])
    return moved.reshape([1 if a == -1 else np.shape(x)[a] for a in order])


def dimshuffle_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    order = list(op.attrs["order"])
    back = [order.index(a) if a in order else -1 for a in range(b.rank(op.operands[0]))]
    return [b.dimshuffle(g[0], order=back)]


define(
    OpDef(
        "dimshuffle",
        "x",
        dimshuffle_type,
        dimshuffle_ref,
        {"order": REQUIRED},
        doc="x's axes in another order; -1 is a new axis of size 1, and an axis left out must have size 1.",
        grad=dimshuffle_grad,
        rop=linear("dimshuffle"),
        view=0,
        samples=(
            Sample(("f32[3,4]",), {"order": (1, 0)}),
            Sample(("f64[3,1,4]",), {"order": (2, -1, 0)}),
            Sample(("f32[]",), {"order": (-1,)}),
            Sample(("i64[1,3]",), {"order": (1,)}),
        ),
    )
)


def reshape_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    (t,), shape = types, tuple(attrs["shape"])
    have, want = t.size, product(shape)
    # What names alone cannot decide is for whoever builds the reshape: a name that a later pass gives a number may
    # stand against one that only running binds.
    if have != want and isinstance(have - want, int):
        message = f"reshape: {t} has {have} elements, the new shape [{','.join(map(str, shape))}] has {want}"
        raise SizeMismatch(message, have, want)
    return [t.with_shape(*shape)]


define(
    OpDef(
        "reshape",
        "x",
        reshape_type,
        lambda x, shape: np.reshape(x, tuple(shape)),
        {"shape": REQUIRED},
        doc="x's elements, in row-major order, under another shape with as many elements.",
        grad=lambda b, op, g: [b.reshape(g[0], shape=b.shape(op.operands[0]))],
        rop=linear("reshape"),
        view=0,
        samples=(
            Sample(("f32[3,4]",), {"shape": (12,)}),
            Sample(("f64[2,3,4]",), {"shape": (6, 4)}),
            Sample(("f32[1]",), {"shape": ()}),
            Sample(("i64[6]",), {"shape": (3, 1, 2)}),
        ),
    )
)


def want_window(row: str, t: Type, attrs: Attrs) -> None:
    """`start`, `size` and `step` name a window of `t`, as far as it can be known."""
    start, size, step = attrs["start"], attrs["size"], attrs["step"]
    if not len(start) == len(size) == len(step) == t.rank:
        counts = f"{len(start)}, {len(size)} and {len(step)}"
        raise TypeError(f"{row}: {t} needs {t.rank} starts, sizes and steps, got {counts}")
    for axis, (n, first, count, by) in enumerate(zip(t.shape, start, size, step)):
        if by == 0:
            raise TypeError(f"{row}: the step of axis {axis} is 0")
        if not all(isinstance(s, int) for s in (n, first, count, by)) or count == 0:
            continue
        last = first + (count - 1) * by
        if count < 0 or not (0 <= first < n and 0 <= last < n):
            window = f"elements {first} to {last} by {by}"
            raise TypeError(f"{row}: axis {axis} of {t} has no {window}")


def window(start: Sequence[int], size: Sequence[int], step: Sequence[int]) -> tuple[slice, ...]:
    """The same window in NumPy's form."""
    out = []
    for first, count, by in zip(start, size, step):
        stop = first + count * by
        out.append(slice(first, None if stop < 0 else stop, by) if count else slice(0, 0))
    return tuple(out)


def slice_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    (t,) = types
    want_window("slice", t, attrs)
    return [t.with_shape(*attrs["size"])]


def slice_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    return [b.insert(b.full(0, op.operands[0]), g[0], mode="set", **op.attrs)]


define(
    OpDef(
        "slice",
        "x",
        slice_type,
        lambda x, start, size, step: x[window(start, size, step)],
        {"start": REQUIRED, "size": REQUIRED, "step": REQUIRED},
        doc="`size` elements of each axis of x, from `start` on, `step` (maybe negative) apart; they must exist.",
        grad=slice_grad,
        rop=linear("slice"),
        view=0,
        samples=(
            Sample(("f32[5,6]",), {"start": (1, 0), "size": (3, 3), "step": (1, 2)}),
            Sample(("f64[5]",), {"start": (4,), "size": (5,), "step": (-1,)}),
            Sample(("i64[5,4]",), {"start": (2, 3), "size": (0, 2), "step": (1, -3)}),
        ),
    )
)

# -- concatenation ---------------------------------------------------------------------------------------------------


def concat_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    axis = attrs["axis"]
    if not types:
        raise TypeError("concat: needs an operand")
    want_same_dtype("concat", types)
    first = types[0]
    want_axis("concat", axis, first.rank)
    for i, t in enumerate(types[1:], 1):
        if t.rank != first.rank:
            raise TypeError(f"concat: operands must have one rank, got {first} and {t}")
        for other, (have, want) in enumerate(zip(t.shape, first.shape)):
            if other != axis:
                want_size("concat", f"axis {other} of operand {i}", have, want)
    total = add(*(t.shape[axis] for t in types))
    return [first.with_shape(*first.shape[:axis], total, *first.shape[axis + 1 :])]


def concat_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    axis, rank = op.attrs["axis"], b.rank(op.result)
    out, at = [], 0
    for x in op.operands:
        start = [at if a == axis else 0 for a in range(rank)]
        out.append(b.slice(g[0], start=start, size=list(b.shape(x)), step=[1] * rank))
        at = at + b.size(x, axis)
    return out


define(
    OpDef(
        "concat",
        "*xs",
        concat_type,
        lambda *xs, axis: np.concatenate(xs, axis),
        {"axis": REQUIRED},
        doc="The operands one after the other along `axis`.",
        grad=concat_grad,
        rop=linear_in_all("concat"),
        kernel=True,
        samples=(
            Sample(("f32[3,4]", "f32[3,2]"), {"axis": 1}),
            Sample(("f64[2]", "f64[3]", "f64[1]"), {"axis": 0}),
            Sample(("i64[2,3]",), {"axis": 0}),
        ),
    )
)


def shape_of_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    want_axis("shape_of", attrs["axis"], types[0].rank)
    return [Type("i64")]


define(
    OpDef(
        "shape_of",
        "x",
        shape_of_type,
        lambda x, axis: np.asarray(np.shape(x)[axis], dtype=np.int64),
        {"axis": REQUIRED},
        doc="The size of an axis of x, whose values do not matter.",
        grad=lambda b, op, g: [None],
        rop=lambda b, op, t: [None],
        expand=lambda b, op: [b.size_value(b.size(op.operands[0], op.attrs["axis"]))],
        samples=(Sample(("f32[3,4]",), {"axis": 1}),),
    )
)

# -- complex numbers as pairs, in the same memory ------------------------------------------------------------------------


def pairs_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    (t,) = types
    want_dtype("pairs", "x", t, COMPLEX)
    return [Type(REAL_OF[t.dtype], (*t.shape, 2))]


def of_pairs_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    (t,) = types
    want_dtype("of_pairs", "x", t, frozenset(COMPLEX_OF))
    if not t.rank:
        raise TypeError(f"of_pairs: operand x must have a last axis of pairs, got {t}")
    want_size("of_pairs", "the last axis of x", t.shape[-1], 2)
    return [Type(COMPLEX_OF[t.dtype], t.shape[:-1])]


def pairs_ref(x: Any) -> Any:
    whole = np.ascontiguousarray(np.asarray(x)[..., None])
    return whole.view(whole.real.dtype)


define(
    OpDef(
        "pairs",
        "x",
        pairs_type,
        pairs_ref,
        doc="The real and imaginary parts of x, which lie side by side, along a new last axis.",
        grad=lambda b, op, g: [b.conj(b.of_pairs(g[0]))],
        rop=linear("pairs"),
        view=0,
        samples=(Sample(("c64[3,4]",)), Sample(("c128[]",))),
    )
)
define(
    OpDef(
        "of_pairs",
        "x",
        of_pairs_type,
        lambda x: np.ascontiguousarray(x).view(np.result_type(x, np.complex64))[..., 0],
        doc="The complex numbers whose parts are the pairs along the last axis of x.",
        grad=lambda b, op, g: [b.pairs(b.conj(g[0]))],
        rop=linear("of_pairs"),
        view=0,
        samples=(Sample(("f32[3,4,2]",)), Sample(("f64[2]",))),
    )
)
