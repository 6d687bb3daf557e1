"""Sorting, and the largest or smallest along an axis."""

from __future__ import annotations

from typing import Any

from tcc import build
from tcc.branches import along
from tcc.build import node
from tcc.elemwise import DISCRETE, abs_, add, gt, sub, switch
from tcc.graph import Apply
from tcc.indexing import take
from tcc.reductions import axes_of
from tcc.shapes import flatten
from tcc.variable import Variable, as_variable


def sort(x: Any, axis: int | None = -1, kind: str = "quicksort", order: Any = None) -> Any:
    """x in ascending order along `axis`, or flattened with None."""
    return _ordered("sort", x, axis)


def argsort(x: Any, axis: int | None = -1, kind: str = "quicksort", order: Any = None) -> Any:
    """The int64 positions that put x in ascending order along `axis`."""
    return _ordered("argsort", x, axis)


def _ordered(row: str, x: Any, axis: Any) -> Any:
    x = as_variable(x)
    if axis is None:
        x, axis = flatten(x), 0
    if isinstance(axis, Variable) and build.static_size(axis) is None:  # only running tells
        return along(axis, x.type.ndim, lambda k: _ordered(row, x, k))
    (at,) = axes_of(axis, x.type.ndim)
    return node(row, x, axis=at).result


def topk(x: Any, kth: Any, axis: int | None = -1, sorted: bool = True, idx_dtype: str = "int64") -> Any:
    """The `kth` largest elements along `axis` (of the flattened x with None), or the -kth smallest for a negative one.

    `kth` is an integer, not 0 and of a magnitude up to the axis's size, or an integer scalar variable.  The first of them
    comes first: the largest, or the smallest of a negative `kth`.  Without `sorted` Theano promises no order, so this one will
    do.  NaN is larger than all numbers.  The gradient goes to the elements that were taken.
    ValueError for a `kth` that cannot be; TypeError for one that is no integer scalar.
    """
    return topk_and_argtopk(x, kth, axis, sorted, idx_dtype)[0]


def argtopk(x: Any, kth: Any, axis: int | None = -1, sorted: bool = True, idx_dtype: str = "int64") -> Any:
    """Where the elements that `topk` gives are, in `idx_dtype`; for a known `kth`, of equal ones the first comes first."""
    return topk_and_argtopk(x, kth, axis, sorted, idx_dtype)[1]


def topk_and_argtopk(
    x: Any, kth: Any, axis: int | None = -1, sorted: bool = True, idx_dtype: str = "int64"
) -> list[Any]:
    """`[topk, argtopk]` of the same operands."""
    if not isinstance(sorted, bool):
        raise TypeError(f"sorted parameter is expected to be bool, got {type(sorted)}")
    if idx_dtype not in DISCRETE or idx_dtype == "bool":
        raise TypeError(f'"idx_dtype" parameter must be an integer dtype, got "{idx_dtype}"')
    x, kth = as_variable(x), as_variable(kth)
    if axis is None:
        x, axis = flatten(x), 0
    if kth.type.ndim or kth.type.dtype not in DISCRETE or kth.type.dtype == "bool":
        raise TypeError(f"topk: kth must be an integer scalar, got {kth.type}")
    (at,) = axes_of(axis, x.type.ndim)
    where = _positions(x, kth, at)
    index = [
        node("iota", shape=[build.size_of(where, a) for a in range(x.type.ndim)], axis=a, dtype="i64").result
        for a in range(x.type.ndim)
    ]
    index[at] = where
    values = node("gather", x, *index, axes=list(range(x.type.ndim))).result
    return [values, build.cast(where, idx_dtype)]


def _positions(x: Any, kth: Any, axis: int) -> Any:
    known = build.static_size(kth)
    if known is None:
        # which end is meant only a run tells; the check of indices says when there are not as many
        line = node("iota", shape=[build.as_size(abs_(kth), "kth")], axis=0, dtype="i64").result
        bound = {"bound": build.size_of(x, axis), "axis": axis}
        line = Apply(build.INDICES, (line,), bound, (line.type,), implicit=True).result
        last = sub(build.size_variable(build.size_of(x, axis)), add(line, 1))
        return take(argsort(x, axis), switch(gt(kth, 0), last, line), axis=axis)
    size = x.type.shape[axis]
    if known == 0:
        raise ValueError("topk: kth cannot be zero")
    if size is not None and abs(known) > size:
        raise ValueError(f"topk: kth cannot be larger than the size of axis {axis}, {size}: got {known}")
    return node("argtopk", x, axis=axis, k=abs(known), largest=known > 0).result
