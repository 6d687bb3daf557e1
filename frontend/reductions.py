"""Reductions.  Sums of small integers are int64, sums of float32 are accumulated in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc import build
from tcc.build import node, shape_of, size_of, size_product, size_variable
from tcc.elemwise import (
    DISCRETE,
    TO_FLOAT,
    abs_,
    add,
    isclose,
    maximum,
    minimum,
    mul,
    neq,
    pow,
    sqr,
    sqrt,
    sub,
    true_div,
)
from tcc.graph import Shown
from tcc.ir.types import FROM_NUMPY
from tcc.shapes import dimshuffle, flatten, reshape
from tcc.types import dtype_name
from tcc.variable import Constant, as_variable

Axes = int | Sequence[int] | None


def axes_of(axis: Any, rank: int) -> tuple[int, ...]:
    """The axes, ascending; ValueError for one that is not there."""
    if axis is None or isinstance(axis, Constant) and axis.data is None:
        return tuple(range(rank))
    if not isinstance(axis, list | tuple) and np.ndim(axis) == 0:
        axis = [axis]
    numbers = [build.static_size(as_variable(a)) for a in axis]
    out = []
    for a in numbers:
        if a is None:
            raise TypeError("the axis of a reduction must be known when the graph is built")
        if not -rank <= a < rank:
            raise ValueError(f"Not enough dimensions: there is no axis {a} in {rank} dimensions")
        out.append(a % rank)
    if len(set(out)) < len(out):
        raise ValueError(f"duplicate value in axis: {axis}")
    return tuple(sorted(out))


def kept(result: Any, axes: Sequence[int], rank: int) -> Any:
    """The result with the axes that were reduced as axes that broadcast."""
    left = iter(range(rank))
    return dimshuffle(result, *("x" if a in axes else next(left) for a in range(rank)))


def _reduce(row: str, x: Any, axis: Any, keepdims: bool, **attrs: Any) -> Any:
    axes = axes_of(axis, x.type.ndim)
    result = node(row, x, axes=axes, **attrs).result
    return kept(result, axes, x.type.ndim) if keepdims else result


def _wide(dtype: str) -> str:
    """The dtype of a sum."""
    if dtype in DISCRETE:
        return "uint64" if dtype.startswith("u") else "int64"
    return dtype


def sum(
    x: Any, axis: Axes = None, dtype: str | None = None, keepdims: bool = False, acc_dtype: str | None = None
) -> Any:
    """The sum over `axis`, of `dtype`."""
    return _accumulate("sum", x, axis, dtype, keepdims)


def prod(
    x: Any,
    axis: Axes = None,
    dtype: str | None = None,
    keepdims: bool = False,
    acc_dtype: str | None = None,
    no_zeros_in_input: bool = False,
) -> Any:
    """The product over `axis`, of `dtype`."""
    return _accumulate("prod", x, axis, dtype, keepdims)


def _accumulate(row: str, x: Any, axis: Axes, dtype: str | None, keepdims: bool) -> Any:
    x = as_variable(x)
    result = _wide(x.type.dtype) if dtype is None else dtype_name(dtype)
    if result == "bool":  # as NumPy's: whether any element, or each, is not zero
        return (any if row == "sum" else all)(x, axis, keepdims)
    if x.type.dtype not in DISCRETE and result in DISCRETE:  # the whole part of what the numbers make
        if x.type.dtype.startswith("complex"):
            raise TypeError(f"{row}: what {x.type.dtype} makes cannot be {result}; take its real part")
        x = build.cast(x, "float64")
        return build.cast(_reduce(row, x, axis, keepdims, dtype="f64"), result)
    if x.type.dtype == "bool":
        x = build.cast(x, result)
    return _reduce(row, x, axis, keepdims, dtype=FROM_NUMPY[result])


def mean(
    x: Any,
    axis: Axes = None,
    dtype: str | None = None,
    op: bool = False,
    keepdims: bool = False,
    acc_dtype: str | None = None,
) -> Any:
    """The mean over `axis`; of integers float64."""
    x = as_variable(x)
    if dtype is None and x.type.dtype in DISCRETE:
        dtype = "float64"
    axes = axes_of(axis, x.type.ndim)
    if dtype is not None and dtype != x.type.dtype and x.type.dtype in DISCRETE:
        x = build.cast(x, dtype)
    narrow = dtype is None and x.type.dtype in ("float16", "bfloat16")  # whose sums may be out of its range
    total = sum(build.cast(x, "float32") if narrow else x, axes, dtype=dtype, keepdims=keepdims)
    count = size_variable(size_product([size_of(x, a) for a in axes]))
    result = true_div(total, build.cast(count, total.type.dtype))
    result = build.cast(result, x.type.dtype) if narrow else result
    result.name = "mean"
    return result


def var(x: Any, axis: Axes = None, ddof: int = 0, keepdims: bool = False, corrected: bool = False) -> Any:
    """The variance over `axis`; `ddof` is taken off the count.  That of complex numbers is real, the sum of their parts'."""
    x = as_variable(x)
    if x.type.dtype.startswith("complex"):
        parts = (node(part, x).result for part in ("real", "imag"))
        result = add(*(var(part, axis, ddof, keepdims, corrected) for part in parts))
        result.name = "var"
        return result
    if x.type.dtype in DISCRETE:
        x = build.cast(x, "float64")
    axes = axes_of(axis, x.type.ndim)
    result = node("var", x, axes=axes).result
    result = kept(result, axes, x.type.ndim) if keepdims else result
    if ddof:
        count = build.cast(size_variable(size_product([size_of(x, a) for a in axes])), x.type.dtype)
        result = mul(result, true_div(count, sub(count, ddof)))
    if corrected:
        error = mean(sub(x, mean(x, axes, keepdims=True)), axes, keepdims=keepdims)
        result = sub(result, sqr(error))
    result.name = "var"
    return result


def std(x: Any, axis: Axes = None, ddof: int = 0, keepdims: bool = False, corrected: bool = False) -> Any:
    """The standard deviation over `axis`."""
    result = sqrt(var(x, axis, ddof, keepdims, corrected))
    result.name = "std"
    return result


def max(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    """The largest element; its gradient goes to every one that is equal to it."""
    result = _reduce("max", as_variable(x), axis, keepdims)
    result.name = "max"
    return result


def min(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    """The smallest element."""
    result = _reduce("min", as_variable(x), axis, keepdims)
    result.name = "min"
    return result


def argmax(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    """The position of the (first) largest element along `axis`, or in the flattened x; int64."""
    return _position("argmax", x, axis, keepdims)


def argmin(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    """The position of the (first) smallest element."""
    return _position("argmin", x, axis, keepdims)


def _position(row: str, x: Any, axis: Axes, keepdims: bool) -> Any:
    x = as_variable(x)
    rank = x.type.ndim
    axes = axes_of(axis, rank)
    if len(axes) == 1:
        result = node(row, x, axis=axes[0]).result
    else:
        others = [a for a in range(rank) if a not in axes]
        sizes = shape_of(x)
        rows = reshape(
            dimshuffle(x, *others, *axes),
            [*(sizes[a] for a in others), size_product([sizes[a] for a in axes])],
        )
        result = node(row, rows, axis=len(others), shown=Shown(row.title(), (x,))).result
    result = kept(result, axes, rank) if keepdims else result
    result.name = row
    return result


def max_and_argmax(x: Any, axis: Axes = None, keepdims: bool = False) -> tuple[Any, Any]:
    """The largest element and its position; an axis may be named twice."""
    if isinstance(axis, list | tuple):
        axis = list(dict.fromkeys(axis))
    return max(x, axis, keepdims), argmax(x, axis, keepdims)


def any(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    """Whether any element is not zero."""
    return _reduce("any", _truth(x), axis, keepdims)


def all(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    """Whether no element is zero."""
    return _reduce("all", _truth(x), axis, keepdims)


def _truth(x: Any) -> Any:
    x = as_variable(x)
    return x if x.type.dtype == "bool" else neq(x, 0)


def ptp(x: Any, axis: int | None = None) -> Any:
    """The largest less the smallest element."""
    result = sub(max(x, axis), min(x, axis))
    result.name = "ptp"
    return result


def norm(x: Any, ord: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    """The `ord`-norm over `axis`; 0 counts what is not zero, inf is the largest magnitude."""
    x = as_variable(x)
    if x.type.ndim == 0:
        raise ValueError("'axis' entry is out of bounds.")
    if ord == 0:
        return sum(neq(x, 0), axis, keepdims=keepdims)
    if ord == float("inf"):
        return max(abs_(x), axis, keepdims)
    if ord == float("-inf"):
        return min(abs_(x), axis, keepdims)
    if ord == 1:
        return sum(abs_(x), axis, keepdims=keepdims)
    if ord == 2:
        return sqrt(sum(sqr(x), axis, keepdims=keepdims))
    return pow(sum(pow(abs_(x), ord), axis, keepdims=keepdims), 1.0 / ord)


def _running(row: str, x: Any, axis: int | None) -> Any:
    x = as_variable(x)
    if axis is None:
        x, axis = flatten(x), 0
    if x.type.dtype in DISCRETE:
        x = build.cast(x, _wide(x.type.dtype))
    (at,) = axes_of(axis, x.type.ndim)
    return node(row, x, axis=at).result


def cumsum(x: Any, axis: int | None = None) -> Any:
    """Running sums along `axis`, or of the flattened x."""
    return _running("cumsum", x, axis)


def cumprod(x: Any, axis: int | None = None) -> Any:
    """Running products along `axis`, or of the flattened x."""
    return _running("cumprod", x, axis)


def logsumexp(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    """log(sum(exp(x))), without overflow."""
    x = as_variable(x)
    return _reduce("logsumexp", build.cast(x, TO_FLOAT.get(x.type.dtype, x.type.dtype)), axis, keepdims)


def allclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    """Whether all elements are near each other, as `isclose` says."""
    return all(isclose(a, b, rtol, atol, equal_nan))


def largest(*args: Any) -> Any:
    """The larger of two arrays element by element; of several, the largest at each place."""
    return _folded(maximum, args)


def smallest(*args: Any) -> Any:
    """The smaller of two arrays element by element; of several, the smallest at each place."""
    return _folded(minimum, args)


def _folded(two: Any, args: Sequence[Any]) -> Any:
    made = as_variable(args[0])
    for a in args[1:]:
        made = two(made, a)
    return made
