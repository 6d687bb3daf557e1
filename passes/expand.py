"""Composite operations."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func, Op, Value
from tcc.passes.indexing import picks
from tcc.passes.manager import Context


def expand(func: Func, ctx: Context) -> None:
    """Writes operations whose row has an expansion (softmax, xent, ...) in terms of others, so that fusion sees inside;
    a scatter of one element to each row becomes elementwise, too."""
    _visit(func.body)


def _visit(block: Block) -> None:
    op = block.first
    while op is not None:
        for inner in op.blocks:
            _visit(inner)
        before = op.prev
        results = _expansion(op, Builder(block, before=op, loc=op.loc))
        if results is None:
            op = op.next
            continue
        for old, new in zip(op.results, results):
            new.name = new.name or old.name
        op.replace_by(list(results))
        op = before.next if before is not None else block.first  # what it became may hold composites again


def _expansion(op: Op, b: Builder) -> Sequence[Value] | None:
    if op.name == "scatter" and picks(op):
        return [one_in_each_row(op, b)]
    if op.defn.expand is None or op.defn.kernel:
        return None
    results: Sequence[Value] = op.defn.expand(b, op)
    return results


def one_in_each_row(op: Op, b: Builder) -> Value:
    """scatter(x, v, iota, y) as where(iota == y, v, x), or with x + v in place of v."""
    x, v, *_, y = op.operands
    shape, rank = list(x.type.shape), x.type.rank
    count = b.broadcast(b.size_value(shape[-1], dtype=y.type.dtype), shape=list(y.type.shape))
    column = b.where(b.lt(y, 0), b.add(y, count), y)

    def over_rows(value: Value) -> Value:
        result: Value = b.broadcast(b.dimshuffle(value, order=[*range(rank - 1), -1]), shape=shape)
        return result

    chosen = b.eq(b.iota(shape=shape, axis=rank - 1, dtype=y.type.dtype), over_rows(column))
    wide = over_rows(v)
    result: Value = b.where(chosen, wide if op.attrs["mode"] == "set" else b.add(x, wide), x)
    return result
