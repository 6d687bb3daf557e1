"""Subtensors, and new arrays with a subtensor replaced or added to.

An index is cut into a window (slices and single positions, one `slice` node), then positions given by arrays (one
`gather`), then the order of axes.  A subtensor's node remembers its whole and its index for `set_subtensor`.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tcc import build
from tcc.build import Size, as_size, cast, node, shape_of, size_arithmetic, size_of, static_size
from tcc.elemwise import clip, switch
from tcc.graph import Apply, Shown
from tcc.joining import stack
from tcc.operators import TensorOperators
from tcc.selecting import stage, written_where
from tcc.shapes import addbroadcast, dimshuffle, flatten, reshape, scalars_of
from tcc.types import tensor_type
from tcc.variable import TensorConstant, Variable, as_variable

LSCALAR = tensor_type("int64", ())
NOT_INTEGERS = "index must be integers"
FARTHEST = 1 << 62  # no axis is as long; what is added to a size, or taken from it, stays within 64 bits


@dataclass
class Plan:
    """What an index does.  `start`, `size`, `step` are the window; `single` the axes that a position takes away.

    `arrays` maps axes to index arrays; `order` is the result's axes: ("new",), ("slice", axis) or ("array", k).
    """

    start: list[Size] = field(default_factory=list)
    size: list[Size] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    static: list[int | None] = field(default_factory=list)
    single: list[int] = field(default_factory=list)
    arrays: dict[int, Any] = field(default_factory=dict)
    order: list[tuple[str, int]] = field(default_factory=list)
    whole: bool = True  # the window is everything


def subtensor(x: Any, index: Any) -> Any:
    """x[index], with NumPy's rules: numbers, slices, None, `...`, integer arrays and constant masks."""
    x = as_variable(x)
    items = _items(index)
    parts = _of_made_vector(x, items)
    if parts is not None:
        return parts
    staged = stage(x, items)
    if staged is not None:
        result = subtensor(staged.whole, tuple(staged.rest))
        label = "AdvancedSubtensor"
    else:
        plan = _plan(x, items)
        part = _window(x, plan)
        result = _arranged(_gathered(part, plan), plan)
        if result is x:
            result = build.elementwise("identity", x)
        label = _label(plan, items)
    variables = [v for i in items for v in _variables(i)]
    made: Any = result.owner
    made.shown, made.index = Shown(label, (x, *variables)), (x, tuple(items))
    return result


def _label(plan: Plan, items: Sequence[Any]) -> str:
    if len(plan.arrays) == 1 and list(plan.arrays) == [0] and len(items) == 1:
        return "AdvancedSubtensor1"
    return "AdvancedSubtensor" if plan.arrays else f"Subtensor{{{', '.join(map(_index_label, items))}}}"


def _of_made_vector(x: Any, items: Sequence[Any]) -> Any:
    """An element, or a slice, of a vector of scalars (such as a shape) without the vector."""
    scalars = scalars_of(x) if len(items) == 1 else None
    if scalars is None:
        return None
    (item,) = items
    if isinstance(item, slice) and builtins.all(
        b is None or isinstance(b, int) for b in (item.start, item.stop, item.step)
    ):
        if not scalars[item]:
            return None
        made = build.node("identity", build.cast(stack(scalars[item]), x.type.dtype))
        made.shown = Shown(f"Subtensor{{{_index_label(item)}}}", (x, *_variables(item)))
        made.index = (x, (item,))
        return made.result
    at = static_size(item) if isinstance(item, int | np.integer | TensorConstant) else None
    if at is None or not -len(scalars) <= at < len(scalars):
        return None  # what is out of bounds is an error when the function runs
    made = build.node("identity", build.cast(scalars[at], x.type.dtype))
    made.shown, made.index = Shown("Subtensor{int64}", (x, as_variable(at))), (x, (at,))
    return made.result


def _items(index: Any) -> list[Any]:
    """The index as a list of what numpy would take for each axis."""
    if isinstance(index, list) and builtins.any(
        isinstance(i, slice) or i is None or i is Ellipsis for i in index
    ):
        index = tuple(index)
    items = list(index) if isinstance(index, tuple) else [index]
    out: list[Any] = []
    for item in items:
        if isinstance(item, bool | np.bool_):
            raise TypeError(f"{NOT_INTEGERS}, slices or arrays, got the bool {item}")
        if isinstance(item, float | np.floating):
            raise TypeError(f"{NOT_INTEGERS}, got {item!r}")
        if isinstance(item, list | tuple):
            item = (
                as_variable(item) if _has_variable(item) else np.asarray(item, None if len(item) else "int64")
            )
        if isinstance(item, np.ndarray):
            if item.dtype == bool:
                out += [as_variable(k) for k in item.nonzero()]
                continue
            item = as_variable(item)
        if isinstance(item, TensorConstant) and item.dtype == "bool":
            out += [as_variable(k) for k in item.data.nonzero()]
            continue
        if isinstance(item, Variable) and not isinstance(item, TensorOperators):
            raise TypeError(f"{NOT_INTEGERS}, slices or arrays, got a variable of {item.type}")
        if isinstance(item, TensorOperators) and item.dtype[:3] not in ("int", "uin", "boo"):
            raise TypeError(
                f"{NOT_INTEGERS}, got {item}, of {item.type}: make it of integers (T.ivector, T.lscalar, a // b), or cast it"
            )
        out.append(item)
    return out


def _has_variable(items: Any) -> bool:
    return builtins.any(
        isinstance(i, Variable) or (isinstance(i, list | tuple) and _has_variable(i)) for i in items
    )


def _is_array(item: Any) -> bool:
    return isinstance(item, TensorOperators) and item.ndim > 0


class Rules:
    """What an index means where Theano and NumPy differ."""

    # Theano makes new axes by a dimshuffle of the axes that the index names, which drops the others if these broadcast: then
    # `m[:, None]` of a column m is m.  Set when a program imports `theano`.
    new_axes_drop = False


def _left_out(x: Any, items: Sequence[Any], used: int) -> list[Any]:
    """What is taken of the axes behind those that an index names."""
    rest = x.type.broadcastable[used:]
    basic = not builtins.any(_is_array(i) for i in items)
    if Rules.new_axes_drop and basic and builtins.all(rest) and builtins.any(i is None for i in items):
        return [0] * len(rest)
    return [slice(None)] * len(rest)


def _plan(x: Any, items: Sequence[Any]) -> Plan:
    rank = x.type.ndim
    used = builtins.sum(1 for i in items if i is not None and i is not Ellipsis)
    if builtins.sum(1 for i in items if i is Ellipsis) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if used > rank:
        raise IndexError(f"too many indices for array: {x} has {rank} dimensions, the index has {used}")
    full: list[Any] = []
    for item in items:
        full += [slice(None)] * (rank - used) if item is Ellipsis else [item]
    if Ellipsis not in [i for i in items if not isinstance(i, Variable)]:
        full += _left_out(x, items, used)
    advanced = builtins.any(_is_array(i) for i in full)
    plan, axis = Plan(), 0
    for item in full:
        if item is None:
            plan.order.append(("new", -1))
            continue
        n = size_of(x, axis)
        if isinstance(item, slice):
            start, size, step, static = _slice(item, n)
            plan.order.append(("slice", axis))
        elif _is_array(item) or advanced:
            plan.arrays[axis] = as_variable(item)
            start, size, step, static = 0, n, 1, x.type.shape[axis]
            plan.order.append(("array", axis))
        else:
            start, size, step, static = _position(item, n, axis), 1, 1, 1
            plan.single.append(axis)
        if not (size is n and step == 1):
            plan.whole = False
        elif x.type.shape[axis] == 1:
            static = 1
        plan.start.append(start)
        plan.size.append(size)
        plan.step.append(step)
        plan.static.append(static)
        axis += 1
    return plan


def _position(i: Any, n: Size, axis: int) -> Size:
    """A position from the start, checked when the function runs."""
    i = as_size(i, "index")
    if isinstance(i, int) and isinstance(n, int) and -n <= i < n:
        return i % n
    made = Apply(
        build.INDEX, (build.size_variable(i),), {"bound": n, "axis": axis}, (LSCALAR,), implicit=True
    )
    return made.result


def _bound(b: Any) -> Size | None:
    if b is None:
        return None
    if isinstance(b, Variable) and b.type.ndim:
        raise TypeError(f"{NOT_INTEGERS}: a slice's bound must be a scalar, got {b.type}")
    size = as_size(b, "a slice's bound")
    return max(-FARTHEST, min(size, FARTHEST)) if isinstance(size, int) else size


def _slice(s: slice, n: Size) -> tuple[Size, Size, int, int | None]:
    """(start, size, step, static size) of a slice of an axis of size n, clipped as Python does."""
    step = _bound(s.step)
    if step is None:
        step = 1
    if not isinstance(step, int):
        raise NotImplementedError("the step of a slice must be known when the graph is built")
    if step == 0:
        raise ValueError("slice step cannot be zero")
    start, stop = _bound(s.start), _bound(s.stop)
    if (
        isinstance(n, int)
        and (start is None or isinstance(start, int))
        and (stop is None or isinstance(stop, int))
    ):
        first, last, by = slice(start, stop, step).indices(n)
        count = len(range(first, last, by))
        # as in Theano, an axis of size 1 broadcasts only if it did before
        return (first if count else 0), count, by, count if count != 1 or n == 1 else None
    if step > 0:
        low = _clipped(start, n, 0, 0, n)
        high = n if stop is None else _clipped(stop, n, 0, 0, n)
        span = n if start in (None, 0) and stop is None else _minus(high, low)
    else:
        top = _minus(n, 1)
        low = top if start is None else _clipped(start, n, -1, -1, top)
        high = -1 if stop is None else _clipped(stop, n, -1, -1, top)
        span = n if start is None and stop is None else _minus(low, high)
    if abs(step) != 1:
        span = size_arithmetic("floordiv", size_arithmetic("add", span, abs(step) - 1), abs(step))
    size = span if span is n or _surely_positive(s, step) else size_arithmetic("maximum", span, 0)
    first_at = low if step > 0 else size_arithmetic("maximum", low, 0)
    return first_at, size, step, None


def _surely_positive(s: slice, step: int) -> bool:
    """Where a span cannot be negative: one bound is the end of the axis."""
    return s.start is None or s.stop is None


def _minus(a: Size, b: Size) -> Size:
    return a if isinstance(b, int) and b == 0 else size_arithmetic("sub", a, b)


def _clipped(b: Size | None, n: Size, default: int, low: int, high: Size) -> Size:
    """A bound as a position within low..high, negatives counted from the end."""
    if b is None:
        return default
    if isinstance(b, int):
        if b >= 0:
            return b if b == 0 else size_arithmetic("minimum", b, high)
        return size_arithmetic("maximum", size_arithmetic("add", n, b), low)
    if _a_size(b):
        return size_arithmetic("minimum", b, high)
    whole = cast(b, "int64")
    size = build.size_variable(n)
    counted = switch(whole < 0, whole + size, whole)
    return size_arithmetic("maximum", size_arithmetic("minimum", counted, high), low)


def _a_size(v: Any) -> bool:
    """Whether a scalar is the size of some array."""
    return v.owner is not None and v.owner.name == "shape_of"


def _window(x: Any, plan: Plan) -> Any:
    if plan.whole:
        return x
    types = (tensor_type(x.type.dtype, tuple(plan.static)),)
    return node("slice", x, start=plan.start, size=plan.size, step=plan.step, types=types).result


def _gathered(part: Any, plan: Plan) -> Any:
    """With arrays: their axes in front, then the others; single positions are among the arrays then."""
    if not plan.arrays:
        return part
    axes = sorted(plan.arrays)
    arrays = [_index_array(plan.arrays[a]) for a in axes]
    arrays = build.broadcast_together("AdvancedSubtensor", arrays)
    checked = [
        Apply(build.INDICES, (i,), {"bound": size_of(part, a), "axis": a}, (i.type,), implicit=True).result
        for a, i in zip(axes, arrays)
    ]
    return node("gather", part, *checked, axes=axes).result


def _index_array(i: Any) -> Any:
    return cast(i, "int64")


def _arranged(made: Any, plan: Plan) -> Any:
    """The axes in the order that the index says, new ones included."""
    if not plan.arrays:
        order: list[Any] = [a if kind == "slice" else "x" for kind, a in plan.order]
        return dimshuffle(made, *order)
    rank = max(i.ndim for i in plan.arrays.values())
    left = [a for a in range(len(plan.start)) if a not in plan.arrays]
    where = {a: rank + k for k, a in enumerate(left)}
    kinds = [kind for kind, _ in plan.order]
    first, last = kinds.index("array"), len(kinds) - 1 - kinds[::-1].index("array")
    together = builtins.all(k == "array" for k in kinds[first : last + 1])
    order = [] if together else list(range(rank))
    for k, (kind, a) in enumerate(plan.order):
        if kind == "array":
            order += list(range(rank)) if together and k == first else []
        else:
            order.append(where[a] if kind == "slice" else "x")
    return dimshuffle(made, *order)


def _index_label(item: Any) -> str:
    if isinstance(item, slice):
        bounds = [_index_label(b) if b is not None else "" for b in (item.start, item.stop)]
        return ":".join(bounds) + ":" + (_index_label(item.step) if item.step is not None else "")
    if isinstance(item, Variable):
        return str(item.type.dtype)
    return "None" if item is None else "..." if item is Ellipsis else "int64"


def _variables(item: Any) -> list[Variable]:
    if isinstance(item, slice):
        return [v for b in (item.start, item.stop, item.step) for v in _variables(b)]
    if isinstance(item, Variable):
        return [item]
    if isinstance(item, int | np.integer):
        return [as_variable(int(item))]
    return []


# -- writing ---------------------------------------------------------------------------------------------------------


def set_subtensor(x: Any, y: Any, inplace: bool = False, tolerate_inplace_aliasing: bool = False) -> Any:
    """The whole that the subtensor x was cut from, with y in its place."""
    return _written(x, y, "set")


def inc_subtensor(
    x: Any,
    y: Any,
    inplace: bool = False,
    set_instead_of_inc: bool = False,
    tolerate_inplace_aliasing: bool = False,
) -> Any:
    """The whole that the subtensor x was cut from, with y added in its place; repeated indices add up."""
    return _written(x, y, "set" if set_instead_of_inc else "add")


def _written(x: Any, y: Any, mode: str) -> Any:
    x, y = as_variable(x), as_variable(y)
    if y.type.ndim > x.type.ndim:
        raise TypeError(
            f"Trying to increment a {x.type.ndim}-dimensional subtensor with a {y.type.ndim}-dimensional value."
        )
    made = x.owner
    if made is None:
        raise TypeError("x must be the result of a subtensor operation")
    if made.index is not None:
        whole, index = made.index
        return write(whole, index, y, mode)
    if made.name == "dimshuffle":
        return _through_dimshuffle(made, y, mode)
    if made.name == "reshape":
        inner = made.operands[0]
        value = build.broadcast_to(cast(y, x.type.dtype), shape_of(x))
        return _written(inner, reshape(value, list(shape_of(inner))), mode)
    if made.name in ("rebroadcast", "identity"):
        return _written(made.operands[0], y, mode)
    raise TypeError(f"x must be the result of a subtensor operation, got {x}, made by {made.name}")


def _through_dimshuffle(made: Apply, y: Any, mode: str) -> Any:
    order, inner = list(made.attrs["order"]), made.operands[0]
    value = dimshuffle(y, *["x"] * (len(order) - y.type.ndim), *range(y.type.ndim))
    back = [order.index(a) if a in order else "x" for a in range(inner.type.ndim)]
    return _written(inner, _reordered(value, back), mode)


def _reordered(value: Any, order: Sequence[Any]) -> Any:
    """dimshuffle, which drops axes that indexing added; a run checks that they have one element."""
    dropped = (k for k in range(value.type.ndim) if k not in order)
    return dimshuffle(addbroadcast(value, *dropped), *order)


def write(x: Any, index: Any, y: Any, mode: str) -> Any:
    """x with y at x[index]."""
    items = _items(tuple(index))
    whole = written_where(x, items, y, mode)
    if whole is not None:
        return whole
    staged = stage(x, items)
    if staged is not None:
        return staged.back(write(staged.whole, staged.rest, y, mode))
    plan = _plan(x, items)
    target = _arranged(_gathered(_window(x, plan), plan), plan)
    y = cast(y, x.type.dtype)
    value = _stretched(y, target)
    variables = [v for i in items for v in _variables(i)]
    kind = "Set" if mode == "set" else "Inc"
    if not plan.arrays:
        order = {a: k for k, (how, a) in enumerate(plan.order) if how == "slice"}
        value = _reordered(value, [order.get(a, "x") for a in range(x.type.ndim)])
        made = node("insert", x, value, start=plan.start, size=plan.size, step=plan.step, mode=mode)
        title = ", ".join(_index_label(i) for i in items)
        made.shown = Shown(f"IncSubtensor{{{kind};{title}}}", (x, y, *variables))
        return made.result
    part = _window(x, plan)
    gathered = _gathered(part, plan).owner
    value = _reordered(value, _back(plan, target))
    made = node("scatter", part, value, *gathered.operands[1:], axes=gathered.attrs["axes"], mode=mode)
    made.shown = Shown(f"AdvancedIncSubtensor{{{kind}}}", (x, y, *variables))
    if plan.whole:
        return made.result
    done = node("insert", x, made.result, start=plan.start, size=plan.size, step=plan.step, mode="set")
    done.shown = Shown(f"AdvancedIncSubtensor{{{kind}}}", (x, y, *variables))
    return done.result


def _stretched(y: Any, target: Any) -> Any:
    """y in the shape of the target: flagged axes stretch."""
    sizes: list[Size] = list(shape_of(target))
    return build.broadcast_to(y, sizes)


def _back(plan: Plan, target: Any) -> list[Any]:
    """From the axes of the subtensor to those that `gather` gives."""
    rank = max(i.ndim for i in plan.arrays.values())
    kinds = [kind for kind, _ in plan.order]
    first, last = kinds.index("array"), len(kinds) - 1 - kinds[::-1].index("array")
    together = builtins.all(k == "array" for k in kinds[first : last + 1])
    position: dict[Any, int] = {}
    at = 0
    if not together:
        position.update({("index", k): k for k in range(rank)})
        at = rank
    for k, (kind, a) in enumerate(plan.order):
        if kind == "array":
            if together and k == first:
                position.update({("index", j): at + j for j in range(rank)})
                at += rank
            continue
        if kind == "slice":
            position[("axis", a)] = at
        at += 1
    left = [a for a in range(len(plan.start)) if a not in plan.arrays]
    return [*(position[("index", k)] for k in range(rank)), *(position[("axis", a)] for a in left)]


def take(a: Any, indices: Any, axis: int | None = None, mode: str = "raise") -> Any:
    """The elements at `indices` along `axis`, or of the flattened array; mode raise, clip or wrap."""
    a, indices = as_variable(a), as_variable(indices)
    if axis is None:
        a, axis = flatten(a), 0
    axis %= a.type.ndim
    if mode == "clip":
        indices = clip(indices, 0, build.size_variable(size_of(a, axis)) - 1)
    elif mode == "wrap":
        indices = indices % build.size_variable(size_of(a, axis))
    elif mode != "raise":
        raise ValueError(f"take: mode must be raise, clip or wrap, got {mode!r}")
    return a[(*[slice(None)] * axis, indices)]
