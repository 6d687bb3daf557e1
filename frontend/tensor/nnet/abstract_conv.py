"""Convolution in two and three dimensions, its gradients as functions, and upsampling."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from tcc import build
from tcc.build import size_arithmetic, size_of
from tcc.creation import arange
from tcc.ir.callers import warn
from tcc.joining import concatenate
from tcc.settings import config
from tcc.shapes import reshape
from tcc.tensor.nnet.convolution import Convolution, entries, floats, with_shape
from tcc.tensor.signal.pool import numbers
from tcc.variable import Constant, Variable, as_variable


def conv2d(
    input: Any,
    filters: Any,
    input_shape: Any = None,
    filter_shape: Any = None,
    border_mode: Any = "valid",
    subsample: Any = (1, 1),
    filter_flip: bool = True,
    image_shape: Any = None,
    filter_dilation: Any = (1, 1),
    num_groups: int = 1,
    unshared: bool = False,
    **kwargs: Any,
) -> Any:
    """The convolution of `input` [batch, channels, rows, columns] with `filters` [out, channels / num_groups, ...].

    Along an axis of n elements, with a filter of k, stride s, dilation d and padding p the result has
    (n + 2 p - ((k - 1) d + 1)) // s + 1.  `border_mode` is 'valid' (p = 0), 'full' (p = (k - 1) d),
    'half' (p = ((k - 1) d + 1) // 2), a number, one for each axis, or pairs of before and after.  Filters are flipped
    unless `filter_flip` is False; `unshared` ones differ from place to place: [out, rows out, columns out, channels, ...].
    Shapes that are given (with None for what is not known) are checked.  The result has
    the dtype of `input`.
    """
    if kwargs:
        warn(f"conv2d: {', '.join(kwargs)} mean nothing here and are ignored")
    if image_shape is not None:
        if input_shape is not None:
            raise ValueError("input_shape and image_shape should not be provided at the same time.")
        input_shape = image_shape
    how = Convolution(2, border_mode, subsample, filter_flip, filter_dilation, num_groups, unshared)
    return how.forward(input, filters, input_shape, filter_shape)


def conv3d(
    input: Any,
    filters: Any,
    input_shape: Any = None,
    filter_shape: Any = None,
    border_mode: Any = "valid",
    subsample: Any = (1, 1, 1),
    filter_flip: bool = True,
    filter_dilation: Any = (1, 1, 1),
    num_groups: int = 1,
) -> Any:
    """As `conv2d`, over three axes."""
    how = Convolution(3, border_mode, subsample, filter_flip, filter_dilation, num_groups)
    return how.forward(input, filters, input_shape, filter_shape)


def conv2d_grad_wrt_inputs(
    output_grad: Any,
    filters: Any,
    input_shape: Any,
    filter_shape: Any = None,
    border_mode: Any = "valid",
    subsample: Any = (1, 1),
    filter_flip: bool = True,
    filter_dilation: Any = (1, 1),
    num_groups: int = 1,
    unshared: bool = False,
) -> Any:
    """The gradient of a `conv2d` by its input, of shape `input_shape`, given that by its result."""
    how = Convolution(2, border_mode, subsample, filter_flip, filter_dilation, num_groups, unshared)
    return how.by_inputs(output_grad, filters, input_shape, filter_shape)


def conv3d_grad_wrt_inputs(
    output_grad: Any,
    filters: Any,
    input_shape: Any,
    filter_shape: Any = None,
    border_mode: Any = "valid",
    subsample: Any = (1, 1, 1),
    filter_flip: bool = True,
    filter_dilation: Any = (1, 1, 1),
    num_groups: int = 1,
) -> Any:
    """The gradient of a `conv3d` by its input."""
    how = Convolution(3, border_mode, subsample, filter_flip, filter_dilation, num_groups)
    return how.by_inputs(output_grad, filters, input_shape, filter_shape)


def conv2d_grad_wrt_weights(
    input: Any,
    output_grad: Any,
    filter_shape: Any,
    input_shape: Any = None,
    border_mode: Any = "valid",
    subsample: Any = (1, 1),
    filter_flip: bool = True,
    filter_dilation: Any = (1, 1),
    num_groups: int = 1,
    unshared: bool = False,
) -> Any:
    """The gradient of a `conv2d` by its filters, of shape `filter_shape`, given that by its result."""
    how = Convolution(2, border_mode, subsample, filter_flip, filter_dilation, num_groups, unshared)
    return how.by_weights(input, output_grad, filter_shape, input_shape)


def conv3d_grad_wrt_weights(
    input: Any,
    output_grad: Any,
    filter_shape: Any,
    input_shape: Any = None,
    border_mode: Any = "valid",
    subsample: Any = (1, 1, 1),
    filter_flip: bool = True,
    filter_dilation: Any = (1, 1, 1),
    num_groups: int = 1,
) -> Any:
    """The gradient of a `conv3d` by its filters."""
    how = Convolution(3, border_mode, subsample, filter_flip, filter_dilation, num_groups)
    return how.by_weights(input, output_grad, filter_shape, input_shape)


def conv2d_transpose(
    input: Any,
    filters: Any,
    output_shape: Any,
    filter_shape: Any = None,
    border_mode: Any = "valid",
    input_dilation: Any = (1, 1),
    filter_flip: bool = True,
    filter_dilation: Any = (1, 1),
) -> Any:
    """The transposed convolution: what `conv2d` with the same filters, of an array of `output_shape` and with
    `input_dilation` as its stride, would give back to its input."""
    return conv2d_grad_wrt_inputs(
        input,
        filters,
        output_shape,
        filter_shape,
        border_mode=border_mode,
        subsample=input_dilation,
        filter_flip=filter_flip,
        filter_dilation=filter_dilation,
    )


# -- as classes, which libraries call --------------------------------------------------------------------------------


class _AbstractConv:
    """A convolution whose arguments are given before its operands are."""

    rank = 2

    def __init__(
        self,
        imshp: Any = None,
        kshp: Any = None,
        border_mode: Any = "valid",
        subsample: Any = None,
        filter_flip: bool = True,
        filter_dilation: Any = None,
        num_groups: int = 1,
        unshared: bool = False,
    ) -> None:
        ones = (1,) * self.rank
        for name, shape in (("imshp", imshp), ("kshp", kshp)):
            if (
                isinstance(shape, Variable)
                or shape is not None
                and any(isinstance(s, Variable) and not isinstance(s, Constant) for s in shape)
            ):
                raise ValueError(f"{name} must be None or a tuple of constants and None, got {shape}")
        self.imshp, self.kshp = imshp, kshp
        self.how = Convolution(
            self.rank,
            border_mode,
            subsample or ones,
            filter_flip,
            filter_dilation or ones,
            num_groups,
            unshared,
        )


class AbstractConv2d(_AbstractConv):
    """`AbstractConv2d(...)(input, filters)`."""

    def __call__(self, img: Any, kern: Any) -> Any:
        return self.how.forward(img, kern, self.imshp, self.kshp)


class AbstractConv2d_gradInputs(_AbstractConv):
    """`AbstractConv2d_gradInputs(...)(filters, output_grad, spatial shape of the input)`."""

    def __call__(self, kern: Any, topgrad: Any, shape: Any, add_assert_shape: bool = True) -> Any:
        return self.how.by_inputs(topgrad, kern, _whole(shape, self.imshp, self.rank), self.kshp)


class AbstractConv2d_gradWeights(_AbstractConv):
    """`AbstractConv2d_gradWeights(...)(input, output_grad, spatial shape of the filters)`."""

    def __call__(self, img: Any, topgrad: Any, shape: Any, add_assert_shape: bool = True) -> Any:
        return self.how.by_weights(img, topgrad, shape, self.imshp)


class AbstractConv3d(AbstractConv2d):
    """As AbstractConv2d, over three axes."""

    rank = 3


class AbstractConv3d_gradInputs(AbstractConv2d_gradInputs):
    """As AbstractConv2d_gradInputs, over three axes."""

    rank = 3


class AbstractConv3d_gradWeights(AbstractConv2d_gradWeights):
    """As AbstractConv2d_gradWeights, over three axes."""

    rank = 3


def _whole(shape: Any, imshp: Any, rank: int) -> Any:
    items = entries("the shape", shape, rank)
    return items if imshp is None or len(items) > rank else [*list(imshp)[:2], *items]


# -- upsampling ------------------------------------------------------------------------------------------------------


def bilinear_kernel_1D(ratio: Any, normalize: bool = True) -> Any:
    """The weights 1, 2, ..., ratio, ..., 2, 1, over `ratio` if `normalize`: float32, or config.floatX where `ratio` is a
    variable."""
    if isinstance(ratio, Variable):
        line = arange(1, as_variable(ratio) + 1, dtype=str(config.floatX))
        line = concatenate([line, line[-2::-1]])
        return line / build.cast(ratio, line.type.dtype) if normalize else line
    half = np.arange(1, ratio + 1, dtype="float32")
    kernel = np.concatenate([half, half[-2::-1]])
    return as_variable(kernel / np.float32(ratio) if normalize else kernel)


def bilinear_kernel_2D(ratio: int, normalize: bool = True) -> Any:
    """The outer product of `bilinear_kernel_1D` with itself."""
    line = bilinear_kernel_1D(ratio, normalize)
    return line.dimshuffle(0, "x") * line.dimshuffle("x", 0)


def bilinear_upsampling(
    input: Any,
    ratio: Any = None,
    frac_ratio: Any = None,
    batch_size: Any = None,
    num_input_channels: Any = None,
    use_1D_kernel: bool = True,
) -> Any:
    """`input` [batch, channels, rows, columns] with `ratio` times as many rows and columns, between which it is linear;
    beyond its outermost elements it is constant.  `ratio` is an integer known when the graph is built.

    `frac_ratio` instead is a pair (p, q), or a pair of such pairs for rows and columns: of the image with p times as many
    every q-th is taken.
    """
    if frac_ratio is not None:
        if ratio is not None:
            raise ValueError("can't use ratio and frac_ratio together")
        return frac_bilinear_upsampling(input, frac_ratio)
    if ratio is None:
        raise ValueError("No ratio (or frac_ratio) provided")
    (ratio,) = numbers("ratio", (ratio,), 1)
    if ratio < 1:
        raise ValueError(f"bilinear_upsampling: ratio must be at least 1, got {ratio}")
    x = floats(input, "input", 2)
    x = with_shape(x, "batch_size and num_input_channels", [batch_size, num_input_channels, None, None])
    return _upsampled(x, ratio, ratio)


def frac_bilinear_upsampling(input: Any, frac_ratio: Any) -> Any:
    """`input` [batch, channels, rows, columns], with p times as many rows and columns, every q-th of which is taken.

    `frac_ratio` is a pair (p, q) of integers, or a pair of pairs for rows and columns.
    """
    if not isinstance(frac_ratio, tuple):
        raise ValueError("frac_ratio must be a tuple")
    pairs = frac_ratio if isinstance(frac_ratio[0], tuple) else (frac_ratio, frac_ratio)
    fractions = [Fraction(int(p), int(q)) for p, q in pairs]
    if len(fractions) != 2 or any(f <= 0 for f in fractions):
        raise ValueError(f"frac_ratio must be positive, for rows and columns, got {frac_ratio}")
    rows, columns = fractions
    made = _upsampled(floats(input, "input", 2), rows.numerator, columns.numerator)
    return made[:, :, :: rows.denominator, :: columns.denominator]


def _upsampled(x: Any, down: int, across: int) -> Any:
    batch, channels, rows, columns = build.shape_of(x)
    one: Any = reshape(x, [size_arithmetic("mul", batch, channels), 1, rows, columns])
    for axis in (2, 3):
        every = [slice(None)] * 4
        first, last = list(every), list(every)
        first[axis], last[axis] = slice(0, 1), slice(-1, None)
        one = concatenate([one[tuple(first)], one, one[tuple(last)]], axis=axis)
    count = size_of(one, 0)
    height, width = size_arithmetic("mul", rows, down), size_arithmetic("mul", columns, across)
    for axis, ratio in ((2, down), (3, across)):
        line = build.cast(bilinear_kernel_1D(ratio), x.type.dtype)
        pad = 2 * ratio - (ratio - 1) // 2 - 1
        one = conv2d_grad_wrt_inputs(
            one,
            line.dimshuffle(*("x", "x", 0, "x") if axis == 2 else ("x", "x", "x", 0)),
            (count, 1, height, size_arithmetic("add", columns, 2) if axis == 2 else width),
            border_mode=(pad, 0) if axis == 2 else (0, pad),
            subsample=(ratio, 1) if axis == 2 else (1, ratio),
        )
    return reshape(one, [batch, channels, height, width])
