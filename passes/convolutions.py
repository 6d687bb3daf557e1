"""Convolutions that are less than they seem."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tcc.ir.builder import Builder
from tcc.ir.core import Op, Value
from tcc.ir.dims import Size, floordiv, mul
from tcc.passes.pattern import AnyRule, function_rule

MOST_PHASES = 16  # of strides, that gradients of convolutions have text for


@function_rule("conv", "conv_input", "conv_filter")
def patches(op: Op, b: Builder) -> Value | None:
    """a convolution whose filters meet each element of the image once, along some axes, and its gradients -> those taps
    belong to the channels

    So it is where filters cover the image, along an axis that is gone then, and where they are as long as a large stride.
    A convolution without other axes is a product of matrices.
    """
    if op.blocks:
        return None
    image, filters, result = _shapes(op)
    space = _Space(image, filters, result, op)
    if not space.taken:
        return None
    row, groups = op.name, int(op.attrs["groups"])
    # of the image and the filters, those that are operands are folded
    first, second = op.operands
    first = space.folded(b, first)
    second = space.folded(b, second) if row == "conv" else space.dropped(b, second)
    if space.kept:
        made = b.op(row, first, second, attrs=space.attributes(op)).result
    else:
        made = _product(b, row, first, second, groups)
    return space.inserted(b, made) if row == "conv" else space.unfolded(b, made, op.result.type.shape)


def _shapes(op: Op) -> tuple[list[Size], list[Size], list[Size]]:
    """Of the image, the filters and the convolution's result."""
    first, second, made = (list(v.type.shape) for v in (*op.operands[:2], op.result))
    return {
        "conv": (first, second, made),
        "conv_input": (made, first, second),
        "conv_filter": (first, made, second),
    }[op.name]


class _Space:
    """The axes of space of a convolution: those whose taps are `taken` to the channels, and those that are `kept`."""

    def __init__(self, image: list[Size], filters: list[Size], result: list[Size], op: Op) -> None:
        self.rank = len(image) - 2
        self.taps, self.result = filters[2:], result[2:]
        pads, strides, dilation = (op.attrs[key] for key in ("pads", "strides", "dilation"))
        covered, patches = [], []
        for axis in range(self.rank):
            k, o = self.taps[axis], self.result[axis]
            if not pads[2 * axis] == pads[2 * axis + 1] == 0 or image[2 + axis] != mul(o, k) or k == 0:
                continue
            if o == 1:
                covered.append(axis)
            elif k == strides[axis] != 1 and dilation[axis] == 1:
                patches.append(axis)
        # few phases are faster with the convolution's own copies, and so is whatever only reads the image once
        if op.name == "conv" or math.prod(strides[axis] for axis in patches) <= MOST_PHASES:
            patches = []
        self.taken = sorted(covered + patches)
        self.kept = [a for a in range(self.rank) if a not in self.taken or self.result[a] != 1]

    def attributes(self, op: Op) -> dict[str, Any]:
        """The op's, for the kept axes, of which those that are taken have one tap."""
        sizes = self.result if op.name == "conv_input" else [1] * self.rank
        plain = {
            "strides": [1] * self.rank,
            "pads": [0] * self.rank,
            "dilation": [1] * self.rank,
            "size": sizes,
        }
        found: dict[str, Any] = {"groups": op.attrs["groups"]}
        for key in [key for key in plain if key in op.attrs]:
            values = list(op.attrs[key])
            each = len(values) // self.rank
            found[key] = []
            for axis in self.kept:
                mine = values[axis * each : (axis + 1) * each]
                found[key] += [plain[key][axis]] * each if axis in self.taken else mine
        return found

    def _split(self, shape: Sequence[Size]) -> tuple[list[Size], list[int]]:
        """(`shape`, of the image or the filters, with two axes for each one that is taken: patches, and the taps in them; the
        order of axes in which those taps follow the channels)."""
        apart, taps, rest = list(shape[:2]), [], []
        for axis, size in enumerate(shape[2:]):
            if axis in self.kept:
                rest.append(len(apart))
            if axis in self.taken:
                apart.append(floordiv(size, self.taps[axis]))
                taps.append(len(apart))
                size = self.taps[axis]
            apart.append(size)
        return apart, [0, 1, *taps, *rest]

    def folded(self, b: Builder, v: Value) -> Value:
        """[n, c, *s] as [n, c * taps, *patches and the other axes]."""
        apart, order = self._split(v.type.shape)
        turned = b.dimshuffle(b.reshape(v, shape=apart), order=order)
        n, c, *rest = turned.type.shape
        taken = len(self.taken)
        result: Value = b.reshape(turned, shape=[n, mul(c, *rest[:taken]), *rest[taken:]])
        return result

    def unfolded(self, b: Builder, v: Value, shape: Sequence[Size]) -> Value:
        """What `folded` makes of an array of `shape`, back in that shape."""
        apart, order = self._split(shape)
        turned = b.reshape(v, shape=[apart[a] for a in order])
        back = [order.index(a) if a in order else -1 for a in range(len(apart))]
        result: Value = b.reshape(b.dimshuffle(turned, order=back), shape=list(shape))
        return result

    def dropped(self, b: Builder, g: Value) -> Value:
        """What has the convolution's shape, without axes that are gone."""
        result: Value = b.dimshuffle(g, order=[0, 1, *(a + 2 for a in self.kept)])
        return result

    def inserted(self, b: Builder, y: Value) -> Value:
        order = [self.kept.index(a) + 2 if a in self.kept else -1 for a in range(self.rank)]
        result: Value = b.dimshuffle(y, order=[0, 1, *order])
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


RULES: list[AnyRule] = [patches]
