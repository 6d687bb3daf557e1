"""Images cut into patches, and put together again."""

from __future__ import annotations

from typing import Any

from tcc import build
from tcc.build import Size, node, size_arithmetic, size_of, size_product, static_size
from tcc.creation import zeros
from tcc.graph import Shown
from tcc.indexing import set_subtensor
from tcc.ir.dims import size_error
from tcc.joining import concatenate
from tcc.shapes import as_sizes, dimshuffle, reshape
from tcc.tensor.nnet.convolution import with_shape
from tcc.tensor.signal.pool import numbers
from tcc.types import tensor_type
from tcc.variable import as_variable

MODES = ("valid", "ignore_borders", "wrap_centered", "half", "full")


def _padded(x: Any, before: int, after: int, axis: int, wrap: bool) -> Any:
    """x with zeros, or with its other end, around an axis."""
    parts = [x]
    for count, end in ((before, slice(-before, None)), (after, slice(0, after))):
        if not count:
            continue
        if wrap:
            part = x[(*[slice(None)] * axis, end)]
        else:
            sizes = [count if a == axis else s for a, s in enumerate(build.shape_of(x))]
            part = zeros(sizes, dtype=x.type.dtype)
        parts.insert(0 if end.start != 0 else len(parts), part)
    return concatenate(parts, axis=axis) if len(parts) > 1 else x


def images2neibs(ten4: Any, neib_shape: Any, neib_step: Any = None, mode: str = "valid") -> Any:
    """The patches of `neib_shape` (rows, columns), `neib_step` apart, of images [batch, channels, rows, columns], each
    as one row of the result, in the order of its batch, channel, row and column.

    'valid': patches must cover the image exactly; 'half' and 'full': so they must with neib_shape // 2 or neib_shape - 1
    zeros around it; 'ignore_borders': what is left over is left out; 'wrap_centered': a patch around every (step-th)
    element, of odd sizes, over the image's ends to its other side.  A ValueError, which is a TypeError too, when the function
    runs at the latest, where patches do not cover the image, or where one that wraps is larger than it.
    """
    x = as_variable(ten4)
    if x.type.ndim != 4:
        raise TypeError(f"images2neibs: ten4 must have 4 axes, got {x.type}")
    if mode not in MODES:
        raise NotImplementedError(f"Unknown sampling mode {mode!r}; there are {', '.join(MODES)}")
    shape = numbers("neib_shape", neib_shape, 2)
    step = shape if neib_step is None else numbers("neib_step", neib_step, 2)
    for axis, w, s in zip((2, 3), shape, step):
        if mode == "wrap_centered":
            if w % 2 == 0:
                raise TypeError(f"images2neibs: neib_shape must be odd in mode wrap_centered, got {shape}")
            x = _large_enough(x, axis, w)
            x = _padded(x, w // 2, w // 2, axis, wrap=True)
        elif mode in ("half", "full"):
            pad = w // 2 if mode == "half" else w - 1
            x = _padded(x, pad, pad, axis, wrap=False)
        if mode in ("valid", "half", "full"):
            x = _covered(x, axis, w, s)
    patches = node("windows", x, ws=shape, step=step).result
    sizes = build.shape_of(patches)
    return reshape(patches, [size_product(sizes[:4]), shape[0] * shape[1]])


def _covered(x: Any, axis: int, w: int, s: int) -> Any:
    """x, of which patches of `w` elements, `s` apart, are asserted to leave nothing over along an axis."""
    n = size_of(x, axis)
    count = size_arithmetic("floordiv", size_arithmetic("maximum", size_arithmetic("add", n, s - w), 0), s)
    reach = size_arithmetic("add", size_arithmetic("mul", size_arithmetic("sub", count, 1), s), w)
    return _asserted(x, axis, reach, f"patches of {w}, {s} apart, do not cover axis {axis}")


def _large_enough(x: Any, axis: int, w: int) -> Any:
    """x, which is asserted to have `w` elements or more along an axis."""
    return _asserted(
        x,
        axis,
        size_arithmetic("maximum", size_of(x, axis), w),
        f"patches of {w} that wrap exceed axis {axis}",
    )


def _asserted(x: Any, axis: int, size: Size, problem: str) -> Any:
    """x, which is asserted to have this size along an axis."""
    n, wanted = static_size(size_of(x, axis)), static_size(size)
    if n is not None and wanted is not None:
        if n != wanted:
            raise size_error(f"images2neibs: {problem}, which has {n} elements")
        return x
    sizes = [size if a == axis else s for a, s in enumerate(build.shape_of(x))]
    types = (tensor_type(x.type.dtype, x.type.shape),)
    return node(
        "broadcast", x, shape=sizes, types=types, implicit=True, shown=Shown(f"images2neibs: {problem}", (x,))
    ).result


def neibs2images(neibs: Any, neib_shape: Any, original_shape: Any, mode: str = "valid") -> Any:
    """Images of `original_shape` out of patches that do not overlap: the inverse of `images2neibs`.  With mode
    'ignore_borders' what was left out is 0."""
    x = as_variable(neibs)
    if x.type.ndim != 2:
        raise TypeError(f"neibs2images: neibs must be a matrix, got {x.type}")
    if mode not in ("valid", "ignore_borders"):
        raise NotImplementedError(f"neibs2images do not support mode={mode}")
    h, w = numbers("neib_shape", neib_shape, 2)
    batch, channels, rows, columns = as_sizes(original_shape, "original_shape", 4)
    down, across = size_arithmetic("floordiv", rows, h), size_arithmetic("floordiv", columns, w)
    tiles = reshape(x, [batch, channels, down, across, h, w])
    covered = [size_arithmetic("mul", down, h), size_arithmetic("mul", across, w)]
    image = reshape(dimshuffle(tiles, 0, 1, 2, 4, 3, 5), [batch, channels, *covered])
    if mode == "valid":
        return with_shape(image, "original_shape", [None, None, rows, columns])
    whole = zeros([batch, channels, rows, columns], dtype=x.type.dtype)
    return set_subtensor(whole[:, :, : covered[0], : covered[1]], image)


__all__ = ["images2neibs", "neibs2images"]
