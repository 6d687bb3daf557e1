"""Rows over windows of the trailing axes: pooling, its gradients, and the windows themselves as a view.

Window o of an axis starts at o * stride - pad; its elements outside the axis do not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.ir.core import Attrs, Block, Op
from tcc.ir.dims import Size, add, floordiv, maximum, mul
from tcc.ir.ops.reduction import highest, lowest
from tcc.ir.ops.rules import REAL, linear, want_dtype, want_same_dtype, want_shape
from tcc.ir.optable import REQUIRED, OpDef, Sample, TypeRule, define
from tcc.ir.types import Type

GEOMETRY = {"ws": REQUIRED, "stride": REQUIRED, "pad": REQUIRED, "partial": 0}


# -- geometry --------------------------------------------------------------------------------------------------------


def window_count(n: Size, ws: int, stride: int, pad: int = 0, partial: bool = False) -> Size:
    """The number of windows along an axis of `n` elements; with `partial` those count that reach over its end."""
    if not partial:
        return floordiv(maximum(add(n, 2 * pad - ws + stride), 0), stride)
    if stride >= ws:
        return floordiv(add(n, stride - 1), stride)
    return add(floordiv(maximum(add(n, stride - ws - 1), 0), stride), 1)


def want_geometry(row: str, t: Type, attrs: Attrs) -> int:
    """Checks the attributes of GEOMETRY against `t`; the number of axes that windows move along."""
    ws, stride, pad = attrs["ws"], attrs["stride"], attrs["pad"]
    rank = len(ws)
    if not 1 <= rank <= t.rank or len(stride) != rank or len(pad) != rank:
        counts = f"{len(ws)}, {len(stride)} and {len(pad)}"
        raise TypeError(f"{row}: {t} needs as many ws, stride and pad as it has axes, or fewer, got {counts}")
    for w, s, p in zip(ws, stride, pad):
        if w < 1 or s < 1 or not 0 <= p < w:
            raise TypeError(
                f"{row}: needs ws >= 1, stride >= 1 and 0 <= pad < ws, got {list(ws)}, {list(stride)}, {list(pad)}"
            )
    if attrs["partial"] and any(pad):
        raise TypeError(f"{row}: partial windows cannot be padded, got pad {list(pad)}")
    return rank


def pooled_shape(shape: Sequence[Size], attrs: Attrs) -> list[Size]:
    rank = len(attrs["ws"])
    geometry = zip(shape[len(shape) - rank :], attrs["ws"], attrs["stride"], attrs["pad"])
    counts = [window_count(n, w, s, p, bool(attrs["partial"])) for n, w, s, p in geometry]
    return [*shape[: len(shape) - rank], *counts]


def geometry_of(attrs: Attrs) -> Attrs:
    return {k: attrs[k] for k in GEOMETRY}


# -- meaning ---------------------------------------------------------------------------------------------------------


def padded(x: Any, counts: Sequence[int], attrs: Attrs, fill: Any) -> Any:
    """x with `fill` around it, as far as the windows reach."""
    rank = len(counts)
    ws, stride, pad = attrs["ws"], attrs["stride"], attrs["pad"]
    need = [max((c - 1) * s + w, p + n) for c, s, w, p, n in zip(counts, stride, ws, pad, x.shape[-rank:])]
    out = np.full((*x.shape[:-rank], *need), fill, x.dtype)
    out[inside(x.shape[-rank:], pad)] = x
    return out


def inside(sizes: Sequence[int], pad: Sequence[int]) -> tuple[Any, ...]:
    return (..., *(slice(p, p + n) for p, n in zip(pad, sizes)))


def taps(a: Any, counts: Sequence[int], attrs: Attrs) -> list[Any]:
    """For each place in a window, in order, the view of padded `a` with that element of every window."""
    steps = list(zip(counts, attrs["stride"]))
    return [
        a[(..., *(slice(t, t + (c - 1) * s + 1 if c else t, s) for t, (c, s) in zip(at, steps)))]
        for at in np.ndindex(*attrs["ws"])
    ]


def pool_ref(x: Any, mode: str, ws: Any, stride: Any, pad: Any, partial: int) -> Any:
    attrs = {"ws": ws, "stride": stride, "pad": pad, "partial": partial}
    shape: Any = pooled_shape(x.shape, attrs)
    counts = shape[-len(ws) :]
    wide: Any = np.float64 if x.dtype.kind == "f" and mode == "sum" else x.dtype
    out = np.full(shape, 0 if mode == "sum" else lowest(x.dtype), wide)
    for v in taps(padded(x, counts, attrs, 0 if mode == "sum" else lowest(x.dtype)), counts, attrs):
        out = out + v if mode == "sum" else np.maximum(out, v)
    return out.astype(x.dtype)


def unpool_ref(g: Any, size: Sequence[int], **attrs: Any) -> Any:
    counts = g.shape[g.ndim - len(size) :]
    wide = np.float64 if g.dtype.kind == "f" else g.dtype
    out = padded(np.zeros((*g.shape[: g.ndim - len(size)], *size), wide), counts, attrs, 0)
    for v in taps(out, counts, attrs):
        v += g
    return out[inside(size, attrs["pad"])].astype(g.dtype)


def max_pool_grad_ref(x: Any, y: Any, g: Any, **attrs: Any) -> Any:
    counts = y.shape[y.ndim - len(attrs["ws"]) :]
    sizes = x.shape[x.ndim - len(counts) :]
    wide = np.float64 if g.dtype.kind == "f" else g.dtype
    out = padded(np.zeros(x.shape, wide), counts, attrs, 0)
    # what lies outside is equal to no maximum but that of nothing, and is cut off
    for v, have in zip(taps(out, counts, attrs), taps(padded(x, counts, attrs, 0), counts, attrs)):
        v += np.where(have == y, g, 0)
    return out[inside(sizes, attrs["pad"])].astype(g.dtype)


def max_pool_pick_ref(x: Any, y: Any, v: Any, **attrs: Any) -> Any:
    counts = y.shape[y.ndim - len(attrs["ws"]) :]
    wide = np.float64 if v.dtype.kind == "f" else v.dtype
    out = np.zeros(y.shape, wide)
    have = taps(padded(x, counts, attrs, highest(x.dtype)), counts, attrs)
    for of_x, of_v in zip(have, taps(padded(v, counts, attrs, 0), counts, attrs)):
        out += np.where(of_x == y, of_v, 0)
    return out.astype(v.dtype)


# -- the rows --------------------------------------------------------------------------------------------------------


def pool_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    (t,) = types
    want_dtype("pool", "x", t, REAL)
    if attrs["mode"] not in ("max", "sum"):
        raise TypeError(f"pool: the mode must be max or sum, got {attrs['mode']!r}")
    want_geometry("pool", t, attrs)
    return [t.with_shape(*pooled_shape(t.shape, attrs))]


def pool_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    (x,), geometry = op.operands, geometry_of(op.attrs)
    if op.attrs["mode"] == "max":
        return [b.max_pool_grad(x, op.result, g[0], **geometry)]
    return [b.unpool(g[0], size=list(b.shape(x)[b.rank(x) - len(geometry["ws"]) :]), **geometry)]


def pool_rop(b: Any, op: Any, t: Sequence[Any]) -> list[Any]:
    (x,) = op.operands
    if t[0] is None:
        return [None]
    if op.attrs["mode"] == "sum":
        return [b.pool(t[0], **op.attrs)]
    return [b.max_pool_pick(x, op.result, t[0], **geometry_of(op.attrs))]


def unpool_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    (g,), size = types, tuple(attrs["size"])
    want_dtype("unpool", "g", g, REAL)
    rank = want_geometry("unpool", g, attrs)
    if len(size) != rank:
        raise TypeError(f"unpool: needs one size for each of its {rank} axes, got {len(size)}")
    whole = g.with_shape(*g.shape[: g.rank - rank], *size)
    want_shape("unpool", "g", g, tuple(pooled_shape(whole.shape, attrs)), "the windows")
    return [whole]


def selecting(row: str, like: int) -> TypeRule:
    """x, y and a third operand of x's (`like` 2) or y's shape, whose result has the other one's."""

    def infer(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
        x, y, v = types
        want_dtype(row, "x", x, REAL)
        want_same_dtype(row, types)
        want_geometry(row, x, attrs)
        want_shape(row, "y", y, tuple(pooled_shape(x.shape, attrs)), "the windows of x")
        given, result = (y, x) if like == 1 else (x, y)
        want_shape(row, "g" if like == 1 else "v", v, given.shape, "y" if like == 1 else "x")
        return [result]

    return infer


def per_tap(op: Op) -> Size:
    total = op.operands[0].type.size
    for w, s in zip(op.attrs["ws"], op.attrs["stride"]):
        total = mul(total, -(-w // s))
    return total


def sampled(*types: str, **more: Any) -> tuple[Sample, ...]:
    """Instances: whole windows, overlapping ones, padded ones, partial ones; in one, two and three dimensions.

    `types` are the operands' dtypes and whether each has the shape of the windows: `f32`, `f32*`.
    """
    cases: list[tuple[tuple[int, ...], Attrs]] = [
        ((2, 3, 4, 6), {"ws": (2, 2), "stride": (2, 2), "pad": (0, 0)}),
        ((2, 7, 9), {"ws": (3, 3), "stride": (2, 2), "pad": (1, 1)}),
        ((2, 5, 8), {"ws": (2, 3), "stride": (1, 2), "pad": (0, 0), "partial": 1}),
        ((40,), {"ws": (3,), "stride": (1,), "pad": (1,)}),
        ((7, 5), {"ws": (2,), "stride": (3,), "pad": (0,), "partial": 1}),
        ((3, 4, 5), {"ws": (2, 3, 2), "stride": (2, 1, 2), "pad": (1, 0, 1)}),
    ]
    out = []
    for k, (shape, attrs) in enumerate(cases):
        full = {"partial": 0, **attrs}
        texts = []
        for t in types:
            sizes = pooled_shape(shape, full) if t.endswith("*") else shape
            dtype = "f64" if k % 2 and t[0] == "f" else t.rstrip("*")
            texts.append(f"{dtype}[{','.join(map(str, sizes))}]")
        given = dict(attrs) | {key: value(shape, full) for key, value in more.items()}
        out.append(Sample(tuple(texts), given))
    return tuple(out)


def _mode(mode: str) -> Callable[[Any, Any], str]:
    return lambda shape, attrs: mode


define(
    OpDef(
        "pool",
        "x",
        pool_type,
        pool_ref,
        {"mode": REQUIRED, **GEOMETRY},
        doc="The max or sum of each window of x's trailing axes: of `ws` elements, `stride` apart, the first one `pad` "
        "before the start.  Windows that reach over the end count if `partial` or within the `pad` there.",
        grad=pool_grad,
        rop=pool_rop,
        kernel=True,
        flops=per_tap,
        samples=(
            *sampled("f32", mode=_mode("max")),
            *sampled("f32", mode=_mode("sum")),
            *sampled("i32", mode=_mode("max"))[1:3],
        ),
    )
)
define(
    OpDef(
        "unpool",
        "g",
        unpool_type,
        unpool_ref,
        {"size": REQUIRED, **GEOMETRY},
        doc="For each element of trailing axes of `size` the sum of g over the windows that it is in: pool's transpose.",
        grad=lambda b, op, g: [b.pool(g[0], mode="sum", **geometry_of(op.attrs))],
        rop=linear("unpool"),
        kernel=True,
        flops=per_tap,
        samples=sampled("f32*", size=lambda shape, attrs: shape[len(shape) - len(attrs["ws"]) :]),
    )
)
define(
    OpDef(
        "max_pool_grad",
        "x, y, g",
        selecting("max_pool_grad", 1),
        max_pool_grad_ref,
        GEOMETRY,
        doc="For each element of x the sum of g over the windows that it is in and whose y it equals.",
        grad=lambda b, op, g: [
            b.full(0, op.operands[0]),
            b.full(0, op.operands[1]),
            b.max_pool_pick(*op.operands[:2], g[0], **op.attrs),
        ],
        kernel=True,
        flops=per_tap,
        samples=(*sampled("i32", "i32*", "i32*"), *sampled("f32", "f32*", "f32*")[:2]),
    )
)
define(
    OpDef(
        "max_pool_pick",
        "x, y, v",
        selecting("max_pool_pick", 2),
        max_pool_pick_ref,
        GEOMETRY,
        doc="For each window of x the sum of v over its elements where x equals y: max_pool_grad's transpose.",
        grad=lambda b, op, g: [
            b.full(0, op.operands[0]),
            b.full(0, op.operands[1]),
            b.max_pool_grad(*op.operands[:2], g[0], **op.attrs),
        ],
        kernel=True,
        flops=per_tap,
        samples=(*sampled("i32", "i32*", "i32"), *sampled("f32", "f32*", "f32")[:2]),
    )
)

# -- windows as a view -----------------------------------------------------------------------------------------------


def windows_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    (t,), ws, step = types, attrs["ws"], attrs["step"]
    if not 1 <= len(ws) <= t.rank or len(step) != len(ws) or min((*ws, *step)) < 1:
        raise TypeError(f"windows: {t} needs as many positive ws as step, got {list(ws)} and {list(step)}")
    counts = [window_count(n, w, s) for n, w, s in zip(t.shape[t.rank - len(ws) :], ws, step)]
    return [t.with_shape(*t.shape[: t.rank - len(ws)], *counts, *ws)]


def windows_ref(x: Any, ws: Sequence[int], step: Sequence[int]) -> Any:
    rank = len(ws)
    lead = x.shape[: x.ndim - rank]
    counts = [window_count(n, w, s) for n, w, s in zip(x.shape[x.ndim - rank :], ws, step)]
    if 0 in counts:
        return np.zeros((*lead, *counts, *ws), x.dtype)
    every = np.lib.stride_tricks.sliding_window_view(x, tuple(ws), tuple(range(x.ndim - rank, x.ndim)))
    return every[(*[slice(None)] * len(lead), *(slice(None, None, s) for s in step))]


def windows_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    """Each place in a window at a time: the elements there of all windows lie one step apart."""
    (x,), ws, step = op.operands, op.attrs["ws"], op.attrs["step"]
    rank, lead = len(ws), b.rank(x) - len(ws)
    outer = list(b.shape(op.result)[: lead + rank])
    total = b.full(0, x)
    for at in np.ndindex(*ws):
        where = {"start": [0] * (lead + rank) + list(at), "size": [*outer, *[1] * rank]}
        part = b.slice(g[0], step=[1] * (lead + 2 * rank), **where)
        part = b.dimshuffle(part, order=list(range(lead + rank)))
        spot = {"start": [0] * lead + list(at), "step": [1] * lead + list(step)}
        total = b.insert(total, part, size=outer, mode="add", **spot)
    return [total]


define(
    OpDef(
        "windows",
        "x",
        windows_type,
        windows_ref,
        {"ws": REQUIRED, "step": REQUIRED},
        doc="The windows of `ws` elements, `step` apart, of x's trailing axes: x[..., counts of windows, ws].",
        grad=windows_grad,
        rop=linear("windows"),
        view=0,
        samples=(
            Sample(("f32[2,5,6]",), {"ws": (2, 3), "step": (2, 1)}),
            Sample(("f64[9]",), {"ws": (4,), "step": (3,)}),
            Sample(("i64[4,4]",), {"ws": (2, 2), "step": (2, 2)}),
        ),
    )
)
