"""Sizes, axes and broadcast flags: shape, reshape, dimshuffle and what they make."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc import build
from tcc.build import (
    as_size,
    node,
    shape_of,
    size_arithmetic,
    size_of,
    size_product,
    size_variable,
    static_size,
)
from tcc.graph import Apply, Shown
from tcc.ir.dims import size_error
from tcc.types import tensor_type
from tcc.variable import TensorConstant, Variable, as_variable


def shape(x: Any) -> Any:
    """The sizes of x as an int64 vector."""
    from tcc.joining import stack

    x = as_variable(x)
    sizes = [size_variable(s) for s in shape_of(x)]
    made = stack(sizes) if sizes else TensorConstant(tensor_type("int64", (0,)), np.zeros(0, "int64"))
    if made.owner is not None:
        made.owner.shown = Shown("Shape", (x,))
    elif x.owner is not None or not isinstance(x, TensorConstant):
        made.sized = x
    return made


def size(x: Any) -> Any:
    """The number of elements, as an int64 scalar."""
    x = as_variable(x)
    made = size_variable(size_product(shape_of(x)))
    if isinstance(made, TensorConstant) and not isinstance(x, TensorConstant):
        made.sized = x
    return made


def get_vector_length_or_none(x: Any) -> int | None:
    """The static length of a vector, by its type or by what it was joined of."""
    if x.type.ndim != 1:
        return None
    known: int | None = x.type.shape[0]
    if known is not None:
        return known
    made = x.owner
    if made is not None and made.name in ("rebroadcast", "identity"):
        return get_vector_length_or_none(made.operands[0])
    if made is None or made.name != "concat":
        return None
    lengths = [get_vector_length_or_none(v) for v in made.operands]
    return None if None in lengths else sum(n for n in lengths if n is not None)


def get_vector_length(x: Any) -> int:
    """The static length of a vector; ValueError where it is only known at run time."""
    x = as_variable(x)
    if x.type.ndim != 1:
        raise TypeError(f"argument must be symbolic vector, got {x.type}")
    length = get_vector_length_or_none(x)
    if length is None:
        raise ValueError(f"length not known: {x}")
    return length


def scalars_of(x: Any) -> list[Any] | None:
    """The scalars that a vector, such as a shape, was stacked from."""
    made = x.owner if x.type.ndim == 1 else None
    while made is not None and made.name in ("rebroadcast", "identity"):
        made = made.operands[0].owner
    if made is None or made.name not in ("concat", "dimshuffle"):
        return None
    parts = made.operands if made.name == "concat" else made.results
    nodes = [p.owner for p in parts]
    if not builtins.all(
        n is not None and n.name == "dimshuffle" and n.operands[0].type.ndim == 0 for n in nodes
    ):
        return None
    return [n.operands[0] for n in nodes]


def vector_items(x: Any) -> list[Any] | None:
    """The elements of a vector whose length is static, as sizes: ints where they are known."""
    if isinstance(x, TensorConstant) and x.ndim == 1:
        return [int(v) for v in x.data]
    length = get_vector_length_or_none(x)
    if length is None:
        return None
    scalars = scalars_of(x)
    if scalars is not None:
        return [v if build.static_size(v) is None else build.static_size(v) for v in scalars]
    return [x[i] for i in range(length)]


def as_sizes(sizes: Any, what: str, length: int | None = None) -> list[Any]:
    """A tuple, number, or vector as a list of sizes; a vector's length is static, or `length`, which running checks."""
    if isinstance(sizes, Variable) and sizes.type.ndim == 1:
        items = vector_items(sizes)
        if items is None and length is not None:
            vector: Any = specify_shape(sizes, (length,), what)
            items = [vector[i] for i in range(length)]
        if items is None:
            raise ValueError(f"{what}: the length of the shape vector {sizes} is not known; pass ndim=")
        return items
    if isinstance(sizes, int | np.integer | Variable):
        return [as_size(sizes, what)]
    return [as_size(s, what) for s in sizes]


def reshape(x: Any, newshape: Any, ndim: int | None = None) -> Any:
    """x's elements in row-major order under another shape; one size may be -1."""
    x = as_variable(x)
    shown = tuple(
        v for v in (newshape if isinstance(newshape, list | tuple) else [newshape]) if isinstance(v, Variable)
    )
    sizes = as_sizes(newshape, "reshape", ndim)
    if ndim is not None and len(sizes) != ndim:
        together = (
            ": sizes go together, as in reshape((2, 3))" if isinstance(newshape, int | np.integer) else ""
        )
        raise ValueError(f"reshape: ndim is {ndim}, but the shape has {len(sizes)} sizes{together}")
    unknown = [k for k, s in enumerate(sizes) if isinstance(s, int) and s == -1]
    if len(unknown) > 1:
        raise ValueError(f"reshape: only one size may be -1, got {newshape}")
    for s in sizes:
        if isinstance(s, int) and s < -1:
            raise ValueError(f"reshape: a size cannot be {s}")
    if unknown:
        others = size_product([s for k, s in enumerate(sizes) if k != unknown[0]])
        total = size_product(shape_of(x))
        if isinstance(total, int) and isinstance(others, int) and (others == 0 or total % others):
            raise ValueError(f"reshape: {total} elements do not fit the shape {newshape}")
        sizes[unknown[0]] = size_arithmetic("floordiv", total, others)
    made = node("reshape", x, shape=sizes)
    made.shown = Shown(f"Reshape{{{len(sizes)}}}", (x, *shown))
    return made.result


def flatten(x: Any, ndim: int = 1, outdim: int | None = None) -> Any:
    """x with its last axes made one, so that `ndim` axes are left."""
    x, ndim = as_variable(x), ndim if outdim is None else outdim
    if not 1 <= ndim <= builtins.max(1, x.type.ndim):
        raise ValueError(f"outdim {ndim} out of bound [1,{x.type.ndim + 1})")
    if x.type.ndim == ndim:
        return x
    sizes = list(shape_of(x))
    return reshape(x, [*sizes[: ndim - 1], size_product(sizes[ndim - 1 :])])


def dimshuffle(x: Any, *pattern: Any) -> Any:
    """x's axes in another order; 'x' is a new axis that broadcasts, an axis left out must broadcast."""
    x = as_variable(x)
    if len(pattern) == 1 and isinstance(pattern[0], list | tuple):
        pattern = tuple(pattern[0])
    order = [-1 if p == "x" else int(p) for p in pattern]
    rank = x.type.ndim
    for p in order:
        if not -1 <= p < rank:
            raise ValueError(f"dimshuffle: there is no axis {p} in {x.type}, the order was {pattern}")
    kept = [p for p in order if p != -1]
    if len(set(kept)) < len(kept):
        raise ValueError(f"dimshuffle: an axis may not appear twice, got {pattern}")
    dropped = [a for a in range(rank) if a not in kept]
    if not builtins.all(x.type.broadcastable[a] for a in dropped):
        raise ValueError(
            "You cannot drop a non-broadcastable dimension.", (list(x.type.broadcastable), tuple(kept))
        )
    if order == list(range(rank)):
        return x
    types = (tensor_type(x.type.dtype, tuple(1 if p == -1 else x.type.shape[p] for p in order)),)
    return node("dimshuffle", x, order=order, types=types).result


def transpose(x: Any, axes: Sequence[int] | None = None) -> Any:
    """x with its axes reversed, or in the order of `axes`."""
    x = as_variable(x)
    reverse = axes is None
    order = list(reversed(range(x.type.ndim))) if axes is None else [a % x.type.ndim for a in axes]
    if len(order) != x.type.ndim:
        raise ValueError(f"transpose: needs {x.type.ndim} axes, got {axes}")
    made = dimshuffle(x, *order)
    if reverse and x.name:
        if made is x:  # of one axis or none
            made = build.elementwise("identity", x)
        made.name = x.name + ".T"
    return made


def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """x with two axes exchanged."""
    x = as_variable(x)
    order = list(range(x.type.ndim))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return dimshuffle(x, *order)


def squeeze(x: Any) -> Any:
    """x without the axes that broadcast."""
    x = as_variable(x)
    return dimshuffle(x, *(a for a, b in enumerate(x.type.broadcastable) if not b))


def shape_padleft(x: Any, n_ones: int = 1) -> Any:
    """x with new axes that broadcast in front."""
    x = as_variable(x)
    return dimshuffle(x, *["x"] * n_ones, *range(x.type.ndim))


def shape_padright(x: Any, n_ones: int = 1) -> Any:
    """x with new axes that broadcast behind."""
    x = as_variable(x)
    return dimshuffle(x, *range(x.type.ndim), *["x"] * n_ones)


def shape_padaxis(x: Any, axis: int) -> Any:
    """x with a new axis that broadcasts at `axis`."""
    x = as_variable(x)
    rank = x.type.ndim + 1
    if not -rank <= axis < rank:
        raise IndexError(f"axis {axis} is out of bounds [-{rank}, {rank})")
    order: list[Any] = list(range(x.type.ndim))
    order.insert(axis % rank, "x")
    return dimshuffle(x, *order)


# -- broadcast flags -------------------------------------------------------------------------------------------------


def rebroadcast(x: Any, flags: dict[int, bool]) -> Any:
    """x with some flags changed.  A new flag is checked when the function runs."""
    x = as_variable(x)
    for axis in flags:
        if not 0 <= axis < builtins.max(1, x.type.ndim):
            raise ValueError(f"there is no axis {axis} in {x.type}")
    static = tuple(
        s if flags.get(a, s == 1) == (s == 1) else 1 if flags[a] else None for a, s in enumerate(x.type.shape)
    )
    for a, (old, new) in enumerate(zip(x.type.shape, static)):
        if new == 1 and old not in (1, None):
            raise ValueError(f"axis {a} of {x} has size {old}; it cannot broadcast")
    if static == x.type.shape:
        return x
    if x.owner is not None and x.owner.defn is build.REBROADCAST and x.owner.operands[0].type.shape == static:
        return x.owner.operands[0]  # there and back
    label = "Rebroadcast{" + ",".join(f"({a},{b})" for a, b in flags.items()) + "}"
    return Apply(
        build.REBROADCAST, (x,), {}, (tensor_type(x.type.dtype, static),), shown=Shown(label, (x,))
    ).result


def addbroadcast(x: Any, *axes: int) -> Any:
    """x with these axes broadcasting."""
    return rebroadcast(x, {a: True for a in axes})


def unbroadcast(x: Any, *axes: int) -> Any:
    """x with these axes not broadcasting."""
    return rebroadcast(x, {a: False for a in axes})


def patternbroadcast(x: Any, broadcastable: Sequence[bool]) -> Any:
    """x with exactly these flags."""
    return rebroadcast(x, dict(enumerate(map(bool, broadcastable))))


def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The elements whose indices on two axes differ by `offset`, along a new last axis."""
    from tcc.creation import arange
    from tcc.elemwise import maximum, minimum

    x = as_variable(x)
    rank = x.type.ndim
    axis1, axis2 = two_axes("diagonal", rank, axis1, axis2)
    rest = [a for a in range(rank) if a not in (axis1, axis2)]
    moved = dimshuffle(x, axis1, axis2, *rest)
    rows, columns = (size_variable(size_of(x, a)) for a in (axis1, axis2))
    down, right = (-offset, 0) if offset < 0 else (0, offset)
    count = maximum(minimum(rows - down, columns - right), 0)
    i = arange(count)
    picked = moved[i + down, i + right]
    return dimshuffle(picked, *range(1, picked.type.ndim), 0)


def two_axes(name: str, rank: int, *axes: int) -> tuple[int, int]:
    """The numbers of two different axes, counted from the front; ValueError (NumPy's AxisError) if they are not there, or one."""
    for axis in axes:
        if not -rank <= axis < rank:
            raise np.exceptions.AxisError(f"{name}: axis {axis} is out of bounds [-{rank}, {rank})")
    first, second = (int(axis) % rank for axis in axes)
    if first == second:
        raise ValueError(f"{name}: axis1 and axis2 are both {first}")
    return first, second


def moveaxis(x: Any, source: Any, destination: Any) -> Any:
    """x with the axes `source` at the places `destination`, the others in their order."""
    x = as_variable(x)
    rank = x.type.ndim
    pairs = zip(*([v] if isinstance(v, int) else list(v) for v in (source, destination)), strict=True)
    moved = {at % rank: a % rank for a, at in pairs}
    rest = iter(a for a in range(rank) if a not in moved.values())
    return dimshuffle(x, *(moved[k] if k in moved else next(rest) for k in range(rank)))


def expand_dims(x: Any, axis: int) -> Any:
    """x with a new axis that broadcasts at `axis`."""
    return shape_padaxis(x, axis)


def specify_shape(x: Any, shape: Any, name: str = "specify_shape") -> Any:
    """`x`, which must have this shape: a vector of sizes, or numbers, variables and None for a size that is not said.

    SpecifiedShapeError, when the function runs at the latest, for an array of another shape; `name` is what messages call `shape`.
    """
    x = as_variable(x)
    if isinstance(shape, Variable):
        vector: Any = specify_shape(shape, (x.type.ndim,), name)
        shape = [vector[k] for k in range(x.type.ndim)]
    given = [None if s is None else as_size(s, f"a size in {name}") for s in shape]
    if len(given) != x.type.ndim:
        raise size_error(f"{name} must have {x.type.ndim} entries, got {shape}")
    known = x.type.shape
    for axis, (have, want) in enumerate(zip(known, given)):
        if have is not None and isinstance(want, int) and have != want:
            raise size_error(f"{name} says that axis {axis} has size {want}, it has {have}")
    if all(want is None or want == have for have, want in zip(known, given)):
        return x
    sizes = [size_of(x, axis) if want is None else want for axis, want in enumerate(given)]
    static = tuple(static_size(s) if have is None else have for s, have in zip(sizes, known))
    flagged = [axis for axis, have in enumerate(known) if have == 1]
    exact = [1 if axis in flagged else size for axis, size in enumerate(sizes)]  # these would stretch
    said: dict[str, Any] = {"shown": Shown(name, (x,)), "implicit": True}
    made = node("broadcast", x, shape=exact, types=(tensor_type(x.type.dtype, static),), **said).result
    return made if exact == sizes else node("reshape", made, shape=sizes, types=(made.type,), **said).result
