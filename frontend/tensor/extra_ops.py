"""Functions made of others: searching, counting, repeating, unique elements, one-hot rows, indices of flat positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc import build
from tcc.build import node, shape_of, size_of, size_product, size_variable
from tcc.debug import Assert
from tcc.elemwise import DISCRETE, and_, cast, eq, ge, invert, isnan, le, maximum, minimum, neq, or_, switch
from tcc.graph import Apply
from tcc.indexing import inc_subtensor, set_subtensor, take
from tcc.joining import join
from tcc.joining import repeat as repeat_evenly
from tcc.ordering import argsort
from tcc.reductions import all as every
from tcc.reductions import cumsum
from tcc.reductions import max as largest
from tcc.reductions import sum as total
from tcc.selecting import nonzero
from tcc.settings import config
from tcc.shapes import as_sizes, dimshuffle, flatten, shape_padright
from tcc.types import promote, tensor_type
from tcc.user_op import call
from tcc.variable import as_variable, scalar_constant


def checked_index(i: Any, bound: Any, axis: int = 0) -> Any:
    """An int64 index array, for which IndexError is raised when it does not fit an axis of size `bound`."""
    i = build.cast(as_variable(i), "int64")
    return Apply(build.INDICES, (i,), {"bound": bound, "axis": axis}, (i.type,), implicit=True).result


def _line(size: Any) -> Any:
    return node("iota", shape=[size], axis=0, dtype="i64").result


def searchsorted(x: Any, v: Any, side: str = "left", sorter: Any = None) -> Any:
    """Where each element of v has to be put in the vector x, which ascends (or does in the order of `sorter`), as int64."""
    x, v = as_variable(x), as_variable(v)
    if x.type.ndim != 1:
        raise ValueError(f"searchsorted: x must be a vector, got {x.type}")
    if side not in ("left", "right"):
        raise ValueError(f"'{side}' is an invalid value for keyword 'side'")
    if sorter is not None:
        sorter = as_variable(sorter)
        if sorter.type.ndim != 1:
            raise ValueError("sorter must be a vector", sorter.type)
        if sorter.type.dtype[:3] not in ("int", "uin"):
            raise TypeError("sorter must be of integers", sorter.type)
        x = x[sorter]
    dtype = promote(x.type.dtype, v.type.dtype)
    return node("searchsorted", build.cast(x, dtype), build.cast(v, dtype), side=side).result


def repeat(x: Any, repeats: Any, axis: int | None = None) -> Any:
    """Each element of x `repeats` times along `axis`, or of the flattened x.

    `repeats` is a number, or a vector with one for each element along the axis; ValueError where their counts differ, or one is
    negative.
    """
    x, repeats = as_variable(x), as_variable(repeats)
    if repeats.type.ndim > 1:
        raise ValueError("The dimension of repeats should not exceed 1.")
    if repeats.type.dtype not in DISCRETE or repeats.type.dtype == "bool":
        raise TypeError("repeats.dtype must be an integer.")
    if repeats.type.dtype == "uint64":
        raise TypeError("repeats.dtype must fit int64; cast it", repeats.type)
    if repeats.type.ndim == 1 and repeats.type.broadcastable[0]:
        repeats = repeats[0]
    if repeats.type.ndim == 0:
        return repeat_evenly(x, repeats, axis)
    if axis is None:
        x, axis = flatten(x), 0
    axis %= x.type.ndim
    many = build.cast(repeats, "int64")
    many = node("second", _line(size_of(x, axis)), many).result  # must have x's size
    below = total(minimum(many, 0))
    places = build.as_size(switch(below < 0, below, total(many) + 1))  # a size below 0 is refused
    # as many elements end at or before a place as have been passed there
    marks = build.broadcast_to(scalar_constant(0, "int64"), [places])
    passed = inc_subtensor(marks[cumsum(many)], scalar_constant(1, "int64"))
    return take(x, cumsum(passed[:-1]), axis)


def bincount(x: Any, weights: Any = None, minlength: Any = None, assert_nonneg: bool = False) -> Any:
    """How often each number from 0 on occurs in the integer vector x; with `weights` the sum of theirs.

    The counts are of x's dtype, or of the weights'; there are at least `minlength` of them.  With `assert_nonneg` a negative
    number is an AssertionError.
    """
    x = as_variable(x)
    if x.type.ndim != 1:
        raise TypeError("Inputs must be of dimension 1.")
    if x.type.dtype not in DISCRETE or x.type.dtype == "bool":
        raise TypeError(f"bincount counts integers, got {x.type}")
    at = x
    if assert_nonneg:
        at = Assert("Input to bincount has negative values!")(at, every(ge(at, 0)))
    most = largest(join(0, build.cast(at, "int64"), np.array([-1]))) + 1
    if minlength is not None:
        most = build.elementwise("maximum", most, build.cast(as_variable(minlength), "int64"))
    size = build.as_size(most)
    value = scalar_constant(1, x.type.dtype) if weights is None else as_variable(weights)
    zeros = build.broadcast_to(scalar_constant(0, value.type.dtype), [size])
    return inc_subtensor(zeros[at], value)


def diff(x: Any, n: int = 1, axis: int = -1) -> Any:
    """Differences of neighbours along `axis`, taken `n` times."""
    x = as_variable(x)
    if x.type.ndim == 0:
        raise ValueError("diff needs an axis")
    before = [slice(None)] * (axis % x.type.ndim)
    for _ in range(n):
        x = x[(*before, slice(1, None))] - x[(*before, slice(None, -1))]
    return x


def compress(condition: Any, x: Any, axis: int | None = None) -> Any:
    """The slices of x along `axis`, or the elements of the flattened x, where the vector `condition` holds."""
    return take(x, nonzero(condition)[0], axis)


def unique(
    ar: Any,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: int | None = None,
) -> Any:
    """The different elements of the flattened array, or slices along `axis`, ascending; NaNs count as one.

    On request also, as int64: where each occurs first, which of them each element is, and how often each occurs.
    ValueError for an axis that is not there.
    """
    x = as_variable(ar)
    if axis is not None and not -x.type.ndim <= axis < x.type.ndim:
        raise ValueError(f"unique: there is no axis {axis} in {x.type}")
    if axis is not None and x.type.ndim > 1:
        return _unique_slices(x, (return_index, return_inverse, return_counts), axis % x.type.ndim)
    x = flatten(x)
    order = argsort(x, axis=0)
    ordered = x[order]
    differs = neq(ordered[1:], ordered[:-1])
    if x.type.dtype not in DISCRETE:
        differs = and_(differs, invert(and_(isnan(ordered[1:]), isnan(ordered[:-1]))))
    n = size_of(x, 0)
    first = build.broadcast_to(scalar_constant(True, "bool"), [build.size_arithmetic("minimum", n, 1)])
    new = join(0, first, differs)
    new = node("second", x, new, types=(tensor_type("bool", x.type.shape),)).result
    (where,) = nonzero(new)
    made = [ordered[where]]
    if return_index:
        made.append(order[where])
    if return_inverse:
        number = cumsum(cast(new, "int64")) - 1
        zeros = build.broadcast_to(scalar_constant(0, "int64"), [n])
        made.append(set_subtensor(zeros[order], number))
    if return_counts:
        ends = join(
            0, where[1:], build.broadcast_to(size_variable(n), [build.size_arithmetic("minimum", n, 1)])
        )
        made.append(ends - where)
    return made[0] if len(made) == 1 else made


class _UniqueSlices:
    """NumPy's `unique` along an axis, whose slices are compared element by element from the first on."""

    def __init__(self, told: tuple[bool, bool, bool], axis: int) -> None:
        self.told, self.axis = told, axis

    def __call__(self, x: Any) -> list[Any]:
        made: Any = np.unique(x, *self.told, axis=self.axis)  # type: ignore[call-overload]
        first, *others = made if isinstance(made, tuple) else (made,)
        return [first, *(np.asarray(o, np.int64).reshape(-1) for o in others)]


def _unique_slices(x: Any, told: tuple[bool, bool, bool], axis: int) -> Any:
    static: list[Any] = list(x.type.shape)
    sizes: list[Any] = list(shape_of(x))
    static[axis] = sizes[axis] = None
    types = [tensor_type(x.type.dtype, tuple(static))] + [tensor_type("int64", (None,))] * sum(told)
    made = call("unique", _UniqueSlices(told, axis), [x], types, [], sizes=[*sizes, *[None] * sum(told)])
    return made[0] if len(made) == 1 else list(made)


def to_one_hot(y: Any, nb_class: Any, dtype: str | None = None) -> Any:
    """A row for each element of the integer vector y, with a 1 at its position among `nb_class`, of config.floatX."""
    y = as_variable(y)
    if y.type.ndim != 1 or y.type.dtype not in DISCRETE:
        raise TypeError(f"to_one_hot takes a vector of integers, got {y.type}")
    many = build.as_size(nb_class, "nb_class")
    at = checked_index(y, many, 1)
    at = switch(at < 0, at + size_variable(many), at)
    hot = eq(shape_padright(at), _line(many))
    return cast(hot, str(config.floatX) if dtype in (None, "floatX") else dtype)


def fill_diagonal(a: Any, val: Any) -> Any:
    """`a` with `val` where all indices are equal.  Of more than two axes, all must have one size."""
    a = as_variable(a)
    if a.type.ndim < 2:
        raise TypeError(f"fill_diagonal: first parameter must have at least two dimensions, got {a.type}")
    lines = [node("iota", shape=list(shape_of(a)), axis=k, dtype="i64").result for k in range(a.type.ndim)]
    on = eq(lines[0], lines[1])
    for line in lines[2:]:
        on = and_(on, eq(lines[0], line))
    return switch(on, _filler(a, val), a)


def fill_diagonal_offset(a: Any, val: Any, offset: Any) -> Any:
    """The matrix `a` with `val` where column - row is `offset`."""
    a = as_variable(a)
    if a.type.ndim != 2:
        raise TypeError(
            f"fill_diagonal_offset: first parameter must have exactly two dimensions, got {a.type}"
        )
    row, column = (node("iota", shape=list(shape_of(a)), axis=k, dtype="i64").result for k in (0, 1))
    return switch(eq(row + build.cast(as_variable(offset), "int64"), column), _filler(a, val), a)


def _filler(a: Any, val: Any) -> Any:
    val = as_variable(val)
    if val.type.ndim:
        raise TypeError(f"fill_diagonal: second parameter must be a scalar, got {val.type}")
    if promote(a.type.dtype, val.type.dtype) != a.type.dtype:
        raise TypeError(f"fill_diagonal: {val.type} would be rounded to {a.type.dtype}")
    return build.cast(val, a.type.dtype)


def unravel_index(indices: Any, dims: Any, order: str = "C", ndim: int | None = None) -> tuple[Any, ...]:
    """For each axis of an array of sizes `dims` the index of the elements at the flat `indices`.

    IndexError when the function runs for one that lies outside.
    """
    sizes = as_sizes(dims, "dims", ndim)
    if order not in ("C", "F"):
        raise ValueError("order must be 'C' or 'F'")
    rest = checked_index(indices, size_product(sizes))
    walked = list(reversed(sizes)) if order == "C" else sizes
    made = []
    for size in walked[:-1]:
        by = build.cast(size_variable(size), "int64")
        made.append(rest % by)
        rest = rest // by
    made.append(rest)
    return tuple(reversed(made)) if order == "C" else tuple(made)


def ravel_multi_index(multi_index: Sequence[Any], dims: Any, mode: str = "raise", order: str = "C") -> Any:
    """The flat positions of elements given by their indices; mode raise, wrap or clip."""
    sizes = as_sizes(dims, "dims", len(multi_index))
    if order not in ("C", "F"):
        raise ValueError("order must be 'C' or 'F'")
    parts = []
    for axis, (index, size) in enumerate(zip(multi_index, sizes, strict=True)):
        i = as_variable(index)
        if i.type.dtype not in DISCRETE or i.type.dtype == "bool":
            raise TypeError(f"ravel_multi_index: indices must be integers, got {i.type} for axis {axis}")
        n, i = build.cast(size_variable(size), "int64"), build.cast(i, "int64")
        if mode == "raise":
            i = checked_index(i, size, axis)
        elif mode == "wrap":
            i = i % n
        elif mode == "clip":
            i = build.elementwise("clip", i, scalar_constant(0, "int64"), n - 1)
        else:
            raise ValueError(f"mode must be raise, wrap or clip, got {mode!r}")
        parts.append((i, n))
    if order == "F":
        parts.reverse()
    flat = parts[0][0]
    for i, n in parts[1:]:
        flat = flat * n + i
    return flat


def _with_iotas(index: Any) -> list[Any]:
    """An index array along the last axis of its own shape, with those of the other axes before it."""
    sizes, last = list(shape_of(index)), index.type.ndim - 1
    return [*(node("iota", shape=sizes, axis=k, dtype="i64").result for k in range(last)), index]


def permute_row_elements(x: Any, y: Any, inverse: int = 0) -> Any:
    """x with the elements of each row (along the last axis) at the positions in y's row; with `inverse` put there."""
    x, y = as_variable(x), as_variable(y)
    if y.type.dtype not in DISCRETE:
        raise TypeError(f"permute_row_elements: y must be of integers, got {y.type}")
    rank = max(x.type.ndim, y.type.ndim)
    x, y = (dimshuffle(v, *["x"] * (rank - v.type.ndim), *range(v.type.ndim)) for v in (x, y))
    y = build.cast(y, "int64")
    if inverse:
        y = inverse_permutation(y)
    x, y = build.broadcast_together("PermuteRowElements", [x, y])
    return x[tuple(_with_iotas(y))]


def inverse_permutation(perm: Any) -> Any:
    """The permutation that undoes `perm`, along the last axis, in its dtype."""
    given = as_variable(perm)
    perm = build.cast(given, "int64")
    line = node("iota", shape=list(shape_of(perm)), axis=perm.type.ndim - 1, dtype="i64").result
    zeros = build.broadcast_to(scalar_constant(0, "int64"), list(shape_of(perm)))
    return build.cast(set_subtensor(zeros[tuple(_with_iotas(perm))], line), given.type.dtype)


def bartlett(m: Any) -> Any:
    """The Bartlett window of M points: 1 - |2n/(M-1) - 1|, in float64."""
    size = build.as_size(maximum(m, 0), "bartlett: M")
    n = cast(_line(size), "float64")
    last = cast(size_variable(size), "float64") - 1
    return switch(le(last, 0), 1.0, 1.0 - abs(2.0 * n / last - 1.0))


def choose(a: Any, choices: Any, mode: str = "raise") -> Any:
    """Each element from the choice that the same element of the integer array `a` names; mode raise, wrap or clip."""
    a = as_variable(a)
    if a.type.dtype not in DISCRETE:
        raise TypeError(f"choose first argument must have an [u]int* dtype. Got {a.type.dtype}.")
    parts = list(choices) if isinstance(choices, list | tuple) else None
    many = len(parts) if parts is not None else size_of(as_variable(choices), 0)
    n, at = build.cast(size_variable(many), "int64"), build.cast(a, "int64")
    if mode == "wrap":
        at = at % n
    elif mode == "clip":
        at = build.elementwise("clip", at, scalar_constant(0, "int64"), n - 1)
    elif mode == "raise":
        at = checked_index(switch(at < 0, n, at), many)
    else:
        raise ValueError(f"mode must be raise, wrap or clip, got {mode!r}")
    if parts is not None:
        result = as_variable(parts[-1])
        for number in reversed(range(len(parts) - 1)):
            result = switch(eq(at, number), parts[number], result)
        return result if len(parts) > 1 else switch(eq(at, 0), result, result)
    whole = as_variable(choices)
    rank = max(whole.type.ndim - 1, at.type.ndim)
    at = dimshuffle(at, *["x"] * (rank - at.type.ndim), *range(at.type.ndim))
    whole = dimshuffle(whole, 0, *["x"] * (rank + 1 - whole.type.ndim), *range(1, whole.type.ndim))
    model = whole[0] if whole.type.shape[0] != 0 else at
    shape = shape_of(build.broadcast_together("choose", [at, model])[0])
    at = build.broadcast_to(at, shape)
    whole = build.broadcast_to(whole, [size_of(whole, 0), *shape])
    lines = [node("iota", shape=list(shape), axis=k, dtype="i64").result for k in range(rank)]
    return whole[(at, *lines)]


def isin(x: Any, values: Any) -> Any:
    """Whether each element of x is one of the values."""
    x, v = as_variable(x), flatten(as_variable(values))
    if v.type.shape[0] is not None and v.type.shape[0] <= 8:
        found: Any = build.broadcast_to(scalar_constant(False, "bool"), shape_of(x))
        for k in range(v.type.shape[0]):
            found = or_(found, eq(x, v[k]))
        return found
    ordered = v[argsort(v, axis=0)]
    found = searchsorted(ordered, x, side="right") > searchsorted(ordered, x)
    return and_(found, eq(x, x)) if x.type.dtype.startswith("float") else found  # NaN is none of them
