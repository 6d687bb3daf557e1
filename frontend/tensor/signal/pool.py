"""Pooling over the last two or three axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc import build
from tcc.creation import arange
from tcc.elemwise import TO_FLOAT, add, and_, ge, int_div, lt, maximum, minimum, mul, sub, switch
from tcc.graph import Shown
from tcc.indexing import take
from tcc.ir.callers import warn
from tcc.reductions import max as largest
from tcc.reductions import sum as total
from tcc.shapes import as_sizes, dimshuffle
from tcc.types import tensor_type
from tcc.variable import TensorConstant, Variable, as_variable, scalar_constant

MODES = ("max", "sum", "average_inc_pad", "average_exc_pad")


def pool_2d(
    input: Any,
    ws: Any = None,
    ignore_border: bool | None = None,
    stride: Any = None,
    pad: Any = (0, 0),
    mode: str = "max",
    ds: Any = None,
    st: Any = None,
    padding: Any = None,
) -> Any:
    """The `mode` of windows of `ws` (rows, columns), `stride` apart (else `ws`), over the last two axes of `input`.

    With `ignore_border` windows lie within the input and `pad` elements on each side of it; without, there is no
    padding, and those that reach over the end count.  `mode` is max, sum, average_inc_pad or average_exc_pad, whose
    averages are over the window with or without the padding in it.  Every element that is its window's maximum gets the
    whole gradient.  `ds`, `st`, `padding` are older names.  ValueError, TypeError or NotImplementedError as Theano's.
    Sizes may be integer variables, or a vector of them: windows are then gathered, which takes their elements' memory.
    """
    return pool_nd(2, input, ws, ignore_border, stride, pad, mode, ds, st, padding)


def pool_3d(
    input: Any,
    ws: Any = None,
    ignore_border: bool | None = None,
    stride: Any = None,
    pad: Any = (0, 0, 0),
    mode: str = "max",
    ds: Any = None,
    st: Any = None,
    padding: Any = None,
) -> Any:
    """As `pool_2d`, over the last three axes."""
    return pool_nd(3, input, ws, ignore_border, stride, pad, mode, ds, st, padding)


def max_pool_2d_same_size(input: Any, patch_size: Any) -> Any:
    """`input` with 0 for what is not the maximum of its `patch_size` window; the windows do not overlap."""
    x = as_variable(input)
    ws = numbers("patch_size", patch_size, 2)
    geometry: dict[str, Any] = {"ws": ws, "stride": ws, "pad": (0, 0), "partial": 0}
    y = build.node("pool", x, mode="max", **geometry).result
    return build.node("max_pool_grad", x, y, y, **geometry).result


def pool_nd(
    rank: int,
    input: Any,
    ws: Any,
    ignore_border: Any,
    stride: Any,
    pad: Any,
    mode: str,
    ds: Any = None,
    st: Any = None,
    padding: Any = None,
) -> Any:
    """As `pool_2d`, over the last `rank` axes, 1 to 3."""
    for old, new, value, given in (("ds", "ws", ds, ws), ("st", "stride", st, stride)):
        if value is not None and given is not None:
            raise ValueError(f"You can't provide a tuple value to both '{new}' and '{old}'.")
    ws, stride = ds if ws is None else ws, st if stride is None else stride
    if padding is not None:
        if any(pad):
            raise ValueError("You can't provide a tuple value to both 'padding' and pad.")
        pad = padding
    if ws is None:
        raise ValueError("You must provide a tuple value for the window size.")
    x = as_variable(input)
    if x.type.ndim < rank:
        raise NotImplementedError(f"pool_{rank}d requires a dimension >= {rank}, got {x.type}")
    if mode not in MODES:
        raise ValueError(f"Pool mode parameter only support {', '.join(MODES)}. Got {mode!r}")
    if ignore_border is None:
        warn(
            f"pool_{rank}d() will have the parameter ignore_border default value changed to True (currently False). "
            "To have consistent behavior with all Theano versions, explicitly add the parameter ignore_border."
        )
        ignore_border = False
    ws = _sizes("ws", ws, rank)
    stride = ws if stride is None else _sizes("stride", stride, rank)
    pad = _sizes("pad", pad, rank)
    if any(isinstance(p, int) and p for p in pad) and not ignore_border:
        raise NotImplementedError("padding works only with ignore_border=True")
    if not all(isinstance(n, int) for n in (*ws, *stride, *pad)):
        return _gathered(x, mode, ws, stride, pad, partial=not ignore_border)
    if any(p >= w for p, w in zip(pad, ws)):
        raise NotImplementedError(f"padding must be smaller than the window, got pad {pad} and ws {ws}")
    return pooled(x, mode, ws, stride, pad, partial=not ignore_border)


def pooled(
    x: Any, mode: str, ws: Sequence[int], stride: Sequence[int], pad: Sequence[int], partial: bool
) -> Any:
    """The row `pool`, and for an average its division."""
    average = mode.startswith("average")
    if average:
        x = build.cast(x, TO_FLOAT.get(x.type.dtype, x.type.dtype))
    attrs: dict[str, Any] = {
        "ws": ws,
        "stride": stride,
        "pad": pad,
        "partial": int(partial),
        "mode": "sum" if average else mode,
    }
    shown = Shown(f"Pool{{ignore_border={not partial}, mode='{mode}', ndim={len(ws)}}}", (x,))
    types = build.infer(build.row("pool"), [x], attrs)
    lead = x.type.ndim - len(ws)
    # as Theano's, windows are no axes that broadcast, even where there is one
    free = tensor_type(
        x.type.dtype, (*x.type.shape[:lead], *(None if s == 1 else s for s in types[0].shape[lead:]))
    )
    result = build.node("pool", x, types=(free,), shown=shown, **attrs).result
    if not average:
        return result
    counts = _counts(x, result, ws, stride, pad, partial, mode == "average_exc_pad")
    return build.elementwise("div", result, build.cast(counts, x.type.dtype))


def _counts(
    x: Any,
    result: Any,
    ws: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[int],
    partial: bool,
    real: bool,
) -> Any:
    """The number of elements in each window, as what `result` is divided by; `real`: without padding."""
    total: Any = as_variable(1)
    rank = len(ws)
    for k, (w, s, p) in enumerate(zip(ws, stride, pad)):
        axis = x.type.ndim - rank + k
        count: Any = build.cast(as_variable(w), "int64")  # a small constant is int8, its square may not be
        if partial or (p and real):
            start = sub(mul(arange(build.size_variable(build.size_of(result, axis))), s), p)
            end = minimum(start + w, build.size_variable(build.size_of(x, axis)))
            count = dimshuffle(sub(end, maximum(start, 0)), *["x"] * k, 0, *["x"] * (rank - k - 1))
        total = mul(total, count)
    return total


def _gathered(
    x: Any, mode: str, ws: Sequence[Any], stride: Sequence[Any], pad: Sequence[Any], partial: bool
) -> Any:
    """Windows whose geometry only running tells: axis after axis, their elements are gathered and reduced."""
    average = mode.startswith("average")
    if average:
        x = build.cast(x, TO_FLOAT.get(x.type.dtype, x.type.dtype))
    kind = np.dtype(x.type.dtype)
    least = -np.inf if kind.kind == "f" else np.iinfo(kind).min if kind.kind in "iu" else False
    fill = scalar_constant(least if mode == "max" else 0, x.type.dtype)
    result, rank, ndim = x, len(ws), x.type.ndim
    for k, (w, s, p) in enumerate(zip(ws, stride, pad)):
        axis = ndim - rank + k
        n = build.size_variable(build.size_of(x, axis))
        if partial:
            reach = int_div(maximum(n + s - w - 1, 0), s) + 1
            count = switch(ge(s, w), int_div(n + s - 1, s), reach)
        else:
            count = int_div(maximum(n + mul(2, p) - w + s, 0), s)
        at = add(dimshuffle(sub(mul(arange(count), s), p), 0, "x"), dimshuffle(arange(w), "x", 0))
        within = dimshuffle(and_(ge(at, 0), lt(at, n)), *["x"] * axis, 0, 1, *["x"] * (ndim - axis - 1))
        window = switch(within, take(result, at, axis, mode="clip"), fill)
        result = largest(window, axis + 1) if mode == "max" else total(window, axis + 1, x.type.dtype)
    if not average:
        return result
    counts = _counts(x, result, ws, stride, pad, partial, mode == "average_exc_pad")
    return build.elementwise("div", result, build.cast(counts, x.type.dtype))


def _sizes(name: str, value: Any, count: int) -> tuple[Any, ...]:
    """`count` integers or integer scalar variables; TypeError for anything else."""
    if isinstance(value, TensorConstant):
        value = value.data
    if isinstance(value, Variable) and value.type.ndim == 1:
        return tuple(as_sizes(value, name, count))
    try:
        out = tuple(build.as_size(v, name) for v in value)
    except TypeError:
        raise TypeError(f"{name} must be {count} integers, one for each axis, got {value!r}") from None
    if len(out) != count:
        raise TypeError(f"{name} must be {count} integers, one for each axis, got {value!r}")
    return out


def numbers(name: str, value: Any, count: int) -> tuple[int, ...]:
    """`count` integers; ValueError for another number of them, TypeError for anything else."""
    if isinstance(value, TensorConstant):
        value = value.data
    try:
        out = tuple(int(build.static_size(v)) for v in value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"{name} must be {count} integers known when the graph is built, got {value!r}"
        ) from None
    if len(out) != count:
        raise ValueError(f"{name} must be {count} integers, got {value!r}")
    return out


__all__ = ["max_pool_2d_same_size", "pool_2d", "pool_3d"]
