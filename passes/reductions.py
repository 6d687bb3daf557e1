"""Rules for reductions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from tcc.ir.builder import Builder
from tcc.ir.core import Op, Value
from tcc.ir.dims import Size, product
from tcc.ir.types import FLOATS, HALVES, Type
from tcc.passes.access import identity, resolve
from tcc.passes.fold import splat
from tcc.passes.pattern import AnyRule, function_rule
from tcc.passes.views import made_by

KINDS = ("sum", "prod", "max", "min", "any", "all")


def reduce_like(op: Op, b: Builder, x: Value, axes: Sequence[int]) -> Value:
    """The reduction `op` of another operand over other axes, of the same result dtype."""
    attrs = {**op.attrs, "axes": list(axes)}
    if "dtype" in attrs:
        dtype = op.result.type.dtype
        attrs["dtype"] = None if dtype == x.type.dtype else dtype
    return b.op(op.name, x, attrs=attrs).result


def as_result(op: Op, b: Builder, x: Value) -> Value:
    dtype = op.result.type.dtype
    result: Value = x if x.type.dtype == dtype else b.cast(x, dtype=dtype)
    return result


@function_rule(*KINDS)
def over_size_one(op: Op, b: Builder) -> Value | None:
    """a reduction over axes of size 1 -> without them"""
    x, axes = op.operands[0], list(op.attrs["axes"])
    ones = [a for a in axes if x.type.shape[a] == 1]
    if axes and not ones:
        return None
    if op.name in ("any", "all") and x.type.dtype != "bool":
        return None
    kept = [a for a in range(x.type.rank) if a not in ones]
    smaller = b.dimshuffle(x, order=kept) if ones else x
    rest = [kept.index(a) for a in axes if a not in ones]
    return reduce_like(op, b, smaller, rest) if rest else as_result(op, b, smaller)


@function_rule("sum", "prod")
def of_own_dtype(op: Op, b: Builder) -> Value | None:
    """sum(x, dtype of x) -> sum(x)"""
    x = op.operands[0]
    return reduce_like(op, b, x, op.attrs["axes"]) if op.attrs["dtype"] == x.type.dtype else None


@function_rule(*KINDS)
def of_dimshuffle(op: Op, b: Builder) -> Value | None:
    """reduction(dimshuffle(x)) -> dimshuffle(reduction(x))"""
    inner = made_by(op.operands[0], "dimshuffle")
    if inner is None:
        return None
    x, order = inner.operands[0], list(inner.attrs["order"])
    axes = [order[a] for a in op.attrs["axes"]]
    if -1 in axes or len([k for k in order if k != -1]) < x.type.rank:
        return None
    rest = [k for k in range(x.type.rank) if k not in axes]
    left = [k for a, k in enumerate(order) if a not in op.attrs["axes"]]
    result: Value = b.dimshuffle(
        reduce_like(op, b, x, sorted(axes)), order=[-1 if k == -1 else rest.index(k) for k in left]
    )
    return result


@function_rule("sum", "prod", "max", "min", "any", "all")
def twice(op: Op, b: Builder) -> Value | None:
    """sum(sum(x, A), B) -> sum(x, A + B)"""
    inner = made_by(op.operands[0], op.name)
    if inner is None or len(inner.result.uses) > 1 or inner.result.type.dtype != op.result.type.dtype:
        return None
    x = inner.operands[0]
    rest = [k for k in range(x.type.rank) if k not in inner.attrs["axes"]]
    return reduce_like(op, b, x, sorted([*inner.attrs["axes"], *(rest[a] for a in op.attrs["axes"])]))


@function_rule("sum", "max", "min", strength="stable")
def of_broadcast(op: Op, b: Builder) -> Value | None:
    """sum(broadcast(x)) -> x * count, max(broadcast(x)) -> x"""
    inner = made_by(op.operands[0], "broadcast")
    if inner is None:
        return None
    source, whole = inner.operands[0], inner.result.type
    extra = whole.rank - source.type.rank
    axes = list(op.attrs["axes"])
    spread = [a for a in axes if a < extra or (source.type.shape[a - extra] == 1 and whole.shape[a] != 1)]
    if not spread:
        return None
    if op.name != "sum" and not all(isinstance(s, int) and s for s in (whole.shape[a] for a in spread)):
        return None  # of nothing the maximum is -inf
    inside = [a - extra for a in spread if a >= extra]
    rest = [a - extra for a in axes if a not in spread]
    kept = [k for k in range(source.type.rank) if k not in inside]
    x = as_result(op, b, b.dimshuffle(source, order=kept))
    if rest:
        x = reduce_like(op, b, x, [kept.index(k) for k in rest])
    if op.name == "sum":
        x = repeated(b, x, [whole.shape[a] for a in spread])
    result: Value = b.broadcast(x, shape=list(op.result.type.shape))
    return result


@function_rule("sum", strength="stable")
def of_number(op: Op, b: Builder) -> Value | None:
    """sum(c) -> c * count, where the number c fills the operand"""
    x = op.operands[0]
    number = splat(x)
    if number is None or not np.isfinite(number):  # infinitely many times nothing is 0
        return None
    one = as_result(op, b, b.const(number.item(), Type(x.type.dtype)))
    total = repeated(b, one, [x.type.shape[a] for a in op.attrs["axes"]])
    result: Value = b.broadcast(total, shape=list(op.result.type.shape))
    return result


def repeated(b: Builder, x: Value, sizes: Sequence[Size]) -> Value:
    """The sum of as many x as the product of the sizes, which may be more than float16 or an integer can count; sums of integers
    wrap around as their counts do."""
    wide = "f32" if x.type.dtype in HALVES else x.type.dtype
    if wide in FLOATS and len(sizes) > 1:
        count = b.cast(reduce(b.mul, [b.size_value(size, dtype="f64") for size in sizes]), dtype=wide)
    else:
        count = b.size_value(product(list(sizes)), dtype=wide)
    many = b.broadcast(count, shape=list(x.type.shape))
    total = b.mul(x if wide == x.type.dtype else b.cast(x, dtype=wide), many)
    result: Value = total if wide == x.type.dtype else b.cast(total, dtype=x.type.dtype)
    return result


@function_rule("sum")
def of_negative(op: Op, b: Builder) -> Value | None:
    """sum(neg(x)) -> neg(sum(x))"""
    inner = made_by(op.operands[0], "neg")
    result: Value | None = (
        b.neg(reduce_like(op, b, inner.operands[0], op.attrs["axes"])) if inner is not None else None
    )
    return result


@function_rule("sum", strength="stable")
def of_scaled(op: Op, b: Builder) -> Value | None:
    """sum(x * r) -> sum(x) * r and sum(x / r) -> sum(x) / r, where r does not vary over the axes"""
    inner = made_by(op.operands[0], "mul", "div")
    if inner is None or op.result.type.dtype not in FLOATS:
        return None
    if inner.result.type.dtype != op.result.type.dtype:
        return None
    for k in (1, 0) if inner.name == "mul" else (1,):
        if len(inner.result.uses) > 1 and not is_summed(inner.operands[1 - k], op):
            continue
        scale = without_axes(inner.operands[k], op.attrs["axes"], op.result.type.shape, b)
        if scale is not None:
            total = reduce_like(op, b, inner.operands[1 - k], op.attrs["axes"])
            return b.op(inner.name, total, scale).result
    return None


def is_summed(v: Value, like: Op) -> bool:
    """Whether `v` itself is summed as `like` sums."""
    axes, type = list(like.attrs["axes"]), like.result.type
    others = (u for u in v.users if u.name == "sum" and u is not like)
    return any(list(u.attrs["axes"]) == axes and u.result.type == type for u in others)


def without_axes(v: Value, axes: Sequence[int], shape: Sequence[Size], b: Builder) -> Value | None:
    """`v`, which is the same all along `axes`, as a value of the `shape` without them; None if it varies."""
    number = splat(v)
    if number is not None:
        return b.const(number.item(), v.type.with_shape(*shape))
    access = resolve(v, identity(v.type.rank))
    if any(a in axes for a in access.axes) or access.value is v:
        return None
    rest = [a for a in range(v.type.rank) if a not in axes]
    order = [access.axes.index(a) if a in access.axes else -1 for a in rest]
    result: Value = b.broadcast(b.dimshuffle(access.value, order=order), shape=list(shape))
    return result


@function_rule("max", "min", after=("concat",))
def of_concat(op: Op, b: Builder) -> Value | None:
    """max(concat(x, y)) along their axis -> maximum(max(x), max(y)), and so for min: nothing is put together"""
    inner = made_by(op.operands[0], "concat")
    if inner is None or len(inner.result.uses) > 1 or inner.attrs["axis"] not in op.attrs["axes"]:
        return None
    first, *others = (reduce_like(op, b, part, op.attrs["axes"]) for part in inner.operands)
    for other in others:
        first = b.maximum(first, other) if op.name == "max" else b.minimum(first, other)
    return first


RULES: list[AnyRule] = [
    of_own_dtype,
    of_concat,
    over_size_one,
    of_dimshuffle,
    twice,
    of_broadcast,
    of_number,
    of_negative,
    of_scaled,
]
