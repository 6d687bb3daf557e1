"""Convolutions made of convolutions: separable ones and causal ones; and the sizes that convolutions have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tcc.build import size_arithmetic, size_of
from tcc.shapes import dimshuffle
from tcc.tensor.nnet.abstract_conv import conv2d, conv3d
from tcc.variable import as_variable


def separable_conv2d(
    input: Any,
    depthwise_filters: Any,
    pointwise_filters: Any,
    num_channels: int,
    input_shape: Any = None,
    depthwise_filter_shape: Any = None,
    pointwise_filter_shape: Any = None,
    border_mode: Any = "valid",
    subsample: Any = (1, 1),
    filter_flip: bool = True,
    filter_dilation: Any = (1, 1),
) -> Any:
    """Each of `num_channels` channels convolved with filters of its own, then mixed place by place by `pointwise_filters`.

    depthwise_filters [channels * k, 1, rows, columns], pointwise_filters [filters, channels * k, 1, 1]; the other arguments are
    those of conv2d, for the first convolution.
    """
    how = (border_mode, subsample, filter_flip, filter_dilation)
    _want_points(pointwise_filters, 2)
    made = conv2d(
        input,
        depthwise_filters,
        input_shape,
        depthwise_filter_shape,
        *how[:3],
        filter_dilation=how[3],
        num_groups=num_channels,
    )
    return conv2d(made, pointwise_filters, None, pointwise_filter_shape, filter_flip=filter_flip)


def separable_conv3d(
    input: Any,
    depthwise_filters: Any,
    pointwise_filters: Any,
    num_channels: int,
    input_shape: Any = None,
    depthwise_filter_shape: Any = None,
    pointwise_filter_shape: Any = None,
    border_mode: Any = "valid",
    subsample: Any = (1, 1, 1),
    filter_flip: bool = True,
    filter_dilation: Any = (1, 1, 1),
) -> Any:
    """As `separable_conv2d`, over three axes."""
    how = (border_mode, subsample, filter_flip, filter_dilation)
    _want_points(pointwise_filters, 3)
    made = conv3d(
        input, depthwise_filters, input_shape, depthwise_filter_shape, *how, num_groups=num_channels
    )
    return conv3d(made, pointwise_filters, None, pointwise_filter_shape, filter_flip=filter_flip)


def _want_points(filters: Any, rank: int) -> None:
    spatial = as_variable(filters).type.shape[2:]
    if len(spatial) != rank or any(s not in (None, 1) for s in spatial):
        raise ValueError(
            f"pointwise_filters must be [filters, channels{', 1' * rank}], got {as_variable(filters).type.shape}"
        )


def causal_conv1d(
    input: Any,
    filters: Any,
    filter_shape: Any = None,
    input_shape: Any = None,
    subsample: int = 1,
    filter_flip: bool = True,
    filter_dilation: int = 1,
    num_groups: int = 1,
) -> Any:
    """`input` [batch, channels, length] with `filters` [filters, channels, width]: element t sees none behind t.

    The result is [batch, filters, length] (every `subsample`-th of it); before the first element there are zeros.
    """
    x, w = as_variable(input), as_variable(filters)
    for name, v in (("input", x), ("filters", w)):
        if v.type.ndim != 3:
            raise TypeError(f"causal_conv1d: {name} must have 3 axes, got {v.type}")
    reach = size_arithmetic("mul", size_arithmetic("sub", size_of(w, 2), 1), filter_dilation)
    # zeros behind too, where their number is not known when the graph is built: what looks ahead is cut off
    made = conv2d(
        dimshuffle(x, 0, 1, 2, "x"),
        dimshuffle(w, 0, 1, 2, "x"),
        None if input_shape is None else [*input_shape, 1],
        None if filter_shape is None else [*filter_shape, 1],
        border_mode=((reach, 0), (0, 0)) if isinstance(reach, int) else "full",
        subsample=(subsample, 1),
        filter_flip=filter_flip,
        filter_dilation=(filter_dilation, 1),
        num_groups=num_groups,
    )
    made = made[:, :, :, 0]
    if isinstance(reach, int):
        return made
    length = size_arithmetic("floordiv", size_arithmetic("add", size_of(x, 2), subsample - 1), subsample)
    return made[:, :, :length]


# -- sizes -------------------------------------------------------------------------------------------------------------


def get_conv_shape_1axis(
    image_shape: Any, kernel_shape: Any, border_mode: Any, subsample: Any, dilation: Any = 1
) -> Any:
    """(n + padding - ((k - 1) d + 1)) // s + 1 for numbers or variables; None if something is None."""
    if None in (image_shape, kernel_shape, border_mode, subsample, dilation):
        return None
    kernel = (kernel_shape - 1) * dilation + 1
    if isinstance(border_mode, str):
        pads = {"half": 2 * (kernel // 2), "full": 2 * (kernel - 1), "valid": 0}
        if border_mode not in pads:
            raise ValueError(
                f"border_mode must be half, full, valid, a number or a pair, got {border_mode!r}"
            )
        pad = pads[border_mode]
    else:
        before, behind = border_mode if isinstance(border_mode, tuple) else (border_mode, border_mode)
        if before < 0 or behind < 0:
            raise ValueError("border_mode must be >= 0")
        pad = before + behind
    return (image_shape + pad - kernel) // subsample + 1


def get_conv_output_shape(
    image_shape: Sequence[Any],
    kernel_shape: Sequence[Any],
    border_mode: Any,
    subsample: Sequence[Any],
    filter_dilation: Sequence[Any] | None = None,
) -> tuple[Any, ...]:
    """The shape of the convolution of images [batch, channels, ...] with filters [filters, channels, ...]."""
    spatial = range(len(image_shape) - 2)
    dilation = filter_dilation or [1] * len(spatial)
    modes = border_mode if isinstance(border_mode, tuple) else (border_mode,) * len(spatial)
    sizes = (
        get_conv_shape_1axis(image_shape[2 + k], kernel_shape[2 + k], modes[k], subsample[k], dilation[k])
        for k in spatial
    )
    return (image_shape[0], kernel_shape[0], *sizes)
