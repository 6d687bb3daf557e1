"""Convolution in time and space, with the axes in the order of Theano's first 3-d convolution."""

from __future__ import annotations

from typing import Any

from tcc.shapes import dimshuffle
from tcc.tensor.nnet import abstract_conv
from tcc.variable import as_variable

__all__ = ["conv3d"]


def conv3d(
    signals: Any,
    filters: Any,
    signals_shape: Any = None,
    filters_shape: Any = None,
    border_mode: Any = "valid",
) -> Any:
    """signals [batch, time, channel, row, column] with filters [filter, time, channel, row, column], which are flipped.

    The result is [batch, time, filter, row, column].  `border_mode` is valid, full or half, for all axes or one for each.
    """

    def swapped(shape: Any) -> Any:
        return None if shape is None else [shape[k] for k in (0, 2, 1, 3, 4)]

    x, w = (dimshuffle(as_variable(v), 0, 2, 1, 3, 4) for v in (signals, filters))
    if not isinstance(border_mode, str):
        if len(set(border_mode)) != 1:
            raise NotImplementedError(
                "conv3d: one border_mode for all axes; tensor.nnet.conv3d takes a padding for each"
            )
        border_mode = border_mode[0]
    made = abstract_conv.conv3d(x, w, swapped(signals_shape), swapped(filters_shape), border_mode)
    return dimshuffle(made, 0, 2, 1, 3, 4)
