"""Facts of placed functions that the drivers of all targets share: kernels, places, outputs, what runs on the host, work."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from tcc.codegen.loops import KERNELS
from tcc.ir import dims
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.dims import Size
from tcc.ir.types import Type
from tcc.passes.cse import op_key
from tcc.runtime.signature import OutputSpec

FACTORS = ("cholesky_factor", "triangular_solve", "lu_solve", "lu_pivots")
PRODUCTS = ("matmul", "conv", "conv_input", "conv_filter")
LATE_SIZE = 256  # what a size that only running tells is taken to be


def space_of(value: Value) -> str:
    return value.type.place.space if value.type.place is not None else ""


def kernel_key(op: Op) -> Hashable:
    """Equal for ops of one function whose kernels are equal: what they do, the types of their operands, and which of these are one."""
    number: dict[Value, int] = {}
    for v in op.operands:
        number.setdefault(v, len(number))
    return op_key(op, number), tuple(v.type for v in [*op.operands, *op.results])


def is_kernel(op: Op) -> bool:
    """Whether it stands in a block of the function, of a loop or of a branch, not inside a fuse or an epilogue."""
    block = op.parent
    while block is not None and isinstance(block.parent, Op):
        if block.parent.name not in ("for", "ifelse"):
            return False
        block = block.parent.parent
    return True


def late_sizes(op: Op) -> list[str]:
    """The attributes of an op on the host that are sizes which only the running function knows."""
    return [] if op.name == "call" else [k for k, v in op.attrs.items() if isinstance(v, dims.Expr)]


def reference(op: Op) -> Callable[..., Sequence[Any]]:
    """What NumPy does for an op that runs on the host."""
    assert op.defn.ref is not None
    attrs = {k: v for k, v in op.attrs.items() if k != "into"}
    ref, late, count = op.defn.ref, late_sizes(op), len(op.reads)

    def run(*arrays: Any) -> Sequence[Any]:
        sizes = {name: int(a) for name, a in zip(late, arrays[count:])}
        with np.errstate(all="ignore"):
            made = ref(*arrays[:count], **{**attrs, **sizes})
        return made if isinstance(made, tuple) else [made]

    return run


def written_places(func: Func) -> set[Value]:
    """The parameters that some op writes, itself or through a window."""
    root: dict[Value, Value] = {p: p for p in func.body.params}
    found: set[Value] = set()
    for op in func.body.walk():
        if op.name == "view" and op.operands[0] in root:
            root[op.result] = root[op.operands[0]]
        for v in op.places:
            if v in root:
                found.add(root[v])
    return found


def makers(func: Func) -> dict[Value, Op]:
    """The first op that writes to each place, or to a window of it; of a copy, what wrote its source."""
    root: dict[Value, Value] = {}
    found: dict[Value, Op] = {}
    for op in func.body.walk():
        if op.name == "view":
            root[op.result] = root.get(op.operands[0], op.operands[0])
        for v in op.places:
            source = root.get(op.operands[0], op.operands[0]) if op.name == "copy" else None
            found.setdefault(root.get(v, v), found.get(source, op) if source is not None else op)
    return found


def output_specs(func: Func, shared: Sequence[str]) -> tuple[OutputSpec, ...]:
    """All outputs in order: those with a place of their own, those made on the way, then new buffers of containers."""
    types: list[Type] = func.attrs["outputs"]
    adopts: list[str] = func.attrs.get("adopts", [])
    made = {
        int(o.attrs["offset"])
        for o in func.body.walk()
        if o.name == "alloc" and space_of(o.result) == "output"
    }
    first = len(types) - len(adopts)
    return tuple(
        OutputSpec(t.dtype, t.shape, i in made, shared.index(adopts[i - first]) if i >= first else None)
        for i, t in enumerate(types)
    )


def op_work(op: Op) -> Size:
    """Sixteenths of a cycle that one thread needs for a placed op, roughly."""
    if op.name in ("matmul", "matmul_widening"):
        c = op.operands[-1].type
        return dims.mul(c.size, op.operands[0].type.shape[-1])
    if op.name in FACTORS:
        return dims.mul(op.defn.flops(op), 2)
    if op.name in PRODUCTS:
        return dims.floordiv(op.defn.flops(op), 2)
    if op.name == "fuse":
        body = sum(2 if o.defn.scalar else 4 for o in op.block.ops)
        return dims.mul(*op.attrs["dims"], 2 * body + 4 * len(op.operands))
    moved: Size = 0
    for v in op.operands:
        moved = dims.add(moved, v.type.size)
    return dims.mul(moved, 8)


def work(func: Func) -> Size:
    """Estimated nanoseconds of one thread for a call; a size that is known late is taken to be LATE_SIZE."""
    entry = frozenset().union(*(dims.names_of(s) for p in func.body.params for s in p.type.shape))

    def of(block: Block) -> Size:
        total: Size = 0
        for op in block.ops:
            if op.name == "for":
                cost = dims.mul(op.attrs["length"], dims.add(of(op.block), 1600))
            elif op.name == "ifelse":
                cost = dims.maximum(*map(of, op.blocks))
            elif op.name in KERNELS:
                cost = op_work(op)
            else:
                continue
            late = dims.names_of(cost) - entry
            total = dims.add(total, dims.substitute(cost, dict.fromkeys(late, LATE_SIZE)))
        return total

    return of(func.body) // 64
