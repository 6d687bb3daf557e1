"""What the arguments of convolutions mean, and the rows that they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tcc import build
from tcc.build import Size, as_size, size_arithmetic, size_of, static_size
from tcc.elemwise import TO_FLOAT
from tcc.graph import Shown
from tcc.ir.optable import complete_attrs
from tcc.settings import config
from tcc.shapes import as_sizes, specify_shape
from tcc.tensor.nnet import unshared as local
from tcc.tensor.signal.pool import numbers
from tcc.types import tensor_type
from tcc.variable import Variable, as_variable

Pads = tuple[Size, ...]  # lo and hi of each spatial axis in turn


def floats(x: Any, name: str, rank: int, more: int = 0) -> Any:
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
class Convolution:
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
        w = floats(filters, "filters", self.rank, self.rank if self.unshared else 0)
        w = build.cast(with_shape(w, "filter_shape", filter_shape), dtype)
        return _flipped(w, self.rank, self.filter_flip)

    def label(self, kind: str) -> str:
        return (
            f"AbstractConv{self.rank}d{kind}{{convdim={self.rank}, border_mode={self.border_mode!r}, "
            f"subsample={self.strides}, filter_flip={self.filter_flip}, filter_dilation={self.dilation}}}"
        )

    def forward(self, input: Any, filters: Any, input_shape: Any, filter_shape: Any) -> Any:
        x = with_shape(floats(input, "input", self.rank), "input_shape", input_shape)
        w = self.filters(filters, filter_shape, x.type.dtype)
        if self.unshared:
            return local.forward(x, w, *self.how(w))
        return _applied("conv", x, w, self.label(""), self.attrs(build.shape_of(w)[2:]))

    def by_inputs(self, output_grad: Any, filters: Any, input_shape: Any, filter_shape: Any) -> Any:
        g = floats(output_grad, "output_grad", self.rank)
        w = self.filters(filters, filter_shape, g.type.dtype)
        if self.unshared:
            items = entries("input_shape", input_shape, self.rank)
            channels = size_arithmetic("mul", size_of(w, 3), self.num_groups)
            whole = items if len(items) > self.rank else [size_of(g, 0), channels, *items]
            return local.by_inputs(g, w, whole, *self.how(w))
        size = _spatial("input_shape", input_shape, self.rank)
        attrs = {"size": size, **self.attrs(build.shape_of(w)[2:])}
        made = _applied("conv_input", w, g, self.label("_gradInputs"), attrs)
        return with_shape(made, "input_shape", _static_shape(input_shape, self.rank))

    def by_weights(self, input: Any, output_grad: Any, filter_shape: Any, input_shape: Any) -> Any:
        x = with_shape(floats(input, "input", self.rank), "input_shape", input_shape)
        g = build.cast(floats(output_grad, "output_grad", self.rank), x.type.dtype)
        if self.unshared:
            each = size_arithmetic("floordiv", size_of(x, 1), self.num_groups)
            whole = [*build.shape_of(g)[1:], each, *list(filter_shape)[-self.rank :]]
            kernel = _spatial("filter_shape", whole[-self.rank :], self.rank)
            made = local.by_weights(x, g, whole, *self.attrs(kernel).values())
            return _flipped(made, self.rank, self.filter_flip)
        size = _spatial("filter_shape", filter_shape, self.rank)
        made = _applied("conv_filter", x, g, self.label("_gradWeights"), {"size": size, **self.attrs(size)})
        return _flipped(made, self.rank, self.filter_flip)


def entries(name: str, shape: Any, rank: int) -> list[Any]:
    """The sizes that a shape, whole or of the spatial axes alone, is made of."""
    items = list(shape) if isinstance(shape, tuple | list) else as_sizes(as_variable(shape), name, rank)
    if len(items) not in (rank, rank + 2):
        raise ValueError(
            f"{name} must have {rank + 2} entries, or the {rank} of the spatial axes, got {shape}"
        )
    return items


def _spatial(name: str, shape: Any, rank: int) -> list[Size]:
    items = entries(name, shape, rank)[-rank:]
    if any(s is None for s in items):
        raise ValueError(f"{name} must have the sizes of its last {rank} axes, got {shape}")
    return [as_size(s, f"a size in {name}") for s in items]


def _static_shape(shape: Any, rank: int) -> Any:
    """What of a shape is known when the graph is built, for the first two axes."""
    items = entries("input_shape", shape, rank)
    if len(items) == rank:
        return None
    return [None if s is None else static_size(as_size(s)) for s in items[:2]] + [None] * rank
