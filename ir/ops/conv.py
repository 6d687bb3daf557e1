"""Convolution over one to three spatial axes, and its gradients by image and by filters: three rows, closed under
differentiation.

For image x[n,c,*s], filters w[o,c/groups,*k] and result y[n,o,*out] with, along each spatial axis,

    y[n,o,p] = sum over c, t of x[n,c,p * stride + t * dilation - lo] w[o,c,t]        x outside of its sizes is 0
    out = max((s + lo + hi - ((k - 1) dilation + 1)) // stride + 1, 0)

This is a correlation: filters are not flipped.  `pads` are lo and hi of each spatial axis in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.ir.core import Attrs, Block, Op
from tcc.ir.dims import Size, add, floordiv, maximum, mul
from tcc.ir.ops.control import epilogue_types
from tcc.ir.ops.rules import want_dtype, want_same_dtype, want_size
from tcc.ir.optable import REQUIRED, OpDef, Sample, define
from tcc.ir.types import FLOATS, Type, parse_type

RANKS = (1, 2, 3)  # of space


def conv_size(size: Size, kernel: Size, pads: Sequence[Size], stride: int, dilation: int) -> Size:
    """The result's size along a spatial axis."""
    reach = add(mul(dilation, add(kernel, -1)), 1)
    return maximum(add(floordiv(add(size, *pads, mul(-1, reach)), stride), 1), 0)


def _want_geometry(row: str, types: Sequence[Type], names: Sequence[str], attrs: Attrs) -> int:
    """The spatial rank of the operands, whose attributes fit it."""
    for name, t in zip(names, types, strict=True):
        want_dtype(row, name, t, FLOATS)
    want_same_dtype(row, types)
    rank = types[0].rank - 2
    if rank not in RANKS or types[1].rank != types[0].rank:
        raise TypeError(
            f"{row}: operands {' and '.join(names)} must both have rank 3, 4 or 5, got {types[0]}, {types[1]}"
        )
    for key, count in (("strides", rank), ("dilation", rank), ("pads", 2 * rank)):
        least = 0 if key == "pads" else 1
        values = attrs[key]
        if len(values) != count:
            raise TypeError(
                f"{row}: {key} must be {count} numbers for {rank} spatial axes, got {list(values)}"
            )
        if any(isinstance(v, int) and v < least for v in values):
            raise TypeError(f"{row}: {key} must be at least {least}, got {list(values)}")
    if attrs["groups"] < 1:
        raise TypeError(f"{row}: groups must be at least 1, got {attrs['groups']}")
    if "size" in attrs and len(attrs["size"]) != rank:
        raise TypeError(
            f"{row}: size must be {rank} sizes for {rank} spatial axes, got {list(attrs['size'])}"
        )
    return rank


def _result(row: str, x: Type, w: Type, attrs: Attrs) -> Type:
    """The convolution's result for its image and filters."""
    groups = attrs["groups"]
    want_size(row, "the channels of the image", x.shape[1], mul(groups, w.shape[1]))
    o = w.shape[0]
    if isinstance(o, int) and o % groups:
        raise TypeError(f"{row}: the number of filters must be divisible by groups = {groups}, got {w}")
    out = (
        conv_size(s, k, attrs["pads"][2 * i : 2 * i + 2], attrs["strides"][i], attrs["dilation"][i])
        for i, (s, k) in enumerate(zip(x.shape[2:], w.shape[2:]))
    )
    return x.with_shape(x.shape[0], o, *out)


def conv_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    x, w, *extra = types
    _want_geometry("conv", [x, w], ("x", "w"), attrs)
    return epilogue_types("conv", _result("conv", x, w, attrs), extra, attrs, blocks)


def _want_gradient(row: str, got: Type, wanted: Type) -> None:
    for axis, (have, want) in enumerate(zip(got.shape, wanted.shape)):
        want_size(row, f"axis {axis} of operand g", have, want)


def conv_input_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    w, g, *extra = types
    _want_geometry("conv_input", [w, g], ("w", "g"), attrs)
    x = w.with_shape(g.shape[0], mul(attrs["groups"], w.shape[1]), *attrs["size"])
    _want_gradient("conv_input", g, _result("conv_input", x, w, attrs))
    return epilogue_types("conv_input", x, extra, attrs, blocks)


def conv_filter_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    _want_geometry("conv_filter", types, ("x", "g"), attrs)
    x, g = types
    w = x.with_shape(g.shape[1], floordiv(x.shape[1], attrs["groups"]), *attrs["size"])
    _want_gradient("conv_filter", g, _result("conv_filter", x, w, attrs))
    return [w]


# -- meaning: a product for each tap, in float64 ---------------------------------------------------------------------


class _Taps:
    """The padded image of shape `shape`, and its windows, one for each tap of the filters."""

    def __init__(
        self, shape: Sequence[int], kernel: Sequence[int], strides: Any, pads: Any, dilation: Any
    ) -> None:
        n, c, *space = shape
        self.kernel, self.strides, self.dilation = kernel, strides, dilation
        self.inside = tuple(slice(lo, lo + s) for lo, s in zip(pads[::2], space))
        self.out: list[Any] = [
            conv_size(s, k, pads[2 * i : 2 * i + 2], strides[i], dilation[i])
            for i, (s, k) in enumerate(zip(space, kernel))
        ]
        self.padded: Any = np.zeros((n, c, *(s + lo + hi for s, lo, hi in zip(space, pads[::2], pads[1::2]))))

    def window(self, tap: Sequence[int], groups: int) -> Any:
        """What the tap meets, as [n, groups, c / groups, *out]: a view of the padded image."""
        where = tuple(
            slice(t * d, t * d + s * p, s) if p else slice(0, 0)
            for t, d, s, p in zip(tap, self.dilation, self.strides, self.out)
        )
        found = self.padded[(slice(None), slice(None), *where)]
        n, c = found.shape[:2]
        return found.reshape(n, groups, c // groups, *self.out)


def _grouped(a: Any, axis: int, groups: int) -> Any:
    """In float64, with an axis of groups before `axis`."""
    shape = a.shape
    return a.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :]).astype(np.float64)


def conv_ref(
    x: Any, w: Any, strides: Any, pads: Any, dilation: Any, groups: int, maps: Sequence[str] = ()
) -> Any:
    taps = _Taps(x.shape, w.shape[2:], strides, pads, dilation)
    taps.padded[(..., *taps.inside)] = x
    filters = _grouped(w, 0, groups)
    y = np.zeros((x.shape[0], groups, w.shape[0] // groups, *taps.out))
    for tap in np.ndindex(*w.shape[2:]):
        y += np.einsum("ngc...,goc->ngo...", taps.window(tap, groups), filters[(..., *tap)])
    return y.reshape(x.shape[0], w.shape[0], *taps.out).astype(x.dtype)


def conv_input_ref(
    w: Any,
    g: Any,
    size: Any,
    strides: Any,
    pads: Any,
    dilation: Any,
    groups: int,
    maps: Sequence[str] = (),
) -> Any:
    shape = (g.shape[0], w.shape[1] * groups, *size)
    taps = _Taps(shape, w.shape[2:], strides, pads, dilation)
    filters, slopes = _grouped(w, 0, groups), _grouped(g, 1, groups)
    for tap in np.ndindex(*w.shape[2:]):
        # a view, for all but the first two axes are kept
        window = taps.window(tap, groups)
        window += np.einsum("ngo...,goc->ngc...", slopes, filters[(..., *tap)])
    return taps.padded[(..., *taps.inside)].astype(w.dtype)


def conv_filter_ref(x: Any, g: Any, size: Any, strides: Any, pads: Any, dilation: Any, groups: int) -> Any:
    taps = _Taps(x.shape, size, strides, pads, dilation)
    taps.padded[(..., *taps.inside)] = x
    slopes = _grouped(g, 1, groups)
    w: Any = np.zeros((groups, g.shape[1] // groups, x.shape[1] // groups, *size))
    space = "xyz"[: len(size)]
    sums = f"ngo{space},ngc{space}->goc"
    for tap in np.ndindex(*size):
        w[(..., *tap)] = np.einsum(sums, slopes, taps.window(tap, groups))
    return w.reshape(g.shape[1], x.shape[1] // groups, *size).astype(x.dtype)


# -- derivatives -----------------------------------------------------------------------------------------------------


def _geometry(op: Any) -> dict[str, Any]:
    return {key: op.attrs[key] for key in ("strides", "pads", "dilation", "groups")}


def _space(b: Any, x: Any) -> list[Any]:
    return list(b.shape(x))[2:]


def conv_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    (x, w), how = op.operands, _geometry(op)
    return [
        b.conv_input(w, g[0], size=_space(b, x), **how),
        b.conv_filter(x, g[0], size=_space(b, w), **how),
    ]


def conv_input_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    (w, slopes), how = op.operands, _geometry(op)
    return [b.conv_filter(g[0], slopes, size=_space(b, w), **how), b.conv(g[0], w, **how)]


def conv_filter_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    (x, slopes), how = op.operands, _geometry(op)
    return [b.conv_input(g[0], slopes, size=_space(b, x), **how), b.conv(x, g[0], **how)]


def _bilinear(row: str) -> Any:
    def rop(b: Any, op: Any, t: Sequence[Any]) -> list[Any]:
        x, y = op.operands
        pairs = [(t[0], y)] * (t[0] is not None) + [(x, t[1])] * (t[1] is not None)
        parts = [getattr(b, row)(*pair, **op.attrs) for pair in pairs]
        return [None if not parts else parts[0] if len(parts) == 1 else b.add(*parts)]

    return rop


def conv_flops(op: Op) -> Size:
    """Of the convolution, and of its gradients: two for each element of y and each filter element that it meets."""
    kinds = {
        "conv": (-1, 1),
        "conv_input": (1, 0),
        "conv_filter": (1, -1),
    }  # where y and w stand among operands and result
    y, w = ([*op.operands, *op.results][i].type for i in kinds[op.name])
    return mul(2, y.size, *w.shape[1:])


# -- the rows --------------------------------------------------------------------------------------------------------


def _how(strides: str, pads: str, dilation: str = "", groups: int = 1) -> dict[str, Any]:
    """`strides`, `pads`, `dilation` as digits."""
    numbers = [tuple(map(int, text)) for text in (strides, pads, dilation or "1" * len(strides))]
    return dict(zip(("strides", "pads", "dilation", "groups"), [*numbers, groups]))


# x, w, and how
CASES = [
    ("[2,3,7]", "[4,3,3]", _how("1", "00")),
    ("[2,2,9]", "[2,1,2]", _how("3", "21", "2", 2)),
    ("[2,3,6,5]", "[4,3,3,3]", _how("11", "1111")),
    ("[1,4,7,6]", "[6,2,3,2]", _how("21", "0110", "21", 2)),
    ("[2,3,5,4]", "[5,3,1,1]", _how("11", "0000")),
    ("[1,2,3,5]", "[3,2,2,3]", _how("11", "1122")),
    ("[1,2,4,3,5]", "[2,2,2,1,3]", _how("112", "000011")),
    ("[0,2,5,5]", "[3,2,3,3]", _how("11", "0000")),
    ("[2,2,2,5]", "[3,2,3,3]", _how("11", "0000")),  # more filter than image
]


def _samples(operands: str) -> tuple[Sample, ...]:
    """With operands out of x, w and g, the gradient of the result."""
    found: list[Sample] = []
    for i, (image, filters, how) in enumerate(CASES):
        x, w = (parse_type(("f32", "f64")[i % 2] + shape) for shape in (image, filters))
        types = {"x": x, "w": w, "g": _result("conv", x, w, how)}
        size = {"xw": {}, "wg": {"size": x.shape[2:]}, "xg": {"size": w.shape[2:]}}[operands]
        found.append(Sample(tuple(str(types[k]) for k in operands), {**size, **how}))
    return tuple(found)


ATTRS = dict.fromkeys(("strides", "pads", "dilation"), REQUIRED) | {"groups": 1}

define(
    OpDef(
        "conv",
        "x, w, *extra",
        conv_type,
        conv_ref,
        {**ATTRS, "maps": ()},
        doc="The correlation of images x[n,c,*s] with filters w[o,c/groups,*k] over 1 to 3 spatial axes; `pads` are lo and "
        "hi of each in turn.  A block is applied to each finished element.",
        grad=conv_grad,
        rop=_bilinear("conv"),
        kernel=True,
        flops=conv_flops,
        samples=_samples("xw"),
    )
)
define(
    OpDef(
        "conv_input",
        "w, g, *extra",
        conv_input_type,
        conv_input_ref,
        {"size": REQUIRED, **ATTRS, "maps": ()},
        doc="The gradient of a `conv` by its image, whose spatial sizes are `size`: a transposed convolution of g.  "
        "A block is applied to each finished element.",
        grad=conv_input_grad,
        rop=_bilinear("conv_input"),
        kernel=True,
        flops=conv_flops,
        samples=_samples("wg"),
    )
)
define(
    OpDef(
        "conv_filter",
        "x, g",
        conv_filter_type,
        conv_filter_ref,
        {"size": REQUIRED, **ATTRS},
        doc="The gradient of a `conv` by its filters, whose spatial sizes are `size`.",
        grad=conv_filter_grad,
        rop=_bilinear("conv_filter"),
        kernel=True,
        flops=conv_flops,
        samples=_samples("xg"),
    )
)
