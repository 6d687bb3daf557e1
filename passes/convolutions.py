"""Convolutions that are less than they seem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tcc.ir.builder import Builder
from tcc.ir.core import Op, Value
from tcc.ir.dims import Size, floordiv, mul
from tcc.passes.pattern import AnyRule, function_rule


@function_rule("conv", "conv_input", "conv_filter")
def covered_axis(op: Op, b: Builder) -> Value | None:
    """a convolution along an axis that the filters cover, and its gradients -> the axis belongs to the channels

    There the result has one element, which each tap meets with one element of the image: a sum as over channels.  A
    convolution without other axes is a product of matrices.
    """
    if op.blocks:
        return None
    image, filters = _shapes(op)
    axis = _covered(image, filters, op.attrs["pads"])
    if axis is None:
        return None
    rank = len(image) - 2

    def without(values: Sequence[Any]) -> list[Any]:
        each = len(values) // rank
        return [*values[: axis * each], *values[(axis + 1) * each :]]

    how: dict[str, Any] = {
        key: without(op.attrs[key]) for key in ("strides", "pads", "dilation", "size") if key in op.attrs
    }
    groups, row = op.attrs["groups"], op.name
    # of the image and the filters, those that are operands have the axis; g has one element there
    first, second = op.operands
    first = _fold(b, first, axis)
    second = _fold(b, second, axis) if row == "conv" else _drop(b, second, axis)
    if rank == 1:
        made = _product(b, row, first, second, int(groups))
    else:
        made = b.op(row, first, second, attrs={**how, "groups": groups}).result
    return _insert(b, made, axis) if row == "conv" else _unfold(b, made, axis, op.result.type.shape)


def _shapes(op: Op) -> tuple[list[Size], list[Size]]:
    """Of the image and the filters."""
    first, second, made = (list(v.type.shape) for v in (*op.operands[:2], op.result))
    return {"conv": (first, second), "conv_input": (made, first), "conv_filter": (first, made)}[op.name]


def _covered(image: Sequence[Size], filters: Sequence[Size], pads: Sequence[Size]) -> int | None:
    """The first spatial axis along which the filters are as long as the image, without borders."""
    for axis, (s, k) in enumerate(zip(image[2:], filters[2:])):
        if s == k and pads[2 * axis] == pads[2 * axis + 1] == 0:
            return axis
    return None


def _others(rank: int, axis: int) -> list[int]:
    """The axes of images behind the channels, but for one of space."""
    return [a for a in range(2, rank) if a != axis + 2]


def _fold(b: Builder, v: Value, axis: int) -> Value:
    """[n, c, *s] as [n, c * s[axis], *the others]."""
    n, c, *space = v.type.shape
    others = _others(v.type.rank, axis)
    if c == 1:
        result: Value = b.dimshuffle(v, order=[0, axis + 2, *others])
        return result
    turned = b.dimshuffle(v, order=[0, 1, axis + 2, *others])
    result = b.reshape(turned, shape=[n, mul(c, space[axis]), *(v.type.shape[a] for a in others)])
    return result


def _unfold(b: Builder, v: Value, axis: int, shape: Sequence[Size]) -> Value:
    """What `_fold` makes of an array of `shape`, back in that shape."""
    others = _others(len(shape), axis)
    apart = b.reshape(v, shape=[*shape[:2], shape[axis + 2], *(shape[a] for a in others)])
    order = [0, 1, axis + 2, *others]
    result: Value = b.dimshuffle(apart, order=[order.index(a) for a in range(len(shape))])
    return result


def _drop(b: Builder, v: Value, axis: int) -> Value:
    result: Value = b.dimshuffle(v, order=[0, 1, *_others(v.type.rank, axis)])
    return result


def _insert(b: Builder, v: Value, axis: int) -> Value:
    order = list(range(v.type.rank))
    result: Value = b.dimshuffle(v, order=[*order[: axis + 2], -1, *order[axis + 2 :]])
    return result


def _product(b: Builder, row: str, first: Value, second: Value, groups: int) -> Value:
    """A convolution without axes of space."""

    def parts(v: Value, axis: int) -> Value:
        """[groups, .., ..], which lie along an axis."""
        n, c = v.type.shape
        shape = [groups, floordiv(n, groups), c] if axis == 0 else [n, groups, floordiv(c, groups)]
        result: Value = b.reshape(v, shape=shape)
        return result if axis == 0 else b.dimshuffle(result, order=[1, 0, 2])

    def whole(v: Value, axis: int) -> Value:
        g, n, c = v.type.shape
        if axis == 0:
            result: Value = b.reshape(v, shape=[mul(g, n), c])
        else:
            result = b.reshape(b.dimshuffle(v, order=[1, 0, 2]), shape=[n, mul(g, c)])
        return result

    def turned(v: Value) -> Value:
        result: Value = b.dimshuffle(v, order=[*range(v.type.rank - 2), v.type.rank - 1, v.type.rank - 2])
        return result

    # along which axis the groups lie, of both operands and the result
    along = {"conv": (1, 0, 1), "conv_input": (0, 1, 1), "conv_filter": (1, 1, 0)}[row]
    if groups > 1:
        first, second = parts(first, along[0]), parts(second, along[1])
    match row:
        case "conv":
            made = b.matmul(first, turned(second))
        case "conv_input":
            made = b.matmul(second, first)
        case _:
            made = b.matmul(turned(second), first)
    return whole(made, along[2]) if groups > 1 else made


RULES: list[AnyRule] = [covered_axis]
