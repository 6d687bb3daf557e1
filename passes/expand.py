"""Composite operations."""

from __future__ import annotations

from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func
from tcc.passes.manager import Context


def expand(func: Func, ctx: Context) -> None:
    """Writes operations whose row has an expansion (softmax, xent, ...) in terms of others, so that fusion sees inside."""
    _visit(func.body)


def _visit(block: Block) -> None:
    op = block.first
    while op is not None:
        for inner in op.blocks:
            _visit(inner)
        if op.defn.expand is None or op.defn.kernel:
            op = op.next
            continue
        before = op.prev
        results = op.defn.expand(Builder(block, before=op, loc=op.loc), op)
        for old, new in zip(op.results, results):
            new.name = new.name or old.name
        op.replace_by(list(results))
        op = before.next if before is not None else block.first  # what it became may hold composites again
