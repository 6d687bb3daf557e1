"""Convolutions whose filters differ from place to place (locally connected layers): a product for each place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tcc.build import Size, node, shape_of, size_arithmetic, size_product, static_size
from tcc.creation import arange, zeros
from tcc.gradient import Lop
from tcc.matrices import pad
from tcc.products import batched_dot
from tcc.shapes import dimshuffle, reshape


def forward(
    x: Any, w: Any, strides: Sequence[int], pads: Sequence[Size], dilation: Sequence[int], groups: int
) -> Any:
    """Of x [batch, channels, rows, columns] and w [out, rows out, columns out, channels / groups, filter rows, filter
    columns], filters as they lie: [batch, out, rows out, columns out].
    """
    taps = shape_of(w)[4:]
    x = pad(x, [(0, 0), (0, 0), (pads[0], pads[1]), (pads[2], pads[3])])
    patches = _patches(x, taps, strides, dilation)
    batch, channels, rows, columns = shape_of(patches)[:4]
    each, out = size_arithmetic("floordiv", channels, groups), shape_of(w)[0]
    out_each = size_arithmetic("floordiv", out, groups)
    places = size_product([groups, rows, columns])
    summed = size_product([each, *taps])
    patches = reshape(patches, [batch, groups, each, rows, columns, *taps])
    patches = reshape(dimshuffle(patches, 1, 3, 4, 0, 2, 5, 6), [places, batch, summed])
    filters = reshape(w, [groups, out_each, *shape_of(w)[1:3], each, *taps])
    filters = reshape(dimshuffle(filters, 0, 2, 3, 4, 5, 6, 1), [places, summed, out_each])
    made = reshape(batched_dot(patches, filters), [groups, rows, columns, batch, out_each])
    return reshape(dimshuffle(made, 3, 0, 4, 1, 2), [batch, out, rows, columns])


def _patches(x: Any, taps: Sequence[Size], strides: Sequence[int], dilation: Sequence[int]) -> Any:
    """What each place of the result meets: [batch, channels, rows out, columns out, filter rows, filter columns]."""
    known = [k for k in map(static_size, taps) if k is not None]
    if len(known) == len(taps):
        spans = [(k - 1) * d + 1 for k, d in zip(known, dilation)]
        patches: Any = node("windows", x, ws=spans, step=list(strides)).result
        return patches[:, :, :, :, :: dilation[0], :: dilation[1]]
    rows, columns = (_met(*of) for of in zip(shape_of(x)[2:], taps, strides, dilation))
    return x[:, :, dimshuffle(rows, 0, "x", 1, "x"), dimshuffle(columns, "x", 0, "x", 1)]


def _met(n: Size, k: Size, stride: int, dilation: int) -> Any:
    """The elements of an axis of `n` that the `k` taps of a filter meet, for each place: [places, taps]."""
    last = size_arithmetic("mul", size_arithmetic("sub", k, 1), dilation)
    room = size_arithmetic("sub", size_arithmetic("sub", n, 1), last)
    places = size_arithmetic("add", size_arithmetic("floordiv", room, stride), 1)
    first = dimshuffle(arange(size_arithmetic("maximum", places, 0)) * stride, 0, "x")
    return first + arange(k) * dilation


def by_inputs(g: Any, w: Any, shape: Sequence[Any], *how: Any) -> Any:
    """The gradient by an input of this shape, given that by the result."""
    x = zeros(shape, g.type.dtype)
    return Lop(forward(x, w, *how), x, g)


def by_weights(x: Any, g: Any, shape: Sequence[Any], *how: Any) -> Any:
    """The gradient by filters of this shape, given that by the result."""
    w = zeros(shape, x.type.dtype)
    return Lop(forward(x, w, *how), w, g)
