"""Shapes around a convolution: those of its operands from those of its result, and checks of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tcc.build import static_size
from tcc.debug import Assert
from tcc.elemwise import eq, ge, gt
from tcc.settings import config
from tcc.tensor.nnet.separable import get_conv_output_shape
from tcc.variable import as_variable


def _reach(kernel: Any, dilation: int) -> Any:
    """The number of elements that a filter spans."""
    return (kernel - 1) * dilation + 1


def _pads(mode: Any) -> tuple[Any, Any]:
    lo, hi = mode if isinstance(mode, tuple) else (mode, mode)
    return lo, hi


def get_conv_gradweights_shape_1axis(
    image_shape: Any, top_shape: Any, border_mode: Any, subsample: int, dilation: int = 1
) -> Any:
    """The size of the filter, from those of image and result; None where several would fit."""
    if None in (image_shape, top_shape) or subsample != 1 or border_mode == "half":
        return None
    if border_mode == "full":
        reach = top_shape - image_shape + 1
    else:
        lo, hi = (0, 0) if border_mode == "valid" else _pads(border_mode)
        reach = image_shape + lo + hi - top_shape + 1
    return (reach - 1) // dilation + 1 if dilation != 1 else reach


def get_conv_gradinputs_shape_1axis(
    kernel_shape: Any, top_shape: Any, border_mode: Any, subsample: int, dilation: int = 1
) -> Any:
    """The size of the image, from those of filter and result; None where several would fit."""
    if None in (kernel_shape, top_shape) or subsample != 1:
        return None
    reach = _reach(kernel_shape, dilation)
    if border_mode == "full":
        return top_shape - reach + 1
    half = reach // 2
    lo, hi = {"valid": (0, 0), "half": (half, half)}.get(border_mode) or _pads(border_mode)
    return top_shape + reach - 1 - lo - hi


def _axes(rank: int, border_mode: Any, subsample: Sequence[int], dilation: Sequence[int] | None) -> Any:
    modes = border_mode if isinstance(border_mode, tuple) else (border_mode,) * rank
    return zip(modes, subsample, dilation or (1,) * rank, strict=True)


def get_conv_gradweights_shape(
    image_shape: Sequence[Any],
    top_shape: Sequence[Any],
    border_mode: Any,
    subsample: Sequence[int],
    filter_dilation: Sequence[int] | None = None,
) -> tuple[Any, ...]:
    """The shape of the filters of a convolution of these images with a result of `top_shape`; None for what is not certain."""
    how = _axes(len(image_shape) - 2, border_mode, subsample, filter_dilation)
    sizes = zip(image_shape[2:], top_shape[2:], how)
    return (top_shape[1], image_shape[1], *(get_conv_gradweights_shape_1axis(i, t, *h) for i, t, h in sizes))


def get_conv_gradinputs_shape(
    kernel_shape: Sequence[Any],
    top_shape: Sequence[Any],
    border_mode: Any,
    subsample: Sequence[int],
    filter_dilation: Sequence[int] | None = None,
) -> tuple[Any, ...]:
    """The shape of the images whose convolution with these filters has the shape `top_shape`; None for what is not certain."""
    how = _axes(len(kernel_shape) - 2, border_mode, subsample, filter_dilation)
    sizes = zip(kernel_shape[2:], top_shape[2:], how)
    return (top_shape[0], kernel_shape[1], *(get_conv_gradinputs_shape_1axis(k, t, *h) for k, t, h in sizes))


def check_conv_gradinputs_shape(
    image_shape: Sequence[Any],
    kernel_shape: Sequence[Any],
    output_shape: Sequence[Any],
    border_mode: Any,
    subsample: Sequence[int],
    filter_dilation: Sequence[int] | None = None,
) -> bool:
    """Whether a convolution of these images with these filters can have the shape `output_shape`; sizes that are None,
    or not known before the function runs, fit."""
    made = get_conv_output_shape(image_shape, kernel_shape, border_mode, subsample, filter_dilation)
    known = [(static_size(a), static_size(b)) for a, b in zip(output_shape, made) if None not in (a, b)]
    return len(output_shape) == len(made) and all(None in pair or pair[0] == pair[1] for pair in known)


def assert_conv_shape(shape: Sequence[Any]) -> tuple[Any, ...]:
    """The sizes, with checks that those of the first two axes are not negative, and the others positive.

    ValueError for one that is known; AssertionError when the function runs for others.
    """
    made = []
    for axis, n in enumerate(shape):
        known = static_size(n)
        what = f"The convolution would produce an invalid shape (dim[{axis}]: {n})."
        if known is not None and known < (0 if axis < 2 else 1):
            raise ValueError(what)
        checked = ge(n, 0) if axis < 2 else gt(n, 0)
        made.append(n if known is not None else Assert(what)(n, checked))
    return tuple(made)


def assert_shape(x: Any, expected_shape: Any, msg: str = "Unexpected shape.") -> Any:
    """x; with `config.conv.assert_shape`, AssertionError when the function runs unless x has the sizes that are not None."""
    x = as_variable(x)
    if expected_shape is None or not config.conv.assert_shape:
        return x
    checks = [eq(x.shape[k], n) for k, n in enumerate(expected_shape) if n is not None]
    return Assert(msg)(x, *checks) if checks else x
