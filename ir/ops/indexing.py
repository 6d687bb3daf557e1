"""Rows that read and write parts of arrays, and the checks of their indices.

`gather` and `scatter` count negative indices from the end and never fail: `check_index` before them does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.ir.core import Attrs, Block
from tcc.ir.dims import size_error
from tcc.ir.ops.rules import (
    ORDERED,
    linear,
    linear_in_all,
    per_element,
    want_axes,
    want_dtype,
    want_rank,
    want_same_dtype,
    want_shape,
)
from tcc.ir.ops.shape import want_window, window
from tcc.ir.optable import REQUIRED, OpDef, Sample, define
from tcc.ir.types import INTEGERS, Type

MODES = ("set", "add")


def want_mode(row: str, mode: str) -> None:
    if mode not in MODES:
        raise TypeError(f"{row}: the mode must be set or add, got {mode!r}")


# -- a window --------------------------------------------------------------------------------------------------------


def insert_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    x, v = types
    want_mode("insert", attrs["mode"])
    want_same_dtype("insert", types)
    want_window("insert", x, attrs)
    want_shape("insert", "v", v, tuple(attrs["size"]), "the window")
    return [x]


def insert_ref(
    x: Any, v: Any, start: Sequence[int], size: Sequence[int], step: Sequence[int], mode: str
) -> Any:
    out = np.array(x)
    part = window(start, size, step)
    out[part] = v if mode == "set" else out[part] + v
    return out


def _window_attrs(attrs: Attrs) -> Attrs:
    return {k: attrs[k] for k in ("start", "size", "step")}


def insert_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    where = _window_attrs(op.attrs)
    by_v = b.slice(g[0], **where)
    if op.attrs["mode"] == "add":
        return [g[0], by_v]
    return [b.insert(g[0], b.full(0, op.operands[1]), mode="set", **where), by_v]


define(
    OpDef(
        "insert",
        "x, v",
        insert_type,
        insert_ref,
        {"start": REQUIRED, "size": REQUIRED, "step": REQUIRED, "mode": "set"},
        doc="x with the window that `slice` would read replaced by v, or v added to it.",
        grad=insert_grad,
        rop=linear_in_all("insert"),
        kernel=True,
        reuse=(0,),
        samples=(
            Sample(("f32[5,6]", "f32[3,3]"), {"start": (1, 0), "size": (3, 3), "step": (1, 2)}),
            Sample(("f64[5]", "f64[2]"), {"start": (4,), "size": (2,), "step": (-2,), "mode": "add"}),
            Sample(("i64[5]", "i64[0]"), {"start": (0,), "size": (0,), "step": (1,)}),
        ),
    )
)

# -- index arrays ----------------------------------------------------------------------------------------------------


def want_indices(row: str, indices: Sequence[Type], axes: Sequence[int], rank: int) -> None:
    """One index array for each of `axes`, all of one integer dtype and one shape."""
    want_axes(row, axes, rank)
    if not axes or len(indices) != len(axes):
        raise TypeError(f"{row}: needs one index array for each of its axes {list(axes)}, got {len(indices)}")
    for i, t in enumerate(indices):
        want_dtype(row, f"indices[{i}]", t, INTEGERS)
        want_shape(row, f"indices[{i}]", t, indices[0].shape, "indices[0]")
    want_same_dtype(row, indices)


def gather_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    (x, *indices), axes = types, attrs["axes"]
    want_indices("gather", indices, axes, x.rank)
    rest = [s for a, s in enumerate(x.shape) if a not in axes]
    return [x.with_shape(*indices[0].shape, *rest)]


def indexed_first(x: Any, axes: Sequence[int]) -> Any:
    """A view of x with the indexed axes in front."""
    return np.transpose(x, [*axes, *(a for a in range(np.ndim(x)) if a not in axes)])


def gather_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    x, *indices = op.operands
    axes = op.attrs["axes"]
    return [b.scatter(b.full(0, x), g[0], *indices, axes=axes, mode="add"), *[None] * len(indices)]


define(
    OpDef(
        "gather",
        "x, *indices",
        gather_type,
        lambda x, *indices, axes: indexed_first(x, axes)[tuple(np.asarray(i) for i in indices)],
        {"axes": REQUIRED},
        doc="The elements of x at `indices` along `axes`: the indices' shape, then x's other axes in order.",
        grad=gather_grad,
        rop=linear("gather"),
        kernel=True,
        flops=per_element(1),
        samples=(
            Sample(("f32[5,4]", "i64[3]"), {"axes": (0,)}),
            Sample(("f64[3,4,5]", "i32[2,2]"), {"axes": (1,)}),
            Sample(("f32[5,4]", "i64[3]", "i64[3]"), {"axes": (0, 1)}),
            Sample(("f64[4,3,5]", "i64[2]", "i64[2]"), {"axes": (0, 2)}),
            Sample(("f32[5]", "i64[]"), {"axes": (0,)}),
        ),
    )
)


def scatter_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    (x, v, *indices), axes = types, attrs["axes"]
    want_mode("scatter", attrs["mode"])
    want_same_dtype("scatter", [x, v])
    want_indices("scatter", indices, axes, x.rank)
    rest = [s for a, s in enumerate(x.shape) if a not in axes]
    want_shape("scatter", "v", v, (*indices[0].shape, *rest), "what the indices name")
    return [x]


def scatter_ref(x: Any, v: Any, *indices: Any, axes: Sequence[int], mode: str) -> Any:
    out = np.array(x)
    target = indexed_first(out, axes)
    where = tuple(np.asarray(i) for i in indices)
    if mode == "add":
        np.add.at(target, where, v)
    else:
        target[where] = v
    return out


def scatter_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    _, v, *indices = op.operands
    axes = op.attrs["axes"]
    by_v = b.gather(g[0], *indices, axes=axes)
    by_x = g[0]
    if op.attrs["mode"] == "set":
        by_x = b.scatter(g[0], b.full(0, v), *indices, axes=axes, mode="set")
    return [by_x, by_v, *[None] * len(indices)]


define(
    OpDef(
        "scatter",
        "x, v, *indices",
        scatter_type,
        scatter_ref,
        {"axes": REQUIRED, "mode": "set"},
        doc="x with what `gather` would read replaced by v (the last of repeated indices wins), or v added to it.",
        grad=scatter_grad,
        rop=linear_in_all("scatter", 2),
        kernel=True,
        reuse=(0,),
        samples=(
            Sample(("f32[5,4]", "f32[3,4]", "i64[3]"), {"axes": (0,), "mode": "add"}),
            Sample(("f64[3,4,5]", "f64[2,3,5]", "i32[2]"), {"axes": (1,), "mode": "add"}),
            Sample(("f32[5,4]", "f32[3]", "i64[3]", "i64[3]"), {"axes": (0, 1), "mode": "add"}),
            Sample(("f32[5]", "f32[]", "i64[]"), {"axes": (0,)}),
            Sample(("i64[5]", "i64[3]", "i64[3]"), {"axes": (0,)}),
        ),
    )
)

# -- where ------------------------------------------------------------------------------------------------------------


def positions_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    (c,) = types
    want_dtype("positions", "c", c, frozenset({"bool"}))
    want_rank("positions", "c", c, 1)
    return [Type("i64", (attrs["count"],))]


def positions_ref(c: Any, count: int) -> Any:
    found = np.flatnonzero(c)
    assert len(found) == count, f"positions: {len(found)} elements hold, count is {count}"
    return found.astype(np.int64)


define(
    OpDef(
        "positions",
        "c",
        positions_type,
        positions_ref,
        {"count": REQUIRED},
        doc="The indices of the elements that hold, ascending; `count` must be their number.",
        kernel=True,
        flops=lambda op: op.operands[0].type.size,
        samples=(Sample(("bool[0]",), {"count": 0}),),
    )
)


def searchsorted_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    x, v = types
    want_rank("searchsorted", "x", x, 1)
    want_same_dtype("searchsorted", types)
    want_dtype("searchsorted", "x", x, ORDERED)
    if attrs["side"] not in ("left", "right"):
        raise TypeError(f"searchsorted: the side must be left or right, got {attrs['side']}")
    return [v.with_dtype("i64")]


def searchsorted_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    return [b.full(0, v) for v in op.operands]


define(
    OpDef(
        "searchsorted",
        "x, v",
        searchsorted_type,
        lambda x, v, side: np.asarray(np.searchsorted(x, v, side), np.int64),
        {"side": "left"},
        doc="Where each element of v has to be put in x, which ascends, so that it goes on ascending: before equal "
        "elements (left) or behind them (right).",
        grad=searchsorted_grad,
        kernel=True,
        flops=per_element(40),
        samples=(
            Sample(("f32[0]", "f32[3]")),
            Sample(("f64[1]", "f64[3,4]"), {"side": "right"}),
            Sample(("i64[1]", "i64[]")),
        ),
    )
)

# -- checks ----------------------------------------------------------------------------------------------------------


def check_index_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    want_dtype("check_index", "i", types[0], INTEGERS)
    return []


def check_index_ref(i: Any, bound: int, axis: int) -> tuple[()]:
    bad = np.asarray(i)[(np.asarray(i) < -bound) | (np.asarray(i) >= bound)]
    if bad.size:
        raise IndexError(f"index {bad.flat[0]} is out of bounds for axis {axis} with size {bound}")
    return ()


define(
    OpDef(
        "check_index",
        "i",
        check_index_type,
        check_index_ref,
        {"bound": REQUIRED, "axis": 0},
        doc="IndexError unless every index lies in -bound..bound-1; `axis` is for the message.",
        kernel=True,
        pure=False,
        fails=True,
        samples=(Sample(("i64[3]",), {"bound": 3}),),
    )
)


def check_size_ref(left: int, right: int, message: str) -> tuple[()]:
    if left != right:
        raise size_error(f"{message} ({left} against {right})")
    return ()


define(
    OpDef(
        "check_size",
        "",
        lambda types, attrs, blocks: [],
        check_size_ref,
        {"left": REQUIRED, "right": REQUIRED, "message": "sizes differ"},
        doc="ValueError with `message` unless the two sizes are equal.",
        kernel=True,
        pure=False,
        fails=True,
        samples=(Sample((), {"left": 3, "right": 3}),),
    )
)


def bind_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    if types[0] != Type("i64"):
        raise TypeError(f"bind: operand v must be i64[], got {types[0]}")
    size = attrs["size"]
    if isinstance(size, int) or size.plain is None:
        raise TypeError(f"bind: the size must be a name, got {size}")
    return []


define(
    OpDef(
        "bind",
        "v",
        bind_type,
        None,  # the interpreter and the driver take the value as the size
        {"size": REQUIRED},
        doc="Names a run-time number as a size; ValueError if it is negative.",
        pure=False,
        fails=True,
    )
)


def refine_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    (t,), wanted = types, attrs["type"].value
    if wanted.dtype != t.dtype or wanted.rank != t.rank:
        raise TypeError(f"refine: {t} cannot be {wanted}")
    return [wanted]


def refine_ref(x: Any, type: Type) -> Any:
    if np.shape(x) != tuple(type.shape):
        raise ValueError(f"refine: sizes differ: got {list(np.shape(x))}, wanted {list(type.shape)}")
    return x


define(
    OpDef(
        "refine",
        "x",
        refine_type,
        refine_ref,
        {"type": REQUIRED},
        doc="x, whose sizes are found to be those of `type`; ValueError if they are not.",
        grad=lambda b, op, g: [b.refine(g[0], type=Type(b.dtype(op.operands[0]), b.shape(op.operands[0])))],
        rop=linear("refine"),
        view=0,
        pure=False,
        fails=True,
        samples=(Sample(("f32[3,4]",), {"type": Type("f32", (3, 4))}),),
    )
)
