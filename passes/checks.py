"""Checks that cannot fail, and checks that need not wait for a cast."""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from tcc.ir import dims
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.ops.sparse import PRODUCTS as SPARSE
from tcc.passes.access import identity, resolve
from tcc.passes.fold import constant
from tcc.passes.manager import Context
from tcc.passes.rules import WIDER
from tcc.passes.sizes import op_names

INDEXED = frozenset({"gather", "scatter", "xent"}) | SPARSE


def checks(func: Func, ctx: Context) -> None:
    """Drops checks that certainly succeed or that were made before, and checks an index before a cast that keeps its value."""
    made: set[tuple[Block | None, Value, dims.Size]] = set()
    for op in list(func.body.walk()):
        if op.name == "check_index":
            _before_cast(op)
        if certain(op):
            op.erase()
        elif op.name == "check_index":
            check = (op.parent, op.operands[0], op.attrs["bound"])
            if check in made:
                op.erase()
            made.add(check)


def guarded(op: Op, bound: Container[str]) -> bool:
    """Whether an operation, or one inside it, is only safe behind the checks in front of it, as it would leave its operands'
    memory: what takes indices, windows that begin at sizes named in `bound`, and reshapes of sizes that running finds to be
    equal."""
    if any(guarded(o, bound) for b in op.blocks for o in b.ops):
        return True
    if op.name == "reshape":
        return bool(op.operands[0].type.size != op.result.type.size)
    if op.name in ("slice", "insert"):
        return any(name in bound for name in op_names(op))
    return op.name in INDEXED


def names_bound(block: Block) -> set[str]:
    """The sizes that a block, or one inside it, binds as it runs."""
    return {str(op.attrs["size"]) for op in block.walk() if op.name == "bind"}


def _before_cast(op: Op) -> None:
    source = root(op.operands[0])
    if source is not op.operands[0]:
        op.set_operand(0, source)


def root(index: Value) -> Value:
    """What an index is a wider form of."""
    made = index.op
    while made is not None and made.name == "cast":
        source = made.operands[0]
        if source.type.dtype == "bool" or made.result.type.dtype not in WIDER.get(source.type.dtype, ()):
            break
        index, made = source, source.op
    return index


def certain(op: Op) -> bool:
    """Whether a check holds whatever the data and sizes are."""
    if op.name == "check_size":
        return bool(op.attrs["left"] == op.attrs["right"])
    if op.name != "check_index":
        return False
    index = op.operands[0]
    made = resolve(index, identity(index.type.rank)).value.op
    bound = op.attrs["bound"]
    if made is not None and made.name == "const" and isinstance(bound, int):
        values = np.asarray(constant(made.result))
        return bool(((values >= -bound) & (values < bound)).all())
    if made is None or made.name != "iota":
        return False
    count = made.result.type.shape[int(made.attrs["axis"])]
    return dims.nonnegative(dims.sub(bound, count))
