"""Convolution of images without channels: each image with each filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tcc.shapes import dimshuffle
from tcc.tensor.nnet import abstract_conv
from tcc.variable import as_variable

__all__ = ["conv2d"]


def conv2d(
    input: Any,
    filters: Any,
    image_shape: Sequence[Any] | None = None,
    filter_shape: Sequence[Any] | None = None,
    border_mode: Any = "valid",
    subsample: Sequence[int] = (1, 1),
    **ignored: Any,
) -> Any:
    """images ([n,] rows, columns) with filters ([k,] rows, columns), flipped: ([n,] [k,] rows, columns).

    `image_shape` and `filter_shape` are what the sizes must be.  TypeError unless both have two or three axes.
    """
    x, w = as_variable(input), as_variable(filters)
    for name, v in (("input", x), ("filters", w)):
        if v.type.ndim not in (2, 3):
            raise TypeError(f"signal.conv2d: {name} must have 2 or 3 axes, got {v.type}")
    made = abstract_conv.conv2d(
        _with_channel(x),
        _with_channel(w),
        None if image_shape is None else _four(image_shape),
        None if filter_shape is None else _four(filter_shape),
        border_mode=border_mode,
        subsample=tuple(subsample),
    )
    kept = [axis for axis, v in ((0, x), (1, w)) if v.type.ndim == 3]
    if len(kept) == 2:
        return made
    index = tuple(slice(None) if axis in (*kept, 2, 3) else 0 for axis in range(4))
    return made[index]


def _with_channel(v: Any) -> Any:
    """(count, 1, rows, columns)."""
    return dimshuffle(v, "x", "x", 0, 1) if v.type.ndim == 2 else dimshuffle(v, 0, "x", 1, 2)


def _four(shape: Sequence[Any]) -> tuple[Any, ...]:
    return (1, 1, *shape) if len(shape) == 2 else (shape[0], 1, *shape[1:])
