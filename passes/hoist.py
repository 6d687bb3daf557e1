"""Loop-invariant code."""

from __future__ import annotations

from tcc.ir.builder import Builder
from tcc.ir.clone import clone_op
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.dims import nonnegative, sub
from tcc.passes.checks import guarded, names_bound
from tcc.passes.cse import repeatable
from tcc.passes.manager import Context
from tcc.passes.sizes import op_names

LOOPS = frozenset({"scan", "for"})


def hoist(func: Func, ctx: Context) -> None:
    """Moves what does not change from step to step out of loops; what is safe behind a check alone stays behind it, and what
    may raise runs only if there is a step."""
    _visit(func.body, names_bound(func.body))


def _visit(block: Block, bound: set[str]) -> None:
    for op in block.ops:
        for inner in op.blocks:
            _visit(inner, bound)
        if op.name in LOOPS:
            _hoist(op, op.block, bound)


def _hoist(loop: Op, body: Block, bound: set[str]) -> None:
    assert loop.parent is not None
    inside: set[Value] = set(body.params)
    names = _names_bound(loop, body)
    checked = False
    for op in body.ops:
        checked = checked or op.defn.fails
        moves = repeatable(op) and not _reads(op, inside) and not names & op_names(op)
        if moves and not (checked and guarded(op, bound)):
            loop.parent.move(op, before=loop)
            if _raises(op) and not nonnegative(sub(loop.attrs["length"], 1)):
                _if_there_are_steps(loop, op)
        else:
            inside.update(op.results)


def _raises(op: Op) -> bool:
    return op.defn.raises or any(_raises(o) for b in op.blocks for o in b.ops)


def _if_there_are_steps(loop: Op, op: Op) -> None:
    """`op`, which stands before `loop`, for a loop that takes a step; else its results, which nobody reads, are zeros."""
    assert loop.parent is not None
    then, otherwise = Block(), Block()
    Builder(then).op("yield", *then.append(clone_op(op, {}, {})).results)
    zeros = Builder(otherwise, loc=op.loc)
    zeros.op("yield", *(zeros.full(0, r) for r in op.results))
    b = Builder(loop.parent, before=op, loc=op.loc)
    some = b.gt(b.size_value(loop.attrs["length"]), 0)
    op.replace_by(b.op("ifelse", some, blocks=[then, otherwise]).results)


def _reads(op: Op, inside: set[Value]) -> bool:
    if any(v in inside for v in op.operands):
        return True
    return any(v in inside for b in op.blocks for o in b.walk() for v in o.operands)


def _names_bound(loop: Op, body: Block) -> set[str]:
    """The size names that exist only inside the loop."""
    names = names_bound(body)
    if "index" in loop.attrs:
        names.add(str(loop.attrs["index"]))
    return names
