"""What is only known when a function runs: where a mask holds, and slices whose step is a variable.

Indexing by them is done in stages: the mask's positions are an index array into an array whose axes under the mask are one;
the elements that a slice names are taken first, and put back after a write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tcc import build
from tcc.build import Size, as_size, node, shape_of, size_of, size_product, size_variable
from tcc.elemwise import cast, switch, truth
from tcc.graph import Shown
from tcc.joining import stack
from tcc.operators import TensorOperators
from tcc.reductions import sum as total
from tcc.shapes import dimshuffle, flatten, reshape
from tcc.types import tensor_type
from tcc.variable import TensorConstant, Variable, as_variable, scalar_constant


def flatnonzero(a: Any) -> Any:
    """The positions in the flattened array of what is not zero, as an int64 vector."""
    a = as_variable(a)
    if a.type.ndim == 0:
        raise ValueError("Nonzero only supports non-scalar arrays.")
    return positions(flatten(truth(a)))


def positions(mask: Any) -> Any:
    """The positions where a vector of bools holds; the same variable for the same mask."""
    known = mask.__dict__.get("_positions")
    if known is None:
        count = total(build.cast(mask, "int64"))
        made = node("positions", mask, count=count, types=(tensor_type("int64", (None,)),))
        made.shown = Shown("Nonzero", (mask,))
        known = mask.__dict__["_positions"] = made.result
    return known


def nonzero(a: Any, return_matrix: bool = False) -> Any:
    """For each axis of a the indices of what is not zero, in row-major order; as a tuple, or the rows of a matrix."""
    a = as_variable(a)
    flat, made = flatnonzero(a), []
    if a.type.ndim == 1:
        made = [flat]
    else:
        rest = flat
        for size in reversed(shape_of(a)[1:]):
            by = build.cast(size_variable(size), "int64")
            made.insert(0, rest % by)
            rest = rest // by
        made.insert(0, rest)
    return stack(made) if return_matrix else tuple(made)


def nonzero_values(a: Any) -> Any:
    """The elements of a that are not zero, as a vector."""
    a = as_variable(a)
    return flatten(a)[flatnonzero(a)]


# -- stages of an index ----------------------------------------------------------------------------------------------


class Stage(NamedTuple):
    """`x[items]` is `whole[rest]`, and `back` makes a new x of a new whole."""

    whole: Any
    rest: list[Any]
    back: Callable[[Any], Any]


def is_symbolic_mask(item: Any) -> bool:
    return isinstance(item, TensorOperators) and item.dtype == "bool" and not isinstance(item, TensorConstant)


def _has_symbolic_step(item: Any) -> bool:
    return (
        isinstance(item, slice) and isinstance(item.step, Variable) and build.static_size(item.step) is None
    )


def axes_taken(item: Any) -> int:
    """How many axes of the array an item of its index stands for."""
    if item is None:
        return 0
    return item.type.ndim if is_symbolic_mask(item) else 1


def stage(x: Any, items: Sequence[Any]) -> Stage | None:
    """The first step of an index that takes several; None for one that does not."""
    at = next((k for k, i in enumerate(items) if is_symbolic_mask(i) or _has_symbolic_step(i)), None)
    if at is None:
        return None
    before = sum(map(axes_taken, items[:at]))
    if Ellipsis in [i for i in items[:at] if not isinstance(i, Variable)]:
        used = sum(axes_taken(i) for i in items if i is not Ellipsis)
        before += x.type.ndim - used - 1
    if is_symbolic_mask(items[at]):
        return _by_mask(x, items, at, before)
    return _by_step(x, items, at, before)


def _by_mask(x: Any, items: Sequence[Any], at: int, axis: int) -> Stage:
    mask = items[at]
    rank = mask.type.ndim
    if rank == 0:
        raise NotImplementedError("a scalar mask as an index: use tcc.tensor.switch")
    if axis + rank > x.type.ndim:
        raise IndexError(f"too many indices for array: {x} has {x.type.ndim} dimensions, the mask has {rank}")
    known = zip(mask.type.shape, x.type.shape[axis : axis + rank])
    for k, (have, want) in enumerate(known):
        if None not in (have, want) and have != want:
            raise IndexError(
                f"boolean index did not match indexed array along dimension {axis + k}; dimension is {want} but "
                f"corresponding boolean dimension is {have}"
            )
    sizes = list(shape_of(x))
    # the mask must have x's sizes: as an operand beside one that has, it does
    everywhere = build.broadcast_to(scalar_constant(True, "bool"), sizes[axis : axis + rank])
    cache = mask.__dict__.setdefault("_fitted", {})
    key = tuple(sizes[axis : axis + rank])
    if key not in cache:
        cache[key] = flatten(node("and", mask, everywhere).result)
    where = positions(cache[key])
    rest = [*items[:at], where, *items[at + 1 :]]
    if rank == 1:
        return Stage(x, rest, lambda new: new)
    merged = [*sizes[:axis], size_product(sizes[axis : axis + rank]), *sizes[axis + rank :]]
    return Stage(reshape(x, merged), rest, lambda new: reshape(new, sizes))


def _by_step(x: Any, items: Sequence[Any], at: int, axis: int) -> Stage:
    from tcc.indexing import take, write

    n = size_of(x, axis)
    where = stepped(items[at], n)
    index = [slice(None)] * axis + [where]
    rest = [*items[:at], slice(None), *items[at + 1 :]]
    return Stage(take(x, where, axis), rest, lambda new: write(x, index, new, "set"))


def stepped(s: slice, n: Size) -> Any:
    """The positions that a slice names on an axis of size n."""
    step = build.cast(as_variable(as_size(s.step, "a slice's step")), "int64")
    size, zero, minus = size_variable(n), scalar_constant(0, "int64"), scalar_constant(-1, "int64")
    forwards = step > zero
    low, high = switch(forwards, zero, minus), switch(forwards, size, size - 1)

    def bound(b: Any, default: Any) -> Any:
        if b is None:
            return default
        b = build.cast(size_variable(as_size(b, "a slice's bound")), "int64")
        wrapped = build.elementwise("maximum", b + size, low)
        return switch(b < zero, wrapped, build.elementwise("minimum", b, high))

    start = bound(s.start, switch(forwards, low, high))
    stop = bound(s.stop, switch(forwards, high, low))
    span = switch(forwards, stop - start + step - 1, start - stop - step - 1)
    count = build.elementwise("maximum", span // abs(step), zero)
    line = node("iota", shape=[count], axis=0, dtype="i64", types=(tensor_type("int64", (None,)),)).result
    return line * step + start


def written_where(x: Any, items: Sequence[Any], y: Any, mode: str) -> Any:
    """x with one value for all elements under a mask, without looking for their positions; None where that is not it."""
    if not items or not is_symbolic_mask(items[0]):
        return None
    mask = items[0]
    whole = [i is Ellipsis or (isinstance(i, slice) and i == slice(None)) for i in items[1:]]
    rank = x.type.ndim - mask.type.ndim
    if not all(whole) or rank < 0 or y.type.ndim > rank + 1:
        return None
    if y.type.ndim == rank + 1:
        if not y.type.broadcastable[0]:
            return None
        y = dimshuffle(y, *range(1, y.type.ndim))
    value = build.broadcast_to(cast(y, x.type.dtype), shape_of(x))
    where = dimshuffle(mask, *range(mask.type.ndim), *["x"] * rank)
    where = build.broadcast_to(where, shape_of(x))
    if mode == "add":
        value = build.elementwise("add", x, value)
    return node("where", where, value, x).result
