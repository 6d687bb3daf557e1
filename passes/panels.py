"""Second factors of matrix products that are copied into panels once, for all the products that read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.ops.linalg import panel_count, panels_ref
from tcc.ir.types import Type, itemsize, memory_dtype
from tcc.passes.checks import guarded, names_bound
from tcc.passes.fold import constant, of_numbers
from tcc.passes.hoist import LOOPS
from tcc.passes.manager import Context
from tcc.passes.writes import VIEWS
from tcc.runtime.panels import Layout

# Of a factor whose rows lie as tiles read them: smaller ones are read in place as fast.
CONSTANT_BYTES = 1 << 19
LOOP_BYTES = 1 << 21  # steps find smaller ones in the second-level cache, and read them in place
COPIED_BYTES = 1 << 15  # where each step would copy them
KEPT_BYTES = 1 << 13  # of a variable whose panels are kept from call to call
KEPT_ROWS = 512  # rows that use a copy
FEW_COLUMNS = 64  # two panels: such products take other forms
SPARE_BYTES = 1 << 16  # of zeros behind the few columns of what nothing updates
FROZEN = "frozen"  # an attribute of a function: names of shared variables that nothing updates


def panels(
    func: Func, ctx: Context, *, row_bytes: int = 0, loop_bytes: int = LOOP_BYTES, keep: bool = False
) -> None:
    """Copies constants, and what products of a loop's steps read again and again, into the panels of register tiles.

    `row_bytes` of a panel are those of a row of the target's widest tile; 0 leaves all as it is.  A factor whose rows are not
    contiguous would be copied by each product, as would any where tiles want copies; one that is large is read from far memory,
    which likes it in one piece: steps that read `loop_bytes` or more gain from panels.
    Panels of a FROZEN parameter are a parameter of their own, which `layouts` describes.  With `keep`, so are those of any
    shared variable that the function does not update, which are read, or need not be made, when they are there.
    """
    if not row_bytes:
        return
    bound = names_bound(func.body)
    made: dict[tuple[Value, Op | None], Value] = {}
    for op in list(func.body.walk()):
        if op.name != "matmul" or op.attrs["columns"] is not None:
            continue
        b = op.operands[1]
        width = row_bytes // itemsize(b.type.dtype)
        factor = _factor(func, b)
        loop = None if factor.frozen or factor.constant else _outermost_loop(op, b)
        problem = _problem(op, factor, loop, bound, loop_bytes, width)
        kept = _kept(func, op, factor, width) if keep else None
        if problem and kept is not None:
            op.set_operands([*op.operands, kept])
            op.attrs = {**op.attrs, "kept": True}
            continue
        if problem:
            ctx.remark(op, f"no panels: {problem}")
            continue
        if (b, loop) not in made:
            made[b, loop] = _made(func, factor, loop, width, kept)
        op.attrs = {**op.attrs, "columns": b.type.shape[1]}
        op.set_operand(1, made[b, loop])
        for view in factor.views:
            if view.parent is not None and not view.result.uses:
                view.erase()


class _Factor(NamedTuple):
    """The second factor of a product: `value` is what `views`, the last one first, see of `source`."""

    value: Value
    views: list[Op]
    source: Value
    constant: bool = False
    layout: Layout | None = None  # where it stands in a shared variable that the function does not update
    frozen: bool = False  # nothing else updates that variable either


def _factor(func: Func, b: Value) -> _Factor:
    views, source = _seen_through(b)
    if not all(of_numbers(v.attrs) for v in views):
        return _Factor(b, views, source)
    layout = _layout(func, source, views)
    frozen = layout is not None and layout.source in func.attrs.get(FROZEN, ())
    return _Factor(b, views, source, _constant(source), layout, frozen)


def _seen_through(b: Value) -> tuple[list[Op], Value]:
    """The views that make `b`, the last one first, and what they see."""
    views = []
    while b.op is not None and b.op.name in VIEWS:
        views.append(b.op)
        b = b.op.operands[0]
    return views, b


def _constant(source: Value) -> bool:
    return source.op is not None and source.op.name == "const" and np.ndim(source.op.attrs["value"]) > 0


def _layout(func: Func, source: Value, views: Sequence[Op]) -> Layout | None:
    """Where a matrix seen through `views` stands in a shared variable that the function does not update."""
    updated = source.name in func.attrs.get("updates", {})
    shared = source.block is func.body and source.op is None and source.name in func.attrs.get("shared", ())
    if not shared or updated:
        return None
    shape = [s for s in source.type.shape if isinstance(s, int)]
    if len(shape) < source.type.rank:
        return None
    whole = np.empty(shape, memory_dtype(source.type.dtype))
    seen = whole
    for view in reversed(views):
        assert view.defn.ref is not None
        seen = view.defn.ref(seen, **view.attrs)
    if seen.ndim != 2 or not seen.size or not np.may_share_memory(seen, whole):
        return None
    at = (seen.ctypes.data - whole.ctypes.data) // whole.itemsize
    (k, n), (rows, columns) = seen.shape, (s // whole.itemsize for s in seen.strides)
    return Layout(f"{source.name}.{at}.{k}.{n}.{rows}.{columns}", source.name, at, k, n, rows, columns)


def layouts(func: Func) -> list[Layout]:
    """The parameters that are panels of others."""
    return [Layout(*made) for made in func.attrs.get("panels", ())]


def _kept(func: Func, product: Op, factor: _Factor, width: int) -> Value | None:
    """The parameter for panels of the second factor that stay from call to call, if they do."""
    if factor.layout is None or factor.frozen or _not_kept(product, factor.layout, width):
        return None
    return _parameter(func, factor.value, factor.layout, width)


def _not_kept(product: Op, layout: Layout, width: int) -> str:
    """Why panels of the second factor, a part of a variable that stays as it is, are not kept from call to call, or ""."""
    a, b = (v.type for v in product.operands[:2])
    if layout.k * layout.n * itemsize(b.dtype) < KEPT_BYTES:
        return f"{b} is small"
    if isinstance(a.shape[0], int) and a.shape[0] > KEPT_ROWS:
        return f"{a} has rows enough to pay for copies in each call"
    return _unfit(b, width)


def _parameter(func: Func, b: Value, layout: Layout, width: int) -> Value:
    for p in func.body.params:
        if p.name == layout.name:
            return p
    k, n = b.type.shape
    func.attrs["shared"] = [*func.attrs["shared"], layout.name]
    func.attrs["panels"] = [*func.attrs.get("panels", ()), list(layout)]
    return func.body.add_param(b.type.with_shape(panel_count(n, width), k, width), layout.name)


def _unfit(b: Type, width: int) -> str:
    """Why a factor that nothing updates, whose panels cost no time, has none, or ""."""
    k, n = b.shape
    assert isinstance(k, int) and isinstance(n, int)
    if b.dtype not in ("f32", "f64") or n <= width // 4:  # few columns are summed along k
        return f"they are not for {b}"
    spare = (-n % width) * k * itemsize(b.dtype)
    return f"{spare} bytes of them would be zeros" if n <= FEW_COLUMNS and spare > SPARE_BYTES else ""


def _problem(
    product: Op, factor: _Factor, loop: Op | None, bound: set[str], loop_bytes: int, width: int
) -> str:
    """Why the second factor has no panels, made once or in front of `loop`, or ""."""
    if factor.frozen:
        return _unfit(factor.value.type, width)
    if factor.constant:
        return _no_gain(product, factor.views, CONSTANT_BYTES)
    if loop is None:
        return "nothing reads its second factor again"
    if any(guarded(v, bound) for v in factor.views):
        return "its second factor is safe behind a check alone"
    return _no_gain(product, factor.views, loop_bytes)


def _no_gain(product: Op, views: list[Op], least: int) -> str:
    """Why no product gains from panels of the second factor, which wants `least` bytes, or ""."""
    a, b = (v.type for v in product.operands[:2])
    if b.dtype not in ("f32", "f64") or b.rank != 2:
        return f"they are not for {b}"
    k, n = b.shape
    if not isinstance(k, int) or not isinstance(n, int) or n <= FEW_COLUMNS:
        return f"{b} may have few columns"
    if a.shape[0] == 1:
        return "one row reads the factor once"
    turned = any(v.name == "dimshuffle" and list(v.attrs["order"]) != sorted(v.attrs["order"]) for v in views)
    if not turned and k * n * itemsize(b.dtype) < least:
        return f"{b} is small"
    return ""


def _outermost_loop(op: Op, b: Value) -> Op | None:
    """The loop around `op` in front of which `b` is there already."""
    found, home = None, b.block
    block: Block | None = op.parent
    while block is not None and block is not home:
        around = block.parent
        if isinstance(around, Op) and around.name in LOOPS:
            found = around
        block = around.parent if isinstance(around, Op) else None
    return found


def _made(func: Func, factor: _Factor, loop: Op | None, width: int, kept: Value | None) -> Value:
    """The panels of a factor: a parameter, made in front of `loop`, or, of a constant, a constant."""
    b, source = factor.value, factor.source
    if factor.frozen:
        assert factor.layout is not None
        return _parameter(func, b, factor.layout, width)
    if loop is not None:
        assert loop.parent is not None
        there = [] if kept is None else [kept]
        value: Value = Builder(loop.parent, before=loop, loc=loop.loc).panels(b, *there, width=width)
    else:
        assert source.op is not None and source.op.parent is not None
        array = constant(source)
        for view in reversed(factor.views):
            assert view.defn.ref is not None
            array = view.defn.ref(array, **view.attrs)
        array = panels_ref(array, width)
        builder = Builder(source.op.parent, before=source.op, loc=source.op.loc)
        value = builder.const(array, b.type.with_shape(*array.shape))
    value.name = f"{b.name}_panels" if b.name else ""
    return value
