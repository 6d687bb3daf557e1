"""Rules for operations that only move elements: broadcast, dimshuffle, refine, reshape, slice, concat."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.ir.builder import Builder
from tcc.ir.core import Op, Value
from tcc.ir.dims import Size, add, mul, sub
from tcc.ir.optable import TABLE
from tcc.ir.types import Type
from tcc.passes.fold import splat
from tcc.passes.pattern import AnyRule, function_rule

MOVES = ("broadcast", "dimshuffle", "reshape", "slice")


def made_by(v: Value, *names: str) -> Op | None:
    """The operation that makes `v`, if it is one of `names`."""
    return v.op if v.op is not None and v.op.name in names else None


@function_rule(*MOVES, "gather", after=("const",))
def moved_splat(op: Op, b: Builder) -> Value | None:
    """a constant of equal elements, moved -> the constant"""
    if made_by(op.operands[0], "const") is None:
        return None
    number = splat(op.operands[0])
    return None if number is None else b.const(number.item(), op.result.type)


@function_rule(*MOVES)
def unmoved(op: Op, b: Builder) -> Value | None:
    """a view that moves nothing -> its operand"""
    source = op.operands[0]
    if source.type != op.result.type:
        return None
    if op.name == "dimshuffle" and list(op.attrs["order"]) != list(range(source.type.rank)):
        return None
    if op.name == "slice" and any(s != 1 for s in op.attrs["step"]):
        return None
    return source


@function_rule("dimshuffle", after=("dimshuffle",))
def dimshuffle_twice(op: Op, b: Builder) -> Value | None:
    """dimshuffle(dimshuffle(x)) -> dimshuffle(x)"""
    inner = made_by(op.operands[0], "dimshuffle")
    if inner is None:
        return None
    order = [-1 if k == -1 else inner.attrs["order"][k] for k in op.attrs["order"]]
    result: Value = b.dimshuffle(inner.operands[0], order=order)
    return result


@function_rule("dimshuffle")
def transposed_product(op: Op, b: Builder) -> Value | None:
    """transpose(transpose(x) @ y) -> transpose(y) @ x, and the mirror image: the result is made as it is wanted

    The product may be scaled, or combined with other numbers that fill its shape; or the axes of its batch move, too.
    """
    maps: list[Op] = []
    product = op.operands[0]
    while product.op is not None and product.op.defn.scalar and len(product.uses) == 1:
        rest = [v for v in product.op.operands if splat(v) is None]
        if len(rest) != 1:
            return None
        maps.append(product.op)
        (product,) = rest
    made = made_by(product, "matmul")
    if made is None or made.blocks or len(product.uses) > 1:
        return None
    rank = product.type.rank
    order, swap = list(op.attrs["order"]), [*range(rank - 2), rank - 1, rank - 2]
    if order[-1:] != [rank - 2] or rank - 1 not in order or (maps and order != swap):
        return None
    if not any(_turned(v) for v in made.operands):
        return None
    result: Value = b.matmul(*(b.dimshuffle(v, order=swap) for v in reversed(made.operands)))
    for m in reversed(maps):
        operands = [result if v is product else b.dimshuffle(v, order=swap) for v in m.operands]
        product, result = m.result, b.op(m.name, *operands, attrs=m.attrs).result
    if order != swap:
        result = b.dimshuffle(result, order=[k if k < 0 else swap[k] for k in order])
    return result


def _turned(v: Value) -> bool:
    """Whether a view has the last axis of its source as the last but one."""
    view = made_by(v, "dimshuffle")
    return view is not None and view.attrs["order"][-2] == view.operands[0].type.rank - 1


@function_rule("broadcast", after=("broadcast",))
def broadcast_twice(op: Op, b: Builder) -> Value | None:
    """broadcast(broadcast(x)) -> broadcast(x)"""
    inner = made_by(op.operands[0], "broadcast")
    return None if inner is None else _broadcast(b, inner.operands[0], op.attrs["shape"])


@function_rule("broadcast", after=("dimshuffle",))
def broadcast_added_axes(op: Op, b: Builder) -> Value | None:
    """broadcast(dimshuffle(x, [-1, ...])) -> broadcast(dimshuffle(x, [...])): it adds leading axes by itself"""
    inner = made_by(op.operands[0], "dimshuffle")
    if inner is None or not inner.attrs["order"] or inner.attrs["order"][0] != -1:
        return None
    order = list(inner.attrs["order"])
    while order and order[0] == -1:
        del order[0]
    return _broadcast(b, b.dimshuffle(inner.operands[0], order=order), op.attrs["shape"])


@function_rule("dimshuffle", after=("broadcast",))
def dimshuffle_of_broadcast(op: Op, b: Builder) -> Value | None:
    """dimshuffle(broadcast(x)) -> broadcast(dimshuffle(x))"""
    inner = made_by(op.operands[0], "broadcast")
    if inner is None:
        return None
    source = inner.operands[0]
    extra = inner.result.type.rank - source.type.rank
    order = [k - extra if k >= extra else -1 for k in op.attrs["order"]]
    dropped = [k for k in range(source.type.rank) if k not in order]
    if any(source.type.shape[k] != 1 for k in dropped):
        return None
    return _broadcast(b, b.dimshuffle(source, order=order), op.result.type.shape)


@function_rule("refine", after=("broadcast", "dimshuffle"))
def refine_of_view(op: Op, b: Builder) -> Value | None:
    """refine(broadcast(x)) -> broadcast(refine(x)), and so for dimshuffle: as it is where the sizes are known to be equal"""
    inner = op.operands[0].op
    assert inner is not None
    source, shape = inner.operands[0], op.result.type.shape
    sizes = list(source.type.shape)
    if inner.name == "broadcast":
        extra = len(shape) - source.type.rank
        for k, n in enumerate(sizes):
            if n == inner.result.type.shape[extra + k]:
                sizes[k] = shape[extra + k]
        return _broadcast(b, _refine(b, source, sizes), shape)
    for k, new in zip(inner.attrs["order"], shape):
        if k != -1:
            sizes[k] = new
        elif new != 1:  # what is made has size 1
            return None
    result: Value = b.dimshuffle(_refine(b, source, sizes), order=inner.attrs["order"])
    return result


@function_rule("reshape")
def reshape_twice(op: Op, b: Builder) -> Value | None:
    """reshape(reshape(x)) -> reshape(x)"""
    inner = made_by(op.operands[0], "reshape")
    result: Value | None = (
        b.reshape(inner.operands[0], shape=op.attrs["shape"]) if inner is not None else None
    )
    return result


@function_rule("reshape")
def reshape_of_inserted_ones(op: Op, b: Builder) -> Value | None:
    """reshape(dimshuffle(x) that keeps the order) -> reshape(x)"""
    inner = made_by(op.operands[0], "dimshuffle")
    if inner is None:
        return None
    kept = [k for k in inner.attrs["order"] if k != -1]
    result: Value | None = (
        b.reshape(inner.operands[0], shape=op.attrs["shape"]) if kept == sorted(kept) else None
    )
    return result


@function_rule("reshape")
def reshape_is_dimshuffle(op: Op, b: Builder) -> Value | None:
    """reshape that only adds and drops axes of size 1 -> dimshuffle"""
    source, shape = op.operands[0], op.result.type.shape
    order: list[int] = []
    kept = [k for k, size in enumerate(source.type.shape) if size != 1]
    wanted = [size for size in shape if size != 1]
    if [source.type.shape[k] for k in kept] != wanted:
        return None
    at = iter(kept)
    order = [-1 if size == 1 else next(at) for size in shape]
    result: Value = b.dimshuffle(source, order=order)
    return result


@function_rule("slice")
def slice_twice(op: Op, b: Builder) -> Value | None:
    """slice(slice(x)) -> slice(x)"""
    inner = made_by(op.operands[0], "slice")
    if inner is None:
        return None
    start = [
        add(s, mul(t, k)) for s, t, k in zip(inner.attrs["start"], op.attrs["start"], inner.attrs["step"])
    ]
    step = [s * t for s, t in zip(inner.attrs["step"], op.attrs["step"])]
    result: Value = b.slice(inner.operands[0], start=start, size=op.attrs["size"], step=step)
    return result


@function_rule("slice")
def slice_of_broadcast(op: Op, b: Builder) -> Value | None:
    """slice(broadcast(x)) -> broadcast(slice(x))"""
    inner = made_by(op.operands[0], "broadcast")
    if inner is None:
        return None
    source, whole = inner.operands[0], inner.result.type
    extra = whole.rank - source.type.rank
    start: list[Size] = []
    size: list[Size] = []
    step: list[int] = []
    for k, n in enumerate(source.type.shape):
        spread = n == 1 and whole.shape[extra + k] != 1
        if spread and op.attrs["size"][extra + k] == 0:
            return None
        start.append(0 if spread else op.attrs["start"][extra + k])
        size.append(1 if spread else op.attrs["size"][extra + k])
        step.append(1 if spread else op.attrs["step"][extra + k])
    return _broadcast(b, b.slice(source, start=start, size=size, step=step), op.result.type.shape)


@function_rule("slice")
def slice_of_concat(op: Op, b: Builder) -> Value | None:
    """slice(concat(..., x, ...)) that lies within x -> slice(x)"""
    inner = made_by(op.operands[0], "concat")
    if inner is None:
        return None
    axis = int(inner.attrs["axis"])
    if op.attrs["step"][axis] != 1:
        return None
    begin: Size = 0
    for part in inner.operands:
        n = part.type.shape[axis]
        offset = sub(op.attrs["start"][axis], begin)
        room = sub(sub(n, offset), op.attrs["size"][axis])
        if isinstance(offset, int) and isinstance(room, int) and offset >= 0 and room >= 0:
            start = [offset if k == axis else s for k, s in enumerate(op.attrs["start"])]
            result: Value = b.slice(part, start=start, size=op.attrs["size"], step=op.attrs["step"])
            return result
        begin = add(begin, n)
    return None


@function_rule("concat")
def concat_of_one(op: Op, b: Builder) -> Value | None:
    """concat(x) -> x"""
    return op.operands[0] if len(op.operands) == 1 else None


@function_rule("concat")
def concat_twice(op: Op, b: Builder) -> Value | None:
    """concat(concat(x, y), z) -> concat(x, y, z)"""
    axis = op.attrs["axis"]
    parts: list[Value] = []
    for v in op.operands:
        inner = made_by(v, "concat")
        flat = inner is not None and inner.attrs["axis"] == axis and len(v.uses) == 1
        parts += inner.operands if flat and inner is not None else [v]
    if len(parts) == len(op.operands):
        return None
    result: Value = b.concat(*parts, axis=axis)
    return result


# -- elementwise operations on views ---------------------------------------------------------------------------------


@function_rule(
    *(name for name, row in TABLE.items() if row.scalar and name != "second"),
    after=("dimshuffle", "broadcast"),
)
def after_view(op: Op, b: Builder) -> Value | None:
    """f(view(x), view(y)) -> view(f(x, y)), for one broadcast or dimshuffle of equal shapes; constants and numbers follow"""
    first = next((v.op for v in op.operands if made_by(v, "dimshuffle")), None)
    first = first or next((v.op for v in op.operands if made_by(v, "broadcast")), None)
    if first is None:
        return None
    shape = first.operands[0].type.shape
    views: list[Value] = []
    for v in op.operands:
        other = made_by(v, first.name)
        if other is not None and other.operands[0].type.shape == shape and other.attrs == first.attrs:
            views.append(v)
        elif splat(v) is None and not (first.name == "dimshuffle" and _stretched_number(v)):
            return None
    turns = first.name == "dimshuffle" and [a for a in first.attrs["order"] if a != -1] != list(
        range(len(shape))
    )
    if turns and all(len(v.uses) > 1 for v in views):
        return None  # the transposed value is wanted anyway
    inner = b.op(op.name, *(_unmoved(v, views, shape, b) for v in op.operands), attrs=op.attrs).result
    return b.op(first.name, inner, attrs=first.attrs).result


def _unmoved(v: Value, views: Sequence[Value], shape: Sequence[Size], b: Builder) -> Value:
    """An operand before the view."""
    assert v.op is not None
    if v in views:
        return v.op.operands[0]
    number = splat(v)
    if number is not None:
        made: Value = b.const(number.item(), v.type.with_shape(*shape))
        return made
    return _broadcast(b, v.op.operands[0], shape)


def _stretched_number(v: Value) -> bool:
    made = made_by(v, "broadcast")
    return made is not None and made.operands[0].type.rank == 0


def _refine(b: Builder, source: Value, shape: Sequence[Size]) -> Value:
    type = Type(source.type.dtype, tuple(shape))
    result: Value = source if source.type == type else b.refine(source, type=type)
    return result


def _broadcast(b: Builder, source: Value, shape: Sequence[Size]) -> Value:
    result: Value = b.broadcast(source, shape=list(shape))
    return result


RULES: list[AnyRule] = [
    moved_splat,
    unmoved,
    dimshuffle_twice,
    transposed_product,
    broadcast_twice,
    broadcast_added_axes,
    dimshuffle_of_broadcast,
    refine_of_view,
    reshape_twice,
    reshape_of_inserted_ones,
    reshape_is_dimshuffle,
    slice_twice,
    slice_of_broadcast,
    slice_of_concat,
    concat_of_one,
    concat_twice,
    after_view,
]
