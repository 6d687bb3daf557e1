"""Tensors put together and taken apart: join, stack, split, and what repeats or moves their elements along an axis."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc import build
from tcc.build import as_size, node, shape_of, size_arithmetic, size_of
from tcc.graph import Shown
from tcc.ir.callers import warn
from tcc.shapes import (
    as_sizes,
    dimshuffle,
    flatten,
    rebroadcast,
    reshape,
    shape_padaxis,
    shape_padleft,
    specify_shape,
    vector_items,
)
from tcc.types import promote, tensor_type
from tcc.variable import TensorConstant, Variable, as_variable, scalar_constant


def join(axis: Any, *tensors: Any) -> Any:
    """The tensors one after the other along `axis`; dtypes are promoted."""
    parts = [as_variable(t) for t in tensors]
    if not parts:
        raise ValueError("Cannot join an empty list of tensors")
    rank = parts[0].type.ndim
    if rank == 0:
        raise TypeError("Join cannot handle scalar arguments; stack() them")
    if builtins.any(p.type.ndim != rank for p in parts):
        raise _other_ranks("Join() can only join", parts)
    where = build.static_size(as_variable(axis))
    if where is None:
        from tcc.branches import along

        return along(axis, rank, lambda k: join(k, *parts))
    if not -rank <= where < rank:
        raise IndexError(f"Join value {where} is out of range with the given input dimensions")
    where %= rank
    if len(parts) == 1:
        return parts[0]
    dtype = promote(*(p.type.dtype for p in parts))
    values = [build.cast(p, dtype) for p in parts]
    flagged = [builtins.any(p.type.broadcastable[a] for p in values) for a in range(rank)]
    for k, p in enumerate(values):
        # as in Theano, one flag says that all have size 1 on that axis
        wanted = {a: True for a in range(rank) if a != where and flagged[a] and not p.type.broadcastable[a]}
        values[k] = rebroadcast(p, wanted) if wanted else p
    made = node("concat", *values, axis=where)
    made.shown = Shown("Join", (as_variable(axis), *parts))
    result = made.result
    return result


def concatenate(tensor_list: Sequence[Any], axis: Any = 0) -> Any:
    """The tensors of a list one after the other along `axis`."""
    if not isinstance(tensor_list, list | tuple):
        raise TypeError(
            f"The 'tensors' argument must be either a tuple or a list, make sure you did not forget () or [] around arguments of concatenate. {tensor_list}"
        )
    return join(axis, *tensor_list)


def _other_ranks(what: str, parts: Sequence[Any]) -> TypeError:
    listed = ", ".join(f"{p} of {p.type}" for p in parts[:8])
    more = ", ..." if len(parts) > 8 else ""
    return TypeError(f"{what} tensors with the same number of dimensions, got {listed}{more}")


def stack(*tensors: Any, axis: int = 0, **named: Any) -> Any:
    """The tensors along a new axis: stack([a, b], axis), stack(tensors=[a, b], axis=axis) or stack(a, b)."""
    if set(named) == {"tensors"} and not tensors:
        tensors = (named["tensors"],)
    elif named:
        raise TypeError(f"stack takes tensors and axis, got {', '.join(named)}")
    if len(tensors) == 2 and isinstance(tensors[0], list | tuple) and isinstance(tensors[1], int):
        axis = tensors[1]
        tensors = tensors[:1]
    parts: list[Any] = (
        list(tensors[0]) if len(tensors) == 1 and isinstance(tensors[0], list | tuple) else list(tensors)
    )
    if len(tensors) > 1:
        warn("stack(*tensors) is deprecated: use stack([*tensors])", DeprecationWarning)
    if not parts:
        raise Exception("theano.tensor.stack(tensors, axis) needs at least one tensor")
    values = [as_variable(p) for p in parts]
    rank = values[0].type.ndim + 1
    if not -rank <= axis < rank:
        raise IndexError(f"The axis must be within [-{rank}, {rank}), got {axis}")
    if builtins.any(v.type.ndim != rank - 1 for v in values):
        raise _other_ranks("stack() takes", values)
    if builtins.all(isinstance(v, TensorConstant) for v in values):
        data = np.stack([v.data for v in values], axis % rank)
        return TensorConstant(tensor_type(data.dtype.name, data.shape), data)
    joined = join(axis % rank, *(shape_padaxis(v, axis) for v in values))
    if len(values) == 1:
        joined = rebroadcast(joined, {axis % rank: False})
    elif rank == 1:
        joined.owner.shown = Shown(f"MakeVector{{dtype='{joined.type.dtype}'}}", tuple(values))
    return joined


def stacklists(arg: Any) -> Any:
    """Nested lists of tensors as one tensor."""
    if isinstance(arg, list | tuple):
        return stack([stacklists(a) for a in arg])
    return as_variable(arg)


def split(x: Any, splits_size: Any, n_splits: int, axis: int = 0) -> list[Any]:
    """`n_splits` pieces of x along `axis`, of the sizes in `splits_size`, which must add up to x's."""
    x = as_variable(x)
    axis %= builtins.max(1, x.type.ndim)
    sizes = (
        vector_items(as_variable(splits_size))
        if isinstance(splits_size, Variable)
        else as_sizes(splits_size, "split")
    )
    if sizes is None:
        sizes = [splits_size[i] for i in range(n_splits)]
    if len(sizes) != n_splits:
        raise ValueError(f"split: {len(sizes)} sizes for {n_splits} pieces")
    if any(s < 0 for s in map(build.static_size, sizes) if s is not None):
        raise ValueError(f"split: sizes must not be negative, got {splits_size}")
    total: Any = 0
    starts = []
    for s in sizes:
        starts.append(total)
        # with -1 as 0 the total is wrong where what stands before it reaches too far
        total = size_arithmetic("add", total, size_arithmetic("maximum", s, 0))
    whole = list(shape_of(x))
    known = build.static_size(total), build.static_size(whole[axis])
    if None not in known and known[0] != known[1]:
        raise ValueError(f"The splits sum to {known[0]}, expected {known[1]}")
    shown = Shown(f"Split{{{n_splits}}}", (x,))
    exact = node(
        "reshape", x, shape=[*whole[:axis], total, *whole[axis + 1 :]], shown=shown
    ).result  # checks the sum
    out = []
    for at, s in zip(starts, sizes):
        start = [at if a == axis else 0 for a in range(x.type.ndim)]
        many = [s if a == axis else whole[a] for a in range(x.type.ndim)]
        out.append(node("slice", exact, start=start, size=many, step=[1] * x.type.ndim).result)
    return out


def tile(x: Any, reps: Any, ndim: int | None = None) -> Any:
    """x repeated `reps` times along each axis, the last ones where `reps` are few; a vector of them needs `ndim`, the axes
    of the result."""
    x = as_variable(x)
    if isinstance(reps, float) or isinstance(reps, Variable) and reps.type.numpy_dtype.kind in "fc":
        raise ValueError(f"tile: reps must be integers, got {reps}")
    if isinstance(reps, Variable) and reps.type.ndim > 1:
        raise ValueError(f"tile: reps must be a scalar or a vector, got {reps}, of {reps.type}")
    if isinstance(reps, Variable) and reps.type.ndim and ndim is not None:
        if vector_items(reps) is None:
            count = size_of(reps, 0)
            least = size_arithmetic("minimum", count, ndim)
            count = build.same_size(
                count, least, f"tile: reps has more than the {ndim} elements that ndim says"
            )
            before = build.broadcast_to(
                scalar_constant(1, reps.type.dtype), [size_arithmetic("sub", ndim, count)]
            )
            reps = specify_shape(concatenate([before, reps]), (ndim,))
    many = as_sizes(reps, "tile", ndim)
    rank = builtins.max(len(many), x.type.ndim) if ndim is None else ndim
    if ndim is not None and ndim < len(many):
        raise ValueError("ndim should be equal or larger than reps.size")
    many = [1] * (rank - len(many)) + many
    x = shape_padleft(x, rank - x.type.ndim) if rank > x.type.ndim else x
    sizes = shape_of(x)
    apart: list[Any] = []
    for k in range(rank):
        apart += ["x", k]
    wide = build.broadcast_to(
        dimshuffle(x, *apart), [s for pair in zip(many, sizes) for s in pair], implicit=False
    )
    made = node("reshape", wide, shape=[size_arithmetic("mul", m, s) for m, s in zip(many, sizes)])
    made.shown = Shown("Tile", (x,))
    static = tuple(None if s == 1 and m != 1 else s for m, s in zip(many, made.result.type.shape))
    made.result.type = tensor_type(x.type.dtype, static)
    return made.result


def repeat(x: Any, repeats: Any, axis: int | None = None) -> Any:
    """Each element of x `repeats` (one number) times along `axis`, or of the flattened x."""
    x = as_variable(x)
    if axis is None:
        x, axis = flatten(x), 0
    many = as_size(repeats, "repeats")
    rank = x.type.ndim
    axis %= rank
    sizes = list(shape_of(x))
    spread = dimshuffle(x, *range(axis + 1), "x", *range(axis + 1, rank))
    wide = build.broadcast_to(spread, [*sizes[: axis + 1], many, *sizes[axis + 1 :]], implicit=False)
    return node(
        "reshape", wide, shape=[*sizes[:axis], size_arithmetic("mul", sizes[axis], many), *sizes[axis + 1 :]]
    ).result


def roll(x: Any, shift: int, axis: int | None = None) -> Any:
    """x with its elements moved by `shift` along `axis`, those at the end coming round."""
    x = as_variable(x)
    if axis is None:
        return reshape(roll(flatten(x), shift, 0), list(shape_of(x)))
    axis %= x.type.ndim
    n = size_of(x, axis)
    at = size_arithmetic("mod", shift, n)
    at = size_arithmetic("sub", n, at)
    before = [slice(None)] * axis
    return join(axis, x[(*before, slice(at, None))], x[(*before, slice(None, at))])
