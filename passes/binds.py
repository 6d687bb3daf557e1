"""Sizes that are bound at run time: those that need not be go away, the others are bound as early as they can be."""

from __future__ import annotations

from tcc.ir.clone import substitute_sizes
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.dims import Size, nonnegative, sub, substitute
from tcc.passes.manager import Context

LONGEST = 200  # characters of a size that is written in place of its name


def binds(func: Func, ctx: Context) -> None:
    """Merges names of equal values, replaces names of known sizes, drops the checks that this decides, and moves each `bind`
    behind the op that makes its value, so that memory can be planned from there on.
    """
    known: dict[str, Size] = {}
    _collect(func.body, {}, known)
    if known:
        substitute_sizes(func, known)
    for op in list(func.body.walk()):
        if op.name == "check_size" and op.attrs["left"] == op.attrs["right"]:
            op.erase()
        elif op.name == "check_index" and _counts_within(op):
            op.erase()
        elif op.name == "refine" and op.operands[0].type == op.result.type:
            op.replace_by([op.operands[0]])


def _counts_within(check: Op) -> bool:
    """Whether the indices are 0, 1, 2, ... and certainly end before the bound."""
    made = check.operands[0].op
    if made is None or made.name != "iota":
        return False
    return nonnegative(sub(check.attrs["bound"], made.attrs["shape"][made.attrs["axis"]]))


def _collect(block: Block, first: dict[Value, Size], known: dict[str, Size]) -> None:
    first = dict(first)
    for op in block.ops:
        for inner in op.blocks:
            _collect(inner, first, known)
        if op.name != "bind":
            continue
        name, value = op.attrs["size"], op.operands[0]
        assert not isinstance(name, int) and name.plain is not None
        made = value.op
        if made is not None and made.name == "size":
            size = substitute(made.attrs["value"], known)
            if isinstance(size, int) or len(size.text) <= LONGEST:
                known[name.plain] = size
                op.erase()
        elif value in first:
            known[name.plain] = first[value]
            op.erase()
        else:
            first[value] = name
            _move_up(op, block, made)


def _move_up(op: Op, block: Block, made: Op | None) -> None:
    """Right behind the op that makes the value; to the block's head if that is outside of it."""
    after = made if made is not None and made.parent is block else None
    before = after.next if after is not None else block.first
    while before is not None and before.name == "bind" and before is not op:
        before = before.next
    if before is not op:
        block.move(op, before)
