"""Convolution in two and three dimensions, its gradients as functions, and upsampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from tcc import build
from tcc.build import Size, as_size, size_arithmetic, size_of, static_size
from tcc.creation import arange
from tcc.elemwise import TO_FLOAT
from tcc.graph import Shown, warn
from tcc.ir.optable import complete_attrs
from tcc.joining import concatenate
from tcc.settings import config
from tcc.shapes import as_sizes, reshape, specify_shape
from tcc.tensor.nnet import unshared as local
from tcc.tensor.signal.pool import numbers
from tcc.types import tensor_type
from tcc.variable import Constant, Variable, as_variable

Pads = tuple[Size, ...]  # lo and hi of each spatial axis in turn


# -- what the arguments mean -----------------------------------------------------------------------------------------


def _floats(x: Any, name: str, rank: int, more: int = 0) -> Any:
    """`x` as floats; `more` axes than an image has are wanted where filters differ from place to place."""
    x = as_variable(x)
    if x.type.ndim != rank + 2 + more:
        kind = f"unshared {name}" if more else name
        raise TypeError(f"conv{rank}d: {kind} must have {rank + 2 + more} axes, got {x.type}")
    return build.cast(x, TO_FLOAT.get(x.type.dtype, x.type.dtype))


def with_shape(x: Any, name: str, shape: Any) -> Any:
    """`x`, whose sizes are asserted to be those that `shape` (None, or numbers, variables and None) has."""
    if shape is not None and config.conv.assert_shape:
        from tcc.tensor.nnet.convshapes import assert_shape

        return assert_shape(x, shape, f"{name}: wanted {tuple(shape)}")
    return x if shape is None else specify_shape(x, shape, name)


def _pads(border_mode: Any, kernel: Sequence[Size], dilation: Sequence[int]) -> Pads:
    """`border_mode` as the padding before and after each spatial axis; ValueError where it is none."""
    rank = len(kernel)
    if isinstance(border_mode, str):
        if border_mode not in ("valid", "full", "half"):
            raise ValueError(
                f"invalid border_mode {border_mode!r}, which must be either 'valid', 'full', 'half', an integer or a "
                f"tuple of {rank} integers or of {rank} pairs"
            )
        out: list[Size] = []
        for k, d in zip(kernel, dilation):
            pad: Size = 0
            if border_mode != "valid":
                pad = size_arithmetic("mul", size_arithmetic("sub", k, 1), d)
            if border_mode == "half":
                pad = size_arithmetic("floordiv", size_arithmetic("add", pad, 1), 2)
            out += [pad, pad]
        return tuple(out)
    if isinstance(border_mode, int | np.integer):
        border_mode = (int(border_mode),) * rank
    if len(border_mode) != rank:
        raise ValueError(f"invalid border_mode {border_mode!r}, which must have {rank} entries")
    pairs = [tuple(p) if isinstance(p, tuple | list) else (p, p) for p in border_mode]
    flat = [build.static_size(v) for pair in pairs for v in pair]
    if len(flat) != 2 * rank or any(v is None or v < 0 for v in flat):
        raise ValueError(f"invalid border_mode {border_mode!r}: its numbers must not be negative")
    return tuple(int(v) for v in flat if v is not None)


def _flipped(w: Any, rank: int, flip: bool) -> Any:
    return w[(..., *[slice(None, None, -1)] * rank)] if flip else w


def _one_or_none(shape: Any, rank: int) -> tuple[int | None, ...]:
    """Static sizes; a spatial axis is none that broadcasts, even where it has one element."""
    return (*shape[:2], *(None if s == 1 else s for s in shape[2:]))


def _applied(row: str, a: Any, b: Any, label: str, attrs: dict[str, Any]) -> Any:
    (inferred,) = build.infer(build.row(row), [a, b], complete_attrs(build.row(row), attrs))
    free = tensor_type(inferred.dtype, _one_or_none(inferred.shape, inferred.ndim - 2))
    return build.node(row, a, b, types=(free,), shown=Shown(label, (a, b)), **attrs).result


@dataclass
class _Convolution:
    """One kind of convolution with its arguments read."""

    rank: int
    border_mode: Any
    subsample: Any
    filter_flip: bool
    filter_dilation: Any
    num_groups: int
    unshared: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.border_mode, Variable):
            raise TypeError("border_mode must be known when the graph is built")
        self.strides = numbers("subsample", self.subsample, self.rank)
        self.dilation = numbers("filter_dilation", self.filter_dilation, self.rank)

    def attrs(self, kernel: Sequence[Size]) -> dict[str, Any]:
        return {
            "strides": self.strides,
            "pads": _pads(self.border_mode, kernel, self.dilation),
            "dilation": self.dilation,
            "groups": int(self.num_groups),
        }

    def how(self, w: Any) -> list[Any]:
        """What `attrs` says, in its order."""
        return list(self.attrs(build.shape_of(w)[-self.rank :]).values())

    def filters(self, filters: Any, filter_shape: Any, dtype: str) -> Any:
        """As they lie over the input; unshared ones have two axes more, for the places of the result."""
        w = _floats(filters, "filters", self.rank, self.rank if self.unshared else 0)
        w = build.cast(with_shape(w, "filter_shape", filter_shape), dtype)
        return _flipped(w, self.rank, self.filter_flip)

    def label(self, kind: str) -> str:
        return (
            f"AbstractConv{self.rank}d{kind}{{convdim={self.rank}, border_mode={self.border_mode!r}, "
            f"subsample={self.strides}, filter_flip={self.filter_flip}, filter_dilation={self.dilation}}}"
        )

    def forward(self, input: Any, filters: Any, input_shape: Any, filter_shape: Any) -> Any:
        x = with_shape(_floats(input, "input", self.rank), "input_shape", input_shape)
        w = self.filters(filters, filter_shape, x.type.dtype)
        if self.unshared:
            return local.forward(x, w, *self.how(w))
        return _applied("conv", x, w, self.label(""), self.attrs(build.shape_of(w)[2:]))

    def by_inputs(self, output_grad: Any, filters: Any, input_shape: Any, filter_shape: Any) -> Any:
        g = _floats(output_grad, "output_grad", self.rank)
        w = self.filters(filters, filter_shape, g.type.dtype)
        if self.unshared:
            items = _entries("input_shape", input_shape, self.rank)
            channels = size_arithmetic("mul", size_of(w, 3), self.num_groups)
            whole = items if len(items) > self.rank else [size_of(g, 0), channels, *items]
            return local.by_inputs(g, w, whole, *self.how(w))
        size = _spatial("input_shape", input_shape, self.rank)
        attrs = {"size": size, **self.attrs(build.shape_of(w)[2:])}
        made = _applied("conv_input", w, g, self.label("_gradInputs"), attrs)
        return with_shape(made, "input_shape", _static_shape(input_shape, self.rank))

    def by_weights(self, input: Any, output_grad: Any, filter_shape: Any, input_shape: Any) -> Any:
        x = with_shape(_floats(input, "input", self.rank), "input_shape", input_shape)
        g = build.cast(_floats(output_grad, "output_grad", self.rank), x.type.dtype)
        if self.unshared:
            each = size_arithmetic("floordiv", size_of(x, 1), self.num_groups)
            whole = [*build.shape_of(g)[1:], each, *list(filter_shape)[-self.rank :]]
            kernel = _spatial("filter_shape", whole[-self.rank :], self.rank)
            made = local.by_weights(x, g, whole, *self.attrs(kernel).values())
            return _flipped(made, self.rank, self.filter_flip)
        size = _spatial("filter_shape", filter_shape, self.rank)
        made = _applied("conv_filter", x, g, self.label("_gradWeights"), {"size": size, **self.attrs(size)})
        return _flipped(made, self.rank, self.filter_flip)


def _entries(name: str, shape: Any, rank: int) -> list[Any]:
    """The sizes that a shape, whole or of the spatial axes alone, is made of."""
    items = list(shape) if isinstance(shape, tuple | list) else as_sizes(as_variable(shape), name, rank)
    if len(items) not in (rank, rank + 2):
        raise ValueError(
            f"{name} must have {rank + 2} entries, or the {rank} of the spatial axes, got {shape}"
        )
    return items


def _spatial(name: str, shape: Any, rank: int) -> list[Size]:
    items = _entries(name, shape, rank)[-rank:]
    if any(s is None for s in items):
        raise ValueError(f"{name} must have the sizes of its last {rank} axes, got {shape}")
    return [as_size(s, f"a size in {name}") for s in items]


def _static_shape(shape: Any, rank: int) -> Any:
    """What of a shape is known when the graph is built, for the first two axes."""
    items = _entries("input_shape", shape, rank)
    if len(items) == rank:
        return None
    return [None if s is None else static_size(as_size(s)) for s in items[:2]] + [None] * rank


# -- the functions ---------------------------------------------------------------------------------------------------


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
    how = _Convolution(2, border_mode, subsample, filter_flip, filter_dilation, num_groups, unshared)
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
    how = _Convolution(3, border_mode, subsample, filter_flip, filter_dilation, num_groups)
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
    how = _Convolution(2, border_mode, subsample, filter_flip, filter_dilation, num_groups, unshared)
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
    how = _Convolution(3, border_mode, subsample, filter_flip, filter_dilation, num_groups)
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
    how = _Convolution(2, border_mode, subsample, filter_flip, filter_dilation, num_groups, unshared)
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
    how = _Convolution(3, border_mode, subsample, filter_flip, filter_dilation, num_groups)
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
        self.how = _Convolution(
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
    items = _entries("the shape", shape, rank)
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
    x = _floats(input, "input", 2)
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
    made = _upsampled(_floats(input, "input", 2), rows.numerator, columns.numerator)
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
